r"""Bounds of the error of a computed nuclear norm, by products and Cholesky factorisations only.

The nuclear norm is :math:`\max_{\|P\|_2 \le 1} \langle P, A \rangle`, so any orthonormal P gives a
lower bound. For an upper bound, write :math:`A = P H + (A - P H)` with :math:`H = P^\top A`. Split
:math:`H = H_s + H_a` into its symmetric and antisymmetric parts. Then

.. math:: \|A\|_* \le \operatorname{tr}(H_s + 2\tau I) + \sqrt m\, \|H_a\|_F
    + \sqrt m\, \|A - P H\|_F

for a :math:`\tau` with :math:`H_s + \tau I \succeq 0`, which a Cholesky factorisation proves. If P
is the polar factor, both bounds agree up to the error of P.

References:
    Functions of Matrices (Higham, 2008), chapter 8. The Newton and Schulz iteration that makes the
    factor orthonormal: the same, section 8.3.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Certified(NamedTuple):
    """A value and a bound of its error.

    Args:
        value: The values, with shape ``(*)``.
        error: The largest possible error of each, with shape ``(*)``, in float64.
    """

    value: Tensor
    error: Tensor


def norm_bounds(matrix: Tensor, polar: Tensor) -> tuple[Tensor, Tensor]:
    """Return a lower and an upper bound of the nuclear norm, in float64, with shape ``(*)``.

    Args:
        matrix: Matrices with shape ``(*, N, M)``.
        polar: Approximate polar factors of the same shape. Directions may be missing.

    >>> lower, upper = norm_bounds(torch.diag(torch.tensor([3.0, 4.0])), torch.eye(2))
    >>> float(lower.round(decimals=9)), bool(lower <= 7 <= upper <= lower + 1e-9)
    (7.0, True)
    """
    if matrix.shape[-2] < matrix.shape[-1]:
        matrix, polar = matrix.mT, polar.mT
    a, p = matrix.double(), _orthonormalised(polar.double())
    m = a.shape[-1]
    h = p.mT @ a
    symmetric, skew = 0.5 * (h + h.mT), 0.5 * (h - h.mT)
    trace = h.diagonal(dim1=-2, dim2=-1).sum(-1)
    # The factor may not be orthonormal, if the iteration started from too rough a factor.
    defect = torch.linalg.matrix_norm(p.mT @ p @ p.mT @ p - p.mT @ p)
    stretch = (1 + defect).sqrt()
    rest = torch.linalg.matrix_norm(skew) + torch.linalg.matrix_norm(a - p @ h)
    above = trace + 2 * m * _shift(symmetric, defect)
    rounding = 4 * m * torch.finfo(a.dtype).eps * torch.linalg.matrix_norm(a)
    return trace / stretch - rounding, stretch * above + m**0.5 * rest * stretch + rounding


def _orthonormalised(p: Tensor, steps: int = 3) -> Tensor:
    """Return the nearest partial isometry, up to a high power of the initial error."""
    for _ in range(steps):
        p = 1.5 * p - 0.5 * p @ (p.mT @ p)
    return p


def _shift(h: Tensor, start: Tensor) -> Tensor:
    """Return numbers that make ``h`` positive semidefinite when added to its diagonal."""
    scale = torch.linalg.matrix_norm(h).clamp_min(torch.finfo(h.dtype).tiny)
    shift = scale * (start.clamp_max(1) + 1e-14 * h.shape[-1])
    eye = torch.eye(h.shape[-1], dtype=h.dtype, device=h.device)
    while True:
        failed = torch.linalg.cholesky_ex(h + shift[..., None, None] * eye).info > 0
        if not failed.any() or bool((shift >= scale).all()):
            # The Frobenius norm is always a large enough shift.
            enough: Tensor = shift.clamp_max(scale)
            return enough
        shift = torch.where(failed, 4 * shift, shift)
