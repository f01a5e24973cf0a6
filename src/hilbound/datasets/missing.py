"""Missing values of a table of numbers: leave out their rows, or fill them in.

A density of complete rows knows no gaps. Rows that are left out may be special ones, and what is
filled in is a guess, so both are told. ``MixtureDensityEstimator`` needs neither.
"""

import logging
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilbound.datasets.base import RawTable
from hilbound.datasets.checks import check_finite, column_names, enumerate_names
from hilbound.datasets.splits import Split
from hilbound.errors import DataError

log = logging.getLogger(__name__)

Missing: TypeAlias = Literal["refuse", "drop", "impute"]
Floats: TypeAlias = NDArray[np.float64]

# More rows to take values from would cost much and change little.
_DONORS = 5000
_NEIGHBOURS = 5


def drop_missing(table: RawTable, source: str) -> RawTable:
    """Return the rows of vectors ``(n, d)`` that have no missing value.

    Args:
        table: The table.
        source: What to call it in messages.

    Raises:
        DataError: If no row is complete.
    """
    whole = ~np.asarray(np.isnan(table.values.astype(np.float64)).any(axis=1))
    left = int(whole.sum())
    if left == 0:
        raise DataError(
            f"{source}: no row is complete, so --missing drop leaves none: fill the gaps "
            "(--missing impute), or leave out the columns that have most of them (--drop)"
        )
    if left < len(whole):
        log.warning(
            "%s: %d of %d rows have missing values and are left out",
            source,
            len(whole) - left,
            len(whole),
        )
    labels = None if table.labels is None else table.labels[whole]
    return table._replace(values=table.values[whole], labels=labels)


def impute_missing(
    values: Floats, split: Split, source: str, columns: Sequence[str] | None
) -> Floats:
    """Fill each gap with the mean of the nearest training rows that have a value there.

    Distances are between the values that both rows have, in standard deviations of the training
    rows. Columns of whole numbers are rounded.

    Args:
        values: The rows with shape ``(n, d)``, NaN where a value is missing.
        split: Which of them are training rows. Nothing is learned from the others.
        source: What to call the table in messages.
        columns: The names of the columns.

    Raises:
        DataError: If a column has no value in any training row, or a value is infinite or too
            large for float32.

    References:
        Missing value estimation methods for DNA microarrays (Troyanskaya et al., 2001).
    """
    gaps = np.isnan(values)
    if not gaps.any():
        return values
    check_finite(np.where(gaps, 0.0, values), source, columns)
    from sklearn.impute import KNNImputer

    train = values[split.train.numpy()]
    names = column_names(columns, values.shape[1])
    empty = [name for name, none in zip(names, np.isnan(train).all(axis=0), strict=True) if none]
    if empty:
        raise DataError(
            f"{source}: {enumerate_names(empty)} without a value in any training row, so nothing "
            "can be filled in: leave the column out (--drop)"
        )
    mean, scale = np.nanmean(train, axis=0), np.nanstd(train, axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    rows = gaps.any(axis=1)
    imputer = KNNImputer(n_neighbors=_NEIGHBOURS).fit((train[:_DONORS] - mean) / scale)
    filled = values.copy()
    guesses = imputer.transform((values[rows] - mean) / scale) * scale + mean
    filled[rows] = np.where(gaps[rows], guesses, values[rows])
    known = np.where(gaps, 0.0, values)
    whole = (known == np.round(known)).all(axis=0)
    filled[:, whole] = np.round(filled[:, whole])
    log.warning(
        "%s: %d missing values in %d rows were filled in from similar rows (%s)",
        source,
        gaps.sum(),
        rows.sum(),
        enumerate_names([names[j] for j in np.flatnonzero(gaps.any(axis=0))]),
    )
    return filled
