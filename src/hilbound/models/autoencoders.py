r"""Models with an encoder: features, noise on the features, and a decoder to mixtures.

The decoder maps features y and noise to K centres for every input,

.. math:: q(x \mid y) = \frac1K \sum_{k=1}^K N(x - D(y, c_k); v_q), \qquad c_k \sim N(0, I),

To make new data, new features are drawn from the density of the training rows' features.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn

from hilbound.bounds import Bound, conditional_bound, real_bound
from hilbound.engine.gram import squared_distances
from hilbound.engine.seeding import Source, choose
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.models.base import (
    Comparison,
    DensityModel,
    MixtureNetwork,
    PairComparison,
    refuse_label,
)

# The most rows that are encoded at a time.
_ENCODED_ROWS = 4096

# For n centres drawn by learned weights, this times n centres are made first.
_POOL = 8


class MixtureDecoder(MixtureNetwork):
    """Map features and noise to the centres of a mixture for every input.

    Args:
        network: Maps features and noise together, with shape ``(*, feature_dim + noise_dim)``, to
            centres with shape ``(*, d)``.
        feature_dim: Number of features.
        noise_dim: Number of noise coordinates.
        variance: Variance of the components. If it is learned, this is the initial value.
        **options: Options of :class:`~hilbound.models.base.MixtureNetwork`.

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
        **options: Any,
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
            InputError: If their numbers of coordinates are not those of the decoder.
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

    def told(self, labels: Tensor) -> AbstractContextManager[None]:
        """Return a ``with`` block in which rows have these classes. Here they do not matter."""
        del labels
        return nullcontext()

    def noise(self, *shape: int, generator: Source = None) -> Tensor:
        """Draw standard normal noise with shape ``(*shape, noise_dim)``."""
        return self.normal(*shape, self.noise_dim, generator=generator)


class FeatureModel(DensityModel):
    """Base class of models with an encoder and a decoder.

    Args:
        encoder: Maps inputs with shape ``(*, d)`` to features with shape ``(*, F)``.
        decoder: Maps features and noise to a mixture.
        variance_y: Variance of the noise on the features, or ``None`` for no noise.
        centers: Number K of centres for every input in training.
        eval_centers: Number of centres in evaluation mode, by default as in training.
        rows: Number of training rows whose features will be remembered.
    """

    #: Names of the objectives that can compare slices (:meth:`compare_slices`), the default first.
    slice_objectives = ("debiased", "nuclear", "schatten", "scalar", "likelihood")
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
        # The features are saved with the weights, so sampling a run does not need its data.
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

    def perturb(self, features: Tensor, generator: Source = None) -> Tensor:
        """Return features with their noise, of the same shape."""
        if self.variance_y is None:
            return features
        noise = self.decoder.normal(*features.shape, generator=generator).to(features)
        return features + math.sqrt(self.variance_y) * noise

    def decode(self, features: Tensor, centers: int, generator: Source = None) -> GaussianMixture:
        """Return q(x|y) with ``centers`` centres for features with shape ``(*batch, F)``."""
        noise = self.decoder.noise(*features.shape[:-1], centers, generator=generator)
        q: GaussianMixture = self.decoder(features, noise)
        return q

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> GaussianMixture:
        """Return q(x|y) with batch shape ``(*)`` for inputs with shape ``(*, d)``.

        Features get noise in training mode only, as with dropout. In evaluation mode there are
        ``eval_centers`` centres.
        """
        if self.training:
            return self.decode(self.features(x, generator), self.centers, generator)
        return self.decode(self.encode(x), self.eval_centers, generator)

    def features(self, x: Tensor, generator: Source = None) -> Tensor:
        """Draw the features of inputs as in training, with their noise."""
        return self.perturb(self.encode(x), generator)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return ``n`` reconstructions of every input, shape ``(B, n, d)``, for ``(B, d)``.

        They are centres of q(x|y) at the features without noise, drawn by their weights. So all
        differences between them come from the decoder.

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

    def draw(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> GaussianMixture:
        """Return a mixture of ``n`` components, each with features of its own.

        Features are drawn from :meth:`feature_density`. For each, a component of q(x|y) is drawn by
        its weight.
        """
        refuse_label(label)
        return self._drawn_at(self._draw_features(n, generator), generator)

    def _drawn_at(self, features: Tensor, generator: torch.Generator | None) -> GaussianMixture:
        """Return a mixture of n components, one of q(x|y) at each of the features ``(n, F)``."""
        q = self.decode(features, self._pool(1), generator)
        chosen = choose(q.weights, torch.Size(), generator)
        v = q.component_variance
        return GaussianMixture(
            q.means[chosen], v.expand((*q.means.shape[:-1], v.shape[-1]))[chosen]
        )

    def _draw_features(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Draw features with shape ``(n, F)``, from every component of the density equally often.

        Each draw has the distribution of the density. Components are drawn without replacement
        until each was drawn once, and then again. As many independent draws as rows would leave
        out 37 % of the rows.
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
    def sample(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> Tensor:
        """Draw ``n`` centres with shape ``(n, d)``. See :meth:`DensityModel.sample`."""
        with self.evaluating():
            return self.draw(n, generator, label).means

    @torch.no_grad()
    def remember(self, x: Tensor, labels: Tensor | None = None) -> None:
        """Keep the features of training rows with shape ``(n, d)``. Sampling draws from them."""
        del labels
        self.training_features = self.features_of(x)

    def features_of(self, x: Tensor) -> Tensor:
        """Return features ``(N, F)`` of rows ``(N, d)``, always computed in evaluation mode."""
        v = self.decoder.variance
        with self.evaluating():
            return torch.cat([self.encode(part.to(v)) for part in x.split(_ENCODED_ROWS)])

    @torch.no_grad()
    def feature_weights(self, x: Tensor, train: Tensor) -> Tensor:
        r"""Return :math:`w_n(y_m) \propto N(y_m - y_n; v_y)` at the features of rows, ``(M, N)``.

        Args:
            x: Rows with shape ``(M, d)`` and features :math:`y_m`.
            train: Data with shape ``(N, d)`` and features :math:`y_n`. Entry (m, n) is the weight
                of row n of the data at the features of row m of x.

        Raises:
            InputError: If the features have no noise.
        """
        if self.variance_y is None:
            raise InputError("the features have no noise, so no two rows share a feature")
        distances = squared_distances(self.features_of(x), self.features_of(train))
        return (-distances / (2 * self.variance_y)).softmax(-1)

    def compare_pairs(
        self,
        x: Tensor,
        variance: float,
        centers: int,
        feature_variance: float,
        *,
        generator: Source = None,
        labels: Tensor | None = None,
    ) -> PairComparison:
        """Return mixtures over pairs of a row and its features, without a batch shape.

        The data's mixture has a component for each row, at the row and its features. The model's
        mixture has one for each centre, at the centre and the features that it was made from. Both
        sides draw the noise on the features on their own. The pairs' features have no gradient:
        an encoder that makes all features alike would look best.

        Args:
            x: Rows with shape ``(B, d)``.
            variance: Variance of a component of the data's mixture.
            centers: Number K of centres for every row. So the model has B K components.
            feature_variance: Variance of a component, of both sides, in the features.
            generator: Draws the noise.
            labels: For models that are told classes.
        """
        del labels
        features = self.encode(x)
        own, made_from = (self.perturb(features, generator) for _ in range(2))
        q = self.decode(made_from, centers, generator)
        rows = x.to(q.means)
        return PairComparison(
            GaussianMixture(rows, variance).join(own.detach(), feature_variance),
            all_components(q).join(
                made_from.detach().repeat_interleave(centers, 0), feature_variance
            ),
            None if self._frozen else (GaussianMixture(rows.unsqueeze(-2), variance), q),
        )

    def compare_slices(
        self,
        x: Tensor,
        features: Tensor,
        variance: float,
        centers: int,
        generator: Source = None,
    ) -> Comparison:
        """Return p(x|y) and q(x|y) at some features, with batch shape ``(S,)``.

        Args:
            x: Rows that share each of the features, with shape ``(S, n, d)``.
            features: The features, with their noise, shape ``(S, F)``.
            variance: Variance of a component of the data's mixtures.
            centers: Number K of centres at each of the features.
            generator: Draws the noise.

        Raises:
            InputError: If the shapes do not fit.
        """
        if x.ndim != 3 or features.ndim != 2 or len(x) != len(features):
            raise InputError(
                f"x and features must have shapes (S, n, d) and (S, F), got {tuple(x.shape)} and "
                f"{tuple(features.shape)}"
            )
        q = self.decode(features, centers, generator)
        return Comparison(GaussianMixture(x.to(q.means), variance), q, q.means.new_zeros(()))

    def freeze_encoder(self) -> None:
        """Freeze the encoder: neither its weights nor its running averages change any more."""
        self.encoder.requires_grad_(requires_grad=False)
        self._frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode. A frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self._frozen:
            self.encoder.eval()
        return self

    def feature_density(self) -> GaussianMixture:
        r"""Return the density of features: a Gaussian around every remembered feature.

        The variance of the Gaussians is :math:`v_y`. So this is the density of features on which
        the decoder was trained. If features have no noise, Scott's rule sets the variance: it is
        :math:`n^{-2/(F+4)}` times the variance of each feature.

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


def marginal(compared: Comparison) -> Comparison:
    """Return one mixture of all rows and one of all their centres, without a batch shape.

    They compare the density of all reconstructions with that of the data. No centre belongs to the
    row that it was made from.

    Args:
        compared: Mixtures with batch shape ``(B,)``, one for each row, or mixtures without one,
            which stay as they are.
    """
    if not compared.p.batch_shape:
        return compared
    p, q = (all_components(mixture) for mixture in compared[:2])
    return Comparison(p, q, compared.penalty)


def all_components(q: GaussianMixture) -> GaussianMixture:
    """Return one mixture of all components of mixtures with batch shape ``(B,)``."""
    v, shape = q.component_variance, q.means.shape
    if v.shape[:-1].numel() > 1:
        v = v.expand(*shape[:-1], -1).flatten(0, 1)
    log_weights = None if q.equal_weights else q.log_weights.flatten()
    return GaussianMixture(
        q.means.flatten(0, 1), v.reshape(-1, v.shape[-1]), log_weights=log_weights
    )


def require_some(n: int) -> None:
    """Raise an InputError if no reconstruction is asked for."""
    if n < 1:
        raise InputError(f"n must be at least 1, got {n}")


# ------------------------------------------------------------------ the models


class EncoderMixtureDecoder(FeatureModel):
    """A conditional density: an encoder to features, and a decoder to a mixture of K centres.

    Args:
        encoder: Maps inputs with shape ``(*, d)`` to features of variance 1, ``(*, F)``.
        decoder: Maps features and noise to a mixture.
        variance_y: Variance of the noise on the features.
        centers: Number K of centres for every input in training.
        eval_centers: Number of centres in evaluation mode, by default as in training.
        rows: Number of training rows whose features will be remembered.

    Raises:
        InputError: If ``variance_y`` is not positive or a number of centres is below 1.

    >>> from hilbound.models.encoder import Encoder
    >>> encoder = Encoder(nn.Linear(3, 1), 3, standardized=1)
    >>> decoder = MixtureDecoder(nn.Linear(3, 3), feature_dim=1, noise_dim=2, variance=0.5)
    >>> model = EncoderMixtureDecoder(encoder, decoder, variance_y=0.01, centers=4)
    >>> model(torch.zeros(5, 3))
    GaussianMixture(components=4, dim=3, batch_shape=(5,), variance=0.5)
    >>> model.reconstruct(torch.zeros(5, 3), 2).shape
    torch.Size([5, 2, 3])
    """

    objectives: tuple[str, ...] = (
        "conditional",
        "likelihood",
        "joint-nuclear",
        "nuclear",
        "scalar",
    )
    variance_y: float

    def __init__(
        self,
        encoder: nn.Module,
        decoder: MixtureDecoder,
        *,
        variance_y: float,
        centers: int = 10,
        eval_centers: int | None = None,
        rows: int = 0,
    ) -> None:
        super().__init__(
            encoder,
            decoder,
            variance_y=variance_y,
            centers=centers,
            eval_centers=eval_centers,
            rows=rows,
        )

    def compare(
        self,
        x: Tensor,
        variance: float,
        centers: int,
        generator: Source = None,
        labels: Tensor | None = None,
    ) -> Comparison:
        """Return one component around every row ``(B, d)``, and q(x|y) at its noisy features."""
        del labels
        q = self.decode(self.features(x, generator), centers, generator)
        p = GaussianMixture(x.unsqueeze(-2).to(q.means), variance)
        return Comparison(p, q, q.means.new_zeros(()))

    @torch.no_grad()
    def bound(
        self,
        x: Tensor,
        variance: float,
        centers: int | None = None,
        generator: torch.Generator | None = None,
        points: int | None = None,
    ) -> Bound:
        """Return the conditional cost and its limit, with the rows x as the whole data set.

        Every row gives one feature point: its features with noise. All feature points share the
        noise of the centres. The inequality holds for any number of points. With very many rows and
        wide noise on the features, a few points are enough.

        Args:
            x: Rows with shape ``(N, d)``.
            variance: Variance of a component of the data's mixture.
            centers: Number of centres, by default ``eval_centers``.
            generator: Draws both kinds of noise.
            points: Use the features of this many rows, drawn at random, as feature points.

        Returns:
            The bound of :func:`hilbound.bounds.conditional_bound`.
        """
        features, feature_points = self._points(x, generator, points)
        k = self.eval_centers if centers is None else centers
        noise = self.decoder.noise(k, generator=generator)
        with self.evaluating():
            return conditional_bound(
                x.to(features),
                features,
                feature_points,
                lambda y: self.decoder(y, noise),
                variance_p=variance,
                variance_y=self.variance_y,
            )

    @torch.no_grad()
    def real_bound(
        self,
        x: Tensor,
        rows: Tensor,
        variance: float,
        centers: int | None = None,
        generator: torch.Generator | None = None,
        *,
        points: int | None = None,
    ) -> Bound:
        """Return the bound that other real rows reach in the place of the decoder's centres.

        With a generator in the same state as for :meth:`bound`, the feature points are the same,
        and so is the limit.

        Args:
            x: Rows with shape ``(N, d)``, the whole data set.
            rows: Other real rows with shape ``(L, d)``, many more than centres.
            variance: Variance of a component.
            centers: Number K of rows at each feature point, by default ``eval_centers``.
            generator: Draws the noise of the features, and the rows.
            points: See :meth:`bound`.

        Returns:
            The bound of :func:`hilbound.bounds.real_bound`.
        """
        features, feature_points = self._points(x, generator, points)
        return real_bound(
            x.to(features),
            features,
            feature_points,
            rows.to(features),
            self.features_of(rows),
            centers=self.eval_centers if centers is None else centers,
            variance_p=variance,
            variance_y=self.variance_y,
            generator=generator,
        )

    def _points(
        self, x: Tensor, generator: torch.Generator | None, points: int | None
    ) -> tuple[Tensor, Tensor]:
        """Return the features of rows, and the feature points: those of all or some with noise."""
        if points is not None and points < 1:
            raise InputError(f"points must be at least 1, got {points}")
        features = self.features_of(x)
        some = features
        if points is not None and points < len(x):
            device = features.device
            some = features[torch.randperm(len(x), generator=generator, device=device)[:points]]
        return features, self.perturb(some, generator)


class Autoencoder(FeatureModel):
    """A plain autoencoder: an encoder to features, and a decoder to one centre.

    Args:
        encoder: Maps inputs with shape ``(*, d)`` to features with shape ``(*, F)``.
        decoder: Maps features alone (``noise_dim`` 0) to one centre.
        variance_y: Variance of the noise on the features in training. By default there is no noise.
        rows: Number of training rows whose features will be remembered.

    >>> from hilbound.models.encoder import Encoder
    >>> decoder = MixtureDecoder(nn.Linear(1, 3), feature_dim=1, noise_dim=0, variance=0.5)
    >>> model = Autoencoder(Encoder(nn.Linear(3, 1), 3), decoder)
    >>> model(torch.zeros(5, 3)).means.shape
    torch.Size([5, 1, 3])
    """

    objectives = ("trace", "mse", "joint-nuclear", "nuclear", "scalar")

    def __init__(
        self,
        encoder: nn.Module,
        decoder: MixtureDecoder,
        *,
        variance_y: float | None = None,
        rows: int = 0,
    ) -> None:
        super().__init__(encoder, decoder, variance_y=variance_y, rows=rows)

    def compare(
        self,
        x: Tensor,
        variance: float,
        centers: int,
        generator: Source = None,
        labels: Tensor | None = None,
    ) -> Comparison:
        """Return the mixtures of the B rows and of their B reconstructions, in the same order."""
        del labels
        q = self.decode(self.features(x, generator), centers, generator)
        centers_of_rows = GaussianMixture(q.means.squeeze(-2), q.component_variance.squeeze(-2))
        p = GaussianMixture(x.to(q.means), variance)
        return Comparison(p, centers_of_rows, q.means.new_zeros(()))


class VAE(FeatureModel):
    r"""A variational autoencoder, trained on the evidence lower bound. It serves as a baseline.

    .. math:: \log q(x) \ge E_{y \sim q(y|x)} \log q(x \mid y)
        - KL\big(q(y \mid x) \,\|\, N(0, I)\big)

    Args:
        encoder: Maps inputs with shape ``(*, d)`` to means and log variances of the features,
            together with shape ``(*, 2 F)``.
        decoder: Maps features alone (``noise_dim`` 0) to one centre.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2013).

    >>> from hilbound.models.encoder import Encoder
    >>> decoder = MixtureDecoder(nn.Linear(1, 3), feature_dim=1, noise_dim=0, variance=0.5)
    >>> model = VAE(Encoder(nn.Linear(3, 2), 3), decoder)
    >>> model.sample(5).shape
    torch.Size([5, 3])
    """

    objectives = ("likelihood",)

    def __init__(self, encoder: nn.Module, decoder: MixtureDecoder) -> None:
        super().__init__(encoder, decoder)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(y|x), with shape ``(*, F)`` each."""
        # Under mixed precision the outputs are half floats, which are too coarse for a divergence.
        mean, log_variance = self.encoder(x).to(self.decoder.variance.dtype).chunk(2, -1)
        return mean, log_variance

    def encode(self, x: Tensor) -> Tensor:
        """Return the means of q(y|x), with shape ``(*, F)``."""
        return self.posterior(x)[0]

    def features(self, x: Tensor, generator: Source = None) -> Tensor:
        """Draw features from q(y|x), with shape ``(*, F)``."""
        return self._drawn(*self.posterior(x), generator)

    def _drawn(self, mean: Tensor, log_variance: Tensor, generator: Source) -> Tensor:
        noise = self.decoder.normal(*mean.shape, generator=generator).to(mean)
        return mean + (0.5 * log_variance).exp() * noise

    def compare(
        self,
        x: Tensor,
        variance: float,
        centers: int,
        generator: Source = None,
        labels: Tensor | None = None,
    ) -> Comparison:
        """Return one component around every row, q(x|y), and the divergence of the features."""
        del labels
        mean, log_variance = self.posterior(x)
        q = self.decode(self._drawn(mean, log_variance, generator), centers, generator)
        p = GaussianMixture(x.unsqueeze(-2).to(q.means), variance)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        return Comparison(p, q, divergence.mean())

    @torch.no_grad()
    def reconstruct(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return ``n`` reconstructions ``(B, n, d)`` of inputs ``(B, d)``, at draws from q(y|x)."""
        require_some(n)
        several = x.unsqueeze(-2).expand(*x.shape[:-1], n, x.shape[-1])
        with self.evaluating():
            features = self.features(several, generator)
            return self.decode(features, 1, generator).means.squeeze(-2)

    def remember(self, x: Tensor, labels: Tensor | None = None) -> None:
        """Keep nothing, because features are drawn from the prior."""
        del x, labels

    def feature_density(self) -> GaussianMixture:
        """Return the prior N(0, I)."""
        return GaussianMixture(self.decoder.variance.new_zeros(1, self.decoder.feature_dim), 1.0)
