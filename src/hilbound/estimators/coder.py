r"""A small encoder, and a decoder that answers a feature and noise with a centre.

Given a row x the encoder gives a feature y; given y and noise :math:`c_1 \dots c_K` the decoder
gives the centres of :math:`q(x|y) = \frac1K \sum_k N(x - D(y, c_k); v)`. Features are normalised
over the batch and get noise of their own, so that how much they can carry is settled. After
training, what normalises them is fixed to that of all rows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from hilbound import functional as F
from hilbound.mixture import GaussianMixture

_NOISE_DIM = 4
_WIDTH = 64
_CLIP = 5.0
_WEIGHT_DECAY = 1e-4


@dataclass(frozen=True)
class Schedule:
    """How a coder is trained.

    Args:
        objective: ``"scalar"`` or ``"trace"``.
        centres: The number K of centres of a row.
        variance: Variance of the kernel, in squared units of the rows.
        widest: Variance of the kernel at first; centres that are far away don't feel a narrow one.
        feature_variance: Variance of the noise of the features, whose own variance is one.
        steps: The number of gradient steps.
        batch_size: The number of rows of one.
        learning_rate: The learning rate of AdamW at the start; it falls to zero along a cosine.
    """

    objective: str
    centres: int
    variance: float
    widest: float
    feature_variance: float
    steps: int
    batch_size: int
    learning_rate: float


class Coder(nn.Module):
    """Encoder and decoder.

    Args:
        dim: The number of columns d.
        features: The number of features F.
        generator: Draws the first weights.

    >>> coder = Coder(3, 2, torch.Generator().manual_seed(0))
    >>> y = coder.encode(torch.zeros(5, 3).double())
    >>> coder.decode(y, torch.zeros(4, coder.noise_dim).double()).shape
    torch.Size([5, 4, 3])
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, dim: int, features: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.noise_dim = _NOISE_DIM
        self.encoder = _mlp(dim, features, generator)
        self.decoder = _mlp(features + _NOISE_DIM, dim, generator)
        self.register_buffer("shift", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(features, dtype=torch.float64))

    def encode(self, x: Tensor) -> Tensor:
        """Return features without noise, with shape ``(n, F)``, of rows ``(n, d)``."""
        features: Tensor = (self.encoder(x) - self.shift) / self.scale
        return features

    def decode(self, features: Tensor, noise: Tensor) -> Tensor:
        """Return centres with shape ``(n, K, d)``.

        Args:
            features: Features with shape ``(n, F)``.
            noise: The same noise for all rows with shape ``(K, noise_dim)``, or its own for each
                row with shape ``(n, K, noise_dim)``.
        """
        n, count = len(features), noise.shape[-2]
        pairs = [
            features.unsqueeze(1).expand(n, count, -1),
            noise.expand(n, count, self.noise_dim),
        ]
        centres: Tensor = self.decoder(torch.cat(pairs, -1))
        return centres

    def normalise(self, raw: Tensor) -> None:
        """Fix what normalises the features to raw ones of all rows, with shape ``(n, F)``."""
        self.shift, self.scale = raw.mean(0), _spread(raw)


def _mlp(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Sequential:
    widths = (inputs, _WIDTH, _WIDTH, outputs)
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        # Without its own draw of weights, which would take torch's global numbers.
        linear = nn.utils.skip_init(nn.Linear, i, o, dtype=torch.float64)
        bound = math.sqrt(3 / i)  # outputs as large as inputs
        with torch.no_grad():
            linear.weight.uniform_(-bound, bound, generator=generator)
            linear.bias.uniform_(-bound, bound, generator=generator)
        layers += [linear, nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def _spread(raw: Tensor) -> Tensor:
    # The constant is for rows that are all alike: their features are zero, not undefined.
    return (raw.var(0, unbiased=False) + 1e-8).sqrt()


def train(
    coder: Coder,
    x: Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Train a coder on rows with shape ``(n, d)``, in place; ``advance`` follows every step."""
    optimizer = torch.optim.AdamW(
        coder.parameters(), schedule.learning_rate, weight_decay=_WEIGHT_DECAY
    )
    decay = CosineAnnealingLR(optimizer, schedule.steps)
    for step in range(schedule.steps):
        rows = torch.randperm(len(x), generator=generator)[: schedule.batch_size]
        wide = max(0.0, 1 - 2 * step / schedule.steps)
        variance = schedule.variance * (schedule.widest / schedule.variance) ** wide
        optimizer.zero_grad()
        _loss(coder, x[rows], variance, schedule, generator).backward()
        nn.utils.clip_grad_norm_(coder.parameters(), _CLIP)
        optimizer.step()
        decay.step()
        advance()
    with torch.no_grad():
        coder.normalise(coder.encoder(x))


def _loss(
    coder: Coder, x: Tensor, variance: float, schedule: Schedule, generator: torch.Generator
) -> Tensor:
    raw = coder.encoder(x)
    clean = (raw - raw.mean(0)) / _spread(raw)
    noise = torch.randn(clean.shape, generator=generator, dtype=x.dtype)
    features = clean + math.sqrt(schedule.feature_variance) * noise
    codes = torch.randn(
        len(x), schedule.centres, coder.noise_dim, generator=generator, dtype=x.dtype
    )
    centres = coder.decode(features, codes)
    if schedule.objective == "trace":
        p, q = GaussianMixture(x, variance), GaussianMixture(centres.squeeze(1), variance)
        return 1 - F.trace_overlap(p, q)
    p = GaussianMixture(x.unsqueeze(1), variance)
    return -F.conditional_log_scalar_cost(p, GaussianMixture(centres, variance))
