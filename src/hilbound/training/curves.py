"""What a training leaves on its way: ``bounds.csv`` and, in the plane, snapshots of samples.

The rows of ``bounds.csv`` are cost, limit, gap and tightness at some steps.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hilbound.errors import InputError
from hilbound.training.files import own_file, read_text
from hilbound.training.packing import DAMAGE, read_tensors

#: The file of the snapshots in a run folder, and how many there are at most.
SNAPSHOTS = "snapshots.safetensors"
MOST_SNAPSHOTS = 16
_MOST_POINTS = 1000

BOUND_COLUMNS = (
    "step",
    "split",
    "loss",
    "log_value",
    "log_limit",
    "gap",
    "tightness",
    "variance",
    "seconds",
    "real_tightness",
)


def read_bounds(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a ``bounds.csv``, numbers as floats. Without a file there are no rows.

    The tightness of real rows is ``None`` where it was not measured.

    Raises:
        InputError: If the file is damaged.
    """
    if not file.exists():
        return []
    try:
        text = read_text(file)
        # A process that is killed may leave half a line; the rest of it is lost.
        whole = text[: text.rfind("\n") + 1]
        return [
            {k: _read_cell(k, row) for k in BOUND_COLUMNS}
            for row in csv.DictReader(io.StringIO(whole, newline=""))
        ]
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        raise InputError(
            f"{str(file)!r} is damaged: remove the lines that are not complete, or the file"
        ) from None


def format_bounds(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a ``bounds.csv`` with these rows."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, BOUND_COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read_cell(name: str, row: dict[str, str]) -> str | float | None:
    if name == "split":
        return row[name]
    # Files of earlier versions do not have this column, and runs without an encoder leave it empty.
    if name == "real_tightness" and not row.get(name):
        return None
    return float(row[name])


def read_snapshots(folder: Path) -> dict[int, Tensor]:
    """Return samples of the plane with shape ``(n, 2)`` by their step, in standardised units.

    Runs of other data, and of older versions, have none.

    Raises:
        InputError: If the file is damaged.
    """
    file = own_file(folder, SNAPSHOTS)
    if not file.exists():
        return {}
    try:
        return unpack_snapshots(read_tensors(file)[0])
    except DAMAGE as error:
        raise InputError(
            f"{str(file)!r} is damaged ({error}): remove it, and the report has no animation"
        ) from None


def unpack_snapshots(tensors: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Return snapshots by their step, in its order.

    Raises:
        ValueError: If they are more or larger than a training makes them, or contradict each other.
    """
    steps, points = tensors["steps"], tensors["points"]
    shape = (len(steps), *points.shape[1:2], 2)
    few = len(steps) <= MOST_SNAPSHOTS and points.numel() <= MOST_SNAPSHOTS * _MOST_POINTS * 2
    if points.shape != shape or not few or not bool(points.isfinite().all()):
        raise ValueError(f"snapshots of shape {tuple(points.shape)}")
    known = dict(zip(map(int, steps.tolist()), points.float(), strict=True))
    return dict(sorted(known.items()))
