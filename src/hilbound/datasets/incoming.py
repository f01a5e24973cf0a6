"""Data that are no file yet: an array, a data frame, or what comes on standard input.

A run must find its data again, for its report and to be continued. So such data become a file,
which is read like every other and stays in the run folder.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hilbound.datasets.checks import enumerate_names
from hilbound.errors import DataError
from hilbound.registry import suggest

#: What stands for standard input in the place of a file.
STDIN = "-"

# The first bytes of a file tell its kind; text has none.
_MAGIC = {
    b"\x93NUMPY": ".npy",
    b"PK": ".npz",
    b"PAR1": ".parquet",
    b"\x1f\x8b": ".csv.gz",
}


class Incoming(NamedTuple):
    """Data that became a file.

    Args:
        path: The file.
        name: What to call the data.
        named: Whether the file's first line names its columns for certain.
    """

    path: Path
    name: str
    named: bool = False


def is_incoming(data: object) -> bool:
    """Whether data are neither the name of a data set nor a path.

    >>> is_incoming("moons"), is_incoming("-"), is_incoming([[1.0, 2.0]])
    (False, True, True)
    """
    return data == STDIN if isinstance(data, str) else not isinstance(data, Path | None)


def store(data: Any, folder: Path) -> Incoming:
    """Write data into a folder, as a file that can be read again.

    Args:
        data: An array, a tensor or a list of rows; a data frame of pandas or polars; or ``"-"`` for
            standard input.
        folder: Where the file goes; it is called ``data`` with a suffix.

    Raises:
        DataError: If nothing comes on standard input, or the data are none of these.
    """
    if isinstance(data, str):
        return _from_stdin(folder)
    if hasattr(data, "columns"):
        return _from_frame(data, folder / "data.csv")
    if isinstance(data, Tensor):
        data = data.detach().cpu().numpy()
    if not isinstance(data, np.ndarray | Iterable):
        raise DataError(
            f"data of type {type(data).__name__}: give the name of a data set, a path, an array "
            "with shape (n, d), or a data frame"
        )
    try:
        array = np.asarray(data)
    except ValueError as error:
        raise DataError(f"data make no array ({error}): make all rows equally long") from None
    path = folder / "data.npy"
    np.save(path, array, allow_pickle=array.dtype.kind == "O")
    return Incoming(path, f"an array of shape {array.shape}")


def _from_frame(frame: Any, path: Path) -> Incoming:
    if hasattr(frame, "write_csv"):  # polars
        frame.write_csv(path)
    else:
        frame.to_csv(path, index=False)
    return Incoming(path, f"a data frame of {len(frame):,} rows", named=True)


def _from_stdin(folder: Path) -> Incoming:
    if sys.stdin.isatty():
        raise DataError("data '-' are read from standard input, and nothing is piped into it")
    content = sys.stdin.buffer.read()
    if not content:
        raise DataError("data '-': nothing came on standard input")
    kinds = [kind for magic, kind in _MAGIC.items() if content.startswith(magic)]
    path = folder / f"data{kinds[0] if kinds else '.csv'}"
    path.write_bytes(content)
    return Incoming(path, "standard input")


def beside(folder: Path, data: str) -> str:
    """Return where the data of a run are: its own file moves with its folder.

    Args:
        folder: The run folder.
        data: Where its configuration says that they are.
    """
    own = folder / Path(data).name
    moved = own.stem.split(".")[0] == "data" and own.is_file() and not Path(data).exists()
    return str(own.absolute()) if moved else data


def as_rows(x: Any, columns: list[str] | None, dim: int) -> Tensor:
    """Return rows as a float64 tensor with shape ``(n, d)``.

    Args:
        x: A tensor, an array, a list of rows, or a data frame, whose columns are found by name.
        columns: The names of the columns, if the data have names.
        dim: Their number d.

    Raises:
        DataError: If a column is missing or no number, or the shape is another.
    """
    if hasattr(x, "columns"):
        x = _by_name(x, columns or [])
    rows = torch.as_tensor(np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x))
    rows = rows.unsqueeze(-1) if rows.ndim == 1 and dim == 1 else rows
    if rows.ndim < 2 or rows[:1].numel() != dim * len(rows[:1]):
        raise DataError(f"x has shape {tuple(rows.shape)}: rows of {dim} numbers are needed")
    return rows.reshape(len(rows), dim).double()


def _by_name(frame: Any, columns: list[str]) -> NDArray[np.float64]:
    there = [str(name) for name in frame.columns]
    lacking = [name for name in columns if name not in there]
    if lacking or not columns:
        raise DataError(
            f"x lacks {enumerate_names(lacking) if columns else 'names, as the data have none'}: "
            f"{suggest(lacking[0], there) if lacking else 'give an array. '}it has "
            f"{enumerate_names(there)}"
        )
    try:
        return np.stack([np.asarray(frame[name], dtype=np.float64) for name in columns], axis=1)
    except (TypeError, ValueError) as error:
        raise DataError(f"x holds something else than numbers ({error})") from None
