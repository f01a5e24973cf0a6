r"""The gradient of a nuclear norm from a random sketch of the range, for matrices of low rank.

A kernel between points in few dimensions has singular values that fall fast. Those below the
rounding unit times the largest are noise. A random sketch :math:`A \Omega` with a few more columns
than there are others spans their left directions. With an orthonormal basis Q of the sketch,
:math:`B = Q^\top A` is a small matrix with the same singular values. All of this is in float64, so
:math:`B B^\top` holds them all, and a decomposition of it is enough.

A basis is accepted if the largest singular value of :math:`A - Q B`, by power iterations, is at
most two rounding units times that of A. Rounding buries what lies below, so no direction is lost
that another method finds. A look at a few columns foresees whether a sketch would pay.

References:
    Finding structure with randomness (Halko, Martinsson and Tropp, 2011).
"""

import functools
import math

import torch
from torch import Tensor

from hilbound.engine.seeding import stream
from hilbound.engine.spectrum.svd import slope_by_svd
from hilbound.engine.workers import over_batch

# The columns of the first look.
_LOOK = 32
# The largest sketch that pays, as a share of the smaller side.
_LARGEST_SHARE = 0.45
# Columns are foreseen as if singular values went on falling geometrically. They fall a bit more
# slowly, so there are more, by this factor and this number.
_SPARE_SHARE, _SPARE = 1.3, 4
# If more than this multiple of the columns is foreseen, it is too far ahead to be seen from there,
# and twice as many are looked at.
_FAR = 3
# Rounding of the entries leaves up to this many rounding units of the norm in all other columns.
_FLOOR = 8
# A singular value of this many rounding units of the largest is buried in rounding, in any method.
_BURIED = 2
# Iterations that measure the largest singular value of what a basis misses.
_POWER_ITERATIONS = 3


def sketched_slope(a: Tensor, power: float, drop: float) -> tuple[Tensor, Tensor] | None:
    r"""Return :math:`\sum_i s_i` and its gradient, or ``None`` if the rank is not low.

    Args:
        a: Matrices with shape ``(*, N, M)``. Of a batch, only the first one is looked at before
            the work begins.
        power: 1. Of other powers, the values that a sketch leaves out would be missed.
        drop: Directions with :math:`s_i \le \text{drop} \cdot s_1` get no gradient.

    >>> x = torch.linspace(-1, 1, 300)
    >>> kernel = (-(x - x.unsqueeze(-1)).square()).exp()
    >>> value, gradient = sketched_slope(kernel, 1.0, 1e-7)
    >>> bool(abs(value - 300) < 1e-2), bool((gradient - gradient.mT).abs().max() < 1e-2)
    (True, True)
    >>> sketched_slope(torch.eye(300), 1.0, 1e-7) is None
    True
    """
    if power != 1:
        return None
    if a.ndim == 2:
        return _slope(a, drop)
    matrices = a.reshape(-1, *a.shape[-2:])
    if _columns(matrices[0]) is None:
        return None
    value, slope = over_batch(lambda part: _slopes(part, drop), matrices)
    return value.reshape(a.shape[:-2]), slope.reshape(a.shape)


def _slopes(matrices: Tensor, drop: float) -> tuple[Tensor, Tensor]:
    results = [_slope(a, drop) or slope_by_svd(a, 1.0, drop) for a in matrices]
    return torch.stack([value for value, _ in results]), torch.stack([g for _, g in results])


def _slope(a: Tensor, drop: float) -> tuple[Tensor, Tensor] | None:
    columns = _columns(a)
    if columns is None:
        return None
    exact = a.double()
    basis, _ = torch.linalg.qr(exact @ _random(a, columns).double())
    small = basis.mT @ exact
    squares, w = torch.linalg.eigh(small @ small.mT)
    line = _BURIED * torch.finfo(a.dtype).eps * math.sqrt(max(float(squares[-1]), 0))
    missed = torch.addmm(exact, basis, small, alpha=-1).to(a.dtype)
    if not _largest(missed) <= line:
        return None
    v = w.mT @ small
    s = torch.linalg.vector_norm(v, dim=1)  # more exact than the roots of the squares
    kept = s > drop * s.amax()
    s, u, v = s[kept], basis @ w[:, kept], v[kept]
    slope = u.to(a.dtype) @ (v / s.unsqueeze(-1)).to(a.dtype)
    return s.sum().to(a.dtype), slope


def _largest(a: Tensor) -> float:
    """Return the largest singular value, from below, by power iterations."""
    right = _random(a, 1).squeeze(-1)
    size = torch.zeros(())
    for _ in range(_POWER_ITERATIONS + 1):
        left = a @ (right / torch.linalg.vector_norm(right).clamp_min(1e-30))
        size, right = torch.linalg.vector_norm(left), a.mT @ left
    return float(size)


def _random(a: Tensor, columns: int) -> Tensor:
    generator = stream(0, "sketch", device=a.device)
    shape = (columns, a.shape[1])
    return torch.randn(shape, generator=generator, dtype=a.dtype, device=a.device).mT


@functools.lru_cache(maxsize=8)
def _looks(columns: int, rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the random columns of a look. A training looks at the same size in every step."""
    return _random(torch.empty(1, rows, dtype=dtype, device=device), columns)


def _columns(a: Tensor) -> int | None:
    """Return how many columns a sketch would need, or ``None`` if it would not pay."""
    most, look = int(_LARGEST_SHARE * min(a.shape)), _LOOK
    needed = _foreseen(a, look)
    while min(_FAR * look, most) < needed <= 2 * most and 4 * look <= most:
        look *= 2
        needed = _foreseen(a, look)
    return int(needed) if needed <= most else None


def _foreseen(a: Tensor, look: int) -> float:
    """Return how many columns a sketch needs, as seen from the first ones, or infinity.

    What the columns before number k leave of a random column has about the norm of all singular
    values from k on.
    """
    triangle = torch.linalg.qr(a @ _looks(look, a.shape[1], a.dtype, a.device), mode="r").R.double()
    left = triangle.diagonal().square().tolist()
    half, end = (math.sqrt(sum(left[k - 4 : k]) / 4) for k in (look // 2, look))
    size = float(torch.linalg.vector_norm(triangle)) / math.sqrt(look)
    target = torch.finfo(a.dtype).eps * size
    if end >= half or end <= target:
        return look if end <= _FLOOR * target else math.inf
    more = look / 2 * math.log(end / target) / math.log(half / end)
    return look + _SPARE_SHARE * more + _SPARE
