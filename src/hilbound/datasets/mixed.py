"""Tables whose columns keep their own types: numbers, texts and missing cells.

:func:`read_frame` reads ``.csv``, ``.csv.gz``, ``.tsv``, ``.tsv.gz`` and ``.parquet`` files into a
data frame. What cannot be meant is refused here: ragged lines, columns without a name or with the
same one. :func:`read_mixed` also refuses dates written as text.
"""

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hilbound.datasets.checks import check_column_names, neighbours
from hilbound.datasets.claims import damaged, file_size, require_present, require_room
from hilbound.datasets.delimited import MOST_COLUMNS, TextFormat, TextTable, read_text
from hilbound.errors import DataError, InputError

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
# Older ones unpickle the types of columns (CVE-2023-47248).
_SAFE_PYARROW = 15
# What a Parquet file may hold more than its bytes: repeated values take none.
_FREE_BYTES, _GROWTH = 1 << 26, 2000
_DATE = r"\d{4}-\d{1,2}-\d{1,2}([T ].*)?|\d{1,2}[./]\d{1,2}[./]\d{4}"
_DECIMAL_COMMA = r"[-+]?\d+,\d+"


def read_frame(
    path: Path, form: TextFormat | None = None, *, texts: Collection[str] = ()
) -> TextTable:
    """Read a table, each column with its own type.

    Args:
        path: The file.
        form: What is known of a file of text.
        texts: Columns that hold texts even where all of them look like numbers.

    Raises:
        DataError: If the file is missing, damaged, empty or ragged, or names two columns alike or
            one not at all.
        InputError: If it is a Parquet file, and pyarrow is not installed or ``form`` is given.
    """
    form = form or TextFormat()
    kind = _kind(path)
    if kind == ".parquet":
        table = TextTable(_read_parquet(path, form), None)
    else:
        mark = form.delimiter or ("\t" if ".tsv" in kind else None)
        table = read_text(path, replace(form, delimiter=mark), texts)
    check_column_names(list(map(str, table.frame.columns)), str(path))
    table.frame.columns = table.frame.columns.map(str)
    if table.frame.empty:
        raise DataError(f"{path}: no rows below the header: there is nothing to read")
    return table


def read_mixed(
    path: Path,
    form: TextFormat | None = None,
    *,
    texts: Collection[str] = (),
    used: "Callable[[pd.DataFrame], pd.DataFrame] | None" = None,
) -> "pd.DataFrame":
    """Read a table of numbers and texts, and refuse texts that stand for something else.

    Args:
        path: The file.
        form: What is known of a file of text.
        texts: Columns that hold texts even where all of them look like numbers.
        used: Picks the columns that are used; what the others hold is not looked at.

    Raises:
        DataError: As by :func:`read_frame`, or if a column holds dates.
        InputError: If it is a Parquet file, and pyarrow is not installed or ``form`` is given.
    """
    frame, first_line = read_frame(path, form, texts=texts)
    for name in frame if used is None else used(frame):
        _check_texts(path, frame[name])
    if first_line is not None and (form is None or form.header is None):
        log.warning("%s: %s", path, no_header(first_line))
    return frame


def no_header(first_line: list[str]) -> str:
    """Return what to say of a first line that was taken for a row of data.

    >>> no_header(["1", "2"])
    'no header found: the first line (1, 2) is taken for a row of data; say --header if it names \
the columns, or --no-header if it does not'
    """
    return (
        f"no header found: the first line ({shown_line(first_line)}) is taken for a row of data; "
        "say --header if it names the columns, or --no-header if it does not"
    )


def shown_line(fields: list[str]) -> str:
    """Return the first few fields of a line, for messages."""
    return ", ".join(fields[:6]) + (", ..." if len(fields) > 6 else "")


def suffix_of(path: Path) -> str:
    """Return the suffix of a file, with that of the format below a compression.

    >>> suffix_of(Path("a.b.csv.GZ")), suffix_of(Path("a.parquet"))
    ('.csv.gz', '.parquet')
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def require_pyarrow(path: Path) -> None:
    """Raise an InputError if Parquet files cannot be used."""
    if find_spec("pyarrow") is None:
        raise InputError(
            f"{path}: Parquet files need pyarrow, which is not installed: pip install "
            "'hilbound[parquet]', or use a .csv file"
        )
    if int(version("pyarrow").partition(".")[0]) < _SAFE_PYARROW:
        raise InputError(
            f"{path}: pyarrow {version('pyarrow')} may run code that a Parquet file holds: "
            "pip install --upgrade pyarrow"
        )


def _kind(path: Path) -> str:
    if not path.exists():
        raise DataError(f"{path} does not exist: {neighbours(path)}")
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file ({', '.join(SUFFIXES)}) in it")
    kind = suffix_of(path)
    if kind not in SUFFIXES:
        raise DataError(
            f"{path}: the suffix {kind!r} is unknown, allowed for a table are {', '.join(SUFFIXES)}"
        )
    return kind


def _read_parquet(path: Path, form: TextFormat) -> "pd.DataFrame":
    if form.given():
        raise InputError(
            f"{', '.join(form.given())}: for files of text; {path} says itself how it is written"
        )
    require_pyarrow(path)
    import pandas as pd
    import pyarrow.parquet as pq

    size = file_size(path)
    with damaged(path, "cannot be read as Parquet: write it again"):
        with pq.ParquetFile(path) as file:
            about = file.metadata
            rows, columns = about.num_rows, about.num_columns
            groups = [about.row_group(i).total_byte_size for i in range(about.num_row_groups)]
        _check_claims(path, size, rows, columns, sum(groups))
        return pd.read_parquet(path, engine="pyarrow")


def _check_claims(path: Path, size: int, rows: int, columns: int, uncompressed: int) -> None:
    if columns > MOST_COLUMNS or min(rows, columns, uncompressed) < 0:
        raise DataError(
            f"{path}: {columns:,} columns of {rows:,} rows, and at most {MOST_COLUMNS:,} columns "
            "are read: keep fewer"
        )
    # A column of one value takes no room in the file, and eight bytes a row in memory.
    needed = max(8 * rows * columns, uncompressed)
    require_present(needed, _FREE_BYTES + _GROWTH * size, str(path))
    require_room(needed, str(path), "keep fewer rows or columns")


def _check_texts(path: Path, column: "pd.Series[str]") -> None:
    """Refuse texts that are dates, or numbers written in a way that is not read."""
    if column.dtype != object and str(column.dtype) not in {"str", "string"}:
        return
    present = column.dropna()
    if not len(present) or not present.map(lambda value: isinstance(value, str)).all():
        return
    if present.str.fullmatch(_DATE).all():
        raise DataError(
            f"{path}: column {column.name!r} holds dates such as {present.iloc[0]!r}, which have "
            "no scale of their own: replace it by numbers, such as the days since the first date, "
            "the month or the hour, or leave it out (--drop)"
        )
    if present.str.fullmatch(_DECIMAL_COMMA).all():
        raise DataError(
            f"{path}: column {column.name!r} holds numbers with a decimal comma such as "
            f"{present.iloc[0]!r}: say --decimal , or write them with a point"
        )
