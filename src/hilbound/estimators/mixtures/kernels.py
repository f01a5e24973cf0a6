r"""Kernel density estimates whose one covariance is fitted by leaving each row out.

With a Gaussian of covariance S around every row, the leave-one-out likelihood
:math:`\prod_i \sum_{j \ne i} N(x_i - x_j; S)` has a maximum in S, and expectation-maximisation
climbs it: with posterior weights :math:`r_{ij}` of the other rows,
:math:`S \leftarrow \frac1n \sum_{ij} r_{ij} (x_i - x_j)(x_i - x_j)^T`. Where S has less than
the least variance in some direction it gets as much there, and stays as it is elsewhere.

References:
    An alternative method of cross-validation for the smoothing of density estimates (Bowman, 1984);
    Fully adaptive kernel bandwidths by expectation-maximisation for the leave-one-out likelihood
    (Leiva-Murillo and Artés-Rodríguez, 2012).
"""

import math

import torch
from torch import Tensor

from hilbound.engine.expectation.components import (
    LOG_2PI,
    Components,
    at_least,
    squared_distances,
)

_STEPS = 20
_PAIRS = 1_000_000  # pairs of rows that a step looks at
_BLOCK_ENTRIES = 2**17


def fit_kernel(x: Tensor, queries: Tensor, floor: float, *, full: bool) -> Tensor:
    """Return the covariance of the kernel, with shape ``(d, d)``.

    Args:
        x: Rows with shape ``(n, d)``, at least two, nothing missing.
        queries: Indices of the rows that are left out in turn; the first of them vote, fewer
            where there are many rows.
        floor: The least variance in any direction.
        full: Whether the kernel may lean; otherwise it is a multiple of the unit matrix.

    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> fit_kernel(x, torch.arange(2), 0.0, full=True)
    tensor([[1.]], dtype=torch.float64)
    """
    n, dim = x.shape
    covariance = at_least(torch.cov(x.mT).reshape(dim, dim) * n ** (-2 / (dim + 4)), floor)
    queries = queries[: max(1, _PAIRS // n)]
    for _ in range(_STEPS):
        step = _step(x, queries, covariance)
        covariance = at_least(step if full else _round(step), floor)
    return covariance


def _round(covariance: Tensor) -> Tensor:
    return covariance.diagonal().mean() * torch.eye(len(covariance), dtype=covariance.dtype)


def _step(x: Tensor, queries: Tensor, covariance: Tensor) -> Tensor:
    total = torch.zeros_like(covariance)
    whitened = _whiten(x, covariance)
    for block in queries.split(max(1, _BLOCK_ENTRIES // len(x))):
        r = (-0.5 * _distances(whitened, block)).softmax(1)
        cross = x[block].mT @ (r @ x)
        own = x[block].mT @ x[block] + x.mT @ (r.sum(0).unsqueeze(1) * x)
        total += own - cross - cross.mT
    return total / len(queries)


def _whiten(x: Tensor, covariance: Tensor) -> Tensor:
    factor = torch.linalg.cholesky(covariance)
    solved: Tensor = torch.linalg.solve_triangular(factor, x.mT, upper=False)
    return solved.mT


def _distances(whitened: Tensor, rows: Tensor) -> Tensor:
    """Return squared distances of some rows from all, infinite from themselves."""
    distances = squared_distances(whitened[rows], whitened)
    distances[torch.arange(len(rows)), rows] = math.inf
    return distances


def leave_one_out(x: Tensor, queries: Tensor, covariance: Tensor) -> Tensor:
    """Return log densities of rows under the kernels of all others.

    Args:
        x: Rows with shape ``(n, d)``.
        queries: Indices of m of them.
        covariance: Covariance of the kernel, with shape ``(d, d)``.

    Returns:
        Log densities with shape ``(m,)``.
    """
    n, dim = x.shape
    whitened = _whiten(x, covariance)
    log_det = float(torch.linalg.slogdet(covariance).logabsdet)
    blocks = [
        (-0.5 * _distances(whitened, block)).logsumexp(1)
        for block in queries.split(max(1, _BLOCK_ENTRIES // n))
    ]
    return torch.cat(blocks) - 0.5 * (log_det + dim * LOG_2PI) - math.log(n - 1)


def kernel_components(x: Tensor, spread: Tensor) -> Components:
    """Return a component around every row, all with the same spread and weight.

    Args:
        x: Rows with shape ``(n, d)``.
        spread: Variances with shape ``(d,)``, or a covariance with shape ``(d, d)``.
    """
    log_weights = x.new_full((len(x),), -math.log(len(x)))
    return Components(x, spread.unsqueeze(0), log_weights)
