r"""Inverse quadratic forms of Gram matrices, by Cholesky where that is safe.

Let :math:`f = k^\top G^{-1} k` and :math:`w = G^{-1} k`. The gradients are
:math:`\partial f / \partial k = 2 w` and :math:`\partial f / \partial G = -w w^\top`. The forward
pass has already computed w, so the backward pass is one product.

Eigenvectors of G whose eigenvalues are noise must be left out. Finding them needs the spectrum.
Proving *that there are none* does not:

- The least pivot bounds the least eigenvalue from above. If it is far above the line, so is the
  eigenvalue, as a rule.
- If it is nearer, a second factorisation decides. By Sylvester's law of inertia,
  :math:`G - \sigma I` has a Cholesky factor exactly if all eigenvalues are above :math:`\sigma`.

Two factorisations take :math:`\tfrac23 M^3` operations. An eigen-decomposition takes more than ten
times as many, so it runs only for matrices that need it.

References:
    Matrix Computations (Golub and Van Loan, 2013), on Cholesky and the law of inertia.
"""

from typing import Any

import torch
from torch import Tensor

from hilbound.engine.spectrum.norms import check_drop
from hilbound.errors import InputError


class _Inverse:
    """The inverse of Gram matrices above the line ``drop``."""

    def __init__(self, gram: Tensor, drop: float) -> None:
        _require_finite(gram)
        self._factor, failed = torch.linalg.cholesky_ex(gram)
        self._is_plain = not failed.any() and _is_clear(gram, self._factor, drop)
        if not self._is_plain:
            values, self._basis = torch.linalg.eigh(gram)
            kept = values > drop * values[..., -1:]
            self._inverse = values.where(kept, 1).reciprocal().where(kept, 0).unsqueeze(-1)

    def __matmul__(self, b: Tensor) -> Tensor:
        if self._is_plain:
            return torch.cholesky_solve(b, self._factor)
        solution: Tensor = self._basis @ (self._inverse * (self._basis.mT @ b))
        return solution


def _require_finite(gram: Tensor) -> None:
    if not torch.isfinite(gram).all():
        raise InputError(
            "the Gram matrix holds NaN or infinite values, and its inverse does not exist: "
            "check the means and variances it was made from"
        )


def _is_clear(gram: Tensor, factor: Tensor, drop: float) -> bool:
    """Whether all eigenvalues lie above the line, ``drop`` times the largest one."""
    least = float(factor.diagonal(dim1=-2, dim2=-1).amin()) ** 2
    if least > 100 * gram.shape[-1] * drop * float(gram.diagonal(dim1=-2, dim2=-1).amax()):
        return True
    # The largest row sum bounds the largest eigenvalue, so this line is at least the true one.
    line = drop * gram.abs().sum(-1).amax(-1)
    lowered = gram.clone()
    lowered.diagonal(dim1=-2, dim2=-1).sub_(line.unsqueeze(-1))
    _, failed = torch.linalg.cholesky_ex(lowered)
    return not bool(failed.any())


class _Solve(torch.autograd.Function):
    """The solution of G w = k, differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        gram, vectors, inverse, known = given
        ctx.inverse = inverse
        ctx.save_for_backward(gram, vectors, known)
        solution: Tensor = known.clone()
        return solution

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        gram, vectors, solution = ctx.saved_tensors
        pull = ctx.inverse @ grads[0]
        if torch.is_grad_enabled():
            solution = _Solve.apply(gram, vectors, ctx.inverse, solution)  # type: ignore[no-untyped-call]  # torch's
            pull = _Solve.apply(gram, grads[0], ctx.inverse, pull.detach())  # type: ignore[no-untyped-call]  # torch's
        return -pull @ solution.mT, pull, None, None


class _InverseForm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gram: Tensor, vectors: Tensor, drop: float) -> Tensor:
        ctx.inverse = _Inverse(gram, drop)
        solution = ctx.inverse @ vectors
        ctx.save_for_backward(gram, vectors, solution)
        form: Tensor = (vectors * solution).sum(-2)
        return form

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        gram, vectors, solution = ctx.saved_tensors
        if torch.is_grad_enabled():
            solution = _Solve.apply(gram, vectors, ctx.inverse, solution)  # type: ignore[no-untyped-call]  # torch's
        pull = grads[0].unsqueeze(-2) * solution
        by_gram = -pull @ solution.mT if ctx.needs_input_grad[0] else None
        return by_gram, 2 * pull if ctx.needs_input_grad[1] else None, None


def inverse_form(gram: Tensor, vectors: Tensor, drop: float | None = None) -> Tensor:
    r"""Return :math:`k^\top G^{-1} k` for every column k: the squared norm of a projection.

    Let G be the Gram matrix of unit vectors, and k the inner products of another vector with them.
    The value is the share of that vector in their span. If G is singular to rounding (centres
    coincide), only directions above the line count. Then the value is a little too small, apart
    from the rounding of G itself. It is computed in float64.

    Args:
        gram: Symmetric positive semidefinite matrices with shape ``(*, M, M)``.
        vectors: Columns with shape ``(*, M, N)``.
        drop: Eigenvectors of G with eigenvalues at or below ``drop`` times the largest are left
            out. The default is M times the rounding unit of the dtype of ``gram``. An eigenvalue
            below it is noise, and its reciprocal would dominate the gradient. A larger ``drop``
            lowers the value. The default can lower it, too: with thousands of float32 components
            in one crowd, a lone component beside them falls below the line. Use float64 there.

    Returns:
        Values with shape ``(*, N)``, differentiable twice.

    Raises:
        InputError: If drop is not in [0, 1), or ``gram`` holds NaN or infinite values.

    >>> inverse_form(torch.eye(2), torch.tensor([[3.0], [4.0]]))
    tensor([25.], dtype=torch.float64)
    """
    check_drop(drop, all_may_go=False)
    if drop is None:
        drop = gram.shape[-1] * torch.finfo(gram.dtype).eps
    form: Tensor = _InverseForm.apply(gram.double(), vectors.double(), drop)  # type: ignore[no-untyped-call]  # torch's
    return form
