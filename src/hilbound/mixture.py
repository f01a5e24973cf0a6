r"""Gaussian mixtures as torch distributions, with inner products in closed form.

A data set and a model are the same kind of thing here: :math:`p = \sum_i a_i N(\cdot - x_i; v_i)`.
Inner products of two of them are double sums of Gaussians (:mod:`hilbound.gram`), and the norm
:math:`\langle p, p \rangle` gives Rényi's quadratic entropy :math:`H_2(p) = -\log \langle p, p
\rangle`.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from hilbound import gram
from hilbound.errors import InputError


class GaussianMixture(Distribution):
    r"""A mixture :math:`q(x) = \sum_k b_k N(x - m_k; v_k)` with diagonal variances.

    Args:
        means: Centres of the components, with shape ``(*batch, K, d)``.
        variance: Variance of the components: a number, or a tensor that broadcasts to
            ``(*batch, K, d)``. It is a variance, not a standard deviation.
        weights: Weights of the components, with shape ``(*batch, K)``, not negative; they are
            divided by their sum. The default is equal weights.
        validate_args: Whether to check the arguments; torch's own switch decides by default.

    Raises:
        InputError: If the shapes do not fit, a variance is not positive, a weight is negative, or
            something is not finite.

    >>> q = GaussianMixture(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), variance=0.5)
    >>> q
    GaussianMixture(components=2, dim=2, batch_shape=(), variance=0.5)
    >>> q.mean, q.variance
    (tensor([1., 0.]), tensor([1.5000, 0.5000]))
    >>> q.log_prob(torch.zeros(2)).exp().round(decimals=4)
    tensor(0.1621)
    >>> float(q.log_inner(q) - q.log_norm())
    0.0
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False

    def __init__(
        self,
        means: Tensor,
        variance: float | Tensor,
        weights: Tensor | None = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if means.ndim < 2 or 0 in means.shape[-2:] or not means.is_floating_point():
            raise InputError(
                f"means must be a floating-point tensor with shape (*batch, K, d), K and d > 0, "
                f"got {means.dtype} with shape {tuple(means.shape)}"
            )
        self.means = means
        self.component_variance = _as_component_variance(variance, means)
        self._log_weights = None if weights is None else _as_log_weights(weights, means)
        # torch's own switch is read from the class, or from the argument where it is given.
        if self._validate_args if validate_args is None else validate_args:
            self._check_values(weights)
        super().__init__(means.shape[:-2], means.shape[-1:], validate_args=validate_args)

    def _check_values(self, weights: Tensor | None) -> None:
        if not torch.isfinite(self.means).all():
            bad = int((~torch.isfinite(self.means)).sum())
            raise InputError(f"means must be finite, got {bad} NaN or infinite values")
        v = self.component_variance.detach()
        if not (torch.isfinite(v) & (v > 0)).all():
            raise InputError(
                f"variance must be positive and finite, got values from {float(v.min()):g} to "
                f"{float(v.max()):g}; it is a variance in the squared units of the data"
            )
        if weights is not None and not (torch.isfinite(weights) & (weights >= 0)).all():
            raise InputError("weights must be finite and not negative")
        if weights is not None and not (weights.sum(-1) > 0).all():
            raise InputError("weights must not all be zero")

    @property
    def components(self) -> int:
        """The number of components ``K``."""
        return self.means.shape[-2]

    @property
    def dim(self) -> int:
        """The number of coordinates ``d``."""
        return self.means.shape[-1]

    @property
    def log_weights(self) -> Tensor:
        """Logarithms of the normalised weights, with shape ``(*batch, K)``."""
        if self._log_weights is not None:
            return self._log_weights
        return self.means.new_full(self.means.shape[:-1], -math.log(self.components))

    @property
    def weights(self) -> Tensor:
        """The normalised weights, with shape ``(*batch, K)``."""
        return self.log_weights.exp()

    @property
    def mean(self) -> Tensor:
        """The mean of the mixture, with shape ``(*batch, d)``."""
        return (self.weights.unsqueeze(-1) * self.means).sum(-2)

    @property
    def variance(self) -> Tensor:
        """The variance of every coordinate under the mixture, with shape ``(*batch, d)``."""
        spread = (self.means - self.mean.unsqueeze(-2)).square() + self.component_variance
        return (self.weights.unsqueeze(-1) * spread).sum(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log densities with shape ``(*sample, *batch)`` of ``(*sample, *batch, d)``."""
        if self._validate_args:
            self._check_dim("value", value.shape[-1])
        batch = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        value = value.expand((*batch, self.dim))
        # A point is a component of variance zero: its inner product with q is q(x). Rows of one
        # mixture go through the streamed sums together, as one block of points.
        lead = len(batch) - len(self.batch_shape)
        points = value.movedim(tuple(range(lead)), tuple(range(len(batch) - lead, len(batch))))
        points = points.reshape((*self.batch_shape, -1, self.dim))
        log_density = gram.log_row_sums(
            points, points.new_zeros(1, 1), self.means, self.component_variance, self.log_weights
        )
        log_density = log_density.reshape((*self.batch_shape, *batch[:lead]))
        return log_density.movedim(
            tuple(range(len(self.batch_shape), len(batch))), tuple(range(lead))
        )

    def sample(
        self,
        sample_shape: torch.Size | list[int] | tuple[int, ...] = torch.Size(),  # noqa: B008 - torch's signature
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw points with shape ``(*sample, *batch, d)``; no gradient flows through them."""
        count = math.prod(sample_shape)
        with torch.no_grad():
            weights = self.weights.reshape(-1, self.components)
            chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
            chosen = chosen.T.reshape(*sample_shape, *self.batch_shape, 1, 1)
            shape = (*sample_shape, *self.batch_shape, self.dim)
            index = chosen.expand(*shape[:-1], 1, self.dim)
            lead = (*sample_shape, *self.means.shape)
            means = self.means.expand(lead).gather(-2, index).squeeze(-2)
            variances = self.component_variance.expand(lead).gather(-2, index).squeeze(-2)
            noise = torch.randn(shape, generator=generator, dtype=means.dtype, device=means.device)
            return means + variances.sqrt() * noise

    def log_inner(self, other: "GaussianMixture", unit: float = gram.PLAIN_UNIT) -> Tensor:
        r"""Return :math:`\log \langle q, p \rangle = \log \int q p`, with shape ``(*batch)``.

        Args:
            other: The mixture p, with the same batch shape.
            unit: For ratios, where it cancels; see :func:`hilbound.gram.log_inner_products`.

        Raises:
            InputError: If the two mixtures live in different dimensions.
        """
        self._check_dim("other", other.dim)
        row_sums = gram.log_row_sums(
            self.means,
            self.component_variance,
            other.means,
            other.component_variance,
            other.log_weights,
            unit=unit,
        )
        return torch.logsumexp(row_sums + self.log_weights, -1)

    def log_norm(self) -> Tensor:
        r"""Return :math:`\log \langle q, q \rangle`, the squared norm, with shape ``(*batch)``."""
        return self.log_inner(self)

    def renyi_entropy(self) -> Tensor:
        r"""Return Rényi's quadratic entropy :math:`H_2 = -\log \langle q, q \rangle` in nats.

        References:
            On measures of entropy and information (Rényi, 1961).
        """
        return -self.log_norm()

    def log_overlaps(self, other: "GaussianMixture") -> Tensor:
        r"""Return :math:`\log(\sqrt{b_i a_j}\, k_{ij})`, the cross Gram matrix ``(*batch, K, N)``.

        Its entries are overlaps of normalised components times the roots of their weights; its
        nuclear norm is the fidelity.
        """
        self._check_dim("other", other.dim)
        log_k = gram.log_overlaps(
            self.means, self.component_variance, other.means, other.component_variance
        )
        return log_k + 0.5 * (self.log_weights.unsqueeze(-1) + other.log_weights.unsqueeze(-2))

    def expand(
        self,
        batch_shape: torch.Size | list[int] | tuple[int, ...],
        _instance: Distribution | None = None,
    ) -> "GaussianMixture":
        """Return the mixture with its batch shape broadcast to ``batch_shape``."""
        shape = (*batch_shape, self.components, self.dim)
        v = self.component_variance
        weights = None if self._log_weights is None else self.weights.expand(shape[:-1])
        return GaussianMixture(
            self.means.expand(shape),
            v.expand(*batch_shape, *v.shape[-2:]),
            weights,
            validate_args=False,
        )

    def _check_dim(self, name: str, dim: int) -> None:
        if dim != self.dim:
            raise InputError(
                f"{name} has {dim} coordinates, but this mixture has {self.dim}: "
                "both must live in the same space"
            )

    def __repr__(self) -> str:
        v = self.component_variance.detach()
        low, high = float(v.min()), float(v.max())
        variance = f"{low:.4g}" if low == high else f"{low:.4g}..{high:.4g}"
        return (
            f"{type(self).__name__}(components={self.components}, dim={self.dim}, "
            f"batch_shape={tuple(self.batch_shape)}, variance={variance})"
        )


def _expands_to(tensor: Tensor, shape: torch.Size) -> bool:
    try:
        broadcast: torch.Size = torch.broadcast_shapes(tensor.shape, shape)
    except RuntimeError:
        return False
    return broadcast == shape


def _as_component_variance(variance: float | Tensor, means: Tensor) -> Tensor:
    """Bring a variance to shape ``(*, K or 1, d or 1)``, which :mod:`hilbound.gram` reads."""
    v = torch.as_tensor(variance, dtype=means.dtype, device=means.device)
    if not _expands_to(v, means.shape):
        raise InputError(
            f"variance with shape {tuple(v.shape)} does not broadcast to the means' shape "
            f"{tuple(means.shape)}: give a number, or one value per component with shape "
            f"{(*means.shape[:-1], 1)}"
        )
    return v.reshape((1,) * max(0, 2 - v.ndim) + v.shape)


def _as_log_weights(weights: Tensor, means: Tensor) -> Tensor:
    if weights.shape[-1:] != means.shape[-2:-1] or not _expands_to(weights, means.shape[:-1]):
        raise InputError(
            f"weights must have shape {tuple(means.shape[:-1])}, one per component, "
            f"got {tuple(weights.shape)}"
        )
    weights = weights.to(means).expand(means.shape[:-1])
    weights = weights / weights.sum(-1, keepdim=True)
    # log 0 would send an infinite gradient back to a weight that plays no part, and the reciprocal
    # of a number below the normal ones overflows just the same.
    present = weights >= torch.finfo(weights.dtype).tiny
    return weights.where(present, 1).log().masked_fill(~present, -math.inf)
