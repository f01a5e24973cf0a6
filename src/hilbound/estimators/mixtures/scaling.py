"""The units that estimators think in: every column with mean zero and variance one."""

import numpy as np
from numpy.typing import NDArray


def standardisation(
    table: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation of the known values of every column, shape ``(d,)``.

    A constant column has its value as the mean and the scale one.

    Args:
        table: Rows with shape ``(n, d)``, a value in every column; a missing one is NaN.

    >>> location, scale = standardisation(np.array([[0.0, 7.3], [2.0, np.nan], [4.0, 7.3]]))
    >>> location, scale.round(2)
    (array([2. , 7.3]), array([1.63, 1.  ]))
    """
    low = np.nanmin(table, 0)
    constant = low == np.nanmax(table, 0)
    # Not the mean of equal values, which rounding moves.
    location = np.where(constant, low, np.nanmean(table, 0))
    scale = np.nanstd(table, 0)
    return location, np.where(constant | (scale == 0), 1.0, scale)
