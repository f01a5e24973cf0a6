"""The tables and pictures of several runs, which sweeps and comparisons share."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.ticker import PercentFormatter

from hilbound.evaluation.comparison import OF_BOUND, Group, RunComparison, title_of, write_mean
from hilbound.evaluation.table_metrics import LEVELS
from hilbound.reports.drawing import PALETTE, Style, canvas, draw_line, legend_above, look, tidy
from hilbound.reports.hover import curve_figure
from hilbound.reports.page import Figure, Table, figure_uri
from hilbound.reports.plots import plot_tightness

_ROWS = {"validation": "held-out rows", "train": "training rows"}
#: Steps and values.
Curve: TypeAlias = tuple[list[float], list[float]]

#: What is drawn of every setting, where runs have it.
_PLOTTED = ("coverage", "frechet_distance", "crps", "coverage_0.9")


def label(setting: Mapping[str, Any]) -> str:
    """Return a setting in words.

    >>> label({"objective": "nuclear", "learn_variance": True})
    'objective nuclear, learn variance yes'
    >>> label({"drop": []})
    'drop none'
    """
    parts = (
        f"{heading(name)} {in_words(value).replace('–', 'none')}" for name, value in setting.items()
    )
    return ", ".join(parts) or "all runs"


def heading(name: str) -> str:
    """Return the name of an option as tables write it."""
    return name.replace("_", " ")


def in_words(value: object) -> str:
    """Return the value of an option as tables write it.

    >>> in_words(None), in_words({"power": 0.7}), in_words(["height", "weight"])
    ('–', 'power=0.7', 'height, weight')
    """
    if value is None or value in ([], {}):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def settings_table(
    groups: Sequence[Group],
    telling: Sequence[str],
    columns: Sequence[str],
    caption: str,
    *,
    highlight: int | None = None,
    floors: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
) -> Table:
    """Return a table with a row for each group: its setting, its seeds and the means over them.

    Args:
        groups: The groups.
        telling: The options that tell them apart.
        columns: What to show, by the names of :data:`~hilbound.evaluation.comparison.COLUMNS`.
        caption: The text above the table.
        highlight: The index of a row to emphasise, or ``None``.
        floors: Values of what stands in the place of the model, as last rows.
    """
    first = [heading(name) for name in telling] or ["runs"]
    cells = []
    for group in groups:
        own = [in_words(group.setting.get(name)) for name in telling] or ["all"]
        means = [write_mean(name, group.values(name)) for name in columns]
        cells.append((*own, str(len(group.members)), *means))
    for side, found in (floors or {}).items():
        means = [write_mean(name, found.get(name, ())) for name in columns]
        cells.append((side, *[""] * (len(first) - 1), "", *means))
    headings = (*first, "seeds", *map(title_of, columns))
    return Table(headings, tuple(cells), caption, highlight)


def bounds_table(comparison: RunComparison, among: Iterable[str] = OF_BOUND) -> Table | None:
    """Return the table of costs and limits, and of what each bound reaches; ``None`` without any.

    Costs are comparable only for the same objective and the same kernel; the tightness always is a
    share of the limit.

    Args:
        comparison: The runs.
        among: The columns to choose from.
    """
    columns = comparison.columns(among)
    if not set(columns) - {"seconds", "steps"}:
        return None
    caption = (
        "Cost and limit at the end of the training, on held-out rows. Costs of different "
        "objectives or kernels cannot be compared, and each has its own limit. “Real data” and "
        "“One point”: the tightness of training rows and of their mean, in the place of the "
        "model's centres."
    )
    return settings_table(comparison.groups, comparison.telling, columns, caption)


def spread_figure(groups: Sequence[Group], caption: str) -> Figure | None:
    """Return a picture with a line for each setting: its runs as points, their mean as a bar.

    Args:
        groups: The groups.
        caption: The text below it.

    Returns:
        The picture, or ``None`` if there is nothing to draw.
    """
    found = dict.fromkeys(name for g in groups for m in g.members for name in m.values)
    plotted = [name for name in found if name.rpartition("/")[2] in _PLOTTED][:3]
    if not plotted:
        return None
    figure, ax = canvas(7.6, 1.0 + 0.32 * len(groups))
    figure.delaxes(ax)
    axes = figure.subplots(1, len(plotted), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, plotted, strict=True):
        for place, group in enumerate(groups):
            values = group.values(name)
            if values:
                axis.plot(values, [place] * len(values), "o", color=PALETTE[0], alpha=0.6, ms=4)
                axis.plot([statistics.fmean(values)], [place], "|", color=PALETTE[1], ms=16, mew=2)
        axis.set_xlabel(title_of(name), parse_math=False)
        tidy(axis)
    axes[0].set_yticks(range(len(groups)))
    # A setting is the user's text, and a $ in it is no formula.
    axes[0].set_yticklabels([label(group.setting) for group in groups], parse_math=False)
    axes[0].set_ylim(len(groups) - 0.4, -0.6)
    return Figure(figure_uri(figure), "metrics of every setting", caption)


def curves_figure(comparison: RunComparison) -> Figure | None:
    """Return the tightness of all runs during training, with a legend and values to hover over.

    Runs that differ in their seed alone share a colour and a line of the legend.
    """
    figure, ax = canvas(7.6, 4.2)
    split = _split(comparison)
    curves: dict[str, Curve] = {}
    styles: dict[str, Style] = {}
    handles = []
    for i, group in enumerate(comparison.groups):
        drawn = {m.name: curve for m in group.members if (curve := _tightness(m.rows, split))}
        if drawn:
            curves |= drawn
            styles |= dict.fromkeys(drawn, look(i))
            color, dashes = look(i)
            told = label(group.setting)
            handles += ax.plot([], [], label=told, color=color, linestyle=dashes, linewidth=1.8)
    if not curves:
        return None
    plot_tightness(ax, curves, styles)
    legend_above(ax, handles)
    caption = (
        f"Tightness: the share of its own limit that each bound reaches, on {_ROWS[split]}. Runs "
        "that differ in their seed alone have the same line."
    )
    alt = "tightness of the bounds of all runs against training steps"
    return curve_figure(figure, alt, caption)


def _split(comparison: RunComparison) -> str:
    """Return the rows on which all runs with curves were measured: held-out ones if possible."""
    drawn = [member.rows for member in comparison.members if member.rows]
    held_out = all(_tightness(rows, "validation") is not None for rows in drawn)
    return "validation" if held_out else "train"


def _tightness(rows: Sequence[Mapping[str, Any]], split: str) -> Curve | None:
    """Return steps and tightness on some rows, if there are two values at least."""
    own = [row for row in rows if row["split"] == split]
    if sum(math.isfinite(row["tightness"]) for row in own) < 2:
        return None
    return [row["step"] for row in own], [row["tightness"] for row in own]


def intervals_figure(comparison: RunComparison) -> Figure | None:
    """Return how many values lie in the predicted intervals, against their probability.

    It is ``None`` for runs that draw samples.
    """
    figure, ax = canvas()
    for i, group in enumerate(comparison.groups):
        drawn = _shares(group)
        if len(drawn) > 1:
            levels, shares = np.array(drawn).T
            draw_line(ax, 100 * levels, 100 * shares, label(group.setting), look(i))
    if not ax.lines:
        return None
    ends = ax.get_xlim()
    ax.plot(ends, ends, color="black", linewidth=1.2, linestyle="--", zorder=1, label="_ideal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(symbol=" %"))
    ax.set_xlabel("probability of the interval")
    ax.set_ylabel("values inside")
    tidy(ax)
    legend_above(ax)
    caption = "Share of the values inside their intervals. On the dashed line it is as predicted."
    return curve_figure(figure, "coverage of intervals against their probability", caption)


def _shares(group: Group) -> list[tuple[float, float]]:
    """Return probabilities of intervals with the mean share of values inside, of all targets."""
    found = []
    for level in LEVELS:
        values = [
            value
            for member in group.members
            for name, value in member.values.items()
            if name.rpartition("/")[2] == f"coverage_{level:g}"
        ]
        if values:
            found.append((level, statistics.fmean(values)))
    return found
