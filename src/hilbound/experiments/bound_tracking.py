"""Bound tracking: the conditional cost against its limit while training, for K centres.

A better decoder makes a jointly trained encoder learn something else, and the limit moves with it.
So values of K are compared by two protocols (:mod:`hilbound.experiments.shared.conditional_runs`):
jointly trained, and with one frozen encoder that all decoders share.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

from hilbound.bounds import log_component_norm
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
from hilbound.experiments.shared.conditional_runs import (
    QUICK,
    ConditionalSettings,
    bounds_at_end,
    curves,
    deviation,
    frozen_cell,
    has_real,
    joint_cell,
    reach_real_rows,
    seeds_with_encoder,
    train_conditional,
)
from hilbound.reports.drawing import PALETTE, draw_line, look, step_axis, tidy
from hilbound.reports.page import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PROTOCOLS = ("joint", "frozen")
#: What rounding may take from a double sum in float64, in nats.
ROUNDING = 1e-9


#: What is claimed of tightness with the most centres, and of its gain over one centre.
_NEAR, _GAIN = 0.70, 0.1


class TrackingSettings(ConditionalSettings):
    """The training that all cells share, long enough to come near the limit."""

    steps: int = 1200
    learning_rate: float = 4e-3


class BoundTracking(Experiment[TrackingSettings]):
    """Cost and limit while training, for every K, encoder trained with it or frozen."""

    name = "bound-tracking"
    title = "Bound tracking: the conditional cost against its limit while training"
    question = """
An encoder gives every image one feature; a decoder turns the feature and noise into K centres of a
Gaussian mixture q(x|y). Training raises the cost ⟨p, q⟩² / ⟨q, q⟩, averaged over features, towards
its limit ‖p(X|Y)‖², the norm of the data's own conditional density at these features. Both sides
are computed exactly while training, on the same training rows and on the same held-out rows. Does
the cost come nearer to its limit with more centres? *Tightness* is the cost's share of the limit.
Even a perfect sampler has a tightness below 1 with K centres, so beside each stands that of *K real
rows* with the feature, test rows in the decoder's place (`docs/conditional.md` of the repository).

*Joint*: encoder and decoder are trained together for every K, so that the limit moves with the
encoder. *Frozen*: the encoder of one joint training is kept as it is, and a fresh decoder is fitted
to it for every K: all share one limit, and only the decoder can close the gap.
"""

    def settings(self, *, quick: bool) -> TrackingSettings:
        """Return the settings of MNIST, or tiny ones on digits."""
        return TrackingSettings(**QUICK) if quick else TrackingSettings()

    def cells(
        self, settings: TrackingSettings, seeds: Sequence[int], rows: Sequence[Row]
    ) -> Iterable[Cell]:
        """Return joint trainings, and frozen ones where there is an encoder for them."""
        yield from (joint_cell(k, seed) for seed in seeds for k in settings.centers)
        for seed in seeds_with_encoder(settings, seeds, rows):
            yield from (frozen_cell(k, seed) for k in settings.centers)

    def measure(
        self, settings: TrackingSettings, options: Mapping[str, object], folder: Path
    ) -> Row:
        """Train once; return what was tracked, and the bound at the end."""
        run = train_conditional(
            settings,
            folder,
            frozen=options["protocol"] == "frozen",
            centers=options["centers"],
            seed=options["seed"],
            learning_rate=settings.learning_rate,
        )
        dim = run.read_json("run.json")["data"]["dim"]
        tracked = curves(run.read_bounds(), log_component_norm(run.component_variance, dim))
        return tracked | bounds_at_end(run, settings)

    def claims(self, settings: TrackingSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return claims about K, real rows and held-out rows, then what is proved."""
        frozen = select(rows, protocol="frozen")
        return [
            _tighter_with_centers(settings, rows, "frozen"),
            _tighter_with_centers(settings, rows, "joint"),
            *([reach_real_rows(settings, frozen, "train")] if has_real(frozen, "train") else []),
            _limit_moves(rows),
            _held_out(rows),
            _never_above(rows),
            _limit_stands_still(rows),
            _near(settings, rows),
        ]

    def tables(self, settings: TrackingSettings, rows: Sequence[Row]) -> list[Table]:
        """Return the bound at the end, a table for each protocol."""
        columns = (
            ("tightness, training rows", "train_tightness", 3),
            ("of K real rows", "train_real_tightness", 3),
            ("tightness, held-out rows", "test_tightness", 3),
            ("of K real rows", "test_real_tightness", 3),
            ("gap in nats, training rows", "train_gap", 3),
            ("log limit, relative to the largest", "train_log_limit", 2),
        )
        return [
            Table(
                ("centres K", *(title for title, _, _ in columns)),
                tuple(
                    (
                        str(k),
                        *(
                            spread(values_of(rows, name, protocol=protocol, centers=k), digits)
                            for _, name, digits in columns
                        ),
                    )
                    for k in settings.centers
                ),
                f"At the end, {protocol}",
            )
            for protocol in PROTOCOLS
        ]

    def pictures(
        self,
        settings: TrackingSettings,
        rows: Sequence[Row],
        work: Path,
    ) -> Iterator[Picture]:
        """Draw cost and limit over the steps, and tightness against K."""
        yield _over_steps(settings, rows)
        yield _over_centers(settings, rows)

    def notes(self, settings: TrackingSettings, rows: Sequence[Row]) -> str:
        """Say what the numbers are relative to, and what a training of this length means."""
        limits = [float(np.exp(-v)) for v in values_of(rows, "train_log_limit")]
        return f"""
The largest limit there can be, (4πv)^(-d/2) with the variance v = {settings.variance / 2:g} around
an image, is that of features which tell all rows apart. The limit relative to it is one over an
effective number of images that share a feature: here {min(limits):.1f} to {max(limits):.1f} of the
{settings.bound_rows}.

Each bound at the end is the mean over {settings.noise_draws} draws of the noise. Longer trainings
come nearer to the limit.
"""


def _never_above(rows: Sequence[Row]) -> Claim:
    tracked, excess = sum(row["tracked"] for row in rows), max(row["excess"] for row in rows)
    nearest = -excess
    return Claim(
        "The tracked cost never exceeds its limit (Cauchy-Schwarz, for the computed numbers)",
        f"in all {tracked} measurements of {len(rows)} trainings the cost lies below its limit; "
        f"where it comes nearest, by {nearest:.3f} nats"
        if excess <= 0
        else f"of {tracked} measurements the highest cost lies {excess:.1e} nats above its limit",
        excess <= ROUNDING,
        theorem=True,
    )


def _tighter_with_centers(settings: TrackingSettings, rows: Sequence[Row], protocol: str) -> Claim:
    """Whether the most centres are tighter than one, in every seed and beyond the deviation."""
    few, many = settings.centers[0], settings.centers[-1]
    by_k = {
        k: values_of(rows, "train_tightness", protocol=protocol, centers=k)
        for k in settings.centers
    }
    gains = [b - a for a, b in zip(by_k[few], by_k[many], strict=True)]
    means = [mean(values) for values in by_k.values()]
    falls = [
        f"from {a} to {b}"
        for (a, b), (x, y) in zip(pairwise(settings.centers), pairwise(means), strict=True)
        if y < x
    ]
    steps = f"; the mean falls {', '.join(falls)}" if falls else "; no step is downwards"
    return Claim(
        f"More centres come nearer to the limit, {_NAMES[protocol]}",
        f"tightness {spread(by_k[few])} with K = {few}, {spread(by_k[many])} with K = {many}: "
        f"more in {sum(gain > 0 for gain in gains)} of {len(gains)} seeds, by "
        f"{spread(gains)}{steps}",
        min(gains) > 0 and mean(gains) > deviation(gains),
    )


def _near(settings: TrackingSettings, rows: Sequence[Row]) -> Claim:
    """Whether many centres come near the limit, and much nearer than one does."""
    few, many = (
        values_of(rows, "train_tightness", protocol="frozen", centers=k)
        for k in (settings.centers[0], settings.centers[-1])
    )
    gains = [b - a for a, b in zip(few, many, strict=True)]
    return Claim(
        f"With the encoder frozen, tightness with K = {settings.centers[-1]} is at least "
        f"{_NEAR:.2f}, and at least {_GAIN:.1f} above that of one centre",
        f"tightness {spread(many)}, {spread(gains)} above that of one centre",
        min(many) >= _NEAR and min(gains) >= _GAIN,
    )


_NAMES = {"joint": "encoder trained with each K", "frozen": "encoder frozen"}


def _limit_moves(rows: Sequence[Row]) -> Claim:
    joint = values_of(rows, "train_moved", protocol="joint")
    return Claim(
        "The limit moves with the encoder: in every training by more than a tenth of a nat",
        f"on the training rows it moves by {spread(joint, 2)} nats over a training",
        min(joint) > 0.1,
    )


def _limit_stands_still(rows: Sequence[Row]) -> Claim:
    frozen = values_of(rows, "train_moved", protocol="frozen")
    return Claim(
        "The limit does not depend on the decoder: with a frozen encoder it stands still",
        f"it moves by at most {max(frozen):.1g} nats (up to {ROUNDING:g} is rounding)",
        max(frozen) <= ROUNDING,
        theorem=True,
    )


def _held_out(rows: Sequence[Row]) -> Claim:
    lost = [row["train_tightness"] - row["test_tightness"] for row in rows]
    return Claim(
        "The bound is as tight on held-out rows as on those that were trained on, within 0.01",
        f"tightness on training rows is higher by {spread(lost)} (mean and deviation over all "
        "trainings)",
        mean(lost) <= 0.01,
    )


def _over_steps(settings: TrackingSettings, rows: Sequence[Row]) -> Picture:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, protocol in zip(axes, PROTOCOLS, strict=True):
        for i, k in enumerate(settings.centers):
            own = select(rows, protocol=protocol, centers=k)
            _cost_and_limit(ax, own, f"K = {k}", look(i)[0])
        ax.set_title(_NAMES[protocol], fontsize=10, color="#3a424c")
        step_axis(ax)
        tidy(ax)
    # The start is so far below that it would flatten the rest.
    limits = [v for row in rows for v in row["train_limit"]]
    lowest = min(*limits, *(row["train_cost"][-1] for row in rows))
    axes[0].set_ylim(lowest - 0.3, max(limits) + 0.1)
    axes[0].set_ylabel("log cost, relative to the largest limit")
    axes[1].legend(frameon=False, loc="lower right", fontsize=9)
    return Picture(
        "curves",
        figure,
        "Cost below its limit over the steps, a colour for each K",
        "The logarithm of the cost (lines) and of its limit (dashed, same colour) on the training "
        "rows, in nats, mean over the seeds.",
    )


def _cost_and_limit(ax: "Axes", rows: Sequence[Row], label: str, color: str) -> None:
    steps = rows[0]["train_step"]
    cost, limit = (
        np.mean([row[f"train_{name}"] for row in rows], axis=0) for name in ("cost", "limit")
    )
    ax.plot(steps, cost, color=color, label=label, linewidth=1.8)
    ax.plot(steps, limit, color=color, linestyle="--", linewidth=1.2)


def _over_centers(settings: TrackingSettings, rows: Sequence[Row]) -> Picture:
    """Draw tightness against K, a panel for each protocol, on an axis that ends at the limit."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 3.8), layout="constrained")
    for ax, protocol in zip(figure.subplots(1, 2, sharey=True), PROTOCOLS, strict=True):
        own = select(rows, protocol=protocol)
        for i, (split, name) in enumerate(_SPLITS.items()):
            for seed in sorted({row["seed"] for row in own}):
                line = _means(settings, select(own, seed=seed), f"{split}_tightness")
                ax.plot(settings.centers, line, color=PALETTE[i], alpha=0.3, linewidth=1)
            for entry, title, look_ in (
                ("tightness", f"decoder, {name}", (PALETTE[i], "-")),
                ("real_tightness", f"K real rows, {name}", (PALETTE[i + 2], "--")),
            ):
                values = np.array(_means(settings, own, f"{split}_{entry}"))
                if not np.isnan(values).all():
                    draw_line(ax, np.array(settings.centers), values, title, look_)
        ax.axhline(1, color="black", linestyle=":", linewidth=1.2)
        ax.set(xscale="log", ylim=(0, 1.05), xlabel="centres K")
        ax.set_xticks(settings.centers, [str(k) for k in settings.centers])
        ax.minorticks_off()
        ax.set_title(_NAMES[protocol], fontsize=10, color="#3a424c")
        tidy(ax)
    figure.axes[0].set_ylabel("tightness at the end")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return Picture(
        "tightness",
        figure,
        "Tightness against K for both protocols, below the limit, beside that of real rows",
        "Thick: mean over the seeds. Thin: each seed. Dotted: the limit. Dashed: what K real rows "
        "with the feature reach in the place of the centres.",
    )


_SPLITS = {"train": "training rows", "test": "held-out rows"}


def _means(settings: TrackingSettings, rows: Sequence[Row], name: str) -> list[float]:
    """Return the means of every K, and not a number where nothing was measured."""
    values = (values_of(rows, name, centers=k) for k in settings.centers)
    return [mean(found) if found else math.nan for found in values]


EXPERIMENT = BoundTracking()
