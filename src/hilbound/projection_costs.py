r"""Costs that project the data's mixture on the span of the centres: vector-matrix and Schur.

Both are an inverse quadratic form, :math:`k^\top G^{-1} k` with the Gram matrix G of the centres
(:mod:`hilbound.inverse_form`). They are offered to users by :mod:`hilbound.functional`.
"""

import math

import torch
from torch import Tensor

from hilbound import gram
from hilbound.arguments import require_one_space
from hilbound.inverse_form import inverse_form
from hilbound.mixture import GaussianMixture


def log_vector_cost(p: GaussianMixture, q: GaussianMixture, drop: float | None = None) -> Tensor:
    r"""Return the logarithm of the vector-matrix cost, to be maximised.

    .. math:: k^\top G^{-1} k \le \langle p, p \rangle, \qquad
        k_j = \langle p, q_j \rangle, \quad G_{jl} = \langle q_j, q_l \rangle,

    with equality where p lies in the span of the :math:`q_j`. It is the scalar cost at the best
    weights of the components, of any sign, so it does not depend on those that q has (a component
    of weight zero is absent).

    Args:
        p: The data's mixture with batch shape ``(*)``.
        q: The model's mixture with the same batch shape and M components.
        drop: See :func:`hilbound.inverse_form.inverse_form`.

    Returns:
        Logarithms with shape ``(*)``, in float64.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [1.0]]), 0.5, torch.tensor([0.9, 0.1]))
    >>> q = GaussianMixture(p.means, 0.5)
    >>> bool(torch.isclose(log_vector_cost(p, q), p.log_norm().double()))
    True
    """
    require_one_space(p.dim, q.dim)
    present = q.log_weights > -math.inf
    # Unit vectors for components: the Gram matrix then has a unit diagonal.
    log_k = _log_projections(p, q).masked_fill(~present, -math.inf)
    largest = log_k.detach().amax(-1, keepdim=True)
    k = (log_k - largest).exp().unsqueeze(-1)
    return 2 * largest.squeeze(-1) + inverse_form(_unit_gram(q, present), k, drop).squeeze(-1).log()


def _log_projections(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Return :math:`\log \langle p, q_j / |q_j| \rangle` with shape ``(*, M)``, in float64."""
    v = q.component_variance.double()
    row_sums = gram.log_row_sums(
        q.means.double(),
        v,
        p.means.double(),
        p.component_variance.double(),
        p.log_weights.double(),
    )
    log_norms = -0.5 * (4 * math.pi * v).log().expand(*v.shape[:-1], q.dim).sum(-1)
    return row_sums - 0.5 * log_norms


def _unit_gram(q: GaussianMixture, present: Tensor) -> Tensor:
    """Return the overlaps of q's components; absent ones see nothing but themselves."""
    v = q.component_variance
    overlaps = gram.log_overlaps(q.means, v, q.means, v).exp()
    both = present.unsqueeze(-1) & present.unsqueeze(-2)
    itself = torch.eye(q.components, dtype=torch.bool, device=overlaps.device)
    return overlaps.masked_fill(~(both | itself), 0)


def schur_cost(p: GaussianMixture, q: GaussianMixture, drop: float | None = None) -> Tensor:
    r"""Return the matrix-matrix cost, in [0, 1], to be maximised.

    .. math:: \operatorname{tr}(K_{pq} K_{qq}^{-1} K_{qp}) = \sum_i a_i\, k_i^\top G^{-1} k_i \le
        \operatorname{tr} K_{pp} = 1

    with normalised, weighted overlaps: how much of every data component, on average, lies in the
    span of the model's. It is 1 where all of them do. Like :func:`log_vector_cost` it does not
    depend on the weights of q.

    Args:
        p: The data's mixture with batch shape ``(*)``.
        q: The model's mixture with the same batch shape.
        drop: See :func:`hilbound.inverse_form.inverse_form`.

    Returns:
        Values with shape ``(*)``, in float64.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [1.0]]), 0.5)
    >>> schur_cost(p, p).round(decimals=4)
    tensor(1., dtype=torch.float64)
    """
    require_one_space(p.dim, q.dim)
    return log_schur_cost(p, q, drop).exp()


def log_schur_cost(p: GaussianMixture, q: GaussianMixture, drop: float | None = None) -> Tensor:
    """Return the logarithm of :func:`schur_cost`, finite however far apart p and q are.

    Args:
        p: The data's mixture with batch shape ``(*)``.
        q: The model's mixture with the same batch shape.
        drop: See :func:`hilbound.inverse_form.inverse_form`.
    """
    require_one_space(p.dim, q.dim)
    present = q.log_weights > -math.inf
    log_k = gram.log_overlaps(q.means, q.component_variance, p.means, p.component_variance)
    log_k = log_k.masked_fill(~present.unsqueeze(-1), -math.inf)
    largest = log_k.detach().amax((-2, -1))
    k = (log_k - largest[..., None, None]).exp()
    share = (p.weights * inverse_form(_unit_gram(q, present), k, drop)).sum(-1)
    return 2 * largest.double() + share.log()
