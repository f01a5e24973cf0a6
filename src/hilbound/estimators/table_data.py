"""A table as rows to learn from and rows to judge by, and new rows as a model wants them.

Columns are told apart by their names alone, so their order in a file is free. What cannot be used
is refused with the file, the column and the remedy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from hilbound.datasets.checks import enumerate_names
from hilbound.engine.seeding import stream
from hilbound.errors import DataError
from hilbound.estimators.columns import TextReader
from hilbound.estimators.conditional import ConditionalDensityEstimator
from hilbound.estimators.frames import Floats, columns_of_frame
from hilbound.registry import suggest

if TYPE_CHECKING:
    import pandas as pd

Unknown = Literal["error", "missing"]

#: Fewer training rows do not fill the folds of a small table.
LEAST_ROWS = 10


@dataclass(frozen=True)
class Examples:
    """Rows with their targets.

    Attributes:
        table: The other columns.
        y: The targets with shape ``(n, d)``.
    """

    table: "pd.DataFrame"
    y: Floats

    def take(self, rows: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> "Examples":
        """Return some of the rows, by their numbers."""
        return Examples(self.table.iloc[rows].reset_index(drop=True), self.y[rows])


def read_examples(frame: "pd.DataFrame", targets: Sequence[str], source: str) -> Examples:
    """Part a table into targets and the columns to predict them from.

    Args:
        frame: The columns that are used, and the targets.
        targets: The names of the targets.
        source: What to call the table in messages.

    Raises:
        DataError: If a target is no measured number, no column is left, or a column cannot be
            used.
    """
    table = frame[[name for name in frame.columns if name not in set(targets)]]
    if table.shape[1] == 0:
        raise DataError(f"{source}: no column is left beside the target to predict it from")
    y = np.stack([read_target(frame[target], source) for target in targets], axis=1)
    for column, target in zip(y.T, targets, strict=True):
        _check_target(column, f"{source}: the target {target!r}")
    _check_columns(table, source)
    return Examples(table, y)


def read_target(column: "pd.Series[float]", source: str) -> Floats:
    """Return a column of targets as numbers with shape ``(n,)``, NaN where one is missing.

    Raises:
        DataError: If it holds texts, categories or dates.
    """
    kind = str(column.dtype).lower()
    name = f"{source}: the target {column.name!r}"
    present = column.dropna()
    texts = [value for value in present if isinstance(value, str)] if kind == "object" else []
    if texts or kind.startswith(("categor", "bool", "str")):
        example = repr(str(texts[0] if texts else present.iloc[0])) if len(present) else "texts"
        raise DataError(
            f"{name} holds {example}, a category or text, and only numbers have a density: name "
            "another column, use a classifier for classes, or write the numbers without units"
        )
    if kind.startswith(("date", "time", "period")):
        raise DataError(
            f"{name} holds dates or times: convert it to numbers, such as days since the first date"
        )
    no_number = DataError(
        f"{name} holds something else than numbers, such as {present.head(1).tolist()}: give "
        "numbers"
    )
    if kind.startswith("complex"):
        raise no_number
    try:
        return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError):
        raise no_number from None


def _check_target(y: Floats, name: str) -> None:
    missing, infinite = np.isnan(y), np.isinf(y)
    for bad, what, remedy in (
        (missing, "missing", "remove the rows whose target is not known"),
        (infinite, "infinite", "remove these rows, or write what was measured"),
    ):
        if bad.any():
            raise DataError(
                f"{name} is {what} in {bad.sum()} of {len(y)} rows, first in row "
                f"{int(bad.argmax()) + 1} below the header: {remedy}"
            )


def _check_columns(table: "pd.DataFrame", source: str) -> None:
    """Refuse columns that no model can use, test rows included, before anything is fitted."""
    for name in table.select_dtypes("number"):
        infinite = np.isinf(table[name].to_numpy(dtype=np.float64, na_value=np.nan))
        if infinite.any():
            raise DataError(
                f"{source}: column {name!r} holds infinity in {infinite.sum()} of {len(table)} "
                f"rows, first in row {int(infinite.argmax()) + 1} below the header: leave the "
                "cell empty where a value is missing, and clip what is too large"
            )
    try:
        columns_of_frame(table)
    except (TypeError, DataError) as error:
        raise DataError(f"{source}: {error}") from None


def held_rows(n: int, fraction: float) -> int:
    """Return how many of ``n`` rows are held out.

    >>> held_rows(442, 0.2), held_rows(3, 0.1)
    (88, 1)
    """
    return max(1, round(n * fraction))


def split_examples(
    examples: Examples, targets: Sequence[str], fraction: float, seed: int, source: str
) -> tuple[Examples, Examples]:
    """Return training and test rows, drawn at random by the seed, each in the table's order.

    Raises:
        DataError: If too few rows are left to train, or a target is constant there.
    """
    n = len(examples.y)
    held = held_rows(n, fraction)
    if n - held < LEAST_ROWS:
        raise DataError(
            f"{source} has {n} rows, of which {max(n - held, 0)} are left to learn from beside "
            f"{held} test rows; {LEAST_ROWS} are needed, one for each fold: give more rows"
            + (", or a smaller --test-fraction" if n > LEAST_ROWS else "")
        )
    order = torch.randperm(n, generator=stream(seed, "table-test")).numpy()
    test, train = (examples.take(np.sort(rows)) for rows in (order[:held], order[held:]))
    for column, target in zip(train.y.T, targets, strict=True):
        if not np.ptp(column) > 1e-12 * abs(column).max():
            raise DataError(
                f"{source}: the target {target!r} is constant ({column[0]:g} in all {len(column)} "
                "training rows): there is no density to learn; name another column"
            )
    return train, test


def texts_of(model: ConditionalDensityEstimator) -> dict[str, list[str]]:
    """Return the columns that held texts when a model was fitted, with the texts it knows."""
    readers = zip(model.feature_names_in_, model.columns_.readers, strict=True)
    return {str(name): reader.known for name, reader in readers if isinstance(reader, TextReader)}


def count_unseen(model: ConditionalDensityEstimator, table: "pd.DataFrame") -> dict[str, int]:
    """Return for every column how many of its texts were never seen, where there are any."""
    counts = {name: int((~_seen(table[name], k)).sum()) for name, k in texts_of(model).items()}
    return {name: count for name, count in counts.items() if count}


def match_columns(
    model: ConditionalDensityEstimator,
    frame: "pd.DataFrame",
    targets: Sequence[str],
    source: str,
    unknown: Unknown = "error",
) -> "pd.DataFrame":
    """Return the columns that a model was fitted on, in its order; targets may be there or not.

    Args:
        model: The model.
        frame: New rows.
        targets: The names of the model's targets.
        source: What to call the rows in messages.
        unknown: Whether a text never seen is an error, or counts as missing.

    Raises:
        DataError: If a column is missing or too many, or holds a text never seen.
    """
    wanted = [str(name) for name in model.feature_names_in_]
    _check_names(wanted, list(frame.columns), targets, source)
    table, texts = frame[wanted].copy(), texts_of(model)
    for name in wanted:
        if name in texts:
            table[name] = _known_texts(table[name], texts[name], source, unknown)
        else:
            _refuse_texts(table[name], source)
    _check_columns(table, source)
    return table


def _check_names(wanted: list[str], there: list[str], targets: Sequence[str], source: str) -> None:
    extra = [name for name in there if name not in {*wanted, *targets}]
    missing = [name for name in wanted if name not in there]
    if missing:
        alike = {name.casefold().strip(): name for name in extra}
        same = alike.get(missing[0].casefold().strip())
        hint = f"did you mean {same!r}? " if same else suggest(missing[0], extra)
        instead = f" (it has {enumerate_names(extra)} in their place)" if extra else ""
        raise DataError(
            f"{source} lacks {enumerate_names(missing)}, on which the model was fitted{instead}: "
            f"{hint}add the column, or rename it back"
        )
    if extra:
        raise DataError(
            f"{source} has {enumerate_names(extra)}, on which the model was not fitted: remove "
            f"what is too much; the model's columns are {enumerate_names(wanted)}"
        )


def _refuse_texts(column: "pd.Series[float]", source: str) -> None:
    """Name the first text in a column of numbers, with its place."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return
    text = column.map(lambda value: isinstance(value, str))
    wrong = text & pd.to_numeric(column, errors="coerce").isna() if text.any() else text
    wrong = wrong if wrong.any() else text
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise DataError(
            f"{source}: column {column.name!r} held numbers when the model was fitted and holds "
            f"{column.iloc[row]!r} in row {row + 1} below the header: write a number, or leave "
            "the cell empty where the value is missing"
        )


def _seen(column: "pd.Series[str]", known: list[str]) -> "pd.Series[bool]":
    """Whether each cell is missing, no text, or a text that is known."""
    return column.isin(known) | ~column.map(lambda value: isinstance(value, str))


def _known_texts(
    column: "pd.Series[str]", known: list[str], source: str, unknown: Unknown
) -> "pd.Series[str]":
    seen = _seen(column, known)
    if seen.all():
        return column
    if unknown == "error":
        unseen = sorted({str(value) for value in column[~seen]})
        raise DataError(
            f"{source}: column {column.name!r} holds {enumerate_names(unseen)}, never seen when "
            f"the model was fitted; known are {enumerate_names(known)}: correct the spelling, fit "
            "on rows that have it, or count it as missing (--unknown missing)"
        )
    return column.astype(object).where(seen, None)
