"""Objectives that undo what a mini-batch does to the nuclear norm.

The fidelity is jointly concave, so a batch underestimates it, and its maximum over batches rewards
centres that sit between data points. Schatten powers weigh small singular values more; the debiased
nuclear norm subtracts what two batches of the model have in common.
"""

import math

import torch
from torch import Tensor

from hilbound import functional as F
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.objective import OBJECTIVES, Objective
from hilbound.spectrum import check_drop

# Fidelities without gradients beside those of the loss: every so many steps, they cost little.
_CALIBRATE_EVERY = 5
_CALIBRATION_RATE = 0.1


@OBJECTIVES.register("schatten", "singular values to a power below 1: more diversity than nuclear")
class Schatten(Objective):
    """Minus :func:`~hilbound.functional.schatten_overlap`.

    Args:
        power: The power in (0, 1]; 1 is the nuclear norm.
        drop: See :func:`hilbound.spectrum.schatten_power`.

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
