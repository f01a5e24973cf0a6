"""Gaussian mixtures with full covariances."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.utils.checkpoint import checkpoint

from hilbound.arguments import (
    as_coordinates,
    as_posterior,
    as_values,
    rest_of,
)
from hilbound.engine.seeding import choose
from hilbound.errors import InputError
from hilbound.mixture.base import Mixture
from hilbound.mixture.gaussian import GaussianMixture

# The most entries of covariances of pairs in memory at a time: 128 MiB in float64.
_BLOCK_ENTRIES = 2**24


class FullGaussianMixture(Mixture):
    r"""A mixture :math:`q(x) = \sum_k b_k N(x - m_k; S_k)` with full covariances.

    Args:
        means: Centres of the components, with shape ``(*batch, K, d)``.
        covariance: Symmetric positive definite matrices that broadcast to ``(*batch, K, d, d)``.
        weights: Non-negative weights of the components, with shape ``(*batch, K)``. They are
            divided by their sum. By default all weights are equal.
        log_weights: Logarithms of the weights, in place of ``weights``. See
            :class:`GaussianMixture`.
        validate_args: Whether to check the arguments. By default torch's own switch decides.

    Raises:
        InputError: If the shapes do not fit, a covariance is not symmetric positive definite, a
            weight is negative, or a value is not finite.

    >>> q = FullGaussianMixture(torch.zeros(1, 2), torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> conditional = q.condition([0], torch.tensor([1.0]))
    >>> conditional.mean, conditional.component_covariance.squeeze()
    (tensor([0.5000]), tensor(1.5000))
    """

    def __init__(
        self,
        means: Tensor,
        covariance: Tensor,
        weights: Tensor | None = None,
        *,
        log_weights: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        # The diagonal mixture reads and checks means and weights.
        read = GaussianMixture(
            means, 1.0, weights, log_weights=log_weights, validate_args=validate_args
        )
        self.means, self.log_weights = read.means, read.log_weights
        self.component_covariance = _as_covariance(covariance, self.means)
        self._factor = _cholesky(self.component_covariance)
        super().__init__(read.batch_shape, read.event_shape, validate_args=validate_args)

    @classmethod
    def from_diagonal(cls, q: GaussianMixture) -> "FullGaussianMixture":
        """Return the same mixture with its variances on the diagonals of covariances."""
        covariance = torch.diag_embed(q.component_variance.expand(q.means.shape))
        return cls(q.means, covariance, log_weights=q.log_weights)

    @property
    def covariance(self) -> Tensor:
        """The covariance of the mixture, with shape ``(*batch, d, d)``."""
        apart = self.means - self.mean.unsqueeze(-2)
        spread = self.component_covariance + apart.unsqueeze(-1) * apart.unsqueeze(-2)
        return (self.weights[..., None, None] * spread).sum(-3)

    @property
    def variance(self) -> Tensor:
        """The variance of every coordinate, with shape ``(*batch, d)``."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log densities with shape ``(*sample, *batch)`` of ``(*sample, *batch, d)``."""
        self._check_dim("value", value.shape[-1])
        return torch.logsumexp(self.log_weights + self._log_densities(value), -1)

    def _log_densities(self, value: Tensor) -> Tensor:
        """Return the log density of every component, with shape ``(*sample, *batch, K)``."""
        normal = MultivariateNormal(self.means, scale_tril=self._factor, validate_args=False)
        log_densities: Tensor = normal.log_prob(value.unsqueeze(-2))
        return log_densities

    def sample(
        self,
        sample_shape: torch.Size | list[int] | tuple[int, ...] = torch.Size(),  # noqa: B008 - torch's signature
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw points with shape ``(*sample, *batch, d)``; no gradient flows through them."""
        with torch.no_grad():
            chosen = choose(self.weights, torch.Size(sample_shape), generator)
            means, factor = self.means[chosen], self._factor[chosen]
            noise = torch.randn(
                means.shape, generator=generator, dtype=means.dtype, device=means.device
            )
            return means + (factor @ noise.unsqueeze(-1)).squeeze(-1)

    def log_inner(self, other: "FullGaussianMixture | GaussianMixture") -> Tensor:
        r"""Return :math:`\log \langle q, p \rangle = \log \int q p`, with shape ``(*batch)``.

        Args:
            other: The mixture p, full or diagonal, with the same batch shape.

        Raises:
            InputError: If the two mixtures live in different dimensions.
        """
        self._check_dim("other", other.dim)
        if isinstance(other, GaussianMixture):
            other = FullGaussianMixture.from_diagonal(other)
        return torch.logsumexp(self.log_weights + _log_row_sums(self, other), -1)

    def log_norm(self) -> Tensor:
        r"""Return :math:`\log \langle q, q \rangle`, the squared norm, with shape ``(*batch)``."""
        return self.log_inner(self)

    def marginal(self, dims: Sequence[int]) -> "FullGaussianMixture":
        """Return the distribution of some of the coordinates, in the order given.

        Args:
            dims: Coordinates, each once; negative ones count from the end.

        Raises:
            InputError: If there are none, one comes twice, or one is out of range.
        """
        kept = as_coordinates(dims, self.dim)
        covariance = self.component_covariance[..., kept, :][..., kept]
        return FullGaussianMixture(self.means[..., kept], covariance, log_weights=self.log_weights)

    def condition(self, dims: Sequence[int], values: Tensor) -> "FullGaussianMixture":
        r"""Return the distribution of the coordinates R, given the others D, which are ``dims``.

        The mean and the covariance of every component become

        .. math:: m_R + S_{RD} S_{DD}^{-1} (y - m_D), \qquad
            S_{RR} - S_{RD} S_{DD}^{-1} S_{DR}

        and its weight is multiplied by its density at y. With coordinates in the order D, R, the
        new covariance is :math:`L L^\top` for the last block L of the Cholesky factor. So it stays
        positive definite under rounding.

        Args:
            dims: The given coordinates, each once; negative ones count from the end.
            values: Their values with shape ``(*sample, len(dims))``, or with
                ``(*sample, *batch, len(dims))`` where the mixture has a batch shape.

        Returns:
            Mixtures with batch shape ``(*sample, *batch)`` over the remaining coordinates.

        Raises:
            InputError: If ``dims`` or the shape of ``values`` does not fit, no coordinate remains,
                or the dtype cannot hold the log density of any component at a value.
        """
        given = as_coordinates(dims, self.dim)
        values = as_values(values, len(given), self.means)
        known = self.marginal([*given, *rest_of(given, self.dim)])
        cut = len(given)
        factor, apart = known._factor, values.unsqueeze(-2) - known.means[..., :cut]
        below = factor[..., cut:, :cut]
        log_weights = as_posterior(self.log_weights + self.marginal(given)._log_densities(values))
        scaled = torch.linalg.solve_triangular(
            factor[..., :cut, :cut], apart.unsqueeze(-1), upper=False
        )
        means = known.means[..., cut:] + (below @ scaled).squeeze(-1)
        last = factor[..., cut:, cut:]
        return FullGaussianMixture(means, last @ last.mT, log_weights=log_weights)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(components={self.components}, dim={self.dim}, "
            f"batch_shape={tuple(self.batch_shape)})"
        )


def _as_covariance(covariance: Tensor, means: Tensor) -> Tensor:
    s = covariance.to(means)
    shape = (*means.shape, means.shape[-1])
    try:
        s = s.expand(shape)
    except RuntimeError:
        raise InputError(
            f"covariance with shape {tuple(covariance.shape)} does not broadcast to {shape}, "
            "one matrix for each component"
        ) from None
    scale = s.detach().diagonal(dim1=-2, dim2=-1).abs().amax()
    if not ((s - s.mT).detach().abs() <= 1e-5 * scale).all():
        raise InputError(
            "covariance must be finite and symmetric: if only rounding breaks the symmetry, give "
            "(S + S.mT) / 2"
        )
    return s


def _cholesky(covariance: Tensor) -> Tensor:
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed.any():
        raise InputError(
            f"covariance must be positive definite, but {int((failed > 0).sum())} of "
            f"{failed.numel()} are not in {covariance.dtype}; its diagonal holds variances, not "
            "standard deviations"
        )
    return factor


def _log_row_sums(p: FullGaussianMixture, q: FullGaussianMixture) -> Tensor:
    """Return the log of <p_i, q> for every component of p, shape ``(*batch, K)``, in blocks."""
    per_row = q.component_covariance.numel()
    rows = max(1, _BLOCK_ENTRIES // per_row)
    blocks = [
        checkpoint(_log_row_sums_of_block, m, s, q, use_reentrant=False, preserve_rng_state=False)
        for m, s in zip(
            p.means.split(rows, -2), p.component_covariance.split(rows, -3), strict=True
        )
    ]
    return torch.cat(blocks, -1)


def _log_row_sums_of_block(means: Tensor, covariance: Tensor, q: FullGaussianMixture) -> Tensor:
    pairs = _cholesky(covariance.unsqueeze(-3) + q.component_covariance.unsqueeze(-4))
    normal = MultivariateNormal(q.means.unsqueeze(-3), scale_tril=pairs, validate_args=False)
    log_products: Tensor = normal.log_prob(means.unsqueeze(-2))
    return (q.log_weights.unsqueeze(-2) + log_products).logsumexp(-1)
