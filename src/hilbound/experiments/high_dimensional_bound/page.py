"""Tables and pictures of :mod:`hilbound.experiments.high_dimensional_bound.experiment`."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hilbound import datasets
from hilbound.engine.seeding import stream
from hilbound.experiments.base import Cell, Picture, Row, drawn_from, select, spread
from hilbound.reports import plots
from hilbound.reports.drawing import PALETTE, REAL, tidy
from hilbound.reports.page import Table
from hilbound.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hilbound.experiments.high_dimensional_bound.settings import HighSettings, Source


def tables(settings: "HighSettings", rows: Sequence[Row]) -> list[Table]:
    """Return the bounds, their bias and spread, the numerics, and other variances."""
    return [
        _bounds(settings, rows),
        _draws(settings, rows),
        _numerics(settings, rows),
        _variances(settings, rows),
    ]


def _bounds(settings: "HighSettings", rows: Sequence[Row]) -> Table:
    lines = []
    for source in settings.sources:
        for row in select(rows, data=source.data):
            kinds = [("real half", b) for b in row["bounds"] if b.get("real")]
            kinds += [("model", most(row))]
            lines += [_bound_line(source, row, kind, b) for kind, b in kinds]
    return Table(
        (
            "data",
            "d",
            "seed",
            "centres are",
            "rows",
            "centres",
            "log value",
            "log limit",
            "gap",
            "tightness",
            "rounding",
            "s.e. of centres",
            "s.e. of rows",
            "seconds",
        ),
        tuple(lines),
        "The bound in nats: exact for these rows and centres up to 'rounding', which is certified; "
        "standard errors say how far it moves with other centres, or other rows. Centres that are "
        "the other half of the data are what a perfect model can reach with as many",
    )


def most(row: Row) -> Row:
    """Return the model's bound with the most centres: of several, the one with a certificate."""
    own = (b for b in row["bounds"] if not b.get("real"))
    return max(own, key=lambda b: (b["centers"], "error" in b))


def _bound_line(source: "Source", row: Row, kind: str, b: Row) -> tuple[str, ...]:
    errors = row["errors"]
    of_center = errors["of_row" if kind != "model" else "of_center"] / math.sqrt(b["centers"])
    return (
        source.title,
        f"{row['dim']:,}",
        str(row["seed"]),
        kind,
        f"{b['rows']:,}",
        f"{b['centers']:,}",
        f"{b['log_value']:,.4f}",
        f"{b['log_limit']:,.4f}",
        f"{b['gap']:.6f}",
        f"{math.exp(-b['gap']):.4f}",
        f"{b['error']:.1g}",
        f"{of_center:.1g}" if kind == "model" else "–",
        f"{errors['of_row'] / math.sqrt(b['rows']):.1g}" if kind == "model" else "–",
        f"{b['took']:.0f}" if "took" in b else "–",
    )


def sizes_of(rows: Sequence[Row]) -> list[int]:
    """Return the numbers of centres that a model was measured with."""
    return sorted({b["centers"] for row in rows for b in row["bounds"] if not b.get("real")})


def _gaps(row: Row, size: int, name: str) -> list[float]:
    return [b[name] for b in row["bounds"] if b["centers"] == size and not b.get("real")]


def _draws(settings: "HighSettings", rows: Sequence[Row]) -> Table:
    lines: list[tuple[str, ...]] = []
    for source in settings.sources:
        own = select(rows, data=source.data)
        batches = [row["batch"] for row in own]
        lines.append(
            (
                source.title,
                f"{batches[0]['rows']:,}",
                f"{batches[0]['centers']:,}",
                spread([b["gap"] for b in batches], 4),
                spread([b["unbiased_gap"] for b in batches], 4),
                "–",
                "–",
            )
        )
        lines += [_draw_line(source, own, size) for size in sizes_of(own)]
    return Table(
        ("data", "rows", "centres", "gap", "gap without bias", "s.d. over draws", "predicted"),
        tuple(lines),
        "The gap with few centres, and with few rows (a training's batch, first line of each): "
        "mean ± standard deviation over the seeds. Its deviation over draws of the centres stands "
        "beside a prediction: that of the fewest centres, by the root of the number (both are root "
        "mean squares over the seeds)",
    )


def _draw_line(source: "Source", own: Sequence[Row], size: int) -> tuple[str, ...]:
    drawn = [row for row in own if _gaps(row, size, "gap")]
    means = {
        name: spread([statistics.mean(_gaps(row, size, name)) for row in drawn], 4)
        for name in ("gap", "unbiased_gap")
    }
    several = [_gaps(row, size, "unbiased_gap") for row in drawn]
    variances = [statistics.variance(gaps) for gaps in several if len(gaps) > 1]
    predicted = [row["errors"]["of_center"] ** 2 / size for row in drawn]
    return (
        source.title,
        f"{drawn[0]['rows']:,}",
        f"{size:,}",
        means["gap"],
        means["unbiased_gap"],
        f"{math.sqrt(statistics.mean(variances)):.1g}" if variances else "–",
        f"{math.sqrt(statistics.mean(predicted)):.1g}",
    )


def _numerics(settings: "HighSettings", rows: Sequence[Row]) -> Table:
    lines = []
    for source in settings.sources:
        found = [row["oracle"] for row in select(rows, data=source.data)]
        lines.append(
            (
                source.title,
                f"{found[0]['size']:,}",
                f"10^{found[0]['exponent_of_peak']:,.0f}",
                f"10^{found[0]['exponent']:,.0f}",
                "yes" if all(o["quotient"] for o in found) else "no",
                f"{max(o['float32_difference'] for o in found):.1g}",
                f"{max(o['difference'] for o in found):.1g}",
                f"{max(o['certified'] for o in found):.1g}",
            )
        )
    return Table(
        (
            "data",
            "rows and centres",
            "N(0; 2v)",
            "limit",
            "quotient of float64 densities",
            "float32 logarithms",
            "hilbound",
            "certified",
        ),
        tuple(lines),
        "How far the gap is from differences squared and summed in float64, in nats: as a "
        "difference of plain float32 logarithms, and as the library computes it; float64 holds "
        "numbers from 10^-308 to 10^308",
    )


def _variances(settings: "HighSettings", rows: Sequence[Row]) -> Table:
    lines = []
    for source in settings.sources:
        own = select(rows, data=source.data)
        for i, factor in enumerate(settings.factors):
            pairs = [row["variances"][i] for row in own]
            kernel = statistics.mean(row["kernel"] for row in own) * factor
            lines.append(
                (
                    source.title,
                    f"{kernel:.3g}",
                    spread([p["model"] for p in pairs], 4),
                    spread([p["real"] for p in pairs], 4),
                )
            )
    return Table(
        ("data", "variance of the kernel", "gap of the model", "gap of other real rows"),
        tuple(lines),
        "A gap is one at its variance (the middle one is that of the training): without bias, mean "
        "± standard deviation over the seeds",
    )


def gap_picture(settings: "HighSettings", rows: Sequence[Row]) -> Picture:
    """Draw the gap against the number of centres, a panel for each data set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(settings.sources), 3.2), layout="constrained")
    axes = figure.subplots(1, len(settings.sources), squeeze=False)[0]
    for ax, source in zip(axes, settings.sources, strict=True):
        own = [select(rows, data=source.data)[0]]
        sizes = sizes_of(own)
        for name, label, color in (
            ("gap", "as it is", PALETTE[0]),
            ("unbiased_gap", "without bias", PALETTE[1]),
        ):
            means = [statistics.mean(_gaps(own[0], m, name)) for m in sizes]
            bars = [2 * own[0]["errors"]["of_center"] / math.sqrt(m) for m in sizes]
            ax.errorbar(sizes, means, bars, label=label, color=color, capsize=3, marker="o", ms=4)
        for b in own[0]["bounds"]:
            if b.get("real"):
                ax.plot(b["centers"], b["gap"], "D", color=REAL, ms=5, label="other real rows")
        ax.set_xscale("log")
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
        ax.set_xlabel("centres")
        ax.set_title(f"{source.data}, d = {own[0]['dim']:,}", fontsize=10)
        tidy(ax)
    axes[0].set_ylabel("gap in nats, all training rows")
    axes[0].legend(frameon=False, fontsize=8)
    return Picture(
        "gap",
        figure,
        "The gap against the number of centres, with and without its bias",
        "The gap of all training rows, seed 0, mean over the draws; bars are two standard errors "
        "of a single draw.",
    )


def sample_picture(settings: "HighSettings", rows: Sequence[Row], work: Path) -> Picture:
    """Draw data and samples of the models of the first seed, side by side."""
    runs = {}
    for source in settings.sources:
        row = select(rows, data=source.data)[0]
        name = Cell.of(data=source.data, all_centers=row["all_centers"], seed=row["seed"]).name
        runs[source.data] = work / name / "run"
    kept = Picture(
        "samples",
        None,
        "Images of the data beside samples of the models",
        "Data, and samples of what a short training made: small networks, to have "
        "something to bound.",
    )
    return drawn_from(
        runs.values(), lambda: replace(kept, figure=_drawn(settings, rows, runs)), kept
    )


def _drawn(settings: "HighSettings", rows: Sequence[Row], runs: Mapping[str, Path]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 1.6 * len(settings.sources)), layout="constrained")
    axes = figure.subplots(len(settings.sources), 2, squeeze=False)
    for pair, source in zip(axes, settings.sources, strict=True):
        row = select(rows, data=source.data)[0]
        dataset = datasets.load(source.data, seed=row["seed"], **source.image_options)
        samples = Run.open(runs[source.data]).model.sample(8, stream(0, "shown"))
        for ax, images, what in zip(
            pair, (dataset.train[:8], samples), ("data", "model"), strict=True
        ):
            plots.plot_images(ax, images.reshape(-1, *(dataset.image_shape or ())), columns=4)
            ax.set_title(f"{source.data}: {what}", fontsize=9)
    return figure
