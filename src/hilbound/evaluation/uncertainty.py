r"""How much a metric of two sets of rows may move by chance: a jackknife that leaves out groups.

Take the n rows of both sets apart into G groups. Let :math:`\theta_g` be the metric without the
rows of group g, and :math:`\bar\theta` the mean of these values. Then

.. math:: \text{standard error} = \sqrt{\frac{G - 1}{G} \sum_g (\theta_g - \bar\theta)^2}.

Rows are only left out, never repeated. A bootstrap would repeat them, and metrics that count
nearest neighbours would find every row at distance zero from itself.

References:
    The jackknife, the bootstrap and other resampling plans (Efron, 1982).
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

#: With more rows than this, chance moves a metric less than anyone reads.
MOST_ROWS = 500
_GROUPS = 10


def standard_errors(
    measure: Callable[[Tensor, Tensor], Mapping[str, float]], x: Tensor, y: Tensor
) -> dict[str, float]:
    """Return the standard error of every metric of two sets of rows.

    Every tenth row is in the same group, so rows must not come in an order.

    Args:
        measure: Returns metrics by name.
        x: Rows with shape ``(n, d)``, in random order.
        y: As many rows, which are left out together with those of ``x``.

    >>> x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
    >>> found = standard_errors(lambda x, y: {"mean": float(x.mean())}, x, x)
    >>> 0.025 < found["mean"] < 0.1  # the standard error of the mean is 0.05
    True
    """
    group = torch.arange(len(x)) % _GROUPS
    left = [measure(x[group != g], y[group != g]) for g in range(_GROUPS)]
    return {name: _error([values[name] for values in left]) for name in left[0]}


def _error(values: list[float]) -> float:
    mean = sum(values) / len(values)
    squares = sum((value - mean) ** 2 for value in values)
    return math.sqrt((len(values) - 1) / len(values) * squares)
