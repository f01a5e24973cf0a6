"""The nuclear norm with the bias of mini-batches corrected."""

import math

import torch
from torch import Tensor

from hilbound import functional as F
from hilbound.engine.spectrum.norms import check_drop, check_power
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.objectives.base import OBJECTIVES, Objective, halves

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
        first, second = halves(q)
        data, copy = halves(p)
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
