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

import torch
from torch import Tensor

from hilbound.engine import gram

# Weights of a block, the largest tensor that is formed: 64 MiB in float64.
_BLOCK_NUMBERS = 2**23

# Numbers in a tile of pairs: it is passed over a dozen times, and should stay near the processor.
_TILE_NUMBERS = 2**21

# Features among which a point looks for a near one: it only has to be near against the kernel.
_CANDIDATES = 64


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

    return torch.cat([squares(rows) for rows in features.split(rows_of_a_tile(features.shape[-1]))])


def rows_of_a_tile(width: int) -> int:
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
        for part in near.split(rows_of_a_tile(len(candidates)))
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
