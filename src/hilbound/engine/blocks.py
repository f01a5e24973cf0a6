"""Blocks of feature points for the conditional cost, with certified cuts of small weights.

At a feature point, most data have a weight close to zero. Feature points are therefore taken in
blocks that lie close together, and for each block only the data near it are kept. The weight that
is left out is bounded, and so is the resulting error of the cost and of its limit.

The rule of the cut, the bound of its error and its costs in time and memory are derived in
``docs/conditional.md``, section "How weights are cut".
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hilbound.engine import gram

# The most weights in a block. They are the largest tensor in memory: 64 MiB in float64.
_BLOCK_NUMBERS = 2**23

# Numbers in a tile of pairs. A tile is read a dozen times, so it should fit into the cache.
_TILE_NUMBERS = 2**21

# The number of features among which a point looks for a near one. It need not be the nearest: its
# distance only has to be small compared with the width of the kernel.
_CANDIDATES = 64


@dataclass(frozen=True)
class Block:
    """Feature points that lie close together, and the data whose features have weight there.

    Args:
        points: Indices of the feature points, with shape ``(b,)``.
        active: Indices of the data that are kept, with shape ``(S,)``.
        log_omitted: Logarithm of a bound of the sum of exp(-|y - y_n|²/2v) over the data that are
            left out. It holds at every point y of the block.
    """

    points: Tensor
    active: Tensor
    log_omitted: float

    @property
    def numbers(self) -> int:
        """The number of weights of the block."""
        return len(self.points) * len(self.active)

    def work(self, work: Callable[[int, int], float]) -> float:
        """Return the work for the block, as a function of its numbers of points and of data."""
        return work(len(self.points), len(self.active))


def squared_distances_from_box(features: Tensor, points: Tensor) -> Tensor:
    """Return lower bounds of the squared distances of features from all of the points.

    They are the squared distances from the bounding box of the points.

    Args:
        features: Features with shape ``(N, F)``.
        points: Points with shape ``(b, F)``.

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
    """Return how many rows of this width make a tile."""
    return max(1, _TILE_NUMBERS // width)


def _part(
    block: Block, chosen: Tensor, features: Tensor, points: Tensor, *, variance: float, tail: float
) -> Block:
    """Return a block of some of the points, with the data that have weight there.

    Data that were left out for the whole block are left out for its part, too, so only the block's
    own data are searched.
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
    """Split chosen points in two at the median of their widest coordinate."""
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
    """Cut the points into blocks. A block is halved if that saves work, or if it is too large.

    A small problem is a single block with all data.

    Args:
        features: Features of the data with shape ``(N, F)``.
        points: Feature points with shape ``(M, F)``.
        variance: Variance of the noise of the features.
        tail: The weight that may be left out at a point, relative to the weight that is kept.
        work: The work for a block of b points and S kept features, in any unit.
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
        # No half takes less work than the smallest block, so two of those are the least.
        if len(block.points) > 1 and (too_large or block.work(work) > 2 * work(1, 1)):
            halves = [
                _part(block, half, features, points, variance=variance, tail=tail)
                for half in _halves(points, block.points)
            ]
            if too_large or sum(half.work(work) for half in halves) < block.work(work):
                waiting.extend(halves)
                continue
        yield block
