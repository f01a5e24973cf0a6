"""The objectives as modules: thin, each over one function of :mod:`hilbound.functional`.

An objective takes the data's mixture ``p`` and the model's mixture ``q`` and returns a **loss to be
minimised**; :meth:`Objective.bound` returns the cost against its limit. :data:`OBJECTIVES` is the
one table that training and the command line read.

The one number that users choose is the variance of the kernel between a data point and a centre.
Where both sides are smoothed it is the sum of the two components' variances, and each mixture gets
half; the likelihood smooths the model alone and gives it the whole. :attr:`Objective.smoothed`
says how many sides share the kernel's variance.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from hilbound import functional as F
from hilbound.bounds import Bound, marginal_bound
from hilbound.mixture import GaussianMixture
from hilbound.registry import Registry


class Objective(nn.Module):
    """What the objectives have in common: ``forward(p, q)`` is a loss, ``bound(p, q)`` its limit.

    Attributes:
        smoothed: How many of the two mixtures share the kernel's variance.
        cost_name: What the cost is called on the axis of a plot.
        logarithmic: Whether people read the cost as a logarithm.
    """

    smoothed: ClassVar[int] = 2
    cost_name: ClassVar[str]
    logarithmic: ClassVar[bool] = True

    @classmethod
    def readable(cls, log_cost: float) -> float:
        """Return a logarithm of a cost in the form that people read."""
        return log_cost if cls.logarithmic else math.exp(log_cost)

    def component_variance(self, variance: float) -> float:
        """Return the variance of a component, for a kernel between point and centre of this one."""
        return variance / self.smoothed

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``, to be minimised."""
        raise NotImplementedError

    def bound(
        self, p: GaussianMixture, q: GaussianMixture, generator: torch.Generator | None = None
    ) -> Bound:
        """Return the cost and its limit; ``generator`` draws where an integral needs points."""
        raise NotImplementedError


OBJECTIVES: Registry[type[Objective]] = Registry("objective")


@OBJECTIVES.register("nuclear", "nuclear norm of the cross Gram matrix; no pairing, limit 1")
class NuclearNorm(Objective):
    """Minus the :func:`~hilbound.functional.fidelity`, which lies in [0, 1].

    Args:
        drop: See :func:`hilbound.spectrum.nuclear_norm`.

    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> NuclearNorm()(p, p)
    tensor(-1.)
    """

    cost_name = "fidelity"
    logarithmic = False

    def __init__(self, drop: float | None = None) -> None:
        super().__init__()
        self.drop = drop

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        return -F.fidelity(p, q, self.drop)

    def bound(
        self,
        p: GaussianMixture,
        q: GaussianMixture,
        generator: torch.Generator | None = None,  # noqa: ARG002 - closed form
    ) -> Bound:
        """Return the fidelity against 1."""
        log_value = F.log_fidelity(p, q, self.drop)
        return Bound(log_value, torch.zeros_like(log_value))


@OBJECTIVES.register("scalar", "normalised inner product <p,q>^2/<q,q>, limit <p,p>")
class ScalarCost(Objective):
    """Minus :func:`~hilbound.functional.log_scalar_cost`.

    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> bool(torch.isclose(ScalarCost()(p, p), p.renyi_entropy()))
    True
    """

    cost_name = "log normalised inner product"

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        return -F.log_scalar_cost(p, q)

    def bound(
        self,
        p: GaussianMixture,
        q: GaussianMixture,
        generator: torch.Generator | None = None,  # noqa: ARG002 - closed form
    ) -> Bound:
        """Return the cost against the norm of p."""
        return marginal_bound(p, q)


@OBJECTIVES.register("likelihood", "maximum likelihood, the baseline, limit -H(p)")
class Likelihood(Objective):
    """The negative log-likelihood of the points that p sits on; p's own variance plays no part.

    >>> p = GaussianMixture(torch.zeros(3, 1), 1.0)
    >>> Likelihood()(p, p).round(decimals=4)
    tensor(0.9189)
    """

    smoothed = 1
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
