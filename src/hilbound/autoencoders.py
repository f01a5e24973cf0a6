r"""Models with an encoder: a mixture for every input, made from its features.

The encoder gives features :math:`y_n = f(x_n)`, which get noise of variance :math:`v_y`; the
decoder turns features and noise into centres, so that what it knows of an input is a density,

.. math:: q(x \mid y) = \frac1K \sum_{k=1}^K N(x - D(y, c_k); v_q), \qquad c_k \sim N(0, I).

Training raises the conditional cost (:func:`hilbound.functional.conditional_log_scalar_cost`)
towards its limit :math:`\|p(X|Y)\|^2`, the norm of the data's own conditional density

.. math:: p(x \mid y) = \sum_n w_n(y)\, N(x - x_n; v_p), \qquad w_n(y) \propto N(y - y_n; v_y),

which :meth:`EncoderMixtureDecoder.bound` tracks. With one centre the cost is the trace of the
Gaussian Gram matrix of inputs and reconstructions: the plain :class:`Autoencoder`. :class:`VAE` is
the usual baseline.

Features with noise are standardised: otherwise they would simply grow until the noise is nothing
beside them. So ``variance_y`` is the variance of the noise as a share of the features' own.

References:
    Contrastive Entropy Bounds for Density and Conditional Density Decomposition (Hu and Principe,
    2025, arXiv 2511.12903). Auto-Encoding Variational Bayes (Kingma and Welling, 2013).
"""

import torch
from torch import Tensor, nn

from hilbound.bounds import Bound, conditional_bound
from hilbound.density_model import Comparison
from hilbound.errors import InputError
from hilbound.feature_model import FeatureModel, MixtureDecoder, require_some
from hilbound.mixture import GaussianMixture


class EncoderMixtureDecoder(FeatureModel):
    """Input to features, features and noise to a mixture of K centres: a conditional density.

    Args:
        encoder: Maps inputs with shape ``(*, d)`` to features of variance 1, ``(*, F)``.
        decoder: Maps features and noise to a mixture.
        variance_y: Variance of the noise on the features.
        centers: Number K of centres for every input while training.
        eval_centers: Number of centres in evaluation mode; as many as in training by default.
        rows: Number of training rows whose features will be remembered.

    Raises:
        InputError: If ``variance_y`` is not positive or a number of centres is below 1.

    >>> from hilbound.encoder import Encoder
    >>> encoder = Encoder(nn.Linear(3, 1), 3, standardized=1)
    >>> decoder = MixtureDecoder(nn.Linear(3, 3), feature_dim=1, noise_dim=2, variance=0.5)
    >>> model = EncoderMixtureDecoder(encoder, decoder, variance_y=0.01, centers=4)
    >>> model(torch.zeros(5, 3))
    GaussianMixture(components=4, dim=3, batch_shape=(5,), variance=0.5)
    >>> model.reconstruct(torch.zeros(5, 3), 2).shape
    torch.Size([5, 2, 3])
    """

    objectives = ("conditional", "likelihood")
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
            encoder, decoder, variance_y=variance_y, centers=centers, eval_centers=eval_centers,
            rows=rows,
        )  # fmt: skip

    def compare(
        self, x: Tensor, variance: float, centers: int, generator: torch.Generator | None = None
    ) -> Comparison:
        """Return one component around every row ``(B, d)``, and q(x|y) at its noisy features."""
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
        """Return the conditional cost and its limit, for rows x as the whole of the data.

        Every row gives one feature point, its features with noise. The noise of the centres is the
        same at all of them. The inequality holds for any number of points: where there are very
        many rows and wide noise on the features, some points are enough.

        Args:
            x: Rows with shape ``(N, d)``.
            variance: Variance of a component of the data's mixture.
            centers: Number of centres; ``eval_centers`` by default.
            generator: Draws both kinds of noise.
            points: Use the features of this many rows, drawn at random, as feature points.

        Returns:
            The bound of :func:`hilbound.bounds.conditional_bound`.
        """
        if points is not None and points < 1:
            raise InputError(f"points must be at least 1, got {points}")
        features = self.features_of(x)
        some = features
        if points is not None and points < len(x):
            device = features.device
            some = features[torch.randperm(len(x), generator=generator, device=device)[:points]]
        feature_points = self.perturb(some, generator)
        k = self.eval_centers if centers is None else centers
        noise = self.decoder.noise(k, generator=generator)
        with self.evaluating():
            return conditional_bound(
                x.to(features), features, feature_points, lambda y: self.decoder(y, noise),
                variance_p=variance, variance_y=self.variance_y,
            )  # fmt: skip


class Autoencoder(FeatureModel):
    """Input to features to one centre, by default without noise: a plain autoencoder.

    Args:
        encoder: Maps inputs with shape ``(*, d)`` to features with shape ``(*, F)``.
        decoder: Maps features alone (``noise_dim`` 0) to one centre.
        variance_y: Variance of the noise on the features in training; ``None`` for none.
        rows: Number of training rows whose features will be remembered.

    >>> from hilbound.encoder import Encoder
    >>> decoder = MixtureDecoder(nn.Linear(1, 3), feature_dim=1, noise_dim=0, variance=0.5)
    >>> model = Autoencoder(Encoder(nn.Linear(3, 1), 3), decoder)
    >>> model(torch.zeros(5, 3)).means.shape
    torch.Size([5, 1, 3])
    """

    objectives = ("trace", "mse")

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
        self, x: Tensor, variance: float, centers: int, generator: torch.Generator | None = None
    ) -> Comparison:
        """Return the mixtures of the B rows and of their B reconstructions, in the same order."""
        q = self.decode(self.features(x, generator), centers, generator)
        centers_of_rows = GaussianMixture(q.means.squeeze(-2), q.component_variance.squeeze(-2))
        p = GaussianMixture(x.to(q.means), variance)
        return Comparison(p, centers_of_rows, q.means.new_zeros(()))


class VAE(FeatureModel):
    r"""A variational autoencoder, trained on the evidence lower bound: the usual baseline.

    .. math:: \log q(x) \ge E_{y \sim q(y|x)} \log q(x \mid y)
        - KL\big(q(y \mid x) \,\|\, N(0, I)\big)

    Args:
        encoder: Maps inputs with shape ``(*, d)`` to means and log variances of the features,
            together with shape ``(*, 2 F)``.
        decoder: Maps features alone (``noise_dim`` 0) to one centre.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2013).

    >>> from hilbound.encoder import Encoder
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
        # Under mixed precision they are half floats; the divergence never is.
        mean, log_variance = self.encoder(x).to(self.decoder.variance.dtype).chunk(2, -1)
        return mean, log_variance

    def encode(self, x: Tensor) -> Tensor:
        """Return the means of q(y|x), with shape ``(*, F)``."""
        return self.posterior(x)[0]

    def features(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw features from q(y|x), with shape ``(*, F)``."""
        return self._drawn(*self.posterior(x), generator)

    def _drawn(
        self, mean: Tensor, log_variance: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        noise = self.decoder.normal(*mean.shape, generator=generator).to(mean)
        return mean + (0.5 * log_variance).exp() * noise

    def compare(
        self, x: Tensor, variance: float, centers: int, generator: torch.Generator | None = None
    ) -> Comparison:
        """Return one component around every row, q(x|y), and the divergence of the features."""
        mean, log_variance = self.posterior(x)
        q = self.decode(self._drawn(mean, log_variance, generator), centers, generator)
        p = GaussianMixture(x.unsqueeze(-2).to(q.means), variance)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        return Comparison(p, q, divergence.mean())

    @torch.no_grad()
    def reconstruct(self, x: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Return ``n`` reconstructions ``(B, n, d)`` of inputs ``(B, d)``, by draws from q(y|x)."""
        require_some(n)
        several = x.unsqueeze(-2).expand(*x.shape[:-1], n, x.shape[-1])
        with self.evaluating():
            features = self.features(several, generator)
            return self.decode(features, 1, generator).means.squeeze(-2)

    def remember(self, x: Tensor) -> None:
        """Keep nothing: features are drawn from the prior."""
        del x

    def feature_density(self) -> GaussianMixture:
        """Return the prior N(0, I)."""
        return GaussianMixture(self.decoder.variance.new_zeros(1, self.decoder.feature_dim), 1.0)
