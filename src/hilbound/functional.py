r"""Every objective once, as a pure function of two mixtures.

``p`` is the data's mixture and ``q`` the model's. All of them compare the two in the Hilbert space
of square-integrable functions, and all of them have a limit that no ``q`` can pass:

- :func:`log_scalar_cost`: :math:`\log \langle p,q\rangle^2 / \langle q,q\rangle`, at most
  :math:`\log \langle p,p\rangle`;
- :func:`fidelity`: the nuclear norm of the cross Gram matrix, at most 1;
- :func:`negative_log_likelihood`: :math:`-E \log q(x)`, in expectation at least :math:`H(p)`.

References:
    Contrastive Entropy Bounds for Density and Conditional Density Decomposition (Hu and Principe,
    2025, arXiv 2511.12903). A Family of Kernelized Matrix Costs for Multiple-Output Mixture Neural
    Networks (Hu and Principe, 2025, arXiv 2509.24076).
"""

import math
from typing import Literal, overload

import torch
from torch import Tensor

from hilbound import gram
from hilbound.arguments import require_one_space
from hilbound.errors import InputError
from hilbound.factored import factored_fidelity
from hilbound.mixture import GaussianMixture
from hilbound.paired_costs import (
    log_trace_overlap,
    mean_log_overlap,
    mean_squared_error,
    trace_overlap,
)
from hilbound.precise import common_unit
from hilbound.projection_costs import log_schur_cost, log_vector_cost, schur_cost
from hilbound.spectrum import nuclear_norm, schatten_power

__all__ = [
    "cauchy_schwarz_divergence",
    "conditional_log_scalar_cost",
    "debiased_fidelity",
    "distance_nuclear_norm",
    "effective_components",
    "fidelity",
    "log_fidelity",
    "log_scalar_cost",
    "log_schatten_overlap",
    "log_schur_cost",
    "log_trace_overlap",
    "log_vector_cost",
    "mean_log_overlap",
    "mean_squared_error",
    "negative_log_likelihood",
    "schatten_overlap",
    "schur_cost",
    "trace_overlap",
]


def log_scalar_cost(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Return the logarithm of the normalised inner product, to be maximised.

    .. math:: \log \frac{\langle p, q \rangle^2}{\langle q, q \rangle} \le \log \langle p, p \rangle

    by Cauchy-Schwarz, with equality where q is proportional to p. The norm in the denominator is
    largest when all centres coincide, so the ratio forbids collapse.

    Args:
        p: The data's mixture with batch shape ``(*)``.
        q: The model's mixture with the same batch shape.

    Returns:
        Logarithms with shape ``(*)``.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [1.0]]), 0.5)
    >>> bool(torch.isclose(log_scalar_cost(p, p), p.log_norm()))
    True
    """
    return 2 * p.log_inner(q) - q.log_norm()


def cauchy_schwarz_divergence(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Return :math:`-\tfrac12 \log \tau \ge 0`, zero only at q = p, with shape ``(*)``.

    .. math:: \tau = \frac{\langle p, q \rangle^2}{\langle p, p \rangle \langle q, q \rangle}

    References:
        Information Theoretic Learning (Principe, 2010).

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0]]), 0.5)
    >>> q = GaussianMixture(torch.tensor([[1.0]]), 0.5)
    >>> cauchy_schwarz_divergence(p, q)
    tensor(0.5000)
    """
    unit = common_unit(p, q)
    return 0.5 * (p.log_inner(p, unit) + q.log_inner(q, unit)) - p.log_inner(q, unit)


def log_fidelity(
    p: GaussianMixture, q: GaussianMixture, drop: float | None = None, *, tol: float | None = None
) -> Tensor:
    r"""Return the logarithm of :func:`fidelity`, finite however far apart p and q are.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and M components.
        drop: See :func:`hilbound.spectrum.nuclear_norm`.
        tol: See :func:`fidelity`. What a given tolerance says is about the fidelity itself, so the
            logarithm of one below it may be infinite.

    Returns:
        Logarithms with shape ``(*)``, at most 0 up to rounding.
    """
    require_one_space(p.dim, q.dim)
    factored = factored_fidelity(p, q, drop, tol)
    if factored is not None:
        return factored[0].log()
    return log_schatten_overlap(p, q, 1.0, drop)


@overload
def fidelity(
    p: GaussianMixture,
    q: GaussianMixture,
    drop: float | None = None,
    *,
    tol: float | None = None,
    return_certificate: Literal[False] = False,
) -> Tensor: ...


@overload
def fidelity(
    p: GaussianMixture,
    q: GaussianMixture,
    drop: float | None = None,
    *,
    tol: float | None = None,
    return_certificate: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def fidelity(
    p: GaussianMixture,
    q: GaussianMixture,
    drop: float | None = None,
    *,
    tol: float | None = None,
    return_certificate: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Return the nuclear norm of the weighted cross Gram matrix, in [0, 1], to be maximised.

    .. math:: F = \big\| \operatorname{diag}(\sqrt a)\, k \operatorname{diag}(\sqrt b) \big\|_*
        = \operatorname{tr} \sqrt{\sqrt\rho\, \sigma \sqrt\rho}

    with the overlaps k of normalised components: the fidelity of the operators
    :math:`\rho = \sum_i a_i \varphi_i \varphi_i^\top` and
    :math:`\sigma = \sum_j b_j \psi_j \psi_j^\top`. It is 1 exactly when both mixtures have the same
    components and weights in any order; no pairing is needed. The factor :math:`1/\sqrt{NM}` of
    equal weights is included. :func:`hilbound.factored.fidelity_plan` says how it is computed.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and M components.
        drop: See :func:`hilbound.spectrum.nuclear_norm`.
        tol: The absolute error that is accepted. Smooth kernels then need neither an N x M matrix
            nor its decomposition, but the gradient loses the directions whose singular values are
            below what the certificate leaves open. The default accepts what rounding does.
        return_certificate: Whether to return a bound of the error of the decomposition too.

    Returns:
        Fidelities with shape ``(*)``; with ``return_certificate`` the bounds too, in float64.

    >>> import torch
    >>> x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    >>> p, q = GaussianMixture(x, 0.5), GaussianMixture(x.flip(0), 0.5)
    >>> fidelity(p, q).round(decimals=4)
    tensor(1.)
    >>> bool(fidelity(p, q, return_certificate=True)[1] < 1e-6)
    True
    """
    if tol is None and not return_certificate:
        return log_fidelity(p, q, drop).exp()
    require_one_space(p.dim, q.dim)
    factored = factored_fidelity(p, q, drop, tol)
    if factored is None:
        matrix = p.log_overlaps(q).exp()
        factored = nuclear_norm(matrix, drop, tol=tol, return_certificate=True)
    return factored if return_certificate else factored[0].to(p.means.dtype)


def negative_log_likelihood(x: Tensor, q: GaussianMixture) -> Tensor:
    r"""Return :math:`-\frac1N \sum_i \log q(x_i)` in nats, to be minimised.

    Args:
        x: Points with shape ``(N, d)``.
        q: A mixture with batch shape ``(*)``.

    Returns:
        Means over the points, with shape ``(*)``.

    >>> import math, torch
    >>> q = GaussianMixture(torch.zeros(1, 2), 1 / (2 * math.pi))
    >>> negative_log_likelihood(torch.zeros(3, 2), q).abs().round(decimals=4)
    tensor(0.)
    """
    return -q.mean_log_prob(x)


def schatten_overlap(
    p: GaussianMixture, q: GaussianMixture, power: float, drop: float | None = None
) -> Tensor:
    r"""Return :math:`S_p = \sum_i \sigma_i^p` of the matrix of :func:`fidelity`, to be maximised.

    Its limit is :math:`\min(N, M)^{1-p}`, reached by a flat spectrum. At power 1 it is the
    fidelity; below 1 it favours diverse centres, and its maximum is no longer at q = p: it is a
    counterweight to the blur that mini-batches cause, to be calibrated.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and M components.
        power: The power in (0, 1].
        drop: See :func:`hilbound.spectrum.schatten_power`.

    Returns:
        Sums with shape ``(*)``.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [99.0]]), 0.5)
    >>> schatten_overlap(p, p, power=0.5).round(decimals=4)
    tensor(1.4142)
    """
    return log_schatten_overlap(p, q, power, drop).exp()


def log_schatten_overlap(
    p: GaussianMixture, q: GaussianMixture, power: float, drop: float | None = None
) -> Tensor:
    """Return the logarithm of :func:`schatten_overlap`, finite however far apart p and q are.

    The largest overlap is taken out before the exponential, so that nothing underflows: at
    d = 12288 two mixtures can overlap by 1e-500 and still be compared.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and M components.
        power: The power in (0, 1].
        drop: See :func:`hilbound.spectrum.schatten_power`.
    """
    log_overlaps = p.log_overlaps(q)
    largest = log_overlaps.detach().amax((-2, -1))
    scaled = (log_overlaps - largest[..., None, None]).exp()
    return power * largest + schatten_power(scaled, power, drop).log()


def debiased_fidelity(
    p: GaussianMixture,
    p_copy: GaussianMixture | None,
    q: GaussianMixture,
    q_copy: GaussianMixture,
    weight: float = 0.5,
) -> Tensor:
    r"""Return a divergence that undoes the mini-batch's bias of the fidelity, to be minimised.

    .. math:: D = \tfrac12 F(p, \tilde p) + \lambda F(q, \tilde q)
        - \tfrac12 F(p, q) - \tfrac12 F(p, \tilde q)

    with independent batches :math:`p, \tilde p` of the data and :math:`q, \tilde q` of the model.
    At :math:`\lambda = \tfrac12` its expectation is 0 at q = p by construction. The self term is to
    the fidelity what :math:`\langle q, q \rangle` is to the scalar cost: the contrast.

    Args:
        p: A batch of the data, with batch shape ``(*)``.
        p_copy: An independent batch of the data, or ``None`` to drop the data's own term, which
            sends no gradient to the model.
        q: A batch of the model, with the same batch shape.
        q_copy: An independent batch of the model.
        weight: The weight :math:`\lambda` of the model's own term.

    Returns:
        Values with shape ``(*)``; a single one can be negative.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> debiased_fidelity(p, p, p, p).abs().round(decimals=4)
    tensor(0.)
    """
    own = 0.0 if p_copy is None else 0.5 * fidelity(p, p_copy)
    return own + weight * fidelity(q, q_copy) - 0.5 * (fidelity(p, q) + fidelity(p, q_copy))


def distance_nuclear_norm(x: Tensor, y: Tensor) -> Tensor:
    r"""Return the nuclear norm of the squared distances, without the Gaussian, to be minimised.

    .. math:: \Big\| \frac{1}{\sqrt{NM}} \big( |x_i - y_j|^2 \big)_{ij} \Big\|_*
        \ge \frac1N \sum_i |x_i - \bar x|^2

    An ablation. The matrix has rank at most d + 2, so its norm sees little more than second
    moments, and its lower limit, the total variance of x, asks y to collapse to the mean.

    Args:
        x: Points with shape ``(*, N, d)``.
        y: Points with shape ``(*, M, d)``.

    Returns:
        Norms with shape ``(*)``, in squared units of the points.

    >>> import torch
    >>> x, y = torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0]])
    >>> distance_nuclear_norm(x, y).round(decimals=4)
    tensor(1.)
    """
    require_one_space(x.shape[-1], y.shape[-1])
    scale = math.sqrt(x.shape[-2] * y.shape[-2])
    return nuclear_norm(gram.squared_distances(x, y) / scale)


def conditional_log_scalar_cost(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Return the logarithm of the conditional scalar cost, one number, to be maximised.

    .. math:: \log \frac{\big(\tfrac1B \sum_b \langle p_b, q_b \rangle\big)^2}
        {\tfrac1B \sum_b \langle q_b, q_b \rangle}
        \le \log \tfrac1B \sum_b \langle p_b, p_b \rangle

    by Cauchy-Schwarz for the B conditions together. Both means sit inside a logarithm, so a batch
    is needed.

    Args:
        p: Mixtures of the data with batch shape ``(B,)``, one for each condition.
        q: Mixtures of the model with the same batch shape.

    Raises:
        InputError: If a mixture has another batch shape than ``(B,)``.

    >>> import torch
    >>> p = GaussianMixture(torch.zeros(3, 1, 2), 0.5)
    >>> bool(torch.isclose(conditional_log_scalar_cost(p, p), p.log_norm()[0]))
    True
    """
    if len(p.batch_shape) != 1 or p.batch_shape != q.batch_shape:
        raise InputError(
            "p and q must both have batch shape (B,), one mixture for each condition, got "
            f"{tuple(p.batch_shape)} and {tuple(q.batch_shape)}"
        )
    cross, own = p.log_inner(q), q.log_norm()
    return 2 * torch.logsumexp(cross, 0) - torch.logsumexp(own, 0) - math.log(len(own))


def effective_components(q: GaussianMixture) -> Tensor:
    r"""Return how many different components a mixture has, between 1 and K, with shape ``(*)``.

    .. math:: \Big(\sum_{kl} b_k b_l\, k_{kl}\Big)^{-1}

    with the overlaps :math:`k_{kl}` as similarities: 1 where all centres coincide, K where K
    equally weighted ones are far apart.

    References:
        Measuring diversity: the importance of species similarity (Leinster and Cobbold, 2012).

    >>> import torch
    >>> effective_components(GaussianMixture(torch.tensor([[0.0], [0.0], [99.0]]), 0.5))
    tensor(1.8000)
    """
    # The cross Gram matrix holds the roots of the weights; they are wanted whole.
    roots = 0.5 * (q.log_weights.unsqueeze(-1) + q.log_weights.unsqueeze(-2))
    return (-torch.logsumexp(q.log_overlaps(q) + roots, (-2, -1))).exp()
