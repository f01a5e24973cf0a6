r"""Costs that pair every data point with a centre of its own: trace and squared error.

The overlaps of the pairs are :math:`k_n = e^{-|x_n - c_n|^2 / (2 v)}` where variances agree. They
are offered to users by :mod:`hilbound.functional`.
"""

import torch
from torch import Tensor

from hilbound import gram
from hilbound.arguments import require_one_space
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture


def trace_overlap(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Return the one-to-one overlap, in [0, 1], to be maximised.

    .. math:: T = \sum_i \sqrt{a_i b_i}\, k_{ii}

    It is 1 only where every centre sits on its own data point. :func:`fidelity` is its relaxation
    from a given pairing to all orthogonal ones, and never smaller.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and as many components.

    Raises:
        InputError: If the numbers of components or coordinates differ.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> trace_overlap(p, p).round(decimals=4)
    tensor(1.)
    """
    return log_trace_overlap(p, q).exp()


def log_trace_overlap(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """Return the logarithm of :func:`trace_overlap`, finite however far apart p and q are.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and as many components.

    Raises:
        InputError: If the numbers of components or coordinates differ.
    """
    log_overlaps = _log_pair_overlaps(p, q)  # which checks that there are pairs
    return torch.logsumexp(0.5 * (p.log_weights + q.log_weights) + log_overlaps, -1)


def _log_pair_overlaps(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """Return the logarithms of the overlaps of every component with its own, shape ``(*, N)``."""
    require_one_space(p.dim, q.dim)
    _require_pairs(p, q)
    # Every pair is a batch of its own, so that nothing is formed but the diagonal.
    pairs = (
        t.unsqueeze(-2) for t in (p.means, p.component_variance, q.means, q.component_variance)
    )
    return gram.log_overlaps(*pairs)[..., 0, 0]


def _require_pairs(p: GaussianMixture, q: GaussianMixture) -> None:
    if p.components != q.components:
        raise InputError(
            f"p has {p.components} components and q has {q.components}: they are paired one to "
            "one, so both need as many; the fidelity needs no pairing"
        )


def mean_log_overlap(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Return the mean logarithm of the one-to-one overlaps, at most :func:`log_trace_overlap`.

    .. math:: \sum_i a_i \log k_{ii} \le \log \sum_i a_i k_{ii}

    by Jensen's inequality: the geometric mean beside the arithmetic one of :func:`trace_overlap`,
    where both mixtures have the weights :math:`a_i`. With equal variances it is
    :math:`-\tfrac1{4v} \sum_i a_i |x_i - x'_i|^2`, a squared error.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and as many components.

    Raises:
        InputError: If the numbers of components or coordinates differ.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> mean_log_overlap(p, GaussianMixture(torch.tensor([[0.0], [7.0]]), 0.5))
    tensor(-1.)
    """
    return (p.weights * _log_pair_overlaps(p, q)).sum(-1)


def mean_squared_error(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Return :math:`\tfrac1d \sum_i a_i |x_i - x'_i|^2` with shape ``(*)``, to be minimised.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components of weights a.
        q: The model's mixture with the same batch shape and as many components; of both mixtures
            only the centres matter.

    Raises:
        InputError: If the numbers of components or coordinates differ.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> mean_squared_error(p, GaussianMixture(torch.tensor([[0.0], [7.0]]), 0.5))
    tensor(2.)
    """
    require_one_space(p.dim, q.dim)
    _require_pairs(p, q)
    return (p.weights.unsqueeze(-1) * (p.means - q.means).square()).sum((-2, -1)) / p.dim
