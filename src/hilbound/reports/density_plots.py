"""Pictures of densities predicted for single rows, and of how far they can be trusted.

As in :mod:`hilbound.reports.plots`: ax in, ax out.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from hilbound.errors import InputError
from hilbound.reports.drawing import (
    FRAME,
    MODEL,
    PALETTE,
    REAL,
    Array,
    Numbers,
    legend_above,
    tidy,
    vector,
)
from hilbound.reports.lettering import name_axes, names_in_pictures

__all__ = [
    "plot_coverage",
    "plot_fan",
    "plot_importance",
    "plot_intervals",
    "plot_pit",
    "plot_spread",
]

_BLUE = PALETTE[0]
#: Columns that a picture of their importance shows.
MOST_COLUMNS = 15
_LONGEST_NAME = 28
_MOST_MARKS = 500  # drawn one by one; more make a large file


def plot_fan(
    ax: Axes, grid: Numbers, densities: Array, observed: Numbers, *, name: str = "target"
) -> Axes:
    """Draw the predicted densities of some rows above each other, with the values that came.

    All are drawn to the same height, so that narrow ones do not flatten the others.

    Args:
        ax: Where to draw.
        grid: Values of the target with shape ``(g,)``, rising.
        densities: Densities at these values, with shape ``(r, g)``, the lowest row first.
        observed: What came, with shape ``(r,)``.
        name: Name of the target.

    Raises:
        InputError: If the shapes do not fit, or a density is negative or not finite.

    >>> from hilbound.reports.drawing import canvas
    >>> ax = plot_fan(canvas()[1], [0, 1, 2], np.array([[0.1, 0.8, 0.1]]), [1.5])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['predicted density', 'value that came']
    """
    x, values, heights = vector("grid", grid), vector("observed", observed), np.asarray(densities)
    if heights.shape != (len(values), len(x)) or not len(values):
        raise InputError(
            f"densities has shape {heights.shape}: expected ({len(values)}, {len(x)}), a row for "
            "each observed value"
        )
    if not (np.isfinite(heights) & (heights >= 0)).all() or not heights.max(1).all():
        raise InputError("densities must be finite, not negative, and not zero everywhere")
    for i, (density, value) in enumerate(zip(heights, values, strict=True)):
        hill = i + 0.85 * density / density.max()
        label = "predicted density" if i == 0 else None
        ax.fill_between(x, i, hill, color=_BLUE, alpha=0.3, linewidth=0, label=label, zorder=2)
        ax.plot(x, hill, color=_BLUE, linewidth=1.2, zorder=3)
        ax.axhline(i, color="#d5d9de", linewidth=0.8, zorder=1)
        top = max(float(np.interp(value, x, hill)), i + 0.12)
        ax.vlines(value, i, top, color=MODEL, linewidth=1.6, zorder=4)
        ax.plot(
            value, i, "o", color=MODEL, markersize=5, zorder=5, markeredgecolor="white", label=None
        )
    ax.plot([], [], "-o", color=MODEL, markersize=5, label="value that came")
    ax.set_ylim(-0.25, len(values))
    ax.set_xlim(x[0], x[-1])
    ax.set_yticks([])
    ax.set_ylabel("some test rows")
    _name_axis(ax, name)
    tidy(ax, grid=False)
    ax.spines["left"].set_visible(False)
    legend_above(ax)
    return ax


def plot_intervals(
    ax: Axes,
    median: Numbers,
    bands: Mapping[float, tuple[Numbers, Numbers]],
    observed: Numbers,
    *,
    name: str = "target",
) -> Axes:
    """Draw central intervals of rows in the order of their medians, with the values that came.

    Args:
        ax: Where to draw.
        median: Predicted medians with shape ``(n,)``.
        bands: For each probability the lower and the upper ends, with shape ``(n,)`` each.
        observed: What came, with shape ``(n,)``.
        name: Name of the target.

    Raises:
        InputError: If there is no band, or the lengths do not fit.

    >>> from hilbound.reports.drawing import canvas
    >>> ax = plot_intervals(canvas()[1], [1, 0], {0.9: ([0, -1], [2, 1])}, [1, 0])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['90 % interval', 'median', 'value that came']
    """
    if not bands:
        raise InputError("bands is empty: pass at least one interval")
    middle, values = vector("median", median), vector("observed", observed)
    ends = {c: (vector("bands", a), vector("bands", b)) for c, (a, b) in bands.items()}
    _check_lengths("median", middle, values, *(end for pair in ends.values() for end in pair))
    order = np.argsort(middle, kind="stable")
    rank = np.arange(len(order))
    shades = np.linspace(0.16, 0.42, len(ends)) if len(ends) > 1 else np.array([0.25])
    for shade, level in zip(shades, sorted(ends, reverse=True), strict=True):
        low, high = (end[order] for end in ends[level])
        ax.fill_between(
            rank,
            low,
            high,
            step="mid",
            color=_BLUE,
            alpha=float(shade),
            linewidth=0,
            label=f"{100 * level:g} % interval",
            zorder=1,
        )
    ax.step(rank, middle[order], where="mid", color=_BLUE, linewidth=1.5, label="median")
    size = 4.5 if len(rank) <= 150 else 3
    ax.plot(rank, values[order], "o", color=MODEL, markersize=size, label="value that came")
    ax.set_xlabel("test rows, by predicted median")
    name_axes((ax.set_ylabel, _short(name)), instead="target")
    ax.margins(x=0.01)
    tidy(ax)
    legend_above(ax)
    return ax


def plot_pit(ax: Axes, pit: Numbers) -> Axes:
    """Draw the histogram of PIT values, with the band in which uniform ones would stay.

    Args:
        ax: Where to draw.
        pit: Probabilities of values no larger than what came, with shape ``(n,)``.

    Raises:
        InputError: If there are none, or one is outside [0, 1].

    >>> from hilbound.reports.drawing import canvas
    >>> ax = plot_pit(canvas()[1], np.linspace(0, 1, 100))
    >>> len(ax.patches)
    6
    """
    from scipy.stats import binom

    u = vector("pit", pit)
    if not len(u) or not ((u >= 0) & (u <= 1)).all():
        raise InputError("pit must hold probabilities from 0 to 1, at least one")
    bins = int(np.clip(len(u) // 16, 4, 20))
    expected = len(u) / bins
    low, high = (float(binom.ppf(p, len(u), 1 / bins)) / expected for p in (0.025, 0.975))
    counts = np.histogram(u, bins, (0, 1))[0] / expected
    edges = np.linspace(0, 1, bins + 1)
    ax.bar(
        edges[:-1],
        counts,
        1 / bins,
        align="edge",
        color=_BLUE,
        alpha=0.55,
        edgecolor="white",
        label="test rows",
    )
    ax.fill_between(
        [0, 1],
        low,
        high,
        color=REAL,
        alpha=0.18,
        linewidth=0,
        zorder=3,
        label="range of chance, 95 %",
    )
    ax.axhline(1, color=REAL, linestyle="--", linewidth=1.2, zorder=4)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.12 * max(high, float(counts.max())))
    ax.set_xlabel("predicted probability of a lower value")
    ax.set_ylabel("rows, relative to uniform")
    tidy(ax)
    legend_above(ax)
    return ax


def plot_coverage(ax: Axes, levels: Numbers, shares: Numbers, n: int) -> Axes:
    """Draw how many values fall into their central intervals, against how many should.

    Args:
        ax: Where to draw.
        levels: Probabilities of the intervals, with shape ``(l,)``.
        shares: Shares of the values inside, with shape ``(l,)``.
        n: How many values there are, for the band in which calibrated shares would stay.

    Raises:
        InputError: If the lengths do not fit.

    >>> from hilbound.reports.drawing import canvas
    >>> ax = plot_coverage(canvas()[1], [0.5, 0.9], [0.4, 0.8], 100)
    >>> ax.lines[1].get_ydata().tolist()
    [40.0, 80.0]
    """
    from scipy.stats import binom

    level, share = vector("levels", levels), vector("shares", shares)
    _check_lengths("levels", level, share)
    fine = np.linspace(0, 1, 101)
    ax.fill_between(
        100 * fine,
        100 * np.clip(binom.ppf(0.025, n, fine), 0, n) / n,
        100 * np.clip(binom.ppf(0.975, n, fine), 0, n) / n,
        color=REAL,
        alpha=0.18,
        linewidth=0,
        label="range of chance, 95 %",
    )
    ax.plot([0, 100], [0, 100], "--", color=REAL, linewidth=1.2)
    ax.plot(100 * level, 100 * share, color=_BLUE, linewidth=1.8, label="test rows")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(symbol=" %"))
    ax.set_xlim(0, 100)
    ax.set_ylim(0, 100)
    ax.set_xlabel("probability of the interval")
    ax.set_ylabel("values inside it")
    tidy(ax)
    legend_above(ax)
    return ax


def plot_spread(ax: Axes, deviation: Numbers, error: Numbers) -> Axes:
    """Draw the errors of the means against the predicted deviations, with their size in groups.

    Args:
        ax: Where to draw.
        deviation: Predicted standard deviations with shape ``(n,)``, positive.
        error: What came less the predicted mean, with shape ``(n,)``.

    Raises:
        InputError: If the lengths do not fit, or a deviation is not positive.

    >>> from hilbound.reports.drawing import canvas
    >>> ax = plot_spread(canvas()[1], [1.0, 2.0, 1.0, 2.0], [1.0, -2.0, -1.0, 2.0])
    >>> ax.get_xlabel()
    'predicted standard deviation'
    """
    s, e = vector("deviation", deviation), np.abs(vector("error", error))
    _check_lengths("deviation", s, e)
    if not (s > 0).all():
        raise InputError("deviation must be positive")
    predicted, reached, half = _root_mean_squares(s, e)
    ax.plot(
        s,
        e,
        "o",
        color=REAL,
        alpha=0.35 if len(s) <= _MOST_MARKS else 0.15,
        markersize=3.5,
        markeredgewidth=0,
        label="test rows",
        rasterized=len(s) > _MOST_MARKS,
    )
    ax.errorbar(
        predicted,
        reached,
        2 * half,
        fmt="o",
        color=_BLUE,
        markersize=6,
        markeredgecolor="white",
        capsize=3,
        label="root mean square of a group",
        zorder=4,
    )
    top = 1.05 * max(float(np.quantile(s, 0.99)), float(s.min()) * 1.2)
    ax.plot([0, top], [0, top], "--", color=REAL, linewidth=1.2, label="as predicted", zorder=3)
    left = 0.0 if s.min() < 0.5 * top else 0.9 * float(s.min())
    ax.set_xlim(left, top)
    ax.set_ylim(0, 1.05 * max(float(np.quantile(e, 0.99)), float((reached + 2 * half).max())))
    ax.set_xlabel("predicted standard deviation")
    ax.set_ylabel("distance from the mean")
    tidy(ax)
    legend_above(ax)
    return ax


def _root_mean_squares(deviation: Array, error: Array) -> tuple[Array, Array, Array]:
    """Return what is predicted and reached in groups of alike deviations, and standard errors."""
    order = np.argsort(deviation, kind="stable")
    groups = np.array_split(order, min(len(order), int(np.clip(len(order) // 15, 2, 8))))
    predicted = np.array([math.sqrt(float(np.mean(deviation[g] ** 2))) for g in groups])
    reached = np.array([math.sqrt(float(np.mean(error[g] ** 2))) for g in groups])
    # The error of a root mean square, from the spread of the squares.
    wide = np.array([float(np.std(error[g] ** 2)) / math.sqrt(len(g)) for g in groups])
    return predicted, reached, wide / (2 * np.maximum(reached, 1e-300))


def plot_importance(
    ax: Axes, names: Sequence[str], drops: Numbers, errors: Numbers, *, most: int = MOST_COLUMNS
) -> Axes:
    """Draw by how much the log score falls when a column is shuffled, the first on top.

    Args:
        ax: Where to draw.
        names: The columns, the most important first.
        drops: Falls of the mean log score, in nats, with shape ``(p,)``.
        errors: Their standard errors, with shape ``(p,)``.
        most: How many columns to draw.

    Raises:
        InputError: If there is none, or the lengths do not fit.

    >>> from hilbound.reports.drawing import canvas
    >>> ax = plot_importance(canvas()[1], ["bmi", "age"], [0.3, 0.0], [0.05, 0.01])
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['bmi', 'age']
    """
    drop, error = vector("drops", drops), vector("errors", errors)
    _check_lengths("drops", drop, error, np.zeros(len(names)))
    if not len(drop):
        raise InputError("names is empty: pass at least one column")
    drop, error, shown = drop[:most], error[:most], [_short(str(name)) for name in names[:most]]
    place = np.arange(len(drop))
    ax.barh(place, drop, 0.62, color=_BLUE, alpha=0.6)
    ax.errorbar(
        drop, place, xerr=2 * error, fmt="none", ecolor="#1b2129", elinewidth=1.2, capsize=3
    )
    ax.axvline(0, color=FRAME, linewidth=1)
    labels, families = names_in_pictures(shown)
    ax.set_yticks(place, labels=labels, parse_math=False, fontfamily=families)
    ax.set_ylim(len(drop) - 0.4, -0.6)
    ax.set_xlabel("nats lost when the column is shuffled")
    tidy(ax)
    ax.grid(visible=False, axis="y")
    return ax


def _name_axis(ax: Axes, name: str) -> None:
    name_axes((ax.set_xlabel, _short(name)), instead="target")


def _short(name: str) -> str:
    """Return a name that fits beside an axis, in one line."""
    line = " ".join(name.split())
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1] + "…"


def _check_lengths(name: str, first: Array, *others: Array) -> None:
    if any(len(other) != len(first) for other in others):
        lengths = [len(first), *map(len, others)]
        raise InputError(f"{name} and what goes with it have lengths {lengths}: make them equal")
