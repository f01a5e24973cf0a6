"""An animation of samples over the steps of a training, without a script.

All frames stand side by side in one picture, and the page moves it past a window. On paper, and
where readers ask for less motion, the last frame stands still.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hilbound.reports.drawing import MODEL, REAL, canvas, legend_above, tidy, to_numpy
from hilbound.reports.lettering import name_axes
from hilbound.reports.page import MEDIA, Figure

_DPI = 110
# Few colours make a small file: shades between two that meet in the picture, so many of each pair.
_SHADES = 12
_PAIRS = ((REAL, "white"), (MODEL, "white"), (REAL, MODEL), ("black", "white"))
# Room around the data for samples that stray, as a share of their range.
_MARGIN = 0.15


def film_figure(
    data: Tensor, frames: Mapping[int, Tensor], columns: Sequence[str], *, equal: bool
) -> Figure:
    """Return the animation of samples over real points.

    Args:
        data: Real points with shape ``(n, 2)``.
        frames: Samples with shape ``(m, 2)`` by their training step, in its order.
        columns: Names of the two coordinates.
        equal: Whether both axes have one scale.

    >>> import torch
    >>> x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    >>> figure = film_figure(x, {0: 0 * x, 9: x}, ("a", "b"), equal=True)
    >>> figure.frames, figure.alt
    (2, 'samples at training steps 0, 9, over the data')
    """
    pictures = _pictures(to_numpy(data), frames, columns, equal=equal)
    strip = Image.fromarray(np.concatenate(pictures, axis=1))
    stream = BytesIO()
    few = strip.quantize(palette=_palette(), dither=Image.Dither.NONE)
    few.save(stream, format="png", optimize=True)
    steps = ", ".join(f"{step:,}" for step in frames)
    return Figure(
        f"data:{MEDIA['png']};base64,{b64encode(stream.getvalue()).decode('ascii')}",
        f"samples at training steps {steps}, over the data",
        f"The same draws of noise at {len(frames)} steps, from {min(frames):,} to "
        f"{max(frames):,}. Samples outside the window are not shown.",
        frames=len(frames),
        aspect=pictures[0].shape[1] / pictures[0].shape[0],
    )


def _palette() -> Image.Image:
    """Return a picture that holds the colours. Those found by counting would lose a lone sample."""
    share = np.linspace(0, 1, _SHADES)[:, None]
    ends = [[np.array(to_rgb(color)) for color in pair] for pair in _PAIRS]
    shades = np.concatenate([one + share * (other - one) for one, other in ends])
    holder = Image.new("P", (1, 1))
    holder.putpalette((255 * shades).round().astype(int).ravel().tolist())
    return holder


def _height(extent: NDArray[np.float64]) -> float:
    """Return the height of a picture in which axes of one scale leave no empty bands."""
    room, words = 3.7, 0.9  # inches: the width of the axes, and what stands above and below them
    return float(np.clip(room * extent[1] / extent[0] + words, 2.4, 4.4))


def _pictures(
    data: NDArray[np.float64], frames: Mapping[int, Tensor], columns: Sequence[str], *, equal: bool
) -> list[NDArray[np.uint8]]:
    margin = _MARGIN * np.ptp(data, axis=0).clip(1e-12)
    low, high = data.min(axis=0) - margin, data.max(axis=0) + margin
    figure, ax = canvas(4.4, _height(high - low) if equal else 4.4)
    figure.set_dpi(_DPI)
    ax.scatter(data[:, 0], data[:, 1], s=9, color=REAL, alpha=0.3, linewidths=0, label="data")
    dots = ax.scatter([], [], s=6, color=MODEL, alpha=0.75, linewidths=0, label="samples")
    ax.set_xlim(low[0], high[0])
    ax.set_ylim(low[1], high[1])
    if equal:
        ax.set_aspect("equal", adjustable="box")
    name_axes((ax.set_xlabel, columns[0]), (ax.set_ylabel, columns[1]))
    tidy(ax, grid=False)
    legend_above(ax, [*ax.collections])
    # Inside, so that the place of the axes does not depend on it.
    title = ax.text(0.02, 0.98, "", transform=ax.transAxes, va="top", fontsize=9)
    # What is animated is left out here, and drawn on top of the rest for every frame.
    moving = (dots, title)
    for artist in moving:
        artist.set_animated(True)
    drawn: Any = FigureCanvasAgg(figure)
    drawn.draw()
    rest = drawn.copy_from_bbox(figure.bbox)
    pictures = []
    for step, samples in frames.items():
        dots.set_offsets(to_numpy(samples))
        title.set_text(f"step {step:,}")
        drawn.restore_region(rest)
        for artist in moving:
            ax.draw_artist(artist)
        pictures.append(np.array(drawn.buffer_rgba())[..., :3])
    return pictures
