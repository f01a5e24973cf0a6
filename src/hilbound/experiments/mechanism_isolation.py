r"""Mechanism isolation: what every cost does to the samples, where nothing else can do it.

Eight Gaussians on a ring are far apart beside their width, so it can be counted where samples go.
A small network is trained with four costs, at kernel variances from far below the width of a mode
to far above the ring's diameter. The trace is given pairs that mean nothing: the k-th data point
of a batch and the k-th centre are drawn independently.

Two further trainings test why a cost fails. Where the variance v is too small, the samples of an
untrained network are out of the data's reach, :math:`e^{-r^2/(2v)}` for a distance r: a training
*from wide* starts at a large variance and ends at v. Where it is too large, the likelihood smooths
the model alone, and :math:`q * N(0, v) = p` asks for a q that is narrower than the data, or a
point: *smoothed data* have noise of variance v, so that q may be as wide as the data again.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from hilbound import datasets
from hilbound.datasets.toys import TOYS, Gaussians
from hilbound.engine.seeding import stream
from hilbound.experiments.base import (
    Cell,
    Claim,
    Experiment,
    Picture,
    Row,
    Settings,
    drawn_from,
    mean_of,
    spread,
    train,
    values_of,
)
from hilbound.reports.drawing import MODEL, REAL, draw_line, look, tidy
from hilbound.reports.page import Table
from hilbound.training.runs import Run

DATA = "eight-gaussians"
#: A sample belongs to a mode if it is nearer than this many of its standard deviations.
REACH = 4.0
#: Mean squared distance between points of the data: twice the square of the radius and 4 variances.
SPREAD = 18.2
#: Samples are spread out if they keep more than this share of it, and collapsed below the other.
SPREAD_OUT, COLLAPSED = 0.5, 0.1
#: A cost that cannot find the modes finds no more than half of them.
FEW_MODES = 4
#: Samples whose pairs are looked at, and quantiles of their squared distances.
PAIRED = 1000
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
#: Distances agree if their distribution is nearer to the data's than this share of the mean.
AGREE = 0.05
FROM_WIDE, SMOOTHED = "from wide", "smoothed data"


class IsolationSettings(Settings):
    """The training that all cells share, and where further trainings test a reason."""

    objectives: tuple[str, ...] = ("nuclear", "scalar", "trace", "likelihood")
    variances: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(-6, 3))
    wide: float = 10.0
    from_wide: tuple[str, ...] = ("nuclear", "scalar")
    #: Every other variance up to here is reached from the wide one, and data smoothed from here on.
    small: float = 0.11
    large: float = 3.0
    width: int = 128
    depth: int = 3
    noise_dim: int = 2
    steps: int = 500
    batch_size: int = 256
    learning_rate: float = 5e-3
    samples: int = 2000


class MechanismIsolation(Experiment[IsolationSettings]):
    """Modes, purity and spread of the samples, for every cost and variance."""

    name = "mechanism-isolation"
    title = "Mechanism isolation: what each cost does to the samples"
    question = """
The data are eight Gaussians of variance 0.04 on a ring of radius 3. Which cost finds all of them,
at which variance of the kernel? What happens where the variance is too small or too large?

- *Purity* is the share of samples within four standard deviations of a mode.
- A mode is *found* if it gets at least a fifth of its due share.
- The mean squared *distance* between samples is 18.2 if it is that of the data. It is zero if all
  samples are alike.
- A mean can be right by accident. So the *distribution* of the squared distances between pairs is
  compared with that of the data, too. The measure is their Wasserstein distance, as a share of the
  data's mean; it is 0 if they agree.

Further trainings test the likely reasons of failures. *From wide* starts at a variance of 10 and
ends at the one given. *Smoothed data* have noise of the kernel's variance.
"""

    def settings(self, *, quick: bool) -> IsolationSettings:
        """Return nine variances, or two and a tiny training."""
        if quick:
            return IsolationSettings(
                variances=(0.01, 10.0), width=16, steps=20, batch_size=64, samples=200
            )
        return IsolationSettings()

    def cells(
        self,
        settings: IsolationSettings,
        seeds: Sequence[int],
        rows: Sequence[Row],
    ) -> Iterable[Cell]:
        """Return one training for every cost, variance and seed, and those that test a reason."""
        pairs = [(o, "plain", settings.variances) for o in settings.objectives]
        small = tuple(v for v in settings.variances if v <= settings.small)[::2]
        pairs += [(o, FROM_WIDE, small) for o in settings.from_wide]
        large = tuple(v for v in settings.variances if v >= settings.large)
        pairs.append(("likelihood", SMOOTHED, large))
        for objective, training, variances in pairs:
            for variance in variances:
                for seed in seeds:
                    yield Cell.of(
                        objective=objective, training=training, variance=variance, seed=seed
                    )

    def measure(self, settings: IsolationSettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Train once and count where the samples went."""
        variance, training, seed = options["variance"], options["training"], options["seed"]
        data = {"data": DATA}
        if training == SMOOTHED:
            file = folder / "smoothed.npy"
            np.save(file, smoothed_data(variance, seed))
            data = {"data": str(file), "scale": "none"}
        run = train(
            folder,
            objective=options["objective"],
            variance=f"{settings.wide}:{variance}" if training == FROM_WIDE else variance,
            seed=seed,
            width=settings.width,
            depth=settings.depth,
            noise_dim=settings.noise_dim,
            steps=settings.steps,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            **data,
        )
        samples = run.model.sample(settings.samples, stream(0, "isolation"))
        bounds = [row["tightness"] for row in run.read_bounds() if row["split"] == "validation"]
        return where_samples_went(samples) | {"tightness": bounds[-1]}

    def claims(self, settings: IsolationSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return what was said about mechanisms, and the reasons of what fails."""
        return [
            _all_modes(settings, rows),
            _small_keeps_apart(settings, rows),
            _large_contracts(settings, rows),
            *([_distances_agree(settings, rows)] if values_of(rows, "distance_error") else []),
            _trace_needs_pairs(settings, rows),
            _norm_forbids_collapse(settings, rows),
        ]

    def tables(self, settings: IsolationSettings, rows: Sequence[Row]) -> list[Table]:
        """Return the windows, then modes, purity and distance, a row for every variance."""
        names = columns_of(rows)
        windows = tuple((_title(*name), window(settings, rows, *name)) for name in names)
        found = [Table(("cost", "variances"), windows, "Where all 8 modes are found in every seed")]
        for name, title, digits in (
            ("modes", "Modes found, of 8", 1),
            ("purity", "Purity", 2),
            ("distance", "Mean squared distance between samples", 1),
            ("distance_error", "Distribution of the squared distances: how far from the data's", 3),
        ):
            lines = tuple(
                (f"{v:.3g}", *(spread(_values(rows, name, *column, v), digits) for column in names))
                for v in settings.variances
            )
            found.append(Table(("variance", *(_title(*n) for n in names)), lines, title))
        return found

    def pictures(
        self, settings: IsolationSettings, rows: Sequence[Row], work: Path
    ) -> Iterator[Picture]:
        """Draw modes and purity against variance, and samples at some variances."""
        figure = Figure(figsize=(7.4, 3.5), layout="constrained")
        kinds = (("modes", "modes found, of 8", 8), ("purity", "purity", 1))
        for ax, (name, title, most) in zip(figure.subplots(1, 2), kinds, strict=True):
            for i, column in enumerate(columns_of(rows)):
                x = [v for v in settings.variances if _values(rows, name, *column, v)]
                y = [_mean(rows, name, *column, v) for v in x]
                draw_line(ax, np.array(x), np.array(y), _title(*column), look(i))
            ax.set(xscale="log", xlabel="variance of the kernel", ylim=(-0.05 * most, 1.05 * most))
            ax.set_ylabel(title)
            tidy(ax)
        handles = figure.axes[0].get_legend_handles_labels()[0]
        figure.legend(
            handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8
        )
        yield Picture(
            "modes",
            figure,
            "Modes found and purity against the variance of the kernel",
            "Modes found and purity, mean over the seeds.",
        )
        yield _samples(settings, rows, work)


def smoothed_data(variance: float, seed: int) -> NDArray[np.float32]:
    """Return training rows of the toy with noise of a variance added, shape ``(n, 2)``."""
    x = datasets.load(DATA, seed=seed).train
    noise = torch.randn(x.shape, generator=stream(seed, "smoothed"), dtype=x.dtype)
    rows: NDArray[np.float32] = (x + variance**0.5 * noise).numpy()
    return rows


def where_samples_went(samples: Tensor) -> Row:
    """Return modes found, purity, and squared distances between samples with shape ``(n, 2)``.

    ``distance`` is their mean, ``quantiles`` are at :data:`QUANTILES`, and ``distance_error`` is
    the Wasserstein distance of their distribution from that of the data, over the data's mean.
    """
    toy = TOYS[DATA]
    if not isinstance(toy, Gaussians):
        raise TypeError(f"{DATA} is no mixture of Gaussians")
    centres = torch.tensor(toy.centres, dtype=samples.dtype)
    distance, mode = torch.cdist(samples, centres).min(1)
    inside = distance < REACH * math.sqrt(toy.variance)
    shares = torch.bincount(mode[inside], minlength=len(centres)) / len(samples)
    n = len(samples)
    own, data = pair_distances(samples), pair_distances(toy.sample(PAIRED, stream(0, "pairs"))[0])
    # Between two distributions on the line it is the mean difference of their quantiles.
    places = ((torch.arange(2000) + 0.5) / 2000).to(own)
    apart = (torch.quantile(own, places) - torch.quantile(data, places)).abs().mean()
    return {
        "modes": int((shares >= 0.2 / len(centres)).sum()),
        "purity": float(inside.double().mean()),
        # The mean over pairs is twice the total variance.
        "distance": float(2 * samples.var(0, correction=0).sum()) * n / max(n - 1, 1),
        "quantiles": [float(v) for v in torch.quantile(own, torch.tensor(QUANTILES).to(own))],
        "distance_error": float(apart / data.mean()),
    }


def pair_distances(samples: Tensor) -> Tensor:
    """Return the squared distances between pairs of the first samples, in float64.

    >>> pair_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    tensor([25.], dtype=torch.float64)
    """
    return torch.pdist(samples[:PAIRED].double()).square()


def columns_of(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Return the pairs of cost and training that there are, in the order of the rows."""
    return list(dict.fromkeys((row["objective"], row["training"]) for row in rows))


def _title(objective: str, training: str) -> str:
    return objective if training == "plain" else f"{objective}, {training}"


def _values(
    rows: Sequence[Row], name: str, objective: str, training: str, variance: float
) -> list[float]:
    return values_of(rows, name, objective=objective, training=training, variance=variance)


def _mean(rows: Sequence[Row], name: str, objective: str, training: str, variance: float) -> float:
    return mean_of(rows, name, objective=objective, training=training, variance=variance)


def all_found(
    settings: IsolationSettings, rows: Sequence[Row], objective: str, training: str = "plain"
) -> list[float]:
    """Return the variances at which all 8 modes were found in every seed."""
    found = {v: _values(rows, "modes", objective, training, v) for v in settings.variances}
    return [v for v, modes in found.items() if modes and min(modes) == 8]


def window(
    settings: IsolationSettings, rows: Sequence[Row], objective: str, training: str = "plain"
) -> str:
    """Return in words at which variances all 8 modes were found in every seed."""
    good = all_found(settings, rows, objective, training)
    if not good:
        return "none"
    tried = [v for v in settings.variances if _values(rows, "modes", objective, training, v)]
    if good == tried[tried.index(good[0]) : tried.index(good[-1]) + 1] and len(good) > 1:
        return f"{good[0]:.3g} to {good[-1]:.3g}"
    return ", ".join(f"{v:.3g}" for v in good)


def _all_modes(settings: IsolationSettings, rows: Sequence[Row]) -> Claim:
    others = ", ".join(
        f"{o} {window(settings, rows, o)}" for o in settings.objectives if o != "nuclear"
    )
    return Claim(
        "The nuclear norm needs no pairs: it finds all modes, at some variance",
        f"all 8 in every seed at variances {window(settings, rows, 'nuclear')}; {others}",
        bool(all_found(settings, rows, "nuclear")),
    )


def _small_keeps_apart(settings: IsolationSettings, rows: Sequence[Row]) -> Claim:
    small = settings.variances[0]
    distance = _mean(rows, "distance", "nuclear", "plain", small)
    holds = distance > SPREAD_OUT * SPREAD
    return Claim(
        "A small variance keeps the samples of the nuclear norm apart, and so diverse (more than "
        "half of the data's mean squared distance)",
        f"mean squared distance {distance:.3f} at {small:.3g}, that of the data is {SPREAD}",
        holds,
        "" if holds else _out_of_reach(settings, rows),
    )


def _out_of_reach(settings: IsolationSettings, rows: Sequence[Row]) -> str:
    tests = [
        f"the {o}, started at {settings.wide:g}, finds all modes at "
        f"{window(settings, rows, o, FROM_WIDE)} (from the start at the variance itself: "
        f"{window(settings, rows, o)})"
        for o in settings.from_wide
    ]
    return (
        "The likely reason: an untrained network's samples lie near zero, out of reach of the "
        "data, where the kernel and its gradient vanish. Tested by a start at a large variance: "
        f"{'; '.join(tests)}."
    )


def _large_contracts(settings: IsolationSettings, rows: Sequence[Row]) -> Claim:
    large = settings.variances[-1]
    best = max(_mean(rows, "distance", "nuclear", "plain", v) for v in settings.variances)
    at_large = _mean(rows, "distance", "nuclear", "plain", large)
    purity = [_mean(rows, "purity", "nuclear", "plain", v) for v in settings.variances]
    holds = at_large < 0.5 * best
    return Claim(
        "A large variance contracts the samples of the nuclear norm (to less than half of their "
        "highest mean squared distance)",
        f"mean squared distance {at_large:.1f} at {large:.3g}, {best:.1f} at its highest; purity "
        f"{purity[-1]:.2f}, {max(purity):.2f} at its best",
        holds,
        ""
        if holds
        else "The likely reason: both mixtures are smoothed by the same kernel, so q = p is best "
        "at any variance. A wide kernel loses only detail, which purity would show. "
        "Tested by "
        f"what smooths the model alone: {_smoothing(settings, rows)}.",
    )


def _distances_agree(settings: IsolationSettings, rows: Sequence[Row]) -> Claim:
    """Where all modes are found, whether the distances between samples are those of the data."""
    found = {}
    for v in all_found(settings, rows, "nuclear"):
        errors = _values(rows, "distance_error", "nuclear", "plain", v)
        if errors:
            found[v] = errors
    others = [
        f"{o} {spread(errors)} at {v:.3g}"
        for o in ("scalar", "likelihood")
        for v in found
        if (errors := _values(rows, "distance_error", o, "plain", v))
    ]
    return Claim(
        "Where the nuclear norm finds all modes, not only the mean of the squared distances is "
        f"right: their distribution is within {100 * AGREE:.0f} % of the data's mean, in every "
        "seed",
        ", ".join(f"{spread(errors)} at {v:.3g}" for v, errors in found.items())
        + f"; beside it {', '.join(others)}",
        all(max(errors) <= AGREE for errors in found.values()) if found else None,
    )


def _smoothing(settings: IsolationSettings, rows: Sequence[Row]) -> str:
    large = settings.variances[-1]
    plain = _mean(rows, "distance", "likelihood", "plain", large)
    smoothed = _mean(rows, "distance", "likelihood", SMOOTHED, large)
    return (
        f"the likelihood's samples have a mean squared distance of {plain:.2f} at variance "
        f"{large:.3g}, and of {smoothed:.2f} if the data are smoothed as well"
    )


def _trace_needs_pairs(settings: IsolationSettings, rows: Sequence[Row]) -> Claim:
    most, furthest = (
        max(max(_values(rows, name, "trace", "plain", v)) for v in settings.variances)
        for name in ("modes", "distance")
    )
    return Claim(
        "The trace, given pairs that mean nothing, cannot spread its samples over the modes: with "
        f"no seed and variance more than {FEW_MODES} modes, or half of the data's mean squared "
        "distance",
        f"at most {most:.0f} modes and a mean squared distance of {furthest:.2f}, that of the data "
        f"is {SPREAD}",
        most <= FEW_MODES and furthest <= SPREAD_OUT * SPREAD,
    )


def _norm_forbids_collapse(settings: IsolationSettings, rows: Sequence[Row]) -> Claim:
    large = settings.variances[-1]
    own, other = (_values(rows, "distance", o, "plain", large) for o in ("scalar", "likelihood"))
    return Claim(
        "The norm in the scalar cost forbids the collapse that the likelihood allows at a large "
        "variance: in every seed more than half of the data's mean squared distance, and less than "
        "a tenth",
        f"a mean squared distance of {spread(own, 2)} with the scalar cost at {large:.3g}, that of "
        f"the data is {SPREAD}; {_smoothing(settings, rows)}, for its optimum is the data less the "
        "kernel's own noise",
        min(own) > SPREAD_OUT * SPREAD and max(other) < COLLAPSED * SPREAD,
    )


def _samples(settings: IsolationSettings, rows: Sequence[Row], work: Path) -> Picture:
    shown = settings.variances[:: max(1, len(settings.variances) // 4)]
    kept = Picture(
        "samples",
        None,
        "Samples over data, a row for each cost, a column for each variance",
        "300 samples (orange) over data (grey), seed 0, by the variance of the kernel. An empty "
        "place was not trained.",
    )
    runs = {
        (column, v): work / cell.name / "run"
        for column in columns_of(rows)
        for v in shown
        if _values(rows, "modes", *column, v)
        for cell in [Cell.of(objective=column[0], training=column[1], variance=v, seed=0)]
    }
    return drawn_from(
        runs.values(), lambda: replace(kept, figure=_drawn(runs, columns_of(rows), shown)), kept
    )


def _drawn(
    runs: Mapping[tuple[tuple[str, str], float], Path],
    columns: Sequence[tuple[str, str]],
    shown: Sequence[float],
) -> Figure:
    figure = Figure(figsize=(1.1 * len(shown) + 1.2, 1.1 * len(columns)), layout="constrained")
    axes = figure.subplots(len(columns), len(shown), squeeze=False)
    data = datasets.load(DATA).test[:300]
    for line, column in zip(axes, columns, strict=True):
        line[0].set_ylabel(_title(*column).replace(", ", ",\n"), fontsize=8)
        for ax, variance in zip(line, shown, strict=True):
            ax.set(xticks=[], yticks=[], xlim=(-4.5, 4.5), ylim=(-4.5, 4.5), aspect="equal")
            if (column, variance) not in runs:
                ax.spines[:].set_visible(False)
                continue
            samples = Run.open(runs[column, variance]).model.sample(300, stream(0, "shown"))
            ax.scatter(data[:, 0], data[:, 1], s=2, color=REAL, alpha=0.4, linewidths=0)
            ax.scatter(samples[:, 0], samples[:, 1], s=2, color=MODEL, linewidths=0)
    for ax, variance in zip(axes[0], shown, strict=True):
        ax.set_title(f"{variance:.3g}", fontsize=9)
    return figure


EXPERIMENT = MechanismIsolation()
