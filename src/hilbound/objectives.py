"""The objectives as modules. Each is a thin layer over a function of :mod:`hilbound.functional`.

:class:`Objective` is their base class. There are marginal costs, costs of pairs (every centre
belongs to one data point), and costs that correct the mini-batch bias of the nuclear norm.
"""

import math
from inspect import signature
from typing import ClassVar

import torch
from torch import Tensor, nn

from hilbound import functional as F
from hilbound.bounds import Bound, marginal_bound
from hilbound.engine.spectrum.norms import check_drop, check_power
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture, precise_log_inner
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
    if isinstance(objective, ScalarCost) and objective.momentum is not None:
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


# ------------------------------------------------------------------ marginal costs


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


# ------------------------------------------------------------------ costs of pairs


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


# ------------------------------------------------------------------ the mini-batch's bias undone

# Steps between two calibrations. They need two further fidelities, which then cost little.
_CALIBRATE_EVERY = 5

_CALIBRATION_RATE = 0.1


@OBJECTIVES.register("schatten", "singular values to a power below 1: more diversity than nuclear")
class Schatten(Objective):
    """Minus :func:`~hilbound.functional.schatten_overlap`.

    Args:
        power: The power in (0, 1]; 1 is the nuclear norm.
        drop: See :func:`hilbound.engine.spectrum.norms.schatten_power`.

    Raises:
        InputError: If the power is not in (0, 1], or drop not in [0, 1].

    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
    >>> Schatten(power=1.0)(p, p)
    tensor(-1.)
    """

    cost_name = "Schatten overlap"

    def __init__(self, power: float = 0.85, drop: float | None = None) -> None:
        super().__init__()
        check_power(power)
        self.power = power
        self.block_power = power
        check_drop(drop)
        self.drop = drop

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        return -F.schatten_overlap(p, q, self.power, self.drop)

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the sum."""
        return F.log_schatten_overlap(p, q, self.power, self.drop)

    def block_loss(self, p: GaussianMixture, q: GaussianMixture, share: Tensor) -> Tensor:
        """Return minus the :func:`~hilbound.functional.block_fidelity` with the power."""
        return -F.block_fidelity(p, q, share.to(q.means), drop=self.drop, power=self.power)

    def log_limit(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the limit, which a flat spectrum reaches."""
        rank = min(p.components, q.components)
        return super().log_limit(p, q) + (1 - self.power) * math.log(rank)


@OBJECTIVES.register("debiased", "nuclear norm without the mini-batch's bias")
class DebiasedNuclearNorm(Objective):
    r"""The :func:`~hilbound.functional.debiased_fidelity` of the halves of two batches.

    Both mixtures are cut into halves of their components. If components are drawn independently,
    the halves are independent batches. If their number is odd, one component is left out. So all
    terms compare batches of one size, and their biases cancel. (The second half of the data is used
    only for the reference and the calibration.)

    A network that cannot fit narrow structures of the data spreads beside them. It is then more
    diverse than the data, and gains recall at the cost of precision. ``calibrate`` finds the weight
    at which two batches of the model overlap as much as two batches of the data,

    .. math:: F(q, \tilde q) = F(p, \tilde p), \qquad
        \lambda \leftarrow \lambda + \eta \Big(\frac{F(q, \tilde q)}{F(p, \tilde p)} - 1\Big),

    with the weight kept in [0, 1]. At q = p the overlaps agree, whatever the weight. The step size
    is :math:`\eta = 0.1`, at every fifth training step. The weight is saved with the objective's
    state.

    Args:
        weight: Weight of the model's own term. If it is calibrated, this is the initial value. At
            0.5 the divergence is unbiased. A lower weight rewards diversity less.
        reference: Whether to compute the data's own term, which has no gradient for the model.
        calibrate: Whether the weight changes during training.

    Raises:
        InputError: If the weight is negative, or above 1 and calibrated, or a mixture has only one
            component.

    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0], [0.0], [9.0]]), 0.5)
    >>> DebiasedNuclearNorm(reference=True)(p, p).abs().round(decimals=4)
    tensor(0.)
    """

    cost_name = "fidelity"
    least_rows = 2
    weight: Tensor
    calls: Tensor

    def __init__(
        self, weight: float = 0.5, *, reference: bool = False, calibrate: bool = False
    ) -> None:
        super().__init__()
        if not 0 <= weight < math.inf or (calibrate and weight > 1):
            most = " and at most 1, to be calibrated" if calibrate else ""
            raise InputError(f"weight must be 0 or more{most}, got {weight}: 0.5 is unbiased")
        self.reference = reference
        self.calibrate = calibrate
        self.register_buffer("weight", torch.tensor(float(weight), dtype=torch.float64))
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        return F.debiased_fidelity(*self._batches(p, q), float(self.weight))

    def block_loss(self, p: GaussianMixture, q: GaussianMixture, share: Tensor) -> Tensor:
        """Return the :func:`~hilbound.functional.debiased_block_fidelity`."""
        return F.debiased_block_fidelity(
            *self._batches(p, q), float(self.weight), shares=share.to(q.means)
        )

    def _batches(
        self, p: GaussianMixture, q: GaussianMixture
    ) -> tuple[GaussianMixture, GaussianMixture | None, GaussianMixture, GaussianMixture]:
        """Return two batches of the data and two of the model, and move the weight if it is due."""
        first, second = _halves(q)
        data, copy = _halves(p)
        if self.calibrate and self.training:
            if int(self.calls) % _CALIBRATE_EVERY == 0:
                self._move(data, copy, first, second)
            self.calls += 1
        return data, copy if self.reference else None, first, second

    @torch.no_grad()
    def _move(
        self,
        p: GaussianMixture,
        p_copy: GaussianMixture,
        q: GaussianMixture,
        q_copy: GaussianMixture,
    ) -> None:
        data, model = F.fidelity(p, p_copy).mean(), F.fidelity(q, q_copy).mean()
        # Without any overlap there is nothing to compare.
        if float(data) > 0:
            moved = self.weight + _CALIBRATION_RATE * (model / data - 1).to(self.weight)
            self.weight.copy_(moved.clamp(0, 1))

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the plain fidelity, because the divergence has no limit."""
        return F.log_fidelity(p, q)


def _halves(mixture: GaussianMixture) -> tuple[GaussianMixture, GaussianMixture]:
    half = mixture.components // 2
    if half == 0:
        raise InputError("a debiased batch is cut into halves and needs at least 2 components")
    return mixture.select(slice(0, half)), mixture.select(slice(half, 2 * half))


# ------------------------------------------------------------------ fidelity given features


@OBJECTIVES.register("joint-nuclear", "nuclear norm of pairs (row, features); no pairing, limit 1")
class JointNuclearNorm(Objective):
    r"""Minus the :func:`~hilbound.functional.joint_fidelity` of rows and centres with features.

    Both mixtures are joint mixtures of points and features. So a centre can account for every row
    with nearly the same features, and need not be near the one row that it was made from. With a
    weight it is the :func:`~hilbound.functional.debiased_fidelity` of halves of the batch.

    The fidelity does not say which features are good: it can be 1 for any. So if the encoder is
    trained, the loss also has the term :math:`-\alpha \log (r_c / \|p_b\|^2)` with the
    :func:`~hilbound.functional.conditional_log_scalar_cost` :math:`r_c` of the same centres. Its
    unit, the norm of the component around a row, is a constant.

    Args:
        weight: Weight :math:`\lambda` of the model's own term. At 0 there is no such term and the
            loss is minus the fidelity; at 0.5 the divergence is unbiased.
        power: The power in (0, 1] of the singular values; 1 is the nuclear norm.
        feature_variance: Variance of a component in the features, or ``None`` for the rule of
            :func:`hilbound.variance.joint_feature_variance`.
        encoder_weight: The weight :math:`\alpha`. A frozen encoder has no such term.

    Raises:
        InputError: If an option is out of range.

    >>> p = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5).join(torch.zeros(2, 1), 0.1)
    >>> JointNuclearNorm()(p, p)
    tensor(-1.)
    """

    pairs = True
    block_power = None
    cost_name = "joint fidelity"

    def __init__(
        self,
        weight: float = 0.0,
        power: float = 1.0,
        feature_variance: float | None = None,
        encoder_weight: float = 0.1,
    ) -> None:
        super().__init__()
        for name, value in (("weight", weight), ("encoder_weight", encoder_weight)):
            if not 0 <= value < math.inf:
                raise InputError(f"{name} must be 0 or more and finite, got {value}")
        check_power(power)
        if feature_variance is not None and not 0 < feature_variance < math.inf:
            raise InputError(
                f"feature_variance must be positive and finite, got {feature_variance}: it is a "
                "variance in the features, which have variance 1"
            )
        self.weight = weight
        self.power = power
        self.feature_variance = feature_variance
        self.encoder_weight = encoder_weight

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``, of joint mixtures."""
        if self.weight == 0:
            return -self.log_cost(p, q).exp()
        first, second = _halves(q)
        return F.debiased_fidelity(
            _halves(p)[0], None, first, second, self.weight, power=self.power
        )

    def encoder_loss(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        r"""Return :math:`-\alpha \log (r_c / \|p_b\|^2)`."""
        if self.encoder_weight == 0:
            return p.means.new_zeros(())
        unit = p.log_norm().detach().mean()
        return self.encoder_weight * (unit - F.conditional_log_scalar_cost(p, q))

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the fidelity, or of the sum of powers."""
        return F.log_fidelity(p, q) if self.power == 1 else F.log_schatten_overlap(p, q, self.power)

    def log_limit(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the limit, 1 for the nuclear norm."""
        rank = min(p.components, q.components)
        return super().log_limit(p, q) + (1 - self.power) * math.log(rank)
