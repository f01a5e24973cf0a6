"""Tables as text: one line for each point, with or without a header.

The fields are separated by commas. If the first line has no comma, they are separated by semicolons
or tabs.

The first line is a header in any of three cases: none of its fields is a number; it has text above
a number of the second line; or it counts ``0, 1, 2, ...``, as pandas does for columns without
names.
"""

import csv
import gzip
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from numpy.typing import NDArray

from hilbound.datasets.base import RawTable
from hilbound.datasets.checks import column_names, encode_labels, enumerate_names
from hilbound.errors import DataError, InputError
from hilbound.registry import suggest

if TYPE_CHECKING:
    import pandas as pd

# pandas reads these as missing values. So they stand for a number and are not column names.
MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none"}


def read_csv(path: Path, label_column: str | None = None) -> RawTable:
    """Read the points. If ``label_column`` names a column, read the labels from it.

    Raises:
        DataError: If the file is empty, ragged, not text, or holds text where numbers are needed.
        InputError: If there is no column called ``label_column``.
    """
    frame = _read_frame(path)
    labels = None
    if label_column is not None:
        _check_column(path, label_column, list(map(str, frame)))
        labels = _labels(path, frame.pop(label_column))
    if frame.shape[1] == 0:
        raise DataError(f"{path}: no column is left beside the labels: there are no points")
    _check_numeric(path, frame)
    _check_index(path, frame)
    return RawTable(frame.to_numpy(dtype=np.float64), labels, tuple(map(str, frame)))


def _read_frame(path: Path) -> "pd.DataFrame":
    # Imported here because pandas takes half a second, and only text files need it.
    import pandas as pd

    try:
        first, second, delimiter = check_ragged(path)
        header = is_header(first, second)
        frame = pd.read_csv(
            path,
            sep=delimiter,
            skipinitialspace=True,
            header=0 if header else None,
            names=None if header else list(column_names(None, len(first))),
            index_col=False,
            low_memory=False,
            encoding="utf-8-sig",
        )
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8: save it as CSV in UTF-8") from error
    except (csv.Error, pd.errors.ParserError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if frame.empty:
        raise DataError(f"{path}: a header and no rows: there are no points")
    return frame


def check_ragged(path: Path, delimiter: str = "") -> tuple[list[str], list[str], str]:
    """Return the fields of the first two lines and the delimiter. Refuse lines of unequal length.

    Args:
        path: The file; with the suffix ``.gz`` it is decompressed.
        delimiter: What separates the fields; the first line tells by default.

    Raises:
        DataError: If the file is empty, or a line has more or fewer fields than the first.
    """
    # pandas would fill short lines with NaN, and would use a surplus first field as an index.
    with _open(path) as handle:
        opening = next((line for line in handle if line.strip()), "")
        delimiter = delimiter or next((mark for mark in ",;\t" if mark in opening), ",")
        handle.seek(0)
        reader = csv.reader(handle, delimiter=delimiter, skipinitialspace=True)
        lines = (fields for fields in reader if fields)
        first = next(lines, None)
        if first is None or not opening:
            raise DataError(f"{path}: an empty file")
        second = first
        for number, fields in enumerate(lines):
            second = fields if number == 0 else second
            if len(fields) != len(first):
                raise DataError(
                    f"{path}: line {reader.line_num} has {len(fields)} fields, the first line has "
                    f"{len(first)}: every line needs the same number"
                )
    return first, second, delimiter


def _open(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def is_header(first: list[str], second: list[str]) -> bool:
    """Whether the first line names the columns, by the fields of the first two lines."""
    # A single 0 may be a value, unless the second line has a decimal point.
    counts = first == [str(j) for j in range(len(first))]
    counted = counts and (len(first) > 1 or "." in second[0])
    text = [not _is_number(field) for field in first]
    # Text above text may be a column of classes in a file without a header.
    named = any(above and _is_number(field) for above, field in zip(text, second, strict=True))
    return counted or named or all(text)


def _is_number(field: str) -> bool:
    if field.strip().lower() in MISSING:
        return True
    try:
        float(field)
    except ValueError:
        return False
    return True


def _check_column(path: Path, label_column: str, columns: list[str]) -> None:
    if label_column not in columns:
        raise InputError(
            f"label_column={label_column!r}: {suggest(label_column, columns)}the columns of {path} "
            f"are {enumerate_names(columns)}"
        )


def _labels(path: Path, column: "pd.Series") -> NDArray[np.int64]:
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
        values = values.astype(np.str_)
    return encode_labels(values, len(column), source)


def _check_numeric(path: Path, frame: "pd.DataFrame") -> None:
    import pandas as pd

    text = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    if text:
        column = frame[text[0]].dropna()
        example = column[pd.to_numeric(column, errors="coerce").isna()]
        value = (example if len(example) else column).iloc[0]
        raise DataError(
            f"{path}: text in {enumerate_names([str(name) for name in text])} (in {text[0]!r} for "
            f"example {value!r}), where numbers are needed: remove the column, replace the text by "
            f"numbers, or name the column of the classes with label_column={text[0]!r}"
        )


def _check_index(path: Path, frame: "pd.DataFrame") -> None:
    first = frame.columns[0]
    if first.startswith("Unnamed:") and np.array_equal(frame[first], np.arange(len(frame))):
        raise DataError(
            f"{path}: the first column has no name and counts the rows: remove it, with pandas "
            "by to_csv(path, index=False)"
        )
