"""A cost beside the limit that it cannot pass.

A :class:`Bound` holds both as logarithms, because only their difference is needed and the numbers
themselves are outside float64 in high dimension.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from hilbound.conditional import Decoder, inner_products
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.precise import precise_log_inner


@dataclass(frozen=True)
class Bound:
    """A cost and its limit.

    Args:
        log_value: Logarithm of the cost, with shape ``(*)``.
        log_limit: Logarithm of its limit, with shape ``(*)``.
        error: Bound on the error of both logarithms from what was left out, in nats.

    >>> import torch
    >>> bound = Bound(torch.tensor(0.5).log(), torch.tensor(0.0))
    >>> print(bound)
    50.0 % of the limit, gap 0.6931
    """

    log_value: Tensor
    log_limit: Tensor
    error: float = 0.0

    @property
    def gap(self) -> Tensor:
        """The distance ``log_limit - log_value`` in nats, with shape ``(*)``."""
        return self.log_limit - self.log_value

    @property
    def tightness(self) -> Tensor:
        """The share of the limit that is reached, in [0, 1] up to rounding, with shape ``(*)``."""
        return (-self.gap).exp()

    def __str__(self) -> str:
        gap, tightness = float(self.gap.detach()), float(self.tightness.detach())
        error = f", error at most {self.error:.1g}" if self.error else ""
        return f"{100 * tightness:.1f} % of the limit, gap {gap:.4g}{error}"


def marginal_bound(p: GaussianMixture, q: GaussianMixture) -> Bound:
    r"""Return the scalar cost of q against its limit.

    .. math:: \frac{\langle p, q \rangle^2}{\langle q, q \rangle} \le \langle p, p \rangle

    Args:
        p: The data's mixture with batch shape ``(*)``.
        q: The model's mixture with the same batch shape.

    Returns:
        Both logarithms with shape ``(*)``, in float64: the constants that cancel in the gap would
        take the digits of the gap along in float32.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [1.0]]), 0.5)
    >>> float(marginal_bound(p, p).tightness)
    1.0
    """
    log_pp, log_pq, log_qq = (precise_log_inner(*pair) for pair in ((p, p), (p, q), (q, q)))
    return Bound(2 * log_pq - log_qq, log_pp)


def conditional_bound(
    x: Tensor,
    features: Tensor,
    feature_points: Tensor,
    q_at_points: GaussianMixture | Decoder,
    *,
    variance_p: float,
    variance_y: float,
    tail: float = 1e-12,
) -> Bound:
    r"""Return the conditional scalar cost of a model of x given features, against its limit.

    .. math::
        \frac{\big(\frac1M \sum_m \langle p(\cdot|y_m), q(\cdot|y_m) \rangle\big)^2}
        {\frac1M \sum_m \langle q(\cdot|y_m), q(\cdot|y_m) \rangle}
        \le \frac1M \sum_m \langle p(\cdot|y_m), p(\cdot|y_m) \rangle, \qquad
        p(x|y) = \frac{\sum_n N(y - y_n; v_y)\, N(x - x_n; v_p)}{\sum_n N(y - y_n; v_y)}

    Both sides are computed at the same feature points with the same weights, so the inequality
    holds for the numbers themselves, up to rounding. Where features are far apart against the
    noise, weights are cut with a certified tail (:mod:`hilbound.conditional`). A model whose
    tightness is far below the tail needs a smaller ``tail`` (any positive float) for a small error.

    Gradients flow to everything that requires them, and a graph of all pairs is then kept: to track
    a model during training, call this under ``torch.no_grad()``.

    Args:
        x: Data with shape ``(N, d)``.
        features: Their features without noise, with shape ``(N, F)``.
        feature_points: Points drawn from p(y), features with noise, with shape ``(M, F)``.
        q_at_points: The model at the feature points, with batch shape ``(M,)``, or a deterministic
            function from points with shape ``(b, F)`` to a mixture with batch shape ``(b,)``, which
            is called for some points at a time and first for a single one.
        variance_p: Variance of a component of the data.
        variance_y: Variance of the noise of the features.
        tail: The weights that may be left out at a feature point, relative to those that are kept.

    Returns:
        Both logarithms as numbers in float64, and a bound on the error of either by the cut.

    Raises:
        InputError: If shapes don't fit, there are no rows, something is not finite, a variance is
            not positive, or ``tail`` is not between 0 and 1.

    References:
        Contrastive Entropy Bounds for Density and Conditional Density Decomposition (Hu and
        Principe, 2025, arXiv 2511.12903).

    >>> import torch
    >>> x, y = torch.tensor([[0.0], [3.0]]), torch.tensor([[-1.0], [1.0]])
    >>> q = GaussianMixture(torch.tensor([[[0.0]], [[2.0]]]), 0.5)
    >>> print(conditional_bound(x, y, y, q, variance_p=0.5, variance_y=0.01))
    64.5 % of the limit, gap 0.4381
    """
    for name, rows in (("x", x), ("features", features), ("feature_points", feature_points)):
        _check_rows(name, rows)
    if len(x) != len(features):
        raise InputError(
            f"x and features must have the same number of rows, one feature for each datum, "
            f"got {len(x)} and {len(features)}"
        )
    if features.shape[-1] != feature_points.shape[-1]:
        raise InputError(
            f"feature_points must have {features.shape[-1]} columns as features have, "
            f"got {feature_points.shape[-1]}"
        )
    _check_numbers(variance_p, variance_y, tail)
    _check_model(q_at_points, len(feature_points), x.shape[-1])
    products = inner_products(
        x,
        features,
        feature_points,
        q_at_points,
        variance_p=variance_p,
        variance_y=variance_y,
        tail=tail,
    )
    return Bound(2 * products.log_pq - products.log_qq, products.log_pp, products.error)


def _check_rows(name: str, rows: Tensor) -> None:
    if rows.ndim != 2 or 0 in rows.shape or not rows.is_floating_point():
        raise InputError(
            f"{name} must be a floating-point tensor with at least one row and one column, "
            f"got {rows.dtype} with shape {tuple(rows.shape)}"
        )
    # A sum is finite only if all terms are, and needs no copy of them.
    if not rows.detach().sum(-1).isfinite().all():
        raise InputError(f"{name} must be finite, got NaN or infinite values")


def _check_numbers(variance_p: float, variance_y: float, tail: float) -> None:
    for name, variance in (("variance_p", variance_p), ("variance_y", variance_y)):
        if not (math.isfinite(variance) and variance > 0):
            raise InputError(
                f"{name} must be positive and finite, got {variance:g}; it is a variance in "
                f"squared units, not a standard deviation"
            )
    if not 0 < tail < 1:
        raise InputError(
            f"tail must be between 0 and 1, got {tail:g}; it is the share of the weights that may "
            "be left out, such as 1e-12"
        )


def _check_model(q: GaussianMixture | Decoder, points: int, dim: int) -> None:
    if not isinstance(q, GaussianMixture):
        if callable(q):
            return
        raise InputError(
            f"q_at_points must be a GaussianMixture with batch shape ({points},) or a function "
            f"that returns one for some points, got {type(q).__name__}"
        )
    if q.batch_shape != (points,):
        raise InputError(
            f"q_at_points must have batch shape ({points},), one mixture for each of "
            f"feature_points, got {tuple(q.batch_shape)}"
        )
    if q.dim != dim:
        raise InputError(f"q_at_points has {q.dim} coordinates, but x has {dim}")
