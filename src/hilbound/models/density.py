r"""The mixture density network: a model that makes a mixture from noise.

It maps noise to centres, :math:`m_k = g(c_k)` with :math:`c_k \sim N(0, I)`, and returns the
mixture

.. math:: q(x) = \sum_{k=1}^K b_k N(x - m_k; v_k).

as a :class:`~hilbound.GaussianMixture`. With fresh noise, every call gives new centres from the
same distribution. Training compares their mixture with a batch of data. Models with an encoder are
in :mod:`hilbound.models.autoencoders`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hilbound.engine.seeding import Source
from hilbound.mixture import GaussianMixture
from hilbound.models.base import Comparison, DensityModel, MixtureNetwork, refuse_label


class MixtureDensityNetwork(MixtureNetwork, DensityModel):
    """Map noise to a Gaussian mixture, optionally with learned weights and variances.

    Args:
        network: Maps noise with shape ``(*, noise_dim)`` to centres with shape ``(*, d)``.
        noise_dim: Number of noise coordinates.
        variance: Variance of the components. If it is learned, this is the initial value.
        **options: Options of :class:`~hilbound.models.base.MixtureNetwork`: ``learn_weights``,
            ``learn_variance``, ``min_variance`` and ``bounded``.

    Raises:
        InputError: If a variance is not positive or ``min_variance`` is not below ``variance``.

    References:
        Mixture Density Networks (Bishop, 1994).

    >>> model = MixtureDensityNetwork(nn.Linear(2, 3), noise_dim=2, variance=0.5)
    >>> model(torch.zeros(4, 2))
    GaussianMixture(components=4, dim=3, batch_shape=(), variance=0.5)
    """

    objectives = (
        "debiased",
        "nuclear",
        "scalar",
        "vector",
        "schur",
        "trace",
        "schatten",
        "distance",
        "likelihood",
    )

    def __init__(self, network: nn.Module, noise_dim: int, variance: float, **options: Any) -> None:
        super().__init__(network, noise_dim, variance, **options)
        self.noise_dim = noise_dim

    @property
    def head(self) -> MixtureNetwork:
        """The network itself."""
        return self

    def forward(self, noise: Tensor) -> GaussianMixture:
        """Return the mixture of K components for noise with shape ``(*batch, K, noise_dim)``."""
        return self.mixture(noise)

    def noise(self, n: int, generator: Source = None) -> Tensor:
        """Draw standard normal noise with shape ``(n, noise_dim)``."""
        return self.normal(n, self.noise_dim, generator=generator)

    def compare(
        self,
        x: Tensor,
        variance: float,
        centers: int,
        generator: Source = None,
        labels: Tensor | None = None,
    ) -> Comparison:
        """Return the mixture of the batch ``(B, d)``, and one of ``centers`` fresh centres."""
        del labels
        q: GaussianMixture = self(self.noise(centers, generator))
        return Comparison(GaussianMixture(x.to(q.means), variance), q, q.means.new_zeros(()))

    def draw(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> GaussianMixture:
        """Return the mixture of ``n`` fresh centres. See :meth:`DensityModel.draw`."""
        refuse_label(label)
        q: GaussianMixture = self(self.noise(n, generator))
        return q

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> Tensor:
        """Draw ``n`` centres with shape ``(n, d)``. See :meth:`DensityModel.sample`."""
        refuse_label(label)
        # Weighted centres are resampled from a larger pool, so that duplicates stay rare.
        noise = self.noise(n if self.weight_head is None else 8 * n, generator)
        weights = self.weights(noise)
        if weights is None:
            return self.centers(noise)
        chosen = torch.multinomial(weights, n, replacement=True, generator=generator)
        return self.centers(noise[chosen])
