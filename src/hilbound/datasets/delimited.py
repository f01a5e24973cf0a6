"""Tables as text: one line for each point, with or without a header.

The fields are separated by commas, semicolons, tabs, bars or blanks: by what cuts the first two
lines alike and the second into numbers. A decimal comma is read where commas part no fields. The
first line is a header if none of its fields is a number, if it has text above a number of the
second line, or if it counts ``0, 1, 2, ...`` as pandas does for columns without names. Other
numbers are data, and that is said; where they are far from all that stands below them, the user is
asked.
"""

import csv
import gzip
import logging
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TextIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilbound.datasets.base import RawTable
from hilbound.datasets.checks import column_names, encode_labels, enumerate_names
from hilbound.datasets.claims import damaged, file_size, require_room
from hilbound.engine.memory import room_for_data
from hilbound.errors import DataError, InputError
from hilbound.registry import suggest

if TYPE_CHECKING:
    import pandas as pd

Header: TypeAlias = bool | Literal["guess"] | None

log = logging.getLogger(__name__)

# What pandas reads as a missing value stands for a number, and is not a name.
MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none"}
_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
#: More columns than that are read from arrays only.
MOST_COLUMNS = 100_000
_LONGEST_LINE = 1 << 22
# Of fewer rows nothing is outlying.
_ENOUGH_ROWS = 5


def read_csv(path: Path, label_column: str | None = None, header: Header = None) -> RawTable:
    """Read the points and, where ``label_column`` names them, the labels.

    Args:
        path: The file.
        label_column: The name of the column that holds the labels.
        header: Whether the first line names the columns; by default that is judged by its fields,
            and told or asked where it is doubtful. ``"guess"`` judges without a word.

    Raises:
        DataError: If the file is empty, ragged, not text, or holds text where numbers are needed.
        InputError: If there is no column called ``label_column``.
    """
    frame = _read_frame(path, header)
    labels = None
    if label_column is not None:
        _check_column(path, label_column, list(map(str, frame)))
        labels = _labels(path, frame.pop(label_column))
    if frame.shape[1] == 0:
        raise DataError(f"{path}: no column is left beside the labels: there are no points")
    _check_numeric(path, frame)
    _check_index(path, frame)
    if header is None:
        _check_first_line(path, frame)
    return RawTable(frame.to_numpy(dtype=np.float64), labels, tuple(map(str, frame)))


def _read_frame(path: Path, header: Header) -> "pd.DataFrame":
    # pandas takes half a second to import, and only text files need it.
    import pandas as pd

    try:
        with damaged(path, "cannot be read as CSV: save it again"):
            layout = check_ragged(path)
            first = layout.first
            found = is_header(first, layout.second) if header in {None, "guess"} else header
            frame = pd.read_csv(
                path,
                sep=r"\s+" if layout.delimiter == " " else layout.delimiter,
                decimal=layout.decimal,
                skipinitialspace=True,
                header=0 if found else None,
                names=None if found else list(column_names(None, len(first))),
                index_col=False,
                low_memory=False,
                encoding="utf-8-sig",
            )
    except DataError as error:
        raise explained(path, error) from error.__cause__
    if frame.empty:
        raise DataError(f"{path}: a header and no rows: there are no points")
    last = frame.columns[-1]
    if not first[-1].strip() and frame.shape[1] > 1 and frame[last].isna().all():
        # Every line ends in a delimiter: that is no column.
        frame = frame.drop(columns=last)
    frame.attrs["first_line"] = None if found else first
    return frame


def explained(path: Path, error: DataError) -> DataError:
    """Return the error that says why a text file cannot be read, in words."""
    cause = error.__cause__
    if isinstance(cause, UnicodeDecodeError):
        return DataError(f"{path}: not a text file in UTF-8: save it as CSV in UTF-8")
    if isinstance(cause, OSError | EOFError):
        reason = getattr(cause, "strerror", None) or cause
        return DataError(f"{path} cannot be read: {reason}")
    return error


class Layout(NamedTuple):
    """How a file is laid out: its first two lines' fields and the marks between them."""

    first: list[str]
    second: list[str]
    delimiter: str
    decimal: str


def check_ragged(path: Path, delimiter: str = "") -> Layout:
    """Return the layout of a file. Refuse lines of unequal length.

    Args:
        path: The file; with the suffix ``.gz`` it is decompressed.
        delimiter: What separates the fields; the first line tells by default.

    Raises:
        DataError: If the file is empty, or a line has more or fewer fields than the first.
    """
    # pandas would fill short lines with NaN, and would use a surplus first field as an index.
    file_size(path)
    with _open(path) as handle:
        opening = list(islice((line for line in _lines(path, handle) if line.strip()), 2))
        if not opening:
            raise DataError(f"{path}: an empty file")
        delimiter = delimiter or _delimiter(opening)
        handle.seek(0)
        lines_of_file = _trimmed(_lines(path, handle), delimiter)
        reader = csv.reader(lines_of_file, delimiter=delimiter, skipinitialspace=True)
        lines = (fields for fields in reader if fields)
        first = next(lines, None)
        if first is None:
            raise DataError(f"{path}: an empty file")
        _check_width(path, len(first))
        second, decimal, number = first, ".", 0
        for number, fields in enumerate(lines):
            second = fields if number == 0 else second
            if len(fields) != len(first):
                raise DataError(_ragged(path, reader.line_num, fields, first))
            if delimiter != "," and decimal == "." and any(map(_has_comma, fields)):
                decimal = ","
    require_room(8 * len(first) * (number + 1), str(path), "keep fewer rows or columns")
    return Layout(first, second, delimiter, decimal)


def _lines(path: Path, handle: TextIO) -> Iterator[str]:
    """Yield the lines of a file, as long as they are of a length that a table can have."""
    total, room = 0, room_for_data()
    while line := handle.readline(_LONGEST_LINE + 1):
        total += len(line)
        if len(line) > _LONGEST_LINE:
            raise DataError(
                f"{path}: a line of more than {_LONGEST_LINE:,} characters: a table has one line "
                "for each point; save many numbers as .npy"
            )
        if room is not None and total > room:
            require_room(total, str(path))
        yield line


def _check_width(path: Path, columns: int) -> None:
    if columns > MOST_COLUMNS:
        raise DataError(
            f"{path}: {columns:,} columns, and at most {MOST_COLUMNS:,} are read from text: save "
            "the table as .npy, or transpose it if its lines are columns"
        )


def _trimmed(lines: Iterable[str], delimiter: str) -> Iterable[str]:
    """Return lines without blanks at their ends, where blanks part the fields."""
    return (line.strip() + "\n" for line in lines) if delimiter == " " else lines


def _delimiter(opening: list[str]) -> str:
    """Return the mark that cuts the first two lines alike, the second into most numbers."""
    best, mark = 0.0, next((mark for mark in ",;\t" if mark in opening[0]), ",")
    for candidate in ",;\t| ":
        reader = csv.reader(
            _trimmed(opening, candidate), delimiter=candidate, skipinitialspace=True
        )
        try:
            rows = list(reader)
        except csv.Error:  # a long line is one field to a mark that is not its own
            continue
        if len({len(row) for row in rows}) == 1 and len(rows[0]) > 1:
            share = sum(map(_is_number, rows[-1])) / len(rows[-1])
            # Blanks part columns of numbers alone, not words.
            if share > best and (candidate != " " or share == 1):
                best, mark = share, candidate
    return mark


def _has_comma(field: str) -> bool:
    return _COMMA.fullmatch(field.strip()) is not None


def _ragged(path: Path, line: int, fields: list[str], first: list[str]) -> str:
    hint = "every line needs the same number"
    if len(fields) == len(first) + 1 and not fields[-1].strip():
        hint = "remove the delimiter at the end of the line"
    elif len(first) == 1 and len(fields) == 2 and all(map(_is_number, fields)):
        hint = f"if {','.join(fields)} is one number, write it with a decimal point"
    return f"{path}: line {line} has {len(fields)} fields, the first line has {len(first)}: {hint}"


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


def _check_first_line(path: Path, frame: "pd.DataFrame") -> None:
    """Say that the first line was taken for data, and ask where it is far from all others.

    Raises:
        DataError: If every field of the first line is farther from its column than that is wide.
    """
    first = frame.attrs["first_line"]
    if first is None:
        return
    line = ", ".join(first[:6]) + (", ..." if len(first) > 6 else "")
    head, rest = frame.iloc[0].to_numpy(np.float64), frame.iloc[1:].to_numpy(np.float64)
    if frame.shape[1] > 1 and len(rest) >= _ENOUGH_ROWS and np.isfinite(rest).all():
        least, most = np.min(rest, axis=0), np.max(rest, axis=0)
        width = most - least
        if bool(np.all((head < least - width) | (head > most + width))):
            raise DataError(
                f"{path}: the first line ({line}) is far from everything below it: say --header "
                "if it names the columns, or --no-header if it is a row of data"
            )
    log.warning(
        "%s: no header found: the first line (%s) is taken for a row of data; say --header if it "
        "names the columns, or --no-header if it does not",
        path,
        line,
    )


def _is_number(field: str) -> bool:
    if field.strip().lower() in MISSING:
        return True
    try:
        float(field)
    except ValueError:
        # As where the decimal mark is a comma, which then parts no fields.
        return _has_comma(field)
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
