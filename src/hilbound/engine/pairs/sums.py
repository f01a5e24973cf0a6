r"""Sums over all pairs of components, computed tile by tile together with their gradients.

The logarithms of double sums

.. math:: L = \log \sum_{ij} a_i b_j \langle p_i, q_j \rangle, \qquad
    L_i = \log \sum_j b_j \langle p_i, q_j \rangle

have the gradients :math:`\partial L / \partial E_{ij} = e^{E_{ij} - L}` by the exponents E of
:mod:`hilbound.engine.pairs.tiles`. L is one number for all pairs. While the sum is incomplete, a
running constant replaces L, and the result is divided by the total at the end. So no pair is
visited twice.

- :func:`log_inner` takes three matrix products and one exponential for value and gradient.
- :func:`log_norm` takes half of that, because its pairs are symmetric.
- :func:`mean_log_row_sum` forms its gradient in the same way, because :math:`L_i` needs only row i.
- :func:`log_row_sums` computes each tile again, because the weights of its rows are known only in
  the backward pass.

Tiles are summed in the points' precision, and the sums of tiles in float64. Memory is O(N + M +
tile). Second derivatives come from the plain sums of :mod:`hilbound.engine.gram`.

References:
    The approach of streaming a log-sum-exp: Online normalizer calculation for softmax (Milakov and
    Gimelshein, 2018). Recomputation of tiles: FlashAttention: Fast and Memory-Efficient Exact
    Attention with IO-Awareness (Dao, Fu, Ermon, Rudra and Ré, 2022).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hilbound.engine import gram
from hilbound.engine.gram import PLAIN_UNIT
from hilbound.engine.pairs.operators import (
    log_mean_operator,
    norm_operator,
    pair_operator,
    row_operator,
)
from hilbound.engine.pairs.tiles import Side


def log_inner(p: Side, q: Side, *, unit: float = PLAIN_UNIT) -> Tensor:
    r"""Return :math:`\log \sum_{ij} a_i b_j \langle p_i, q_j \rangle`, with shape ``(*)``.

    Args:
        p: Means with shape ``(*, N, d)``, variances with shape ``(*, N or 1, d or 1)``, and
            logarithms of weights with shape ``(*, N)``.
        q: The same of M components.
        unit: See :func:`hilbound.engine.gram.log_inner_products`.

    >>> p = Side(torch.zeros(1, 2), torch.full((1, 1), 0.5), torch.zeros(1))
    >>> (log_inner(p, p).exp() * 2 * math.pi).round(decimals=4)
    tensor(1.)
    """
    if not _is_simple(p.variance, q.variance):
        rows = gram.log_row_sums(p.means, p.variance, *q, unit=unit)
        return torch.logsumexp(rows + p.log_weights, -1)
    batch = _batch(*p, *q)
    p, q, in_unit, volume = _isotropic(p, q, unit)
    return pair_operator(_flat(batch, *p, *q), in_unit).reshape(batch) - volume


def log_norm(p: Side, *, unit: float = PLAIN_UNIT) -> Tensor:
    r"""Return :math:`\log \sum_{ij} a_i a_j \langle p_i, p_j \rangle`, with shape ``(*)``.

    Args:
        p: See :func:`log_inner`.
        unit: See :func:`hilbound.engine.gram.log_inner_products`.

    >>> p = Side(torch.zeros(1, 2), torch.full((1, 1), 0.5), torch.zeros(1))
    >>> (log_norm(p).exp() * 2 * math.pi).round(decimals=4)
    tensor(1.)
    """
    if not _is_simple(p.variance, p.variance):
        return log_inner(p, p, unit=unit)
    batch = _batch(*p)
    p, _, in_unit, volume = _isotropic(p, p, unit)
    return norm_operator(_flat(batch, *p), in_unit).reshape(batch) - volume


def log_row_sums(x: Tensor, v: Tensor, q: Side, *, unit: float = PLAIN_UNIT) -> Tensor:
    r"""Return :math:`\log \sum_j b_j \langle p_i, q_j \rangle` for every row, shape ``(*, N)``.

    Args:
        x: Means with shape ``(*, N, d)``.
        v: Their variances with shape ``(*, N or 1, d or 1)``.
        q: See :func:`log_inner`.
        unit: See :func:`hilbound.engine.gram.log_inner_products`.
    """
    if not _is_simple(v, q.variance):
        return gram.log_row_sums(x, v, *q, unit=unit)
    batch = _batch(x, v, *q)
    p, q, in_unit, volume = _isotropic(Side(x, v, x[..., 0]), q, unit)
    sums = row_operator(_flat(batch, *p[:2], *q), in_unit)
    return sums.reshape((*batch, x.shape[-2])) - volume.unsqueeze(-1)


def mean_log_row_sum(x: Tensor, v: Tensor, q: Side, *, unit: float = PLAIN_UNIT) -> Tensor:
    r"""Return :math:`\frac1N \sum_i \log \sum_j b_j \langle p_i, q_j \rangle`, with shape ``(*)``.

    It is the mean of :func:`log_row_sums`, and takes the same arguments. Its gradient needs one
    matrix product less, because all rows have the same weight.
    """
    if not _is_simple(v, q.variance):
        return gram.log_row_sums(x, v, *q, unit=unit).mean(-1)
    batch = _batch(x, v, *q)
    p, q, in_unit, volume = _isotropic(Side(x, v, x[..., 0]), q, unit)
    return log_mean_operator(_flat(batch, *p[:2], *q), in_unit).reshape(batch) - volume


def _is_simple(v: Tensor, w: Tensor) -> bool:
    """Whether variances are isotropic, or can be made so by scaling the coordinates."""
    return gram.is_isotropic(v, w) or gram.is_shared(v, w)


def _isotropic(p: Side, q: Side, unit: float) -> tuple[Side, Side, float, Tensor]:
    """Scale the coordinates so that all have the same variance.

    Returns:
        The two sides and the unit after scaling, and the log volume to subtract.
    """
    if gram.is_isotropic(p.variance, q.variance):
        return p, q, unit, p.means.new_zeros(())
    total = p.variance + q.variance
    # Scaling rounds. Points are centred first, so that only small numbers are rounded.
    centre, scale = p.means.detach().mean(-2, keepdim=True), total.rsqrt()
    half = torch.full_like(total[..., :1], 0.5)
    volume = 0.5 * (total / unit).log().sum((-2, -1))
    a, b = (Side((s.means - centre) * scale, half, s.log_weights) for s in (p, q))
    return a, b, 1.0, volume


def _batch(*tensors: Tensor) -> torch.Size:
    """Return the batch shape of sides. Log weights have one further axis, all others have two."""
    shape: torch.Size = torch.broadcast_shapes(*(t.shape[:-own] for t, own in _with_axes(tensors)))
    return shape


def _flat(batch: torch.Size, *tensors: Tensor) -> list[Tensor]:
    """Return ``(*, ...)`` as ``(B, ...)``."""
    count = math.prod(batch)
    return [
        t.expand((*batch, *t.shape[-own:])).reshape((count, *t.shape[-own:]))
        for t, own in _with_axes(tensors)
    ]


def _with_axes(tensors: Sequence[Tensor]) -> list[tuple[Tensor, int]]:
    # Every side is (means, variance, log weights), but a first side may have no log weights.
    own = ([2, 2, 1] * 2 if len(tensors) != 5 else [2, 2, 2, 2, 1])[: len(tensors)]
    return list(zip(tensors, own, strict=True))
