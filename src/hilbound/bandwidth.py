r"""Rules that read a variance off the data, before anything is trained.

All return the variance :math:`v` of the kernel between a data point and a centre,
:math:`\exp(-|x - c|^2 / (2v))`. They look at the data in three ways.

*A typical distance.* The median heuristic, :math:`v = \frac12 \operatorname{median}_{i<j}
|x_i - x_j|^2`, puts the kernel of a typical pair at :math:`e^{-1}`.

*A density estimate.* Silverman's rule takes the bandwidth :math:`h` that would estimate a Gaussian
of the data's variance best from n points. Data and model are both smoothed by :math:`h^2`, so the
kernel between them has :math:`v = 2 h^2`.

*What the kernel tells apart.* The effective rank of the data's own Gram matrix

.. math:: r(v) = \exp\Big(-\sum_i \pi_i \log \pi_i\Big), \qquad
    \pi = \text{eigenvalues of } K / n, \quad K_{ij} = e^{-|x_i - x_j|^2 / (2v)},

falls from n, where every point is alone, to 1, where all look alike. Where it is small beside n it
belongs to the distribution and hardly to n: a rule that asks for a given rank needs no batch size.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hilbound.errors import InputError
from hilbound.gram import squared_distances
from hilbound.spectrum import effective_rank

__all__ = ["RANK", "ROWS", "half_rank_variance", "median_variance", "rank_variance",
           "silverman_variance"]  # fmt: skip

#: The effective rank that :func:`rank_variance` asks for. It was chosen on trial trainings with the
#: nuclear norm on toys, digits and MNIST; ``docs/experiments/variance-sweep`` measures, with other
#: seeds and further data, how far from the best it ends.
RANK = 8.0
#: Of how many rows the effective rank is taken.
ROWS = 256
# A bracket this narrow on log v: no training feels a thousandth.
_CLOSE = 1e-3


def median_variance(
    x: Tensor, samples: int = 2000, generator: torch.Generator | None = None
) -> float:
    r"""Return half of the median squared distance between points.

    Args:
        x: Points with shape ``(n, d)``.
        samples: Distances are measured within a random subset of this size, of two at least.
        generator: Draws the subset.

    Returns:
        A variance, in squared units of ``x``.

    Raises:
        InputError: If ``x`` is no matrix of two finite points at least, ``samples`` is below two,
            or at least half of all pairs coincide.

    References:
        Large sample analysis of the median heuristic (Garreau, Jitkrittum and Kanagawa, 2017).

    >>> median_variance(torch.tensor([[0.0], [1.0], [3.0]]))
    2.0
    """
    x = _subset(_check_points(x), "samples", samples, generator)
    i, j = torch.triu_indices(len(x), len(x), offset=1, device=x.device)
    variance = 0.5 * float(squared_distances(x, x)[i, j].median())
    if variance == 0:
        raise InputError(
            "x has a median distance of zero: at least half of all pairs of points coincide; "
            "give the variance as a number"
        )
    return variance


def silverman_variance(x: Tensor) -> float:
    r"""Return twice the squared bandwidth of Silverman's rule.

    .. math:: v = 2 h^2, \qquad h^2 = \sigma^2 \Big(\frac{4}{(d + 2)\, n}\Big)^{2 / (d + 4)},

    with :math:`\sigma^2` the mean variance of the coordinates. It is made for densities in few
    dimensions: in many, a kernel of this variance tells all points apart.

    Args:
        x: Points with shape ``(n, d)``.

    Raises:
        InputError: If ``x`` is no matrix of two finite points at least, or all points coincide.

    References:
        Density Estimation for Statistics and Data Analysis (Silverman, 1986).

    >>> round(silverman_variance(torch.tensor([[0.0], [1.0], [3.0]])), 4)
    3.3739
    """
    n, d = _check_points(x).shape
    spread = float(x.double().var(0).mean())
    if spread == 0:
        raise InputError("x has no spread: all points coincide; give the variance as a number")
    shrinkage: float = (4 / ((d + 2) * n)) ** (2 / (d + 4))
    return 2 * spread * shrinkage


def rank_variance(
    x: Tensor,
    rank: float = RANK,
    rows: int = ROWS,
    generator: torch.Generator | None = None,
) -> float:
    r"""Return the variance at which the Gram matrix of the data has a given effective rank.

    Args:
        x: Points with shape ``(n, d)``.
        rank: The effective rank, above 1.
        rows: It is that of a random subset of this size, of two at least.
        generator: Draws the subset.

    Returns:
        A variance, in squared units of ``x``, to a thousandth.

    Raises:
        InputError: If ``x`` is no matrix of two finite points at least, ``rows`` is below two, or
            ``rank`` does not lie between 1 and the effective number of different points.

    >>> x = torch.tensor([[0.0], [1.0], [9.0], [10.0]])
    >>> round(rank_variance(x, 3.0), 1)
    1.5
    """
    x = _subset(_check_points(x), "rows", rows, generator)
    return _variance_of_rank(x, rank, "rank")


def half_rank_variance(
    x: Tensor, rows: int = ROWS, generator: torch.Generator | None = None
) -> float:
    """Return the variance at which the kernel tells apart half as many points as there are.

    Arguments and errors as in :func:`rank_variance`. It depends on ``rows``: more rows are closer
    to one another, and the variance that makes half of them alone is smaller. Give the batch size
    for half of a batch; the rule ``"half-rank"`` of :func:`hilbound.variance.choose` knows of no
    batch and looks at :data:`ROWS` rows always.

    >>> x = torch.tensor([[0.0], [1.0], [9.0], [10.0]])
    >>> half_rank_variance(x) == rank_variance(x, 2.0)
    True
    """
    x = _subset(_check_points(x), "rows", rows, generator)
    return _variance_of_rank(x, len(x) / 2, "half of the number of rows")


def _variance_of_rank(x: Tensor, rank: float, name: str) -> float:
    """Return the variance of a rank; the error calls it what ``name`` says."""
    distances = squared_distances(x, x).double()
    # The limit of a small variance: only copies of a point have any kernel left.
    most = _rank((distances == 0).double())
    if not 1 < rank < most:
        raise InputError(
            f"{name} must lie between 1 and {most:.4g}, the effective number of different points "
            f"among {len(x)} rows of x, got {rank:g}: give more rows, or the variance as a number"
        )

    def rank_at(variance: float) -> float:
        return _rank((distances / (-2 * variance)).exp())

    return _where_it_falls_to(rank, rank_at, float(distances.max()))


def _rank(gram: Tensor) -> float:
    return float(effective_rank(torch.linalg.eigvalsh(gram).clamp_min(0)))


def _where_it_falls_to(target: float, function: Callable[[float], float], start: float) -> float:
    """Return where a falling function of a positive number takes a value, by bisection."""
    low = high = start
    while function(low) < target:
        low /= 4
    while function(high) > target:
        high *= 4
    while high > (1 + _CLOSE) * low:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if function(middle) > target else (low, middle)
    return float((low * high) ** 0.5)


def _subset(x: Tensor, name: str, size: int, generator: torch.Generator | None) -> Tensor:
    """Return a random subset of ``size`` rows, an argument called ``name``."""
    if size < 2:
        raise InputError(f"{name} must be at least 2, to measure a distance, got {size}")
    if len(x) <= size:
        return x
    return x[torch.randperm(len(x), generator=generator, device=x.device)[:size]]


def _check_points(x: Tensor) -> Tensor:
    """Return ``x``, or refuse what is no matrix of two finite points at least."""
    if x.ndim != 2 or x.shape[1] == 0:
        raise InputError(
            f"x must have shape (n, d), one point in a row, got {tuple(x.shape)}: flatten images "
            "to rows, and give numbers as one column"
        )
    if not x.is_floating_point():
        raise InputError(f"x must hold floating-point numbers, got {x.dtype}: give x.float()")
    if len(x) < 2:
        raise InputError(f"x must hold at least two points to measure a distance, got {len(x)}")
    # A nan is both the least and the largest; a mask would take memory for every entry.
    if not all(bool(end.isfinite()) for end in x.aminmax()):
        raise InputError("x must be finite, but holds nan or infinite values: remove those rows")
    return x
