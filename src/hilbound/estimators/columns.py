"""How a table becomes numbers a network can read, learned once and repeated for new rows.

A column of numbers is standardised; missing values get the median and a flag of their own. A
column of texts becomes one indicator for each frequent text. Constant columns are dropped.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from hilbound.errors import DataError
from hilbound.estimators.frames import Column, Floats

LIMIT = 8.0  # standard deviations; beyond, a value says only that it is far out
_MOST_LEVELS = 50  # rarer texts share the row of zeros
_SHOWN = 5


class Reader(Protocol):
    """What turns one column into one or more columns of numbers."""

    name: str

    def read(self, column: Column) -> Floats:
        """Return numbers with shape ``(n, m)``."""


@dataclass(frozen=True)
class NumberReader:
    """Numbers, with the median and a flag where one is missing.

    Attributes:
        name: The column's name, as messages show it.
        median: What stands for a missing value.
        flagged: Whether the flag is a column of its own: some value was missing when fitted.
    """

    name: str
    median: float
    flagged: bool

    @classmethod
    def learn(cls, column: Column, values: Floats) -> "NumberReader":
        """Learn the median; a column without any value becomes a constant."""
        imputer = SimpleImputer(strategy="median", keep_empty_features=True)
        median = float(imputer.fit(values[:, None]).statistics_[0])
        return cls(column.name, median, bool(np.isnan(values).any()))

    def read(self, column: Column) -> Floats:
        """Return the values, and the flag if there is one, with shape ``(n, 1 or 2)``.

        Raises:
            DataError: If the column holds texts now.
        """
        values = column.as_numbers()
        if values is None:
            raise DataError(
                f"column {self.name} held numbers when the model was fitted and holds texts now, "
                f"such as {column.first_text()!r}: convert it to numbers, with NaN where a value "
                "is missing"
            )
        missing = np.isnan(values)
        filled = np.where(missing, self.median, values)
        return np.stack([filled, missing] if self.flagged else [filled], axis=1)


@dataclass(frozen=True)
class TextReader:
    """Texts, as one indicator for each of the most frequent.

    Attributes:
        name: The column's name, as messages show it.
        known: All texts seen when fitted, the most frequent first.
        refuse: Whether a text never seen is an error; else it counts as missing.
    """

    name: str
    known: list[str]
    refuse: bool

    @classmethod
    def learn(cls, column: Column, texts: list[str | None], *, refuse: bool) -> "TextReader":
        """Learn which texts there are."""
        counts = Counter(text for text in texts if text is not None)
        known = sorted(counts, key=lambda text: (-counts[text], text))
        return cls(column.name, known, refuse)

    @property
    def levels(self) -> list[str]:
        """The texts that have an indicator of their own, in order."""
        return self.known[:_MOST_LEVELS]

    def read(self, column: Column) -> Floats:
        """Return indicators with shape ``(n, m)``; missing and rare texts are rows of zeros.

        Raises:
            DataError: If the column holds numbers now, or a text never seen.
        """
        texts = column.as_texts()
        if texts is None:
            raise DataError(
                f"column {self.name} held texts when the model was fitted and holds numbers now: "
                "convert it back, for example with X[name].astype(str)"
            )
        unseen = sorted({t for t in texts if t is not None}.difference(self.known))
        if unseen and self.refuse:
            raise DataError(
                f"column {self.name} holds {_some(unseen)}, never seen when the model was fitted; "
                f"known are {_some(self.known)}. Correct the spelling, fit on rows that have it, "
                "or choose handle_unknown='missing'"
            )
        # scikit-learn's encoder compares Python objects, which takes nine times as long.
        place: dict[str | None, int] = {text: number for number, text in enumerate(self.levels)}
        places = np.fromiter((place.get(text, -1) for text in texts), np.intp, len(texts))
        encoded = np.zeros((len(texts), len(place)))
        rows = np.flatnonzero(places >= 0)
        encoded[rows, places[rows]] = 1
        return encoded


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(map(repr, texts[:_SHOWN])) + more


@dataclass(frozen=True)
class Columns:
    """All columns of a table, standardised together.

    Attributes:
        readers: One for each column of the table, in its order.
        kept: Which of the numbers that they give vary, with shape ``(m,)``.
        mean: Means of those kept.
        scale: Standard deviations of those kept.
    """

    readers: list[NumberReader | TextReader]
    kept: list[bool]
    mean: Floats
    scale: Floats

    @classmethod
    def learn(cls, columns: list[Column], *, refuse: bool = True) -> "Columns":
        """Learn medians, texts, means and scales from the rows to fit.

        Args:
            columns: The columns of the table.
            refuse: Whether texts never seen are refused later.

        >>> import numpy as np
        >>> table = [Column("'a'", numbers=np.array([1.0, 3.0])), Column("'b'", texts=["u", "v"])]
        >>> Columns.learn(table).read(table).round(3).tolist()
        [[-1.0, 1.0, -1.0], [1.0, -1.0, 1.0]]
        """
        readers = [_reader(column, refuse=refuse) for column in columns]
        table = _stack(readers, columns)
        kept = table.max(0, initial=-np.inf) > table.min(0, initial=np.inf)
        table = table[:, kept]
        if not table.shape[1]:
            empty = np.zeros(0)
            return cls(readers, kept.tolist(), empty, empty)
        scaler = StandardScaler().fit(table)
        return cls(readers, kept.tolist(), scaler.mean_, scaler.scale_)

    def read(self, columns: list[Column]) -> Floats:
        """Return standardised numbers with shape ``(n, m)``, between -8 and 8.

        Raises:
            DataError: If a column holds another kind of value than when fitted.
        """
        table = _stack(self.readers, columns)[:, np.asarray(self.kept, dtype=bool)]
        return np.clip((table - self.mean) / self.scale, -LIMIT, LIMIT)


def _reader(column: Column, *, refuse: bool) -> NumberReader | TextReader:
    if column.texts is not None:
        return TextReader.learn(column, column.texts, refuse=refuse)
    values = np.zeros(0) if column.numbers is None else column.numbers
    return NumberReader.learn(column, values)


def _stack(readers: list[NumberReader | TextReader], columns: list[Column]) -> Floats:
    parts = [reader.read(column) for reader, column in zip(readers, columns, strict=True)]
    return np.concatenate(parts, axis=1)
