r"""One batch over several workers: every worker has its part, and all need the whole.

The costs of this library are not sums over samples: each is a number of two whole mixtures. So
workers gather what their networks made, and every one of them computes the loss of the whole batch.

**The gradient.** Let worker r of W make the parts :math:`m_r(\theta)` of a batch, and let
:math:`L(m_1, \dots, m_W)` be the loss of the whole. A worker takes the others' parts as constants,
and W times the loss. Its gradient is :math:`W \, (\partial L / \partial m_r) \, dm_r/d\theta`, and
the mean over workers, which torch's ``DistributedDataParallel`` takes, is

.. math:: \frac1W \sum_r W \frac{\partial L}{\partial m_r} \frac{dm_r}{d\theta}
    = \frac{dL}{d\theta},

exactly the gradient of the whole batch in one process. Only numbers of the forward pass travel.

Parts may have different sizes, and a worker may have none. Sizes are gathered first, because
tensors of unequal shapes would hang. Shorter parts are filled up for the way and cut afterwards.

Sums that enter every part (means and variances of features) travel both ways: :meth:`Team.sum`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def share(total: int, rank: int, world: int) -> range:
    """Return which of ``total`` rows a worker has. Shares differ by one row at most.

    >>> [list(share(5, rank, 3)) for rank in range(3)]
    [[0, 1], [2, 3], [4]]
    """
    size, more = divmod(total, world)
    first = rank * size + min(rank, more)
    return range(first, first + size + (rank < more))


@dataclass(frozen=True)
class Team:
    """The workers that train one model on one batch, as one of them sees them.

    Args:
        rank: Which of them this is.
        world: How many there are.

    >>> Team().gather(torch.ones(2, 3)).shape
    torch.Size([2, 3])
    """

    rank: int = 0
    world: int = 1

    @property
    def alone(self) -> bool:
        """Whether there is only this worker."""
        return self.world == 1

    def share(self, total: int) -> range:
        """Return which of ``total`` rows this worker has. See :func:`share`."""
        return share(total, self.rank, self.world)

    def gather(self, own: Tensor) -> Tensor:
        """Return the parts of all workers, one after the other along the first axis.

        The gradient flows to this worker's part only. The other axes must be equal everywhere.

        Args:
            own: This worker's part with shape ``(n_r, *)``; ``n_r`` may be zero.

        Returns:
            All parts with shape ``(n_1 + ... + n_W, *)``.
        """
        if self.alone:
            return own
        sizes = self._sizes(len(own), own.device)
        filled = own.new_zeros(max(sizes), *own.shape[1:])
        filled[: len(own)] = own.detach()
        parts = [torch.empty_like(filled) for _ in sizes]
        dist.all_gather(parts, filled)
        whole = [part[:size] for part, size in zip(parts, sizes, strict=True)]
        whole[self.rank] = own
        return torch.cat(whole)

    def _sizes(self, size: int, device: torch.device) -> list[int]:
        sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(self.world)]
        dist.all_gather(sizes, torch.full((1,), size, dtype=torch.int64, device=device))
        return [int(one) for one in sizes]

    def spread(
        self, function: Callable[[Tensor], tuple[Tensor, Tensor]], batch: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return ``function(batch)``, of which every worker computes its share of the entries.

        All workers must have the same batch. Each sends its results to all others. No gradient
        flows.

        Args:
            function: It takes entries with shape ``(n, *)``. It returns a number for each with
                shape ``(n,)``, and a tensor of the shape of the entries, both of their dtype.
            batch: Entries with shape ``(B, *)``.

        Returns:
            Tensors with shapes ``(B,)`` and ``(B, *)``.
        """
        numbers = batch.new_empty(len(batch))
        tensors = torch.empty_like(batch, memory_format=torch.contiguous_format)
        shares = [share(len(batch), rank, self.world) for rank in range(self.world)]
        parts = [slice(one.start, one.stop) for one in shares if one]
        if self.rank < len(parts):
            own = parts[self.rank]
            numbers[own], tensors[own] = function(batch[own].detach())
        for rank, part in enumerate(parts):
            dist.broadcast(numbers[part], rank)
            dist.broadcast(tensors[part], rank)
        return numbers, tensors

    def sum(self, own: Tensor) -> Tensor:
        """Return the sum over workers. Its gradient is the sum of theirs."""
        if self.alone:
            return own
        total: Tensor = _Sum.apply(own)  # type: ignore[no-untyped-call]
        return total


class _Sum(torch.autograd.Function):
    """The sum over workers, forward and backward."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        del ctx
        total = own.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        del ctx
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


_TEAM: ContextVar[Team] = ContextVar("hilbound_team", default=Team())  # noqa: B039 - it is frozen
_FILLED: ContextVar[bool] = ContextVar("hilbound_filled", default=False)


def team() -> Team:
    """Return the team of the batch that is computed now: only this worker, unless it was told."""
    return _TEAM.get()


@contextmanager
def working_in(one: Team, *, filled: bool = False) -> Iterator[None]:
    """Compute a batch as a member of a team inside a ``with`` block.

    Args:
        one: The team.
        filled: Whether this worker has no rows, and computes one that does not count.

    >>> with working_in(Team(1, 2)):
    ...     team().share(4)
    range(2, 4)
    """
    tokens = _TEAM.set(one), _FILLED.set(filled)
    try:
        yield
    finally:
        _TEAM.reset(tokens[0])
        _FILLED.reset(tokens[1])


def counted(rows: Tensor) -> Tensor:
    """Return the rows that count for a team: none where a worker only computes a filler.

    >>> len(counted(torch.zeros(3, 2)))
    3
    """
    return rows[:0] if _FILLED.get() else rows
