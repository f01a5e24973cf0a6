"""What all pictures share: colours, the style of axes, and checks of the values to draw.

The colours are Okabe and Ito's, which colour-blind readers can distinguish. Their yellow is left
out, because it is hard to see on white. The style is set on each ``Axes``. matplotlib's own
settings are not changed.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray
from torch import Tensor, float64

from hilbound.arguments import require_rows
from hilbound.errors import InputError

Array: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = Tensor | NDArray[np.floating | np.integer] | Sequence[float]
#: A colour and a dash pattern.
Style: TypeAlias = tuple[str, str | tuple[int, tuple[int, ...]]]

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
REAL = "#5b6470"
MODEL = PALETTE[1]
SHADES = ("#edf4fa", "#dbe9f4", "#c6ddee", "#aecfe6", "#94bfdd")
DASHES = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)))
MASS = (0.95, 0.8, 0.6, 0.4, 0.2)
FRAME = "#9aa3ad"


def canvas(width: float = 4.4, height: float = 3.0) -> tuple[Figure, Axes]:
    """Return a new figure of ``width`` by ``height`` inches with its axes, without pyplot.

    >>> figure, ax = canvas()
    >>> ax.figure is figure
    True
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def look(i: int) -> Style:
    """Return the i-th colour and dash pattern. The dashes tell lines apart without colour.

    The first 30 differ.

    >>> look(1), look(7)
    (('#d55e00', '--'), ('#d55e00', '-.'))
    """
    colors, dashes = len(PALETTE), len(DASHES)
    return PALETTE[i % colors], DASHES[(i + i // colors) % dashes]


def draw_line(
    ax: Axes,
    x: Array,
    y: Array,
    label: str,
    style: Style,
    *,
    zorder: float = 2,
) -> None:
    """Draw a line with a gap wherever ``y`` is NaN, and a dot for a value between two gaps."""
    known = np.pad(np.isfinite(y), 1)
    alone = np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:])
    color, dashes = style
    ax.plot(x, y, label=label, color=color, linestyle=dashes, linewidth=1.8, zorder=zorder)
    if len(alone):
        ax.plot(x[alone], y[alone], "o", color=color, markersize=4, zorder=zorder)


def mosaic(images: Tensor, columns: int) -> Array:
    """Arrange images (n, c, h, w) in one RGB array, with white gaps and white empty places."""
    n, _, height, width = images.shape
    gap = max(1, round(min(height, width) / 16))
    rows = math.ceil(n / columns)
    tiles = np.ones((rows * columns, height + gap, width + gap, 3))
    tiles[:n, :height, :width] = to_numpy(images).clip(0, 1).transpose(0, 2, 3, 1)
    grid = tiles.reshape(rows, columns, *tiles.shape[1:]).swapaxes(1, 2)
    return grid.reshape(rows * (height + gap), columns * (width + gap), 3)[:-gap, :-gap]


def mass_levels(log_p: Array) -> list[float]:
    """Return increasing log densities whose superlevel sets hold the shares ``MASS`` of mass."""
    p = np.sort(np.exp(log_p))[::-1]
    share = p.cumsum() / p.sum()
    levels = np.log(p[np.searchsorted(share, MASS)])
    # On a plateau several levels are equal, so duplicates are removed. The levels are lowered a
    # little, so that the plateau itself lies inside.
    return [float(level) - 1e-4 for level in np.unique(levels.round(3))]


def tidy(ax: Axes, *, grid: bool = True) -> None:
    """Keep two pale spines, and draw a pale grid behind everything."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FRAME)
    ax.tick_params(which="both", color=FRAME, labelcolor="#3a424c")
    ax.set_axisbelow(True)
    if grid:
        ax.grid(visible=True, color="#e6e9ed", linewidth=0.8)


def step_axis(ax: Axes) -> None:
    """Label the x axis with whole training steps."""
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.set_xlabel("step")


def legend_above(ax: Axes, handles: Sequence[Artist] | None = None) -> None:
    """Put the legend above the picture, where it covers nothing. It has one row if that fits."""
    handles = ax.get_legend_handles_labels()[0] if handles is None else handles
    one_row = sum(len(str(handle.get_label())) + 5 for handle in handles) <= 54
    legend = ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=len(handles) if one_row else 2,
        frameon=False,
        handlelength=1.5,
        columnspacing=1.2,
        handletextpad=0.5,
    )
    for text in legend.get_texts():  # a name with dollar signs isn't a formula
        text.set_parse_math(False)


def to_numpy(values: Tensor) -> Array:
    """Return a tensor from any device as a float64 array."""
    return values.detach().cpu().to(float64).numpy()


def check_images(name: str, images: Tensor, layout: str) -> None:
    """Raise an :class:`InputError` unless ``images`` are drawable and laid out as ``layout``."""
    if images.ndim != layout.count(",") + 1 or images.shape[-3] not in (1, 3):
        raise InputError(
            f"{name} has shape {tuple(images.shape)}: expected {layout} with one or three channels"
        )
    if images.numel() == 0:
        raise InputError(f"{name} has shape {tuple(images.shape)}: there is nothing to draw")
    if not images.is_floating_point():
        raise InputError(f"{name} has dtype {images.dtype}: convert it to floats between 0 and 1")
    check_finite(name, images)


def check_points(name: str, points: Tensor, dim: int | None = None) -> None:
    """Raise an :class:`InputError` unless ``points`` are finite rows, with ``dim`` columns."""
    require_rows(name, points)
    if points.shape[1] != (dim or points.shape[1]):
        raise InputError(f"{name} has shape {tuple(points.shape)}: expected (n, {dim})")


def check_finite(name: str, values: Tensor) -> None:
    """Raise an :class:`InputError` if any value is NaN or infinite."""
    bad = int((~values.isfinite()).sum())
    if bad:
        raise InputError(
            f"{name} holds {bad} of {values.numel()} values that are not finite: leave them out"
        )


def check_some(name: str, entries: Mapping[str, object]) -> None:
    """Raise an :class:`InputError` if there is no entry."""
    if not entries:
        raise InputError(f"{name} is empty: pass at least one entry")


def series(name: str, steps: Numbers, values: Numbers) -> tuple[Array, Array]:
    """Return steps and values with shape ``(n,)``. A value that is not finite becomes NaN."""
    x, y = vector("steps", steps), vector(name, values)
    if len(x) != len(y):
        raise InputError(f"{name} has {len(y)} values for {len(x)} steps: lengths must be equal")
    if not np.isfinite(x).all():
        raise InputError(f"steps of {name} must be finite numbers")
    if not np.isfinite(y).any():
        raise InputError(f"{name} holds no finite value: there is nothing to draw")
    return x, np.where(np.isfinite(y), y, np.nan)


def vector(name: str, values: Numbers) -> Array:
    """Return numbers with shape ``(n,)`` as a float64 array."""
    array = _array(values)
    if array.ndim != 1:
        raise InputError(f"{name} has shape {array.shape}: expected (n,)")
    return array


def limits(limit: float | Numbers, n: int) -> Array:
    """Return a limit for each of ``n`` steps, from one number or ``n`` of them."""
    array = _array(limit)
    if array.shape not in ((), (n,)):
        raise InputError(
            f"limit has shape {array.shape}: pass one number or {n}, one for each step"
        )
    return np.broadcast_to(array, (n,))


def _array(values: float | Numbers) -> Array:
    return to_numpy(values) if isinstance(values, Tensor) else np.asarray(values, dtype=float)


def singular_values(name: str, values: Tensor) -> Array:
    """Return a spectrum with shape ``(n,)``, largest value first."""
    y = np.sort(vector(f"spectra[{name!r}]", values))[::-1]
    if len(y) == 0 or not np.isfinite(y).all() or y[-1] < 0:
        raise InputError(f"spectra[{name!r}] must hold finite numbers that are not negative")
    return y
