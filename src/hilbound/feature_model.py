r"""What models with an encoder have in common: features, their noise, and a decoder to mixtures.

The decoder turns features y and noise into K centres for every input,

.. math:: q(x \mid y) = \frac1K \sum_{k=1}^K N(x - D(y, c_k); v_q), \qquad c_k \sim N(0, I),

and new data are made from new features, drawn from the density of those of the training rows.
"""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from hilbound.density_model import DensityModel, MixtureNetwork
from hilbound.errors import InputError
from hilbound.gram import squared_distances
from hilbound.mixture import GaussianMixture, choose

# Rows encoded at a time where there may be many.
_ENCODED_ROWS = 4096
# Centres with learned weights are resampled from so many times as many.
_POOL = 8


class MixtureDecoder(MixtureNetwork):
    """Features and noise to the centres of a mixture for every input.

    Args:
        network: Maps features and noise together, with shape ``(*, feature_dim + noise_dim)``, to
            centres with shape ``(*, d)``.
        feature_dim: Number of features.
        noise_dim: Number of noise coordinates.
        variance: Variance of the components; where it is learned, their variance at the start.
        **options: Those of :class:`~hilbound.density_model.MixtureNetwork`.

    >>> decoder = MixtureDecoder(nn.Linear(3, 4), feature_dim=1, noise_dim=2, variance=0.5)
    >>> decoder(torch.zeros(7, 1), decoder.noise(7, 5))
    GaussianMixture(components=5, dim=4, batch_shape=(7,), variance=0.5)
    """

    def __init__(
        self,
        network: nn.Module,
        feature_dim: int,
        noise_dim: int,
        variance: float,
        **options: Any,  # noqa: ANN401 - checked by the base
    ) -> None:
        super().__init__(network, feature_dim + noise_dim, variance, **options)
        self.feature_dim = feature_dim
        self.noise_dim = noise_dim

    def forward(self, features: Tensor, noise: Tensor) -> GaussianMixture:
        """Return q(x|y) with batch shape ``(*batch)``.

        Args:
            features: Features with shape ``(*batch, F)``.
            noise: Noise with shape ``(*batch, K, noise_dim)``, or ``(K, noise_dim)`` for all.

        Raises:
            InputError: If they have other numbers of coordinates than the decoder.
        """
        if (features.shape[-1], noise.shape[-1]) != (self.feature_dim, self.noise_dim):
            raise InputError(
                f"features and noise must have {self.feature_dim} and {self.noise_dim} "
                f"coordinates, got {features.shape[-1]} and {noise.shape[-1]}"
            )
        batch, k = features.shape[:-1], noise.shape[-2]
        inputs = (
            features.unsqueeze(-2).expand(*batch, k, features.shape[-1]),
            noise.expand(*batch, k, noise.shape[-1]).to(features),
        )
        return self.mixture(torch.cat(inputs, -1))

    def noise(self, *shape: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw standard normal noise with shape ``(*shape, noise_dim)``."""
        return self.normal(*shape, self.noise_dim, generator=generator)


class FeatureModel(DensityModel):
    """What models with an encoder and a decoder have in common.

    Args:
        encoder: Maps inputs with shape ``(*, d)`` to features with shape ``(*, F)``.
        decoder: Maps features and noise to a mixture.
        variance_y: Variance of the noise on the features; ``None`` for none.
        centers: Number K of centres for every input while training.
        eval_centers: Number of centres in evaluation mode; as many as in training by default.
        rows: Number of training rows whose features will be remembered.
    """

    training_features: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: MixtureDecoder,
        *,
        variance_y: float | None = None,
        centers: int = 1,
        eval_centers: int | None = None,
        rows: int = 0,
    ) -> None:
        super().__init__()
        if variance_y is not None and not 0 < variance_y < math.inf:
            raise InputError(
                f"variance_y must be positive and finite, got {variance_y}: it is the variance of "
                "the noise on features of variance 1"
            )
        if min(centers, centers if eval_centers is None else eval_centers) < 1:
            raise InputError(
                f"centers and eval_centers must be at least 1, got {centers} and {eval_centers}"
            )
        self._frozen = False
        self.encoder = encoder
        self.decoder = decoder
        self.variance_y = variance_y
        self.centers = centers
        self.eval_centers = centers if eval_centers is None else eval_centers
        # They are part of the weights: without the data, a run can still be sampled from.
        empty = torch.full((rows, decoder.feature_dim), math.nan)
        self.register_buffer("training_features", empty)

    @property
    def head(self) -> MixtureNetwork:
        """The decoder."""
        return self.decoder

    def encode(self, x: Tensor) -> Tensor:
        """Return features without noise, shape ``(*, F)``, of inputs with shape ``(*, d)``."""
        features: Tensor = self.encoder(x)
        return features

    def perturb(self, features: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return features with their noise, of the same shape."""
        if self.variance_y is None:
            return features
        noise = self.decoder.normal(*features.shape, generator=generator).to(features)
        return features + math.sqrt(self.variance_y) * noise

    def decode(
        self, features: Tensor, centers: int, generator: torch.Generator | None = None
    ) -> GaussianMixture:
        """Return q(x|y) with ``centers`` centres for features with shape ``(*batch, F)``."""
        noise = self.decoder.noise(*features.shape[:-1], centers, generator=generator)
        q: GaussianMixture = self.decoder(features, noise)
        return q

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> GaussianMixture:
        """Return q(x|y) with batch shape ``(*)`` for inputs with shape ``(*, d)``.

        As with dropout, features get their noise in training mode only, and ``centers`` becomes
        ``eval_centers`` in evaluation mode.
        """
        if self.training:
            return self.decode(self.features(x, generator), self.centers, generator)
        return self.decode(self.encode(x), self.eval_centers, generator)

    def features(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw the features of inputs as training sees them, with their noise."""
        return self.perturb(self.encode(x), generator)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return ``n`` reconstructions of every input, shape ``(B, n, d)``, for ``(B, d)``.

        They are centres of q(x|y) at the features without noise, drawn by their weights: whatever
        differs between them is the decoder's doing.

        Raises:
            InputError: If ``n`` is below 1.
        """
        require_some(n)
        features = self.features_of(x)
        with self.evaluating():
            q = self.decode(features, self._pool(n), generator)
        if self.decoder.weight_head is None:
            return q.means
        return q.means[choose(q.weights, torch.Size((n,)), generator)].movedim(0, 1)

    def _pool(self, n: int) -> int:
        return n if self.decoder.weight_head is None else _POOL * n

    def draw(self, n: int, generator: torch.Generator | None = None) -> GaussianMixture:
        """Return a mixture of ``n`` components, each from features of its own.

        Features are drawn from :meth:`feature_density`, components from their mixture's weights.
        """
        features = self._draw_features(n, generator)
        q = self.decode(features, self._pool(1), generator)
        chosen = choose(q.weights, torch.Size(), generator)
        v = q.component_variance
        return GaussianMixture(
            q.means[chosen], v.expand((*q.means.shape[:-1], v.shape[-1]))[chosen]
        )

    def _draw_features(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Draw features with shape ``(n, F)``, from every component equally often.

        Each is distributed as the density; among them, components are drawn without replacement
        until all have had their turn. Of as many draws as rows, independent ones would leave out
        37 % of the rows.
        """
        density = self.feature_density()
        k, means = density.components, density.means
        keys = torch.rand(-(-n // k), k, generator=generator, device=means.device)
        chosen = keys.argsort(1).flatten()[:n]
        deviation = density.component_variance.sqrt().expand(*means.shape[:-1], -1)[chosen]
        return means[chosen] + deviation * self.decoder.normal(
            n, means.shape[-1], generator=generator
        ).to(means)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` centres with shape ``(n, d)``; see :meth:`DensityModel.sample`."""
        with self.evaluating():
            return self.draw(n, generator).means

    @torch.no_grad()
    def remember(self, x: Tensor) -> None:
        """Keep the features of training rows with shape ``(n, d)``, from which sampling draws."""
        self.training_features = self.features_of(x)

    def features_of(self, x: Tensor) -> Tensor:
        """Return features ``(N, F)`` of rows ``(N, d)`` as in evaluation, whatever the mode."""
        v = self.decoder.variance
        with self.evaluating():
            return torch.cat([self.encode(part.to(v)) for part in x.split(_ENCODED_ROWS)])

    @torch.no_grad()
    def feature_weights(self, x: Tensor, train: Tensor) -> Tensor:
        r"""Return :math:`w_n(y_m) \propto N(y_m - y_n; v_y)` at the features of rows, ``(M, N)``.

        Args:
            x: Rows with shape ``(M, d)`` and features :math:`y_m`.
            train: Data with shape ``(N, d)`` and features :math:`y_n`; entry (m, n) is how much
                row n of the data counts where the features are those of row m of x.

        Raises:
            InputError: If the features have no noise.
        """
        if self.variance_y is None:
            raise InputError("the features have no noise, so that no two rows share any")
        distances = squared_distances(self.features_of(x), self.features_of(train))
        return (-distances / (2 * self.variance_y)).softmax(-1)

    def freeze_encoder(self) -> None:
        """Let the encoder no longer learn, neither its weights nor its averages."""
        self.encoder.requires_grad_(requires_grad=False)
        self._frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; a frozen encoder stays in the latter."""
        super().train(mode)
        if self._frozen:
            self.encoder.eval()
        return self

    def feature_density(self) -> GaussianMixture:
        r"""Return the density of features: a Gaussian around every remembered one.

        Their variance is :math:`v_y`, so that it is the density that the decoder was trained on;
        where features have no noise, it is that of Scott's rule, :math:`n^{-2/(F+4)}` times the
        variance of every feature.

        Raises:
            InputError: If no training rows were remembered.

        References:
            Multivariate Density Estimation: Theory, Practice, and Visualization (Scott, 1992).
        """
        y = self.training_features
        if len(y) == 0 or bool(y.isnan().any()):
            raise InputError(
                "the model remembers no training features to sample from: call remember(x) with "
                "training rows first"
            )
        if self.variance_y is not None:
            return GaussianMixture(y, self.variance_y)
        scott = len(y) ** (-2 / (y.shape[1] + 4))
        # A feature that never varies still needs a variance above zero.
        spread = y.var(0, correction=0).clamp_min(torch.finfo(y.dtype).eps)
        return GaussianMixture(y, scott * spread)


def require_some(n: int) -> None:
    """Raise an InputError if no reconstruction is asked for."""
    if n < 1:
        raise InputError(f"n must be at least 1, got {n}")
