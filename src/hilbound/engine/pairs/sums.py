r"""Sums over all pairs of components, streamed, with gradients formed on the way.

The logarithms of double sums

.. math:: L = \log \sum_{ij} a_i b_j \langle p_i, q_j \rangle, \qquad
    L_i = \log \sum_j b_j \langle p_i, q_j \rangle

have the gradients :math:`\partial L / \partial E_{ij} = e^{E_{ij} - L}` by the exponents of
:mod:`hilbound.engine.pairs.tiles`. L is one number for all pairs: while the sum still runs, another
constant in its place is as good, and the quotient is taken at the end. So value and gradient of
:func:`log_inner` take three matrix products and one exponential, and no pair is visited twice; of
:func:`log_norm` half of that, as the pairs are symmetric. :math:`L_i` needs its row alone, and
:func:`mean_log_row_sum` forms its gradient likewise; for :func:`log_row_sums`, where the weights of
the rows come with the backward pass, a tile is computed again.

Tiles are summed in the points' precision, and the sums of tiles in float64. Memory is O(N + M +
tile). Second derivatives are those of the plain sums of :mod:`hilbound.engine.gram`.

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
    matrix product less, because the weights of the rows are known beforehand.
    """
    if not _is_simple(v, q.variance):
        return gram.log_row_sums(x, v, *q, unit=unit).mean(-1)
    batch = _batch(x, v, *q)
    p, q, in_unit, volume = _isotropic(Side(x, v, x[..., 0]), q, unit)
    return log_mean_operator(_flat(batch, *p[:2], *q), in_unit).reshape(batch) - volume


def _is_simple(v: Tensor, w: Tensor) -> bool:
    """Whether isotropic variances say it all, perhaps after the coordinates are scaled."""
    return gram.is_isotropic(v, w) or gram.is_shared(v, w)


def _isotropic(p: Side, q: Side, unit: float) -> tuple[Side, Side, float, Tensor]:
    """Scale the coordinates where they have variances of their own, so that none has.

    Returns:
        The two sides and the unit after scaling, and the log volume that is to be subtracted.
    """
    if gram.is_isotropic(p.variance, q.variance):
        return p, q, unit, p.means.new_zeros(())
    total = p.variance + q.variance
    # Scaling rounds; before the centre is gone it would round digits that cancel later.
    centre, scale = p.means.detach().mean(-2, keepdim=True), total.rsqrt()
    half = torch.full_like(total[..., :1], 0.5)
    volume = 0.5 * (total / unit).log().sum((-2, -1))
    a, b = (Side((s.means - centre) * scale, half, s.log_weights) for s in (p, q))
    return a, b, 1.0, volume


def _batch(*tensors: Tensor) -> torch.Size:
    """Return the batch shape of sides: log weights have one axis of their own, the rest two."""
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
    # Whatever comes, it ends in (means, variance, log weights); a first pair may lack the last.
    own = ([2, 2, 1] * 2 if len(tensors) != 5 else [2, 2, 2, 2, 1])[: len(tensors)]
    return list(zip(tensors, own, strict=True))
