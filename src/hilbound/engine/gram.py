r"""Inner products of Gaussian components, in logarithms.

For two components with means :math:`x, y` and diagonal variances :math:`v, w` (per coordinate
:math:`c`) the product rule gives

.. math::
    \langle N(\cdot - x; v), N(\cdot - y; w) \rangle = N(x - y; v + w)
    = \prod_c (2\pi(v_c + w_c))^{-1/2} \exp\Big(-\frac{(x_c - y_c)^2}{2 (v_c + w_c)}\Big),

and division by both norms gives the overlap, a number in [0, 1]:

.. math::
    k = \exp\Big(-\tfrac12 Q - \tfrac14 \sum_c
        \log\Big(1 + \frac{(v_c - w_c)^2}{4 v_c w_c}\Big)\Big),
    \qquad Q = \sum_c \frac{(x_c - y_c)^2}{v_c + w_c}.

Everything here returns a logarithm. At :math:`d = 12288` and variance 0.01 the densities themselves
are far outside the range of float64.

Variances have shape ``(*, N or 1, d or 1)``. If they are isotropic, or shared by all components,
one matrix product is enough. All others need the differences of coordinates.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

#: The accepted error of a squared distance, relative to the variance that divides it. It becomes
#: the relative error of the kernel.
KERNEL_ERROR = 1e-5
# The most pairs in memory at a time in streamed sums: 64 MiB in float32.
_BLOCK_PAIRS = 2**24
# A GPU runs the kernels of a small tile faster than they can be launched: on an H200, sums over
# 30,000 x 30,000 pairs took 56 ms with small tiles and 16 ms with these (benchmarks/gpu.py).
_BLOCK_PAIRS_OF_A_GPU = 2**28
#: A Gaussian of this variance is 1 at its mean. With this unit, inner products aren't scaled.
PLAIN_UNIT = 1 / (2 * math.pi)


def rounding_unit(dtype: torch.dtype) -> float:
    """Return the relative error of a product within a matrix product of this dtype.

    It depends on ``torch.set_float32_matmul_precision``. At ``"high"`` float32 products may be
    formed in TF32 (10 bits), and at ``"medium"`` in bfloat16 (7 bits). Otherwise it is the rounding
    unit of the dtype.

    >>> rounding_unit(torch.float64)
    2.220446049250313e-16
    """
    unit = torch.finfo(dtype).eps
    if dtype == torch.float32:
        allowed = {"highest": unit, "high": 2.0**-10, "medium": 2.0**-7}
        return allowed[torch.get_float32_matmul_precision()]
    return unit


def exponent_error(
    x: Tensor, y: Tensor, variance: float, dtype: torch.dtype | None = None
) -> float:
    r"""Bound the error of an exponent :math:`|x_i - y_j|^2 / (2v)` that rounding to a dtype causes.

    Let u be the unit of :func:`rounding_unit`, which is twice the largest relative error. Rounding
    moves the points by at most :math:`\tfrac u2 (|x| + |y|)`. So it changes their squared distance
    by at most :math:`u\,|x - y|\,(|x| + |y|) \le 2u\,(|x|^2 + |y|^2)`. The sums of the expanded
    square, computed in pairs or blocks, are allowed the same error again. The total, divided by 2v,
    is the relative error of the kernel. Points are taken relative to the mean of x, as in
    :func:`squared_distances`.

    Args:
        x: Points with shape ``(*, N, d)``.
        y: Points with shape ``(*, M, d)``.
        variance: The variance v that distances are divided by.
        dtype: The precision to predict for, by default that of ``x``.

    >>> x = torch.tensor([[-10.0], [10.0]])
    >>> exponent_error(x, x, 1.0) < 1e-4 < exponent_error(x, x, 1.0, torch.bfloat16)
    True
    """
    centre = x.detach().double().mean(-2, keepdim=True)
    x2, y2 = ((a.detach().double() - centre).square().sum(-1) for a in (x, y))
    return 4 * _rounding(x2, y2, dtype or x.dtype) / (2 * variance)


def _rounding(x2: Tensor, y2: Tensor, dtype: torch.dtype) -> float:
    r"""Return :math:`u (\max |x|^2 + \max |y|^2)`, the possible rounding of a squared distance."""
    return rounding_unit(dtype) * float(x2.detach().amax() + y2.detach().amax())


def is_too_coarse(x2: Tensor, y2: Tensor, dtype: torch.dtype, resolution: float) -> bool:
    """Whether rounding could change a squared distance by more than ``resolution``.

    Args:
        x2: Squares of centred points, with any shape.
        y2: Squares of the other points.
        dtype: The precision of the matrix products.
        resolution: The error that is harmless.

    >>> one = torch.ones(1)
    >>> is_too_coarse(one, one, torch.float32, 1e-6), is_too_coarse(one, one, torch.float32, 1e-7)
    (False, True)
    """
    rounding = _rounding(x2, y2, dtype)
    if rounding > resolution:
        _say_if_tf32_is_left(dtype, rounding, resolution)
    return rounding > resolution


def block_pairs(device: torch.device) -> int:
    """Return how many pairs of components may be held at a time on a device."""
    return _BLOCK_PAIRS_OF_A_GPU if device.type == "cuda" else _BLOCK_PAIRS


def squared_distances(x: Tensor, y: Tensor, resolution: float | Tensor = 0.0) -> Tensor:
    r"""Return :math:`|x_i - y_j|^2`, with shape ``(*, N, M)``.

    The expansion :math:`|x|^2 + |y|^2 - 2 x \cdot y` loses digits, so both sets are centred first.
    If rounding could still exceed ``resolution``, the product is formed in float64. If both
    arguments are the same tensor, the distance of a point to itself is exactly zero.

    Args:
        x: Points with shape ``(*, N, d)``.
        y: Points with shape ``(*, M, d)``.
        resolution: The absolute error that is harmless. At 0, float64 is always used.

    >>> x = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    >>> squared_distances(x, x)
    tensor([[ 0., 25.],
            [25.,  0.]])
    """
    same = x is y
    if torch.compiler.is_compiling():
        least = torch.as_tensor(resolution, dtype=torch.float64)
        opaque: Tensor = _distances_operator(x, y, least, same)
        return opaque
    return _squared_distances(x, y, float(resolution), same=same)


def _squared_distances(x: Tensor, y: Tensor, resolution: float, *, same: bool) -> Tensor:
    dtype = x.dtype
    points, centre = (x, y), x.detach().mean(-2, keepdim=True)
    x, y = x - centre, y - centre
    x2, y2 = x.square().sum(-1), y.square().sum(-1)
    if is_too_coarse(x2, y2, dtype, resolution):
        # From the original points: centring in low precision has already rounded them. With an
        # outlier the mean is far away, and small points lose their digits.
        x, y = (a.double() - centre.double() for a in points)
        x2, y2 = x.square().sum(-1), y.square().sum(-1)
    product = x @ y.mT
    distances = (x2.unsqueeze(-1) + y2.unsqueeze(-2) - 2 * product).clamp_min(0).to(dtype)
    if same:
        itself = torch.eye(x.shape[-2], dtype=torch.bool, device=x.device)
        distances = distances.masked_fill(itself, 0)
    return distances


# An operator for torch.compile, which cannot trace the choice of a precision by the points' sizes.
# Outside of compilation it is not used, because its first call would load the whole compiler.
@torch.library.custom_op("hilbound::squared_distances", mutates_args=())
def _distances_operator(x: Tensor, y: Tensor, resolution: Tensor, same: bool) -> Tensor:
    return _squared_distances(x, y, float(resolution), same=same)


@_distances_operator.register_fake
def _(x: Tensor, y: Tensor, resolution: Tensor, same: bool) -> Tensor:  # noqa: ARG001 - the operator's
    batch = torch.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    return x.new_empty((*batch, x.shape[-2], y.shape[-2]))


def _keep_points(ctx: Any, inputs: Any, output: Tensor) -> None:  # noqa: ARG001 - torch's own
    x, y, _, _ = inputs
    ctx.save_for_backward(x, y)


def _slopes_of_distances(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
    x, y = ctx.saved_tensors
    centre = x.mean(-2, keepdim=True)
    a, b = x - centre, y - centre
    to_x = 2 * (grad.sum(-1, keepdim=True) * a - grad @ b)
    to_y = 2 * (grad.sum(-2).unsqueeze(-1) * b - grad.mT @ a)
    return to_x.sum_to_size(x.shape), to_y.sum_to_size(y.shape), None, None


_distances_operator.register_autograd(_slopes_of_distances, setup_context=_keep_points)


def _say_if_tf32_is_left(dtype: torch.dtype, rounding: float, resolution: float) -> None:
    # The user asked for fewer bits and doesn't get them, so a warning is due. Otherwise the change
    # to float64 needs none.
    if resolution > 0 and rounding_unit(dtype) > torch.finfo(dtype).eps:
        warnings.warn(
            "torch.set_float32_matmul_precision allows products of fewer bits. Their predicted "
            f"error of a squared distance ({rounding:.2g}) is more than is harmless here "
            f"({resolution:.2g}): these products are formed in float64",
            stacklevel=5,
        )


def is_isotropic(v: Tensor, w: Tensor) -> bool:
    """Whether every component has one variance for all coordinates."""
    return v.shape[-1] == 1 and w.shape[-1] == 1


def is_shared(v: Tensor, w: Tensor) -> bool:
    """Whether all components of a mixture have the same variances."""
    return v.shape[-2] == 1 and w.shape[-2] == 1


def _quadratic_form(x: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """Return ``Q`` of the module docstring for every pair, with shape ``(*, N, M)``."""
    if is_isotropic(v, w):
        total = v + w.mT
        resolution = KERNEL_ERROR * total.detach().amin()
        return squared_distances(x, y, resolution) / total
    if is_shared(v, w):
        # Scaling rounds. Points are centred first, so that only small numbers are rounded.
        centre, scale = x.detach().mean(-2, keepdim=True), (v + w).rsqrt()
        scaled = (x - centre) * scale
        other = scaled if x is y else (y - centre) * scale
        return squared_distances(scaled, other, KERNEL_ERROR)
    difference = x.unsqueeze(-2) - y.unsqueeze(-3)
    return (difference.square() / (v.unsqueeze(-2) + w.unsqueeze(-3))).sum(-1)


def _sum_over_coordinates(
    function: Callable[[Tensor, Tensor], Tensor], v: Tensor, w: Tensor, dim: int
) -> Tensor:
    """Return the sum of ``function(v_c, w_c)`` over ``dim`` coordinates for every pair."""
    if is_isotropic(v, w):
        return dim * function(v, w.mT)
    return function(v.unsqueeze(-2), w.unsqueeze(-3)).sum(-1)


def log_inner_products(
    x: Tensor, v: Tensor, y: Tensor, w: Tensor, unit: float = PLAIN_UNIT
) -> Tensor:
    r"""Return :math:`\log \langle p_i, q_j \rangle` for every pair, with shape ``(*, N, M)``.

    Args:
        x: Means with shape ``(*, N, d)``.
        v: Their variances with shape ``(*, N or 1, d or 1)``.
        y: Means with shape ``(*, M, d)``.
        w: Their variances with shape ``(*, M or 1, d or 1)``.
        unit: The products are multiplied by :math:`(2\pi\,\text{unit})^{d/2}`. If only ratios are
            needed, a unit near v + w keeps the logarithms small and saves their digits.

    >>> x, v = torch.zeros(1, 2), torch.full((1, 1), 0.5)
    >>> (log_inner_products(x, v, x, v).exp() * 2 * math.pi).round(decimals=4)
    tensor([[1.]])
    """
    normaliser = _sum_over_coordinates(lambda a, b: ((a + b) / unit).log(), v, w, x.shape[-1])
    return -0.5 * (_quadratic_form(x, v, y, w) + normaliser)


def log_overlaps(x: Tensor, v: Tensor, y: Tensor, w: Tensor) -> Tensor:
    r"""Return :math:`\log k_{ij} \le 0`, inner products of unit vectors, shape ``(*, N, M)``.

    The arguments are those of :func:`log_inner_products`. With equal variances the logarithm is
    :math:`-|x_i - y_j|^2 / (2 (v + w))`, whatever the dimension.

    >>> x, v = torch.tensor([[0.0], [2.0]]), torch.full((1, 1), 0.5)
    >>> log_overlaps(x, v, x, v).exp().round(decimals=4)
    tensor([[1.0000, 0.1353],
            [0.1353, 1.0000]])
    """
    mismatch = _sum_over_coordinates(
        lambda a, b: torch.log1p((a - b) / a * ((a - b) / b) / 4), v, w, x.shape[-1]
    )
    return -0.25 * mismatch - 0.5 * _quadratic_form(x, v, y, w)


def log_row_sums(
    x: Tensor, v: Tensor, y: Tensor, w: Tensor, b: Tensor, *, unit: float = PLAIN_UNIT
) -> Tensor:
    r"""Return :math:`\log \sum_j b_j \langle p_i, q_j \rangle` for every row, shape ``(*, N)``.

    Rows are processed in blocks. The backward pass computes each block again instead of keeping it.
    So memory is O(N + M + block) for any number of pairs.

    Args:
        x: Means with shape ``(*, N, d)``.
        v: Their variances with shape ``(*, N or 1, d or 1)``.
        y: Means with shape ``(*, M, d)``.
        w: Their variances with shape ``(*, M or 1, d or 1)``.
        b: Logarithms of their weights, with shape ``(*, M)``.
        unit: See :func:`log_inner_products`.
    """
    batch = torch.broadcast_shapes(x.shape[:-2], b.shape[:-1])
    # Without a matrix product a pair needs d differences in memory.
    per_pair = 1 if is_isotropic(v, w) or is_shared(v, w) else x.shape[-1]
    rows = max(1, block_pairs(x.device) // max(1, math.prod(batch) * b.shape[-1] * per_pair))
    if x.shape[-2] <= rows:
        return _log_row_sums_of_block(x, v, y, w, b, unit=unit)
    per_row = v.shape[-2] > 1
    blocks = [
        checkpoint(
            _log_row_sums_of_block,
            x[..., i : i + rows, :],
            v[..., i : i + rows, :] if per_row else v,
            y,
            w,
            b,
            unit=unit,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for i in range(0, x.shape[-2], rows)
    ]
    return torch.cat(blocks, -1)


def _log_row_sums_of_block(
    x: Tensor, v: Tensor, y: Tensor, w: Tensor, b: Tensor, *, unit: float
) -> Tensor:
    return torch.logsumexp(log_inner_products(x, v, y, w, unit) + b.unsqueeze(-2), -1)
