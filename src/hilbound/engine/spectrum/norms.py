r"""Nuclear norms and Schatten powers with closed-form gradients.

For a thin singular value decomposition :math:`A = U S V^\top` the nuclear norm is
:math:`\|A\|_* = \sum_i s_i`. If all :math:`s_i > 0`, its gradient is the polar factor
:math:`U V^\top`. Differentiating *through* an SVD divides by differences of singular values, so it
breaks down if two of them are equal. The polar factor has no such divisions.

If singular values are zero, every :math:`U V^\top + W` is a subgradient, for any :math:`W` of norm
at most one on the null spaces. Here :math:`W` is zero: directions at or below ``drop`` times the
largest singular value hold rounding noise, and they are left out.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # public, but not declared so

from hilbound.engine.gather import team
from hilbound.engine.spectrum.certificate import Certified, norm_bounds
from hilbound.engine.spectrum.eigen import eigen_slope
from hilbound.engine.spectrum.plan import plan_norm
from hilbound.engine.spectrum.polynomial import polynomial_slope
from hilbound.engine.spectrum.sketch import sketched_slope
from hilbound.engine.spectrum.svd import require_finite, singular_values, slope_by_svd
from hilbound.engine.workers import over_batch
from hilbound.errors import InputError

# Entries of the matrices from which on workers decompose each matrix once. A smaller one is
# decomposed by all of them in less time than its gradient takes to travel.
_LEAST_SHARED = 256 * 256


def check_drop(drop: float | None, *, all_may_go: bool = True) -> None:
    """Raise an InputError if ``drop`` is not a share of the largest value.

    Args:
        drop: The share, or ``None`` for the default.
        all_may_go: Whether ``drop`` may be 1, which leaves out every direction.

    >>> check_drop(-0.5)
    Traceback (most recent call last):
        ...
    hilbound.errors.InputError: drop must lie in [0, 1], got -0.5: it is a share of the largest
    """
    if drop is not None and not (0 <= drop < 1 or (all_may_go and drop == 1)):
        allowed = "[0, 1]" if all_may_go else "[0, 1)"
        raise InputError(f"drop must lie in {allowed}, got {drop}: it is a share of the largest")


def check_power(power: float) -> None:
    """Raise an InputError if ``power`` is not in (0, 1].

    >>> check_power(2)
    Traceback (most recent call last):
        ...
    hilbound.errors.InputError: power must lie in (0, 1], got 2: 1 is the nuclear norm
    """
    if not 0 < power <= 1:
        raise InputError(f"power must lie in (0, 1], got {power}: 1 is the nuclear norm")


def _by_eigen(matrix: Tensor, power: float, drop: float) -> tuple[Tensor, Tensor] | None:
    tall = matrix if matrix.shape[-2] >= matrix.shape[-1] else matrix.mT
    results = []
    for one in tall.reshape(-1, *tall.shape[-2:]):
        result = eigen_slope(one, power, drop)
        if result is None:
            return None
        results.append(result)
    total = torch.stack([value for value, _ in results]).reshape(matrix.shape[:-2])
    slope = torch.stack([slope for _, slope in results]).reshape(tall.shape)
    slope = slope if tall is matrix else slope.mT.contiguous()
    return total.to(matrix.dtype), slope


def _by_threads(matrix: Tensor, power: float, drop: float) -> tuple[Tensor, Tensor]:
    value, slope = over_batch(
        lambda part: slope_by_svd(part, power, drop), matrix.reshape(-1, *matrix.shape[-2:])
    )
    return value.reshape(matrix.shape[:-2]), slope.reshape(matrix.shape)


_METHODS: dict[str, Callable[[Tensor, float, float], tuple[Tensor, Tensor] | None]] = {
    "svd": slope_by_svd,
    "sketch": sketched_slope,
    "threads": _by_threads,
    "eigen": _by_eigen,
    "polynomial": polynomial_slope,
}


def _without_subnormal(matrix: Tensor) -> Tensor:
    """Return the matrix with zeros in place of entries whose squares would be subnormal numbers.

    A narrow kernel makes many such entries. Arithmetic on subnormal numbers is ten times slower,
    and compared with the largest entry they are far below rounding.
    """
    size = matrix.abs()
    line = math.sqrt(torch.finfo(matrix.dtype).tiny) * size.amax((-2, -1), keepdim=True)
    return matrix.where(size >= line, 0)


def _compute(matrix: Tensor, power: float, drop: float) -> tuple[Tensor, Tensor]:
    """Return the sum and its gradient. Workers that share a batch share large decompositions."""
    require_finite(matrix)
    workers = team()
    if workers.alone or matrix.numel() < _LEAST_SHARED:
        return _compute_here(matrix, power, drop)
    value, slope = workers.spread(
        lambda own: _compute_here(own, power, drop), matrix.reshape(-1, *matrix.shape[-2:])
    )
    return value.reshape(matrix.shape[:-2]), slope.reshape(matrix.shape)


def _compute_here(matrix: Tensor, power: float, drop: float) -> tuple[Tensor, Tensor]:
    """Return the sum and its gradient by the first method of the plan that succeeds."""
    matrix = _without_subnormal(matrix)
    *first, last = plan_norm(
        *matrix.shape[-2:],
        batch=math.prod(matrix.shape[:-2]),
        dtype=matrix.dtype,
        device=matrix.device,
        power=power,
        drop=drop,
    ).order
    for method in first:
        try:
            result = _METHODS[method](matrix, power, drop)
        except LinAlgError:
            warnings.warn(
                f"the method {method!r} for nuclear norms did not converge; {last!r} is used",
                stacklevel=2,
            )
        else:
            if result is not None and all(bool(part.isfinite().all()) for part in result):
                return result
    return slope_by_svd(matrix, power, drop)


class _ValueAndSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor, power: float, drop: float) -> tuple[Tensor, Tensor]:
        value, slope = _compute(matrix, power, drop)
        ctx.save_for_backward(slope)
        ctx.mark_non_differentiable(slope)
        return value, slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grads[0][..., None, None] * slope, None, None


# An operator for torch.compile, which cannot trace branches that depend on values of the matrix.
# Outside of compilation it is not used, because its first call would load the whole compiler.
_operator = torch.library.custom_op("hilbound::schatten_power", _compute, mutates_args=())


@_operator.register_fake
def _(matrix: Tensor, power: float, drop: float) -> tuple[Tensor, Tensor]:  # noqa: ARG001 - the operator's
    return matrix.new_empty(matrix.shape[:-2]), torch.empty_like(matrix)


def _keep_slope(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:  # noqa: ARG001 - torch's own
    ctx.save_for_backward(output[1])


def _times_slope(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
    (slope,) = ctx.saved_tensors
    return grad[..., None, None] * slope, None, None


_operator.register_autograd(_times_slope, setup_context=_keep_slope)


def _value_and_slope(matrix: Tensor, power: float, drop: float) -> tuple[Tensor, Tensor]:
    """Return the sum, differentiable once, and its gradient."""
    if torch.compiler.is_compiling():
        opaque: tuple[Tensor, Tensor] = _operator(matrix, power, drop)
        return opaque
    pair: tuple[Tensor, Tensor] = _ValueAndSlope.apply(matrix, power, drop)  # type: ignore[no-untyped-call]  # torch's
    return pair


def schatten_power(matrix: Tensor, power: float, drop: float | None = None) -> Tensor:
    r"""Return :math:`S_p(A) = \sum_i s_i(A)^p`, with the gradient :math:`p\, U S^{p-1} V^\top`.

    The algorithm is the one that :func:`~hilbound.engine.spectrum.plan.plan_norm` names.

    Args:
        matrix: Real matrices with shape ``(*, N, M)``.
        power: The power p in (0, 1]; at 1 it is the nuclear norm.
        drop: Singular directions with :math:`s_i \le \text{drop} \cdot s_1` are left out of the
            gradient (never of the value). The default is the rounding unit of the dtype, because a
            computed direction below it is noise. For p < 1 it also limits the gradient: its size in
            a direction is at most :math:`p\,(\text{drop} \cdot s_1)^{p-1}`. A larger ``drop``
            removes the gradient of the tail, and with it the pull towards diverse centres.

    Returns:
        The sums, with shape ``(*)``.

    Raises:
        InputError: If the power is not in (0, 1] or drop not in [0, 1], or the matrix holds NaN or
            infinite values.

    >>> a = torch.tensor([[4.0, 0.0], [0.0, -9.0]], requires_grad=True)
    >>> total = schatten_power(a, 0.5)
    >>> total.backward()
    >>> float(total.detach()), (1 / a.grad.diagonal()).tolist()
    (5.0, [4.0, -6.0])
    """
    check_power(power)
    check_drop(drop)
    if torch.is_grad_enabled() and matrix.requires_grad:
        total: Tensor = _value_and_slope(matrix, power, default_drop(drop, matrix.dtype))[0]
        return total
    return singular_values(matrix).pow(power).sum(-1)


def default_drop(drop: float | None, dtype: torch.dtype) -> float:
    """Return ``drop``, or the rounding unit of the dtype if it is ``None``."""
    return torch.finfo(dtype).eps if drop is None else drop


def nuclear_norm(matrix: Tensor, drop: float | None = None, *, tol: float | None = None) -> Tensor:
    r"""Return :math:`\|A\|_* = \sum_i s_i(A)`, differentiable by the polar factor.

    Args:
        matrix: Real matrices with shape ``(*, N, M)``.
        drop: See :func:`schatten_power`.
        tol: The accepted absolute error, as in :func:`certified_nuclear_norm`. By default, rounding
            errors are accepted.

    Returns:
        The norms, with shape ``(*)``.

    Raises:
        InputError: If the matrix holds NaN or infinite values.

    >>> a = torch.tensor([[3.0, 0.0], [0.0, -4.0]], requires_grad=True)
    >>> norm = nuclear_norm(a)
    >>> norm.backward()
    >>> float(norm.detach()), a.grad.tolist()
    (7.0, [[1.0, 0.0], [0.0, -1.0]])
    """
    if tol is None:
        return schatten_power(matrix, 1.0, drop)
    return certified_nuclear_norm(matrix, drop, tol=tol).value.to(matrix.dtype)


def certified_nuclear_norm(
    matrix: Tensor, drop: float | None = None, *, tol: float | None = None
) -> Certified:
    r"""Return the nuclear norm with a bound of its error.

    The bound costs a few products in float64 (:mod:`hilbound.engine.spectrum.certificate`).

    Args:
        matrix: Real matrices with shape ``(*, N, M)``.
        drop: See :func:`schatten_power`.
        tol: The largest accepted value of the bound. If the bound is larger, the norm and its
            gradient come from a float64 decomposition. By default every bound is accepted.

    Returns:
        The norms and the bounds, each with shape ``(*)``.

    Raises:
        InputError: If the matrix holds NaN or infinite values.

    >>> norm = certified_nuclear_norm(torch.tensor([[3.0, 0.0], [0.0, -4.0]]))
    >>> float(norm.value), bool(norm.error < 1e-6)
    (7.0, True)
    """
    check_drop(drop)
    least = default_drop(drop, matrix.dtype)
    norm = _certified(matrix, least)
    if tol is not None and not bool((norm.error <= tol).all()):
        norm = _certified(matrix.double(), least)
    return norm


def _certified(matrix: Tensor, drop: float) -> Certified:
    norm, slope = _value_and_slope(matrix, 1.0, drop)
    lower, upper = norm_bounds(matrix.detach(), slope.detach())
    value = norm.detach().double()
    return Certified(norm, torch.maximum(value - lower, upper - value).clamp_min(0))
