"""Bound tightness: does a smaller gap of the conditional bound mean better reconstructions?

The gap falls while training, and it falls with the number of centres K. So trainings of several
lengths are made with several K, on all training images, and the gap on held-out images stands
beside what the reconstructions of held-out images are worth
(:mod:`hilbound.experiments.yardstick`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch

from hilbound.drawing import PALETTE, tidy
from hilbound.experiments.base import (
    Cell,
    Claim,
    Experiment,
    Picture,
    Row,
    select,
    spread,
    values_of,
)
from hilbound.experiments.conditional_runs import (
    QUICK,
    ConditionalSettings,
    bounds_at_end,
    conditional_model,
    train_conditional,
)
from hilbound.experiments.yardstick import MEASURES, MEASURES_EXPLAINED, Yardstick
from hilbound.page import Table
from hilbound.seeding import stream

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Qualities of reconstructions that the gap is held against.
QUALITIES = ("best", "nearest", "sure", "agreement")
_MARKS = "osD^v"


class TightnessSettings(ConditionalSettings):
    """The training that all cells share: on all images, and for several numbers of steps."""

    samples: int | None = None
    centers: tuple[int, ...] = (1, 5, 10, 30)
    lengths: tuple[int, ...] = (60, 200, 600)
    bound_every: int = 10_000


class BoundTightness(Experiment[TightnessSettings]):
    """The gap on held-out images against the quality of their reconstructions."""

    name = "bound-tightness"
    title = "Bound tightness: the gap of the conditional bound against reconstructions"
    question = """
The *gap* between the logarithms of the conditional cost and of its limit says how far a decoder is
from the best that its features allow. Does a smaller gap mean better reconstructions? Trainings
with one feature, with K centres and of several lengths are compared: those of one K among each
other, and those of different K at the same length. Gap and reconstructions are of held-out images.
"""

    def settings(self, *, quick: bool) -> TightnessSettings:
        """Return the settings of MNIST, or tiny ones on digits."""
        if quick:
            return TightnessSettings(**QUICK | {"lengths": (5, 20)})
        return TightnessSettings()

    def cells(
        self,
        settings: TightnessSettings,
        seeds: Sequence[int],
        rows: Sequence[Row],  # noqa: ARG002
    ) -> Iterable[Cell]:
        """Return one training for every K, length and seed."""
        for steps in settings.lengths:
            for k in settings.centers:
                yield from (Cell.of(centers=k, steps=steps, seed=seed) for seed in seeds)

    def measure(self, settings: TightnessSettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Train once; return the bound and the quality of reconstructions."""
        run = train_conditional(settings, folder, **options)
        model, yardstick = conditional_model(run), Yardstick.of(settings)
        several = model.reconstruct(
            yardstick.inputs, settings.reconstructions, stream(0, "reconstructions")
        )
        return bounds_at_end(run, settings) | yardstick.measure(model, several)

    def claims(self, settings: TightnessSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return a claim for each quality within one K, and one over all K."""
        return [
            _smaller_with_centers(settings, rows),
            *(_within_one_k(settings, rows, name) for name in QUALITIES),
            *(_across_k(settings, rows, name) for name in QUALITIES),
        ]

    def tables(self, settings: TightnessSettings, rows: Sequence[Row]) -> list[Table]:
        """Return gap, tightness and qualities for every K and length."""
        return [
            Table(
                ("steps", "K", "gap", "tightness", *(m.title for m in MEASURES.values())),
                tuple(
                    (str(steps), str(k), *_figures(select(rows, steps=steps, centers=k)))
                    for steps in settings.lengths
                    for k in settings.centers
                ),
                "On held-out images",
            )
        ]

    def pictures(
        self,
        settings: TightnessSettings,
        rows: Sequence[Row],
        work: Path,  # noqa: ARG002
    ) -> Iterator[Picture]:
        """Draw each quality against the gap."""
        from matplotlib.figure import Figure  # noqa: PLC0415 - only for a picture

        figure = Figure(figsize=(8.0, 6.4), layout="constrained")
        for ax, name in zip(figure.subplots(2, 2).flat, QUALITIES, strict=True):
            _against_gap(ax, settings, rows, name)
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
        yield Picture(
            "gap", figure, "Four qualities of reconstructions against the gap, a line for each K",
            "Lines join the means over the seeds, from the shortest training (right) to the "
            "longest (left); faint points are the seeds. The two errors on top are better low, the "
            "two shares below are better high.",
        )  # fmt: skip

    def notes(self, settings: TightnessSettings, rows: Sequence[Row]) -> str:  # noqa: ARG002
        """Explain the measures."""
        return (
            f"{MEASURES_EXPLAINED.strip()}\n\n{settings.inputs} inputs, "
            f"{settings.reconstructions} reconstructions of each; the bound is that of "
            f"{settings.bound_rows} held-out images as the whole of the data, the mean over "
            f"{settings.noise_draws} draws of the noise."
        )


def rank_correlation(rows: Sequence[Row], quality: str) -> float | None:
    """Return Spearman's correlation of a small gap with a good quality, in [-1, 1].

    It is ``None`` where fewer than three trainings have reconstructions that can be measured.

    >>> rows = [{"test_gap": 3.0 - i, "best": 0.2 - 0.1 * i} for i in range(3)]
    >>> rank_correlation(rows, "best")  # a smaller error is better
    1.0
    """
    from torchmetrics.functional import spearman_corrcoef  # noqa: PLC0415 - slow to import

    rows = [row for row in rows if row[quality] is not None]
    if len(rows) < 3:
        return None
    gaps = torch.tensor(values_of(rows, "test_gap"))
    values = MEASURES[quality].better * torch.tensor(values_of(rows, quality))
    return round(float(spearman_corrcoef(-gaps, values)), 4)


def _written(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _mean(values: Sequence[float]) -> float | None:
    return mean(values) if values else None


def _figures(rows: Sequence[Row]) -> list[str]:
    first = [spread(values_of(rows, name)) for name in ("test_gap", "test_tightness")]
    return first + [spread(values_of(rows, n), m.digits) for n, m in MEASURES.items()]


def _smaller_with_centers(settings: TightnessSettings, rows: Sequence[Row]) -> Claim:
    few, many = settings.centers[0], settings.centers[-1]
    differences = [
        [a - b for a, b in zip(*(values_of(rows, "test_gap", steps=steps, centers=k)
                                 for k in (few, many)), strict=True)]
        for steps in settings.lengths
    ]  # fmt: skip
    longest = differences[-1]
    return Claim(
        "More centres make the gap smaller",
        f"from K = {few} to {many} it falls by "
        + ", ".join(
            f"{spread(own)} nats after {steps} steps"
            for steps, own in zip(settings.lengths, differences, strict=True)
        ),
        min(longest) > 0,
    )


def _within_one_k(settings: TightnessSettings, rows: Sequence[Row], name: str) -> Claim:
    found = {k: rank_correlation(select(rows, centers=k), name) for k in settings.centers}
    return Claim(
        f"With one K, a training of smaller gap has better reconstructions: {_TITLES[name]}",
        "rank correlation "
        + ", ".join(f"{_written(value)} for K = {k}" for k, value in found.items())
        + " (holds from 0.5 for all)",
        all(value is not None and value >= 0.5 for value in found.values()),
    )


def _across_k(settings: TightnessSettings, rows: Sequence[Row], name: str) -> Claim:
    """At the longest training, K is all that changes the gap."""
    steps = settings.lengths[-1]
    own = select(rows, steps=steps)
    found = rank_correlation(own, name)
    first, last = (
        _written(_mean(values_of(own, name, centers=k)), MEASURES[name].digits)
        for k in (settings.centers[0], settings.centers[-1])
    )
    return Claim(
        f"At equal length, the K of smaller gap has better reconstructions: {_TITLES[name]}",
        f"rank correlation {_written(found)} after {steps} steps (holds from 0.5); {first} with "
        f"K = {settings.centers[0]}, {last} with K = {settings.centers[-1]}",
        found is not None and found >= 0.5,
    )


_TITLES = {
    "best": "the error of the best of them",
    "nearest": "the distance to the nearest real image",
    "sure": "the classifier's certainty",
    "agreement": "the agreement of classes",
}


def _against_gap(ax: "Axes", settings: TightnessSettings, rows: Sequence[Row], name: str) -> None:
    for i, k in enumerate(settings.centers):
        own = [row for row in select(rows, centers=k) if row[name] is not None]
        color = PALETTE[i % len(PALETTE)]
        ax.scatter(values_of(own, "test_gap"), values_of(own, name), s=12, color=color, alpha=0.35,
                   linewidths=0)  # fmt: skip
        lengths = [steps for steps in settings.lengths if select(own, steps=steps)]
        gap, value = (
            [mean(values_of(own, column, steps=steps)) for steps in lengths]
            for column in ("test_gap", name)
        )
        ax.plot(gap, value, marker=_MARKS[i % len(_MARKS)], color=color, label=f"K = {k}")
    ax.set_xlabel("gap in nats, held-out images")
    ax.set_ylabel(MEASURES[name].title)
    tidy(ax)


EXPERIMENT = BoundTightness()
