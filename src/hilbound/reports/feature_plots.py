"""Pictures of models with an encoder: bounds, reconstructions, and the space of the features.

As in :mod:`hilbound.reports.plots`, every function draws into the axes that it is given. Each class
has its name beside it, not only a colour. At most ten classes are drawn, the most frequent ones.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import patheffects
from matplotlib.axes import Axes
from torch import Tensor

from hilbound.errors import InputError
from hilbound.reports import plots
from hilbound.reports.drawing import (
    FRAME,
    PALETTE,
    REAL,
    Array,
    Numbers,
    check_images,
    check_points,
    legend_above,
    mosaic,
    tidy,
    to_numpy,
)
from hilbound.reports.lettering import name_axes

#: The most classes in a picture.
MOST_CLASSES = 10
COLORS = (*PALETTE, "#6a3d9a", "#8b5a2b", "#111820", "#7f8c1f")
_MARKERS = ("o", "s", "^", "D")


def plot_bound(ax: Axes, steps: Numbers, log_cost: Numbers, log_limit: Numbers) -> Axes:
    """Draw a logarithmic cost below its moving limit, with the final tightness.

    Args:
        ax: Where to draw.
        steps: Training steps with shape ``(n,)``.
        log_cost: Logarithms of the cost, in nats.
        log_limit: Logarithms of its limit at the same steps.

    Raises:
        InputError: If lengths do not fit or there is nothing to draw.

    >>> ax = plot_bound(plots.canvas()[1], [0, 1], [-3.0, -2.0], [-2.5, -1.5])
    >>> ax.texts[0].get_text()
    '60.7 % of the limit'
    """
    plots.plot_curve(ax, steps, log_cost, limit=log_limit, label="cost")
    cost, limit, step = (float(v[-1]) for v in (log_cost, log_limit, steps))
    ax.annotate(
        f"{100 * np.exp(cost - limit):.1f} % of the limit",
        (step, (cost + limit) / 2),
        # Costs rise, so there is room below the end of the curve.
        xytext=(0.97, 0.3),
        textcoords="axes fraction",
        ha="right",
        color=REAL,
        arrowprops={"arrowstyle": "-", "color": FRAME, "shrinkB": 0},
    )
    ax.set_ylabel("nats below the largest value")
    return ax


def plot_reconstructions(ax: Axes, x: Tensor, reconstructions: Tensor) -> Axes:
    """Draw each input in a row with its reconstructions.

    Args:
        ax: Where to draw.
        x: Images with shape ``(n, c, h, w)`` and values in ``[0, 1]``.
        reconstructions: Theirs, with shape ``(n, m, c, h, w)``.

    Raises:
        InputError: If the shapes or dtypes do not fit.

    >>> images = torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 1, 8, 8)
    >>> [text.get_text() for text in plot_reconstructions(plots.canvas()[1], *images).texts]
    ['input', 'reconstructions']
    """
    check_images("x", x, "(n, c, h, w)")
    check_images("reconstructions", reconstructions, "(n, m, c, h, w)")
    _check_together(x, reconstructions)
    left = mosaic(x, 1)
    right = mosaic(reconstructions.flatten(0, 1), reconstructions.shape[1])
    band = np.ones((left.shape[0], left.shape[1] // 2, 3))
    ax.imshow(np.concatenate([left, band, right], axis=1), interpolation="nearest")
    ax.set_axis_off()
    height, start = x.shape[-2], left.shape[1] + band.shape[1]
    # On images with a white background a gap can't be seen, so a line parts the two.
    ax.axvline(left.shape[1] + band.shape[1] / 2 - 0.5, color=FRAME, linewidth=1)
    headings = ("input", "reconstructions" if reconstructions.shape[1] > 1 else "reconstruction")
    for place, heading in zip((0, start), headings, strict=True):
        ax.text(place - 0.5, -0.12 * height - 0.5, heading, va="bottom", color=REAL, fontsize=9)
    return ax


def plot_reconstructed_points(
    ax: Axes,
    x: Tensor,
    reconstructions: Tensor,
    data: Tensor | None = None,
    *,
    columns: Sequence[str] = plots.COORDINATES,
) -> Axes:
    """Draw points of the plane as large marks, and their reconstructions as small ones.

    An input and its reconstructions have the same colour.

    Args:
        ax: Where to draw.
        x: Inputs with shape ``(n, 2)``.
        reconstructions: Theirs, with shape ``(n, m, 2)``.
        data: Real points with shape ``(k, 2)``, drawn faintly behind.
        columns: Names of the two coordinates.

    Raises:
        InputError: If the shapes do not fit or a value is not finite.

    >>> ax = plot_reconstructed_points(plots.canvas()[1], torch.zeros(2, 2), torch.ones(2, 9, 2))
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['input', 'its reconstructions']
    """
    check_points("x", x, 2)
    check_points("reconstructions", reconstructions.flatten(0, 1), 2)
    _check_together(x, reconstructions)
    if data is not None:
        check_points("data", data, 2)
        behind = to_numpy(data)
        ax.scatter(behind[:, 0], behind[:, 1], s=6, color=REAL, alpha=0.25, linewidths=0, zorder=1)
    for i, (point, own) in enumerate(zip(to_numpy(x), to_numpy(reconstructions), strict=True)):
        mark: dict[str, Any] = {
            "color": COLORS[i % len(COLORS)],
            "marker": _MARKERS[i % len(_MARKERS)],
        }
        ax.scatter(own[:, 0], own[:, 1], s=14, alpha=0.8, linewidths=0, zorder=2, **mark)
        ax.scatter(point[0], point[1], s=80, edgecolors="black", linewidths=1.4, zorder=3, **mark)
    handles = [
        ax.scatter([], [], s=60, color=REAL, edgecolors="black", linewidths=1.4, label="input"),
        ax.scatter([], [], s=14, color=REAL, linewidths=0, label="its reconstructions"),
    ]
    if data is not None:
        handles.append(
            ax.scatter([], [], s=9, color=REAL, alpha=0.4, linewidths=0, label="real data")
        )
    ax.set_aspect("equal", adjustable="box")
    name_axes((ax.set_xlabel, columns[0]), (ax.set_ylabel, columns[1]))
    tidy(ax, grid=False)
    legend_above(ax, handles)
    return ax


def plot_feature_density(
    ax: Axes,
    features: Tensor,
    labels: Tensor | None = None,
    *,
    class_names: Sequence[str] = (),
    variance: float | None = None,
) -> Axes:
    """Draw the density of one feature. With labels, each class has a curve on a line of its own.

    Every curve is a mean of Gaussians around the features of the class. All curves share one
    vertical scale, so a narrow class has a high curve.

    Args:
        ax: Where to draw.
        features: Features with shape ``(n, 1)``.
        labels: Class numbers with shape ``(n,)``, or ``None``.
        class_names: The names of the classes by number. By default their numbers are shown.
        variance: Variance of those Gaussians. By default Scott's rule sets it for each class.

    Raises:
        InputError: If the shapes do not fit, a value is not finite or the variance not positive.

    >>> y, labels = torch.tensor([[-1.0], [-0.9], [1.0], [0.9]]), torch.tensor([3, 3, 7, 7])
    >>> ax = plot_feature_density(plots.canvas()[1], y, labels, variance=0.01)
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['7', '3']
    """
    check_points("features", features, 1)
    if variance is not None and not variance > 0:
        raise InputError(f"variance must be positive, got {variance}")
    y = to_numpy(features)[:, 0]
    classes = _classes(y, labels, class_names)
    own = {name: y[chosen] for name, chosen in classes.items()}
    variances = {name: variance or _scott(values) for name, values in own.items()}
    margin = 3 * max(variances.values()) ** 0.5
    grid = np.linspace(y.min() - margin, y.max() + margin, 1000)
    curves = {name: _density(grid, own[name], variances[name]) for name in own}
    if labels is None:
        (curve,) = curves.values()
        ax.fill_between(grid, curve, color=PALETTE[0], alpha=0.25, linewidth=0)
        ax.plot(grid, curve, color=PALETTE[0], linewidth=1.6)
        ax.set_ylabel("density")
        ax.set_ylim(bottom=0)
    else:
        _ridges(ax, grid, curves)
    ax.set_xlabel("feature")
    tidy(ax, grid=labels is None)
    return ax


def plot_feature_scatter(
    ax: Axes,
    features: Tensor,
    labels: Tensor | None = None,
    *,
    class_names: Sequence[str] = (),
    names: Sequence[str] = ("feature 1", "feature 2"),
) -> Axes:
    """Draw two features against each other. Classes have colours, and a name at the densest spot.

    Args:
        ax: Where to draw.
        features: Features with shape ``(n, 2)``.
        labels: Class numbers with shape ``(n,)``, or ``None``.
        class_names: The names of the classes by number. By default their numbers are shown.
        names: What the two axes are called.

    Raises:
        InputError: If the shapes do not fit or a value is not finite.

    >>> y = torch.tensor([[0.0, 0.0], [0.1, 0.0], [1.0, 1.0]])
    >>> ax = plot_feature_scatter(plots.canvas()[1], y, torch.tensor([3, 3, 7]))
    >>> [text.get_text() for text in ax.texts]
    ['3', '7']
    """
    check_points("features", features, 2)
    y = to_numpy(features)
    size = 9 if len(y) > 1000 else 20
    for i, (name, chosen) in enumerate(_classes(y, labels, class_names).items()):
        own, color = y[chosen], COLORS[i % len(COLORS)]
        dots = ax.scatter(
            own[:, 0], own[:, 1], s=size, color=color, alpha=0.6, linewidths=0, label=name
        )
        dots.set_rasterized(True)
        if labels is not None:
            name_points(ax, own, name, color)
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    tidy(ax, grid=False)
    if labels is not None:
        ax.legend(
            loc="center left",
            bbox_to_anchor=(1.0, 0.5),
            frameon=False,
            handletextpad=0.2,
            title="class",
            markerscale=1.8,
        )
    return ax


def principal_components(features: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """Return the first two principal components of features, and their shares of the variance.

    Args:
        features: Features with shape ``(n, F)`` of at least two columns.

    Returns:
        Components with shape ``(n, 2)``, and the two shares in [0, 1].

    >>> y = torch.tensor([[0.0, -2.0, 0.0], [0.0, 2.0, 0.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    >>> components, shares = principal_components(y)
    >>> components.abs()[:, 0], [round(share, 3) for share in shares]
    (tensor([2., 2., 0., 0.], dtype=torch.float64), [0.8, 0.2])
    """
    check_points("features", features)
    centred = (features - features.mean(0)).double()
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    total = float(singular.square().sum())
    shares = [float(s) ** 2 / total if total > 0 else 0.0 for s in singular[:2]]
    return centred @ directions[:2].T, (shares[0], shares[1])


def _check_together(x: Tensor, reconstructions: Tensor) -> None:
    if reconstructions.shape[:1] + reconstructions.shape[2:] != x.shape:
        raise InputError(
            f"reconstructions has shape {tuple(reconstructions.shape)}, but x has shape "
            f"{tuple(x.shape)}: expected (n, m, ...) for (n, ...)"
        )


def _classes(y: Array, labels: Tensor | None, names: Sequence[str]) -> dict[str, Array]:
    """Map the name of each class to the rows in it, for the most frequent classes, in order."""
    if labels is None:
        return {"": np.ones(len(y), dtype=bool)}
    if labels.shape != (len(y),):
        raise InputError(f"labels has shape {tuple(labels.shape)}, but features has {len(y)} rows")
    own = labels.cpu().numpy()
    numbers, counts = np.unique(own, return_counts=True)
    kept = np.sort(numbers[np.argsort(-counts, kind="stable")[:MOST_CLASSES]])
    return {names[n] if n < len(names) else str(n): own == n for n in kept.tolist()}


def _scott(values: Array) -> float:
    # A class whose features are all equal still needs a width to be visible.
    return float(max(values.var(), 1e-6) * len(values) ** (-2 / 5))


def _density(grid: Array, values: Array, variance: float) -> Array:
    squared = (grid[:, None] - values) ** 2 / variance
    density: Array = np.exp(-squared / 2).mean(1) / np.sqrt(2 * np.pi * variance)
    return density


def _ridges(ax: Axes, grid: Array, curves: dict[str, Array]) -> None:
    """Draw a curve for every class on a line of its own, the first on top."""
    # Curves may reach into the line above, because taller shapes are easier to see.
    scale = 1.5 / max(curve.max() for curve in curves.values())
    last = len(curves) - 1
    for i, curve in enumerate(curves.values()):
        base, color = float(last - i), COLORS[i % len(COLORS)]
        top = base + scale * curve
        ax.fill_between(grid, base, top, color=color, alpha=0.3, linewidth=0, zorder=2 + i)
        ax.plot(grid, top, color=color, linewidth=1.4, zorder=2 + i)
    ax.set_yticks(range(len(curves)), labels=list(curves)[::-1])
    ax.set_ylim(-0.15, last + 1.6)
    ax.set_ylabel("class")


def _densest(points: Array) -> Array:
    """Return the point with the most others nearby. The mean may lie where there are no points."""
    few = points[:500]
    squared = ((few[:, None] - few) ** 2).sum(-1)
    spot: Array = few[np.exp(-squared / (0.05 * squared.mean() + 1e-12)).sum(1).argmax()]
    return spot


def name_points(ax: Axes, points: Array, name: str, color: str) -> None:
    """Write a name at the densest spot of points with shape ``(n, 2)``."""
    place = _densest(points)
    text = ax.text(
        place[0],
        place[1],
        name,
        color=color,
        fontsize=13,
        fontweight="bold",
        ha="center",
        va="center",
        zorder=5,
    )
    text.set_path_effects([patheffects.withStroke(linewidth=3, foreground="white")])
