"""Fidelity given features: the nuclear norm of pairs of a row and its features."""

import math

from torch import Tensor

from hilbound import functional as F
from hilbound.engine.spectrum.norms import check_power
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.objectives.base import OBJECTIVES, Objective, halves


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

    >>> import torch
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
        first, second = halves(q)
        return F.debiased_fidelity(halves(p)[0], None, first, second, self.weight, power=self.power)

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
