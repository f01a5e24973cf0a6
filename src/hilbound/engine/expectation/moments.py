r"""The E-step: expected sums over rows of which something may be missing.

With the known coordinates O of a row and the precision :math:`Q = S_{OO}^{-1}`, filled up with
zeros to all coordinates, component k expects the row

.. math:: \hat x = m + S Q (x - m), \qquad C = S - S Q S

with conditional covariance C of its gaps; where the row is known, :math:`\hat x = x` and C is zero.
A frequent pattern of gaps is a few large matrix products; rare patterns are done all at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hilbound.engine.expectation.components import LOG_2PI, Components, log_joint, patterns

_ROWS = 2048  # rows whose products are held at a time
_RARE = 32  # fewer rows of a pattern than this are done together with those of others
_BLOCK_ENTRIES = 2**21


@dataclass
class Moments:
    """Sums over rows.

    Args:
        count: Posterior weights, with shape ``(K,)``.
        first: Weighted rows, with shape ``(K, d)``.
        second: Weighted squares with shape ``(K, d)``, or products with shape ``(K, d, d)``.
        log_likelihood: Log densities, a number.
    """

    count: Tensor
    first: Tensor
    second: Tensor
    log_likelihood: Tensor

    @classmethod
    def zeros(cls, c: Components) -> "Moments":
        """Return sums over no rows."""
        count, dim = c.means.shape
        shape = (count, dim, dim) if c.full else (count, dim)
        new = c.means.new_zeros
        return cls(new(count), new(count, dim), new(shape), new(()))

    def add(self, other: "Moments") -> None:
        """Add sums over other rows."""
        self.count += other.count
        self.first += other.first
        self.second += other.second
        self.log_likelihood += other.log_likelihood


def expect(x: Tensor, c: Components) -> Moments:
    """Return the expected moments of rows with shape ``(n, d)``; a missing value is NaN.

    >>> c = Components(torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.zeros(1))
    >>> expect(torch.tensor([[torch.nan]]), c).second
    tensor([[3.]])
    """
    total = Moments.zeros(c)
    if not c.full:
        for block in x.split(_ROWS):
            total.add(_diagonal(block, c))
        return total
    rare = []
    for known, rows in patterns(x.isnan()):
        if len(known) < x.shape[1] and len(rows) < _RARE:
            rare.append(rows)
            continue
        for some in rows.split(_ROWS):
            total.add(_one_pattern(x[some], known, c))
    if rare:
        at_once = max(1, _BLOCK_ENTRIES // c.spread.numel())
        for block in torch.cat(rare).split(at_once):
            total.add(_many_patterns(x[block], c))
    return total


def _posterior(joint: Tensor) -> tuple[Tensor, Tensor]:
    """Return posterior weights ``(n, K)`` and the sum of the log densities."""
    density = joint.logsumexp(1, keepdim=True)
    return (joint - density).exp(), density.sum()


def _diagonal(x: Tensor, c: Components) -> Moments:
    r, log_likelihood = _posterior(log_joint(c, x))
    filled, unknown = x.nan_to_num(0.0), x.isnan().to(x)
    lost = r.mT @ unknown
    first = r.mT @ filled + lost * c.means
    second = r.mT @ filled.square() + lost * (c.means.square() + c.spread)
    return Moments(r.sum(0), first, second, log_likelihood)


def _one_pattern(x: Tensor, known: Tensor, c: Components) -> Moments:
    r, log_likelihood = _posterior(log_joint(c, x))
    n, dim = x.shape
    if len(known) == dim:
        products = (x.unsqueeze(2) * x.unsqueeze(1)).reshape(n, dim * dim)
        second = (r.mT @ products).reshape(-1, dim, dim)
        return Moments(r.sum(0), r.mT @ x, second, log_likelihood)
    slope, left = _regression(torch.zeros(dim, dtype=x.dtype).index_fill(0, known, 1.0), c)
    apart = (x - c.means.unsqueeze(1)).nan_to_num(0.0)
    filled = torch.where(x.isnan(), c.means.unsqueeze(1) + apart @ slope.mT, x)
    weighted = r.mT.unsqueeze(2) * filled
    second = weighted.mT @ filled + r.sum(0)[:, None, None] * left
    return Moments(r.sum(0), weighted.sum(1), second, log_likelihood)


def _many_patterns(x: Tensor, c: Components) -> Moments:
    kinds, kind_of = x.isnan().unique(dim=0, return_inverse=True)
    known = (~kinds).to(x)
    factor, precision = _precision(known, c)
    half_log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    apart = (x.unsqueeze(1) - c.means).nan_to_num(0.0).unsqueeze(-1)
    scaled = precision[kind_of] @ apart
    distance = (apart * scaled).sum((-2, -1)) + known.sum(1)[kind_of].unsqueeze(1) * LOG_2PI
    r, log_likelihood = _posterior(c.log_weights - 0.5 * distance - half_log_det[kind_of])
    filled = c.means + (c.spread @ scaled).squeeze(-1)
    filled = torch.where(x.isnan().unsqueeze(1), filled, x.unsqueeze(1))
    left = _left(precision, known, c)
    per_kind = torch.zeros(len(kinds), r.shape[1], dtype=x.dtype).index_add(0, kind_of, r)
    weighted = (r.unsqueeze(2) * filled).movedim(0, 1)
    second = weighted.mT @ filled.movedim(0, 1) + (per_kind[..., None, None] * left).sum(0)
    return Moments(r.sum(0), weighted.sum(1), second, log_likelihood)


def _precision(known: Tensor, c: Components) -> tuple[Tensor, Tensor]:
    """Return Cholesky factors and inverses of what is known, ``(*, K, d, d)``.

    Unknown coordinates are ones on the diagonal of the factor and zeros of the inverse.
    """
    both = (known.unsqueeze(-1) * known.unsqueeze(-2)).unsqueeze(-3)
    factor = torch.linalg.cholesky(c.spread * both + torch.diag_embed(1 - known).unsqueeze(-3))
    eye = torch.eye(known.shape[-1], dtype=known.dtype)
    root = torch.linalg.solve_triangular(factor, eye.expand(factor.shape), upper=False)
    return factor, (root.mT @ root) * both


def _left(precision: Tensor, known: Tensor, c: Components) -> Tensor:
    """Return the conditional covariances of the gaps, ``(*, K, d, d)``."""
    gaps = ((1 - known).unsqueeze(-1) * (1 - known).unsqueeze(-2)).unsqueeze(-3)
    left: Tensor = (c.spread - c.spread @ precision @ c.spread) * gaps
    return left


def _regression(known: Tensor, c: Components) -> tuple[Tensor, Tensor]:
    """Return what known coordinates say about all, and what they leave open, ``(K, d, d)``."""
    _, precision = _precision(known, c)
    return c.spread @ precision, _left(precision, known, c)
