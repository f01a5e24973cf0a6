"""The objectives as modules: thin, each over one function of :mod:`hilbound.functional`.

What they have in common, and what their variance means, stands in :mod:`hilbound.objective`; those
that know which centre belongs to which data point are in :mod:`hilbound.paired_objectives`, those
that undo the mini-batch's bias of the nuclear norm in :mod:`hilbound.corrected_objectives`.
"""

import math

import torch
from torch import Tensor

from hilbound import functional as F
from hilbound.bounds import Bound, marginal_bound
from hilbound.corrected_objectives import DebiasedNuclearNorm, Schatten
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.objective import OBJECTIVES, Objective, create_objective
from hilbound.paired_objectives import ConditionalScalarCost, MeanSquaredError, Trace
from hilbound.precise import precise_log_inner
from hilbound.spectrum import check_drop

__all__ = [
    "OBJECTIVES",
    "ConditionalScalarCost",
    "DebiasedNuclearNorm",
    "DistanceNuclearNorm",
    "Likelihood",
    "MeanSquaredError",
    "NuclearNorm",
    "Objective",
    "ScalarCost",
    "Schatten",
    "SchurCost",
    "Trace",
    "VectorCost",
    "create_objective",
]


@OBJECTIVES.register("nuclear", "nuclear norm of the cross Gram matrix; no pairing, limit 1")
class NuclearNorm(Objective):
    """Minus the :func:`~hilbound.functional.fidelity`, which lies in [0, 1].

    Args:
        drop: See :func:`hilbound.spectrum.schatten_power`.

    Raises:
        InputError: If drop is not in [0, 1].

    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> NuclearNorm()(p, p)
    tensor(-1.)
    """

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


@OBJECTIVES.register("scalar", "normalised inner product <p,q>^2/<q,q>, limit <p,p>")
class ScalarCost(Objective):
    r"""Minus :func:`~hilbound.functional.log_scalar_cost`, or an estimator of low variance.

    A batch enters the cost through a ratio, so its gradient is biased, and noisy where batches are
    small. With ``momentum`` the ratio is linearised around running averages
    :math:`\hat a, \hat s` of :math:`a = \langle p, q \rangle` and
    :math:`s = \langle q, q \rangle`,

    .. math:: -\Big(\frac{a}{\sqrt{\hat s}} - \frac{\hat a\, s}{2 \hat s^{3/2}}\Big)
        \Big/ \frac{\hat a}{\sqrt{\hat s}}
        = -\Big(\frac{a}{\hat a} - \frac{s}{2 \hat s}\Big),

    which is linear in both sums. (The division, by a number without gradient, keeps the loss near
    one half in any dimension.) In evaluation mode it is the ratio that it estimates, so that losses
    of different times can be compared, and the averages stay as they are.

    Args:
        reference: Whether to add the data's own :math:`\log \langle p, p \rangle`. The loss is
            then :math:`-\log \tau`, zero at q = p; the gradient stays the same.
        momentum: Share of the past in the running averages, in (0, 1), or ``None`` for the ratio
            of every batch.

    Raises:
        InputError: If the momentum is not in (0, 1), or comes together with ``reference``.

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

    cost_name = "log normalised inner product"
    logarithmic = True
    log_cross: Tensor
    log_own: Tensor

    def __init__(self, *, reference: bool = False, momentum: float | None = None) -> None:
        super().__init__()
        if momentum is not None and (reference or not 0 < momentum < 1):
            raise InputError(
                f"momentum must lie in (0, 1) and stand without reference, got {momentum}"
            )
        self.reference = reference
        self.momentum = momentum
        # In float64, as they are computed: a checkpoint would round them to what is declared here.
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
        """Return the logarithm of the running average; the first batch stands for the past."""
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


@OBJECTIVES.register("vector", "scalar cost at the best weights of the centres, limit <p,p>")
class VectorCost(Objective):
    """Minus :func:`~hilbound.functional.log_vector_cost`.

    Args:
        drop: See :func:`hilbound.inverse_form.inverse_form`.

    Raises:
        InputError: If drop is not in [0, 1).

    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> bool(torch.isclose(VectorCost()(p, p), p.renyi_entropy().double()))
    True
    """

    cost_name = "log vector-matrix cost"
    logarithmic = True

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
        return marginal_bound(p, q).log_limit


@OBJECTIVES.register("schur", "share of the data's components in the span of the centres, limit 1")
class SchurCost(Objective):
    """Minus :func:`~hilbound.functional.schur_cost`.

    Args:
        drop: See :func:`hilbound.inverse_form.inverse_form`.

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
    """The :func:`~hilbound.functional.distance_nuclear_norm`; variances play no part.

    It is minimised; as a cost with a limit it is read as its reciprocal, which cannot pass the
    reciprocal of the data's total variance. Centres that all sit at the mean of the data come
    closest, and reach it where all points are equally far from there: the ablation shows what
    the Gaussian is for.

    >>> p = GaussianMixture(torch.tensor([[-1.0], [1.0]]), 0.5)
    >>> q = GaussianMixture(torch.tensor([[0.0]]), 0.5)
    >>> float(DistanceNuclearNorm()(p, q).round(decimals=4))
    1.0
    """

    cost_name = "reciprocal of the nuclear norm of squared distances"

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
    """The negative log-likelihood of the points that p sits on; p's own variance plays no part.

    >>> p = GaussianMixture(torch.zeros(3, 1), 1.0)
    >>> Likelihood()(p, p).round(decimals=4)
    tensor(0.9189)
    """

    smoothed = 1
    logarithmic = True
    cost_name = "mean log-likelihood in nats"

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        points = p.means.movedim(-2, 0)
        return -(p.weights.movedim(-1, 0) * q.log_prob(points)).sum(0)

    def bound(
        self, p: GaussianMixture, q: GaussianMixture, generator: torch.Generator | None = None
    ) -> Bound:
        r"""Return :math:`E_p \log q` against :math:`-H(p)`, both at the same draws from p.

        Neither has a closed form for mixtures. With as many draws as p has components the gap is
        an unbiased estimate of the divergence :math:`KL(p \| q)`; its limit is exact in
        expectation, unlike those of the other objectives, which hold for the numbers themselves.
        """
        with torch.no_grad():
            draws = p.sample((p.components,), generator=generator)
        return Bound(q.log_prob(draws).mean(0), p.log_prob(draws).mean(0))
