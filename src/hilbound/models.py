r"""Models: networks whose outputs are Gaussian mixtures.

A mixture density network maps noise to centres, :math:`m_k = g(c_k)` with
:math:`c_k \sim N(0, I)`, and is the mixture

.. math:: q(x) = \sum_{k=1}^K b_k N(x - m_k; v_k).

Every call draws a fresh mixture from one and the same distribution of centres; training compares it
with a batch of data. Calling the model returns a :class:`~hilbound.GaussianMixture`, so that an
objective is one line.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hilbound.config import RunConfig
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.networks import MLP, NETWORKS, ImageShape
from hilbound.registry import Registry
from hilbound.seeding import stream

# Where softplus is 1.
_SOFTPLUS_ONE = math.log(math.e - 1)


class MixtureDensityNetwork(nn.Module):
    """Noise to the centres of a Gaussian mixture, optionally with learned weights and variances.

    Args:
        network: Maps noise with shape ``(*, noise_dim)`` to centres with shape ``(*, d)``.
        noise_dim: Number of noise coordinates.
        variance: Variance of the components; where it is learned, their variance at the start.
        learn_weights: Whether a second small network gives every centre a weight.
        learn_variance: Whether it gives every centre a variance.
        min_variance: Learned variances stay above it; the default is a hundredth of ``variance``.
        bounded: Whether centres are squashed to [0, 1] by a sigmoid, for images.

    Raises:
        InputError: If a variance is not positive or ``min_variance`` is not below ``variance``.

    References:
        Mixture Density Networks (Bishop, 1994).

    >>> model = MixtureDensityNetwork(MLP(2, 3, width=8, depth=1), noise_dim=2, variance=0.5)
    >>> model(torch.zeros(4, 2))
    GaussianMixture(components=4, dim=3, batch_shape=(), variance=0.5)
    """

    variance: Tensor

    def __init__(
        self,
        network: nn.Module,
        noise_dim: int,
        variance: float,
        *,
        learn_weights: bool = False,
        learn_variance: bool = False,
        min_variance: float | None = None,
        bounded: bool = False,
    ) -> None:
        super().__init__()
        low = variance / 100 if min_variance is None else min_variance
        if not 0 < low < variance < math.inf:
            raise InputError(
                f"variance must be positive and above min_variance, got variance={variance:g} and "
                f"min_variance={low:g}"
            )
        self.network = network
        self.noise_dim = noise_dim
        self.bounded = bounded
        self.min_variance = low
        self.register_buffer("variance", torch.tensor(float(variance)))
        self.weight_head = _zero_head(noise_dim) if learn_weights else None
        self.variance_head = _zero_head(noise_dim) if learn_variance else None

    def forward(self, noise: Tensor) -> GaussianMixture:
        """Return the mixture of K components for noise with shape ``(*batch, K, noise_dim)``."""
        weights = None
        if self.weight_head is not None:
            weights = self.weight_head(noise).squeeze(-1).softmax(-1)
        # Under mixed precision the network's outputs are half floats; inner products never are.
        centers = self.centers(noise).to(self.variance.dtype)
        return GaussianMixture(centers, self._component_variance(noise), weights)

    def centers(self, noise: Tensor) -> Tensor:
        """Return centres with shape ``(*, d)`` for noise with shape ``(*, noise_dim)``."""
        centers: Tensor = self.network(noise)
        return centers.sigmoid() if self.bounded else centers

    def _component_variance(self, noise: Tensor) -> Tensor:
        if self.variance_head is None:
            return self.variance
        # The head starts at zero, where the factor is 1: training starts from `variance`. An
        # exponential would overflow within a few steps of a large learning rate.
        factor = nn.functional.softplus(self.variance_head(noise).to(self.variance) + _SOFTPLUS_ONE)
        return self.min_variance + (self.variance - self.min_variance) * factor

    def noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw standard normal noise with shape ``(n, noise_dim)``."""
        return torch.randn(
            n,
            self.noise_dim,
            generator=generator,
            dtype=self.variance.dtype,
            device=self.variance.device,
        )

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` centres with shape ``(n, d)``, by their weights where those are learned.

        Centres are what the network generates. To add the components' own noise, draw from the
        mixture: ``model(model.noise(k)).sample((n,))``.
        """
        if self.weight_head is None:
            return self.centers(self.noise(n, generator))
        # Weighted centres are resampled from a larger pool, so that duplicates stay rare.
        noise = self.noise(8 * n, generator)
        weights = self.weight_head(noise).squeeze(-1).softmax(-1)
        chosen = torch.multinomial(weights, n, replacement=True, generator=generator)
        return self.centers(noise[chosen])


#: Builds a model from (config, dim, image_shape, variance of a component).
ModelBuilder = Callable[[RunConfig, int, ImageShape | None, float], MixtureDensityNetwork]
MODELS: Registry[ModelBuilder] = Registry("model")


def _zero_head(noise_dim: int) -> nn.Module:
    """A small network of one output that is zero at the start, whatever the noise."""
    head = MLP(noise_dim, 1, width=64, depth=1)
    last = head[-1]
    if isinstance(last, nn.Linear):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return head


@MODELS.register("mixture-density-network", "noise -> network -> centres of a Gaussian mixture")
def _mixture_density_network(
    config: RunConfig, dim: int, image_shape: ImageShape | None, variance: float
) -> MixtureDensityNetwork:
    build = NETWORKS[config.network]
    return MixtureDensityNetwork(
        build(config.noise_dim, dim, config.width, config.depth, image_shape),
        config.noise_dim,
        variance,
        learn_weights=config.learn_weights,
        learn_variance=config.learn_variance,
        min_variance=config.min_variance,
        bounded=image_shape is not None,
    )


def build_model(
    config: RunConfig, dim: int, image_shape: ImageShape | None, variance: float
) -> MixtureDensityNetwork:
    """Build the model that a configuration names, its weights drawn from the configuration's seed.

    Args:
        config: The options of the run.
        dim: Number of coordinates of a data point.
        image_shape: ``(channels, height, width)`` if data points are images.
        variance: Variance of a component at the start.

    Raises:
        InputError: If the model or the network is unknown, or does not fit the data.

    >>> build_model(RunConfig(data="moons", width=8), 2, None, 0.5).noise_dim
    16
    """
    build = MODELS[config.model]
    # torch's initialisers know the global generator only; it is lent and put back.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream(config.seed, "weights").initial_seed())
        return build(config, dim, image_shape, variance)
