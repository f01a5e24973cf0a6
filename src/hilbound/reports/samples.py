"""Samples of a run as a file: a picture, an array or a table."""

import csv
from pathlib import Path

import numpy as np
from torch import Tensor

from hilbound.errors import InputError
from hilbound.reports import plots
from hilbound.reports.drawing import canvas
from hilbound.training.files import plain_cell
from hilbound.training.runs import Run

SUFFIXES = (".png", ".npz", ".npy", ".csv")


def default_samples(run: Run) -> Path:
    """Return the file that samples go to unless another is named: what can be drawn is drawn."""
    data = run.read_json("run.json")["data"]
    drawn = data["image_shape"] is not None or (data["dim"] == 2 and data["columns"] is None)
    return Path("samples.png" if drawn else "samples.csv")


def write_samples(run: Run, samples: Tensor, output: Path) -> Path:
    """Write samples with shape ``(n, d)`` as ``.png``, ``.npz``, ``.npy`` or ``.csv``.

    Arrays of images have the shape ``(n, channels, height, width)``. A picture shows images as a
    grid, and vectors of two coordinates as a scatter.

    Raises:
        InputError: If the suffix is unknown, such data cannot be drawn, or the file cannot be
            written.
    """
    suffix = output.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"output must end in one of {', '.join(SUFFIXES)}, got {str(output)!r}")
    data = run.read_json("run.json")["data"]
    shape = data["image_shape"]
    rows = samples if shape is None else samples.reshape(-1, *shape)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if suffix == ".png":
            _write_picture(rows, data["columns"], output)
        elif suffix == ".csv":
            columns = data["columns"] or [f"x{i}" for i in range(samples.shape[1])]
            _write_table(samples, columns, output)
        elif suffix == ".npy":
            np.save(output, rows.numpy())
        else:
            np.savez_compressed(output, x=rows.numpy())
    except OSError as error:
        raise InputError(f"output {str(output)!r} cannot be written: {error.strerror}") from None
    return output


def _write_table(samples: Tensor, columns: list[str], output: Path) -> None:
    with output.open("w", newline="", encoding="utf-8") as lines:
        # A column may be called =cmd(), which a spreadsheet would run.
        csv.writer(lines, lineterminator="\n").writerow(map(plain_cell, columns))
        np.savetxt(lines, samples.numpy(), "%.9g", ",")


def _write_picture(rows: Tensor, columns: list[str] | None, output: Path) -> None:
    if rows.ndim == 4:
        figure, ax = canvas(6.0, 6.0)
        plots.plot_images(ax, rows)
    elif rows.shape[1] == 2:
        figure, ax = canvas(5.0, 5.0)
        ax.scatter(
            rows[:, 0].numpy(), rows[:, 1].numpy(), s=6, color=plots.PALETTE[0], linewidths=0
        )
        ax.set_aspect("equal")
        first, second = columns or ("x₁", "x₂")
        # Names are the user's, and a $ in them is no formula.
        ax.set_xlabel(first, parse_math=False)
        ax.set_ylabel(second, parse_math=False)
    else:
        raise InputError(
            f"output {str(output)!r}: {rows.shape[1]} coordinates make no picture; "
            "write a .csv, .npy or .npz file"
        )
    figure.savefig(output, dpi=200)
