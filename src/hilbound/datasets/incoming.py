"""Data that are no file yet: an array, a data frame, or what comes on standard input.

A run must find its data again, for its report and to be continued. So such data become a file,
which is read like every other and stays in the run folder.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from hilbound.errors import DataError, InputError

#: What stands for standard input in the place of a file.
STDIN = "-"

# The first bytes of a file tell its kind; text has none.
_MAGIC = {
    b"\x93NUMPY": ".npy",
    b"PK\x03\x04": ".npz",
    b"\x1f\x8b": ".csv.gz",
}
# A column may be called so, but no text ends so, too.
_PARQUET = b"PAR1"


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
    if array.dtype.kind == "O":
        example = next(iter(array.flat), None)
        raise DataError(f"data are an array of objects such as {example!r}: give numbers")
    path = folder / "data.npy"
    np.save(path, array)
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
    path = folder / f"data{_kind(content)}"
    path.write_bytes(content)
    return Incoming(path, "standard input")


def _kind(content: bytes) -> str:
    if content.startswith(_PARQUET) and content.endswith(_PARQUET):
        return ".parquet"
    return next((kind for magic, kind in _MAGIC.items() if content.startswith(magic)), ".csv")


@contextmanager
def called(incoming: Incoming) -> Iterator[None]:
    """Let errors inside a ``with`` block call the data by their name, not by their file."""
    try:
        yield
    except InputError as error:
        raise type(error)(str(error).replace(str(incoming.path), incoming.name)) from None


def beside(folder: Path, data: str) -> str:
    """Return where the data of a run are: its own file moves with its folder.

    Args:
        folder: The run folder.
        data: Where its configuration says that they are.
    """
    own = folder / Path(data).name
    moved = own.stem.split(".")[0] == "data" and own.is_file() and not Path(data).exists()
    return str(own.absolute()) if moved else data
