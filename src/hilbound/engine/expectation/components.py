r"""Gaussian components as plain tensors, for rows in which values may be missing.

A missing value is integrated out. For a Gaussian that means leaving its coordinate out of the mean
and of the covariance, so a row of which only the coordinates O are known has the log density

.. math:: \log \sum_k b_k N(x_O - m_{kO}; S_{kOO}).

The public mixtures have no gaps, and one covariance for each component; here thousands of
components may share one, which makes their densities a single matrix product.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Entries of an intermediate array that are held at a time: 8 MiB in float64.
_BLOCK_ENTRIES = 2**20
#: Twice the constant of a standard normal log density.
LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Components:
    r"""Weighted Gaussians; the weights need not sum to one.

    Args:
        means: Centres with shape ``(K, d)``.
        spread: Variances with shape ``(K, d)``, or covariances with shape ``(K, d, d)``. A leading
            axis of one stands for a spread that all of them share.
        log_weights: Logarithms of the weights, with shape ``(K,)``.

    >>> c = Components(torch.zeros(1, 2), torch.ones(1, 2), torch.zeros(1))
    >>> log_density(c, torch.tensor([[0.0, 0.0], [0.0, math.nan]]))
    tensor([-1.8379, -0.9189])
    """

    means: Tensor
    spread: Tensor
    log_weights: Tensor

    @property
    def full(self) -> bool:
        """Whether the components have covariances, not just variances."""
        return self.spread.ndim == 3

    @property
    def shared(self) -> bool:
        """Whether one spread serves all components."""
        return len(self.spread) == 1

    def weighted(self, log_factor: float) -> "Components":
        """Return the components with all weights multiplied by the same factor."""
        return Components(self.means, self.spread, self.log_weights + log_factor)

    def in_units(self, shift: Tensor, scale: Tensor) -> "Components":
        """Return the components of ``shift + scale * x``, both with shape ``(d,)``."""
        factor = scale[:, None] * scale if self.full else scale.square()
        return Components(shift + scale * self.means, self.spread * factor, self.log_weights)


def patterns(missing: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Group rows by what is missing in them.

    Args:
        missing: Flags with shape ``(n, d)``.

    Yields:
        The known coordinates of a group and the indices of its rows.
    """
    if not missing.any():
        yield torch.arange(missing.shape[1]), torch.arange(len(missing))
        return
    kinds, kind_of = missing.unique(dim=0, return_inverse=True)
    for number, kind in enumerate(kinds):
        yield (~kind).nonzero().squeeze(1), (kind_of == number).nonzero().squeeze(1)


def log_density(parts: Components | Sequence[Components], x: Tensor) -> Tensor:
    """Return log densities with shape ``(n,)`` of rows with shape ``(n, d)`` under all parts."""
    parts = [parts] if isinstance(parts, Components) else parts
    entries = max(c.means.numel() if c.full and not c.shared else len(c.means) for c in parts)
    blocks = x.split(max(1, _BLOCK_ENTRIES // entries))
    return torch.cat([_log_density(parts, block) for block in blocks])


def _log_density(parts: Sequence[Components], x: Tensor) -> Tensor:
    return torch.stack([log_joint(c, x).logsumexp(1) for c in parts]).logsumexp(0)


def log_joint(c: Components, x: Tensor) -> Tensor:
    """Return log weight plus log density of every component at every row, shape ``(n, K)``."""
    missing = x.isnan()
    if not c.full:
        return c.log_weights + _log_diagonal(c, x.nan_to_num(0.0), (~missing).to(x))
    result = x.new_empty(len(x), len(c.means))
    for known, rows in patterns(missing):
        sub = c if len(known) == x.shape[1] else _restrict(c, known)
        result[rows] = c.log_weights + _log_full(sub, x[rows][:, known])
    return result


def _restrict(c: Components, known: Tensor) -> Components:
    return Components(c.means[:, known], c.spread[:, known][:, :, known], c.log_weights)


def _log_diagonal(c: Components, x: Tensor, known: Tensor) -> Tensor:
    """Sum over the known coordinates by matrix products; unknown ones hold zero."""
    precision = c.spread.reciprocal()
    distance = (
        x.square() @ precision.mT
        - 2 * x @ (precision * c.means).mT
        + known @ (precision * c.means.square()).mT
    )
    return -0.5 * (distance.clamp_min(0) + known @ (c.spread.log() + LOG_2PI).mT)


def _log_full(c: Components, x: Tensor) -> Tensor:
    if 0 in x.shape:  # nothing is known: the density of nothing is one
        return x.new_zeros(len(x), len(c.means))
    factor = torch.linalg.cholesky(c.spread)
    half_log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    whiten = torch.linalg.solve_triangular(factor, eye.expand(factor.shape), upper=False)
    if c.shared:
        distance = squared_distances(x @ whiten[0].mT, c.means @ whiten[0].mT)
    else:
        centres = whiten @ c.means.unsqueeze(-1)
        distance = ((whiten @ x.mT) - centres).square().sum(1).mT
    log_densities: Tensor = -0.5 * (distance + x.shape[1] * LOG_2PI) - half_log_det
    return log_densities


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """Return squared distances with shape ``(n, m)`` of rows ``(n, d)`` and ``(m, d)``."""
    distances: Tensor = a.square().sum(1, keepdim=True) + b.square().sum(1) - 2 * (a @ b.mT)
    return distances.clamp_min(0)


def at_least(spread: Tensor, variance: float) -> Tensor:
    r"""Return covariances with a least variance in every direction.

    Of all covariances with no less than :math:`\varepsilon` in any direction, the one of greatest
    likelihood keeps the directions of the scatter :math:`V \operatorname{diag}(\lambda) V^T`:

    .. math:: V \operatorname{diag}(\max(\lambda, \varepsilon)) V^T

    Args:
        spread: Covariances with shape ``(*, d, d)``.
        variance: The least variance :math:`\varepsilon` in any direction.

    >>> at_least(torch.tensor([[1.0, 1.0], [1.0, 1.0]]), 0.5)
    tensor([[1.2500, 0.7500],
            [0.7500, 1.2500]])
    """
    eye = torch.eye(spread.shape[-1], dtype=spread.dtype)
    _, failed = torch.linalg.cholesky_ex(spread - variance * eye)
    low = failed > 0
    if not low.any():
        return spread
    values, vectors = torch.linalg.eigh(spread[low])
    lifted = spread.clone()
    lifted[low] = (vectors * values.clamp_min(variance).unsqueeze(-2)) @ vectors.mT
    return lifted


def log_inner(p: Sequence[Components], q: Sequence[Components]) -> Tensor:
    r"""Return :math:`\log \langle p, q \rangle`, a number, of mixtures given as parts."""
    pairs = [_log_inner(a, b) for a in p for b in q]
    return torch.stack(pairs).logsumexp(0)


def log_norm(q: Sequence[Components]) -> Tensor:
    r"""Return :math:`\log \langle q, q \rangle`, a number; each pair of parts counts twice."""
    pairs = [
        _log_inner(a, b) + (math.log(2) if i < j else 0.0)
        for j, b in enumerate(q)
        for i, a in enumerate(q[: j + 1])
    ]
    return torch.stack(pairs).logsumexp(0)


def _log_inner(a: Components, b: Components) -> Tensor:
    """Blur b by each spread of a: the product of two Gaussians is one at their distance."""
    if a.shared or len(a.spread) > len(b.spread) > 1:
        a, b = b, a
    means = [a.means] if a.shared else a.means.split(1)
    log_weights = [a.log_weights] if a.shared else a.log_weights.split(1)
    terms = []
    for m, spread, w in zip(means, a.spread, log_weights, strict=True):
        blurred = Components(b.means, _sum_spreads(b, spread), b.log_weights)
        terms.append((w + log_density(blurred, m)).logsumexp(0))
    return torch.stack(terms).logsumexp(0)


def _sum_spreads(b: Components, spread: Tensor) -> Tensor:
    own = torch.diag_embed(b.spread) if spread.ndim == 2 and not b.full else b.spread
    return own + (spread.diag() if spread.ndim == 1 and b.full else spread)


def blur(c: Components, variance: float) -> Components:
    """Return the components with a variance added in every direction."""
    added = c.spread.new_full((c.means.shape[1],), variance)
    return Components(c.means, _sum_spreads(c, added), c.log_weights)


def draw(parts: Sequence[Components], count: int, generator: torch.Generator) -> Tensor:
    """Draw rows with shape ``(count, d)`` from all parts as one mixture."""
    weights = torch.cat([c.log_weights for c in parts]).softmax(0)
    chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
    dim = parts[0].means.shape[1]
    noise = torch.randn(count, dim, generator=generator, dtype=weights.dtype)
    rows = torch.empty_like(noise)
    first = 0
    for c in parts:
        here = ((chosen >= first) & (chosen < first + len(c.means))).nonzero().squeeze(1)
        rows[here] = _displace(c, chosen[here] - first, noise[here])
        first += len(c.means)
    return rows


def _displace(c: Components, chosen: Tensor, noise: Tensor) -> Tensor:
    spread = c.spread[torch.zeros_like(chosen) if c.shared else chosen]
    if not c.full:
        return c.means[chosen] + spread.sqrt() * noise
    factor: Tensor = torch.linalg.cholesky(spread)
    return c.means[chosen] + (factor @ noise.unsqueeze(-1)).squeeze(-1)
