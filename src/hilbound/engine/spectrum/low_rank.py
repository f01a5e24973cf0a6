"""The fidelity of two point sets from factors of low rank, with a certificate and no N x M matrix.

The Gram matrix of a smooth kernel in few dimensions has nearly low rank. A randomly pivoted
Cholesky factorisation approximates the joint Gram matrix of both sets. Value and gradient come from
its factors, in :math:`O((N + M) r^2)` operations for each coordinate at rank r. The tolerance
bounds the error of the *value*. The gradient loses the directions that the factor does not resolve.

The certificate and the gradient are derived in ``docs/engine.md``, section "Low rank: certificate
and gradient".

References:
    Randomly pivoted Cholesky (Chen, Epperly, Tropp and Webber, 2022). Embrace rejection: kernel
    matrix approximation by accelerated randomly pivoted Cholesky (Epperly, Tropp and Webber, 2024).
    On the low-rank approximation by the pivoted Cholesky decomposition (Harbrecht, Peters and
    Schneider, 2012).
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hilbound.engine.seeding import stream

# Pivots in the first block, and the most in any block. Blocks grow with the rank.
_LEAST_BLOCK, _LARGEST_BLOCK = 48, 128
# A direction of a block is dropped if it explains less than this share of the present certificate.
_NEGLIGIBLE = 0.1
# A residual below this is rounding in float64.
_RESOLUTION = 1e-13


class Points(NamedTuple):
    r"""Two weighted point sets in units of the kernel between them, :math:`e^m e^{-|x-y|^2/2}`.

    Attributes:
        x: Points with shape ``(N, d)``, divided by :math:`\sqrt{v + w}`.
        y: Points with shape ``(M, d)``, likewise.
        log_a: Logarithms of the weights of x, with shape ``(N,)``.
        log_b: Logarithms of the weights of y, with shape ``(M,)``.
        mismatch: The logarithm m of the overlap at distance zero, at most 0; a scalar.
        x_scale: The variances :math:`2v/(v+w)` within x, with shape ``(1,)`` or ``(d,)``.
        y_scale: The variances :math:`2w/(v+w)` within y, likewise.
    """

    x: Tensor
    y: Tensor
    log_a: Tensor
    log_b: Tensor
    mismatch: Tensor
    x_scale: Tensor
    y_scale: Tensor


class _Factor(NamedTuple):
    """Weighted factors with shapes ``(r, N)`` and ``(r, M)``, and the certificate."""

    x: Tensor
    y: Tensor
    certificate: float


def low_rank_fidelity(
    points: Points, tol: float, rank_limit: int, drop: float, *, dtype: torch.dtype
) -> tuple[Tensor, float] | None:
    r"""Return the differentiable fidelity and its certificate, or ``None`` if the rank is too high.

    Args:
        points: Both point sets, in float64.
        tol: The largest certificate that is accepted.
        rank_limit: The most columns of the factor. If more are needed, the result is ``None``.
        drop: Singular directions with :math:`s_i \\le \\text{drop} \\cdot s_1` get no gradient.
        dtype: The precision in which the gradient is summed.

    >>> x = torch.linspace(-1, 1, 200).double().unsqueeze(-1)
    >>> zero, one = torch.zeros(()).double(), torch.ones(1).double()
    >>> weight = torch.full((200,), 1 / 200).double().log()
    >>> value, certificate = low_rank_fidelity(
    ...     Points(x, x, weight, weight, zero, one, one), 1e-6, 100, 1e-7, dtype=x.dtype
    ... )
    >>> value.round(decimals=4), certificate <= 1e-6
    (tensor(1., dtype=torch.float64), True)
    """
    with torch.no_grad():
        factor = _factorise(Points(*(part.detach() for part in points)), tol, rank_limit)
    if factor is None:
        return None
    value: Tensor = _LowRankNorm.apply(factor, drop, dtype, *points[:5])  # type: ignore[no-untyped-call]  # torch's
    return value, factor.certificate


def _factorise(points: Points, tol: float, rank_limit: int) -> _Factor | None:
    """Draw pivots until the certificate is at most ``tol``."""
    n = len(points.x)
    weights = torch.cat([points.log_a, points.log_b]).exp()
    residual = torch.ones_like(weights)
    factor = weights.new_empty(2 * _LARGEST_BLOCK, len(weights))
    generator = stream(0, "pivots", device=weights.device)
    rank = 0
    while True:
        weighted = weights * residual
        certificate = float((weighted[:n].sum() * weighted[n:].sum()).sqrt())
        certificate += _rounding(points, rank)
        if certificate <= tol:
            factor = factor[:rank].mul_(weights.sqrt()) if rank else factor[:1].zero_()
            return _Factor(factor[:, :n], factor[:, n:], certificate)
        if rank >= rank_limit:
            return None
        size = min(max(_LEAST_BLOCK, rank // 2), _LARGEST_BLOCK, int((weighted > 0).sum()))
        pivots = torch.multinomial(weighted, size, generator=generator).sort().values
        rows = _rows(points, pivots)
        rows.addmm_(factor[:rank, pivots].mT, factor[:rank], alpha=-1)
        new = _block(rows, pivots, max(_RESOLUTION, _NEGLIGIBLE * certificate))
        factor = _append(factor, rank, new)
        rank += len(new)
        # Rounding may have made a residual too small, so it gets a lower limit.
        residual = (residual - new.square().sum(0)).clamp_min(rank * torch.finfo(new.dtype).eps)


def _rounding(points: Points, rank: int) -> float:
    r"""Bound what rounding in float64 adds to the error of the value.

    Let u be the rounding unit. An exponent :math:`|x - y|^2 / (2s)`, from the expanded square, is
    off by at most :math:`2u (|x|^2 + |y|^2) / s`
    (:func:`hilbound.engine.gram.exponent_error`), and so every entry of the matrix by this share of
    itself. The weighted matrix has a Frobenius norm of at most 1, so its nuclear norm changes by at
    most :math:`\sqrt r` times as much. The decompositions of rank r add about :math:`r u`.
    """
    unit = torch.finfo(points.x.dtype).eps
    largest = sum(float(part.square().sum(-1).amax()) for part in (points.x, points.y))
    narrowest = min(1.0, float(points.x_scale.amin()), float(points.y_scale.amin()))
    return unit * (math.sqrt(rank) * 2 * largest / narrowest + rank)


def _block(rows: Tensor, pivots: Tensor, line: float) -> Tensor:
    """Return the new rows of the factor, without directions below the line."""
    values, vectors = torch.linalg.eigh(rows[:, pivots])
    kept = values > min(line, float(values[-1]) / 2)
    explained: Tensor = (vectors[:, kept] * values[kept].rsqrt()).mT @ rows
    return explained


def _append(factor: Tensor, rank: int, new: Tensor) -> Tensor:
    """Write new rows after the first ``rank``. If the tensor is full, enlarge it."""
    height = rank + len(new)
    if height > len(factor):
        larger = factor.new_empty(max(height, len(factor) * 3 // 2), factor.shape[1])
        larger[:rank] = factor[:rank]
        factor = larger
    factor[rank:height] = new
    return factor


def _rows(points: Points, pivots: Tensor) -> Tensor:
    """Return rows of the joint Gram matrix of unit vectors for ascending pivots, ``(b, N + M)``."""
    n = len(points.x)
    k = int((pivots < n).sum())
    rows = points.x.new_empty(len(pivots), n + len(points.y))
    of_x, of_y = points.x[pivots[:k]], points.y[pivots[k:] - n]
    zero, one = torch.zeros_like(points.mismatch), torch.ones_like(points.x_scale)
    _write_kernel(rows[:k, :n], of_x, points.x, points.x_scale, zero)
    _write_kernel(rows[:k, n:], of_x, points.y, one, points.mismatch)
    _write_kernel(rows[k:, :n], of_y, points.x, one, points.mismatch)
    _write_kernel(rows[k:, n:], of_y, points.y, points.y_scale, zero)
    return rows


def _write_kernel(block: Tensor, x: Tensor, y: Tensor, scale: Tensor, constant: Tensor) -> None:
    r"""Write :math:`\exp(m - |x_i - y_j|^2 / (2\,\text{scale}))` into a block."""
    x, y = x * scale.rsqrt(), y * scale.rsqrt()
    x2, y2 = x.square().sum(-1, keepdim=True), y.square().sum(-1)
    torch.add(-0.5 * x2, y2, alpha=-0.5, out=block)
    block.addmm_(x, y.mT).clamp_max_(0).add_(constant).exp_()


class _Decomposition(NamedTuple):
    """The value, the frames in rows, and the polar factor ``z`` between them."""

    value: Tensor
    q_x: Tensor
    q_y: Tensor
    z: Tensor


def _decompose(factor: _Factor, drop: float) -> _Decomposition:
    r"""Return :math:`\|F_x F_y^\top\|_*` and the polar factor as :math:`Q_x Z Q_y^\top`."""
    (q_x, r_x), (q_y, r_y) = torch.linalg.qr(factor.x.mT), torch.linalg.qr(factor.y.mT)
    u, s, vh = torch.linalg.svd(r_x @ r_y.mT, full_matrices=False)
    kept = s > drop * s[0]
    return _Decomposition(s.sum(), q_x.mT, q_y.mT, (u * kept) @ vh)


class _LowRankNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        factor: _Factor,
        drop: float,
        dtype: torch.dtype,
        *inputs: Tensor,
    ) -> Tensor:
        small = _decompose(factor, drop)
        if any(ctx.needs_input_grad):
            x, y = inputs[:2]
            sums = _slopes(x.to(dtype), y.to(dtype), factor, small)
            ctx.save_for_backward(*(part.to(x.dtype) for part in sums), small.value)
        return small.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # Gradients to the points, to the logarithms of their weights, and to the mismatch.
        return None, None, None, *(grads[0] * part for part in ctx.saved_tensors)


def _slopes(
    x: Tensor, y: Tensor, factor: _Factor, small: _Decomposition
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients to the points and to the logarithms of the weights."""
    f_x, f_y, q_x, q_y, z = (
        part.to(x.dtype) for part in (factor.x, factor.y, small.q_x, small.q_y, small.z)
    )
    # Moments around a common centre lose no digits if the origin is far away.
    centre = x.mean(0)
    to_x, sum_x = _moments(x - centre, y - centre, (z.mT @ q_x, f_x), (q_y, f_y))
    to_y, sum_y = _moments(y - centre, x - centre, (z @ q_y, f_y), (q_x, f_x))
    return to_x, to_y, 0.5 * sum_x, 0.5 * sum_y


def _moments(
    x: Tensor, y: Tensor, left: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\sum_j H_{ij} (y_j - x_i)` and :math:`\sum_j H_{ij}`.

    Here :math:`H_{ij} = (p_i^\top q_j)(f_i^\top g_j)`. The vectors are columns of their tensors.
    """
    (p, f), (q, g) = left, right
    sums = (((g @ q.mT) @ p) * f).sum(0)
    firsts = [((((c * g) @ q.mT) @ p) * f).sum(0) for c in y.unbind(-1)]
    return torch.stack(firsts, -1) - sums.unsqueeze(-1) * x, sums
