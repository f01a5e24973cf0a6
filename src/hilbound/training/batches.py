"""Batches of rows in memory. The seed determines their order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hilbound.engine.gather import share
from hilbound.engine.seeding import stream


class BatchStream:
    """Batches of training rows. The seed and the step determine each batch.

    Every pass visits the rows in a new order. A batch may span two passes, so every step sees the
    same number of rows. Several workers share each batch: a worker's share is a part of it, in its
    order. A worker that has none gets the first row, which does not count.

    Args:
        rows: Training rows with shape ``(n, d)``.
        batch_size: Rows in a batch.
        steps: Number of batches.
        seed: Seed of the orders.
        first: The step to start from, for a resumed run.
        rank: Which of the workers this is.
        world: How many workers there are.

    >>> stream = BatchStream(torch.arange(5.0).unsqueeze(-1), batch_size=3, steps=5, seed=0)
    >>> rows = torch.cat(list(stream)).squeeze(-1)
    >>> sorted(rows[:5].tolist()), sorted(rows[5:10].tolist())
    ([0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 2.0, 3.0, 4.0])
    """

    def __init__(
        self,
        rows: Tensor,
        batch_size: int,
        steps: int,
        seed: int,
        first: int = 0,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.first = first
        self.rank = rank
        self.world = world

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        orders: dict[int, Tensor] = {}
        for step in range(self.first, self.steps):
            own = share(self.batch_size, self.rank, self.world) or range(1)
            position = step * self.batch_size + torch.arange(own.start, own.stop)
            passes = position // len(self.rows)
            wanted = {int(passes[0]), *passes.unique().tolist()}
            orders = {k: orders[k] if k in orders else self._order(k) for k in wanted}
            chosen = [orders[k][position[passes == k] % len(self.rows)] for k in sorted(wanted)]
            yield self.rows[torch.cat(chosen)]

    def _order(self, number: int) -> Tensor:
        return torch.randperm(len(self.rows), generator=stream(self.seed, "order", number))

    # Lightning needs these two of a stream that can be resumed. The step is all the state there is.
    def state_dict(self) -> dict[str, int]:
        """Return nothing, because the checkpoint holds the step from which to continue."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take nothing."""


@dataclass(frozen=True)
class Batches:
    """A fixed sequence of batches, which Lightning takes as one loader.

    Args:
        parts: The batches.
    """

    parts: Sequence[Tensor]

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.parts)
