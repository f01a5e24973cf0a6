"""Samples of a run as a file: a picture, an array or a table."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from hilbound.datasets.checks import coordinate_names
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
    grid, and vectors of two coordinates as a scatter over held-out rows, if the data are there.

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
            _write_picture(run, rows, data["columns"], output)
        elif suffix == ".csv":
            columns = data["columns"] or coordinate_names(samples.shape[1])
            _write_table(samples, columns, data.get("whole", []), output)
        elif suffix == ".npy":
            np.save(output, rows.numpy())
        else:
            np.savez_compressed(output, x=rows.numpy())
    except OSError as error:
        raise InputError(f"output {str(output)!r} cannot be written: {error.strerror}") from None
    return output


def _write_table(
    samples: Tensor, columns: Sequence[str], whole: Sequence[int], output: Path
) -> None:
    with output.open("w", newline="", encoding="utf-8") as lines:
        # A column may be called =cmd(), which a spreadsheet would run.
        csv.writer(lines, lineterminator="\n").writerow(map(plain_cell, columns))
        formats = ["%d" if j in whole else "%.9g" for j in range(len(columns))]
        np.savetxt(lines, samples.numpy(), formats, ",")


def _real_rows(run: Run, n: int) -> Tensor | None:
    """Return as many held-out rows in the user's units, or ``None`` if the data are gone."""
    try:
        return run.dataset.to_user_units(run.dataset.test[:n])
    except InputError:
        return None


def _write_picture(run: Run, rows: Tensor, columns: list[str] | None, output: Path) -> None:
    if rows.ndim == 4:
        figure, ax = canvas(6.0, 6.0)
        plots.plot_images(ax, rows)
    elif rows.shape[1] == 2:
        figure, ax = canvas(5.0, 5.0)
        real = _real_rows(run, len(rows))
        plots.plot_points(
            ax, real, rows, columns=columns or plots.COORDINATES, equal=columns is None
        )
    else:
        raise InputError(
            f"output {str(output)!r}: {rows.shape[1]} coordinates make no picture; "
            "write a .csv, .npy or .npz file"
        )
    figure.savefig(output, dpi=200)
