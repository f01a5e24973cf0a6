"""Tables of numbers: points, and labels in a column of their own."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hilbound.datasets.base import RawTable
from hilbound.datasets.checks import Labels, encode_labels, enumerate_names
from hilbound.datasets.choice import Choice
from hilbound.datasets.delimited import TextFormat
from hilbound.datasets.mixed import no_header, read_frame, shown_line
from hilbound.errors import DataError, InputError
from hilbound.registry import suggest

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

# Of fewer rows nothing is outlying.
_ENOUGH_ROWS = 5


def read_numeric(
    path: Path, label_column: str | None, form: TextFormat, choice: Choice
) -> RawTable:
    """Read the points and, where ``label_column`` names them, the labels.

    Args:
        path: The file.
        label_column: The name of the column that holds the labels.
        form: What is known of a file of text.
        choice: Which of the other columns are used.

    Raises:
        DataError: If the file is missing, damaged, empty, ragged, not text, or holds text where
            numbers are needed.
        InputError: If there is no column called ``label_column``.
    """
    frame, first_line = read_frame(path, form)
    names = [str(name) for name in frame]
    choice.check(names, str(path))
    labels: Labels | None = None
    if label_column is not None:
        _check_column(path, label_column, names)
        labels = _labels(path, frame.pop(label_column))
    frame = choice.of(frame)
    if frame.shape[1] == 0:
        raise DataError(f"{path}: no column is left: there are no points")
    _check_numeric(path, frame)
    values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    if first_line is not None and form.header is None:
        _check_first_line(path, values, first_line)
    columns = tuple(map(str, frame))
    if labels is None:
        return RawTable(values, columns=columns)
    return RawTable(values, labels.numbers, columns, labels.names)


def _check_first_line(path: Path, values: NDArray[np.float64], first_line: list[str]) -> None:
    """Say that the first line was taken for data, and ask where it is far from all others.

    Raises:
        DataError: If every field of the first line is farther from its column than that is wide.
    """
    head, rest = values[0], values[1:]
    if values.shape[1] > 1 and len(rest) >= _ENOUGH_ROWS and np.isfinite(rest).all():
        least, most = np.min(rest, axis=0), np.max(rest, axis=0)
        width = most - least
        if bool(np.all((head < least - width) | (head > most + width))):
            raise DataError(
                f"{path}: the first line ({shown_line(first_line)}) is far from everything below "
                "it: say --header if it names the columns, or --no-header if it is a row of data"
            )
    log.warning("%s: %s", path, no_header(first_line))


def _check_column(path: Path, label_column: str, columns: list[str]) -> None:
    if label_column not in columns:
        raise InputError(
            f"--label-column {label_column!r}: {suggest(label_column, columns)}the columns of "
            f"{path} are {enumerate_names(columns)}"
        )


def _labels(path: Path, column: "pd.Series") -> Labels:
    source = f"{path}, column {column.name!r}"
    if column.isna().any():
        raise DataError(
            f"{source}: {column.isna().sum()} labels are missing: remove these rows, or name their "
            "class"
        )
    values = column.to_numpy()
    if values.dtype.kind == "f" and (values != np.round(values)).any():
        raise DataError(
            f"{source}: labels such as {values[values != np.round(values)][0]:g}, where integers "
            "or text are needed: this column is a measurement, not a class"
        )
    if values.dtype.kind not in "iufb":
        # Cells of a Parquet file may hold lists, which astype would take for rows of an array.
        values = np.array([str(value) for value in values])
    return encode_labels(values, len(column), source)


def _check_numeric(path: Path, frame: "pd.DataFrame") -> None:
    import pandas as pd

    text = [str(name) for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    if text:
        column = frame[text[0]].dropna().astype(str)
        example = column[pd.to_numeric(column, errors="coerce").isna()]
        value = next(iter(example if len(example) else column), "")
        raise DataError(
            f"{path}: text in {enumerate_names(text)} (in {text[0]!r} for example {value!r}), "
            f"where numbers are needed: leave the column out (--drop {text[0]!r}), replace the "
            f"text by numbers, or let it name the classes (--label-column {text[0]!r})"
        )
