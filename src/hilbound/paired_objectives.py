r"""Objectives that know which data point a centre belongs to, for models with an encoder.

:class:`ConditionalScalarCost` compares a mixture for every row with the row; :class:`Trace` and
:class:`MeanSquaredError` compare every row with one centre of its own. The last two are tied:
overlaps are :math:`k_n = e^{-|x_n - c_n|^2 / (2v)}`, the trace is their arithmetic mean, and the
squared error is, up to a factor, the logarithm of their geometric mean.
"""

import math

import torch
from torch import Tensor

from hilbound import functional as F
from hilbound.mixture import GaussianMixture
from hilbound.objective import OBJECTIVES, Objective


@OBJECTIVES.register("conditional", "scalar cost of a mixture for every input, limit |p(X|Y)|^2")
class ConditionalScalarCost(Objective):
    r"""Minus :func:`~hilbound.functional.conditional_log_scalar_cost`, one number for a batch.

    In training every condition is a feature drawn around the features of one row, and p the single
    component around that row: the numerator is then an unbiased sample of
    :math:`E_y \langle p(\cdot|y), q(\cdot|y) \rangle`. Such a p cannot show the limit, which is
    the norm of a density of many rows: see :attr:`Objective.tracked`.

    >>> p = GaussianMixture(torch.zeros(3, 1, 2), 0.5)
    >>> bool(torch.isclose(ConditionalScalarCost()(p, p), p.renyi_entropy()[0]))
    True
    """

    logarithmic = True
    tracked = True
    cost_name = "log conditional cost"

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``()`` for mixtures with batch shape ``(B,)``."""
        return -self.log_cost(p, q)

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the cost, with shape ``()``."""
        return F.conditional_log_scalar_cost(p, q)

    def log_limit(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the mean norm of p, with shape ``()``."""
        del q
        return torch.logsumexp(p.log_norm(), 0) - math.log(p.batch_shape[0])


@OBJECTIVES.register("trace", "overlap of every centre with its own data point, limit 1")
class Trace(Objective):
    """Minus :func:`~hilbound.functional.trace_overlap`: the pairing is part of the data.

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

    As a cost with a limit it is read as the geometric mean of their overlaps, at most 1.

    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> MeanSquaredError()(p, GaussianMixture(torch.tensor([[0.0], [7.0]]), 0.5))
    tensor(2.)
    """

    paired = True
    cost_name = "geometric mean of overlaps"

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        return F.mean_squared_error(p, q)

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the mean logarithm of the overlaps, against 0."""
        return F.mean_log_overlap(p, q)
