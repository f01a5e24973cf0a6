"""What is wrong with a table, said by the names of its columns."""

from typing import Any

import numpy as np

from hilbound.errors import InputError


def check_table(X: object) -> None:
    """Refuse a data frame whose columns are not numbers; anything without columns passes.

    Args:
        X: What the user gave.

    Raises:
        InputError: If two columns share a name, or one holds text, dates or infinite values.

    >>> import pandas as pd
    >>> check_table(pd.DataFrame({"price": [1.0, float("nan")]}))
    """
    names = getattr(X, "columns", None)
    if names is None:
        return
    names = list(names)
    twice = sorted({str(name) for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"X must have columns with different names, got {', '.join(map(repr, twice))} more "
            "than once: rename one of them"
        )
    for name in names:
        _check_column(name, X[name])  # type: ignore[index]  # a frame of pandas, polars, ...


def _check_column(name: object, column: Any) -> None:
    values = np.asarray(column)
    if values.dtype.kind in "mM":
        raise InputError(
            f"X must hold numbers, got dates in column {name!r}: turn them into numbers, such as "
            "days since the first one"
        )
    if values.dtype.kind not in "biuf":
        text = next((v for v in values if isinstance(v, str)), None)
        if text is None:
            return  # numbers in another dress, which scikit-learn takes off
        raise InputError(
            f"X must hold numbers, got {text!r} in column {name!r}: encode it, with "
            "sklearn.preprocessing.OrdinalEncoder for example, or drop it"
        )
    if values.dtype.kind == "f" and np.isinf(values).any():
        raise InputError(
            f"X must be finite, got {int(np.isinf(values).sum())} infinite values in column "
            f"{name!r}: replace them, or leave these rows out"
        )
