r"""Every objective as a pure function of two mixtures.

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

import torch
from torch import Tensor
from torch.distributions import Distribution

from hilbound.arguments import require_one_space
from hilbound.engine import gram
from hilbound.engine.inverse import inverse_form
from hilbound.engine.spectrum.certificate import Certified
from hilbound.engine.spectrum.low_rank import Points, low_rank_fidelity
from hilbound.engine.spectrum.norms import (
    certified_nuclear_norm,
    default_drop,
    nuclear_norm,
    schatten_power,
)
from hilbound.engine.spectrum.plan import NormPlan, plan_norm
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture, in_common_unit


def log_scalar_cost(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Return the logarithm of the normalised inner product, to be maximised.

    .. math:: \log \frac{\langle p, q \rangle^2}{\langle q, q \rangle} \le \log \langle p, p \rangle

    by Cauchy-Schwarz, with equality if q is proportional to p. The norm in the denominator is
    largest if all centres coincide, so the ratio discourages collapse.

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
    _require_mixtures(p=p, q=q)
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
    _require_mixtures(p=p, q=q)
    p, q, unit, _ = in_common_unit(p, q)
    return 0.5 * (p.log_inner(p, unit) + q.log_inner(q, unit)) - p.log_inner(q, unit)


def log_fidelity(
    p: GaussianMixture, q: GaussianMixture, drop: float | None = None, *, tol: float | None = None
) -> Tensor:
    r"""Return the logarithm of :func:`fidelity`, finite however far apart p and q are.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and M components.
        drop: See :func:`hilbound.engine.spectrum.norms.nuclear_norm`.
        tol: See :func:`fidelity`. It is a tolerance of the fidelity itself. If the fidelity is
            smaller than the tolerance, the logarithm may be infinite.

    Returns:
        Logarithms with shape ``(*)``, at most 0 up to rounding.
    """
    _require_mixtures(p=p, q=q)
    require_one_space(p.dim, q.dim)
    factored = _factored_fidelity(p, q, drop, tol)
    if factored is not None:
        return factored.value.log()
    return log_schatten_overlap(p, q, 1.0, drop)


def fidelity(
    p: GaussianMixture, q: GaussianMixture, drop: float | None = None, *, tol: float | None = None
) -> Tensor:
    r"""Return the nuclear norm of the weighted cross Gram matrix, in [0, 1], to be maximised.

    .. math:: F = \big\| \operatorname{diag}(\sqrt a)\, k \operatorname{diag}(\sqrt b) \big\|_*
        = \operatorname{tr} \sqrt{\sqrt\rho\, \sigma \sqrt\rho}

    with the overlaps k of normalised components. It is the fidelity of the operators
    :math:`\rho = \sum_i a_i \varphi_i \varphi_i^\top` and
    :math:`\sigma = \sum_j b_j \psi_j \psi_j^\top`. It is 1 exactly if both mixtures have the same
    components and weights, in any order. No pairing is needed. With equal weights, the factor
    :math:`1/\sqrt{NM}` is included. :func:`fidelity_plan` says how it is computed.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and M components.
        drop: See :func:`hilbound.engine.spectrum.norms.nuclear_norm`.
        tol: The accepted absolute error, as in :func:`certified_fidelity`. By default, rounding
            errors are accepted.

    Returns:
        Fidelities with shape ``(*)``.

    >>> import torch
    >>> x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    >>> p, q = GaussianMixture(x, 0.5), GaussianMixture(x.flip(0), 0.5)
    >>> fidelity(p, q).round(decimals=4)
    tensor(1.)
    """
    _require_mixtures(p=p, q=q)
    require_one_space(p.dim, q.dim)
    if tol is not None:
        return certified_fidelity(p, q, drop, tol=tol).value.to(p.means.dtype)
    # Computed from the logarithm, which cannot underflow.
    return log_fidelity(p, q, drop).exp()


def certified_fidelity(
    p: GaussianMixture, q: GaussianMixture, drop: float | None = None, *, tol: float | None = None
) -> Certified:
    """Return the fidelity with a bound of the error of its decomposition.

    With a tolerance, smooth kernels need neither an N x M matrix nor its decomposition. The
    gradient loses the directions whose singular values are below the bound.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and M components.
        drop: See :func:`hilbound.engine.spectrum.norms.nuclear_norm`.
        tol: The accepted absolute error. By default, rounding errors are accepted.

    Returns:
        Fidelities and bounds, each with shape ``(*)``.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), 0.5)
    >>> bool(certified_fidelity(p, p).error < 1e-6)
    True
    """
    _require_mixtures(p=p, q=q)
    require_one_space(p.dim, q.dim)
    factored = _factored_fidelity(p, q, drop, tol)
    if factored is not None:
        return factored
    return certified_nuclear_norm(p.log_overlaps(q).exp(), drop, tol=tol)


def negative_log_likelihood(x: Tensor, q: GaussianMixture, weights: Tensor | None = None) -> Tensor:
    r"""Return :math:`-\sum_i a_i \log q(x_i)` in nats, to be minimised.

    Args:
        x: Points with shape ``(N, d)``, or ``(*, N, d)`` if every mixture has its own points.
        q: A mixture with batch shape ``(*)``.
        weights: The weights :math:`a_i` with shape ``(*, N)``, which sum to one. The default is
            :math:`1/N`, for which the gradient is computed together with the value.

    Returns:
        Means over the points, with shape ``(*)``.

    >>> import math, torch
    >>> q = GaussianMixture(torch.zeros(1, 2), 1 / (2 * math.pi))
    >>> negative_log_likelihood(torch.zeros(3, 2), q).abs().round(decimals=4)
    tensor(0.)
    """
    _require_mixtures(q=q)
    if weights is None:
        return -q.mean_log_prob(x)
    return -(weights.movedim(-1, 0) * q.log_prob(x.movedim(-2, 0))).sum(0)


def schatten_overlap(
    p: GaussianMixture, q: GaussianMixture, power: float, drop: float | None = None
) -> Tensor:
    r"""Return :math:`S_p = \sum_i \sigma_i^p` of the matrix of :func:`fidelity`, to be maximised.

    Its limit is :math:`\min(N, M)^{1-p}`, which a flat spectrum reaches. At power 1 it is the
    fidelity. Below 1 it favours diverse centres, and its maximum is no longer at q = p. This
    counteracts the blur that mini-batches cause, and the power must be calibrated.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and M components.
        power: The power in (0, 1].
        drop: See :func:`hilbound.engine.spectrum.norms.schatten_power`.

    Returns:
        Sums with shape ``(*)``.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [99.0]]), 0.5)
    >>> schatten_overlap(p, p, power=0.5).round(decimals=4)
    tensor(1.4142)
    """
    _require_mixtures(p=p, q=q)
    return log_schatten_overlap(p, q, power, drop).exp()


def log_schatten_overlap(
    p: GaussianMixture, q: GaussianMixture, power: float, drop: float | None = None
) -> Tensor:
    """Return the logarithm of :func:`schatten_overlap`, finite however far apart p and q are.

    The largest overlap is divided out before the exponential, so nothing underflows. At d = 12288
    two mixtures can overlap by 1e-500 and still be compared.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and M components.
        power: The power in (0, 1].
        drop: See :func:`hilbound.engine.spectrum.norms.schatten_power`.
    """
    _require_mixtures(p=p, q=q)
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
    *,
    power: float = 1.0,
) -> Tensor:
    r"""Return a divergence that undoes the mini-batch's bias of the fidelity, to be minimised.

    .. math:: D = \tfrac12 F(p, \tilde p) + \lambda F(q, \tilde q)
        - \tfrac12 F(p, q) - \tfrac12 F(p, \tilde q)

    with independent batches :math:`p, \tilde p` of the data and :math:`q, \tilde q` of the model.
    At :math:`\lambda = \tfrac12` its expectation is 0 at q = p by construction. The self term
    :math:`F(q, \tilde q)` has the same role as :math:`\langle q, q \rangle` in the scalar cost: it
    penalises a model that is too concentrated.

    Args:
        p: A batch of the data, with batch shape ``(*)``.
        p_copy: An independent batch of the data, or ``None`` to leave out the data's own term,
            which has no gradient for the model.
        q: A batch of the model, with the same batch shape.
        q_copy: An independent batch of the model.
        weight: The weight :math:`\lambda` of the model's own term.
        power: The power in (0, 1] of the singular values. Below 1, :func:`schatten_overlap` takes
            the place of the fidelity in all terms.

    Returns:
        Values with shape ``(*)``. A single value can be negative.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> debiased_fidelity(p, p, p, p).abs().round(decimals=4)
    tensor(0.)
    """
    _require_mixtures(p=p, q=q, q_copy=q_copy)

    def overlap(one: GaussianMixture, other: GaussianMixture) -> Tensor:
        return fidelity(one, other) if power == 1 else schatten_overlap(one, other, power)

    own = 0.0 if p_copy is None else 0.5 * overlap(p, p_copy)
    return own + weight * overlap(q, q_copy) - 0.5 * (overlap(p, q) + overlap(p, q_copy))


def distance_nuclear_norm(x: Tensor, y: Tensor) -> Tensor:
    r"""Return the nuclear norm of the squared distances, without the Gaussian, to be minimised.

    .. math:: \Big\| \frac{1}{\sqrt{NM}} \big( |x_i - y_j|^2 \big)_{ij} \Big\|_*
        \ge \frac1N \sum_i |x_i - \bar x|^2

    It is an ablation. The matrix has rank at most d + 2, so its norm depends on little more than
    second moments. Its lower limit, the total variance of x, favours a collapse of y to the mean.

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


def conditional_log_scalar_cost(
    p: GaussianMixture, q: GaussianMixture, *, diagonal: bool = True
) -> Tensor:
    r"""Return the logarithm of the conditional scalar cost, one number, to be maximised.

    .. math:: \log \frac{\big(\tfrac1B \sum_b \langle p_b, q_b \rangle\big)^2}
        {\tfrac1B \sum_b \langle q_b, q_b \rangle}
        \le \log \tfrac1B \sum_b \langle p_b, p_b \rangle

    by Cauchy-Schwarz for the B conditions together. Both means are inside the logarithm, so the
    cost needs a batch of conditions.

    K centres that are drawn from a density overlap with themselves, and the density does not. So
    :math:`\langle q_b, q_b \rangle` of K draws is larger than the squared norm of the density, and
    a perfect sampler stays below the limit. Without the diagonal it is the unbiased

    .. math:: \frac{1}{K(K - 1)} \sum_{k \ne l} \langle q_{bk}, q_{bl} \rangle

    (with weights, divided by :math:`1 - \sum_k b_k^2`). A perfect sampler then reaches the limit
    for any K, **in expectation only**: a single value may pass it. So this form is for training.

    Args:
        p: Mixtures of the data with batch shape ``(B,)``, one for each condition.
        q: Mixtures of the model with the same batch shape.
        diagonal: Whether :math:`\langle q_b, q_b \rangle` has the overlap of each component with
            itself.

    Raises:
        InputError: If the batch shape of a mixture is not ``(B,)``, or the diagonal is left out of
            mixtures of one component.

    >>> import torch
    >>> p = GaussianMixture(torch.zeros(3, 1, 2), 0.5)
    >>> bool(torch.isclose(conditional_log_scalar_cost(p, p), p.log_norm()[0]))
    True
    """
    _require_mixtures(p=p, q=q)
    if len(p.batch_shape) != 1 or p.batch_shape != q.batch_shape:
        raise InputError(
            "p and q must both have batch shape (B,), one mixture for each condition, got "
            f"{tuple(p.batch_shape)} and {tuple(q.batch_shape)}"
        )
    cross = p.log_inner(q)
    own = q.log_norm() if diagonal else log_norm_between(q)
    return 2 * torch.logsumexp(cross, 0) - torch.logsumexp(own, 0) - math.log(len(own))


def log_norm_between(q: GaussianMixture) -> Tensor:
    r"""Return the logarithm of the mean inner product of two different components, shape ``(*)``.

    .. math:: \log \frac{\sum_{k \ne l} b_k b_l \langle q_k, q_l \rangle}{1 - \sum_k b_k^2}

    If the components lie around independent draws of a density, it is an unbiased estimate of that
    density's squared norm, smoothed by the components. :meth:`GaussianMixture.log_norm` has the
    diagonal, too, and is larger.

    Args:
        q: A mixture with batch shape ``(*)`` and at least two components.

    Raises:
        InputError: If there is one component only.

    >>> import torch
    >>> q = GaussianMixture(torch.tensor([[0.0], [0.0], [99.0]]), 0.5)
    >>> inner = GaussianMixture(torch.tensor([[0.0]]), 0.5).log_norm()
    >>> bool(torch.isclose(log_norm_between(q), inner - math.log(3)))
    True
    """
    _require_mixtures(q=q)
    if q.components < 2:
        raise InputError(
            "without its diagonal the norm needs at least 2 components, got 1: take more centres, "
            "or keep the diagonal"
        )
    v, d = q.component_variance, q.dim
    # The logarithm of the norm of each component, in the units of which overlaps have none.
    log_norms = -0.25 * (4 * math.pi * v).log().expand(*v.shape[:-1], d).sum(-1)
    own = 0.5 * q.log_weights + log_norms
    logs = q.log_overlaps(q) + own.unsqueeze(-1) + own.unsqueeze(-2)
    diagonal = torch.eye(q.components, dtype=torch.bool, device=logs.device)
    total = torch.logsumexp(logs.masked_fill(diagonal, -math.inf), (-2, -1))
    return total - torch.log1p(-q.weights.square().sum(-1))


def effective_components(q: GaussianMixture) -> Tensor:
    r"""Return how many different components a mixture has, between 1 and K, with shape ``(*)``.

    .. math:: \Big(\sum_{kl} b_k b_l\, k_{kl}\Big)^{-1}

    with the overlaps :math:`k_{kl}` as similarities. It is 1 if all centres coincide, and K if K
    centres with equal weights are far apart.

    References:
        Measuring diversity: the importance of species similarity (Leinster and Cobbold, 2012).

    >>> import torch
    >>> effective_components(GaussianMixture(torch.tensor([[0.0], [0.0], [99.0]]), 0.5))
    tensor(1.8000)
    """
    _require_mixtures(q=q)
    # The cross Gram matrix holds the roots of the weights; they are wanted whole.
    roots = 0.5 * (q.log_weights.unsqueeze(-1) + q.log_weights.unsqueeze(-2))
    return (-torch.logsumexp(q.log_overlaps(q) + roots, (-2, -1))).exp()


# ------------------------------------------------------------------ costs of pairs


def trace_overlap(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Return the one-to-one overlap, in [0, 1], to be maximised.

    .. math:: T = \sum_i \sqrt{a_i b_i}\, k_{ii}

    It is 1 only if every centre coincides with its own data point. :func:`fidelity` relaxes the
    given pairing to all orthogonal matrices, so it is never smaller.

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
    _require_mixtures(p=p, q=q)
    return log_trace_overlap(p, q).exp()


def log_trace_overlap(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """Return the logarithm of :func:`trace_overlap`, finite however far apart p and q are.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and as many components.

    Raises:
        InputError: If the numbers of components or coordinates differ.
    """
    _require_mixtures(p=p, q=q)
    log_overlaps = _log_pair_overlaps(p, q)  # which checks that there are pairs
    return torch.logsumexp(0.5 * (p.log_weights + q.log_weights) + log_overlaps, -1)


def _log_pair_overlaps(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """Return the log overlaps of component i of p with component i of q, shape ``(*, N)``."""
    require_one_space(p.dim, q.dim)
    _require_pairs(p, q)
    # Every pair is a batch element of its own, so only the diagonal is computed.
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

    by Jensen's inequality. If both mixtures have the weights :math:`a_i`, its exponential is the
    geometric mean of the overlaps, and :func:`trace_overlap` is their arithmetic mean. With equal
    variances it is a squared error, :math:`-\tfrac1{4v} \sum_i a_i |x_i - x'_i|^2`.

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
    _require_mixtures(p=p, q=q)
    return (p.weights * _log_pair_overlaps(p, q)).sum(-1)


def mean_squared_error(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Return :math:`\tfrac1d \sum_i a_i |x_i - x'_i|^2` with shape ``(*)``, to be minimised.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components of weights a.
        q: The model's mixture with the same batch shape and as many components. Its weights and
            the variances of both mixtures are not used.

    Raises:
        InputError: If the numbers of components or coordinates differ.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> mean_squared_error(p, GaussianMixture(torch.tensor([[0.0], [7.0]]), 0.5))
    tensor(2.)
    """
    _require_mixtures(p=p, q=q)
    require_one_space(p.dim, q.dim)
    _require_pairs(p, q)
    return (p.weights.unsqueeze(-1) * (p.means - q.means).square()).sum((-2, -1)) / p.dim


# ------------------------------------------------------------------ fidelities given something


def joint_fidelity(
    p: GaussianMixture,
    y: Tensor,
    q: GaussianMixture,
    z: Tensor,
    variance_y: float | Tensor,
    *,
    drop: float | None = None,
    power: float = 1.0,
) -> Tensor:
    r"""Return the fidelity of pairs (x, y) of the data and of the model, to be maximised.

    .. math:: F = \big\| \operatorname{diag}(\sqrt a)\, (k_x \circ k_y)
        \operatorname{diag}(\sqrt b) \big\|_* \le 1

    It is :func:`fidelity` of the mixtures that :meth:`GaussianMixture.join
    <hilbound.mixture.gaussian.GaussianMixture.join>` makes. The overlap of two pairs is the product
    of the overlaps of their parts, so only centres near the feature of a row can account for the
    row. No centre is paired with a row. As :math:`v_y \to 0`, with the same features on both sides,
    it becomes the mean fidelity of the conditional densities. As :math:`v_y \to \infty` it becomes
    the fidelity of the marginals.

    :func:`debiased_fidelity` and all other costs take joint mixtures, too. Each batch of the model
    is joined with its own features.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        y: Features of the data's components, with shape ``(*, N, F)``.
        q: The model's mixture with the same batch shape and M components.
        z: The features that the model's components were made from, with shape ``(*, M, F)``.
        variance_y: The variance of a component in the features: a number, or a tensor of shape
            ``(F,)``. Between two components it counts twice.
        drop: See :func:`hilbound.engine.spectrum.norms.nuclear_norm`.
        power: The power in (0, 1] of the singular values, as in :func:`schatten_overlap`.

    Returns:
        Fidelities with shape ``(*)``. With a power below 1 the limit is that of
        :func:`schatten_overlap`.

    Raises:
        InputError: If there is not one feature point for each component, or numbers of coordinates
            differ.

    >>> import torch
    >>> x, y = torch.tensor([[0.0], [3.0], [6.0]]), torch.tensor([[0.0], [1.0], [1.0]])
    >>> p, order = GaussianMixture(x, 0.5), [2, 0, 1]
    >>> q = p.select(torch.tensor(order))
    >>> joint_fidelity(p, y, q, y[order], 0.01).round(decimals=4)
    tensor(1.)
    """
    _require_mixtures(p=p, q=q)
    require_one_space(p.dim, q.dim)
    data, model = p.join(y, variance_y), q.join(z, variance_y)
    return fidelity(data, model, drop) if power == 1 else schatten_overlap(data, model, power, drop)


def block_fidelity(
    p: GaussianMixture,
    q: GaussianMixture,
    shares: Tensor | None = None,
    model_shares: Tensor | None = None,
    drop: float | None = None,
    *,
    power: float = 1.0,
) -> Tensor:
    r"""Return the fidelity of two densities that are cut into the same blocks, to be maximised.

    .. math:: F = \sum_c \sqrt{\pi_c \rho_c}\, F_c \le 1

    for blocks c, such as classes or clusters, with shares :math:`\pi` in the data and :math:`\rho`
    in the model. It is :func:`joint_fidelity` with the block as the feature, as :math:`v_y \to 0`:
    the joint Gram matrix is block diagonal, and the blocks are decomposed one by one. Blocks of
    different sizes are padded with components of weight zero.

    Args:
        p: The data's blocks, with batch shape ``(*, C)``.
        q: The model's blocks, with the same batch shape.
        shares: The shares :math:`\pi`, with shape ``(*, C)``, not negative. They are divided by
            their sum. By default all are equal.
        model_shares: The shares :math:`\rho`, by default those of the data.
        drop: See :func:`hilbound.engine.spectrum.norms.nuclear_norm`.
        power: The power s in (0, 1] of the singular values. The sum is then
            :math:`\sum_c (\pi_c \rho_c)^{s/2} S_s` with :func:`schatten_overlap` of each block.

    Returns:
        Fidelities with shape ``(*)``.

    Raises:
        InputError: If the mixtures have no blocks or different numbers of them, or shares are
            negative, all zero, or not one for each block.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[[0.0], [9.0]], [[4.0], [4.0]]]), 0.5)
    >>> block_fidelity(p, p, torch.tensor([0.75, 0.25])).round(decimals=4)
    tensor(1.)
    """
    pi, rho = _shares(p, q, shares, model_shares)
    each = fidelity(p, q, drop) if power == 1 else schatten_overlap(p, q, power, drop)
    return ((pi * rho).pow(0.5 * power) * each).sum(-1)


def certified_block_fidelity(
    p: GaussianMixture,
    q: GaussianMixture,
    shares: Tensor | None = None,
    model_shares: Tensor | None = None,
    drop: float | None = None,
) -> Certified:
    """Return :func:`block_fidelity` with a bound of the error of its decompositions.

    For joint mixtures, :func:`certified_fidelity` does the same.

    Args:
        p: The data's blocks, with batch shape ``(*, C)``.
        q: The model's blocks, with the same batch shape.
        shares: See :func:`block_fidelity`.
        model_shares: See :func:`block_fidelity`.
        drop: See :func:`hilbound.engine.spectrum.norms.nuclear_norm`.

    Returns:
        Fidelities and bounds, each with shape ``(*)``.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[[0.0], [9.0]], [[4.0], [4.0]]]).double(), 0.5)
    >>> bool(certified_block_fidelity(p, p).error < 1e-13)
    True
    """
    pi, rho = _shares(p, q, shares, model_shares)
    each, factor = certified_fidelity(p, q, drop), (pi * rho).sqrt()
    error = (factor.double() * each.error).sum(-1)
    value = (factor * each.value).sum(-1)
    rounding = 4 * pi.shape[-1] * torch.finfo(value.dtype).eps * value.detach().double()
    return Certified(value, error + rounding)


def debiased_block_fidelity(
    p: GaussianMixture,
    p_copy: GaussianMixture | None,
    q: GaussianMixture,
    q_copy: GaussianMixture,
    weight: float = 0.5,
    *,
    shares: Tensor | None = None,
    model_shares: Tensor | None = None,
) -> Tensor:
    r"""Return :func:`debiased_fidelity` with :func:`block_fidelity` in place of the fidelity.

    The mini-batch of a block comes from a much narrower density than all data, so its bias is
    smaller.

    Args:
        p: A batch of the data's blocks, with batch shape ``(*, C)``.
        p_copy: An independent batch of the data, or ``None`` to leave out the data's own term.
        q: A batch of the model's blocks, with the same batch shape.
        q_copy: An independent batch of the model.
        weight: The weight of the model's own term.
        shares: See :func:`block_fidelity`.
        model_shares: See :func:`block_fidelity`.

    Returns:
        Values with shape ``(*)``. A single value can be negative.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[[0.0], [9.0]], [[4.0], [5.0]]]), 0.5)
    >>> debiased_block_fidelity(p, p, p, p).abs().round(decimals=4)
    tensor(0.)
    """
    pi, rho = _shares(p, q, shares, model_shares)
    own = 0.0 if p_copy is None else 0.5 * block_fidelity(p, p_copy, pi)
    cross = block_fidelity(p, q, pi, rho) + block_fidelity(p, q_copy, pi, rho)
    return own + weight * block_fidelity(q, q_copy, rho) - 0.5 * cross


def _shares(
    p: GaussianMixture, q: GaussianMixture, shares: Tensor | None, model_shares: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return both shares, which sum to 1, or raise an InputError."""
    _require_mixtures(p=p, q=q)
    if not p.batch_shape or p.batch_shape != q.batch_shape:
        raise InputError(
            "p and q must both have batch shape (*, C), one mixture for each block, got "
            f"{tuple(p.batch_shape)} and {tuple(q.batch_shape)}"
        )
    pi = p.means.new_ones(p.batch_shape[-1]) if shares is None else shares
    rho = pi if model_shares is None else model_shares
    for name, given in (("shares", pi), ("model_shares", rho)):
        if given.shape[-1:] != p.batch_shape[-1:]:
            raise InputError(
                f"{name} must hold one number for each of the {p.batch_shape[-1]} blocks, got "
                f"shape {tuple(given.shape)}"
            )
        if not bool((given >= 0).all() & (given.sum(-1) > 0).all() & given.isfinite().all()):
            raise InputError(f"{name} must be finite, not negative, and not all zero")
    return pi / pi.sum(-1, keepdim=True), rho / rho.sum(-1, keepdim=True)


# ------------------------------------------------------------------ costs of a span


def log_vector_cost(p: GaussianMixture, q: GaussianMixture, drop: float | None = None) -> Tensor:
    r"""Return the logarithm of the vector-matrix cost, to be maximised.

    .. math:: k^\top G^{-1} k \le \langle p, p \rangle, \qquad
        k_j = \langle p, q_j \rangle, \quad G_{jl} = \langle q_j, q_l \rangle,

    with equality if p lies in the span of the :math:`q_j`. It is the scalar cost at the best
    weights of the components, which may be negative. So it does not depend on the weights of q,
    except that a component of weight zero is absent.

    Args:
        p: The data's mixture with batch shape ``(*)``.
        q: The model's mixture with the same batch shape and M components.
        drop: See :func:`hilbound.engine.inverse.inverse_form`.

    Returns:
        Logarithms with shape ``(*)``, in float64.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [1.0]]), 0.5, torch.tensor([0.9, 0.1]))
    >>> q = GaussianMixture(p.means, 0.5)
    >>> bool(torch.isclose(log_vector_cost(p, q), p.log_norm().double()))
    True
    """
    _require_mixtures(p=p, q=q)
    require_one_space(p.dim, q.dim)
    present = q.log_weights > -math.inf
    # Components are normalised, so the Gram matrix has a unit diagonal.
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
    """Return the overlaps of q's components. Absent ones overlap only with themselves."""
    v = q.component_variance
    overlaps = gram.log_overlaps(q.means, v, q.means, v).exp()
    both = present.unsqueeze(-1) & present.unsqueeze(-2)
    itself = torch.eye(q.components, dtype=torch.bool, device=overlaps.device)
    return overlaps.masked_fill(~(both | itself), 0)


def schur_cost(p: GaussianMixture, q: GaussianMixture, drop: float | None = None) -> Tensor:
    r"""Return the matrix-matrix cost, in [0, 1], to be maximised.

    .. math:: \operatorname{tr}(K_{pq} K_{qq}^{-1} K_{qp}) = \sum_i a_i\, k_i^\top G^{-1} k_i \le
        \operatorname{tr} K_{pp} = 1

    with normalised, weighted overlaps. It is the average share of a data component that lies in the
    span of the model's components, and it is 1 if all of them lie in the span. Like
    :func:`log_vector_cost` it does not depend on the weights of q.

    Args:
        p: The data's mixture with batch shape ``(*)``.
        q: The model's mixture with the same batch shape.
        drop: See :func:`hilbound.engine.inverse.inverse_form`.

    Returns:
        Values with shape ``(*)``, in float64.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [1.0]]), 0.5)
    >>> schur_cost(p, p).round(decimals=4)
    tensor(1., dtype=torch.float64)
    """
    _require_mixtures(p=p, q=q)
    require_one_space(p.dim, q.dim)
    return log_schur_cost(p, q, drop).exp()


def log_schur_cost(p: GaussianMixture, q: GaussianMixture, drop: float | None = None) -> Tensor:
    """Return the logarithm of :func:`schur_cost`, finite however far apart p and q are.

    Args:
        p: The data's mixture with batch shape ``(*)``.
        q: The model's mixture with the same batch shape.
        drop: See :func:`hilbound.engine.inverse.inverse_form`.
    """
    _require_mixtures(p=p, q=q)
    require_one_space(p.dim, q.dim)
    present = q.log_weights > -math.inf
    log_k = gram.log_overlaps(q.means, q.component_variance, p.means, p.component_variance)
    log_k = log_k.masked_fill(~present.unsqueeze(-1), -math.inf)
    largest = log_k.detach().amax((-2, -1))
    k = (log_k - largest[..., None, None]).exp()
    share = (p.weights * inverse_form(_unit_gram(q, present), k, drop)).sum(-1)
    return 2 * largest.double() + share.log()


# ------------------------------------------------------------------ factors of low rank

# A default tolerance is a share of the fidelity, which is not known beforehand. If the fidelity is
# at least this value, the first attempt meets it.
_LEAST_FIDELITY = 0.25


def fidelity_plan(p: GaussianMixture, q: GaussianMixture, tol: float | None = None) -> NormPlan:
    """Return how :func:`fidelity` of these mixtures would be computed.

    >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    >>> fidelity_plan(GaussianMixture(x, 0.5), GaussianMixture(x, 0.5)).method
    'low rank'
    """
    _require_mixtures(p=p, q=q)
    shared = p.component_variance.shape[:-1] == q.component_variance.shape[:-1] == (1,)
    alone = not p.batch_shape and not q.batch_shape
    return plan_norm(
        p.components,
        q.components,
        dim=p.dim if shared and alone else None,
        dtype=p.means.dtype,
        device=p.means.device,
        gradient=torch.is_grad_enabled() and _is_differentiable(p, q),
        tol=tol,
    )


def _is_differentiable(*mixtures: GaussianMixture) -> bool:
    parts = [(m.means, m.component_variance, m.log_weights) for m in mixtures]
    return any(part.requires_grad for three in parts for part in three)


def _factored_fidelity(
    p: GaussianMixture, q: GaussianMixture, drop: float | None = None, tol: float | None = None
) -> Certified | None:
    """Return the fidelity and its certificate, or ``None`` if low rank is not planned or fails.

    Args:
        p: The data's mixture.
        q: The model's mixture.
        drop: See :func:`hilbound.engine.spectrum.norms.nuclear_norm`.
        tol: The largest certificate. The default is a rounding unit of the fidelity itself.
    """
    if tol is None and torch.compiler.is_compiling():
        return None  # a rank is found from numbers, which a graph does not have
    chosen = fidelity_plan(p, q, tol)
    if chosen.method != "low rank":
        return None
    factor = 1 if tol is not None else _LEAST_FIDELITY
    result = low_rank_fidelity(
        _points(p, q),
        chosen.tol * factor,
        chosen.rank_limit,
        default_drop(drop, p.means.dtype),
        dtype=_dtype_of_sums(p.means.dtype),
    )
    if result is None:
        return None
    value, certificate = result
    if tol is None and not certificate <= chosen.tol * float(value.detach()):
        return None
    rounded = value.to(p.means.dtype)
    rounding = torch.finfo(rounded.dtype).eps * rounded.detach().double()
    return Certified(rounded, certificate + rounding)


def _require_mixtures(**given: object) -> None:
    """Raise an InputError for what is no mixture: points are the likeliest mistake."""
    for name, mixture in given.items():
        if not isinstance(mixture, Distribution):
            raise InputError(
                f"{name} must be a GaussianMixture, got {type(mixture).__name__}: of points x, "
                "give GaussianMixture(x, variance)"
            )


def _dtype_of_sums(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype, or float64 if torch may form its products in fewer bits."""
    return dtype if gram.rounding_unit(dtype) <= torch.finfo(dtype).eps else torch.float64


def _points(p: GaussianMixture, q: GaussianMixture) -> Points:
    """Return both sets in float64, centred, in units of the kernel's standard deviation."""
    v, w = p.component_variance.double(), q.component_variance.double()
    centre = p.means.detach().double().mean(-2)
    unit, total = (v + w).rsqrt(), (v + w).detach().squeeze(0)
    origin = torch.zeros_like(centre).unsqueeze(0)
    return Points(
        (p.means.double() - centre) * unit,
        (q.means.double() - centre) * unit,
        p.log_weights.double(),
        q.log_weights.double(),
        gram.log_overlaps(origin, v, origin, w)[0, 0],
        2 * v.detach().squeeze(0) / total,
        2 * w.detach().squeeze(0) / total,
    )
