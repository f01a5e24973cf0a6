r"""The gradient of a nuclear norm by one eigen-decomposition in float32, with the tail kept.

The eigenvectors of :math:`A^\top A` are the right singular vectors of A, and a symmetric
eigen-decomposition takes a third of the time of a singular value decomposition. But squaring
buries every singular value below :math:`\sqrt u\, s_1` (u: the rounding unit), and a Gaussian cross
Gram matrix has one that is thousands of times the median. Three cheap steps bring the tail back:

1. **Deflation.** A random sketch and two power iterations give a frame Q of k directions that holds
   the leading ones. With :math:`U_1 R = A Q` the remainder
   :math:`(I - U_1 U_1^\top) A (I - Q Q^\top)` has no large singular values, and only it is squared.
   Q becomes the first coordinates by a product of reflections, so the remainder has k columns less.
2. **The edge.** The frame is not quite invariant: its last directions mix with the first ones of
   the remainder. Those are decomposed together, in a small matrix, exactly.
3. **Corrections of first order.** With :math:`F = U^\top U - I` and :math:`M = U^\top A V` the
   frames left to correct are known, and

   .. math:: f(A) \approx U \big(f(S) + X - \tfrac12 F f(S)\big) V^\top, \qquad
       X_{ij} = \frac{E_{ij} + E_{ji}}{2} \frac{f_i - f_j}{s_i - s_j}
              + \frac{E_{ij} - E_{ji}}{2} \frac{f_i + f_j}{s_i + s_j}

   with :math:`E = M - \tfrac12 F S` off the diagonal and the slope :math:`f(s) = p s^{p-1}`. For
   the polar factor f is 1: no difference of singular values divides anything. Corrected are the
   pairs with the leading directions, and those with the tail, whose own block is decomposed again.

The value is right to second order in what was corrected, the nuclear norm to third. Where the
corrections are not small (a spectrum that falls too far behind the frame), nothing is returned, and
another method has to run.

References:
    Finding structure with randomness (Halko, Martinsson and Tropp, 2011). Iterative refinement for
    symmetric eigenvalue decomposition (Ogita and Aishima, 2018). Perturbation of matrix functions:
    Functions of Matrices (Higham, 2008), theorem 3.25 and chapter 8.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hilbound.engine.seeding import stream

# Share of the smaller side whose directions are taken out before squaring, and the least number.
_FRAME, _LEAST_FRAME = 1 / 32, 48
# Products with ``a^T a`` after the first.
_POWER_ITERATIONS = 2
# Edge directions of the remainder, as a multiple of the frame's.
_EDGE = 2
# The tail: what squaring resolves badly. It is decomposed again, which must not cost as much again.
_TAIL_LINE = 5e-3
_LEAST_TAIL, _LARGEST_TAIL = 1 / 8, 0.7
# What rounding does to a direction in any method: this many units, over its share of the largest.
_ROUNDING = 8
# The mean square error of a direction that is harmless.
_HARMLESS = 1e-8


class _Reflections(NamedTuple):
    """The orthogonal matrix :math:`H = I - v t v^T` whose first columns span a frame."""

    v: Tensor
    t: Tensor

    def right(self, a: Tensor) -> Tensor:
        """Return :math:`a H`."""
        return torch.addmm(a, (a @ self.v) @ self.t, self.v.mT, alpha=-1)

    def right_transposed(self, a: Tensor) -> Tensor:
        r"""Return :math:`a H^\top`."""
        return torch.addmm(a, (a @ self.v) @ self.t.mT, self.v.mT, alpha=-1)


class _Directions(NamedTuple):
    """Singular triples: left vectors in rows, values, and the slope f of each."""

    u: Tensor
    s: Tensor
    f: Tensor


def eigen_slope(a: Tensor, power: float, drop: float) -> tuple[Tensor, Tensor] | None:
    r"""Return :math:`\sum_i s_i^p` in float64 and its gradient, or ``None`` if they are not safe.

    Args:
        a: A matrix with shape ``(N, M)``, N not below M, M at least 200.
        power: The power p in (0, 1].
        drop: Directions with :math:`s_i \le \text{drop} \cdot s_1` get no gradient; at rounding
            level, or ``None`` is returned.

    >>> a = torch.eye(64) + 0.5
    >>> value, gradient = eigen_slope(a, 1.0, 1e-7)
    >>> bool(abs(value - 96) < 1e-4), bool((gradient - torch.eye(64)).abs().max() < 1e-5)
    (True, True)
    """
    if drop > _ROUNDING * torch.finfo(a.dtype).eps:
        return None  # A sharp line through the middle of the spectrum is no smooth function of it.
    # Squares neither overflow nor vanish.
    size = a.abs().amax().clamp_min(torch.finfo(a.dtype).tiny)
    result = _scaled_slope(a / size, power, drop)
    if result is None:
        return None
    value, slope = result
    return value * size.double() ** power, slope if power == 1 else slope * size ** (power - 1)


def _scaled_slope(a: Tensor, power: float, drop: float) -> tuple[Tensor, Tensor] | None:
    """Return what :func:`eigen_slope` does for a matrix whose largest entry is 1."""
    k = max(_LEAST_FRAME, int(_FRAME * a.shape[1]))
    h = _frame(a, k)
    rotated = h.right(a)
    u1, corner = torch.linalg.qr(rotated[:, :k])
    across = u1.mT @ rotated[:, k:]
    v, w = _decompose(torch.addmm(rotated[:, k:], u1, across, alpha=-1))
    c, t = len(w) - _EDGE * k, _tail_length(w)
    if t is None:
        return None
    _rotate_tail(v, w, t)
    s = _row_norms(w)
    w /= s.clamp_min(torch.finfo(a.dtype).tiny).unsqueeze(-1)
    across = across @ v
    z, leading, z_right = torch.linalg.svd(_with_edge(corner, across[:, c:], s[c:]))
    line = drop * leading[0]
    corrected = _corrected(
        _directions(z.mT @ torch.cat([u1.mT, w[c:]]), leading, line, power),
        _directions(w[:c], s[:c], line, power),
        z[:k].mT @ across[:, :c],
        t,
        power,
    )
    if corrected is None:
        return None
    lead, rest, value = corrected
    # Back from singular directions to columns: of the remainder, of the frame, of the matrix.
    rows = torch.cat([rest, z_right[:, k:].mT @ lead])
    slope = torch.cat([lead.mT @ z_right[:, :k], rows.mT @ v.mT], 1)
    return value, h.right_transposed(slope)


def _with_edge(corner: Tensor, across: Tensor, s: Tensor) -> Tensor:
    """Return the matrix between the frame's directions together with the edge's."""
    k, size = len(corner), len(corner) + len(s)
    matrix = corner.new_zeros(size, size)
    matrix[:k, :k], matrix[:k, k:] = corner, across
    matrix.diagonal()[k:] = s
    return matrix


def _frame(a: Tensor, k: int) -> _Reflections:
    """Return reflections whose first k columns nearly span the leading right directions."""
    start = torch.randn(
        a.shape[1],
        k,
        generator=stream(0, "frame", device=a.device),
        dtype=a.dtype,
        device=a.device,
    )
    packed, tau = torch.geqrf(a.mT @ (a @ start))
    for _ in range(_POWER_ITERATIONS):
        frame = torch.linalg.householder_product(packed, tau)
        packed, tau = torch.geqrf(a.mT @ (a @ frame))
    v = packed.tril(-1)
    v.diagonal()[:] = 1
    inverse = (v.mT @ v).triu(1)
    inverse.diagonal()[:] = tau.reciprocal()
    return _Reflections(v, torch.linalg.inv_ex(inverse).inverse)


def _decompose(r: Tensor) -> tuple[Tensor, Tensor]:
    """Return the right singular vectors (columns, ascending) and the rows ``(r v)^T``."""
    v = torch.linalg.eigh(_lower_gram(r)).eigenvectors
    return v, v.mT @ r.mT


def _lower_gram(r: Tensor, strips: int = 4) -> Tensor:
    """Return the lower triangle of ``r^T r`` and nothing sensible above it."""
    m = r.shape[1]
    gram = r.new_zeros(m, m)
    width = -(-m // strips)
    for i in range(0, m, width):
        gram[i:, i : i + width] = r[:, i:].mT @ r[:, i : i + width]
    return gram


def _row_norms(w: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(w, dim=1)
    return norms


def _tail_length(w: Tensor) -> int | None:
    """Return how many of the rows, ascending in norm, are decomposed again; None if too many."""
    s = _row_norms(w)
    below = int((s < _TAIL_LINE * s.amax()).sum())
    return None if below > _LARGEST_TAIL * len(s) else max(below, int(_LEAST_TAIL * len(s)))


def _rotate_tail(v: Tensor, w: Tensor, t: int) -> None:
    """Make the first t rows of ``w`` orthogonal to one another, in place, and turn ``v`` along."""
    turn = torch.linalg.eigh(w[:t] @ w[:t].mT).eigenvectors
    w[:t] = turn.mT @ w[:t]
    v[:, :t] = v[:, :t] @ turn


def _directions(u: Tensor, s: Tensor, line: Tensor, power: float) -> _Directions:
    kept = s > line
    return _Directions(u, s, power * s.where(kept, 1).pow(power - 1).where(kept, 0))


def _corrected(
    front: _Directions, back: _Directions, m: Tensor, t: int, power: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return both rows ``(U (f(S) + ...))^T`` and the value; None if the corrections are large."""
    tail, body = (_Directions(*(part[i] for part in back)) for i in (slice(t), slice(t, None)))
    x, y, more = _first_order(front, back, m, power)
    p, q, still_more = _first_order(tail, body, torch.zeros_like(m[:1, :1]), power)
    # A direction misses its place by the square of its correction, or by rounding anyway.
    missed = _missed(front, y) + _missed(back, x.mT) + _missed(tail, q) + _missed(body, p.mT)
    s = torch.cat([front.s, back.s])
    rounding = (_ROUNDING * torch.finfo(s.dtype).eps * front.s[0] / s).clamp_max(1)
    if not missed <= float(rounding.square().sum()) + _HARMLESS * len(s):
        return None
    lead, rest = front.f.unsqueeze(-1) * front.u, back.f.unsqueeze(-1) * back.u
    lead.addmm_(y, back.u)
    rest.addmm_(x.mT, front.u)
    rest[:t].addmm_(q, body.u)
    rest[t:].addmm_(p.mT, tail.u)
    # Of a direction at rounding level the correction can be most of it.
    length = _row_norms(rest[:t]).clamp_min(torch.finfo(s.dtype).tiny)
    rest[:t] *= (tail.f / length).unsqueeze(-1)
    return lead, rest, s.pow(power).sum(dtype=torch.float64) + more + still_more


def _missed(one: _Directions, correction: Tensor) -> float:
    """Return the sum of squares of what the first order leaves out, at most 1 for a direction."""
    relative = correction.square().sum(1) / one.f.where(one.f > 0, 1).square()
    return float(relative.clamp_max(1).square().sum())


def _first_order(
    one: _Directions, other: _Directions, m: Tensor, power: float
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return the terms of the module docstring for pairs of two sets of directions.

    Args:
        one: Directions i.
        other: Directions j.
        m: What :math:`u_i^\top A v_j` has beyond :math:`F_{ij} s_j`.
        power: The power p.

    Returns:
        :math:`X_{ij} - F_{ij} f_j / 2` and :math:`X_{ji} - F_{ij} f_i / 2`, rows i, columns j, and
        what these pairs add to the nuclear norm in second order (of other powers, nothing):
        the sum of :math:`\frac{(E_{ij} - E_{ji})^2}{2 (s_i + s_j)} - \frac{s_i + s_j}{8} F_{ij}^2`.
    """
    si, sj, fi, fj = one.s.unsqueeze(-1), other.s, one.f.unsqueeze(-1), other.f
    f = one.u @ other.u.mT
    both = (fi > 0) & (fj > 0)
    forth, back = m + 0.5 * f * sj, 0.5 * f * si
    even = 0.5 * (forth + back) * _divided_difference(si, sj, fi, fj, power)
    total = si + sj
    odd = 0.5 * (forth - back) * ((fi + fj) / total)
    second = 0.5 * (forth - back).square() / total - 0.125 * total * f.square()
    return (
        (even + odd - 0.5 * f * fj).where(both, 0),
        (even - odd - 0.5 * f * fi).where(both, 0),
        second.where(both & torch.tensor(power == 1, device=f.device), 0).sum(dtype=torch.float64),
    )


def _divided_difference(si: Tensor, sj: Tensor, fi: Tensor, fj: Tensor, power: float) -> Tensor:
    """Return ``(f_i - f_j) / (s_i - s_j)``, and the derivative of f where the values agree."""
    if power == 1:
        return torch.zeros((), dtype=si.dtype, device=si.device)
    gap, middle = si - sj, 0.5 * (si + sj)
    derivative = (power - 1) * 0.5 * (fi + fj) / middle
    return torch.where(gap.abs() > 1e-3 * middle, (fi - fj) / gap, derivative)
