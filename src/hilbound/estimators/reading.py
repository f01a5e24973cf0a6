"""The arguments of estimators, checked by scikit-learn's rules."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_array, validate_data

from hilbound.errors import DataError, InputError
from hilbound.estimators.frames import (
    Column,
    Floats,
    check_names,
    columns_of_array,
    columns_of_frame,
    is_frame,
)


def read_table(estimator: Any, table: ArrayLike, *, reset: bool) -> list[Column]:
    """Return the columns of ``X``, with names and their number checked as scikit-learn does.

    Args:
        estimator: Whose ``n_features_in_`` and ``feature_names_in_`` are set or compared.
        table: A data frame or something like an array, with shape ``(n, p)``.
        reset: Whether to set them.

    Raises:
        InputError: If names come twice, or are not those of ``fit``.
    """
    if not is_frame(table):
        array = validate_data(estimator, table, reset=reset, dtype=None, ensure_all_finite=False)
        return columns_of_array(array)
    check_names(table)
    _check_same_columns(estimator, table, reset=reset)
    columns = columns_of_frame(table)
    if not columns or not len(table):  # type: ignore[arg-type]
        raise InputError(
            f"X has {len(columns)} feature(s) (shape={table.shape}) while a minimum of 1 "  # type: ignore[union-attr]
            "is required, and at least one row"
        )
    return columns


def _check_same_columns(estimator: Any, table: ArrayLike, *, reset: bool) -> None:
    """Keep the names and the number of the columns of a data frame, or compare them."""
    try:
        validate_data(estimator, table, reset=reset, skip_check_array=True)
    except ValueError as error:
        named = hasattr(estimator, "feature_names_in_")
        remedy = "; X[model.feature_names_in_] selects them" if named else ""
        raise InputError(
            f"{error}\nX must have the columns that it had in fit, in that order{remedy}"
        ) from error


def read_numbers(estimator: Any, table: ArrayLike, *, reset: bool, gaps: bool) -> Floats:
    """Return a table that must hold numbers, with shape ``(n, d)``.

    Args:
        estimator: Whose ``n_features_in_`` and ``feature_names_in_`` are set or compared.
        table: A data frame or something like an array.
        reset: Whether to set them.
        gaps: Whether values may be missing.

    Raises:
        InputError: If names come twice or are not those of ``fit``, or a column holds texts, dates
            or infinite values.
    """
    if is_frame(table):
        _check_numbers(table)
        _check_same_columns(estimator, table, reset=reset)
    numbers: Floats = validate_data(
        estimator,
        table,
        reset=reset,
        dtype=np.float64,
        ensure_all_finite="allow-nan" if gaps else True,
    )
    return numbers


def read_targets(y: ArrayLike | None) -> Floats:
    """Return targets with shape ``(n, d)``.

    Raises:
        DataError: If there are none, or they are texts, categories, dates, NaN or infinite.
    """
    if y is None:
        raise DataError("fit requires y to be passed, but the target y is None")
    kinds = {
        str(kind).lower() for kind in np.atleast_1d(getattr(y, "dtypes", getattr(y, "dtype", "")))
    }
    values = np.asarray(y)
    if any(k.startswith(("categor", "enum", "bool")) for k in kinds) or _holds_texts(values):
        raise DataError(
            "the target y holds categories or texts, which have no density: use a classifier for "
            "classes, or convert y with astype(float) if they are numbers"
        )
    if values.dtype.kind in "mM":
        raise DataError(
            "the target y holds dates or times: convert it to numbers, such as days since the "
            "first date"
        )
    targets: Floats = check_array(
        values,
        ensure_2d=False,
        allow_nd=False,
        dtype=np.float64,
        ensure_all_finite=False,
        input_name="y",
        force_writeable=True,  # pandas hands out its own memory for reading, torch wants to write
    )
    targets = targets[:, None] if targets.ndim == 1 else targets
    finite = np.isfinite(targets).all(1)
    if not finite.all():
        row = int((~finite).argmax())
        raise DataError(
            f"the target y holds NaN or infinity, first in row {row} ({int((~finite).sum())} "
            "rows in all): drop the rows whose target is unknown. Input y contains NaN or inf"
        )
    return targets


def _holds_texts(values: np.ndarray[Any, Any]) -> bool:
    if values.dtype.kind in "SU":
        return True
    return values.dtype.kind == "O" and any(isinstance(v, str | bytes) for v in values.flat)


def read_weights(sample_weight: ArrayLike | None, n: int) -> Floats:
    """Return weights with shape ``(n,)``, ones for ``None``.

    Raises:
        InputError: If they are not ``n`` finite numbers from 0, or all are zero.
    """
    if sample_weight is None:
        return np.ones(n)
    weight: Floats = np.asarray(sample_weight, dtype=np.float64)
    if weight.ndim == 0:
        weight = np.full(n, float(weight))
    if weight.shape != (n,):
        raise InputError(
            f"sample_weight must have shape ({n},), one for each row, got {weight.shape}"
        )
    if not (np.isfinite(weight) & (weight >= 0)).all() or not weight.any():
        raise InputError(
            "sample_weight must be finite numbers from 0, not all of them zero; a row of weight 0 "
            "is left out"
        )
    return weight


def _check_numbers(table: ArrayLike) -> None:
    """Refuse a data frame whose columns are not numbers."""
    check_names(table)
    for column in columns_of_frame(table):
        text = column.first_text()
        if text is not None:
            raise DataError(
                f"column {column.name} holds texts such as {text!r}, and X must hold numbers: "
                "encode it, with sklearn.preprocessing.OrdinalEncoder for example, or drop it"
            )
