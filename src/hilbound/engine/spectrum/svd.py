"""Nuclear norms and Schatten powers by LAPACK's singular value decomposition.

:mod:`hilbound.engine.spectrum.norms` says what the gradient is. This module computes it, retries a
decomposition that does not converge, and derives the effective rank from singular values.
"""

import math
import warnings

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # public, but not declared so

from hilbound.engine.workers import over_batch
from hilbound.errors import InputError


def require_finite(matrix: Tensor) -> None:
    """Raise an InputError if an entry of the matrix is not finite."""
    # LAPACK refuses NaN but not infinity, and other devices refuse neither.
    if not torch.isfinite(matrix).all():
        raise InputError(
            "matrix holds NaN or infinite values, and its singular values do not exist: "
            "check the means and variances it was made from"
        )


def _decompose(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the thin SVD. If it does not converge, warn and try other ways in float64."""
    require_finite(matrix)
    try:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    except LinAlgError:
        warnings.warn(
            f"the singular value decomposition in {matrix.dtype} did not converge; "
            "it is computed again in float64, in other ways",
            stacklevel=2,
        )
        u, s, vh = _decompose_again(matrix.double())
    return u.to(matrix.dtype), s.to(matrix.dtype), vh.to(matrix.dtype)


def _decompose_again(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the thin SVD with columns in another order or, if that fails, another algorithm."""
    try:
        # With the columns in another order the iteration takes another path.
        u, s, vh = torch.linalg.svd(matrix.flip(-1), full_matrices=False)
        return u, s, vh.flip(-1)
    except LinAlgError:
        return _by_dilation(matrix)


def _by_dilation(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # The symmetric [[0, A], [A', 0]] has the eigenvalues s and -s, with (u, v) and (u, -v).
    # Nothing is squared, so small singular values keep their digits.
    n, m = matrix.shape[-2:]
    dilation = matrix.new_zeros((*matrix.shape[:-2], n + m, n + m))
    dilation[..., :n, n:], dilation[..., n:, :n] = matrix, matrix.mT
    values, vectors = torch.linalg.eigh(dilation)
    largest = slice(-min(n, m), None)
    s = values[..., largest].flip(-1).clamp_min(0)
    pairs = math.sqrt(2) * vectors[..., largest].flip(-1)
    return pairs[..., :n, :], s, pairs[..., n:, :].mT


def slope_by_svd(matrix: Tensor, power: float, drop: float) -> tuple[Tensor, Tensor]:
    """Return the sum of powers of singular values and its gradient, by LAPACK."""
    u, s, vh = _decompose(matrix)
    kept = s > drop * s[..., :1]
    slope = power * s.where(kept, 1).pow(power - 1).where(kept, 0)
    return s.pow(power).sum(-1), (u * slope.unsqueeze(-2)) @ vh


def singular_values(matrix: Tensor) -> Tensor:
    """Return the singular values in descending order, shape ``(*, min(N, M))``, for reports.

    Raises:
        InputError: If the matrix holds NaN or infinite values.
    """
    require_finite(matrix)
    if matrix.ndim == 2:
        return _values(matrix.detach())
    (values,) = over_batch(lambda part: (_values(part),), matrix.reshape(-1, *matrix.shape[-2:]))
    return values.reshape(*matrix.shape[:-2], values.shape[-1])


def _values(matrix: Tensor) -> Tensor:
    try:
        values: Tensor = torch.linalg.svdvals(matrix)
    except LinAlgError:
        _, values, _ = _decompose(matrix)
    return values


def effective_rank(values: Tensor) -> Tensor:
    r"""Return :math:`\exp\big(-\sum_i \pi_i \log \pi_i\big)`, :math:`\pi_i = s_i / \sum_j s_j`.

    Args:
        values: Singular values with shape ``(*, r)``, not negative.

    Returns:
        A number between 1 and r with shape ``(*)``.

    References:
        The effective rank: a measure of effective dimensionality (Roy and Vetterli, 2007).

    >>> effective_rank(torch.tensor([2.0, 2.0, 0.0])).round(decimals=4)
    tensor(2.)
    """
    share = values / values.sum(-1, keepdim=True)
    entropy: Tensor = torch.special.entr(share).sum(-1)
    return entropy.exp()
