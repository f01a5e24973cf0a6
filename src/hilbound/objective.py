"""What an objective is, a loss with a limit beside it; and the table of their names.

An objective takes the data's mixture ``p`` and the model's mixture ``q`` and returns a **loss to be
minimised**; :meth:`Objective.bound` returns the cost against its limit. :data:`OBJECTIVES` is the
one table that training and the command line read; :mod:`hilbound.objectives` fills it.

The one number that users choose is the variance of the kernel between a data point and a centre.
Where both sides are smoothed it is the sum of the two components' variances, and each mixture gets
half; the likelihood smooths the model alone and gives it the whole. :attr:`Objective.smoothed`
says how many sides share the kernel's variance.
"""

import math
from inspect import signature
from typing import ClassVar

import torch
from torch import Tensor, nn

from hilbound.bounds import Bound
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.registry import Registry, suggest


class Objective(nn.Module):
    """What the objectives have in common: ``forward(p, q)`` is a loss, ``bound(p, q)`` its limit.

    Attributes:
        smoothed: How many of the two mixtures share the kernel's variance.
        paired: Whether every centre belongs to one data point, so that both need as many.
        cost_name: What the cost is called on the axis of a plot.
        logarithmic: Whether people read the cost as a logarithm.
        tracked: Whether the limit is that of a fixed set of rows, measured beside the training
            (:class:`hilbound.tracking.ConditionalTracker`), because a batch cannot show it.
    """

    smoothed: ClassVar[int] = 2
    paired: ClassVar[bool] = False
    cost_name: ClassVar[str]
    logarithmic: ClassVar[bool] = False
    tracked: ClassVar[bool] = False

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

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the cost that is to be maximised, with shape ``(*)``."""
        raise NotImplementedError

    def log_limit(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of its limit, with shape ``(*)``; most are bounded by 1."""
        del q
        return p.means.new_zeros(p.batch_shape)

    def bound(
        self, p: GaussianMixture, q: GaussianMixture, generator: torch.Generator | None = None
    ) -> Bound:
        """Return the cost and its limit; ``generator`` draws where an integral needs points."""
        del generator
        return Bound(self.log_cost(p, q), self.log_limit(p, q))


OBJECTIVES: Registry[type[Objective]] = Registry("objective")


def create_objective(name: str, **options: float) -> Objective:
    """Build an objective from its name and options.

    Raises:
        InputError: If the name or an option is unknown, or an option is out of range.

    >>> import hilbound.objectives
    >>> create_objective("schatten", power=0.7).power
    0.7
    >>> create_objective("nuclear", power=0.7)
    Traceback (most recent call last):
        ...
    hilbound.errors.InputError: objective 'nuclear' has no option 'power': known: drop
    """
    kind = OBJECTIVES[name]
    known = [option for option in signature(kind).parameters if option not in {"args", "kwargs"}]
    for option in options:
        if option not in known:
            raise InputError(
                f"objective {name!r} has no option {option!r}: {suggest(option, known)}"
                f"known: {', '.join(known) or 'none'}"
            )
    return kind(**options)
