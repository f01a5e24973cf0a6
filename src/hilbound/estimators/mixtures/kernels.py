r"""Kernel density estimates whose covariances are fitted by leaving each row out.

Every row j has a Gaussian around it, with the covariance of its group c(j). The leave-one-out
likelihood :math:`\prod_i \sum_{j \ne i} N(x_i - x_j; S_{c(j)})` has a maximum in the covariances,
and expectation-maximisation climbs it: with posterior weights :math:`r_{ij}` of the other rows,

.. math:: S_c \leftarrow \frac{\sum_{i,\, j \in c} r_{ij} (x_i - x_j)(x_i - x_j)^T + k S}
    {\sum_{i,\, j \in c} r_{ij} + k},

where S is the mean over all groups and k how many rows it counts as; lifted where it has less than
the least variance. With one group this is Bowman's choice of the one covariance of all kernels.

References:
    An alternative method of cross-validation for the smoothing of density estimates (Bowman, 1984);
    Fully adaptive kernel bandwidths by expectation-maximisation for the leave-one-out likelihood
    (Leiva-Murillo and Artés-Rodríguez, 2012).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hilbound.engine.expectation.components import (
    LOG_2PI,
    Components,
    at_least,
    squared_distances,
)

_STEPS = 20
_PAIRS = 1_000_000  # pairs of rows that a step looks at, for one group
_BLOCK_ENTRIES = 2**17


@dataclass(frozen=True)
class Kernels:
    """A Gaussian around every row, with a covariance for each group of rows.

    Args:
        x: Rows with shape ``(n, d)``, nothing missing.
        groups: Indices of the rows of each group; every row is in one.
        covariances: Those of the groups, with shape ``(C, d, d)``.
        full: Whether they lean; otherwise they are multiples of the unit matrix.
    """

    x: Tensor
    groups: list[Tensor]
    covariances: Tensor
    full: bool = True

    def scaled(self, factor: float, floor: float) -> "Kernels":
        """Return the kernels with all covariances multiplied, none below the least variance."""
        return replace(self, covariances=at_least(factor * self.covariances, floor))

    def components(self) -> list[Components]:
        """Return the mixture of all kernels, a part for each group, weights summing to one."""
        log_weight = -math.log(len(self.x))
        spreads = self.covariances if self.full else self.covariances.diagonal(dim1=-2, dim2=-1)
        return [
            Components(self.x[rows], spread, self.x.new_full((len(rows),), log_weight))
            for rows, spread in zip(self.groups, spreads.split(1), strict=True)
        ]

    def without(self, gone: Tensor) -> "Kernels":
        """Return the kernels around the rows that a mask with shape ``(n,)`` does not name."""
        place = (~gone).cumsum(0) - 1
        groups = [place[rows[~gone[rows]]] for rows in self.groups]
        there = [number for number, rows in enumerate(groups) if len(rows)]
        return replace(
            self,
            x=self.x[~gone],
            groups=[groups[number] for number in there],
            covariances=self.covariances[there],
        )

    def leave_one_out(self, queries: Tensor) -> Tensor:
        """Return log densities with shape ``(m,)`` of m of its rows under the kernels of others."""
        blocks = [self.log_kernels(block).logsumexp(1) for block in self._blocks(queries)]
        return torch.cat(blocks) - 0.5 * self.x.shape[1] * LOG_2PI - math.log(len(self.x) - 1)

    def log_kernels(self, queries: Tensor) -> Tensor:
        """Return, but for the constant, what every kernel says of some rows, shape ``(m, n)``.

        What a kernel says of its own row is left out: minus infinity.
        """
        result = self.x.new_empty(len(queries), len(self.x))
        factors = torch.linalg.cholesky(self.covariances)
        for rows, factor in zip(self.groups, factors, strict=True):
            own, asked = (_whiten(self.x[some], factor) for some in (rows, queries))
            half_log_det = factor.diagonal().log().sum()
            result[:, rows] = -0.5 * squared_distances(asked, own) - half_log_det
        result[torch.arange(len(queries)), queries] = -math.inf
        return result

    def step(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scatter around each group's rows, ``(C, d, d)``, and its weight, ``(C,)``."""
        scatter, count = torch.zeros_like(self.covariances), self.x.new_zeros(len(self.groups))
        for block in self._blocks(queries):
            posterior = self.log_kernels(block).softmax(1)
            for number, rows in enumerate(self.groups):
                r, asked, own = posterior[:, rows], self.x[block], self.x[rows]
                cross = asked.mT @ (r @ own)
                squares = _weighted(asked, r.sum(1)) + _weighted(own, r.sum(0))
                scatter[number] += squares - cross - cross.mT
                count[number] += r.sum()
        return scatter, count

    def _blocks(self, queries: Tensor) -> tuple[Tensor, ...]:
        return queries.split(max(1, _BLOCK_ENTRIES // len(self.x)))


def _whiten(x: Tensor, factor: Tensor) -> Tensor:
    solved: Tensor = torch.linalg.solve_triangular(factor, x.mT, upper=False)
    return solved.mT


def _weighted(x: Tensor, weight: Tensor) -> Tensor:
    return x.mT @ (weight.unsqueeze(1) * x)


def fit_kernels(
    x: Tensor,
    queries: Tensor,
    floor: float,
    *,
    full: bool = True,
    groups: list[Tensor] | None = None,
    shrinkage: float = 0.0,
) -> Kernels:
    """Fit the covariances of kernels.

    Args:
        x: Rows with shape ``(n, d)``, at least two, nothing missing.
        queries: Indices of the rows that are left out in turn; the first of them vote, fewer
            where there are many rows.
        floor: The least variance in any direction.
        full: Whether kernels may lean; otherwise they are multiples of the unit matrix.
        groups: Indices of the rows that share a covariance; all do by default.
        shrinkage: Rows' worth k of the mean over all groups.

    >>> x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    >>> fit_kernels(x, torch.arange(2), 0.0).covariances
    tensor([[[1.]]], dtype=torch.float64)
    """
    n, dim = x.shape
    groups = [torch.arange(n)] if groups is None else groups
    scatter: Tensor = torch.cov(x.mT).reshape(1, dim, dim) * n ** (-2 / (dim + 4))
    start = at_least(scatter, floor).expand(len(groups), -1, -1)
    kernels = Kernels(x, groups, start, full)
    queries = queries[: max(1, _PAIRS * min(4, len(groups)) // n)]
    for _ in range(_STEPS):
        scatter, count = kernels.step(queries)
        common = scatter.sum(0) / count.sum()
        fitted = (scatter + shrinkage * common) / (count + shrinkage)[:, None, None]
        covariances = at_least(fitted if full else _round(fitted), floor)
        kernels = replace(kernels, covariances=covariances)
    return kernels


def _round(covariances: Tensor) -> Tensor:
    dim = covariances.shape[-1]
    variance = covariances.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    return variance * torch.eye(dim, dtype=covariances.dtype)


def kernel_components(x: Tensor, variance: float) -> Components:
    """Return a round kernel around every row of ``(n, d)``, all with one variance and weight."""
    spread = x.new_full((1, x.shape[1]), variance)
    return Components(x, spread, x.new_full((len(x),), -math.log(len(x))))
