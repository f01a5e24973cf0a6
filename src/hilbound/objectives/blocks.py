"""Objectives of classes and clusters: sums over blocks, each with a mixture of its own."""

import torch
from torch import Tensor

from hilbound.bounds import Bound
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.objectives.base import OBJECTIVES, Objective


class BlockObjective(Objective):
    r"""An objective of the density of a point and the block that it belongs to.

    A block holds the rows of one class or of one cluster. Let both densities draw block c with
    probability :math:`\pi_c`, and then a point from :math:`p_c` or :math:`q_c`. Components of
    different blocks do not overlap, so the joint Gram matrix is block diagonal. Its nuclear norm is
    a sum over the blocks, and so are the other costs that overlaps make,

    .. math:: F = \sum_c \pi_c F(p_c, q_c) \le 1, \qquad
        S_p = \sum_c \pi_c^p S_p(p_c, q_c), \qquad
        \operatorname{cost} = \sum_c \pi_c^e \operatorname{cost}_c \le
        \sum_c \pi_c^e \operatorname{limit}_c .

    The power e is 1 for ``nuclear``, ``debiased``, ``trace`` and ``schur``, it is p for
    ``schatten`` and 2 for ``vector``. The scalar cost is the ratio of such sums, and the likelihood
    is the mean :math:`\sum_c \pi_c E_{p_c} \log q_c` of the blocks.

    Args:
        objective: The objective of one block.
        share: The probabilities :math:`\pi_c` of the blocks, with shape ``(C,)`` and sum 1. Every
            one is positive.

    Raises:
        InputError: If the costs of blocks do not add up, or the shares are no probabilities.

    >>> from hilbound.objectives import NuclearNorm
    >>> points = torch.tensor([[[0.0], [9.0]], [[1.0], [5.0]]])
    >>> p = GaussianMixture(points, 0.5)  # two blocks of two points
    >>> BlockObjective(NuclearNorm(), torch.tensor([0.25, 0.75]))(p, p)
    tensor(-1.)
    """

    share: Tensor

    def __init__(self, objective: Objective, share: Tensor) -> None:
        super().__init__()
        refuse_blocks(objective)
        if share.ndim != 1 or bool((share <= 0).any()) or abs(float(share.sum()) - 1) > 1e-4:
            raise InputError(
                f"share must hold a positive probability for each block, with sum 1, got shape "
                f"{tuple(share.shape)} and sum {float(share.sum()):g}"
            )
        self.objective = objective
        self.register_buffer("share", share)
        # What a training asks of an objective, it asks of that of one block.
        self.paired = objective.paired
        self.smoothed = objective.smoothed
        self.least_rows = objective.least_rows
        self.logarithmic = objective.logarithmic
        self.cost_name = objective.cost_name

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``()`` for mixtures with batch shape ``(C,)``."""
        self._require_blocks(p, q)
        return self.objective.block_loss(p, q, self.share)

    @property
    def is_sum(self) -> bool:
        """Whether the loss is a sum over blocks, each of which may be computed elsewhere."""
        own = type(self.objective).block_loss is Objective.block_loss
        return own and not getattr(self.objective, "calibrate", False)

    def loss_of(self, p: GaussianMixture, q: GaussianMixture, blocks: range) -> Tensor:
        """Return the terms of some blocks in the loss, if it is a sum over blocks.

        Args:
            p: Mixtures of the data with batch shape ``(b,)``.
            q: Mixtures of the model with batch shape ``(b,)``.
            blocks: Which of the C blocks they are.
        """
        return self.objective.block_loss(p, q, self.share[blocks.start : blocks.stop])

    def bound(
        self, p: GaussianMixture, q: GaussianMixture, generator: torch.Generator | None = None
    ) -> Bound:
        """Return the cost and its limit, each with shape ``()``."""
        self._require_blocks(p, q)
        return self.objective.block_bound(p, q, self.share, generator)

    def _require_blocks(self, p: GaussianMixture, q: GaussianMixture) -> None:
        wanted = tuple(self.share.shape)
        if (tuple(p.batch_shape), tuple(q.batch_shape)) != (wanted, wanted):
            raise InputError(
                f"p and q must have batch shape {wanted}, a mixture for each block, got "
                f"{tuple(p.batch_shape)} and {tuple(q.batch_shape)}"
            )


def refuse_blocks(objective: Objective) -> None:
    """Raise an InputError for an objective whose costs of blocks do not add up."""
    if getattr(objective, "momentum", None) is not None:
        raise InputError(
            "momentum is for a mixture without blocks, because its averages are those of one "
            "mixture: leave it out"
        )
    if objective.block_power is None:
        known = ", ".join(name for name in OBJECTIVES if OBJECTIVES[name].block_power is not None)
        raise InputError(
            f"{type(objective).__name__} has no meaning for blocks: without a kernel that is zero "
            f"between two blocks, its cost is no sum over them; those with a meaning are {known}"
        )
