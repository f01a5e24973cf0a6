"""Tables and pictures of :mod:`hilbound.experiments.kernel_or_distance.experiment`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hilbound import datasets
from hilbound.engine.seeding import stream
from hilbound.evaluation.quality import METRICS
from hilbound.experiments.base import Cell, Picture, Row, drawn_from, select, spread, values_of
from hilbound.experiments.kernel_or_distance.kernels import COSTS, look_alikes
from hilbound.reports import plots
from hilbound.reports.drawing import MODEL
from hilbound.reports.page import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hilbound.experiments.kernel_or_distance.settings import KernelSettings

#: The metrics of :mod:`hilbound.evaluation.evaluate` that are reported.
REPORTED = ("precision", "recall", "density", "coverage", "frechet_distance", "classes_hit")


def sets_of(row: Row) -> list[tuple[str, Row]]:
    """Return the sets of points in a row of the theory, by name."""
    return [(name, one) for name, one in row.items() if isinstance(one, dict)]


def quality_table(rows: Sequence[Row]) -> Table:
    """Return the measures of samples of every cost, and of real rows in their place."""
    columns = ("confidence", *REPORTED, "spread")
    titles = tuple(METRICS[n].title if n in METRICS else n.capitalize() for n in columns)
    lines = []
    for name in (*COSTS, "real"):
        own = select(rows, cost=name)
        ranks = values_of(own, "rank")
        scales = values_of(own, "scale") if name != "distance" else []
        cells = [
            spread(values_of(own, n), 1 if n in {"frechet_distance", "classes_hit"} else 3)
            for n in columns
        ]
        lines.append(
            (
                name if name != "real" else "real rows",
                f"{scales[0]:.3g}" if scales else "–",
                f"{ranks[0]:.1f}" if ranks else "–",
                *cells,
            )
        )
    return Table(
        ("cost", "scale", "effective rank", *titles),
        tuple(lines),
        "Samples against held-out rows, mean ± standard deviation over the seeds; real "
        "training rows in the place of samples last",
    )


def theory_table(settings: "KernelSettings", rows: Sequence[Row]) -> Table:
    """Return what distances and a kernel see of sets that share mean and covariance."""
    row = select(rows, cost="theory")[0]
    lines = tuple(
        (
            name,
            f"{one['fourth']:.4f}",
            f"{one['distance']:.9f}",
            f"{one['gaussian']:.9f}",
            str(one["rank"]),
            str(one["gaussian_rank"]),
        )
        for name, one in sets_of(row)
    )
    return Table(
        (
            "set",
            "E|x|⁴",
            "norm of distances",
            "norm of the Gaussian kernel",
            "rank of distances",
            "rank of the kernel",
        ),
        lines,
        f"Sets of {settings.toy_points} points with mean 0 and covariance 1, against the same "
        f"{settings.toy_points // 2} points: nuclear norms, normalised, in float64, seed 0",
    )


def samples_picture(settings: "KernelSettings", work: Path) -> Picture:
    """Draw samples of every cost, and real images."""
    files = {name: work / Cell.of(cost=name, seed=0).name / "samples.pt" for name in COSTS}
    kept = Picture(
        "samples",
        None,
        "Ten samples of each cost, and ten real images",
        "The first ten samples of every cost, seed 0.",
    )
    return drawn_from(files.values(), lambda: replace(kept, figure=_drawn(settings, files)), kept)


def _drawn(settings: "KernelSettings", files: Mapping[str, Path]) -> "Figure":
    from matplotlib.figure import Figure

    dataset = datasets.load(settings.data, samples=settings.rows)
    shape = dataset.image_shape or (1, 1, dataset.dim)
    figure = Figure(figsize=(5.4, 0.75 * (len(COSTS) + 1)), layout="constrained")
    axes = figure.subplots(len(COSTS) + 1, 1)
    for ax, name in zip(axes, (*COSTS, "real"), strict=True):
        images = dataset.test[:10]
        if name != "real":
            images = torch.load(files[name], weights_only=True).float()
        plots.plot_images(ax, images.reshape(-1, *shape), columns=10)
        ax.set_title(name, fontsize=9, loc="left")
    return figure


def sets_picture(settings: "KernelSettings", rows: Sequence[Row]) -> Picture:
    """Draw the sets that fool distances, with their norms."""
    from matplotlib.figure import Figure

    sets = look_alikes(settings.toy_points, stream(0, "look-alikes"))
    row = select(rows, cost="theory")[0]
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    for ax, (name, x) in zip(figure.subplots(1, len(sets)), sets.items(), strict=True):
        ax.scatter(x[:, 0], x[:, 1], s=8, color=MODEL, linewidths=0)
        ax.set(aspect="equal", xlim=(-3, 3), ylim=(-3, 3), xticks=[], yticks=[])
        one = row[name]
        ax.set_title(
            f"{name}\ndistance {one['distance']:.4f}\nGaussian {one['gaussian']:.4f}", fontsize=9
        )
    return Picture(
        "sets",
        figure,
        "Four sets of points with the nuclear norms of each",
        "Same mean and covariance. The norm of the distances cannot tell the first "
        "three apart; that of the Gaussian kernel can.",
    )
