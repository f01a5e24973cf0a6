r"""How good predicted densities are: scores, and whether their probabilities can be trusted.

A prediction for ``n`` rows is a batch of ``n`` mixtures :math:`q_i`. With the targets that came,

- the log score :math:`\log q_i(y_i)` rewards a density that is high where the target falls;
- the CRPS says how far off the whole distribution is, in the target's units;
- the PIT value :math:`u_i = F_i(y_i)` is uniform on [0, 1] where the probabilities are right.
  :math:`y_i` lies in the central interval of probability :math:`c` where
  :math:`|2 u_i - 1| \le c`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture

Floats = NDArray[np.float64]

_NUMBERS = 1 << 22  # held at once
_MOST_COMPONENTS = 200  # of a smoothed histogram


def log_scores(q: GaussianMixture, y: Floats) -> Floats:
    """Return the log density of every row's targets together, with shape ``(n,)``.

    Args:
        q: Mixtures with batch shape ``(n,)`` in ``d`` coordinates.
        y: Targets with shape ``(n, d)``.
    """
    scores: Floats = q.log_prob(_points(y)).numpy()
    return scores


def _points(y: Floats) -> Tensor:
    """Return targets as a tensor; what pandas gives may be read-only, which torch warns of."""
    return torch.from_numpy(np.require(y, np.float64, "W"))


def pit_values(q: GaussianMixture, y: Floats) -> Floats:
    """Return the probability of values no larger than ``y``, for every target by itself.

    Args:
        q: Mixtures with batch shape ``(n,)`` in ``d`` coordinates.
        y: Targets with shape ``(n, d)``.

    Returns:
        Probabilities with shape ``(n, d)``; over many rows they are uniform on [0, 1] if the
        predictions are calibrated.

    References:
        Statistical theory: the prequential approach (Dawid, 1984).

    >>> q = GaussianMixture(torch.zeros(2, 1, 1), 1.0)
    >>> pit_values(q, np.array([[0.0], [9.0]])).round(3).tolist()
    [[0.5], [1.0]]
    """
    points = _points(y)
    parts = [q.marginal([i]).cdf(points[:, i : i + 1]) for i in range(q.dim)]
    return torch.stack(parts, 1).numpy()


def coverage(pit: Floats, levels: Sequence[float]) -> Floats:
    """Return the share of targets in their central intervals.

    Args:
        pit: PIT values with shape ``(n, d)``.
        levels: Probabilities of the intervals.

    Returns:
        Shares with shape ``(len(levels), d)``.

    >>> coverage(np.array([[0.02], [0.3], [0.6], [0.9]]), [0.5, 0.9]).tolist()
    [[0.5], [0.75]]
    """
    # A target on the very end of its interval is inside, whatever rounding does.
    off_centre = np.abs(2 * pit - 1)
    return np.stack([(off_centre <= level + 1e-12).mean(0) for level in levels])


def distances(q: GaussianMixture, y: Floats) -> Floats:
    r"""Return the mean distance from ``y`` of every target, with shape ``(n, d)``.

    .. math:: E|X - y| = \sum_k b_k A(y - m_k, v_k),
        \qquad A(m, v) = m (2 \Phi(m / \sqrt v) - 1) + 2 \sqrt v \varphi(m / \sqrt v)

    Args:
        q: Mixtures with batch shape ``(n,)``.
        y: Targets with shape ``(n, d)``.
    """
    points, result = _points(y), np.empty(y.shape)
    for rows, part in row_blocks(q, q.dim):
        gap = points[rows].unsqueeze(-2) - part.means
        to_point = _mean_distance(gap, part.component_variance.expand_as(part.means))
        result[rows] = torch.einsum("nk,nkd->nd", part.weights, to_point).numpy()
    return result


def spreads(q: GaussianMixture) -> Floats:
    r"""Return the mean distance between two draws of every target, with shape ``(n, d)``.

    .. math:: E|X - X'| = \sum_{kl} b_k b_l A(m_k - m_l, v_k + v_l)

    Args:
        q: Mixtures with batch shape ``(n,)``; A is as in :func:`distances`.
    """
    result = np.empty((q.batch_shape[0], q.dim))
    for rows, part in row_blocks(q, q.components):
        for i in range(q.dim):
            m, v = part.means[..., i], part.component_variance.expand_as(part.means)[..., i]
            gap, spread = m.unsqueeze(-1) - m.unsqueeze(-2), v.unsqueeze(-1) + v.unsqueeze(-2)
            pairs = _mean_distance(gap, spread)
            within = torch.einsum("nk,nkl,nl->n", part.weights, pairs, part.weights)
            result[rows, i] = within.numpy()
    return result


def crps(q: GaussianMixture, y: Floats) -> Floats:
    r"""Return the continuous ranked probability score of every target, with shape ``(n, d)``.

    .. math:: E|X - y| - \tfrac12 E|X - X'|

    Args:
        q: Mixtures with batch shape ``(n,)``.
        y: Targets with shape ``(n, d)``.

    References:
        The CRPS of a mixture of normal distributions (Grimit, Gneiting, Berrocal, Johnson, 2006).
    """
    return distances(q, y) - 0.5 * spreads(q)


def _mean_distance(m: Tensor, v: Tensor) -> Tensor:
    """Return E|x| for a Gaussian x with mean ``m`` and variance ``v``."""
    deviation = v.sqrt()
    z = m / deviation
    density = (-0.5 * z.square()).exp() * math.sqrt(2 / math.pi)
    distance: Tensor = m * torch.special.erf(z * math.sqrt(0.5)) + deviation * density
    return distance


def row_blocks(q: GaussianMixture, copies: int) -> Iterator[tuple[slice, GaussianMixture]]:
    """Yield some rows at a time, so that ``copies`` numbers for each component fit in memory."""
    n, size = q.batch_shape[0], max(1, _NUMBERS // (q.components * max(copies, 1)))
    v = q.component_variance.expand_as(q.means)
    for start in range(0, n, size):
        rows = slice(start, start + size)
        yield rows, GaussianMixture(q.means[rows], v[rows], q.weights[rows], validate_args=False)


# ------------------------------------------------------------------ without the other columns


def one_gaussian(y: Floats, n: int) -> GaussianMixture:
    """Return ``n`` times the Gaussian with the mean and variance of ``y``, a baseline.

    Args:
        y: Training values of one target, with shape ``(m,)``.
        n: Rows to predict.

    >>> q = one_gaussian(np.array([0.0, 2.0]), 3)
    >>> q.batch_shape, float(q.mean[0]), float(q.variance[0])
    (torch.Size([3]), 1.0, 1.0)
    """
    return _repeated(np.array([y.mean()]), np.array([y.var()]), n)


def smoothed_histogram(y: Floats, n: int) -> GaussianMixture:
    r"""Return ``n`` times a smoothed histogram of ``y``, a baseline of any shape.

    Gaussians of equal weight stand at up to 200 quantiles, with the deviation
    :math:`0.9 \min(\sigma, \text{IQR} / 1.34)\, m^{-1/5}`. A share :math:`1 / (m + 1)` belongs to
    one Gaussian around all values, so that a value outside the histogram costs a finite score.

    Args:
        y: Training values of one target, with shape ``(m,)``.
        n: Rows to predict.

    References:
        Density estimation for statistics and data analysis (Silverman, 1986).

    >>> smoothed_histogram(np.arange(500.0), 2).means.shape
    torch.Size([2, 201, 1])
    """
    m, k = len(y), min(len(y), _MOST_COMPONENTS)
    at = np.quantile(y, (np.arange(k) + 0.5) / k)
    low, high = np.quantile(y, [0.25, 0.75])
    spread = min(float(y.std()), (high - low) / 1.34) or float(y.std())
    means = np.append(at, y.mean())
    variance = np.append(np.full(k, (0.9 * spread * m**-0.2) ** 2), y.var())
    return _repeated(means, variance, n, np.append(np.full(k, m / k), 1.0))


def _repeated(
    means: Floats, variance: Floats, n: int, weights: Floats | None = None
) -> GaussianMixture:
    centres, spread = (torch.from_numpy(a)[None, :, None] for a in (means, variance))
    share = None if weights is None else torch.from_numpy(weights).expand(n, -1)
    return GaussianMixture(centres.expand(n, -1, 1), spread, share, validate_args=False)


# ------------------------------------------------------------------ which columns matter


@dataclass(frozen=True)
class Importance:
    """What a column is worth.

    Attributes:
        name: The column.
        drop: By how much the mean log score falls when the column's values are shuffled, in nats.
        error: Its standard error over the rows.
    """

    name: str
    drop: float
    error: float


def permutation_importance(
    score: Callable[[str, NDArray[np.int64]], Floats],
    names: Sequence[str],
    n: int,
    *,
    repeats: int,
    generator: torch.Generator,
) -> list[Importance]:
    """Return by how much the log score falls for every column whose values are shuffled.

    A column whose news another column brings as well is worth little by this measure.

    Args:
        score: Gives the log scores, with shape ``(n,)``, of the rows in which the values of the
            named column stand in the order of the row numbers.
        names: The columns.
        n: The number of rows, two at least.
        repeats: How often each column is shuffled.
        generator: Where the orders come from.

    Returns:
        One entry for each column, the most important first.

    Raises:
        InputError: If there is no column, or fewer than two rows.

    References:
        Random forests (Breiman, 2001).
    """
    if not names or n < 2:
        raise InputError(
            f"importance needs a column and two rows, got {len(names)} columns and {n} rows"
        )
    whole = score(names[0], np.arange(n))
    found = []
    for name in names:
        drop = np.zeros(n)
        for _ in range(repeats):
            drop += whole - score(name, torch.randperm(n, generator=generator).numpy())
        drop /= repeats
        error = float(drop.std(ddof=1)) / math.sqrt(n)
        found.append(Importance(name, float(drop.mean()), error))
    return sorted(found, key=lambda one: -one.drop)
