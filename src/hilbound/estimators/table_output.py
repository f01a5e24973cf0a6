"""Predictions as a file: the rows that came, and beside them what is expected of their targets.

Texts are written so that a spreadsheet finds no formula
(:func:`hilbound.training.files.plain_cell`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from hilbound.datasets.checks import enumerate_names
from hilbound.datasets.mixed import require_pyarrow, suffix_of
from hilbound.errors import DataError, InputError
from hilbound.estimators import predictions
from hilbound.estimators.frames import Floats
from hilbound.estimators.table_data import Unknown, read_target
from hilbound.estimators.table_run import TableRun
from hilbound.evaluation.calibration import log_scores
from hilbound.mixture import GaussianMixture
from hilbound.training.files import plain_cell

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".csv", ".csv.gz", ".parquet")
_ROWS = 10_000  # predicted at once


def check_output(output: Path) -> None:
    """Refuse a file that predictions can't be written to.

    Raises:
        InputError: If its suffix is another than ``SUFFIXES``, or pyarrow is needed and not there.
    """
    kind = suffix_of(output)
    if kind not in SUFFIXES:
        raise InputError(f"output must end in one of {', '.join(SUFFIXES)}, got {str(output)!r}")
    if kind == ".parquet":
        require_pyarrow(output)


def prediction_table(
    run: TableRun,
    frame: "pd.DataFrame",
    source: str,
    levels: Sequence[float],
    unknown: Unknown = "error",
) -> "pd.DataFrame":
    """Return the rows that came with columns for each target's mean, deviation and quantiles.

    Where the targets are there, ``log_density`` is the logarithm of the density of all of them.

    Args:
        run: The run.
        frame: The rows.
        source: What to call them in messages.
        levels: Probabilities of the quantiles.
        unknown: Whether a text never seen is an error, or counts as missing.

    Raises:
        InputError: If the columns cannot be used, or have names of the predictions.
    """
    y = _targets_there(run, frame, source)
    table = run.match(frame, source, unknown)
    parts = []
    for start in range(0, len(frame), _ROWS):
        rows = slice(start, start + _ROWS)
        q = run.model.predict_distribution(table.iloc[rows])
        parts.append(_columns(q, run.config.target, levels, None if y is None else y[rows]))
    return add_columns(frame, {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}, source)


def log_density_table(
    run: TableRun, frame: "pd.DataFrame", source: str, unknown: Unknown = "error"
) -> "pd.DataFrame":
    """Return the rows that came with the log density of their targets, given the other columns.

    Args:
        run: The run.
        frame: The rows, with their targets. Where one is missing, so is the density.
        source: What to call them in messages.
        unknown: Whether a text never seen is an error, or counts as missing.

    Raises:
        InputError: If a target is missing, or columns cannot be used.
    """
    lacking = [target for target in run.config.target if target not in frame.columns]
    if lacking:
        raise DataError(
            f"{source} lacks the target {enumerate_names(lacking)}, whose density is asked for: "
            "add the column, or predict it with 'hilbound predict'"
        )
    y = np.stack([read_target(frame[target], source) for target in run.config.target], 1)
    table = run.match(frame, source, unknown)
    blocks = [slice(start, start + _ROWS) for start in range(0, len(frame), _ROWS)]
    parts = [_scores(run.model.predict_distribution(table.iloc[rows]), y[rows]) for rows in blocks]
    return add_columns(frame, {"log_density": np.concatenate(parts)}, source)


def add_columns(frame: "pd.DataFrame", found: dict[str, Floats], source: str) -> "pd.DataFrame":
    """Return a table with further columns of numbers, in nine significant digits.

    Args:
        frame: The table.
        found: The numbers with shape ``(n,)``, by the names of the columns.
        source: What to call the table in messages.

    Raises:
        DataError: If the table has such a column.
    """
    import pandas as pd

    taken = [name for name in found if name in frame.columns]
    if taken:
        raise DataError(
            f"{source} has columns named as the results are, {enumerate_names(taken)}: rename or "
            "remove them"
        )
    # Nine digits are more than anyone will read.
    rounded = {n: [float(f"{value:.9g}") for value in values] for n, values in found.items()}
    return pd.concat([frame.reset_index(drop=True), pd.DataFrame(rounded)], axis=1)


def _targets_there(run: TableRun, frame: "pd.DataFrame", source: str) -> Floats | None:
    """Return the targets with shape ``(n, d)`` if all their columns are there, NaN if missing."""
    if not all(target in frame.columns for target in run.config.target):
        return None
    return np.stack([read_target(frame[target], source) for target in run.config.target], 1)


def _columns(
    q: GaussianMixture, targets: Sequence[str], levels: Sequence[float], y: Floats | None
) -> dict[str, Floats]:
    mean, deviation = q.mean.numpy(), q.variance.sqrt().numpy()
    quantiles = predictions.quantiles(q, np.asarray(levels, dtype=np.float64))
    found: dict[str, Floats] = {}
    for i, target in enumerate(targets):
        found[f"{target}_mean"], found[f"{target}_std"] = mean[:, i], deviation[:, i]
        for j, level in enumerate(levels):
            found[f"{target}_q{level:g}"] = quantiles[:, j, i]
    if y is not None:
        found["log_density"] = _scores(q, y)
    return found


def _scores(q: GaussianMixture, y: Floats) -> Floats:
    """Return the log density of targets ``(n, d)``, NaN where one is not known."""
    known = np.asarray(np.isfinite(y).all(1))
    return np.where(known, log_scores(q, np.where(known[:, None], y, 0.0)), np.nan)


def write_table(frame: "pd.DataFrame", output: Path) -> Path:
    """Write a table as ``.csv``, ``.csv.gz`` or ``.parquet``, in one piece.

    Raises:
        InputError: If the file cannot be written.
    """
    kind = suffix_of(output)
    beside = output.with_name(output.name + ".partial")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if kind == ".parquet":
            frame.to_parquet(beside, index=False, engine="pyarrow")
        else:
            compression: Literal["gzip"] | None = "gzip" if kind.endswith(".gz") else None
            harmless(frame).to_csv(beside, index=False, compression=compression)
        beside.replace(output)
    except OSError as error:
        raise InputError(f"output {str(output)!r} cannot be written: {error.strerror}") from None
    return output


def harmless(frame: "pd.DataFrame") -> "pd.DataFrame":
    r"""Return a table in whose texts and names no spreadsheet finds a formula.

    >>> import pandas as pd
    >>> harmless(pd.DataFrame({"=a": ["=1+1", "-x", "b"], "n": [-1, 2, 3]})).to_csv(index=False)
    "'=a,n\n'=1+1,-1\n'-x,2\nb,3\n"
    """
    from pandas.api.types import is_numeric_dtype

    plain = frame.rename(columns=plain_cell)
    for name in plain:
        if not is_numeric_dtype(plain[name]):
            plain[name] = plain[name].astype(object).map(plain_cell)
    return plain
