"""New rows for a model that is trained: from memory or from a file, with the columns that it had.

Columns are found by their names, so their order is free, and there may be others beside them.
Where the model's data had no names, columns are found by their places.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hilbound.datasets.checks import check_unit_range, enumerate_names, neighbours
from hilbound.datasets.delimited import TextFormat
from hilbound.datasets.mixed import SUFFIXES, read_frame, suffix_of
from hilbound.datasets.tables import ARRAYS
from hilbound.errors import DataError, InputError
from hilbound.registry import suggest

if TYPE_CHECKING:
    import pandas as pd


def read_new(path: Path, form: TextFormat | None = None) -> "pd.DataFrame | NDArray[Any]":
    """Read a file of new rows: a data frame from a table, or an array.

    Args:
        path: The file.
        form: What is known of a file of text.

    Raises:
        DataError: If the file is missing, damaged, or of another kind.
        InputError: If ``form`` says something of an array.
    """
    kind = suffix_of(path)
    if kind not in {*SUFFIXES, *ARRAYS} and path.exists() and not path.is_dir():
        raise DataError(
            f"{path}: the suffix {kind!r} is unknown, allowed are {', '.join((*SUFFIXES, *ARRAYS))}"
        )
    if kind not in ARRAYS:
        return read_frame(path, form).frame
    if not path.exists():
        raise DataError(f"{path} does not exist: {neighbours(path)}")
    if form is not None and form.given():
        raise InputError(f"{', '.join(form.given())}: for files of text; {path} holds arrays")
    values, *_ = ARRAYS[kind](path, None)
    return values


def as_rows(
    x: Any,
    columns: list[str] | None,
    dim: int,
    *,
    images: bool = False,
    source: str = "x",
) -> Tensor:
    """Return rows as a float64 tensor with shape ``(n, d)``, NaN where a value is missing.

    Args:
        x: A tensor, an array, a list of rows, or a data frame, whose columns are found by name.
        columns: The names of the columns, if the data have names.
        dim: Their number d.
        images: Whether rows are images: uint8, which is divided by 255, or floats in [0, 1].
        source: What to call the rows in messages.

    Raises:
        DataError: If a column is missing or no number, or the shape is another.

    >>> as_rows([[1, 2], [3, 4]], None, 2)
    tensor([[1., 2.],
            [3., 4.]], dtype=torch.float64)
    """
    if hasattr(x, "columns"):
        x = _by_name(x, columns, dim, source)
    try:
        values = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x)
    except ValueError as error:
        raise DataError(f"{source} makes no array ({error}): make all rows equally long") from None
    if values.dtype.kind not in "fiub":
        raise DataError(
            f"{source} holds values of type {values.dtype}, and rows of {dim} numbers are needed"
        )
    values = values[:, None] if values.ndim == 1 and dim == 1 else values
    if values.ndim < 2 or values[:1].size != dim * len(values[:1]):
        raise DataError(
            f"{source} has shape {values.shape}: rows of {dim} numbers are needed"
            + (f", {enumerate_names(columns)}" if columns else "")
        )
    rows = values.reshape(len(values), dim)
    floats: NDArray[np.float64] = rows.astype(np.float64)
    if images and rows.dtype == np.uint8:
        floats /= 255
    elif images and floats.size:
        check_unit_range(floats, source)
    return torch.from_numpy(floats)


def _by_name(frame: Any, columns: list[str] | None, dim: int, source: str) -> NDArray[np.float64]:
    there = [str(name) for name in frame.columns]
    if columns is None:
        if len(there) != dim:
            raise DataError(
                f"{source} has {len(there)} columns, and the model was fitted on {dim} without "
                "names: give as many, in the same order"
            )
        columns = there
    lacking = [name for name in columns if name not in there]
    if lacking:
        others = [name for name in there if name not in columns]
        instead = f" (it has {enumerate_names(others)} beside)" if others else ""
        raise DataError(
            f"{source} lacks {enumerate_names(lacking)}, on which the model was fitted{instead}: "
            f"{suggest(lacking[0], others)}add the column, or rename it back"
        )
    places = [there.index(name) for name in columns]
    names = list(frame.columns)
    return np.stack([_numbers(frame[names[j]], source) for j in places], axis=1)


def _numbers(column: Any, source: str) -> NDArray[np.float64]:
    """Return a column as numbers, and name its first cell that is none."""
    import pandas as pd

    values = pd.Series(np.asarray(column))
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = (numbers.isna() & values.notna()).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{source}: column {column.name!r} holds {values.iloc[row]!r} in row {row + 1} below "
            "the header: write a number, or leave the cell empty where the value is missing"
        )
    return np.asarray(numbers.to_numpy(dtype=np.float64))
