"""What every mixture has in common: means, samples, entropies and divergences."""

import math
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from hilbound.errors import InputError


class Estimate(NamedTuple):
    """A number that was estimated by drawing.

    Args:
        value: The estimate, with shape ``(*batch)``.
        error: Its standard error, with shape ``(*batch)``.
    """

    value: Tensor
    error: Tensor


class Mixture(Distribution):
    """A mixture with K components in d coordinates. Subclasses define the components' spread.

    Attributes:
        means: Centres of the components, with shape ``(*batch, K, d)``.
        log_weights: Logarithms of the normalised weights, with shape ``(*batch, K)``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False
    means: Tensor
    log_weights: Tensor

    @property
    def components(self) -> int:
        """The number of components ``K``."""
        return self.means.shape[-2]

    @property
    def dim(self) -> int:
        """The number of coordinates ``d``."""
        return self.means.shape[-1]

    @property
    def weights(self) -> Tensor:
        """The normalised weights, with shape ``(*batch, K)``."""
        return self.log_weights.exp()

    @property
    def mean(self) -> Tensor:
        """The mean of the mixture, with shape ``(*batch, d)``."""
        return (self.weights.unsqueeze(-1) * self.means).sum(-2)

    def renyi_entropy(self) -> Tensor:
        r"""Return Rényi's quadratic entropy :math:`H_2 = -\log \langle q, q \rangle` in nats.

        References:
            On measures of entropy and information (Rényi, 1961).
        """
        return -self.log_norm()

    def log_norm(self) -> Tensor:
        r"""Return :math:`\log \langle q, q \rangle`, the squared norm, with shape ``(*batch)``."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """Return an estimate of Shannon's entropy; :meth:`estimate_entropy` says how good it is."""
        return self.estimate_entropy().value

    @torch.no_grad()
    def estimate_entropy(
        self, samples: int = 4096, generator: torch.Generator | None = None
    ) -> Estimate:
        r"""Estimate Shannon's entropy :math:`H = -E_q \log q(x)` in nats, by drawing from q.

        It has no closed form for mixtures. Rényi's quadratic entropy has: :meth:`renyi_entropy`.

        Args:
            samples: How many points are drawn, two at least; the error falls with their root.
            generator: Draws them.

        Returns:
            The estimate, which is unbiased, and its standard error, each with shape ``(*batch)``.

        Raises:
            InputError: If fewer than two points are asked for.

        >>> from hilbound import GaussianMixture
        >>> q = GaussianMixture(torch.zeros(1, 1), 1.0)
        >>> estimate = q.estimate_entropy(generator=torch.Generator().manual_seed(0))
        >>> bool((estimate.value - 1.4189).abs() < 3 * estimate.error)
        True
        """
        x = self._draws(samples, generator)
        return _mean(-self.log_prob(x))

    @torch.no_grad()
    def estimate_kl(
        self, other: "Mixture", samples: int = 4096, generator: torch.Generator | None = None
    ) -> Estimate:
        r"""Estimate :math:`KL(q \| p) = E_q \log (q(x) / p(x))` in nats, by drawing from q.

        It has no closed form for mixtures. torch's ``kl_divergence(q, p)`` returns the estimate
        alone.

        Args:
            other: The mixture p, diagonal or full.
            samples: How many points are drawn, two at least; the error falls with their root.
            generator: Draws them.

        Returns:
            The estimate, which is unbiased, and its standard error, each with shape ``(*batch)``.

        Raises:
            InputError: If fewer than two points are asked for, or the dimensions differ.

        >>> from hilbound import GaussianMixture
        >>> q = GaussianMixture(torch.zeros(1, 1), 1.0)
        >>> p = GaussianMixture(torch.ones(1, 1), 1.0)
        >>> estimate = q.estimate_kl(p, generator=torch.Generator().manual_seed(0))
        >>> bool((estimate.value - 0.5).abs() < 3 * estimate.error)
        True
        """
        self._check_dim("other", other.dim)
        x = self._draws(samples, generator)
        return _mean(self.log_prob(x) - other.log_prob(x))

    def _draws(self, samples: int, generator: torch.Generator | None) -> Tensor:
        if samples < 2:
            raise InputError(f"samples must be at least 2, to know the error, got {samples}")
        return self.sample((samples,), generator=generator)

    def sample(
        self,
        sample_shape: torch.Size | list[int] | tuple[int, ...] = torch.Size(),  # noqa: B008 - torch's signature
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw points with shape ``(*sample, *batch, d)``; no gradient flows through them."""
        raise NotImplementedError

    def _check_dim(self, name: str, dim: int) -> None:
        if dim != self.dim:
            raise InputError(
                f"{name} has {dim} coordinates, but this mixture has {self.dim}: "
                "both must live in the same space"
            )


def _mean(draws: Tensor) -> Estimate:
    """Return the mean over the first axis, and its standard error."""
    return Estimate(draws.mean(0), draws.std(0) / math.sqrt(len(draws)))


@register_kl(Mixture, Mixture)  # type: ignore[untyped-decorator]  # torch's
def _kl(q: Mixture, p: Mixture) -> Tensor:
    return q.estimate_kl(p).value
