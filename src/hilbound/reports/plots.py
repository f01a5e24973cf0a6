r"""Pictures of data, models and bounds.

Every function draws into the :class:`~matplotlib.axes.Axes` that it is given and returns it. So a
picture can be a panel of a larger one, and it can be changed afterwards. Nothing here opens a
window, keeps a global figure or changes matplotlib's settings. :func:`canvas` makes a single
figure, but any axes will do.

Density contours are at shares of the probability mass, not at fractions of the peak, so a sharp
peak cannot hide the rest of a density. Take a grid of equal cells with densities
:math:`p_1 \ge p_2 \ge \dots`. The contour that encloses the share :math:`a` is at the level
:math:`p_m` with the smallest :math:`m` for which

.. math:: \sum_{i \le m} p_i \ge a \sum_i p_i .
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter, StrMethodFormatter
from torch import Tensor

from hilbound.datasets.checks import coordinate_names
from hilbound.errors import InputError
from hilbound.reports.drawing import (
    MODEL,
    PALETTE,
    REAL,
    SHADES,
    Array,
    Numbers,
    Style,
    canvas,
    check_images,
    check_points,
    check_some,
    draw_line,
    legend_above,
    limits,
    look,
    mass_levels,
    mosaic,
    series,
    singular_values,
    step_axis,
    tidy,
    to_numpy,
)
from hilbound.reports.lettering import name_axes, names_in_pictures

__all__ = [
    "PALETTE",
    "canvas",
    "plot_curve",
    "plot_images",
    "plot_marginals",
    "plot_neighbours",
    "plot_points",
    "plot_spectrum",
    "plot_tightness",
]

COORDINATES = coordinate_names(2)


def plot_images(ax: Axes, images: Tensor, columns: int | None = None) -> Axes:
    """Draw images with shape ``(n, c, h, w)`` as a grid, filled row by row.

    Args:
        ax: Where to draw.
        images: One or three channels with values in ``[0, 1]``. Values outside are clipped.
        columns: Images in a row. By default the grid is about square.

    Raises:
        InputError: If the shape or dtype cannot be drawn, or ``columns`` is below 1.

    >>> plot_images(canvas()[1], torch.zeros(6, 1, 8, 8)).images[0].get_array().shape
    (17, 26, 3)
    """
    check_images("images", images, "(n, c, h, w)")
    columns = math.ceil(math.sqrt(len(images))) if columns is None else columns
    if columns < 1:
        raise InputError(f"columns must be at least 1, not {columns}")
    return _show(ax, mosaic(images, min(columns, len(images))))


def plot_neighbours(ax: Axes, samples: Tensor, neighbours: Tensor) -> Axes:
    """Draw each sample in a row with the training images that are nearest to it.

    Args:
        ax: Where to draw.
        samples: Images with shape ``(n, c, h, w)`` and values in ``[0, 1]``.
        neighbours: Their nearest training images, nearest first, with shape ``(n, k, c, h, w)``.

    Raises:
        InputError: If the shapes or dtypes do not fit.

    >>> ax = plot_neighbours(canvas()[1], torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 1, 8, 8))
    >>> [text.get_text() for text in ax.texts]
    ['sample', 'nearest training images']
    """
    check_images("samples", samples, "(n, c, h, w)")
    check_images("neighbours", neighbours, "(n, k, c, h, w)")
    if neighbours.shape[:1] + neighbours.shape[2:] != samples.shape:
        raise InputError(
            f"neighbours has shape {tuple(neighbours.shape)}, but samples has shape "
            f"{tuple(samples.shape)}: expected (n, k, c, h, w) with the same n, c, h and w"
        )
    left = mosaic(samples, 1)
    right = mosaic(neighbours.flatten(0, 1), neighbours.shape[1])
    band = np.ones((left.shape[0], left.shape[1] // 2, 3))
    _show(ax, np.concatenate([left, band, right], axis=1))
    starts = (0, left.shape[1] + band.shape[1])
    for x, heading in zip(starts, ("sample", "nearest training images"), strict=True):
        ax.text(x - 0.5, -0.12 * samples.shape[-2] - 0.5, heading, va="bottom", color=REAL)
    return ax


def plot_points(
    ax: Axes,
    data: Tensor | None,
    samples: Tensor,
    log_density: Callable[[Tensor], Tensor] | None = None,
    *,
    density_label: str = "density",
    columns: Sequence[str] = COORDINATES,
    equal: bool = True,
) -> Axes:
    """Draw real points in a pale tone, a model's samples in colour, and a density behind both.

    Args:
        ax: Where to draw.
        data: Real points with shape ``(n, 2)``, or ``None`` to draw samples alone.
        samples: The model's points with shape ``(m, 2)``.
        log_density: A log density, which maps points ``(n, 2)`` to ``(n,)``. Its filled contours
            enclose 20, 40, 60, 80 and 95 % of the mass within the picture.
        density_label: What the legend calls that density.
        columns: Names of the two coordinates.
        equal: Whether both axes have one scale. Columns of a table have not.

    Raises:
        InputError: If a shape does not fit or a value is not finite.

    >>> x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    >>> ax = plot_points(canvas()[1], x, x, lambda x: -x.square().sum(-1) / 2)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['data', 'samples', 'density']
    """
    if len(columns) != 2:
        raise InputError(f"columns must hold 2 names, not {len(columns)}")
    handles = []
    kinds = ((data, REAL, 0.35, 9, "data"), (samples, MODEL, 0.6, 4, "samples"))
    for points, color, alpha, size, label in kinds:
        if points is None:
            continue
        check_points(label, points, 2)
        x = to_numpy(points)
        # Thousands of vector circles would make an SVG slow and large, so only they are pixels.
        dots = ax.scatter(
            x[:, 0], x[:, 1], s=size, color=color, alpha=alpha, linewidths=0, zorder=2
        )
        dots.set_rasterized(True)
        handles.append(ax.scatter([], [], color=color, s=22, alpha=0.85, linewidths=0, label=label))
    if equal:
        ax.set_aspect("equal", adjustable="box")
    density = []
    if log_density is not None:
        _contours(ax, log_density, samples if data is None else data)
        density.append(Patch(color=SHADES[-2], label=density_label))
    name_axes((ax.set_xlabel, columns[0]), (ax.set_ylabel, columns[1]))
    tidy(ax, grid=False)
    legend_above(ax, [*handles, *density])
    return ax


def plot_marginals(
    ax: Axes,
    data: Tensor,
    samples: Tensor,
    columns: Sequence[str] | None = None,
    *,
    maximum: int = 16,
) -> Axes:
    """Compare every coordinate of the data with that of the samples.

    One coordinate is drawn as two histograms with common bins. Several coordinates are drawn as
    ranges, for the first ``maximum`` of them. A thin line runs from the 5 % to the 95 % quantile, a
    thick one from the 25 % to the 75 % quantile, and a dot marks the median. The unit is the data's
    standard deviation from the data's mean, so coordinates with different units share one axis.

    Args:
        ax: Where to draw.
        data: Real points with shape ``(n, d)``.
        samples: The model's points with shape ``(m, d)``.
        columns: The ``d`` names of the coordinates.
        maximum: How many coordinates to draw at most.

    Raises:
        InputError: If a shape does not fit or a value is not finite.

    >>> x = torch.randn(99, 3, generator=torch.Generator().manual_seed(0))
    >>> ax = plot_marginals(canvas()[1], x, x, ["height", "weight", "age"])
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['height', 'weight', 'age']
    """
    check_points("data", data)
    check_points("samples", samples, data.shape[1])
    names = list(columns or coordinate_names(data.shape[1]))
    if len(names) != data.shape[1]:
        raise InputError(f"columns holds {len(names)} names, but data has {data.shape[1]} columns")
    if maximum < 1:
        raise InputError(f"maximum must be at least 1, not {maximum}")
    real, model = to_numpy(data), to_numpy(samples)
    if len(names) == 1:
        return _histograms(ax, real[:, 0], model[:, 0], names[0])
    return _ranges(ax, real[:, :maximum], model[:, :maximum], names[:maximum])


def plot_curve(
    ax: Axes,
    steps: Numbers,
    values: Numbers,
    *,
    limit: float | Numbers | None = None,
    label: str = "training",
    validation: tuple[Numbers, Numbers] | None = None,
) -> Axes:
    """Draw a training curve below its limit, with the gap between them shaded.

    A value that is not finite leaves a gap in the curve. A single value between two gaps is a dot.

    Args:
        ax: Where to draw.
        steps: Training steps with shape ``(n,)``.
        values: The curve with shape ``(n,)``.
        limit: What the curve cannot pass: a number, or one for every step with shape ``(n,)``.
        label: What the legend calls the curve.
        validation: Steps and values of a second curve, for validation rows.

    Raises:
        InputError: If lengths do not fit, a step is not finite or there is nothing to draw.

    >>> ax = plot_curve(canvas()[1], [0, 1, 2], [-3.0, -2.0, -1.5], limit=-1.0, label="cost")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['cost', 'limit', 'gap']
    """
    x, y = series("values", steps, values)
    draw_line(ax, x, y, label, (PALETTE[0], "-"), zorder=3)
    if validation is not None:
        draw_line(ax, *series("validation", *validation), "validation", look(1))
    if limit is not None:
        top = limits(limit, len(x))
        ax.plot(x, top, "--", label="limit", color="black", linewidth=1.2, zorder=4)
        known = np.isfinite(y) & np.isfinite(top)
        ax.fill_between(
            x, y, top, where=known, color=PALETTE[0], alpha=0.13, linewidth=0, label="gap"
        )
    step_axis(ax)
    tidy(ax)
    legend_above(ax)
    return ax


def plot_tightness(
    ax: Axes,
    curves: Mapping[str, tuple[Numbers, Numbers]],
    styles: Mapping[str, Style] | None = None,
) -> Axes:
    """Draw the share of its limit that each bound reaches, in percent, during training.

    Args:
        ax: Where to draw.
        curves: For every name, the steps and the tightness (a fraction, 1 where the bound is
            tight), both with shape ``(n,)``. A value that is not finite leaves a gap.
        styles: Colour and dash pattern of every name. By default all differ.

    Raises:
        InputError: If there is no curve, or the lengths of one do not fit.

    >>> ax = plot_tightness(canvas()[1], {"nuclear norm": ([0, 1, 2], [0.2, 0.7, 0.9])})
    >>> ax.lines[1].get_ydata().tolist()
    [20.0, 70.0, 90.0]
    """
    check_some("curves", curves)
    ax.axhline(100, linestyle="--", color="black", linewidth=1.2, zorder=4)
    top = 100.0
    for i, (name, (steps, values)) in enumerate(curves.items()):
        x, y = series(f"curves[{name!r}]", steps, values)
        draw_line(ax, x, 100 * y, name, look(i) if styles is None else styles[name])
        top = max(top, float(np.nanmax(100 * y)))
    # Tightness lies between 0 and 100 % up to rounding. A fixed scale makes runs comparable.
    ax.set_ylim(0, 1.05 * top)
    ax.yaxis.set_major_formatter(PercentFormatter(symbol=" %"))
    ax.set_ylabel("tightness")
    step_axis(ax)
    tidy(ax)
    legend_above(ax)
    return ax


def plot_spectrum(ax: Axes, spectra: Mapping[str, Tensor], *, floor: float = 1e-9) -> Axes:
    """Draw singular values against their rank, largest first, on logarithmic axes.

    Args:
        ax: Where to draw.
        spectra: For every name, non-negative singular values with shape ``(n,)``, in any order.
        floor: The picture ends at this fraction of the largest value. Smaller ones are rounding
            errors.

    Raises:
        InputError: If there is no spectrum, or one that is empty, negative or not finite.

    >>> ax = plot_spectrum(canvas()[1], {"trained": torch.tensor([0.1, 1.0, 0.01])})
    >>> [round(value, 6) for value in ax.lines[0].get_ydata().tolist()]
    [1.0, 0.1, 0.01]
    """
    check_some("spectra", spectra)
    ordered = {name: singular_values(name, values) for name, values in spectra.items()}
    largest = max(values[0] for values in ordered.values())
    if largest == 0:
        raise InputError("spectra: every singular value is zero; there is nothing to draw")
    ax.set_xscale("log")
    ax.set_yscale("log")
    for i, (name, values) in enumerate(ordered.items()):
        # A logarithmic axis has no place for zero.
        y = np.where(values > 0, values, np.nan)
        draw_line(ax, np.arange(1, len(y) + 1.0), y, name, look(i))
    ax.set_ylim(bottom=max(floor * largest, ax.get_ylim()[0]))
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("rank")
    ax.set_ylabel("singular value")
    tidy(ax)
    legend_above(ax)
    return ax


def _show(ax: Axes, picture: Array) -> Axes:
    ax.imshow(picture, interpolation="nearest")
    ax.set_axis_off()
    return ax


def _contours(ax: Axes, log_density: Callable[[Tensor], Tensor], like: Tensor) -> None:
    """Fill the contours of a density over the present view. The view is not changed."""
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    x, y = np.linspace(left, right, 150), np.linspace(bottom, top, 150)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    points = torch.as_tensor(grid, dtype=like.dtype, device=like.device)
    with torch.no_grad():  # in pieces, because a mixture needs memory for every pair
        starts = range(0, len(points), 1500)
        pieces = [log_density(points[start : start + 1500]) for start in starts]
    if any(piece.ndim != 1 for piece in pieces) or sum(map(len, pieces)) != len(points):
        shape = tuple(pieces[0].shape)
        raise InputError(f"log_density returned shape {shape} for 1500 points: expected (1500,)")
    log_p = to_numpy(torch.cat(pieces))
    if np.isnan(log_p).any() or not np.isfinite(log_p.max()):
        raise InputError("log_density is NaN, infinite or zero everywhere within the picture")
    levels = mass_levels(log_p - log_p.max())
    shades = SHADES[-len(levels) :]
    # Nothing is drawn below the lowest level, but -inf there would spoil the interpolation.
    z = np.maximum(log_p - log_p.max(), levels[0] - 5).reshape(len(y), len(x))
    ax.contourf(x, y, z, levels=[*levels, 1.0], colors=shades, zorder=0)
    ax.set_xlim(left, right)
    ax.set_ylim(bottom, top)


def _histograms(ax: Axes, real: Array, model: Array, name: str) -> Axes:
    bins = np.histogram_bin_edges(np.concatenate([real, model]), bins=40).tolist()
    ax.hist(real, bins=bins, density=True, color=REAL, alpha=0.35, label="data")
    ax.hist(
        model,
        bins=bins,
        density=True,
        histtype="step",
        color=MODEL,
        linewidth=1.8,
        label="samples",
    )
    name_axes((ax.set_xlabel, name))
    ax.set_ylabel("density")
    tidy(ax)
    legend_above(ax)
    return ax


def _ranges(ax: Axes, real: Array, model: Array, names: Sequence[str]) -> Axes:
    mean, scale = real.mean(axis=0), real.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)  # a constant column has no spread to measure in
    rows = np.arange(len(names), dtype=float)
    for x, shift, color, label in ((real, -0.17, REAL, "data"), (model, 0.17, MODEL, "samples")):
        q = np.quantile((x - mean) / scale, (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
        ax.hlines(rows + shift, q[0], q[4], color=color, linewidth=1.2)
        ax.hlines(rows + shift, q[1], q[3], color=color, linewidth=5, alpha=0.55, label=label)
        ax.plot(q[2], rows + shift, "o", color=color, markersize=5, markeredgecolor="white")
    labels, families = names_in_pictures(names)
    ax.set_yticks(rows, labels=labels, parse_math=False, fontfamily=families)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlabel("standard deviations from the data's mean")
    tidy(ax)
    legend_above(ax)
    return ax
