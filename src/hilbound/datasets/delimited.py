"""Tables as text: one line for each row, with or without a header.

The fields are separated by commas, semicolons, tabs, bars or blanks: by what cuts the first two
lines alike and the second into numbers. A decimal comma is read where commas separate no fields.
The first line is a header in three cases: none of its fields is a number; it has text above a
number of the second line; or it counts ``0, 1, 2, ...``, as pandas does for columns without names.
A :class:`TextFormat` overrides all of this.
"""

import csv
import gzip
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TextIO, TypeAlias, get_args

from hilbound.datasets.checks import check_column_names, column_names
from hilbound.datasets.claims import damaged, file_size, require_room
from hilbound.engine.memory import room_for_data
from hilbound.errors import DataError, InputError

if TYPE_CHECKING:
    import pandas as pd

Header: TypeAlias = bool | Literal["guess"] | None
Decimal: TypeAlias = Literal[".", ","]

# What pandas reads as a missing value stands for a number, and is not a name.
MISSING = {"", "na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none"}
_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
#: More columns than that are read from arrays only.
MOST_COLUMNS = 100_000
_LONGEST_LINE = 1 << 22
_MARKS = {
    "comma": ",",
    "semicolon": ";",
    "tab": "\t",
    "\\t": "\t",
    "bar": "|",
    "blank": " ",
    "space": " ",
}
_WORDS = {mark: word for word, mark in reversed(_MARKS.items())} | {"\t": "tab", " ": "blank"}


@dataclass(frozen=True)
class TextFormat:
    r"""How a table is written as text, as far as that is known. The file tells the rest.

    Args:
        header: Whether the first line names the columns; by default that is judged by its fields,
            and told or asked where it is doubtful. ``"guess"`` judges without a word.
        delimiter: What separates the fields: a character, or ``comma``, ``semicolon``, ``tab``,
            ``bar`` or ``blank``.
        decimal: The decimal mark, ``"."`` or ``","``.

    Raises:
        InputError: If the delimiter is more than one character, or the decimal mark is another.

    >>> TextFormat(delimiter="tab").delimiter
    '\t'
    """

    header: Header = None
    delimiter: str | None = None
    decimal: Decimal | None = None

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            mark = _MARKS.get(self.delimiter, self.delimiter)
            if len(mark) != 1 or mark in '\r\n"':
                raise InputError(
                    f"--delimiter {self.delimiter!r}: give one character, or comma, semicolon, "
                    "tab, bar or blank"
                )
            object.__setattr__(self, "delimiter", mark)
        if self.decimal not in {None, *get_args(Decimal)}:
            raise InputError(f"--decimal {self.decimal!r}: allowed are . and ,")
        if self.delimiter is not None and self.delimiter == self.decimal:
            raise InputError(
                f"--delimiter and --decimal are both {self.decimal!r}: fields cannot be told from "
                "numbers"
            )

    def given(self) -> list[str]:
        """Return the options that were given, as they stand on the command line.

        >>> TextFormat(header=True).given(), TextFormat(header="guess").given()
        (['--header'], [])
        """
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        return [f"--{name}" for name, value in known.items() if value not in {None, "guess"}]


class TextTable(NamedTuple):
    """A table that was read from text.

    Args:
        frame: Its rows.
        first_line: The fields of the first line if it was taken for a row of data.
    """

    frame: "pd.DataFrame"
    first_line: list[str] | None


def read_text(path: Path, form: TextFormat, texts: Collection[str] = ()) -> TextTable:
    """Read a table from text; each column has its own type.

    Args:
        path: The file; with the suffix ``.gz`` it is decompressed.
        form: What is known of it.
        texts: Columns that hold texts even where all of them look like numbers.

    Raises:
        DataError: If the file is empty, ragged, damaged or not text, or names two columns alike or
            one not at all.
    """
    # pandas takes half a second to import, and only tables need it.
    import pandas as pd

    try:
        with damaged(path, "cannot be read as CSV: save it again"):
            layout = check_ragged(path, form)
            first, second = layout.first[: layout.width], layout.second[: layout.width]
            found = is_header(first, second) if form.header in {None, "guess"} else form.header
            names = [name.strip() for name in first] if found else column_names(None, len(first))
            check_column_names(list(names), str(path))
            frame = pd.read_csv(
                path,
                sep=r"\s+" if layout.delimiter == " " else layout.delimiter,
                decimal=layout.decimal,
                skipinitialspace=True,
                header=0 if found else None,
                names=list(names),
                index_col=False,
                low_memory=False,
                encoding="utf-8-sig",
                dtype={name: str for name in names if name in texts},
            )
    except DataError as error:
        raise explained(path, error) from error.__cause__
    return TextTable(frame, None if found else first)


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
    """How a file is laid out: its first two lines' fields and the marks between them.

    Args:
        first: The fields of the first line.
        second: Those of the second, or of the first if there is none.
        width: How many columns there are, without one that a mark at each line's end leaves.
        delimiter: The mark between fields.
        decimal: The mark within numbers.
    """

    first: list[str]
    second: list[str]
    width: int
    delimiter: str
    decimal: Decimal


def check_ragged(path: Path, form: TextFormat) -> Layout:
    """Return the layout of a file. Refuse lines of unequal length.

    Args:
        path: The file; with the suffix ``.gz`` it is decompressed.
        form: What is known of it.

    Raises:
        DataError: If the file is empty, or a line has more or fewer fields than the first.
    """
    # pandas would fill short lines with NaN, and would use a surplus first field as an index.
    file_size(path)
    with _open(path) as handle:
        opening = list(islice((line for line in _lines(path, handle) if line.strip()), 2))
        if not opening:
            raise DataError(f"{path}: an empty file")
        mark = form.delimiter or _delimiter(opening, form.decimal)
        handle.seek(0)
        lines_of_file = _trimmed(_lines(path, handle), mark)
        reader = csv.reader(lines_of_file, delimiter=mark, skipinitialspace=True)
        lines = (fields for fields in reader if fields)
        first = next(lines, None)
        if first is None:
            raise DataError(f"{path}: an empty file")
        _check_width(path, len(first))
        second, commas, bare_end = first, False, len(first) > 1 and not first[-1].strip()
        number = 0
        for number, fields in enumerate(lines):
            second = fields if number == 0 else second
            empty = not fields[-1].strip()
            # A mark at the end of a line leaves an empty field that is none.
            if len(fields) - len(first) not in {0, int(empty)}:
                raise DataError(_ragged(path, reader.line_num, fields, first, mark))
            bare_end = bare_end and empty
            commas = commas or any(map(_has_comma, fields))
    require_room(8 * len(first) * (number + 1), str(path), "keep fewer rows or columns")
    width = len(first) - int(bare_end)
    decimal: Decimal = "," if commas and mark != "," else "."
    return Layout(first, second, width, mark, form.decimal or decimal)


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


def _delimiter(opening: list[str], decimal: Decimal | None) -> str:
    """Return the mark that cuts the first two lines alike, the second into most numbers."""
    candidates = [mark for mark in ",;\t| " if mark != decimal]
    if "," not in opening[0] and _has_comma(opening[-1]):
        # One name above a number with a decimal comma: commas part no fields.
        candidates = [mark for mark in candidates if mark != ","]
    best, mark = 0.0, next((m for m in candidates[:3] if m in opening[0]), candidates[0])
    for candidate in candidates:
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


def _ragged(path: Path, line: int, fields: list[str], first: list[str], mark: str) -> str:
    word = _WORDS.get(mark, repr(mark))
    hint = (
        f"every line needs the same number. If another character than a {word} separates them, "
        "name it (--delimiter)"
    )
    if mark == "," and len(first) < len(fields) and any(map(str.isdecimal, fields)):
        hint += "; if commas stand within numbers, say --decimal ,"
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


def _is_number(field: str) -> bool:
    if field.strip().lower() in MISSING:
        return True
    try:
        float(field)
    except ValueError:
        # As where the decimal mark is a comma, which then parts no fields.
        return _has_comma(field)
    return True
