"""The encoder: it checks inputs, maps them to features, and standardises features with noise.

Without standardisation, features would simply grow until the noise is negligible. So features with
noise have mean 0 and variance 1. ``variance_y`` is then the variance of the noise as a share of the
variance of the features.
"""

import math

import torch
from torch import Tensor, nn

from hilbound.engine.gather import counted, team
from hilbound.errors import InputError

# Added to the variance of features before a division, because a feature may be constant.
_LEAST_VARIANCE = 1e-5


class FeatureStandardization(nn.Module):
    r"""Features of mean 0 and variance 1, by running averages over the batches of training.

    Values use the running averages, in training as in evaluation. A batch's own mean would
    fluctuate, and these fluctuations would drown noise of a small variance. Gradients are those of
    batch normalisation: they neither shift nor stretch all features of a batch, because the
    standardisation would undo it.

    Args:
        features: Number of features.
        momentum: Weight of a new batch in the running averages.

    References:
        Batch Renormalization: Towards Reducing Minibatch Dependence in Batch-Normalized Models
        (Ioffe, 2017).

    >>> layer = FeatureStandardization(1)
    >>> layer(torch.tensor([[1.0], [3.0]])).squeeze(-1).round(decimals=3)
    tensor([-1.,  1.])
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, features: int, momentum: float = 0.02) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, h: Tensor) -> Tensor:
        """Standardise features with shape ``(*, F)``."""
        # Under mixed precision features are half floats, which are too coarse for averages.
        h = h.to(self.mean.dtype)
        if not self.training:
            return (h - self.mean) / (self.variance + _LEAST_VARIANCE).sqrt()
        mean, variance = self._moments(counted(h.reshape(-1, h.shape[-1])))
        self._follow(mean.detach(), variance.detach())
        running, scale = self.mean, (self.variance + _LEAST_VARIANCE).sqrt()
        batch_scale = (variance + _LEAST_VARIANCE).sqrt()
        # The value is (h - running) / scale, but the gradient is that of (h - mean) / batch_scale.
        stretch, shift = batch_scale.detach() / scale, (mean.detach() - running) / scale
        return (h - mean) / batch_scale * stretch + shift

    @staticmethod
    def _moments(rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of rows ``(n, F)``, over all workers that share the batch."""
        workers = team()
        if workers.alone:
            return rows.mean(0), rows.var(0, correction=0)
        count = workers.sum(rows.new_tensor(float(len(rows))))
        mean = workers.sum(rows.sum(0)) / count
        return mean, workers.sum((rows - mean).square().sum(0)) / count

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        # As long as there are few batches, this is their plain mean.
        self.batches += 1
        share = (1 / self.batches).clamp_min(self.momentum)
        self.mean.lerp_(mean, share)
        self.variance.lerp_(variance, share)


class Encoder(nn.Module):
    """Map inputs to features, and check the inputs.

    Args:
        network: Maps inputs with shape ``(*, d)`` to features with shape ``(*, F)``.
        dim: Number of coordinates of an input.
        standardized: Number of features to standardise, or ``None`` to leave them as they are.
        pixels: Whether inputs are images with values in [0, 1].

    >>> encoder = Encoder(nn.Linear(3, 1), 3, standardized=1)
    >>> encoder(torch.randn(50, 3)).detach().std(correction=0).round(decimals=2)
    tensor(1.)
    """

    def __init__(
        self,
        network: nn.Module,
        dim: int,
        *,
        standardized: int | None = None,
        pixels: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.dim = dim
        self.standardization = (
            None if standardized is None else FeatureStandardization(standardized)
        )
        self.pixels = pixels

    def forward(self, x: Tensor) -> Tensor:
        """Return features with shape ``(*, F)`` of inputs with shape ``(*, d)``.

        Raises:
            InputError: If the inputs do not have ``dim`` coordinates, or pixels lie outside [0, 1].
        """
        if x.ndim == 0 or x.shape[-1] != self.dim:
            sizes = {x.numel(), math.prod(x.shape[1:])}
            raise InputError(
                f"inputs must be rows of {self.dim} coordinates, as the encoder was made for, got "
                f"shape {tuple(x.shape)}"
                + (": flatten images" if x.ndim > 1 and self.dim in sizes else "")
            )
        # In this form the test rejects NaN, too.
        if self.pixels and x.numel() and not bool((x >= 0).all() & (x <= 1).all()):
            raise InputError(
                f"pixels must lie in [0, 1], got values from {float(x.min()):g} to "
                f"{float(x.max()):g}: divide bytes by 255"
            )
        features: Tensor = self.network(x)
        return features if self.standardization is None else self.standardization(features)
