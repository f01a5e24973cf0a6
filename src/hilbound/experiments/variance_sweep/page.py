"""The pictures of the variance sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hilbound import datasets
from hilbound.engine.seeding import stream
from hilbound.experiments.base import Picture, Row, drawn_from, mean_of, select
from hilbound.experiments.variance_sweep.fresh import is_fresh
from hilbound.experiments.variance_sweep.rules import (
    SWEPT,
    TOLERANCE,
    Point,
    best_of,
    curve_of,
    data_of,
    judge,
)
from hilbound.reports.drawing import MODEL, PALETTE, REAL, canvas, draw_line, tidy, to_numpy
from hilbound.training.runs import Run
from hilbound.variance import METHODS

_MARKS = dict(zip(METHODS, ("o", "s", "^", "D"), strict=True))
_COLOURS = dict(zip(METHODS, PALETTE[1:], strict=False))
_COLUMNS = 3
_SHOWN = 250
_PALE = "#b9bfc7"
# The colours of the rules mean nothing else.
_LOOKS = ((PALETTE[0], "-"), (REAL, "--"), (PALETTE[5], "-."))


def sweep(objectives: Sequence[str], rows: Sequence[Row]) -> Picture:
    """Draw three metrics of moons against the variance, with the rules as vertical lines."""
    figure = Figure(figsize=(8.0, 2.8), layout="constrained")
    axes = figure.subplots(1, 3)
    panels = (
        ("sliced_wasserstein", "sliced Wasserstein distance"),
        ("squared_mmd", "squared MMD"),
        ("cross_rank", "rank of cross Gram"),
    )
    for ax, (name, title) in zip(axes, panels, strict=True):
        for i, objective in enumerate(objectives):
            chosen = select(rows, data=SWEPT, objective=objective, rule="fixed")
            x = sorted({row["factor"] for row in chosen})
            y = [mean_of(chosen, name, factor=v) for v in x]
            # An unbiased estimate may be negative, which a logarithm cannot show.
            known = np.where(np.array(y) > 0, y, np.nan)
            draw_line(ax, np.array(x), known, objective, _LOOKS[i % len(_LOOKS)])
        ax.set(xscale="log", yscale="log", xlabel="variance of the kernel", ylabel=title)
        _mark_rules(ax, rows, SWEPT)
        tidy(ax)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=len(labels),
        frameon=False,
        handlelength=1.6,
        columnspacing=1.0,
        fontsize=9,
    )
    return Picture(
        "sweep",
        figure,
        "Three metrics of samples of two moons against the variance, a line for each cost",
        "Two moons, means over the seeds; thin vertical lines are what the rules choose.",
    )


def _mark_rules(ax: Axes, rows: Sequence[Row], data: str) -> None:
    for rule in METHODS:
        v = judge(rows, data, rule).variance
        ax.axvline(v, color=_COLOURS[rule], linewidth=1, linestyle="--", label=rule, zorder=1)


def samples(runs: Mapping[tuple[str, float], Path]) -> Picture:
    """Draw samples over data, a row for each cost and a column for each variance."""
    kept = Picture(
        "samples",
        None,
        "Samples over data, a row for each cost, a column for each variance",
        f"{_SHOWN} samples (orange) over data (grey), seed 0, at variances from small to large.",
    )
    return drawn_from(runs.values(), lambda: replace(kept, figure=_drawn(runs)), kept)


def _drawn(runs: Mapping[tuple[str, float], Path]) -> Figure:
    objectives = list(dict.fromkeys(objective for objective, _ in runs))
    shown = list(dict.fromkeys(variance for _, variance in runs))
    figure = Figure(figsize=(1.5 * len(shown), 1.35 * len(objectives)), layout="constrained")
    axes = figure.subplots(len(objectives), len(shown), squeeze=False)
    data = to_numpy(datasets.load(SWEPT).test[:_SHOWN])
    for i, objective in enumerate(objectives):
        for j, v in enumerate(shown):
            ax = axes[i, j]
            model = Run.open(runs[objective, v]).model
            points = to_numpy(model.sample(_SHOWN, stream(0, "shown")))
            ax.scatter(*data.T, s=2, color=_PALE, linewidths=0, antialiased=False)
            ax.scatter(*points.T, s=2, color=MODEL, linewidths=0, antialiased=False)
            ax.set(xlim=(-4, 4), ylim=(-3, 3), xticks=[], yticks=[], aspect="equal")
            ax.set_title(f"{objective}, {v:.3g}", fontsize=9)
    return figure


def curves(rows: Sequence[Row]) -> Picture:
    """Draw the loss over the best against the variance, a panel for each data set."""
    names = data_of(rows)
    lines = -(-len(names) // _COLUMNS)
    figure = Figure(figsize=(6.8, 1.5 * lines + 0.5), layout="constrained")
    axes = figure.subplots(lines, _COLUMNS, squeeze=False).ravel()
    for ax, data in zip(axes, names, strict=False):
        _draw_curve(ax, curve_of(rows, data))
        _mark_rules(ax, rows, data)
        weight = "bold" if is_fresh(data) else "normal"
        ax.set_title(data, fontsize=9, fontweight=weight)
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.supxlabel("variance of the kernel", fontsize=10)
    figure.supylabel("loss / best", fontsize=10)
    return Picture(
        "curves",
        figure,
        "Loss over the best loss against the variance, for every data set",
        "Nuclear norm: the loss (toys: sliced Wasserstein distance; images: 2 / (coverage + "
        "recall)) over the best, mean and range over the seeds. The band is within 10 %. Bold: "
        "data that had no part in any rule.",
    )


def _draw_curve(ax: Axes, curve: Sequence[Point]) -> None:
    best = best_of(curve).loss
    x = [point.variance for point in curve]
    low, high = ([pick(p.losses) / best for p in curve] for pick in (min, max))
    ax.axhspan(0, TOLERANCE, color="#009e73", alpha=0.12, linewidth=0)
    ax.fill_between(x, low, high, color=PALETTE[0], alpha=0.2, linewidth=0)
    ax.plot(x, [p.loss / best for p in curve], "o-", color=PALETTE[0], markersize=3, linewidth=1.5)
    ax.set(xscale="log", ylim=(0.8, 2.5))
    tidy(ax)


def rules(rows: Sequence[Row]) -> Picture:
    """Draw how many times worse than the best every rule is, on each data set."""
    names = data_of(rows)
    figure, ax = canvas(6.2, 0.36 * len(names) + 1.3)
    worst = 4.0
    ax.axvspan(0.95, TOLERANCE, color="#009e73", alpha=0.12, linewidth=0)
    for rule in METHODS:
        verdicts = [judge(rows, data, rule) for data in names]
        ax.plot([], [], _MARKS[rule], color=_COLOURS[rule], label=rule)
        for i, verdict in enumerate(verdicts):
            at_least = verdict.outside or verdict.ratio > worst
            ax.plot(
                min(verdict.ratio, worst),
                i,
                ">" if at_least else _MARKS[rule],
                color=_COLOURS[rule],
                markersize=7 if rule == "rank" else 6,
                markerfacecolor=_COLOURS[rule] if verdict.measured else "none",
            )
    ax.set(xscale="log", xlim=(0.95, worst * 1.05), xlabel="loss at the rule / best of the sweep")
    ax.set_xticks([1, 1.1, 1.5, 2, 3, 4], ["1", "1.1", "1.5", "2", "3", "≥ 4"])
    ax.minorticks_off()
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    tidy(ax)
    ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(METHODS))
    return Picture(
        "rules",
        figure,
        "For every data set how many times worse than the best each rule is",
        "Filled marks were trained at the rule's variance, hollow ones are read off the curve, "
        "arrows lie beyond its end or the axis; the band is within 10 % of the best.",
    )
