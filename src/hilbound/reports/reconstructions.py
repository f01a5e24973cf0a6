"""Reconstructions as a file: arrays or a picture.

:mod:`hilbound.evaluation.reconstruction` makes them.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from hilbound.errors import InputError
from hilbound.reports import feature_plots, plots
from hilbound.reports.drawing import canvas
from hilbound.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure
from hilbound.evaluation.reconstruction import Reconstructions

SUFFIXES = (".png", ".npz")


def check_output(run: Run, output: Path) -> None:
    """Raise an InputError if reconstructions of a run cannot be written to such a file."""
    suffix = output.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"output must end in one of {', '.join(SUFFIXES)}, got {str(output)!r}")
    data = run.read_json("run.json")["data"]
    if suffix == ".png" and data["image_shape"] is None and data["dim"] != 2:
        raise InputError(
            f"output {str(output)!r}: {data['dim']} coordinates make no picture; write a .npz file"
        )


def write_reconstructions(run: Run, result: Reconstructions, output: Path) -> Path:
    """Write reconstructions as ``.npz`` or ``.png``.

    Arrays are ``x``, ``features`` and ``reconstructions``. In a picture of images every row shows
    an input and then its reconstructions; vectors of two coordinates become a scatter.

    Raises:
        InputError: If the suffix is unknown, such data cannot be drawn, or the file cannot be
            written.
    """
    check_output(run, output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.suffix.lower() == ".npz":
            arrays = {name: values.numpy() for name, values in result.arrays().items()}
            np.savez_compressed(output, allow_pickle=False, **arrays)
        else:
            draw_reconstructions(result).savefig(output, dpi=200)
    except OSError as error:
        raise InputError(f"output {str(output)!r} cannot be written: {error.strerror}") from None
    return output


def draw_reconstructions(result: Reconstructions, data: Tensor | None = None) -> "Figure":
    """Return a figure of inputs beside their reconstructions.

    Args:
        result: Reconstructions of images, or of rows with two coordinates.
        data: Real points with shape ``(k, 2)`` to draw behind rows with two coordinates.
    """
    n, m, _ = result.reconstructions.shape
    if result.image_shape is not None:
        arrays = result.arrays()
        # All tiles have one size, whatever their number, but the figure must fit a page.
        figure, ax = canvas(min(9.0, 0.62 * (m + 1.5)), min(12.0, 0.62 * n + 0.4))
        feature_plots.plot_reconstructions(ax, arrays["x"], arrays["reconstructions"])
    else:
        figure, ax = canvas(5.0, 5.0)
        feature_plots.plot_reconstructed_points(
            ax, result.x, result.reconstructions, data, columns=result.columns or plots.COORDINATES
        )
    return figure
