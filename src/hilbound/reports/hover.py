"""Values that a curve tells under the pointer, without a script.

A picture on a page is an image, which knows nothing of its curves. So the page lays a small field
over each point. Its text appears when the pointer is on it. Points of several curves that lie so
near to each other that their fields would cover one another share a field, which tells them all.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from matplotlib.ticker import PercentFormatter

from hilbound.reports.page import PAD_INCHES, Figure, Mark, figure_uri

if TYPE_CHECKING:
    from matplotlib import figure
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

#: A place in inches from the lower left corner, with its text.
Point: TypeAlias = tuple[float, float, str]

# A field has a radius of 7 pixels, which are 0.073 inches. Phones show pictures a quarter smaller.
_APART = 0.12


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
    """Return marks that tell points of every named curve, as near as a pointer can part them."""
    fig.draw_without_rendering()
    box = fig.get_tightbbox().padded(PAD_INCHES)
    curves = [
        _points(ax, line, fig.dpi)
        for ax in fig.axes
        for line in ax.lines
        if not str(line.get_label()).startswith("_")
    ]
    return tuple(
        Mark((x - box.x0) / box.width, (box.y1 - y) / box.height, "\n".join(texts))
        for x, y, texts in fields_of(curves)
    )


def fields_of(curves: Sequence[Sequence[Point]]) -> list[tuple[float, float, list[str]]]:
    """Return places of fields, in inches, each with the texts of all points that lie there.

    A point joins the nearest field of an earlier curve, if its own would cover that one.

    >>> fields_of([[(1.0, 1.0, "a")], [(1.0, 1.05, "b"), (2.0, 1.0, "c")]])
    [(1.0, 1.0, ['a', 'b']), (2.0, 1.0, ['c'])]
    """
    fields: list[tuple[float, float, list[str]]] = []
    for curve in curves:
        # Points of one curve are apart already.
        former = list(fields)
        for x, y, text in curve:
            near = min(former, key=lambda field: math.dist(field[:2], (x, y)), default=None)
            if near is not None and math.dist(near[:2], (x, y)) < _APART:
                near[2].append(text)
            else:
                fields.append((x, y, [text]))
    return fields


def _points(ax: "Axes", line: "Line2D", dpi: float) -> list[Point]:
    """Return points of a curve in inches from the lower left corner, with their texts."""
    data = np.column_stack([np.asarray(part, dtype=float) for part in line.get_data()])
    data = data[np.isfinite(data).all(1)]
    if len(data) < 2:
        return []
    places = line.get_transform().transform(data) / dpi
    inside = ax.get_window_extent().padded(1).get_points() / dpi
    unit = " %" if isinstance(ax.yaxis.get_major_formatter(), PercentFormatter) else ""
    told = [
        (float(px), float(py), f"{line.get_label()} at {x:,.6g}: {y:.4g}{unit}")
        for (px, py), (x, y) in zip(places, data, strict=True)
        if (inside[0] <= (px, py)).all() and ((px, py) <= inside[1]).all()
    ]
    return _thinned(told)


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Leave out points that lie too near to the one before. The first and the last are kept."""
    kept: list[Point] = []
    for point in points:
        if not kept or math.dist(kept[-1][:2], point[:2]) >= _APART:
            kept.append(point)
    if points and kept[-1] is not points[-1]:
        # It takes the place of its neighbour, unless that is the first.
        kept[max(1, len(kept) - 1) :] = [points[-1]]
    return kept
