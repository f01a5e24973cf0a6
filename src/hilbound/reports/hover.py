"""Values that a curve tells under the pointer, without a script.

A picture on a page is an image, which knows nothing of its curves. So the page lays a small field
over each point. Its text appears when the pointer is on it.
"""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import PercentFormatter

from hilbound.reports.page import PAD_INCHES, Figure, Mark, figure_uri

if TYPE_CHECKING:
    from matplotlib import figure
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_MOST_MARKS = 40  # of one curve; closer ones could not be told apart by a pointer


def curve_figure(fig: "figure.Figure", alt: str, caption: str) -> Figure:
    """Return a picture of curves whose values appear under the pointer.

    Args:
        fig: A figure of curves.
        alt: What it shows, for readers who cannot see it.
        caption: The text below it.

    >>> from hilbound.reports.drawing import canvas
    >>> fig, ax = canvas()
    >>> _ = ax.plot([0, 10], [0.5, 0.7], label="cost")
    >>> [mark.text for mark in curve_figure(fig, "a curve", "").marks]
    ['cost at 0: 0.5', 'cost at 10: 0.7']
    """
    return Figure(figure_uri(fig), alt, caption, marks_of(fig))


def marks_of(fig: "figure.Figure") -> tuple[Mark, ...]:
    """Return a mark for the points of every named curve, at most 40 for each."""
    fig.draw_without_rendering()
    box = fig.get_tightbbox().padded(PAD_INCHES)
    marks = []
    for ax in fig.axes:
        for line in ax.lines:
            if not str(line.get_label()).startswith("_"):
                marks += [
                    Mark((x - box.x0) / box.width, (box.y1 - y) / box.height, text)
                    for x, y, text in _points(ax, line, fig.dpi)
                ]
    return tuple(marks)


def _points(ax: "Axes", line: "Line2D", dpi: float) -> list[tuple[float, float, str]]:
    """Return points of a curve in inches from the lower left corner, with their texts."""
    data = np.column_stack([np.asarray(part, dtype=float) for part in line.get_data()])
    data = data[np.isfinite(data).all(1)]
    if len(data) < 2:
        return []
    chosen = np.unique(np.linspace(0, len(data) - 1, _MOST_MARKS).round().astype(int))
    places = line.get_transform().transform(data[chosen]) / dpi
    inside = ax.get_window_extent().padded(1).get_points() / dpi
    unit = " %" if isinstance(ax.yaxis.get_major_formatter(), PercentFormatter) else ""
    return [
        (float(px), float(py), f"{line.get_label()} at {x:,.6g}: {y:.4g}{unit}")
        for (px, py), (x, y) in zip(places, data[chosen], strict=True)
        if (inside[0] <= (px, py)).all() and ((px, py) <= inside[1]).all()
    ]
