"""Checks that refuse data that a density model cannot learn from.

Messages say where the problem is and what to do. They count rows and columns from 1, as in a
spreadsheet, and do not count a header.
"""

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hilbound.errors import DataError

SHOWN = 5


def column_names(columns: Sequence[str] | None, d: int) -> tuple[str, ...]:
    """Return the names of ``d`` columns, numbered where the file gives none.

    >>> column_names(None, 2)
    ('column_1', 'column_2')
    """
    return tuple(columns or (f"column_{j + 1}" for j in range(d)))


def coordinate_names(d: int) -> tuple[str, ...]:
    """Return what coordinates without a name are called in pictures and in files.

    >>> coordinate_names(2)
    ('x1', 'x2')
    """
    return tuple(f"x{j + 1}" for j in range(d))


def enumerate_names(names: Sequence[str]) -> str:
    """Return the first few names in quotes, and the number of further ones.

    >>> enumerate_names(["a", "b"])
    "'a', 'b'"
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) for name in names[:SHOWN]) + more


def check_column_names(names: list[str], source: str) -> None:
    """Refuse columns without a name, or of the same name.

    Raises:
        DataError: Naming them.

    >>> check_column_names(["a", "a"], "t.csv")
    Traceback (most recent call last):
        ...
    hilbound.errors.DataError: t.csv: several columns are named 'a': rename or remove all but one
    """
    empty = [str(j + 1) for j, name in enumerate(names) if not name.strip()]
    if empty:
        raise DataError(
            f"{source}: column {empty[0]} has no name: name it in the first line, or remove it "
            "(pandas writes its index so; to_csv(path, index=False) leaves it out)"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{source}: several columns are named {enumerate_names(twice)}: rename or remove all "
            "but one"
        )


def neighbours(path: Path) -> str:
    """Return what to say of a file that is not there: names like it, if any."""
    if not path.parent.is_dir():
        return f"nor does the folder {path.parent}"
    names = sorted(file.name for file in path.parent.iterdir())
    close = get_close_matches(path.name, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(name) for name in close)} in {path.parent}?"
    return f"no file in {path.parent.absolute()} has a name like it"


def check_shape(values: NDArray[np.generic], source: str) -> None:
    """Refuse arrays that hold no numbers, or no rows of points.

    Raises:
        DataError: If the type is not real, or the shape is none of ``(n,)``, ``(n, d)``,
            ``(n, h, w)`` and ``(n, c, h, w)`` with one or three channels ``c``.
    """
    if values.dtype.kind not in "fiub":
        raise DataError(
            f"{source}: values of type {values.dtype}, where real numbers (floating or integer) "
            "are needed: convert them before saving"
        )
    if not 1 <= values.ndim <= 4 or (values.ndim == 4 and values.shape[1] not in (1, 3)):
        raise DataError(
            f"{source}: an array of shape {values.shape}, allowed are (n, d) for vectors and "
            f"(n, h, w) or (n, c, h, w) with c = 1 or 3 for images{_channels_last(values.shape)}"
        )
    if values.size == 0:
        raise DataError(f"{source}: an empty array of shape {values.shape}: there are no points")


def _channels_last(shape: tuple[int, ...]) -> str:
    if len(shape) == 4 and shape[-1] in (1, 3):
        return "; the channels come last here: save x.transpose(0, 3, 1, 2)"
    return ""


def check_finite(
    values: NDArray[np.floating], source: str, columns: Sequence[str] | None = None
) -> None:
    """Refuse NaN, infinite values and values beyond float32 in an array with shape ``(n, d)``.

    Raises:
        DataError: If there are any. The message says how many, and where the first ones are.
    """
    bad = ~np.isfinite(values)
    if bad.any():
        raise DataError(
            f"{source}: {bad.sum()} NaN or infinite values{_where(bad, columns)}: remove these "
            "rows, or leave out or fill in what is missing (--missing drop, --missing impute)"
        )
    large = np.abs(values) > np.finfo(np.float32).max
    if large.any():
        raise DataError(
            f"{source}: {large.sum()} values too large for float32{_where(large, columns)}: "
            "rescale these columns, or take logarithms"
        )


def _where(bad: NDArray[np.bool_], columns: Sequence[str] | None) -> str:
    names = column_names(columns, bad.shape[1])
    places = [f"row {i + 1} of {names[j]!r}" for i, j in np.argwhere(bad)[:SHOWN]]
    return f" ({', '.join(places)}{', ...' if bad.sum() > SHOWN else ''})"


def check_varying(
    train: NDArray[np.floating], source: str, columns: Sequence[str] | None = None
) -> None:
    """Refuse constant columns of the training rows ``(n, d)``, because their scale would be zero.

    A column counts as constant if its range is within the rounding of its values, because
    standardising it would turn rounding errors into data. It also counts as constant if its
    variance underflows.

    Raises:
        DataError: If there are constant columns. The message names them.
    """
    spread, size = np.ptp(train, axis=0), np.abs(train).max(axis=0)
    constant = (spread <= 8 * np.finfo(train.dtype).eps * size) | (train.var(axis=0) == 0)
    if constant.any():
        names = column_names(columns, train.shape[1])
        found = [name for name, flat in zip(names, constant, strict=True) if flat]
        raise DataError(
            f"{source}: {enumerate_names(found)} constant over the {len(train)} training rows and "
            "cannot be standardised: leave the column out (--drop), or say --scale none"
        )


def check_unit_range(values: NDArray[np.floating], source: str) -> None:
    """Refuse images of floats outside [0, 1].

    Raises:
        DataError: If there are values outside. The message names their range.
    """
    low, high = values.min(), values.max()
    if low < 0 or high > 1:
        raise DataError(
            f"{source}: images with values from {low:g} to {high:g}, where floats must lie in "
            "[0, 1]: rescale them, or save 0 to 255 as uint8"
        )


class Labels(NamedTuple):
    """Classes by number.

    Args:
        numbers: Class numbers with shape ``(n,)``.
        names: The names of the classes, in the order of their numbers.
    """

    numbers: NDArray[np.int64]
    names: tuple[str, ...]


def encode_labels(labels: NDArray[np.generic], rows: int, source: str) -> Labels:
    """Number the distinct labels ``0, ..., k - 1`` in sorted order, and keep them as names.

    Args:
        labels: One label for each row, with shape ``(n,)``: integers or text.
        rows: The number of points ``n``.
        source: What to call the labels in messages.

    Raises:
        DataError: If there is not exactly one label for each row.

    >>> encode_labels(np.array(["cat", "ant", "cat"]), 3, "species")
    Labels(numbers=array([1, 0, 1]), names=('ant', 'cat'))
    """
    if labels.shape != (rows,):
        raise DataError(
            f"{source}: labels of shape {labels.shape} for {rows} points, ({rows},) is needed: "
            "one label for each point"
        )
    values, numbers = np.unique(labels, return_inverse=True)
    if values.dtype.kind == "f":  # Whole numbers, as a column of text files may have them.
        values = values.astype(np.int64)
    return Labels(numbers.astype(np.int64), tuple(map(str, values.tolist())))
