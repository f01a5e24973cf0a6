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

from torch import Tensor

from hilbound.mixture import GaussianMixture
from hilbound.spectrum import nuclear_norm


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


def common_unit(p: GaussianMixture, q: GaussianMixture) -> float:
    r"""Return the unit for :meth:`GaussianMixture.log_inner` in which ratios keep their digits.

    It is the mean variance of the kernel between p and q. In plain units the factor
    :math:`(2\pi v)^{-d/2}` makes logarithms of about :math:`10^4` at d = 12288, which float32
    resolves to 0.001; it cancels in every ratio, and in this unit it is never formed.
    """
    return float(p.component_variance.detach().mean() + q.component_variance.detach().mean())


def log_fidelity(p: GaussianMixture, q: GaussianMixture, drop: float | None = None) -> Tensor:
    r"""Return the logarithm of :func:`fidelity`, finite however far apart p and q are.

    The largest overlap is taken out before the exponential, so that nothing underflows: at
    d = 12288 two mixtures can overlap by :math:`10^{-500}` and still be compared.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and M components.
        drop: See :func:`hilbound.spectrum.nuclear_norm`.

    Returns:
        Logarithms with shape ``(*)``, at most 0 up to rounding.
    """
    log_overlaps = p.log_overlaps(q)
    largest = log_overlaps.detach().amax((-2, -1))
    return largest + nuclear_norm((log_overlaps - largest[..., None, None]).exp(), drop).log()


def fidelity(p: GaussianMixture, q: GaussianMixture, drop: float | None = None) -> Tensor:
    r"""Return the nuclear norm of the weighted cross Gram matrix, in [0, 1], to be maximised.

    .. math:: F = \big\| \operatorname{diag}(\sqrt a)\, k \operatorname{diag}(\sqrt b) \big\|_*
        = \operatorname{tr} \sqrt{\sqrt\rho\, \sigma \sqrt\rho}

    with the overlaps k of normalised components: the fidelity of the operators
    :math:`\rho = \sum_i a_i \varphi_i \varphi_i^\top` and
    :math:`\sigma = \sum_j b_j \psi_j \psi_j^\top`. It is 1 exactly when both mixtures have the same
    components and weights in any order; no pairing is needed. The factor :math:`1/\sqrt{NM}` of
    equal weights is included.

    Args:
        p: The data's mixture with batch shape ``(*)`` and N components.
        q: The model's mixture with the same batch shape and M components.
        drop: See :func:`hilbound.spectrum.nuclear_norm`.

    Returns:
        Fidelities with shape ``(*)``.

    >>> import torch
    >>> x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    >>> p, q = GaussianMixture(x, 0.5), GaussianMixture(x.flip(0), 0.5)
    >>> fidelity(p, q).round(decimals=4)
    tensor(1.)
    """
    return log_fidelity(p, q, drop).exp()


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
    points = x.reshape(x.shape[0], *(1,) * len(q.batch_shape), x.shape[-1])
    return -q.log_prob(points).mean(0)
