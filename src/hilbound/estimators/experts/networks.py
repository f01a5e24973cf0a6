"""Many small mixture density networks, side by side in one batched matrix product.

Each weight has the members as its first axis, so that one product trains them all. A member maps a
row to a mixture of K Gaussians over the standardised targets.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import silu

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_WIDEST = 5.0  # logarithm of a component's deviation, against overflow


class Heads(NamedTuple):
    """Mixtures that the members predict.

    Attributes:
        log_weights: With shape ``(members, n, K)``.
        means: With shape ``(members, n, K, d)``.
        variance: Variances of the components, with shape ``(members, n, K, d)``.
    """

    log_weights: Tensor
    means: Tensor
    variance: Tensor


def initial_weights(
    members: int,
    inputs: int,
    *,
    width: int,
    components: int,
    targets: int,
    generator: torch.Generator,
) -> list[Tensor]:
    """Draw the weights of new members, uniform as torch's own layers.

    The components start side by side, so that each has a side of its own to fit.
    """
    outputs = components * (1 + 2 * targets)
    weights = []
    for fan_in, fan_out in ((inputs, width), (width, width), (width, outputs)):
        bound = 1 / math.sqrt(max(fan_in, 1))
        for rows in (fan_in, 1):
            draw = torch.rand(members, rows, fan_out, generator=generator)
            weights.append((2 * draw - 1) * bound)
    centres = torch.linspace(-1, 1, components) if components > 1 else torch.zeros(1)
    weights[-1][..., components : components * (1 + targets)] += centres.repeat_interleave(targets)
    return weights


def forward(weights: list[Tensor], x: Tensor, targets: int, floor: Tensor) -> Heads:
    """Return the mixtures for rows.

    Args:
        weights: Weights of the members, as :func:`initial_weights` gives them.
        x: Rows with shape ``(members, n, inputs)``.
        targets: The number of targets d.
        floor: The least variance, with shape ``(d,)``.
    """
    w1, b1, w2, b2, w3, b3 = weights
    hidden = silu(torch.baddbmm(b1, x, w1))
    hidden = hidden + silu(torch.baddbmm(b2, hidden, w2))
    out = torch.baddbmm(b3, hidden, w3)
    components = out.shape[-1] // (1 + 2 * targets)
    logits, means, log_deviation = out.split(
        [components, components * targets, components * targets], -1
    )
    shape = (*out.shape[:-1], components, targets)
    variance = log_deviation.clamp(max=_WIDEST).mul(2).exp().view(shape) + floor
    return Heads(logits.log_softmax(-1), means.reshape(shape), variance)


def log_densities(heads: Heads, y: Tensor) -> Tensor:
    """Return log densities with shape ``(members, n)`` at targets ``(members, n, d)``."""
    square = (y.unsqueeze(-2) - heads.means).square() / heads.variance + heads.variance.log()
    exponent = heads.log_weights - 0.5 * square.sum(-1)
    return torch.logsumexp(exponent, -1) - y.shape[-1] * _HALF_LOG_2PI


def log_norms(heads: Heads) -> Tensor:
    r"""Return :math:`\log \langle q, q \rangle` of all mixtures, with shape ``(members, n)``."""
    spread = heads.variance.unsqueeze(-2) + heads.variance.unsqueeze(-3)
    gap = heads.means.unsqueeze(-2) - heads.means.unsqueeze(-3)
    exponent = -0.5 * (gap.square() / spread + spread.log()).sum(-1)
    pairs = heads.log_weights.unsqueeze(-1) + heads.log_weights.unsqueeze(-2)
    return torch.logsumexp((exponent + pairs).flatten(-2), -1) - gap.shape[-1] * _HALF_LOG_2PI
