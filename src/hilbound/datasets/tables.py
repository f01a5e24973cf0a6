r"""Points from a user's own file: vectors from a table, images from an array.

The columns of a table have different units, but the kernel has a single variance. So column
:math:`j` is standardised to :math:`(x_j - \mu_j) / \sigma_j`. Mean and standard deviation are those
of the *training* rows, so that the held-out rows stay unseen.

Tables are read and standardised in float64, and rounded to float32 at the end. A date such as
2024.25 would lose digits in float32, but its standardised value does not. Images keep their values
in [0, 1].
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hilbound.config import HELD_OUT
from hilbound.datasets.arrays import read_npy, read_npz
from hilbound.datasets.base import Dataset, Parts, RawTable, Standardization
from hilbound.datasets.checks import (
    check_finite,
    check_shape,
    check_unit_range,
    check_varying,
    neighbours,
)
from hilbound.datasets.choice import Choice
from hilbound.datasets.delimited import Decimal, Header, TextFormat
from hilbound.datasets.missing import Missing, drop_missing, impute_missing
from hilbound.datasets.mixed import SUFFIXES, suffix_of
from hilbound.datasets.numeric import read_numeric
from hilbound.datasets.splits import Split, split_rows
from hilbound.errors import DataError, InputError

Scale = Literal["standardize", "none"]

ARRAYS: dict[str, Callable[[Path, str | None], RawTable]] = {".npy": read_npy, ".npz": read_npz}


def load_table(
    path: str | Path,
    *,
    seed: int = 0,
    samples: int | None = None,
    validation_fraction: float = HELD_OUT,
    test_fraction: float = HELD_OUT,
    scale: Scale = "standardize",
    header: Header = None,
    delimiter: str | None = None,
    decimal: Decimal | None = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    missing: Missing = "refuse",
    label_column: str | None = None,
) -> Dataset:
    """Load a table or an array from a file and split its rows at random.

    An array with shape ``(n, d)`` holds vectors, ``(n,)`` numbers, ``(n, h, w)`` or
    ``(n, c, h, w)`` images: uint8, which is divided by 255, or floats in [0, 1].

    Args:
        path: A ``.npy``, ``.npz``, ``.csv``, ``.csv.gz``, ``.tsv``, ``.tsv.gz`` or ``.parquet``
            file.
        seed: Seed of the random split.
        samples: Train on at most this many rows.
        validation_fraction: Share of the rows for validation, in (0, 1).
        test_fraction: Share of the rows for testing, in (0, 1).
        scale: Whether to ``"standardize"`` vectors by the training rows' mean and variance, or
            ``"none"``. Images are never standardised.
        header: Whether the first line of a text file names the columns; by default it is looked
            at. ``"guess"`` looks at it without a word.
        delimiter: What separates the fields of a text file; the file tells by default.
        decimal: The decimal mark of a text file; the file tells by default.
        columns: Names of the only columns to use.
        drop: Names of columns to leave out.
        missing: Whether missing values are refused, their rows left out (``"drop"``), or the gaps
            filled in from similar rows (``"impute"``).
        label_column: The column (or array of a ``.npz`` file) that holds the labels.

    Raises:
        DataError: If the file is missing, damaged or unfit for a density model.
        InputError: If an argument is out of range.
    """
    for name, value, allowed in (
        ("scale", scale, get_args(Scale)),
        ("missing", missing, get_args(Missing)),
    ):
        if value not in allowed:
            raise InputError(f"{name}={value!r}, allowed are {' and '.join(map(repr, allowed))}")
    path = Path(path).expanduser()
    form, choice = TextFormat(header, delimiter, decimal), Choice((), columns, drop)
    table = _read(path, label_column, form, choice)
    check_shape(table.values, str(path))
    if missing == "drop" and _may_lack(table.values):
        table = drop_missing(table, str(path))
    split = split_rows(
        len(table.values),
        generator=torch.Generator().manual_seed(seed),
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        samples=samples,
    )
    if missing == "impute" and _may_lack(table.values):
        floats = table.values.astype(np.float64)
        filled = impute_missing(floats, split, str(path), table.columns)
        table = table._replace(values=filled)
    rows, standardization = _rows(table.values, split, scale, str(path), table.columns)
    y = None if table.labels is None else torch.from_numpy(table.labels)
    return Dataset.from_parts(
        str(path),
        rows,
        None if y is None else split.take(y),
        image_shape=_image_shape(table.values),
        class_names=table.class_names,
        columns=table.columns,
        standardization=standardization,
        whole=_whole_columns(table.values, table.columns),
    )


def _may_lack(values: NDArray[np.generic]) -> bool:
    """Whether an array holds vectors of a kind that knows missing values."""
    return values.ndim == 2 and values.dtype.kind == "f"


def _read(path: Path, label_column: str | None, form: TextFormat, choice: Choice) -> RawTable:
    kind = suffix_of(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: {neighbours(path)}")
    allowed = ", ".join((*ARRAYS, *SUFFIXES))
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file ({allowed}) in it")
    if kind in SUFFIXES:
        return read_numeric(path, label_column, form, choice)
    if kind not in ARRAYS:
        raise DataError(f"{path}: the suffix {kind!r} is unknown, allowed are {allowed}")
    given = [*choice.given(), *form.given()]
    if given:
        raise InputError(
            f"{', '.join(given)}: for tables whose columns have names; {path} holds arrays"
        )
    return ARRAYS[kind](path, label_column)


def _rows(
    values: NDArray[np.generic],
    split: Split,
    scale: Scale,
    source: str,
    columns: tuple[str, ...] | None,
) -> tuple[Parts, Standardization | None]:
    if values.ndim > 2:
        if scale == "none":
            raise InputError(
                f"--scale none is for tables, and {source} holds images, which keep their values: "
                "leave it out"
            )
        return split.take(_pixels(values, source)), None
    vectors = values.reshape(len(values), -1).astype(np.float64)
    check_finite(vectors, source, columns)
    x = torch.from_numpy(vectors)
    if scale == "none":
        return split.take(x.float()), None
    train = x[split.train]
    check_varying(train.numpy(), source, columns)
    standardization = Standardization(train.mean(dim=0), train.std(dim=0, correction=0))
    return split.take(standardization.forward(x).float()), standardization


def _whole_columns(values: NDArray[np.generic], columns: tuple[str, ...] | None) -> tuple[int, ...]:
    """Return the columns that hold whole numbers only; an array of floats is meant as floats."""
    if values.ndim != 2 or (columns is None and values.dtype.kind == "f"):
        return ()
    vectors = values.astype(np.float64)
    return tuple(np.flatnonzero((vectors == np.round(vectors)).all(axis=0)).tolist())


def _pixels(values: NDArray[np.generic], source: str) -> Tensor:
    """Return images as float32 rows in [0, 1]."""
    flat = values.reshape(len(values), -1)
    if flat.dtype == np.uint8:
        return torch.from_numpy(flat).float() / 255
    if flat.dtype.kind != "f":
        raise DataError(
            f"{source}: images of type {flat.dtype}, allowed are uint8 from 0 to 255 and floats in "
            "[0, 1]: convert them before saving"
        )
    floats: NDArray[np.floating] = flat.astype(np.float64)
    check_finite(floats, source)
    check_unit_range(floats, source)
    return torch.from_numpy(floats).float()


def _image_shape(values: NDArray[np.generic]) -> tuple[int, int, int] | None:
    if values.ndim < 3:
        return None
    channels, height, width = (1, *values.shape[1:])[-3:]
    return channels, height, width
