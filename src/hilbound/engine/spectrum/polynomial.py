r"""The polar factor by matrix products alone, for devices on which decompositions are slow.

An odd polynomial of A changes its singular values but not its singular vectors. The iteration

.. math:: X \leftarrow X (a I + b\, G + c\, G^2), \qquad G = X^\top X,

composes quintics. Each is the best uniform approximation of 1 on the interval :math:`[l, u]` that
contains the present singular values. A Remez exchange finds it. The iteration starts from A over
:math:`\sqrt{\|A\|_1 \|A\|_\infty}`, which is a bound of :math:`\|A\|_2`. The first l is the
rounding unit, because a direction below it is noise. Two measures limit rounding:

- **A cushion.** If l is tiny, the best quintic nearly reaches zero inside the interval. So it is
  computed for an l that is at least a share of u, and then scaled. No singular value is pushed
  below smaller ones.
- **Split products.** A float32 matrix is the sum of three bfloat16 ones. Six of the nine products,
  summed in float32, carry all its digits. Three products carry 16 bits, which is enough once all
  singular values are large. A last step with all digits makes the factor orthonormal to rounding.

References:
    The Polar Express: optimal matrix sign methods and their application to the Muon algorithm
    (Amsel, Persson, Musco and Gower, 2025). Leveraging the bfloat16 artificial intelligence
    datatype for higher-precision computations (Henry, Tang and Heinecke, 2019).
"""

import functools
import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

# The first version of torch whose bfloat16 products can return float32.
_MIXED_PRODUCTS = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 8)
# The least l for which a quintic is computed, as a share of u.
_CUSHION = 0.024
# By this share, rounding may make singular values larger than computed.
_SAFETY = 1e-2
# From this l on, products of 16 bits are enough.
_LIFTED = 0.1


@functools.cache
def quintics(
    least: float, tolerance: float = 1e-6
) -> tuple[tuple[float, float, float, float], ...]:
    """Return coefficients ``(a, b, c)`` of each step, and the least singular value before it.

    Args:
        least: The least singular value l of a matrix of norm one that has to reach 1.
        tolerance: The accepted distance from 1.

    >>> steps = quintics(1e-7)
    >>> x = 1e-7
    >>> for a, b, c, _ in steps:
    ...     x = a * x + b * x**3 + c * x**5
    >>> abs(x - 1) < 1e-6
    True
    """
    low, high, steps = least, 1.0, []
    while 1 - low > tolerance or high - 1 > tolerance:
        a, b, c = _best_quintic(max(low, _CUSHION * high), high)
        if low < _CUSHION * high:
            # With a cushion, the quintic is rescaled so that it is centred around 1 on [low, high].
            ends = sum(a * x + b * x**3 + c * x**5 for x in (low, high))
            a, b, c = (2 * k / ends for k in (a, b, c))
        if 1 - low > 0.1:
            a, b, c = a / (1 + _SAFETY), b / (1 + _SAFETY) ** 3, c / (1 + _SAFETY) ** 5
        steps.append((a, b, c, low))
        low = a * low + b * low**3 + c * low**5
        high = 2 - low
    return tuple(steps)


def _best_quintic(low: float, high: float) -> tuple[float, float, float]:
    """Return the odd quintic nearest to 1 on an interval, by a Remez exchange."""
    if low > (1 - 1e-5) * high:
        return 15 / 8 / high, -10 / 8 / high**3, 3 / 8 / high**5
    inner, error = np.array([0.75 * low + 0.25 * high, 0.25 * low + 0.75 * high]), math.inf
    for _ in range(100):
        x = np.array([low, *inner, high])
        system = np.stack([x, x**3, x**5, [1, -1, 1, -1]], 1)
        a, b, c, new_error = np.linalg.solve(system, np.ones(4))
        if abs(error - new_error) <= 1e-15:
            break
        error = new_error
        # Where the derivative a + 3 b x^2 + 5 c x^4 vanishes.
        root = math.sqrt(9 * b * b - 20 * a * c)
        inner = np.sqrt((-3 * b + np.array([-root, root])) / (10 * c))
    return float(a), float(b), float(c)


def polar_by_products(
    matrix: Tensor, multiply: Callable[[Tensor, Tensor, bool], Tensor] | None = None
) -> Tensor:
    r"""Return the polar factor of matrices with shape ``(*, N, M)``.

    Args:
        matrix: The matrices.
        multiply: A function ``(a, b, lifted)`` that returns a product. If ``lifted``, 16 bits are
            enough. The default is :func:`split_product` for float32 on a GPU, and otherwise the
            ordinary product.

    >>> a = torch.tensor([[3.0, 0.0], [0.0, -4.0]])
    >>> polar_by_products(a).round(decimals=4) + 0.0
    tensor([[ 1.,  0.],
            [ 0., -1.]])
    """
    if matrix.shape[-2] < matrix.shape[-1]:
        return polar_by_products(matrix.mT, multiply).mT
    if multiply is None:
        split = matrix.device.type == "cuda" and matrix.dtype == torch.float32
        multiply = split_product if split else _plain_product
    sizes = matrix.abs()
    bound = (sizes.sum(-1).amax(-1) * sizes.sum(-2).amax(-1)).sqrt()
    x = matrix / bound.clamp_min(torch.finfo(matrix.dtype).tiny)[..., None, None]
    for a, b, c, low in quintics(torch.finfo(matrix.dtype).eps):
        gram = multiply(x.mT, x, low > _LIFTED)
        inner = c * multiply(gram, gram, low > _LIFTED) + b * gram
        inner.diagonal(dim1=-2, dim2=-1).add_(a)
        x = multiply(x, inner, low > _LIFTED)
    # A last step with all digits.
    return 1.5 * x - 0.5 * multiply(x, multiply(x.mT, x, False), False)


def polynomial_slope(matrix: Tensor, power: float, drop: float) -> tuple[Tensor, Tensor] | None:
    r"""Return the nuclear norm :math:`\langle P, A \rangle` and its gradient P.

    It returns ``None`` for powers other than 1, and for a ``drop`` above rounding level. Directions
    at rounding level get a weight between 0 and 1 in P. All larger ones get 1, so the method cannot
    drop directions above rounding level.
    """
    if power != 1 or drop > torch.finfo(matrix.dtype).eps:
        return None
    polar = polar_by_products(matrix)
    return (polar * matrix).sum((-2, -1), dtype=torch.float64).to(matrix.dtype), polar


def _plain_product(a: Tensor, b: Tensor, lifted: bool = False) -> Tensor:  # noqa: ARG001 - as split_product
    return a @ b


def split_product(a: Tensor, b: Tensor, lifted: bool) -> Tensor:
    """Return a product of float32 matrices from products of bfloat16 ones, summed in float32."""
    parts = 2 if lifted else 3
    left, right = _split(a, parts), _split(b, parts)
    # The smallest are summed first, so that they are rounded only once.
    pairs = sorted(
        ((i, j) for i in range(parts) for j in range(parts) if i + j < parts), key=lambda p: -sum(p)
    )
    total = _bfloat_product(left[pairs[0][0]], right[pairs[0][1]])
    for i, j in pairs[1:]:
        total += _bfloat_product(left[i], right[j])
    return total


def _split(a: Tensor, parts: int) -> list[Tensor]:
    """Return bfloat16 matrices that sum to ``a``, largest first."""
    pieces = []
    for _ in range(parts):
        pieces.append(a.to(torch.bfloat16))
        a = a - pieces[-1].float()
    return pieces


def _bfloat_product(a: Tensor, b: Tensor) -> Tensor:
    if _MIXED_PRODUCTS and a.device.type == "cuda" and a.ndim == 2:
        return torch.mm(a, b, out_dtype=torch.float32)
    # This gives the same numbers, because products of bfloat16 numbers are exact in float32.
    return a.float() @ b.float()
