"""NumPy's own files: one array (``.npy``) or several by name (``.npz``).

Files with pickled Python objects are refused, because unpickling a file runs its code.
"""

import zipfile
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilbound.datasets.base import RawTable
from hilbound.datasets.checks import encode_labels
from hilbound.errors import DataError, InputError
from hilbound.registry import suggest

Arrays: TypeAlias = dict[str, NDArray[Any]]

POINT_KEYS = ("x", "features", "data", "images")
LABEL_KEYS = ("y", "labels")


def read_npy(path: Path, label_column: str | None = None) -> RawTable:
    """Read the points from a ``.npy`` file.

    Raises:
        DataError: If the file is damaged or holds Python objects.
        InputError: If ``label_column`` is given. An array has no named columns.
    """
    if label_column is not None:
        raise InputError(
            f"--label-column {label_column!r}: a .npy file has no named columns; save the points "
            "as 'x' and the labels as 'y' in a .npz file"
        )
    return RawTable(_read_arrays(path, ".npy")[""])


def read_npz(path: Path, label_column: str | None = None) -> RawTable:
    """Read points and labels from a ``.npz`` file.

    The points are the array called ``x``, ``features``, ``data`` or ``images``, or else the only
    array of floats. The labels are the array that ``label_column`` names, or else an array of
    integers called ``y`` or ``labels``. An array of floats with such a name is the target of a
    regression and is ignored.

    Raises:
        DataError: If the file is damaged, holds Python objects, or several arrays could be meant.
        InputError: If no array is called ``label_column``.
    """
    arrays = _read_arrays(path, ".npz")
    key = _label_key(path, arrays, label_column)
    points = _only_points(path, {name: array for name, array in arrays.items() if name != key})
    if key is None:
        return RawTable(points)
    if arrays[key].dtype.kind not in "iubU":
        raise DataError(
            f"{path}: labels {key!r} of type {arrays[key].dtype}, where integers or text are needed"
        )
    rows = len(points) if points.ndim else 0
    return RawTable(points, encode_labels(arrays[key], rows, f"{path}, {key!r}"))


def _read_arrays(path: Path, suffix: str) -> Arrays:
    try:
        # Opened here, because np.load leaves the file open if an archive is damaged.
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray) and suffix == ".npy":
                return {"": content}
            if isinstance(content, np.lib.npyio.NpzFile) and suffix == ".npz":
                with content:
                    return {name: content[name] for name in content.files}
    # A damaged header may claim terabytes.
    except (
        EOFError,
        OSError,
        ValueError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise DataError(f"{path}: {_reason(path, suffix, error)}") from error
    raise DataError(
        f"{path}: not what its name says, a {suffix} file: np.save writes .npy, np.savez .npz"
    )


def _reason(path: Path, suffix: str, error: Exception) -> str:
    if path.stat().st_size == 0:
        return "an empty file"
    if "Object arrays" in str(error):
        return (
            "holds Python objects, which are not read because unpickling runs code: save numbers, "
            "as in np.save(path, np.asarray(x, dtype=float))"
        )
    return f"a damaged or truncated {suffix} file, or not one at all ({error}): save it again"


def _label_key(path: Path, arrays: Arrays, label_column: str | None) -> str | None:
    if label_column is not None:
        if label_column not in arrays:
            raise InputError(
                f"--label-column {label_column!r}: {suggest(label_column, arrays)}{path} holds "
                f"{_listed(arrays)}"
            )
        return label_column
    keys = [key for key in LABEL_KEYS if key in arrays and arrays[key].dtype.kind in "iu"]
    if len(keys) > 1:
        raise DataError(
            f"{path}: labels could be any of {', '.join(keys)} in {_listed(arrays)}: name one with "
            "--label-column, or save only one"
        )
    return keys[0] if keys else None


def _only_points(path: Path, arrays: Arrays) -> NDArray[Any]:
    named = [arrays[key] for key in POINT_KEYS if key in arrays]
    found = named or [array for array in arrays.values() if array.dtype.kind == "f"]
    if len(found) != 1:
        raise DataError(
            f"{path}: {len(found)} arrays could be the points in {_listed(arrays)}: save exactly "
            f"one called {', '.join(POINT_KEYS[:-1])} or {POINT_KEYS[-1]}, or one of floats"
        )
    return found[0]


def _listed(arrays: Arrays) -> str:
    listed = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in arrays.items())
    return listed or "no arrays"
