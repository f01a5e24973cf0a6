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

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hilbound.engine.seeding import stream

# Proposed pivots in the first block, and the most in any block. Blocks grow with the rank.
_LEAST_BLOCK, _LARGEST_BLOCK = 64, 128
# A pivot is rejected if it explains less than this share of the present certificate.
_NEGLIGIBLE = 0.1
# A residual below this is rounding in float64.
_RESOLUTION = 1e-13
# Singular values by squares are resolved if they are this many times their error.
_RESOLVED = 1
# The factor uses this share of the tolerance. The rest is for the rounding of squares, which does
# not fit into tolerances below the least.
_SHARE, _LEAST_FOR_SQUARES = 0.9, 2e-6


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
        drop: Singular directions with :math:`s_i \le \text{drop} \cdot s_1` get no gradient.
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
        factor = _factorise(Points(*(part.detach() for part in points)), _SHARE * tol, rank_limit)
        if factor is None:
            return None
        small = _decompose(factor, drop, tol - factor.certificate)
    value: Tensor = _LowRankNorm.apply(small, dtype, *points[:5])  # type: ignore[no-untyped-call]  # torch's
    return value, factor.certificate + small.rounding


def _factorise(points: Points, tol: float, rank_limit: int) -> _Factor | None:
    """Draw pivots until the certificate is at most ``tol``."""
    n = len(points.x)
    weights = torch.cat([points.log_a, points.log_b]).exp()
    kernel = _Kernel(points)
    residual = torch.ones_like(weights)
    factor = weights.new_empty(2 * _LARGEST_BLOCK, len(weights))
    generator = stream(0, "pivots", device=weights.device)
    rank = 0
    while True:
        weighted, rounding = weights * residual, _rounding(points, rank)
        certificate = _traces(weighted, n) + rounding
        if certificate <= tol:
            factor = factor[:rank].mul_(weights.sqrt()) if rank else factor[:1].zero_()
            return _Factor(factor[:, :n], factor[:, n:], certificate)
        if rank >= rank_limit:
            return None
        size = min(max(_LEAST_BLOCK, rank), _LARGEST_BLOCK, int((weighted > 0).sum()))
        proposed = torch.multinomial(weighted, size, generator=generator).sort().values
        line = max(_RESOLUTION, _NEGLIGIBLE * certificate)
        pivots, inverse = _choose(kernel, proposed, factor[:rank], line)
        if not len(pivots):
            return None  # what is left is rounding
        factor = _with_room(factor, rank, len(pivots))
        rows = kernel.rows(pivots).addmm_(factor[:rank, pivots].mT, factor[:rank], alpha=-1)
        new = torch.mm(inverse, rows, out=factor[rank : rank + len(pivots)])
        explained = torch.mul(new, new, out=rows)
        explained = explained[: _needed(weighted, explained, weights, n, tol - rounding)]
        rank += len(explained)
        # Rounding may have made a residual too small, so it gets a lower limit.
        residual = (residual - explained.sum(0)).clamp_min(rank * torch.finfo(new.dtype).eps)


def _traces(weighted: Tensor, n: int) -> float:
    """Return the certificate of weighted residuals, the first n of which belong to x."""
    return float((weighted[:n].sum() * weighted[n:].sum()).sqrt())


def _needed(weighted: Tensor, explained: Tensor, weights: Tensor, n: int, tol: float) -> int:
    """Return how many of the new rows are needed to reach ``tol``. If they do not, it is all."""
    tol *= 0.99  # the sums below are rounded in another order
    if _traces(weighted - weights * explained.sum(0), n) > tol:
        return len(explained)
    of_x, of_y = (
        weighted[part].sum() - (explained[:, part] @ weights[part]).cumsum(0)
        for part in (slice(None, n), slice(n, None))
    )
    enough = ((of_x.clamp_min(0) * of_y.clamp_min(0)).sqrt() <= tol).nonzero()
    return int(enough[0]) + 1 if len(enough) else len(explained)


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


def _choose(
    kernel: "_Kernel", proposed: Tensor, factor: Tensor, line: float
) -> tuple[Tensor, Tensor]:
    r"""Return the pivots that are accepted, ascending, and the matrix that makes rows of them.

    Of the proposed pivots, the one with the largest residual is always next. Those whose residual
    is then at most ``line`` are rejected, before anything is computed for all points. With the
    Cholesky factor L of the accepted ones, the matrix is :math:`L^{-1}`. Its first rows explain
    most.
    """
    columns = factor[:, proposed]
    block = kernel.between(proposed).addmm_(columns.mT, columns, alpha=-1).cpu().numpy()
    residual = block.diagonal().copy()
    line = min(line, float(residual.max()) / 2)
    upper = np.zeros_like(block)
    accepted: list[int] = []
    for k in range(len(block)):
        best = int(residual.argmax())
        if residual[best] <= line:
            break
        upper[k] = (block[best] - upper[:k, best] @ upper[:k]) / math.sqrt(residual[best])
        residual -= upper[k] ** 2
        residual[best] = -math.inf
        accepted.append(best)
    order = np.argsort(accepted)
    lower = torch.from_numpy(upper[: len(accepted), accepted].T).to(factor).tril()
    unit = torch.eye(len(accepted), dtype=factor.dtype, device=factor.device)
    inverse = torch.linalg.solve_triangular(lower, unit[:, torch.from_numpy(order)], upper=False)
    return proposed[torch.from_numpy(np.sort(accepted)).to(proposed.device)], inverse


def _with_room(factor: Tensor, rank: int, more: int) -> Tensor:
    """Return the tensor with its first ``rank`` rows. If it is full, it is enlarged."""
    if rank + more > len(factor):
        larger = factor.new_empty(max(rank + more, len(factor) * 3 // 2), factor.shape[1])
        larger[:rank] = factor[:rank]
        factor = larger
    return factor


class _Kernel:
    r"""The joint Gram matrix of unit vectors, of which only chosen rows are ever formed.

    An entry is :math:`e^{m - |x_i - y_j|^2 / (2s)}`. Mismatch m and scale s depend on the two sets.
    The exponent is one product, because norms are columns of its factors.
    """

    def __init__(self, points: Points) -> None:
        self._n = len(points.x)
        one = torch.ones_like(points.x_scale)
        sets = (points.x, points.y)
        scales = ((points.x_scale, one), (one, points.y_scale))
        self._mismatch = float(points.mismatch)
        self._lifted = [
            [self._lift(sets[i] * scales[i][j].rsqrt()) for j in (0, 1)] for i in (0, 1)
        ]

    @staticmethod
    def _lift(x: Tensor) -> tuple[Tensor, Tensor]:
        """Return factors whose products are minus half the squared distances."""
        half, one = -0.5 * x.square().sum(-1, keepdim=True), torch.ones_like(x[:, :1])
        return torch.cat([x, half, one], -1), torch.cat([x, one, half], -1).mT.contiguous()

    def rows(self, pivots: Tensor) -> Tensor:
        """Return the rows of ascending pivots, with shape ``(b, N + M)``."""
        every = slice(None)
        return self._form(self._of_sets(pivots), (every, every))

    def between(self, pivots: Tensor) -> Tensor:
        """Return the entries between ascending pivots, with shape ``(b, b)``."""
        own = self._of_sets(pivots)
        return self._form(own, own)

    def _of_sets(self, pivots: Tensor) -> tuple[Tensor, Tensor]:
        k = int((pivots < self._n).sum())
        return pivots[:k], pivots[k:] - self._n

    def _form(
        self, pivots: tuple[Tensor, Tensor], columns: tuple[Tensor | slice, Tensor | slice]
    ) -> Tensor:
        rights = [[self._lifted[j][i][1][:, columns[j]] for j in (0, 1)] for i in (0, 1)]
        first, width = len(pivots[0]), rights[0][0].shape[1]
        matrix = rights[0][0].new_empty(first + len(pivots[1]), width + rights[0][1].shape[1])
        for i, half in enumerate((matrix[:first], matrix[first:])):
            for j, block in enumerate((half[:, :width], half[:, width:])):
                torch.mm(self._lifted[i][j][0][pivots[i]], rights[i][j], out=block)
                block.clamp_max_(0)
                if i != j and self._mismatch:
                    block.add_(self._mismatch)
        return matrix.exp_()


class _Decomposition(NamedTuple):
    r"""The nuclear norm of :math:`F_x F_y^\top \approx U^\top S V`.

    Attributes:
        value: The norm, a scalar.
        rounding: A bound of what rounding adds to its error.
        s: Singular values with shape ``(k,)``, of the directions that get a gradient.
        u: Singular vectors in rows, with shape ``(k, N)``.
        v: Singular vectors in rows, with shape ``(k, M)``.
    """

    value: Tensor
    rounding: float
    s: Tensor
    u: Tensor
    v: Tensor


def _decompose(factor: _Factor, drop: float, room: float) -> _Decomposition:
    """Return the decomposition of squares, if their rounding fits into ``room``."""
    if room >= _LEAST_FOR_SQUARES:
        small = _by_squares(factor, drop)
        if small is not None and small.rounding <= room:
            return small
    (q_x, r_x), (q_y, r_y) = torch.linalg.qr(factor.x.mT), torch.linalg.qr(factor.y.mT)
    u, s, vh = torch.linalg.svd(r_x @ r_y.mT, full_matrices=False)
    kept = s > drop * s[0]
    return _Decomposition(s.sum(), 0.0, s[kept], u.mT[kept] @ q_x.mT, vh[kept] @ q_y.mT)


def _by_squares(factor: _Factor, drop: float) -> _Decomposition | None:
    r"""Return the decomposition by two Gram matrices and one eigen-decomposition.

    With :math:`F_x F_x^\top = C C^\top` the eigenvalues of :math:`C^\top F_y F_y^\top C` are the
    squares of the singular values. Rounding moves them by at most :math:`\epsilon`, and so a
    singular value by at most :math:`\min(\sqrt\epsilon, \epsilon / s)`.
    """
    gram_x, gram_y = factor.x @ factor.x.mT, factor.y @ factor.y.mT
    size_x, size_y = (float(torch.linalg.matrix_norm(gram)) for gram in (gram_x, gram_y))
    # Sums of N products, and decompositions of rank r, are off by about this share of the size.
    share = torch.finfo(gram_x.dtype).eps * (
        len(gram_x) + math.sqrt(factor.x.shape[1] + factor.y.shape[1])
    )
    gram_x.diagonal().add_(share * size_x)  # or rounding could make it indefinite
    lower, failed = torch.linalg.cholesky_ex(gram_x)
    if failed:
        return None
    squares, w = torch.linalg.eigh(lower.mT @ gram_y @ lower)
    s, epsilon = squares.clamp_min(0).sqrt(), 2 * share * size_x * size_y
    rounding = float((epsilon / s).clamp_max(math.sqrt(epsilon)).sum())
    kept = s > max(drop * float(s[-1]), _RESOLVED * math.sqrt(epsilon))
    w, kept_s = w[:, kept], s[kept]
    to_u = torch.linalg.solve_triangular(lower.mT, w, upper=True)
    return _Decomposition(
        s.sum(), rounding, kept_s, to_u.mT @ factor.x, (lower @ (w / kept_s)).mT @ factor.y
    )


class _LowRankNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, small: _Decomposition, dtype: torch.dtype, *inputs: Tensor) -> Tensor:
        of_x, of_y, of_a, of_b, _ = ctx.needs_input_grad[2:]
        s, u, v = (part.to(dtype) for part in small[2:])
        x, y = (part.to(dtype) for part in inputs[:2])
        # Moments around a common centre lose no digits if the origin is far away.
        centre = x.mean(0)
        x, y = x - centre, y - centre
        to_x, sum_x = _slopes(x, y, (s, u, v), points=of_x) if of_x or of_a else (None, None)
        to_y, sum_y = _slopes(y, x, (s, v, u), points=of_y) if of_y or of_b else (None, None)
        parts = (to_x, to_y, sum_x, sum_y, small.value)
        ctx.save_for_backward(*(None if p is None else p.to(inputs[0].dtype) for p in parts))
        return small.value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # Gradients to the points, to the logarithms of their weights, and to the mismatch.
        parts = ctx.saved_tensors
        return None, None, *(None if part is None else grads[0] * part for part in parts)


def _slopes(
    x: Tensor, y: Tensor, small: tuple[Tensor, Tensor, Tensor], *, points: bool
) -> tuple[Tensor | None, Tensor]:
    r"""Return the gradients to the points x, if asked for, and to the logarithms of their weights.

    The first is :math:`\sum_j H_{ij} (y_j - x_i)` and the second :math:`\tfrac12 \sum_j H_{ij}`,
    with :math:`H_{ij} = (u_i^\top v_j) (u_i^\top S v_j)` of columns :math:`u_i` and :math:`v_j`.
    """
    s, u, v = small
    sums = s @ u.square()
    if not points:
        return None, 0.5 * sums
    # Only the symmetric part of the moments times S counts.
    mean = 0.5 * (s.unsqueeze(-1) + s)
    firsts = [((((c * v) @ v.mT) * mean) @ u).mul_(u).sum(0) for c in y.unbind(-1)]
    return torch.stack(firsts, -1) - sums.unsqueeze(-1) * x, 0.5 * sums
