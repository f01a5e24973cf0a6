r"""The latent mixture: a decoder to pixels, and a mixture as the density of its features.

It is the decomposition

.. math:: q(x) = \int q(x \mid y)\, p(y)\, dy, \qquad
    q(x \mid y) = \frac1K \sum_{k=1}^K N(x - D(y, c_k); v_q), \qquad
    p(y) = \sum_j b_j N(y - m_j; S_j).

Encoder and decoder are trained first, by an objective that compares rows with their
reconstructions. Then p(y) is fitted to the features of all training rows
(:mod:`hilbound.models.feature_mixture`). To make new data, y is drawn from p(y) and decoded. So the
model copies no training row, and its density can be computed
(:mod:`hilbound.models.importance`).

A mixture is a little wider than the features of real rows. The encoder f was trained together with
the decoder, with noise between them. So a draw is decoded and encoded once more, which is to bring
it nearer to such features: new data are decoded at :math:`f(D(y))` in the place of y. The decoder
of the model is then :math:`D \circ f \circ D`, also in its density.

References:
    Generalized Denoising Auto-Encoders as Generative Models (Bengio, Yao, Alain and Vincent, 2013),
    on what alternating decoder and encoder does.
"""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from hilbound.engine.expectation.components import Components
from hilbound.engine.seeding import Source, stream
from hilbound.errors import InputError
from hilbound.mixture import FullGaussianMixture, GaussianMixture
from hilbound.models.autoencoders import EncoderMixtureDecoder, MixtureDecoder
from hilbound.models.base import Comparison
from hilbound.models.feature_mixture import FeatureMixture
from hilbound.models.importance import Integrand, LogDensity, estimate_log_density

# The most rows that are decoded at a time.
_ROWS = 4096


class LatentMixture(EncoderMixtureDecoder):
    """An encoder and a decoder whose features have a Gaussian mixture as their density.

    A decoder without noise makes one centre for every input, and rows are compared with their
    reconstructions one to one. A decoder with noise makes a mixture for every input.

    Args:
        encoder: Maps inputs with shape ``(*, d)`` to features of variance 1, ``(*, F)``.
        decoder: Maps features and noise to a mixture.
        variance_y: Variance of the noise on the features in training.
        components: Number of components of the features' density. By default it is chosen on
            held-out rows.
        classes: Number of classes whose features have a density each, p(y|c), or 1.
        centers: Number K of centres for every input in training.
        eval_centers: Number of centres in evaluation mode, by default as in training.
        refinements: How often a drawn feature is decoded and encoded before it is decoded for good.
            A decoder with noise has none.

    Raises:
        InputError: If ``variance_y`` is not positive, a number is below 1, or there are several
            centres and the decoder has no noise to tell them apart.

    >>> from hilbound.models.encoder import Encoder
    >>> encoder = Encoder(nn.Linear(3, 2), 3, standardized=2)
    >>> decoder = MixtureDecoder(nn.Linear(2, 3), feature_dim=2, noise_dim=0, variance=0.5)
    >>> model = LatentMixture(encoder, decoder, variance_y=0.02, components=4).eval()
    >>> model.fit_features(torch.randn(100, 3))
    >>> model.sample(5).shape, model.feature_density().components
    (torch.Size([5, 3]), 4)
    """

    objectives = ("trace", "mse", "conditional", "joint-nuclear")
    stages = 2
    output_variance: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: MixtureDecoder,
        *,
        variance_y: float,
        components: int | None = None,
        classes: int = 1,
        centers: int = 1,
        eval_centers: int | None = None,
        refinements: int = 1,
    ) -> None:
        super().__init__(
            encoder, decoder, variance_y=variance_y, centers=centers, eval_centers=eval_centers
        )
        if self.paired and max(self.centers, self.eval_centers) > 1:
            raise InputError(
                f"centers must be 1 for a decoder without noise, whose centres all coincide; got "
                f"{max(self.centers, self.eval_centers)}"
            )
        if refinements < 0:
            raise InputError(f"refinements must be 0 or more, got {refinements}")
        self.refinements = refinements if self.paired else 0
        self.density = FeatureMixture(decoder.feature_dim, components=components, classes=classes)
        # The mean squared error of a coordinate of a decoded held-out row.
        self.register_buffer("output_variance", decoder.variance.detach().clone())

    @property
    def paired(self) -> bool:
        """Whether there is one centre for every row, because the decoder has no noise."""
        return self.decoder.noise_dim == 0

    def compare(
        self,
        x: Tensor,
        variance: float,
        centers: int,
        generator: Source = None,
        labels: Tensor | None = None,
    ) -> Comparison:
        """Return the mixtures of rows and of reconstructions, or q(x|y) for every row.

        With a single centre for every row, p and q are mixtures of B components each, in the same
        order. Otherwise both have batch shape ``(B,)``.
        """
        compared = super().compare(x, variance, centers, generator, labels)
        if not self.paired:
            return compared
        p, q, penalty = compared
        reconstructions = GaussianMixture(q.means.squeeze(-2), q.component_variance.squeeze(-2))
        return Comparison(GaussianMixture(p.means.squeeze(-2), variance), reconstructions, penalty)

    def remember(self, x: Tensor, labels: Tensor | None = None) -> None:
        """Fit a few components to the features of training rows, so that sampling is possible.

        Training calls this whenever it saves. :meth:`fit_features` fits the density in full.
        """
        with torch.no_grad():
            draws = stream(0, "rough density")
            self.density.fit_roughly(self.features_of(x), labels, generator=draws)

    def conclude(
        self,
        x: Tensor,
        held_out: Tensor,
        seed: int,
        labels: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> None:
        """Fit the density of the features in full. See :meth:`fit_features`."""
        self.fit_features(x, held_out, *labels, generator=stream(seed, "feature density"))

    @torch.no_grad()
    def fit_features(
        self,
        x: Tensor,
        held_out: Tensor | None = None,
        labels: Tensor | None = None,
        held_out_labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        """Fit the density p(y) to the features of training rows.

        Args:
            x: Training rows with shape ``(n, d)``.
            held_out: Other rows with shape ``(m, d)``. On them the number of components is chosen,
                if it was not given, and the error of reconstructions is measured.
            labels: The classes of ``x`` with shape ``(n,)``, if each has a density.
            held_out_labels: The classes of ``held_out``.
            generator: Draws the first centres of the components.

        Raises:
            InputError: If there are more components than rows, a class has no rows, or features are
                not finite.
        """
        y = self.features_of(x)
        others = None if held_out is None or len(held_out) == 0 else self.features_of(held_out)
        draws = generator or stream(0, "feature density")
        self.density.fit(y, others, labels, held_out_labels, generator=draws)
        if not self.paired or self.decoder.variance_head is not None:
            return
        if others is None or held_out is None:
            self.output_variance = self._squared_error(x, y, labels)
        else:
            self.output_variance = self._squared_error(held_out, others, held_out_labels)

    def _squared_error(self, x: Tensor, features: Tensor, labels: Tensor | None) -> Tensor:
        """Return the mean squared error of a coordinate of reconstructions, a number above zero."""
        total = features.new_zeros((), dtype=torch.float64)
        with self.evaluating():
            for i in range(0, len(x), _ROWS):
                part = slice(i, i + _ROWS)
                with self._told(None if labels is None else labels[part]):
                    y = self._refined(features[part])
                    error = self.decode(y, 1).means.squeeze(-2) - x[part].to(y)
                total += error.square().sum(dtype=torch.float64)
        least = torch.finfo(self.output_variance.dtype).eps
        return (total / x.numel()).clamp_min(least).to(self.output_variance)

    def _refined(self, features: Tensor) -> Tensor:
        """Decode and encode features with shape ``(*, F)``, as often as was asked for."""
        with self.evaluating():
            for _ in range(self.refinements):
                features = self.encode(self.decode(features, 1).means.squeeze(-2))
        return features

    def _told(self, labels: Tensor | None) -> AbstractContextManager[None]:
        return nullcontext() if labels is None else self.decoder.told(labels)

    def feature_density(  # type: ignore[override]  # a mixture, too, with full covariances
        self, label: int | None = None
    ) -> FullGaussianMixture:
        """Return the density p(y) of features, or p(y|c) of one class.

        Raises:
            InputError: If it is not fitted yet, or there is no such class.
        """
        return self.density.mixture(label)

    def draw(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> GaussianMixture:
        """Return a mixture of ``n`` components, each at features drawn from p(y), or from p(y|c).

        The variance of the components is that of the data around reconstructions. So it is a
        smaller one than that of the kernel.
        """
        features = self._refined(self.density.draw(n, label, generator))
        q = self._drawn_at(features, generator)
        return GaussianMixture(q.means, self._around(q))

    def _around(self, q: GaussianMixture) -> Tensor:
        """Return the variance of the data around centres: a learned one, or the measured one."""
        learned = self.decoder.variance_head is not None or not self.paired
        return q.component_variance if learned else self.output_variance

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> Tensor:
        """Draw ``n`` centres with shape ``(n, d)``, of one class if ``label`` is given.

        Features are drawn from the density p(y) with the covariances of its components, refined,
        and decoded.
        """
        with self.evaluating():
            return self.draw(n, generator, label).means

    @torch.no_grad()
    def log_prob(
        self,
        x: Tensor,
        draws: int = 200,
        generator: torch.Generator | None = None,
        label: int | None = None,
    ) -> LogDensity:
        """Estimate log densities of rows by importance sampling, with error bars.

        The variance around a centre is the mean squared error of decoded rows, on the held-out rows
        of :meth:`fit_features`. If the decoder makes a mixture, it is the decoder's own.

        Args:
            x: Rows with shape ``(N, d)``.
            draws: Number of draws for every row.
            generator: Draws the features.
            label: The class c of q(x|c), or none for q(x).

        Raises:
            InputError: If the density is not fitted yet, there are fewer than two draws, there is
                no such class, or the decoder learns weights or variances.
        """
        if self.decoder.weight_head is not None or self.decoder.variance_head is not None:
            raise InputError(
                "log_prob needs components of equal weights and variances: train without "
                "--learn-weights and --learn-variance"
            )
        v = self.output_variance if self.paired else self.decoder.variance
        integrand = Integrand(self._centre, self._prior(label), float(v))
        told = None if label is None else torch.tensor(label, device=v.device)
        with self.evaluating(), self._told(told):
            y = self.features_of(x)
            start = torch.cat([y, y.new_zeros(len(y), self.decoder.noise_dim)], -1)
            return estimate_log_density(integrand, x.to(y), start, draws=draws, generator=generator)

    def _centre(self, z: Tensor) -> Tensor:
        """Return the centres ``(*, d)`` of features and noise together, ``(*, Z)``."""
        f = self.decoder.feature_dim
        q: GaussianMixture = self.decoder(self._refined(z[..., :f]), z[..., None, f:])
        return q.means.squeeze(-2)

    def _prior(self, label: int | None) -> Components:
        """Return the density of features and noise together."""
        q, extra = self.density.mixture(label), self.decoder.noise_dim
        means = torch.cat([q.means, q.means.new_zeros(q.components, extra)], -1)
        spread = torch.eye(means.shape[-1]).to(means).repeat(q.components, 1, 1)
        spread[:, : q.dim, : q.dim] = q.component_covariance
        return Components(means, spread, q.log_weights)
