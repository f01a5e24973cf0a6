r"""Models with an encoder whose decoder is told the class as well.

The class c joins the features y as further coordinates, a code :math:`e_c` with one 1 in the c-th
of C places. The encoder need not spend features on it, and new data of one class are made from
features of that class alone:

.. math:: q(x \mid y, c) = \frac1K \sum_{k=1}^K N(x - D(y, e_c, c_k); v_q), \qquad
    y \sim p(y \mid c) = \frac{1}{N_c} \sum_{n:\, l_n = c} N(y - f(x_n); v_y).

The code gets no noise, so a comparison of mixtures for every row stays what it was: the features of
a row simply include its class. All models of :mod:`hilbound.autoencoders` become class-conditional
in this way; :meth:`ClassConditional.compare` then gives any objective its two mixtures.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hilbound.density_model import Comparison
from hilbound.errors import InputError
from hilbound.feature_model import FeatureModel, MixtureDecoder
from hilbound.mixture import GaussianMixture


class ClassDecoder(MixtureDecoder):
    """Features, the code of a class and noise to the centres of a mixture for every input.

    Args:
        network: Maps features, code and noise together, with shape
            ``(*, feature_dim + classes + noise_dim)``, to centres with shape ``(*, d)``.
        feature_dim: Number of features, the code left out.
        noise_dim: Number of noise coordinates.
        variance: Variance of the components; where it is learned, their variance at the start.
        classes: Number C of classes.
        **options: Those of :class:`~hilbound.density_model.MixtureNetwork`.

    >>> decoder = ClassDecoder(nn.Linear(6, 4), 1, 2, variance=0.5, classes=3)
    >>> with decoder.told(torch.tensor([0, 2])):
    ...     decoder(torch.zeros(2, 1), decoder.noise(2, 5))
    GaussianMixture(components=5, dim=4, batch_shape=(2,), variance=0.5)
    """

    def __init__(
        self,
        network: nn.Module,
        feature_dim: int,
        noise_dim: int,
        variance: float,
        *,
        classes: int,
        **options: Any,  # noqa: ANN401 - checked by the base
    ) -> None:
        super().__init__(network, feature_dim + classes, noise_dim, variance, **options)
        # What models draw and encode are features alone.
        self.feature_dim = feature_dim
        self.classes = classes
        self._labels: Tensor | None = None

    @contextmanager
    def told(self, labels: Tensor) -> Iterator[None]:
        """Decode what comes as of these classes, with shape ``()`` for all or ``(B,)``.

        Raises:
            InputError: If there is no such class.
        """
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise InputError(
                f"labels must lie between 0 and {self.classes - 1}, got {int(labels.min())} to "
                f"{int(labels.max())}"
            )
        self._labels = labels
        try:
            yield
        finally:
            self._labels = None

    def forward(self, features: Tensor, noise: Tensor) -> GaussianMixture:
        """Return q(x|y, c) with batch shape ``(*batch)``; see :class:`MixtureDecoder`.

        Raises:
            InputError: If no class was told, or shapes do not fit.
        """
        if self._labels is None:
            raise InputError("the decoder was told no class: call it within `told(labels)`")
        if (features.shape[-1], noise.shape[-1]) != (self.feature_dim, self.noise_dim):
            raise InputError(
                f"features and noise must have {self.feature_dim} and {self.noise_dim} "
                f"coordinates, got {features.shape[-1]} and {noise.shape[-1]}"
            )
        code = nn.functional.one_hot(self._labels, self.classes).to(features)
        # Labels belong to the first axis; several draws for one row are of one class.
        while 1 < code.ndim < features.ndim:
            code = code.unsqueeze(-2)
        code = code.expand(*features.shape[:-1], self.classes)
        batch, k = features.shape[:-1], noise.shape[-2]
        told = torch.cat([features, code], -1).unsqueeze(-2).expand(*batch, k, -1)
        return self.mixture(torch.cat([told, noise.expand(*batch, k, -1).to(features)], -1))


class ClassConditional(nn.Module):
    """A model with an encoder, by class: rows come with labels, samples are of a class.

    Args:
        model: A model whose decoder is a :class:`ClassDecoder`.

    Raises:
        InputError: If its decoder is another.

    >>> from hilbound.autoencoders import EncoderMixtureDecoder
    >>> decoder = ClassDecoder(nn.Linear(6, 4), 1, 2, variance=0.5, classes=3)
    >>> model = ClassConditional(EncoderMixtureDecoder(nn.Linear(4, 1), decoder, variance_y=0.1))
    >>> x, labels = torch.zeros(5, 4), torch.tensor([0, 1, 2, 1, 0])
    >>> model.compare(x, labels, 0.5, centers=7).q
    GaussianMixture(components=7, dim=4, batch_shape=(5,), variance=0.5)
    >>> model.remember(x, labels)
    >>> model.sample(6, label=1).shape
    torch.Size([6, 4])
    """

    def __init__(self, model: FeatureModel) -> None:
        super().__init__()
        if not isinstance(model.decoder, ClassDecoder):
            raise InputError(
                f"model has a {type(model.decoder).__name__}, which knows no classes: give it a "
                "ClassDecoder"
            )
        self.model = model
        self.decoder: ClassDecoder = model.decoder
        self._features: dict[int, Tensor] = {}

    def compare(
        self,
        x: Tensor,
        labels: Tensor,
        variance: float,
        centers: int,
        generator: torch.Generator | None = None,
    ) -> Comparison:
        """Return what :meth:`DensityModel.compare` does, for rows ``(B, d)`` with labels ``(B,)``.

        Args:
            x: Rows with shape ``(B, d)``.
            labels: Their classes with shape ``(B,)``.
            variance: Variance of a component of the data's mixture.
            centers: Number of centres of every row.
            generator: Draws the noise.
        """
        with self.decoder.told(labels):
            return self.model.compare(x, variance, centers, generator)

    def reconstruct(
        self, x: Tensor, labels: Tensor, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return ``n`` reconstructions of every input, shape ``(B, n, d)``, for ``(B, d)``."""
        with self.decoder.told(labels):
            return self.model.reconstruct(x, n, generator)

    def remember(self, x: Tensor, labels: Tensor) -> None:
        """Keep the features of training rows ``(N, d)`` by their classes ``(N,)``."""
        self._features = {}
        for label in labels.unique().tolist():
            self.model.remember(x[labels == label])
            self._features[label] = self.model.training_features

    def sample(self, n: int, label: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` centres of a class, with shape ``(n, d)``.

        Their features are drawn around those of the class's training rows, or from the prior of a
        model that has one.

        Raises:
            InputError: If no rows of this class were remembered.
        """
        if label not in self._features:
            raise InputError(f"no rows of class {label} were remembered: call remember first")
        self.model.training_features = self._features[label]
        with self.decoder.told(torch.tensor(label, device=self.decoder.variance.device)):
            return self.model.sample(n, generator)
