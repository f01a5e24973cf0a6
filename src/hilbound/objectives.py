"""The objectives as modules: thin, each over one function of :mod:`hilbound.functional`.

What they have in common, and what their variance means, stands in :mod:`hilbound.objectives`; those
that know which centre belongs to which data point are in :mod:`hilbound.objectives`, those
that undo the mini-batch's bias of the nuclear norm in :mod:`hilbound.objectives`.
"""

import math
from inspect import signature
from typing import ClassVar

import torch
from torch import Tensor, nn

from hilbound import functional as F
from hilbound.bounds import Bound, marginal_bound
from hilbound.engine.spectrum.norms import check_drop
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture, precise_log_inner
from hilbound.registry import Registry, suggest
from hilbound.variance import of_component


class Objective(nn.Module):
    """What the objectives have in common: ``forward(p, q)`` is a loss, ``bound(p, q)`` its limit.

    Attributes:
        smoothed: How many of the two mixtures share the kernel's variance.
        paired: Whether every centre belongs to one data point, so that both need as many.
        least_rows: How many rows a batch must have, and a validation set too.
        cost_name: What the cost is called on the axis of a plot.
        logarithmic: Whether people read the cost as a logarithm.
        tracked: Whether the limit is that of a fixed set of rows, measured beside the training
            (:class:`hilbound.training.tracking.ConditionalTracker`), because a batch cannot show
            it.
    """

    smoothed: ClassVar[int] = 2
    paired: ClassVar[bool] = False
    least_rows: ClassVar[int] = 1
    cost_name: ClassVar[str]
    logarithmic: ClassVar[bool] = False
    tracked: ClassVar[bool] = False

    @classmethod
    def readable(cls, log_cost: float) -> float:
        """Return a logarithm of a cost in the form that people read."""
        return log_cost if cls.logarithmic else math.exp(log_cost)

    def component_variance(self, variance: float) -> float:
        """Return the variance of a component, for a kernel between point and centre of this one."""
        return of_component(variance, self.smoothed)

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
        drop: See :func:`hilbound.engine.inverse.inverse_form`.

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
        return precise_log_inner(p, p)


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
        return F.negative_log_likelihood(p.means, q, None if p.equal_weights else p.weights)

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


# ------------------------------------------------------------------ costs of pairs


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


# ------------------------------------------------------------------ the mini-batch's bias undone

# Fidelities without gradients beside those of the loss: every so many steps, they cost little.
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
        if not 0 < power <= 1:
            raise InputError(f"power must lie in (0, 1], got {power}: 1 is the nuclear norm")
        self.power = power
        check_drop(drop)
        self.drop = drop

    def forward(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the loss with shape ``(*)``."""
        return -F.schatten_overlap(p, q, self.power, self.drop)

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the sum."""
        return F.log_schatten_overlap(p, q, self.power, self.drop)

    def log_limit(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the limit, which a flat spectrum reaches."""
        rank = min(p.components, q.components)
        return super().log_limit(p, q) + (1 - self.power) * math.log(rank)


@OBJECTIVES.register("debiased", "nuclear norm without the mini-batch's bias")
class DebiasedNuclearNorm(Objective):
    r"""The :func:`~hilbound.functional.debiased_fidelity` of the halves of two batches.

    Either mixture is cut into halves of its components, which are independent batches where the
    components are drawn independently; of an odd number one component is left out. All terms then
    compare batches of one size, without which their biases would not cancel. (The second half of
    the data serves the reference and the calibration alone.)

    A network that cannot follow the data into their valleys spreads beside them, and is then more
    diverse than the data: recall is bought with precision. ``calibrate`` finds the weight at which
    two batches of the model overlap as much as two batches of the data do,

    .. math:: F(q, \tilde q) = F(p, \tilde p), \qquad
        \lambda \leftarrow \lambda + \eta \Big(\frac{F(q, \tilde q)}{F(p, \tilde p)} - 1\Big),

    kept in [0, 1]: at q = p they agree, whatever the weight. It is a step of :math:`\eta = 0.1` at
    every fifth training step, and the weight is saved with the objective's state.

    Args:
        weight: Weight of the model's own term, at the start if it is calibrated. At 0.5 the
            divergence is unbiased; a lower one pays less for diversity.
        reference: Whether to compute the data's own term, which sends the model no gradient.
        calibrate: Whether the weight moves while training.

    Raises:
        InputError: If the weight is negative, or above 1 and calibrated, or a mixture has one
            component only.

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
        first, second = _halves(q)
        data, copy = _halves(p)
        if self.calibrate and self.training:
            if int(self.calls) % _CALIBRATE_EVERY == 0:
                self._move(data, copy, first, second)
            self.calls += 1
        return F.debiased_fidelity(
            data, copy if self.reference else None, first, second, float(self.weight)
        )

    @torch.no_grad()
    def _move(
        self,
        p: GaussianMixture,
        p_copy: GaussianMixture,
        q: GaussianMixture,
        q_copy: GaussianMixture,
    ) -> None:
        data, model = F.fidelity(p, p_copy).mean(), F.fidelity(q, q_copy).mean()
        # Where nothing overlaps, there is nothing to compare.
        if float(data) > 0:
            moved = self.weight + _CALIBRATION_RATE * (model / data - 1).to(self.weight)
            self.weight.copy_(moved.clamp(0, 1))

    def log_cost(self, p: GaussianMixture, q: GaussianMixture) -> Tensor:
        """Return the logarithm of the plain fidelity, against 1: the divergence has no limit."""
        return F.log_fidelity(p, q)


def _halves(mixture: GaussianMixture) -> tuple[GaussianMixture, GaussianMixture]:
    half = mixture.components // 2
    if half == 0:
        raise InputError("a debiased batch is cut into halves and needs at least 2 components")
    return mixture.select(slice(0, half)), mixture.select(slice(half, 2 * half))
