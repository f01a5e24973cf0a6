"""Gaussian mixtures with diagonal variances, on which every objective is built."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from hilbound.arguments import (
    as_component_variance,
    as_coordinates,
    as_log_weights,
    as_posterior,
    as_values,
    at_least_float32,
    require_tensor,
    rest_of,
)
from hilbound.engine import gram, univariate
from hilbound.engine.pairs import sums
from hilbound.engine.pairs.tiles import Side
from hilbound.engine.seeding import choose
from hilbound.errors import InputError
from hilbound.mixture.base import Mixture


def _largest_mean(means: Tensor) -> float:
    """Return the size from which the squared distance of two means may overflow."""
    return math.sqrt(torch.finfo(means.dtype).max / (8 * means.shape[-1]))


class GaussianMixture(Mixture):
    r"""A mixture :math:`q(x) = \sum_k b_k N(x - m_k; v_k)` with diagonal variances.

    Args:
        means: Centres of the components, with shape ``(*batch, K, d)``. Half precision is raised
            to float32, with a warning that predicts the error of its rounding.
        variance: Variance of the components: a number, or a tensor that broadcasts to
            ``(*batch, K, d)``. It is a variance, not a standard deviation.
        weights: Non-negative weights of the components, with shape ``(*batch, K)``. They are
            divided by their sum. By default all weights are equal.
        log_weights: Logarithms of the weights, in place of ``weights``, for weights that would
            underflow. A constant offset has no effect, because the weights are normalised.
        validate_args: Whether to check the arguments. By default torch's own switch decides.

    Raises:
        InputError: If the shapes do not fit, a variance is not positive, a weight is negative, or
            a value is not finite.

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

    def __init__(
        self,
        means: Tensor,
        variance: float | Tensor,
        weights: Tensor | None = None,
        *,
        log_weights: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        require_tensor("means", means)
        if means.ndim < 2 or 0 in means.shape[-2:] or not means.is_floating_point():
            raise InputError(
                f"means must be a floating-point tensor with shape (*batch, K, d), K and d > 0, "
                f"got {means.dtype} with shape {tuple(means.shape)}"
            )
        self.means = means = at_least_float32(means, variance)
        self.component_variance = as_component_variance(variance, means)
        self.log_weights = as_log_weights(weights, log_weights, means)
        #: Whether all weights are equal because none were given.
        self.equal_weights = weights is None and log_weights is None
        # torch's own switch is an attribute of the class. The argument overrides it.
        if self._validate_args if validate_args is None else validate_args:
            self._check_values(weights)
        super().__init__(means.shape[:-2], means.shape[-1:], validate_args=validate_args)

    def _check_values(self, weights: Tensor | None) -> None:
        if not torch.isfinite(self.means).all():
            bad = int((~torch.isfinite(self.means)).sum())
            raise InputError(f"means must be finite, got {bad} NaN or infinite values")
        sizes, most = self.means.detach().abs(), _largest_mean(self.means)
        if (sizes > most).any():
            raise InputError(
                f"means must be smaller than {most:.1e}, got {float(sizes.max()):.1e}: squares of "
                f"their distances overflow in {self.means.dtype}. Give them in a larger unit"
            )
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
        if weights is None and self.log_weights.isnan().any():
            raise InputError(
                "log_weights must be finite or -inf, and at least one of each mixture finite"
            )

    @property
    def variance(self) -> Tensor:
        """The variance of every coordinate under the mixture, with shape ``(*batch, d)``."""
        spread = (self.means - self.mean.unsqueeze(-2)).square() + self.component_variance
        return (self.weights.unsqueeze(-1) * spread).sum(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log densities with shape ``(*sample, *batch)`` of ``(*sample, *batch, d)``."""
        if self._validate_args:
            self._check_dim("value", value.shape[-1])
        points, sample_shape = self._as_rows(value)
        if points.numel() == 0:
            # There are no points, but the result must depend on the means for a backward pass.
            return self._as_samples((points + self.means.sum()).sum(-1), sample_shape)
        # A point is a component of variance zero: its inner product with q is q(x).
        log_density = sums.log_row_sums(points, points.new_zeros(1, 1), self._side)
        return self._as_samples(log_density, sample_shape)

    def cdf(self, value: Tensor) -> Tensor:
        """Return the probability of values no larger, for a mixture on the line (d = 1).

        Args:
            value: Points with shape ``(*sample, *batch, 1)``.

        Returns:
            Probabilities with shape ``(*sample, *batch)``, computed in float64.

        Raises:
            InputError: If the mixture has more than one coordinate.

        >>> GaussianMixture(torch.tensor([[-1.0], [1.0]]), 0.5).cdf(torch.zeros(1))
        tensor(0.5000)
        """
        self._check_line("cdf")
        self._check_dim("value", value.shape[-1])
        v = self.component_variance.squeeze(-1)
        share = univariate.cdf(value.squeeze(-1), self.means.squeeze(-1), v, self.log_weights)
        return share.to(self.means)

    def icdf(self, value: Tensor) -> Tensor:
        """Return the quantiles at probabilities, for a mixture on the line (d = 1).

        Args:
            value: Probabilities in [0, 1] with shape ``(*sample, *batch)``; 0 and 1 give the
                infinite ends of the line. No gradient flows back.

        Returns:
            Quantiles with shape ``(*sample, *batch, 1)``, computed in float64.

        Raises:
            InputError: If the mixture has more than one coordinate, or a probability is outside
                [0, 1].

        >>> q = GaussianMixture(torch.tensor([[-1.0], [1.0]]), 0.5)
        >>> q.cdf(q.icdf(torch.tensor([0.05, 0.95])))
        tensor([0.0500, 0.9500])
        """
        self._check_line("icdf")
        v = self.component_variance.squeeze(-1)
        root = univariate.icdf(value, self.means.squeeze(-1), v, self.log_weights)
        return root.to(self.means).unsqueeze(-1)

    def _check_line(self, name: str) -> None:
        if self.dim != 1:
            raise InputError(
                f"{name} needs a mixture of one coordinate, this one has {self.dim}: take one "
                "with marginal([i]) first"
            )

    def mean_log_prob(self, x: Tensor) -> Tensor:
        r"""Return :math:`\frac1n \sum_i \log q(x_i)`, with shape ``(*batch)``.

        It is the mean of :meth:`log_prob`, and its gradient is computed together with the value.

        Args:
            x: Points with shape ``(n, d)``, or ``(*batch, n, d)`` if every mixture of a batch has
                its own points.

        Raises:
            InputError: If the points and the mixture have different numbers of coordinates.

        >>> q = GaussianMixture(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), 0.5)
        >>> bool(torch.isclose(q.mean_log_prob(q.means), q.log_prob(q.means).mean()))
        True
        """
        if self._validate_args:
            self._check_dim("x", x.shape[-1])
        points = x.expand((*self.batch_shape, *x.shape[-2:]))
        if points.numel() == 0:
            return self.log_prob(points.movedim(-2, 0)).mean(0)
        return sums.mean_log_row_sum(points, points.new_zeros(1, 1), self._side)

    def _as_rows(self, value: Tensor) -> tuple[Tensor, torch.Size]:
        """Return ``(*sample, *batch, d)`` as ``(*batch, n, d)``, and the sample shape.

        Rows of one mixture go through the sums together, as one block of points.
        """
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        value = value.expand((*shape, value.shape[-1]))
        lead = len(shape) - len(self.batch_shape)
        value = value.movedim(tuple(range(lead)), tuple(range(len(shape) - lead, len(shape))))
        count = math.prod(shape[:lead])
        return value.reshape((*self.batch_shape, count, value.shape[-1])), shape[:lead]

    def _as_samples(self, rows: Tensor, sample_shape: torch.Size) -> Tensor:
        """Return ``(*batch, n, *rest)`` as ``(*sample, *batch, *rest)``."""
        batch, lead = len(self.batch_shape), len(sample_shape)
        rows = rows.reshape((*self.batch_shape, *sample_shape, *rows.shape[batch + 1 :]))
        return rows.movedim(tuple(range(batch, batch + lead)), tuple(range(lead)))

    def sample(
        self,
        sample_shape: torch.Size | list[int] | tuple[int, ...] = torch.Size(),  # noqa: B008 - torch's signature
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw points with shape ``(*sample, *batch, d)``; no gradient flows through them."""
        with torch.no_grad():
            return self.rsample(sample_shape, generator=generator)

    def rsample(
        self,
        sample_shape: torch.Size | list[int] | tuple[int, ...] = torch.Size(),  # noqa: B008 - torch's signature
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""Draw points with shape ``(*sample, *batch, d)`` that follow the means and variances.

        .. math:: x = m_k + \sqrt{v_k}\, \varepsilon, \qquad k \sim b,
            \quad \varepsilon \sim N(0; 1)

        The gradient to means and variances goes through the chosen component. For fixed weights it
        is an unbiased gradient of every expectation :math:`E f(x)`. **Weights get no gradient**,
        because the choice of k is not differentiable. So ``has_rsample`` is ``False``: if it were
        true, torch would promise a gradient to every parameter.

        >>> means = torch.tensor([[0.0], [9.0]], requires_grad=True)
        >>> GaussianMixture(means, 0.5, torch.tensor([0.0, 1.0])).rsample((4,)).sum().backward()
        >>> means.grad.squeeze(-1)
        tensor([0., 4.])
        """
        chosen = choose(self.weights, torch.Size(sample_shape), generator)
        means, v = self.means[chosen], self.component_variance
        variances = v.expand((*self.means.shape[:-1], v.shape[-1]))[chosen]
        noise = torch.randn(
            means.shape, generator=generator, dtype=means.dtype, device=means.device
        )
        return means + variances.sqrt() * noise

    def log_inner(self, other: "GaussianMixture", unit: float = gram.PLAIN_UNIT) -> Tensor:
        r"""Return :math:`\log \langle q, p \rangle = \log \int q p`, with shape ``(*batch)``.

        Args:
            other: The mixture p, with the same batch shape.
            unit: See :func:`hilbound.engine.gram.log_inner_products`. In ratios it cancels.

        Raises:
            InputError: If the two mixtures live in different dimensions.
        """
        self._check_dim("other", other.dim)
        if other is self:
            return sums.log_norm(self._side, unit=unit)
        return sums.log_inner(self._side, other._side, unit=unit)

    @property
    def _side(self) -> Side:
        return Side(self.means, self.component_variance, self.log_weights)

    def log_norm(self) -> Tensor:
        r"""Return :math:`\log \langle q, q \rangle`, the squared norm, with shape ``(*batch)``."""
        return self.log_inner(self)

    def log_overlaps(self, other: "GaussianMixture") -> Tensor:
        r"""Return :math:`\log(\sqrt{b_i a_j}\, k_{ij})`, the cross Gram matrix ``(*batch, K, N)``.

        The entries of this matrix are overlaps of normalised components times square roots of their
        weights. Its nuclear norm is the fidelity.
        """
        self._check_dim("other", other.dim)
        log_k = gram.log_overlaps(
            self.means, self.component_variance, other.means, other.component_variance
        )
        return log_k + 0.5 * (self.log_weights.unsqueeze(-1) + other.log_weights.unsqueeze(-2))

    def select(self, components: slice | Tensor) -> "GaussianMixture":
        """Return the mixture of some of the components, their weights scaled to sum to one.

        Args:
            components: A slice, or indices with shape ``(m,)``.

        Raises:
            InputError: If all of them have weight zero.

        >>> q = GaussianMixture(torch.tensor([[0.0], [1.0], [2.0]]), 0.5)
        >>> q.select(slice(0, 2)).means.squeeze(-1)
        tensor([0., 1.])
        """
        v = self.component_variance
        log_weights = self.log_weights[..., components]
        if not (log_weights > -math.inf).any(-1).all():
            raise InputError(
                "the selected components must not all have weight zero: select at least one with a "
                "positive weight"
            )
        return GaussianMixture(
            self.means[..., components, :],
            v[..., components, :] if v.shape[-2] > 1 else v,
            log_weights=log_weights,
            validate_args=False,
        )

    def marginal(self, dims: Sequence[int]) -> "GaussianMixture":
        """Return the distribution of some of the coordinates, in the order given.

        Args:
            dims: Coordinates, each once; negative ones count from the end.

        Raises:
            InputError: If there are none, one comes twice, or one is out of range.

        >>> GaussianMixture(torch.tensor([[0.0, 1.0, 2.0]]), 0.5).marginal([2, 0]).means
        tensor([[2., 0.]])
        """
        coordinates = as_coordinates(dims, self.dim)
        v = self.component_variance
        return self._with(
            self.means[..., coordinates],
            v[..., coordinates] if v.shape[-1] > 1 else v,
            self.log_weights,
        )

    def join(self, points: Tensor, variance: float | Tensor) -> "GaussianMixture":
        r"""Return the mixture over pairs (x, y), with a point y beside the mean of each component.

        .. math:: q(x, y) = \sum_k b_k N(x - m_k; v_k)\, N(y - y_k; v_y)

        The inner product of two such components is that of x times that of y. So costs of joint
        mixtures compare what belongs to the same y.

        Args:
            points: The points :math:`y_k`, with shape ``(*batch, K, F)``.
            variance: Their variance :math:`v_y`: a number, or a tensor that broadcasts to
                ``(*batch, K, F)``.

        Returns:
            A mixture with d + F coordinates, of which the first d are those of this mixture.

        Raises:
            InputError: If there is not one point for each component, or a variance is not positive.

        >>> q = GaussianMixture(torch.tensor([[0.0], [9.0]]), 0.5)
        >>> q.join(torch.tensor([[1.0], [2.0]]), 0.1).means
        tensor([[0., 1.],
                [9., 2.]])
        """
        require_tensor("points", points)
        if points.shape[:-1] != self.means.shape[:-1]:
            raise InputError(
                f"points must have shape {(*self.means.shape[:-1], 'F')}, one point for each "
                f"component, got {tuple(points.shape)}"
            )
        other = GaussianMixture(points.to(self.means), variance)
        v, w = self.component_variance, other.component_variance
        lead = torch.broadcast_shapes(v.shape[:-1], w.shape[:-1])
        v, w = v.expand(*lead, self.dim), w.expand(*lead, other.dim)
        return self._with(
            torch.cat([self.means, other.means], -1), torch.cat([v, w], -1), self.log_weights
        )

    def condition(self, dims: Sequence[int], values: Tensor) -> "GaussianMixture":
        r"""Return the distribution of the other coordinates, given those in ``dims``.

        .. math:: q(x_R \mid x_D = y) = \sum_k w_k N(x_R - m_{kR}; v_{kR}), \qquad
            w_k \propto b_k N(y - m_{kD}; v_{kD})

        because the coordinates of a component with diagonal variance are independent. The weights
        are kept as logarithms, so they do not underflow if y is far from all components.

        Args:
            dims: The given coordinates, each once; negative ones count from the end.
            values: Their values with shape ``(*sample, len(dims))``, or with
                ``(*sample, *batch, len(dims))`` where the mixture has a batch shape.

        Returns:
            Mixtures with batch shape ``(*sample, *batch)`` over the remaining coordinates.

        Raises:
            InputError: If ``dims`` or the shape of ``values`` does not fit, no coordinate remains,
                or the dtype cannot hold the log density of any component at a value.

        >>> q = GaussianMixture(torch.tensor([[0.0, -1.0], [9.0, 1.0]]), 0.5)
        >>> q.condition([0], torch.tensor([[0.0], [9.0], [4.5]])).mean.squeeze(-1)
        tensor([-1.,  1.,  0.])
        """
        given = as_coordinates(dims, self.dim)
        rest = self.marginal(rest_of(given, self.dim))
        known = self.marginal(given)
        points, sample_shape = known._as_rows(as_values(values, len(given), self.means))
        v = known.component_variance
        # In this unit the logarithms are small and keep their digits. The unit cancels.
        unit = float(v.detach().mean())
        log_joint = known.log_weights.unsqueeze(-2) + gram.log_inner_products(
            points, points.new_zeros(1, 1), known.means, v, unit
        )
        conditional = rest.expand((*sample_shape, *self.batch_shape))
        log_weights = self._as_samples(as_posterior(log_joint), sample_shape)
        return self._with(conditional.means, conditional.component_variance, log_weights)

    def _with(self, means: Tensor, variance: Tensor, log_weights: Tensor) -> "GaussianMixture":
        """Return a mixture of other components with the same validation of arguments."""
        other = GaussianMixture(means, variance, log_weights=log_weights, validate_args=False)
        other._validate_args = self._validate_args
        other.equal_weights = self.equal_weights and log_weights is self.log_weights
        return other

    def expand(
        self,
        batch_shape: torch.Size | list[int] | tuple[int, ...],
        _instance: Distribution | None = None,
    ) -> "GaussianMixture":
        """Return the mixture with its batch shape broadcast to ``batch_shape``."""
        lead = tuple(batch_shape)
        v = self.component_variance
        return self._with(
            self.means.expand((*lead, *self.means.shape[-2:])),
            v.expand((*lead, *v.shape[-2:])),
            self.log_weights.expand((*lead, self.components)),
        )

    def __repr__(self) -> str:
        v = self.component_variance.detach()
        low, high = float(v.min()), float(v.max())
        variance = f"{low:.4g}" if low == high else f"{low:.4g}..{high:.4g}"
        return (
            f"{type(self).__name__}(components={self.components}, dim={self.dim}, "
            f"batch_shape={tuple(self.batch_shape)}, variance={variance})"
        )
