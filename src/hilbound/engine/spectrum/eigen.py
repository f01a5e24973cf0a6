r"""The gradient of a nuclear norm by one eigen-decomposition in float32, with the tail kept.

The eigenvectors of :math:`A^\top A` are the right singular vectors of A, and a symmetric
eigen-decomposition takes a third of the time of a singular value decomposition. But squaring
buries every singular value below :math:`\sqrt u\, s_1` (u: the rounding unit). Deflation, an exact
edge and corrections of first order bring them back. If the corrections are not small, nothing is
returned, and another method runs.

The three steps and the formulas of the corrections are derived in ``docs/engine.md``, section
"Corrections of the eigen method".

References:
    Finding structure with randomness (Halko, Martinsson and Tropp, 2011). Iterative refinement for
    symmetric eigenvalue decomposition (Ogita and Aishima, 2018). Perturbation of matrix functions:
    Functions of Matrices (Higham, 2008), theorem 3.25 and chapter 8.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hilbound.engine.seeding import stream

# The number of directions that are taken out before squaring: this share of the smaller side, but
# at least this many.
_FRAME, _LEAST_FRAME = 1 / 32, 48
# Products with ``a^T a`` after the first one.
_POWER_ITERATIONS = 2
# The number of edge directions of the remainder, as a multiple of the frame's directions.
_EDGE = 2
# Leading values within this ratio of each other are flat. A frame of flat directions does not
# converge, and taking them out gains nothing. Above them, a direction is taken out on its own if
# the next one is smaller by at least the second ratio.
_FLAT, _GAP = 0.7, 0.5
# Singular values below this share of the largest are the tail, which squaring resolves badly. So
# the tail is decomposed again.
_TAIL_LINE = 5e-3
# The tail begins higher if its end lies in this interval: neither harmless nor rounding noise.
_HIGHER_TAIL_LINE, _DEEP_END, _NOISE = 2e-2, 1e-3, 3e-5
# The tail has at least this share of the directions, unless all values are above the second number.
_LEAST_TAIL, _NO_TAIL = 1 / 8, 0.1
# The error of a direction from rounding, in any method: this many rounding units, divided by the
# ratio of its singular value to the largest.
_ROUNDING = 8
# The accepted mean squared error of a direction.
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
        drop: Directions with :math:`s_i \le \text{drop} \cdot s_1` get no gradient. If ``drop`` is
            above rounding level, ``None`` is returned.

    >>> a = torch.eye(64) + 0.5
    >>> value, gradient = eigen_slope(a, 1.0, 1e-7)
    >>> bool(abs(value - 96) < 1e-4), bool((gradient - torch.eye(64)).abs().max() < 1e-5)
    (True, True)
    """
    if drop > _ROUNDING * torch.finfo(a.dtype).eps:
        return None  # First-order corrections need a smooth function, not a cut in the spectrum.
    # After scaling, squares neither overflow nor vanish.
    size = a.abs().amax().clamp_min(torch.finfo(a.dtype).tiny)
    result = _scaled_slope(a / size, power, drop)
    if result is None:
        return None
    value, slope = result
    return value * size.double() ** power, slope if power == 1 else slope * size ** (power - 1)


def _scaled_slope(a: Tensor, power: float, drop: float) -> tuple[Tensor, Tensor] | None:
    """Return the result of :func:`eigen_slope` for a matrix whose largest entry is 1."""
    h = _frame(a, max(_LEAST_FRAME, int(_FRAME * a.shape[1])))
    if h is None:
        return _undeflated(a, power, drop)
    k = h.v.shape[1]
    rotated = h.right(a)
    u1, corner = torch.linalg.qr(rotated[:, :k])
    across = u1.mT @ rotated[:, k:]
    v, w, s, t = _resolved(torch.addmm(rotated[:, k:], u1, across, alpha=-1))
    c = len(w) - _EDGE * k
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
    # From singular directions back to columns: of the remainder, the frame, and the matrix.
    rows = torch.cat([rest, z_right[:, k:].mT @ lead])
    slope = torch.cat([lead.mT @ z_right[:, :k], rows.mT @ v.mT], 1)
    return value, h.right_transposed(slope)


def _undeflated(a: Tensor, power: float, drop: float) -> tuple[Tensor, Tensor] | None:
    """Return the result of :func:`eigen_slope` for a matrix whose largest values are flat."""
    v, w, s, t = _resolved(a)
    back = _directions(w, s, drop * s.amax(), power)
    nothing = _Directions(w[:0], s[:0], s[:0])
    corrected = _corrected(nothing, back, w.new_zeros(0, len(w)), t, power)
    return None if corrected is None else (corrected[2], corrected[1].mT @ v.mT)


def _with_edge(corner: Tensor, across: Tensor, s: Tensor) -> Tensor:
    """Return the small matrix between the directions of the frame and of the edge."""
    k, size = len(corner), len(corner) + len(s)
    matrix = corner.new_zeros(size, size)
    matrix[:k, :k], matrix[:k, k:] = corner, across
    matrix.diagonal()[k:] = s
    return matrix


def _frame(a: Tensor, k: int) -> _Reflections | None:
    """Return reflections whose first columns nearly span the leading right directions.

    There are k columns, or fewer if the values are flat from some direction on. If they are flat
    from the first on, there is no frame.
    """
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
    k = _outstanding(packed.diagonal().abs().sqrt())
    if not k:
        return None
    packed, tau = packed[:, :k], tau[:k]
    v = packed.tril(-1)
    v.diagonal()[:] = 1
    inverse = (v.mT @ v).triu(1)
    inverse.diagonal()[:] = tau.reciprocal()
    return _Reflections(v, torch.linalg.inv_ex(inverse).inverse)


def _outstanding(values: Tensor) -> int:
    """Return how many of the leading directions are worth taking out.

    Args:
        values: Estimates of the leading singular values, in nearly descending order.

    >>> one, none, steep = ([9.0, 1.1, 1.0, 1.0], [1.1, 1.0, 1.0], [8.0, 4.0, 2.0, 1.0])
    >>> [_outstanding(torch.tensor(values)) for values in (one, none, steep)]
    [1, 0, 4]
    """
    first = len(values) - int((_FLAT * values < values[-1]).sum())
    if first > len(values) // 2:
        return len(values)
    return len(values) if first and values[first] > _GAP * values[first - 1] else first


def _decompose(r: Tensor) -> tuple[Tensor, Tensor]:
    """Return the right singular vectors (columns, ascending) and the rows ``(r v)^T``."""
    v = torch.linalg.eigh(_lower_gram(r)).eigenvectors
    return v, v.mT @ r.mT


def _resolved(r: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """Return right vectors, left vectors in rows, ascending values, and the tail's length.

    The tail, the first of them, is decomposed again.
    """
    v, w = _decompose(r)
    t = _tail_length(w)
    _rotate_tail(v, w, t)
    s = _row_norms(w)
    w /= s.clamp_min(torch.finfo(r.dtype).tiny).unsqueeze(-1)
    return v, w, s, t


def _lower_gram(r: Tensor, strips: int = 4) -> Tensor:
    """Return the lower triangle of ``r^T r``. The entries above it are undefined."""
    m = r.shape[1]
    gram = r.new_zeros(m, m)
    width = -(-m // strips)
    for i in range(0, m, width):
        gram[i:, i : i + width] = r[:, i:].mT @ r[:, i : i + width]
    return gram


def _row_norms(w: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(w, dim=1)
    return norms


def _tail_length(w: Tensor) -> int:
    """Return how many rows, ascending in norm, are the tail."""
    s = _row_norms(w)
    share = s / s.amax().clamp_min(torch.finfo(s.dtype).tiny)
    if share[0] > _NO_TAIL:
        return 0
    line = _HIGHER_TAIL_LINE if _NOISE < share[0] < _DEEP_END else _TAIL_LINE
    return max(int((share < line).sum()), int(_LEAST_TAIL * len(s)))


def _rotate_tail(v: Tensor, w: Tensor, t: int) -> None:
    """Make the first t rows of ``w`` orthogonal, in place, and rotate ``v`` in the same way."""
    turn = torch.linalg.eigh(w[:t] @ w[:t].mT).eigenvectors
    w[:t] = turn.mT @ w[:t]
    v[:, :t] = v[:, :t] @ turn


def _directions(u: Tensor, s: Tensor, line: Tensor, power: float) -> _Directions:
    kept = s > line
    return _Directions(u, s, power * s.where(kept, 1).pow(power - 1).where(kept, 0))


def _corrected(
    front: _Directions, back: _Directions, m: Tensor, t: int, power: float
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return both rows ``(U (f(S) + ...))^T`` and the value, or None if corrections are large."""
    tail, body = (_Directions(*(part[i] for part in back)) for i in (slice(t), slice(t, None)))
    x, y, more = _first_order(front, back, m, power)
    p, q, still_more = _first_order(tail, body, m.new_zeros(1, 1), power)
    # The error of a direction is the square of its correction, or the rounding if that is larger.
    # A direction at the noise of squaring is nothing but rounding.
    s, eps = torch.cat([front.s, back.s]), torch.finfo(front.s.dtype).eps
    rounding = (_ROUNDING * eps * s.amax() / s).clamp_max(1)
    rounding = rounding.where(s > len(s) ** 0.5 * eps * s.amax(), 1)
    missed = _missed(front, y) + _missed(back, x.mT) + _missed(tail, q) + _missed(body, p.mT)
    if not missed <= float(rounding.square().sum()) + _HARMLESS * len(s):
        return None
    lead, rest = front.f.unsqueeze(-1) * front.u, back.f.unsqueeze(-1) * back.u
    lead.addmm_(y, back.u)
    rest.addmm_(x.mT, front.u)
    rest[:t].addmm_(q, body.u)
    rest[t:].addmm_(p.mT, tail.u)
    # For a direction at rounding level, the correction can be as large as the direction itself.
    length = _row_norms(rest[:t]).clamp_min(torch.finfo(s.dtype).tiny)
    rest[:t] *= (tail.f / length).unsqueeze(-1)
    return lead, rest, s.pow(power).sum(dtype=torch.float64) + more + still_more


def _missed(one: _Directions, correction: Tensor) -> float:
    """Return the squared error of first order, summed over directions, at most 1 for each."""
    relative = correction.square().sum(1) / one.f.where(one.f > 0, 1).square()
    return float(relative.clamp_max(1).square().sum())


def _first_order(
    one: _Directions, other: _Directions, m: Tensor, power: float
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return the first-order corrections for pairs of two sets of directions.

    The formula is in ``docs/engine.md``, section "Corrections of the eigen method".

    Args:
        one: Directions i.
        other: Directions j.
        m: The difference of :math:`u_i^\top A v_j` and :math:`F_{ij} s_j`.
        power: The power p.

    Returns:
        :math:`X_{ij} - F_{ij} f_j / 2` and :math:`X_{ji} - F_{ij} f_i / 2`, rows i, columns j, and
        the second-order term of these pairs in the nuclear norm: the sum of
        :math:`\frac{(E_{ij} - E_{ji})^2}{2 (s_i + s_j)} - \frac{s_i + s_j}{8} F_{ij}^2`. For other
        powers this term is zero.
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
    """Return ``(f_i - f_j) / (s_i - s_j)``, or the derivative of f if the values are equal."""
    if power == 1:
        return torch.zeros((), dtype=si.dtype, device=si.device)
    gap, middle = si - sj, 0.5 * (si + sj)
    derivative = (power - 1) * 0.5 * (fi + fj) / middle
    return torch.where(gap.abs() > 1e-3 * middle, (fi - fj) / gap, derivative)
