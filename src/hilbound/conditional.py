r"""The conditional cost at feature points: sparse weights with a certified tail, streamed sums.

Data :math:`x_n` with features :math:`y_n` have the joint density :math:`p(x, y) = \frac1N \sum_n
N(x - x_n; v_p)\, N(y - y_n; v_y)`, hence, given y, the mixture

.. math:: p(x|y) = \sum_n w_n(y)\, N(x - x_n; v_p), \qquad
    w_n(y) = \frac{N(y - y_n; v_y)}{\sum_m N(y - y_m; v_y)}.

Averaged over the feature points :math:`y_1 \dots y_M`, :math:`\langle f, g \rangle_E = \frac1M
\sum_m \langle f(\cdot|y_m), g(\cdot|y_m) \rangle` is an inner product, so that

.. math:: \frac{\langle p, q \rangle_E^2}{\langle q, q \rangle_E} \le \langle p, p \rangle_E

holds for the numbers themselves, whatever p is: also for weights that were cut, as long as both
sides are computed from the same ones.

**What is cut.** Feature points are taken in blocks that lie close together. For a block, every
data feature has a lower bound :math:`l_n` of its distance from the block's bounding box, and every
point :math:`y_m` an upper bound :math:`u_m` of its distance from the nearest feature. Kept are the
features with :math:`l_n^2 \le \max_m u_m^2 + 2 v_y \log(N / t)`. One that is left out weighs less
than :math:`t/N` times the nearest one at every point of the block, so all of them together weigh
at most t times what is kept.

**What it costs.** Let :math:`\tilde p` be the mixture of what is kept, with weights that sum to 1,
and :math:`p'` that of the rest: :math:`p = (1 - s_m) \tilde p + s_m p'` with a share :math:`s_m \le
t / (1 + t)` of each point. Nothing is negative, and :math:`|p'|^2 \le C = (4 \pi v_p)^{-d/2}`, the
squared norm of a component, so

.. math::
    \frac{1}{1 + t} \langle \tilde p, q \rangle_E \le \langle p, q \rangle_E
    &\le \langle \tilde p, q \rangle_E + t\, \langle p', q \rangle_E
    \le \langle \tilde p, q \rangle_E + t \sqrt{C\, \langle q, q \rangle_E},

    \frac{1}{1 + t} |\tilde p|_E \le |p|_E &\le |\tilde p|_E + t\, |p'|_E
    \le |\tilde p|_E + t \sqrt C

by Cauchy-Schwarz and the triangle inequality. The logarithm of the cost is twice that of
:math:`\langle p, q \rangle_E` but for a term without p, that of the limit twice that of
:math:`|p|_E`. With the tightness :math:`\tau = \langle \tilde p, q \rangle_E^2 / (|\tilde p|_E^2\,
\langle q, q \rangle_E) \le 1` and the effective number of neighbours :math:`n = C / |\tilde p|_E^2
\ge 1` (at most N, because :math:`|\tilde p|^2 \ge C \sum_n w_n^2`), both are off by at most

.. math:: 2 \log\big(1 + t \sqrt{n / \tau}\big)
    = 2 \log\big(1 + t \sqrt{C\, \langle q, q \rangle_E} \big/ \langle \tilde p, q \rangle_E\big).

The t in here is not the one asked for but the largest that occurs: :math:`\sum_n e^{-l_n^2 / 2
v_y}` over what was left out, over the mass that was kept. A loose model (small :math:`\tau`) needs
a smaller tail for the same error, which widens the blocks with the root of its logarithm only.

**What it takes.** A block of b points and S kept features takes :math:`b K S` distances to the
centres and :math:`S^2 / 2` within the data; blocks are halved as long as that saves work. Beside
the inputs, N + M numbers, the weights of a block and a few tiles of pairs are held.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hilbound import gram
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.precise import precise_log_inner

# Weights of a block, the largest tensor that is formed: 64 MiB in float64.
_BLOCK_NUMBERS = 2**23
# Numbers in a tile of pairs: it is passed over a dozen times, and should stay near the processor.
_TILE_NUMBERS = 2**21
# What a block takes beside its sums, in products: a small problem is one block.
_BLOCK_WORK = 2**25
# Data rows in a tile of their Gram matrix: small enough to skip most of the lower triangle.
_GRAM_ROWS = 1024
# Features among which a point looks for a near one: it only has to be near against the kernel.
_CANDIDATES = 64

#: The model at feature points: decoded already, or what decodes points with shape ``(b, F)``.
Decoder = Callable[[Tensor], GaussianMixture]


class Products(NamedTuple):
    """The three averaged inner products with weights that were cut, and how much was.

    Args:
        log_pq: Logarithm of the average of <p, q>, a number in float64.
        log_qq: Logarithm of the average of <q, q>.
        log_pp: Logarithm of the average of <p, p>.
        log_tail: Logarithm of the largest mass that was left out, relative to what was kept.
        log_component: Logarithm of the squared norm of a component of p.
    """

    log_pq: Tensor
    log_qq: Tensor
    log_pp: Tensor
    log_tail: float
    log_component: float

    @property
    def error(self) -> float:
        """The bound of the module docstring on the error of both logarithms, in nats."""
        spread = 0.5 * (self.log_component + float(self.log_qq.detach()))
        exponent = self.log_tail + spread - float(self.log_pq.detach())
        # log(1 + e^a), also where e^a overflows.
        return 2 * (max(exponent, 0.0) + math.log1p(math.exp(-abs(exponent))))


@dataclass(frozen=True)
class Block:
    """Feature points that lie close together, and the data whose features matter to them.

    Args:
        points: Indices of the feature points, with shape ``(b,)``.
        active: Indices of the data that are kept, with shape ``(S,)``.
        log_omitted: Logarithm of a bound of the sum of exp(-|y - y_n|²/2v) over the others, at
            every point y of the block.
    """

    points: Tensor
    active: Tensor
    log_omitted: float

    @property
    def numbers(self) -> int:
        """How many weights it has."""
        return len(self.points) * len(self.active)

    def work(self, work: Callable[[int, int], float]) -> float:
        """Return what it takes, as a function of its numbers of points and of data."""
        return work(len(self.points), len(self.active))


# ------------------------------------------------------------------ which data matter where


def squared_distances_from_box(features: Tensor, points: Tensor) -> Tensor:
    """Return lower bounds of the squared distances of features from all of the points.

    Args:
        features: Features with shape ``(N, F)``.
        points: Points with shape ``(b, F)``, whose bounding box is taken.

    Returns:
        Squared distances from the box, with shape ``(N,)``.

    >>> box = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    >>> squared_distances_from_box(torch.tensor([[0.5, 0.5], [2.0, 3.0]]), box)
    tensor([0., 5.])
    """
    low, high = points.amin(0), points.amax(0)

    def squares(rows: Tensor) -> Tensor:
        outside = (low - rows).clamp_min(0) + (rows - high).clamp_min(0)
        return outside.square().sum(-1)

    return torch.cat([squares(rows) for rows in features.split(_rows(features.shape[-1]))])


def _rows(width: int) -> int:
    """How many rows of some width make a tile."""
    return max(1, _TILE_NUMBERS // width)


def _part(
    block: Block, chosen: Tensor, features: Tensor, points: Tensor, *, variance: float, tail: float
) -> Block:
    """Return what matters to some points of a block, by the cut of the module docstring.

    What did not matter to the block does not matter to a part of it, so the cut starts from there.
    """
    near, within = points[chosen], features[block.active]
    lower = squared_distances_from_box(within, near)
    candidates = within[lower.topk(min(_CANDIDATES, len(within)), largest=False).indices]
    upper = max(
        float(gram.squared_distances(part, candidates).amin(-1).amax())
        for part in near.split(_rows(len(candidates)))
    )
    kept = lower <= upper + 2 * variance * math.log(len(features) / tail)
    omitted = torch.logsumexp(-lower[~kept] / (2 * variance), 0)
    log_omitted = torch.logaddexp(omitted, omitted.new_tensor(block.log_omitted))
    return Block(chosen, block.active[kept], float(log_omitted))


def _halves(points: Tensor, chosen: Tensor) -> tuple[Tensor, ...]:
    """Cut chosen points in two at the median of their widest coordinate."""
    near = points[chosen]
    widest = int((near.amax(0) - near.amin(0)).argmax())
    return chosen[near[:, widest].argsort()].tensor_split(2)


@torch.no_grad()
def blocks(
    features: Tensor,
    points: Tensor,
    variance: float,
    tail: float,
    work: Callable[[int, int], float],
) -> Iterator[Block]:
    """Cut the points into blocks, as long as halving one saves work or it is too large.

    A small problem is one block, of which nothing is left out.

    Args:
        features: Features of the data with shape ``(N, F)``.
        points: Feature points with shape ``(M, F)``.
        variance: Variance of the noise of the features.
        tail: The mass that may be left out at a point, relative to what is kept.
        work: What a block of b points and S kept features takes, in any unit.
    """
    every_point, every_feature = (
        torch.arange(len(rows), device=rows.device) for rows in (points, features)
    )
    whole = Block(every_point, every_feature, -math.inf)
    if whole.numbers <= _BLOCK_NUMBERS and whole.work(work) <= 2 * work(1, 1):
        yield whole
        return
    waiting = [_part(whole, every_point, features, points, variance=variance, tail=tail)]
    while waiting:
        block = waiting.pop()
        too_large = block.numbers > _BLOCK_NUMBERS
        # No half takes less than the smallest block does.
        if len(block.points) > 1 and (too_large or block.work(work) > 2 * work(1, 1)):
            halves = [
                _part(block, half, features, points, variance=variance, tail=tail)
                for half in _halves(points, block.points)
            ]
            if too_large or sum(half.work(work) for half in halves) < block.work(work):
                waiting.extend(halves)
                continue
        yield block


# ------------------------------------------------------------------ sums over a block


def _log_cross(
    x: Tensor, active: Tensor, log_weights: Tensor, variance: float, q: GaussianMixture
) -> Tensor:
    r"""Return :math:`\log \sum_n \sum_k w_n b_k \langle p_n, q_k \rangle`, with shape ``(c,)``.

    Args:
        x: Data with shape ``(N, d)``.
        active: Indices of the data that count, with shape ``(S,)``.
        log_weights: Their log weights at c points, with shape ``(c, S)``.
        variance: Variance of a component of the data.
        q: The model at these points, with batch shape ``(c,)``.
    """
    c, d = len(log_weights), q.dim
    v = q.component_variance
    unit = variance + float(v.detach().mean())
    v = v.expand(*q.means.shape[:-1], v.shape[-1]) if max(v.shape[:-1]) > 1 else v
    # Where neither a product nor a scaling does, a pair takes d differences.
    per_pair = d if max(v.shape[:-1]) > 1 and v.shape[-1] > 1 else 1
    parts = []
    for data, log_w in zip(
        active.split(_rows(d * per_pair)), log_weights.split(_rows(d * per_pair), -1), strict=True
    ):
        rows, own = x[data].to(q.means.dtype), q.means.new_full((1, 1), variance)
        step = _rows(c * max(len(data), d) * per_pair)
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

    The Gram matrix is symmetric: of the tiles off its diagonal one of each pair is formed.

    Args:
        x: Data with shape ``(N, d)``.
        active: Indices of the data that count, with shape ``(S,)``.
        weights: Their weights at b points, with shape ``(b, S)``.
        variance: Variance of a component of the data.
    """
    v = weights.new_full((1, 1), variance)
    step = min(_GRAM_ROWS, math.isqrt(_TILE_NUMBERS), _rows(max(x.shape[-1], len(weights))))
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
    q: GaussianMixture | Decoder, points: Tensor, chosen: Tensor, dim: int, dtype: torch.dtype
) -> GaussianMixture:
    """Return the model at some of the points, with batch shape ``(c,)``, in a dtype."""
    if isinstance(q, GaussianMixture):
        v = q.component_variance
        log_weights = q.log_weights[chosen]
        means, v = q.means[chosen], v[chosen] if v.ndim == 3 and len(v) == len(q.means) else v
    else:
        given = q(points[chosen])
        check_decoded(given, len(chosen), points.shape[-1], dim)
        means, v, log_weights = given.means, given.component_variance, given.log_weights
    part = GaussianMixture(means.to(dtype), v.to(dtype), validate_args=False)
    part.log_weights = log_weights.to(dtype)
    return part


def check_decoded(q: object, count: int, features: int, dim: int) -> None:
    """Refuse what a decoder must not return.

    Raises:
        InputError: If it is no mixture, not one for each point, or not in the data's space.
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


# ------------------------------------------------------------------ everything together


def inner_products(
    x: Tensor,
    features: Tensor,
    feature_points: Tensor,
    q: GaussianMixture | Decoder,
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
        step = _rows(first.components * max(len(block.active), d))
        for chosen, part in zip(block.points.split(step), log_w.split(step), strict=True):
            model = _decoded(q, feature_points, chosen, d, dtype)
            log_pq.append(_log_cross(x, block.active, part, variance_p, model))
            log_qq.append(precise_log_inner(model, model))
    log_component = -0.5 * d * math.log(4 * math.pi * variance_p)
    log_pp = torch.cat(pp).mean().log() + log_component
    return Products(_log_mean(log_pq), _log_mean(log_qq), log_pp, log_tail, log_component)


@torch.no_grad()
def _first(q: GaussianMixture | Decoder, points: Tensor, dim: int) -> GaussianMixture:
    """Return the model at the first point, to know its size, or all of it where it is there."""
    if isinstance(q, GaussianMixture):
        return q
    first = q(points[:1])
    check_decoded(first, 1, points.shape[-1], dim)
    return first


def _log_mean(logs: list[Tensor]) -> Tensor:
    values = torch.cat(logs)
    return values.logsumexp(0) - math.log(len(values))
