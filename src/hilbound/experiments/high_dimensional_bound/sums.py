r"""The sums of the high-dimensional bound: gaps, and what they are off by.

Of a norm of n components the share of every component with itself is known,
:math:`\tfrac1n N(0; 2v)`, and is all of its bias:

.. math:: E \langle q_M, q_M \rangle = \tfrac1M N(0; 2v) + (1 - \tfrac1M) \langle q, q \rangle .

How far the gap moves with other centres or rows is measured on independent sets of a few of them,
and falls with the root of their number.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hilbound.engine import gram
from hilbound.experiments.base import Row
from hilbound.mixture import GaussianMixture, precise_log_inner

#: What adding up a tile may do to a sum of positive numbers: torch sums up in a cascade, in which
#: no number of a tile passes through more than 128 additions, of half a rounding unit each.
_SUMMATION = 64 * torch.finfo(torch.float32).eps


def without_own(log_norm: float, n: int, log_own: float) -> float:
    r"""Return the logarithm of a norm of n components without those pairs that are one component.

    .. math:: \log \frac{n \langle q, q \rangle - N(0; 2v)}{n - 1}

    It is the norm of what the components were drawn from, without bias.

    >>> round(without_own(math.log(0.5 * 1.0 + 0.5 * 0.3), 2, 0.0), 6) == round(math.log(0.3), 6)
    True
    """
    if n < 2:
        return math.nan
    own = math.exp(log_own - log_norm) / n
    return log_norm + math.log1p(-own) - math.log1p(-1 / n) if own < 1 else -math.inf


@dataclass(frozen=True)
class Limit:
    """The limit of rows with shape ``(n, d)``, summed up once for all draws of centres."""

    rows: Tensor
    variance: float
    log_value: float

    @classmethod
    def of(cls, x: Tensor, variance: float) -> "Limit":
        """Return the limit for components of a variance around the rows."""
        p = GaussianMixture(x, variance)
        return cls(x, variance, float(precise_log_inner(p, p)))


def measure_bound(limit: Limit, centers: Tensor) -> Row:
    """Return the bound of centres with shape ``(m, d)``, as it is and without its bias.

    The same as :func:`~hilbound.bounds.marginal_bound`, sum by sum.
    """
    x, v, log_pp = limit.rows, limit.variance, limit.log_value
    (n, dim), m = x.shape, len(centers)
    p, q = GaussianMixture(x, v), GaussianMixture(centers, v)
    log_pq, log_qq = float(precise_log_inner(p, q)), float(precise_log_inner(q, q))
    log_own = -0.5 * dim * math.log(4 * math.pi * v)
    log_value = 2 * log_pq - log_qq
    others_p, others_q = without_own(log_pp, n, log_own), without_own(log_qq, m, log_own)
    return {
        "rows": n,
        "centers": m,
        "log_value": log_value,
        "log_limit": log_pp,
        "gap": log_pp - log_value,
        "unbiased_gap": others_p + others_q - 2 * log_pq,
        "log_inner": log_pq,
        "log_others": others_q,
    }


def rounding_error(x: Tensor, centers: Tensor, v: float) -> float:
    """Return a bound on what rounding does to the gap of rows and centres, in nats.

    An exponent that is off by e changes a kernel, and so a sum of kernels, by the factor exp(e) at
    most. The gap holds the sum over pairs of both sides twice, and those of either side once.
    """
    total = 0.0
    for a, b, times in ((x, centers, 2), (x, x, 1), (centers, centers, 1)):
        exponent = gram.exponent_error(a, b, 2 * v)
        if exponent > 2 * gram.KERNEL_ERROR:
            # The products are formed in float64 then (see hilbound.engine.pairs.tiles).
            exponent = gram.exponent_error(a, b, 2 * v, torch.float64)
        total += times * (exponent + _SUMMATION)
    return total


def error_of_one(gaps: Sequence[float], size: int) -> float:
    r"""Return the standard error that the gap of one point would have.

    With n points it is a share :math:`1 / \sqrt n` of it, as that of any mean.

    Args:
        gaps: Gaps of independent sets of points, at least two.
        size: Points of a set.

    >>> error_of_one([1.0, 2.0, 3.0], 100)
    10.0
    """
    return statistics.stdev(gaps) * math.sqrt(size)


def pooled_gap(bounds: Sequence[Row]) -> float:
    """Return the unbiased gap of several draws whose sums are averaged before their logarithms."""
    first = bounds[0]
    inner, others = (
        torch.tensor([b[name] for b in bounds], dtype=torch.float64).logsumexp(0).item()
        - math.log(len(bounds))
        for name in ("log_inner", "log_others")
    )
    others_p = first["unbiased_gap"] - first["log_others"] + 2 * first["log_inner"]
    return float(others_p + others - 2 * inner)


def error_of_rows(x: Tensor, centers: Tensor, v: float, groups: int) -> float:
    """Return the standard error of one row, from groups of the rows in the order they come."""
    parts = x.chunk(groups)
    gaps = [measure_bound(Limit.of(part, v), centers)["unbiased_gap"] for part in parts]
    return error_of_one(gaps, len(parts[0]))


def direct_log_inner(x: Tensor, y: Tensor, v: float) -> float:
    """Return log <p, q> of equal weights in float64, from differences of coordinates."""
    distance = torch.cdist(
        x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist"
    ).square()
    volume = 0.5 * x.shape[1] * math.log(4 * math.pi * v)
    total = torch.logsumexp((-distance / (4 * v)).flatten(), 0)
    return float(total) - math.log(len(x) * len(y)) - volume
