"""Costs of pairs: every centre, or every mixture of centres, belongs to one row."""

import math

import torch
from torch import Tensor

from hilbound import functional as F
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.objectives.base import OBJECTIVES, Objective


@OBJECTIVES.register("conditional", "scalar cost of a mixture for every input, limit |p(X|Y)|^2")
class ConditionalScalarCost(Objective):
    r"""Minus :func:`~hilbound.functional.conditional_log_scalar_cost`, one number for a batch.

    In training every condition is a feature drawn around the features of one row, and p is the
    single component around that row. The mean of :math:`\langle p_b, q_b \rangle` is then an
    unbiased sample of :math:`E_y \langle p(\cdot|y), q(\cdot|y) \rangle`. Such a p does not show
    the limit, which is the norm of a density of many rows. See :attr:`Objective.tracked`.

    A centre far from all rows has hardly any gradient, and little weight in the cost, so some
    centres can be lost. With ``wide`` the loss is the mean of two: at the given variances, and at
    ``wide`` times these, where the centre still has a gradient.

    Args:
        diagonal: Whether the norm of q has the overlap of each centre with itself. Without it, a
            perfect sampler reaches the limit for any number of centres, in expectation only. What
            is tracked during training always has it, so that cost ≤ limit holds.
        wide: Factor of the variances in the second half of the loss. At 1 there is no such half.

    Raises:
        InputError: If ``wide`` is below 1.

    >>> p = GaussianMixture(torch.zeros(3, 1, 2), 0.5)
    >>> bool(torch.isclose(ConditionalScalarCost()(p, p), p.renyi_entropy()[0]))
    True
    """

    logarithmic = True
    tracked = True
    block_power = None
    cost_name = "log conditional cost"

    def __init__(self, *, diagonal: bool = True, wide: float = 1.0) -> None:
        super().__init__()
        if not 1 <= wide < math.inf:
            raise InputError(f"wide must be 1 or more and finite, got {wide}: it widens the kernel")
        self.diagonal = diagonal
        self.wide = wide

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``()`` for mixtures with batch shape ``(B,)``."""
        loss = -F.conditional_log_scalar_cost(p, q, diagonal=self.diagonal)
        if self.wide == 1:
            return loss
        wider = (_widened(mixture, self.wide) for mixture in (p, q))
        return 0.5 * (loss - F.conditional_log_scalar_cost(*wider, diagonal=self.diagonal))

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the cost, with shape ``()``."""
        return F.conditional_log_scalar_cost(p, q)

    def log_limit(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the mean norm of p, with shape ``()``."""
        del q
        return torch.logsumexp(p.log_norm(), 0) - math.log(p.batch_shape[0])


def _widened(mixture: GaussianMixture, factor: float) -> GaussianMixture:
    """Return the mixture with larger variances of its components."""
    log_weights = None if mixture.equal_weights else mixture.log_weights
    return GaussianMixture(
        mixture.means, factor * mixture.component_variance, log_weights=log_weights
    )


@OBJECTIVES.register("trace", "overlap of every centre with its own data point, limit 1")
class Trace(Objective):
    """Minus :func:`~hilbound.functional.trace_overlap`. Every centre belongs to one data point.

    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> Trace()(p, p)
    tensor(-1.)
    """

    paired = True
    cost_name = "trace overlap"

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        return -F.trace_overlap(p, q)

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the overlap, against 1."""
        return F.log_trace_overlap(p, q)


@OBJECTIVES.register("mse", "mean squared error of every row's own centre: the usual baseline")
class MeanSquaredError(Objective):
    """The :func:`~hilbound.functional.mean_squared_error` of every centre to its own data point.

    Its bound is that of the geometric mean of the overlaps, which is at most 1.

    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> MeanSquaredError()(p, GaussianMixture(torch.tensor([[0.0], [7.0]]), 0.5))
    tensor(2.)
    """

    paired = True
    block_power = None
    cost_name = "geometric mean of overlaps"

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        return F.mean_squared_error(p, q)

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the mean logarithm of the overlaps, against 0."""
        return F.mean_log_overlap(p, q)
