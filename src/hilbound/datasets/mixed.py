"""Tables whose columns keep their own types: numbers, texts and missing cells.

:func:`read_mixed` reads ``.csv``, ``.csv.gz``, ``.tsv``, ``.tsv.gz`` and ``.parquet`` files into a
data frame. What cannot be meant is refused here: ragged lines, columns without a name or with the
same one, dates written as text.
"""

import csv
from collections.abc import Callable, Collection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hilbound.datasets.checks import column_names, enumerate_names
from hilbound.datasets.delimited import check_ragged, is_header
from hilbound.datasets.tables import neighbours
from hilbound.errors import DataError, InputError

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
_DATE = r"\d{4}-\d{1,2}-\d{1,2}([T ].*)?|\d{1,2}[./]\d{1,2}[./]\d{4}"
_DECIMAL_COMMA = r"[-+]?\d+,\d+"


def read_mixed(
    path: Path,
    *,
    texts: Collection[str] = (),
    used: "Callable[[pd.DataFrame], pd.DataFrame] | None" = None,
) -> "pd.DataFrame":
    """Read a table, each column with its own type.

    Args:
        path: The file.
        texts: Columns that hold texts even where all of them look like numbers.
        used: Picks the columns that are used; what the others hold is not looked at.

    Raises:
        DataError: If the file is missing, damaged, empty or ragged, names two columns alike or one
            not at all, or holds dates.
        InputError: If it is a Parquet file, and pyarrow is not installed.
    """
    kind = _kind(path)
    frame = _read_parquet(path) if kind == ".parquet" else _read_text(path, texts)
    check_column_names(list(map(str, frame.columns)), str(path))
    frame.columns = frame.columns.map(str)
    if frame.empty:
        raise DataError(f"{path}: no rows below the header: there is nothing to read")
    for name in frame if used is None else used(frame):
        _check_texts(path, frame[name])
    return frame


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
            f"{path}: Parquet files need pyarrow, which is not installed: pip install pyarrow, or "
            "use a .csv file"
        )


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
    twice = list(dict.fromkeys(name for name in names if names.count(name) > 1))
    if twice:
        raise DataError(
            f"{source}: several columns are named {enumerate_names(twice)}: rename or remove all "
            "but one"
        )


def _kind(path: Path) -> str:
    if not path.exists():
        raise DataError(f"{path} does not exist: {neighbours(path)}")
    if path.is_dir():
        raise DataError(f"{path} is a folder: name a file ({', '.join(SUFFIXES)}) in it")
    kind = suffix_of(path)
    if kind not in SUFFIXES:
        raise DataError(
            f"{path}: the suffix {kind!r} is unknown, allowed for a table with a target are "
            f"{', '.join(SUFFIXES)}"
        )
    return kind


def _read_parquet(path: Path) -> "pd.DataFrame":
    require_pyarrow(path)
    import pandas as pd

    try:
        return pd.read_parquet(path, engine="pyarrow")
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from error


def _read_text(path: Path, texts: Collection[str]) -> "pd.DataFrame":
    # pandas takes half a second to import.
    import pandas as pd

    try:
        first, second, delimiter, _ = check_ragged(path, "\t" if ".tsv" in suffix_of(path) else "")
        header = is_header(first, second)
        names = [name.strip() for name in first] if header else column_names(None, len(first))
        check_column_names(list(names), str(path))
        return pd.read_csv(
            path,
            sep=delimiter,
            skipinitialspace=True,
            header=0 if header else None,
            names=list(names),
            index_col=False,
            low_memory=False,
            encoding="utf-8-sig",
            dtype={name: str for name in names if name in texts},
        )
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not a text file in UTF-8: save it as CSV in UTF-8") from error
    except (csv.Error, pd.errors.ParserError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from error
    except (OSError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"{path} cannot be read: {reason}") from error


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
            f"{present.iloc[0]!r}: write them with a point"
        )
