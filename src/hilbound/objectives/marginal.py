"""Marginal costs: the density of all centres against that of all rows."""

import math

import torch
from torch import Tensor

from hilbound import functional as F
from hilbound.bounds import Bound, marginal_bound
from hilbound.engine.spectrum.norms import check_drop
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture, precise_log_inner
from hilbound.objectives.base import OBJECTIVES, Objective


@OBJECTIVES.register("nuclear", "nuclear norm of the cross Gram matrix; no pairing, limit 1")
class NuclearNorm(Objective):
    """Minus the :func:`~hilbound.functional.fidelity`, which lies in [0, 1].

    Args:
        drop: See :func:`hilbound.engine.spectrum.norms.schatten_power`.

    Raises:
        InputError: If drop is not in [0, 1].

    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> NuclearNorm()(p, p)
    tensor(-1.)
    """

    marginal = True
    cost_name = "fidelity"

    def __init__(self, drop: float | None = None) -> None:
        super().__init__()
        check_drop(drop)
        self.drop = drop

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        return -F.fidelity(p, q, self.drop)

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the fidelity, against 1."""
        return F.log_fidelity(p, q, self.drop)

    def block_loss(self, p: GaussianMixture, q: GaussianMixture, share: Tensor) -> Tensor:
        """Return minus the :func:`~hilbound.functional.block_fidelity`."""
        return -F.block_fidelity(p, q, share.to(q.means), drop=self.drop)


@OBJECTIVES.register("scalar", "normalised inner product <p,q>^2/<q,q>, limit <p,p>")
class ScalarCost(Objective):
    r"""Minus :func:`~hilbound.functional.log_scalar_cost`, or an estimator of low variance.

    The cost is a ratio of batch averages, so its gradient is biased, and noisy for small batches.
    With ``momentum`` the ratio is linearised around running averages
    :math:`\hat a, \hat s` of :math:`a = \langle p, q \rangle` and
    :math:`s = \langle q, q \rangle`,

    .. math:: -\Big(\frac{a}{\sqrt{\hat s}} - \frac{\hat a\, s}{2 \hat s^{3/2}}\Big)
        \Big/ \frac{\hat a}{\sqrt{\hat s}}
        = -\Big(\frac{a}{\hat a} - \frac{s}{2 \hat s}\Big),

    which is linear in both sums. (The division is by a number without gradient. It keeps the loss
    near minus one half in any dimension.) In evaluation mode the loss is the ratio itself, so
    losses of different steps can be compared, and the averages do not change.

    Args:
        reference: Whether to add the data's own :math:`\log \langle p, p \rangle`. The loss is
            then :math:`-\log \tau`, which is zero at q = p. The gradient is the same.
        momentum: Share of the past in the running averages, in (0, 1), or ``None`` for the ratio
            of every batch.

    Raises:
        InputError: If the momentum is not in (0, 1), or is combined with ``reference``.

    References:
        The linearised ratio: arXiv 2110.04829 (2021).

    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> bool(torch.isclose(ScalarCost()(p, p), p.renyi_entropy()))
    True
    >>> ScalarCost(reference=True)(p, p).abs().round(decimals=4)
    tensor(0.)
    >>> ScalarCost(momentum=0.9)(p, p)
    tensor(-0.5000, dtype=torch.float64)
    """

    marginal = True
    cost_name = "log normalised inner product"
    logarithmic = True
    # Inner products of two densities: both shares come in.
    block_power = 2.0
    log_cross: Tensor
    log_own: Tensor

    def __init__(self, *, reference: bool = False, momentum: float | None = None) -> None:
        super().__init__()
        if momentum is not None and (reference or not 0 < momentum < 1):
            raise InputError(
                f"momentum must lie in (0, 1) and cannot be combined with reference, got {momentum}"
            )
        self.reference = reference
        self.momentum = momentum
        # Declared in float64, because loading a checkpoint rounds them to the dtype declared here.
        for name in ("log_cross", "log_own"):
            self.register_buffer(name, torch.tensor(math.nan, dtype=torch.float64))

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        if self.reference:
            return 2 * F.cauchy_schwarz_divergence(p, q)
        if self.momentum is None:
            return -F.log_scalar_cost(p, q)
        cross, own = precise_log_inner(p, q), precise_log_inner(q, q)
        if not self.training:
            return own - 2 * cross
        self.log_cross = self._average(self.log_cross, cross)
        self.log_own = self._average(self.log_own, own)
        return 0.5 * (own - self.log_own).exp() - (cross - self.log_cross).exp()

    def _average(self, past: Tensor, now: Tensor) -> Tensor:
        """Return the logarithm of the running average. The first batch is the initial value."""
        now = now.detach()
        if self.momentum is None or bool(past.isnan().all()):
            return now
        weights = now.new_tensor([self.momentum, 1 - self.momentum]).log()
        return torch.logaddexp(past.to(now) + weights[0], now + weights[1])

    def bound(
        self, p: GaussianMixture, q: GaussianMixture, generator: torch.Generator | None = None
    ) -> Bound:
        """Return the cost against the norm of p."""
        del generator
        return marginal_bound(p, q)

    def block_loss(self, p: GaussianMixture, q: GaussianMixture, share: Tensor) -> Tensor:
        """Return minus the logarithm of the ratio of both sums over the blocks."""
        bound = self.block_bound(p, q, share)
        return -bound.log_value + (bound.log_limit if self.reference else 0)

    def block_bound(
        self,
        p: GaussianMixture,
        q: GaussianMixture,
        share: Tensor,
        generator: torch.Generator | None = None,
    ) -> Bound:
        r"""Return :math:`\langle p,q\rangle^2/\langle q,q\rangle` against the norm of p."""
        del generator
        cross, own, data = (
            self._log_sum(precise_log_inner(*pair), share) for pair in ((p, q), (q, q), (p, p))
        )
        return Bound(2 * cross - own, data)


@OBJECTIVES.register("vector", "scalar cost at the best weights of the centres, limit <p,p>")
class VectorCost(Objective):
    """Minus :func:`~hilbound.functional.log_vector_cost`.

    Args:
        drop: See :func:`hilbound.engine.inverse.inverse_form`.

    Raises:
        InputError: If drop is not in [0, 1).

    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> bool(torch.isclose(VectorCost()(p, p), p.renyi_entropy().double()))
    True
    """

    cost_name = "log vector-matrix cost"
    logarithmic = True
    block_power = 2.0

    def __init__(self, drop: float | None = None) -> None:
        super().__init__()
        check_drop(drop, all_may_go=False)
        self.drop = drop

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        return -self.log_cost(p, q)

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the cost."""
        return F.log_vector_cost(p, q, self.drop)

    def log_limit(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the norm of p, in the precision of the cost."""
        return precise_log_inner(p, p)

    def block_loss(self, p: GaussianMixture, q: GaussianMixture, share: Tensor) -> Tensor:
        """Return minus the logarithm of the sum over the blocks."""
        return -self._log_sum(self.log_cost(p, q), share)


@OBJECTIVES.register("schur", "share of the data's components in the span of the centres, limit 1")
class SchurCost(Objective):
    """Minus :func:`~hilbound.functional.schur_cost`.

    Args:
        drop: See :func:`hilbound.engine.inverse.inverse_form`.

    Raises:
        InputError: If drop is not in [0, 1).

    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> SchurCost()(p, p)
    tensor(-1., dtype=torch.float64)
    """

    cost_name = "Schur cost"

    def __init__(self, drop: float | None = None) -> None:
        super().__init__()
        check_drop(drop, all_may_go=False)
        self.drop = drop

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        return -F.schur_cost(p, q, self.drop)

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the cost, against 1."""
        return F.log_schur_cost(p, q, self.drop)


@OBJECTIVES.register("distance", "nuclear norm of squared distances: the ablation without Gaussian")
class DistanceNuclearNorm(Objective):
    """The :func:`~hilbound.functional.distance_nuclear_norm`, which does not use variances.

    It is minimised. Its bound is that of the reciprocal, which cannot exceed the reciprocal of the
    data's total variance. Centres that all lie at the mean of the data come closest to this limit.
    They reach it if all points are equally far from the mean. So this ablation shows why the
    Gaussian is needed.

    >>> p = GaussianMixture(torch.tensor([[-1.0], [1.0]]), 0.5)
    >>> q = GaussianMixture(torch.tensor([[0.0]]), 0.5)
    >>> float(DistanceNuclearNorm()(p, q).round(decimals=4))
    1.0
    """

    cost_name = "reciprocal of the nuclear norm of squared distances"
    block_power = None

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        return F.distance_nuclear_norm(p.means, q.means)

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return minus the logarithm of the norm."""
        return -F.distance_nuclear_norm(p.means, q.means).log()

    def log_limit(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return minus the logarithm of the total variance of the data."""
        del q
        return -p.means.var(-2, correction=0).sum(-1).log()


@OBJECTIVES.register("likelihood", "maximum likelihood, the baseline, limit -H(p)")
class Likelihood(Objective):
    """The negative log-likelihood of the centres of p. The variance of p is not used.

    >>> p = GaussianMixture(torch.zeros(3, 1), 1.0)
    >>> Likelihood()(p, p).round(decimals=4)
    tensor(0.9189)
    """

    smoothed = 1
    logarithmic = True
    cost_name = "mean log-likelihood in nats"

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        return F.negative_log_likelihood(p.means, q, None if p.equal_weights else p.weights)

    def bound(
        self, p: GaussianMixture, q: GaussianMixture, generator: torch.Generator | None = None
    ) -> Bound:
        r"""Return :math:`E_p \log q` against :math:`-H(p)`, both at the same draws from p.

        Neither has a closed form for mixtures, so as many points are drawn as p has components. The
        gap is an unbiased estimate of the divergence :math:`KL(p \| q)`. This limit holds in
        expectation only. The limits of the other objectives hold for the computed numbers.
        """
        with torch.no_grad():
            draws = p.sample((p.components,), generator=generator)
        return Bound(q.log_prob(draws).mean(0), p.log_prob(draws).mean(0))

    def block_bound(
        self,
        p: GaussianMixture,
        q: GaussianMixture,
        share: Tensor,
        generator: torch.Generator | None = None,
    ) -> Bound:
        """Return the means over the blocks, because log-likelihoods add up themselves."""
        bound = self.bound(p, q, generator)
        value, limit = bound.log_value, bound.log_limit
        return Bound((share.to(value) * value).sum(-1), (share.to(limit) * limit).sum(-1))
