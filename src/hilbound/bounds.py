"""A cost together with the limit that it cannot pass.

A :class:`Bound` holds both as logarithms, because only their difference is needed, and because the
numbers themselves are outside the range of float64 in high dimension.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hilbound.arguments import require_rows
from hilbound.engine import gram
from hilbound.engine.blocks import blocks, rows_of_a_tile
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture, precise_log_inner

# The fixed work for a block, in products. It keeps a small problem in a single block.
_BLOCK_WORK = 2**25

# Data rows in a tile of their Gram matrix. It is small, so that most of the lower triangle is
# skipped.
_GRAM_ROWS = 1024


@dataclass(frozen=True)
class _DrawnRows:
    """Rows in the place of centres: K of them at every feature point.

    Args:
        rows: Rows with shape ``(L, d)``.
        chosen: Which of them, with shape ``(M, K)``.
        variance: Variance of a component.
    """

    rows: Tensor
    chosen: Tensor
    variance: float

    def at(self, points: Tensor) -> GaussianMixture:
        """Return the mixtures at some of the points, with batch shape ``(c,)``."""
        return GaussianMixture(self.rows[self.chosen[points]], self.variance, validate_args=False)


#: A function that maps feature points with shape ``(b, F)`` to the model at these points.
Decoder = Callable[[Tensor], GaussianMixture]


class Products(NamedTuple):
    """The three averaged inner products with cut weights, and a bound of what was cut.

    Args:
        log_pq: Logarithm of the average of <p, q>, a number in float64.
        log_qq: Logarithm of the average of <q, q>.
        log_pp: Logarithm of the average of <p, p>.
        log_tail: Logarithm of the largest weight that was left out at a point, relative to the
            weight that was kept.
        log_component: Logarithm of the squared norm of a component of p.
    """

    log_pq: Tensor
    log_qq: Tensor
    log_pp: Tensor
    log_tail: float
    log_component: float

    @property
    def error(self) -> float:
        """The largest possible error of both logarithms, in nats. See ``docs/conditional.md``."""
        spread = 0.5 * (self.log_component + float(self.log_qq.detach()))
        exponent = self.log_tail + spread - float(self.log_pq.detach())
        # log(1 + e^a) without overflow of e^a.
        return 2 * (max(exponent, 0.0) + math.log1p(math.exp(-abs(exponent))))


def _log_cross(
    x: Tensor, active: Tensor, log_weights: Tensor, variance: float, q: GaussianMixture
) -> Tensor:
    r"""Return :math:`\log \sum_n \sum_k w_n b_k \langle p_n, q_k \rangle`, with shape ``(c,)``.

    Args:
        x: Data with shape ``(N, d)``.
        active: Indices of the data that are kept, with shape ``(S,)``.
        log_weights: Their log weights at c points, with shape ``(c, S)``.
        variance: Variance of a component of the data.
        q: The model at these points, with batch shape ``(c,)``.
    """
    c, d = len(log_weights), q.dim
    v = q.component_variance
    unit = variance + float(v.detach().mean())
    v = v.expand(*q.means.shape[:-1], v.shape[-1]) if max(v.shape[:-1]) > 1 else v
    # Without a matrix product a pair needs d differences in memory.
    per_pair = d if max(v.shape[:-1]) > 1 and v.shape[-1] > 1 else 1
    parts = []
    for data, log_w in zip(
        active.split(rows_of_a_tile(d * per_pair)),
        log_weights.split(rows_of_a_tile(d * per_pair), -1),
        strict=True,
    ):
        rows, own = x[data].to(q.means.dtype), q.means.new_full((1, 1), variance)
        step = rows_of_a_tile(c * max(len(data), d) * per_pair)
        for i in range(0, q.components, step):
            means, log_b = q.means[:, i : i + step], q.log_weights[:, i : i + step]
            w = v[:, i : i + step] if v.shape[:-1] == q.means.shape[:-1] else v
            logs = gram.log_inner_products(
                means.reshape(-1, d), w.reshape(-1, w.shape[-1]), rows, own, unit
            )
            log_sums = (logs.view(c, -1, len(data)) + log_w.unsqueeze(1)).logsumexp(-1)
            parts.append(log_sums.double() + log_b)
    return torch.cat(parts, -1).logsumexp(-1) - 0.5 * d * math.log(2 * math.pi * unit)


def _own(x: Tensor, active: Tensor, weights: Tensor, variance: float) -> Tensor:
    r"""Return :math:`\sum_{nn'} w_n w_{n'} \langle p_n, p_{n'} \rangle / C` with shape ``(b,)``.

    The Gram matrix is symmetric, so only one of each pair of tiles off its diagonal is formed.

    Args:
        x: Data with shape ``(N, d)``.
        active: Indices of the data that are kept, with shape ``(S,)``.
        weights: Their weights at b points, with shape ``(b, S)``.
        variance: Variance of a component of the data.
    """
    v = weights.new_full((1, 1), variance)
    step = min(
        _GRAM_ROWS, math.isqrt(rows_of_a_tile(1)), rows_of_a_tile(max(x.shape[-1], len(weights)))
    )
    tiles = list(zip(active.split(step), weights.split(step, -1), strict=True))
    total = weights.new_zeros(len(weights), dtype=torch.float64)
    for i, (data, w) in enumerate(tiles):
        rows = x[data].to(w.dtype)
        for j, (others, u) in enumerate(tiles[i:]):
            columns = x[others].to(w.dtype) if j else rows
            overlaps = gram.log_overlaps(rows, v, columns, v).exp()
            total = total + (2 if j else 1) * (w @ overlaps * u).sum(-1, dtype=torch.float64)
    return total


def _decoded(
    q: "GaussianMixture | Decoder | _DrawnRows",
    points: Tensor,
    chosen: Tensor,
    dim: int,
    dtype: torch.dtype,
) -> GaussianMixture:
    """Return the model at some of the points, with batch shape ``(c,)``, in a dtype."""
    if isinstance(q, _DrawnRows):
        given = q.at(chosen)
        means, v, log_weights = given.means, given.component_variance, given.log_weights
    elif isinstance(q, GaussianMixture):
        v = q.component_variance
        log_weights = q.log_weights[chosen]
        means, v = q.means[chosen], v[chosen] if v.ndim == 3 and len(v) == len(q.means) else v
    else:
        given = q(points[chosen])
        check_decoded(given, len(chosen), points.shape[-1], dim)
        means, v, log_weights = given.means, given.component_variance, given.log_weights
    return GaussianMixture(
        means.to(dtype), v.to(dtype), log_weights=log_weights, validate_args=False
    )


def check_decoded(q: object, count: int, features: int, dim: int) -> None:
    """Check the result of a decoder.

    Raises:
        InputError: If it is not a mixture for each point, with the coordinates of the data.
    """
    batch = (count,)
    if isinstance(q, GaussianMixture) and q.batch_shape == batch and q.dim == dim:
        return
    came = f"{type(q).__name__}"
    if isinstance(q, GaussianMixture):
        came = f"batch shape {tuple(q.batch_shape)} and {q.dim} coordinates"
    raise InputError(
        f"q_at_points must map points with shape (b, {features}) to a GaussianMixture with batch "
        f"shape (b,) in the {dim} coordinates of x; for b = {count} it returned {came}"
    )


def inner_products(
    x: Tensor,
    features: Tensor,
    feature_points: Tensor,
    q: "GaussianMixture | Decoder | _DrawnRows",
    *,
    variance_p: float,
    variance_y: float,
    tail: float,
) -> Products:
    """Return the three inner products, averaged over the feature points.

    The arguments are those of :func:`hilbound.bounds.conditional_bound`, which checks them.
    """
    d, first = x.shape[-1], _first(q, feature_points, x.shape[-1])
    dtype = torch.promote_types(x.dtype, first.means.dtype)
    y, points = features.double(), feature_points.double()

    def work(b: int, size: int) -> float:
        return _BLOCK_WORK + size * (b * first.components * d + size * (d + b) / 2)

    log_pq, log_qq, pp, log_tail = [], [], [], -math.inf
    for block in blocks(y.detach(), points.detach(), variance_y, tail, work):
        log_w = -gram.squared_distances(points[block.points], y[block.active]) / (2 * variance_y)
        log_mass = log_w.logsumexp(-1, keepdim=True)
        log_tail = max(log_tail, block.log_omitted - float(log_mass.detach().amin()))
        log_w = (log_w - log_mass).to(dtype)
        pp.append(_own(x, block.active, log_w.exp(), variance_p))
        step = rows_of_a_tile(first.components * max(len(block.active), d))
        for chosen, part in zip(block.points.split(step), log_w.split(step), strict=True):
            model = _decoded(q, feature_points, chosen, d, dtype)
            log_pq.append(_log_cross(x, block.active, part, variance_p, model))
            log_qq.append(precise_log_inner(model, model))
    log_component = log_component_norm(variance_p, d)
    log_pp = torch.cat(pp).mean().log() + log_component
    return Products(_log_mean(log_pq), _log_mean(log_qq), log_pp, log_tail, log_component)


@torch.no_grad()
def _first(
    q: "GaussianMixture | Decoder | _DrawnRows", points: Tensor, dim: int
) -> GaussianMixture:
    """Return the model at the first point, for its size. A given mixture is returned as it is."""
    if isinstance(q, GaussianMixture):
        return q
    if isinstance(q, _DrawnRows):
        return q.at(torch.zeros(1, dtype=torch.int64, device=q.chosen.device))
    first = q(points[:1])
    check_decoded(first, 1, points.shape[-1], dim)
    return first


def log_component_norm(variance: float, dim: int) -> float:
    r"""Return :math:`\log (4 \pi v)^{-d/2}`, the squared norm of one Gaussian component.

    No conditional cost and no limit of it is larger. The limit has this value if every feature
    belongs to one row. Otherwise, the limit divided by this value is the inverse of the effective
    number of rows that share a feature.

    Args:
        variance: Variance v of the component.
        dim: Number d of coordinates.

    >>> round(log_component_norm(1.0, 2), 4)
    -2.531
    """
    return -0.5 * dim * math.log(4 * math.pi * variance)


def _log_mean(logs: list[Tensor]) -> Tensor:
    values = torch.cat(logs)
    return values.logsumexp(0) - math.log(len(values))


@dataclass(frozen=True)
class Bound:
    """A cost and its limit.

    Args:
        log_value: Logarithm of the cost, with shape ``(*)``.
        log_limit: Logarithm of its limit, with shape ``(*)``.
        error: The largest possible error of both logarithms from cut weights, in nats.

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
        """The share of the limit that the cost reaches, in [0, 1] up to rounding, shape ``(*)``."""
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
        Both logarithms with shape ``(*)``, in float64. In float32 the gap would lose its digits,
        because large constants cancel in it.

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

    Both sides are computed at the same feature points with the same weights. So the inequality
    holds for the computed numbers, up to rounding. If features are far apart compared with the
    noise, small weights are cut, and the error is bounded (see ``docs/conditional.md``). A model
    with a tiny tightness needs a smaller ``tail`` for a small error. Any positive number is
    allowed.

    Gradients flow to everything that requires them, and then a graph of all pairs is kept in
    memory. To track a model during training, call this under ``torch.no_grad()``.

    Args:
        x: Data with shape ``(N, d)``.
        features: Their features without noise, with shape ``(N, F)``.
        feature_points: Points drawn from p(y), features with noise, with shape ``(M, F)``.
        q_at_points: The model at the feature points, with batch shape ``(M,)``. It may also be a
            deterministic function that maps points with shape ``(b, F)`` to a mixture with batch
            shape ``(b,)``. It is first called for a single point, and then for some at a time.
        variance_p: Variance of a component of the data.
        variance_y: Variance of the noise of the features.
        tail: The weight that may be left out at a feature point, relative to the weight that is
            kept.

    Returns:
        Both logarithms as numbers in float64, and a bound of the error that the cut causes.

    Raises:
        InputError: If shapes do not fit, there are no rows, a value is not finite, a variance is
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
    _check_rows(x, features, feature_points)
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


def real_bound(
    x: Tensor,
    features: Tensor,
    feature_points: Tensor,
    rows: Tensor,
    row_features: Tensor,
    *,
    centers: int,
    variance_p: float,
    variance_y: float,
    tail: float = 1e-12,
    generator: torch.Generator | None = None,
) -> Bound:
    r"""Return the conditional bound that K real rows reach in the place of a model's centres.

    A tightness alone says little, because even a perfect sampler stays below 1 with K centres.
    Suppose that n rows of the data share a feature and do not overlap. Then K draws from the
    density itself reach about :math:`K / (n + K - 1)`. A blur of all of them may reach more. So
    compare a model's tightness with this figure. At every feature point y, K other rows stand for
    the centres, drawn with the weights

    .. math:: w_l(y) \propto N(y - y_l; v_y)

    that they have in :math:`p(x|y)`. They are drawn without replacement, since draws of a density
    never repeat. So there should be many more rows with a feature than K. Otherwise rows with other
    features fill up the K, and the figure is too low. (The K nearest rows would always
    have the feature, but they would be drawn from a narrower density than p.)

    Both sides are those of :func:`conditional_bound`, so cost ≤ limit holds for the numbers.

    Args:
        x: Data with shape ``(N, d)``.
        features: Their features without noise, with shape ``(N, F)``.
        feature_points: Points drawn from p(y), with shape ``(M, F)``.
        rows: Other real rows, none of them in ``x``, with shape ``(L, d)``.
        row_features: Their features without noise, with shape ``(L, F)``.
        centers: Number K of rows at every feature point, at most L.
        variance_p: Variance of a component, of the data and around the K rows.
        variance_y: Variance of the noise of the features.
        tail: See :func:`conditional_bound`.
        generator: Draws the rows.

    Raises:
        InputError: If shapes do not fit, a value is not finite, a variance is not positive, or
            there are fewer than K rows.

    >>> import torch
    >>> x, y = torch.tensor([[0.0], [9.0]]), torch.zeros(2, 1)
    >>> rows, same = x.repeat(500, 1), torch.zeros(1000, 1)
    >>> points, options = y.repeat(500, 1), {"variance_p": 0.1, "variance_y": 1.0}
    >>> bound = real_bound(x, y, points, rows, same, centers=3, **options)
    >>> abs(float(bound.tightness) - 3 / (2 + 3 - 1)) < 0.02
    True
    """
    _check_rows(x, features, feature_points)
    _check_numbers(variance_p, variance_y, tail)
    for name, own in (("rows", rows), ("row_features", row_features)):
        require_rows(name, own)
    shape, allowed = (*rows.shape, *row_features.shape), (x.shape[-1], features.shape[-1])
    if len(rows) != len(row_features) or (shape[1], shape[3]) != allowed:
        raise InputError(
            f"rows and row_features must have shapes (L, {allowed[0]}) and (L, {allowed[1]}), as x "
            f"and features have, got {tuple(rows.shape)} and {tuple(row_features.shape)}"
        )
    if not 1 <= centers <= len(rows):
        raise InputError(
            f"centers must lie between 1 and the {len(rows)} rows to draw from, got {centers}"
        )
    chosen = _draw_rows(row_features, feature_points, centers, variance_y, generator)
    products = inner_products(
        x,
        features,
        feature_points,
        _DrawnRows(rows, chosen, variance_p),
        variance_p=variance_p,
        variance_y=variance_y,
        tail=tail,
    )
    return Bound(2 * products.log_pq - products.log_qq, products.log_pp, products.error)


@torch.no_grad()
def _draw_rows(
    row_features: Tensor,
    points: Tensor,
    k: int,
    variance_y: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw k different rows for each point by their weights, as indices with shape ``(M, k)``.

    The k largest of log weights plus Gumbel noise are such a draw (Gumbel-max trick), and the
    logarithms cannot underflow as weights do.
    """
    y = row_features.double()
    parts = []
    for some in points.double().split(rows_of_a_tile(len(y))):
        log_w = -gram.squared_distances(some, y) / (2 * variance_y)
        uniform = torch.rand(log_w.shape, generator=generator, dtype=y.dtype, device=y.device)
        # A uniform number may be 0, and its Gumbel number is then minus infinity: drawn last.
        parts.append((log_w - (-uniform.log()).log()).topk(k, -1).indices)
    return torch.cat(parts)


def _check_rows(x: Tensor, features: Tensor, feature_points: Tensor) -> None:
    for name, rows in (("x", x), ("features", features), ("feature_points", feature_points)):
        require_rows(name, rows)
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
