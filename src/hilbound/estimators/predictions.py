"""What is read off predicted mixtures: quantiles, probabilities, scores and samples."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hilbound.estimators.frames import Floats
from hilbound.mixture import GaussianMixture

_NUMBERS = 1 << 22  # held at once


def quantiles(q: GaussianMixture, alpha: Floats) -> Floats:
    """Return quantiles of every target by itself, with shape ``(n, len(alpha), d)``.

    Args:
        q: Mixtures with batch shape ``(n,)``.
        alpha: Probabilities with shape ``(a,)``.
    """
    levels = torch.from_numpy(alpha)[:, None]
    result = np.empty((q.batch_shape[0], len(alpha), q.dim))
    for rows, part in _blocks(q, len(alpha)):
        for i in range(q.dim):
            result[rows, :, i] = part.marginal([i]).icdf(levels).squeeze(-1).T.numpy()
    # Two levels may meet in one float, and rounding must not swap them.
    order = np.argsort(alpha, kind="stable")
    result[:, order] = np.maximum.accumulate(result[:, order], axis=1)
    return result


def probabilities(q: GaussianMixture, y: Floats) -> Floats:
    """Return the probability of values no larger than ``y``, for every target, shape ``(n, d)``."""
    points = torch.from_numpy(y)
    parts = [q.marginal([i]).cdf(points[:, i : i + 1]) for i in range(q.dim)]
    return torch.stack(parts, 1).numpy()


def distances(q: GaussianMixture, y: Floats) -> Floats:
    r"""Return the mean distance from ``y`` of every target, with shape ``(n, d)``.

    .. math:: E|X - y| = \sum_k b_k A(y - m_k, v_k),
        \qquad A(m, v) = m (2 \Phi(m / \sqrt v) - 1) + 2 \sqrt v \varphi(m / \sqrt v)

    Args:
        q: Mixtures with batch shape ``(n,)``.
        y: Targets with shape ``(n, d)``.
    """
    points, result = torch.from_numpy(y), np.empty(y.shape)
    for rows, part in _blocks(q, q.dim):
        to_point = _mean_distance(points[rows].unsqueeze(-2) - part.means, _variance(part))
        result[rows] = torch.einsum("nk,nkd->nd", part.weights, to_point).numpy()
    return result


def spreads(q: GaussianMixture) -> Floats:
    r"""Return the mean distance between two draws of every target, with shape ``(n, d)``.

    .. math:: E|X - X'| = \sum_{kl} b_k b_l A(m_k - m_l, v_k + v_l)

    Args:
        q: Mixtures with batch shape ``(n,)``; A is as in :func:`distances`.
    """
    result = np.empty((q.batch_shape[0], q.dim))
    for rows, part in _blocks(q, q.components):
        for i in range(q.dim):
            m, v = part.means[..., i], _variance(part)[..., i]
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


def draws(q: GaussianMixture, count: int, generator: torch.Generator) -> Floats:
    """Return samples with shape ``(n, count, d)`` of mixtures with batch shape ``(n,)``."""
    parts = [
        part.rsample((count,), generator=generator).movedim(0, 1) for _, part in _blocks(q, count)
    ]
    return torch.cat(parts).numpy()


def _variance(q: GaussianMixture) -> Tensor:
    return q.component_variance.expand_as(q.means)


def _mean_distance(m: Tensor, v: Tensor) -> Tensor:
    """Return E|x| for a Gaussian x with mean ``m`` and variance ``v``."""
    deviation = v.sqrt()
    z = m / deviation
    density = (-0.5 * z.square()).exp() * math.sqrt(2 / math.pi)
    distance: Tensor = m * torch.special.erf(z * math.sqrt(0.5)) + deviation * density
    return distance


def _blocks(q: GaussianMixture, copies: int) -> Iterator[tuple[slice, GaussianMixture]]:
    """Yield some rows at a time, so that ``copies`` numbers for each component fit in memory."""
    n, size = q.batch_shape[0], max(1, _NUMBERS // (q.components * max(copies, 1)))
    v = _variance(q)
    for start in range(0, n, size):
        rows = slice(start, start + size)
        yield rows, GaussianMixture(q.means[rows], v[rows], q.weights[rows], validate_args=False)
