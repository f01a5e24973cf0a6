"""What every objective is, and their registry."""

import math
from inspect import signature
from typing import ClassVar

import torch
from torch import Tensor, nn

from hilbound.bounds import Bound
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.registry import Registry, suggest
from hilbound.variance import of_component


class Objective(nn.Module):
    """Base class: ``forward(p, q)`` is a loss, and ``bound(p, q)`` is the cost with its limit.

    Attributes:
        smoothed: How many of the two mixtures share the kernel's variance.
        paired: Whether every centre belongs to one data point. Then both mixtures need the same
            number of components.
        least_rows: The smallest number of rows of a batch, and of a validation set.
        cost_name: The name of the cost on the axis of a plot.
        logarithmic: Whether the cost is shown as a logarithm.
        tracked: Whether the limit is measured on a fixed set of rows during training
            (:class:`hilbound.training.tracking.ConditionalTracker`), because a single batch cannot
            show it.
        marginal: Whether it compares the density of all centres of a batch with that of all rows,
            also if the model has a mixture for each row.
        pairs: Whether it compares pairs of a row and its features
            (:meth:`hilbound.models.autoencoders.FeatureModel.compare_pairs`).
        block_power: The power of the shares in the sum over blocks (:class:`BlockObjective`), or
            ``None`` if the costs of blocks do not add up.
    """

    smoothed: int = 2
    paired: bool = False
    least_rows: int = 1
    cost_name: str
    logarithmic: bool = False
    tracked: ClassVar[bool] = False
    marginal: ClassVar[bool] = False
    pairs: ClassVar[bool] = False
    block_power: float | None = 1.0

    @classmethod
    def readable(cls, log_cost: float) -> float:
        """Convert a logarithm of a cost to the form in which the cost is shown."""
        return log_cost if cls.logarithmic else math.exp(log_cost)

    def component_variance(self, variance: float) -> float:
        """Return the variance of a component, given that of the kernel between point and centre."""
        return of_component(variance, self.smoothed)

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``, to be minimised."""
        raise NotImplementedError

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the cost, which is maximised, with shape ``(*)``."""
        raise NotImplementedError

    def log_limit(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the limit, with shape ``(*)``. By default the limit is 1."""
        del q
        return p.means.new_zeros(p.batch_shape)

    def encoder_loss(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return a term of the loss with shape ``()`` that rewards good features.

        Args:
            p: The component around each row, with batch shape ``(B,)``.
            q: The mixture that was made from the features of the row, with the same batch shape.
        """
        del q
        return p.means.new_zeros(())

    def bound(
        self, p: GaussianMixture, q: GaussianMixture, generator: torch.Generator | None = None
    ) -> Bound:
        """Return the cost and its limit. ``generator`` draws points if an integral needs them."""
        del generator
        return Bound(self.log_cost(p, q), self.log_limit(p, q))

    def block_loss(self, p: GaussianMixture, q: GaussianMixture, share: Tensor) -> Tensor:
        """Return the loss ``()`` of all blocks together. See :class:`BlockObjective`."""
        loss: Tensor = self(p, q)
        return (share.to(loss) ** (self.block_power or 0) * loss).sum(-1)

    def block_bound(
        self,
        p: GaussianMixture,
        q: GaussianMixture,
        share: Tensor,
        generator: torch.Generator | None = None,
    ) -> Bound:
        """Return the cost and the limit ``()`` of all blocks together."""
        bound = self.bound(p, q, generator)
        return Bound(self._log_sum(bound.log_value, share), self._log_sum(bound.log_limit, share))

    def _log_sum(self, logs: Tensor, share: Tensor) -> Tensor:
        """Return the logarithm of the sum over blocks, of logarithms with shape ``(C,)``."""
        return torch.logsumexp((self.block_power or 0) * share.to(logs).log() + logs, -1)


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


def halves(mixture: GaussianMixture) -> tuple[GaussianMixture, GaussianMixture]:
    """Cut the components of a mixture into two halves, which debiased costs compare."""
    half = mixture.components // 2
    if half == 0:
        raise InputError("a debiased batch is cut into halves and needs at least 2 components")
    return mixture.select(slice(0, half)), mixture.select(slice(half, 2 * half))
