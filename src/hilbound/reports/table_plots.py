"""Pictures of a table's rows beside samples: histograms and pairs, in the user's units."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.stats import rankdata
from torch import Tensor

from hilbound.errors import InputError
from hilbound.reports.drawing import MODEL, REAL, Array, check_points, tidy, to_numpy
from hilbound.reports.lettering import names_in_pictures

_BINS = 30
_ACROSS = 3


def draw_histograms(
    data: Tensor, samples: Tensor, names: Sequence[str], whole: Sequence[int] = ()
) -> Figure:
    """Return a figure with a histogram of every column, data beside samples.

    Args:
        data: Real rows with shape ``(n, d)`` in the user's units.
        samples: The model's rows with shape ``(m, d)`` in the same units.
        names: The ``d`` names of the columns.
        whole: Columns of whole numbers: their bars do not cut a value in two.

    Raises:
        InputError: If the shapes do not fit or a value is not finite.

    >>> import torch
    >>> figure = draw_histograms(torch.rand(9, 3), torch.rand(9, 3), ["a", "b", "c"])
    >>> [ax.get_xlabel() for ax in figure.axes]
    ['a', 'b', 'c']
    """
    real, model = _checked(data, samples, names)
    across = min(_ACROSS, len(names))
    down = math.ceil(len(names) / across)
    figure = Figure(figsize=(2.1 * across, 1.7 * down + 0.3), layout="constrained")
    labels, families = names_in_pictures(names)
    for j, label in enumerate(labels):
        ax = figure.add_subplot(down, across, j + 1)
        _histogram(ax, real[:, j], model[:, j], whole=j in whole)
        ax.set_xlabel(label, parse_math=False, fontfamily=families)
    _legend(figure)
    return figure


def draw_pairs(
    data: Tensor, samples: Tensor, names: Sequence[str], whole: Sequence[int] = ()
) -> Figure:
    """Return a figure with a scatter of every pair of columns, and histograms on the diagonal.

    Data stand below the diagonal and samples above it, on the same axes turned over.

    Args:
        data: Real rows with shape ``(n, d)`` in the user's units.
        samples: The model's rows with shape ``(m, d)`` in the same units.
        names: The ``d`` names of the columns.
        whole: Columns of whole numbers.

    Raises:
        InputError: If the shapes do not fit or a value is not finite.

    >>> import torch
    >>> len(draw_pairs(torch.rand(9, 3), torch.rand(9, 3), ["a", "b", "c"]).axes)
    9
    """
    real, model = _checked(data, samples, names)
    d = len(names)
    figure = Figure(figsize=(1.9 * d + 0.4, 1.8 * d + 0.4), layout="constrained")
    labels, families = names_in_pictures(names)
    views = [_view(real[:, j], model[:, j]) for j in range(d)]
    for i in range(d):
        for j in range(d):
            ax = figure.add_subplot(d, d, i * d + j + 1)
            if i == j:
                _histogram(ax, real[:, j], model[:, j], whole=j in whole)
            else:
                points, color = (real, REAL) if i > j else (model, MODEL)
                dots = ax.scatter(points[:, j], points[:, i], s=5, color=color, alpha=0.45, lw=0)
                dots.set_rasterized(True)
                ax.set_ylim(*views[i])
                tidy(ax, grid=False)
            ax.set_xlim(*views[j])
            ax.xaxis.set_major_locator(MaxNLocator(3))
            ax.yaxis.set_major_locator(MaxNLocator(3))
            ax.tick_params(labelsize=7, labelbottom=i == d - 1, labelleft=j == 0 and i > 0)
            if i == d - 1:
                ax.set_xlabel(labels[j], parse_math=False, fontfamily=families)
            if j == 0:
                ax.set_ylabel(labels[i], parse_math=False, fontfamily=families)
    _legend(figure)
    return figure


def strongest_columns(x: Tensor, most: int) -> list[int]:
    """Return the columns that depend most on each other, at most so many, in the table's order.

    The first two have the largest rank correlation; each further one has the largest with a column
    that was chosen before.

    Args:
        x: Rows with shape ``(n, d)``.
        most: How many columns, at least 2.

    >>> import torch
    >>> t = torch.linspace(0, 1, 50)
    >>> strongest_columns(torch.stack([t, torch.cos(40 * t), 1 - t**3], 1), 2)
    [0, 2]
    """
    d = x.shape[1]
    if d <= most:
        return list(range(d))
    ranks = rankdata(to_numpy(x), axis=0)
    spread = ranks.std(axis=0)
    # A constant column depends on nothing.
    scaled = (ranks - ranks.mean(axis=0)) / np.where(spread > 0, spread, np.inf)
    strength = np.abs(scaled.T @ scaled) / len(scaled)
    np.fill_diagonal(strength, -1.0)
    chosen = [int(k) for k in np.unravel_index(strength.argmax(), strength.shape)]
    while len(chosen) < most:
        best = strength[chosen].max(axis=0)
        best[chosen] = -2.0
        chosen.append(int(best.argmax()))
    return sorted(chosen)


def _checked(data: Tensor, samples: Tensor, names: Sequence[str]) -> tuple[Array, Array]:
    check_points("data", data)
    check_points("samples", samples, data.shape[1])
    if len(names) != data.shape[1]:
        raise InputError(f"names holds {len(names)} names, but data has {data.shape[1]} columns")
    return to_numpy(data), to_numpy(samples)


def _view(real: Array, model: Array) -> tuple[float, float]:
    """Return the range of a column: that of the data, and of all samples but the wildest."""
    low = min(real.min(), float(np.quantile(model, 0.01)))
    high = max(real.max(), float(np.quantile(model, 0.99)))
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _histogram(ax: Axes, real: Array, model: Array, *, whole: bool) -> None:
    low, high = _view(real, model)
    if whole:
        # A bar for each whole number, or for as many of them as give a picture.
        width = max(1, math.ceil((high - low) / _BINS))
        edges = np.arange(math.floor(low) - 0.5, math.ceil(high) + width, width)
    else:
        edges = np.linspace(low, high, _BINS + 1)
    bins = edges.tolist()
    # Densities of all rows, those outside the view included.
    shares = [np.full(len(x), 1 / (len(x) * (bins[1] - bins[0]))) for x in (real, model)]
    ax.hist(real, bins, weights=shares[0], color=REAL, alpha=0.35)
    ax.hist(model, bins, weights=shares[1], color=MODEL, histtype="step", linewidth=1.5)
    ax.set_yticks([])
    ax.tick_params(labelsize=7)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    tidy(ax, grid=False)


def _legend(figure: Figure) -> None:
    ax = figure.axes[0]
    handles = [
        ax.scatter([], [], s=22, color=color, alpha=0.85, linewidths=0, label=label)
        for color, label in ((REAL, "data"), (MODEL, "samples"))
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False)
