"""Tables as named columns of numbers or texts, whatever library they come from.

A data frame of pandas or polars, an array or a list becomes a list of :class:`Column`. What a
density model cannot use, such as dates, is refused here with the column's name and a remedy.
"""

import datetime as dt
import math
import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilbound.errors import DataError

Floats = NDArray[np.float64]
_DATES = (dt.date, dt.time, dt.timedelta, np.datetime64, np.timedelta64)
_DATE_KINDS = ("date", "time", "duration", "period")


@dataclass(frozen=True)
class Column:
    """One column: numbers with NaN where missing, or texts with ``None`` where missing.

    Attributes:
        name: As messages call it.
        numbers: Its values with shape ``(n,)`` if it holds numbers.
        texts: Its values if it holds texts or categories.
    """

    name: str
    numbers: Floats | None = None
    texts: list[str | None] | None = None

    def as_numbers(self) -> Floats | None:
        """Return its numbers; a column of texts all of which are missing holds only NaN."""
        if self.numbers is None and self.texts is not None and self.first_text() is None:
            return np.full(len(self.texts), np.nan)
        return self.numbers

    def as_texts(self) -> list[str | None] | None:
        """Return its texts; a column of numbers all of which are missing holds only ``None``."""
        if self.numbers is not None and np.isnan(self.numbers).all():
            return [None] * len(self.numbers)
        return self.texts

    def first_text(self) -> str | None:
        """Return the first text that is not missing, if any."""
        return next((t for t in self.texts or [] if t is not None), None)

    def take(self, rows: NDArray[np.bool_]) -> "Column":
        """Return the rows for which a mask with shape ``(n,)`` is true."""
        if self.numbers is not None:
            return Column(self.name, numbers=self.numbers[rows])
        texts = [] if self.texts is None else self.texts
        return Column(self.name, texts=[t for t, used in zip(texts, rows, strict=True) if used])


def is_frame(table: object) -> bool:
    """Return whether this is a data frame: something with named columns."""
    return hasattr(table, "columns") and hasattr(table, "dtypes") and hasattr(table, "shape")


def check_names(table: Any) -> None:
    """Refuse a frame in which two columns share a name.

    Raises:
        DataError: With the names that come twice.
    """
    names = [str(name) for name in table.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            f"X has several columns named {', '.join(map(repr, twice))}: every column needs a "
            "name of its own; rename or drop the others"
        )


def columns_of_frame(table: Any) -> list[Column]:
    """Return the columns of a data frame of pandas or polars.

    Raises:
        DataError: If a column holds dates, complex numbers or infinities.
        TypeError: If it holds neither numbers nor texts.
    """
    return [_read(repr(str(name)), table[name]) for name in table.columns]


def columns_of_array(table: NDArray[Any]) -> list[Column]:
    """Return the columns of an array with shape ``(n, p)``; messages call them by position."""
    return [_read(str(i), table[:, i]) for i in range(table.shape[1])]


def _read(name: str, values: Any) -> Column:
    kind = str(values.dtype).lower()
    if kind.startswith(_DATE_KINDS):
        raise _dates(name)
    array = values if isinstance(values, np.ndarray) else _as_array(values, kind)
    if array.dtype.kind in "biuf":
        return Column(name, numbers=_finite(name, array.astype(np.float64)))
    if array.dtype.kind == "c":
        raise DataError(
            f"column {name} holds complex data, which is not supported: give its real and "
            "imaginary parts as two columns"
        )
    return _read_objects(name, array.tolist(), as_text=kind.startswith(("categor", "enum")))


def _as_array(series: Any, kind: str) -> NDArray[Any]:
    """Return a series as an array; nullable numbers become floats with NaN."""
    if kind.startswith(("int", "uint", "float", "bool", "double")) and hasattr(series, "isna"):
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    return np.asarray(series.to_numpy())


def _read_objects(name: str, values: Iterable[Any], *, as_text: bool) -> Column:
    """Return a column of Python objects: texts where there is one, else numbers."""
    known = [None if _is_missing(value) else value for value in values]
    present = [value for value in known if value is not None]
    if any(isinstance(value, _DATES) for value in present):
        raise _dates(name)
    if as_text or any(isinstance(value, str | bytes) for value in present):
        return Column(name, texts=[None if value is None else str(value) for value in known])
    for value in present:
        if not isinstance(value, numbers.Number) and not hasattr(value, "__float__"):
            raise TypeError(
                f"column {name}: argument must be a string or a real number, got "
                f"{type(value).__name__}; give numbers, texts or categories"
            )
    floats = [math.nan if value is None else float(value) for value in known]
    return Column(name, numbers=_finite(name, np.asarray(floats, dtype=np.float64)))


def _is_missing(value: Any) -> bool:
    if value is None or type(value).__name__ in {"NAType", "NaTType"}:
        return True
    return isinstance(value, float) and math.isnan(value)


def _dates(name: str) -> DataError:
    return DataError(
        f"column {name} holds dates or times, which have no scale of their own: replace it by "
        "numbers, such as the days since the first date, the month or the hour"
    )


def _finite(name: str, values: Floats) -> Floats:
    infinite = np.isinf(values)
    if infinite.any():
        row = int(infinite.argmax())
        raise DataError(
            f"column {name} holds infinity, first in row {row} ({int(infinite.sum())} in all): "
            "write NaN where a value is missing, and clip what is too large"
        )
    return values
