"""Batches of rows in memory. The seed determines their order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hilbound.engine.gram import squared_distances
from hilbound.engine.seeding import normal, stream


class Batch(NamedTuple):
    """Rows of a step.

    Args:
        x: Rows with shape ``(B, d)``, or ``(C, n, d)`` if every block has rows of its own.
        labels: Classes with shape ``(B,)``, for a model that is told them; of slices, ``(C,)``.
        features: What the rows of each block share, with shape ``(C, F)``, if blocks are slices.
    """

    x: Tensor
    labels: Tensor | None = None
    features: Tensor | None = None

    def part(self, own: slice) -> "Batch":
        """Return some of the rows, or of the blocks."""
        return Batch(self.x[own], *(None if one is None else one[own] for one in self[1:]))

    def to(self, device: torch.device) -> "Batch":
        """Return the rows on a device."""
        others = (None if one is None else one.to(device) for one in self[1:])
        return Batch(self.x.to(device), *others)


class BatchStream:
    """Batches of training rows. The seed and the step determine each batch.

    Every pass visits the rows in a new order. A batch may span two passes, so every step sees the
    same number of rows. Several workers share each batch, and all of them know its rows.

    Args:
        rows: Training rows with shape ``(n, d)``.
        batch_size: Rows in a batch.
        steps: Number of batches.
        seed: Seed of the orders.
        first: The step to start from, for a resumed run.

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
    ) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.first = first

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        orders: dict[int, Tensor] = {}
        n = len(self.rows)
        for step in range(self.first, self.steps):
            begin, end = step * self.batch_size, (step + 1) * self.batch_size
            wanted = range(begin // n, (end - 1) // n + 1)
            orders = {k: orders[k] if k in orders else self._order(k) for k in wanted}
            chosen = [orders[k][max(begin - k * n, 0) : end - k * n] for k in wanted]
            yield self.rows[torch.cat(chosen) if len(chosen) > 1 else chosen[0]]

    def _order(self, number: int) -> Tensor:
        return torch.randperm(len(self.rows), generator=stream(self.seed, "order", number))

    # Lightning needs these two of a stream that can be resumed. The step is all the state there is.
    def state_dict(self) -> dict[str, int]:
        """Return nothing, because the checkpoint holds the step from which to continue."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take nothing."""


class LabelledStream(BatchStream):
    """The batches of a :class:`BatchStream`, with the label of every row.

    Args:
        rows: Training rows with shape ``(n, d)``.
        labels: Their classes with shape ``(n,)``.
        **options: The other arguments of :class:`BatchStream`.

    >>> stream = LabelledStream(torch.zeros(5, 2), torch.arange(5), batch_size=3, steps=1, seed=0)
    >>> [(batch.x.shape, batch.labels.shape) for batch in stream]
    [(torch.Size([3, 2]), torch.Size([3]))]
    """

    def __init__(self, rows: Tensor, labels: Tensor, **options: int) -> None:
        super().__init__(torch.arange(len(rows)), **options)
        self._x, self._labels = rows, labels

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # rows with their labels
        for chosen in super().__iter__():
            yield Batch(self._x[chosen], self._labels[chosen])


class BlockStream(BatchStream):
    """Batches with equally many rows of every block, with shape ``(C, n, d)``.

    Every block visits its own rows in an order of its own. A small block begins its next pass
    earlier, and if it has fewer than n rows, a batch holds some of them twice. So the mini-batch's
    bias is that of n rows in every block, and no row has to be left out. The weights of the blocks
    belong to the objective (:class:`~hilbound.BlockObjective`).

    Args:
        rows: Training rows with shape ``(N, d)``.
        blocks: The block of every row, with shape ``(N,)``. Every block from 0 to C - 1 has rows.
        batch_size: Rows of each block in a batch.
        **options: The other arguments of :class:`BatchStream`.

    >>> rows, blocks = torch.arange(5.0).unsqueeze(-1), torch.tensor([0, 1, 0, 1, 0])
    >>> stream = BlockStream(rows, blocks, batch_size=3, steps=2, seed=0)
    >>> [batch.squeeze(-1).sort().values.tolist() for batch in next(iter(stream))]
    [[0.0, 2.0, 4.0], [1.0, 1.0, 3.0]]
    """

    def __init__(self, rows: Tensor, blocks: Tensor, batch_size: int, **options: int) -> None:
        super().__init__(rows, batch_size, **options)
        members = [(blocks == c).nonzero().flatten() for c in range(int(blocks.max()) + 1)]
        self._streams = [BatchStream(own, batch_size, **options) for own in members]

    def __iter__(self) -> Iterator[Tensor]:
        for chosen in zip(*self._streams, strict=True):
            yield self.rows[torch.stack(chosen)]


@dataclass(frozen=True)
class SharingRows:
    r"""Rows with their features, from which those are drawn that share a feature.

    Row m shares the feature y with weight

    .. math:: w_m(y) \propto N(y - y_m; v_y) .

    Args:
        rows: Rows with shape ``(N, d)``.
        features: Their features with shape ``(N, F)``, without noise.
        variance_y: Variance :math:`v_y` of the noise on the features.
        labels: Their classes with shape ``(N,)``, if only rows of one class share a feature.
    """

    rows: Tensor
    features: Tensor
    variance_y: float
    labels: Tensor | None = None

    @property
    def most(self) -> int:
        """The most rows that can share any feature: all, or those of the smallest class."""
        if self.labels is None:
            return len(self.rows)
        return int(self.labels.unique(return_counts=True)[1].min())

    def log_weights(self, y: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the logarithms of the weights, up to a constant: ``(S, N)`` for ``(S, F)``.

        ``labels`` are the classes at the features, with shape ``(S,)``, if there are classes.
        """
        logs = -squared_distances(y, self.features) / (2 * self.variance_y)
        if self.labels is None or labels is None:
            return logs
        return logs.masked_fill(labels.unsqueeze(-1) != self.labels, -torch.inf)

    def draw(
        self, y: Tensor, n: int, draws: torch.Generator, labels: Tensor | None = None
    ) -> Tensor:
        """Return n rows that share each of S features, with shape ``(S, n, d)``.

        They are drawn by the weights, without replacement. So they are a sample of p(x|y). If fewer
        than n rows share a feature, the next ones in the order of the weights fill up.
        """
        log_weights = self.log_weights(y, labels)
        # The largest sums of log weights and Gumbel noise are draws without replacement.
        rare = torch.empty_like(log_weights).exponential_(generator=draws)
        return self.rows[(log_weights - rare.log()).topk(n).indices]


class SliceStream(BatchStream):
    """Batches of slices: a feature, and n rows that share it, with shape ``(S, n, d)``.

    A feature is that of a random row, with its noise. If there are classes, a slice has that of the
    row.

    Args:
        sharing: Rows and their features.
        slices: Number S of slices in a batch.
        batch_size: Rows of a batch, ``S n``.
        **options: The other arguments of :class:`BatchStream`.

    >>> rows = torch.arange(100.0).unsqueeze(-1)
    >>> sharing = SharingRows(rows, rows / 30, variance_y=0.01)
    >>> batch = next(iter(SliceStream(sharing, slices=2, batch_size=10, steps=1, seed=0)))
    >>> batch.x.shape, batch.features.shape
    (torch.Size([2, 5, 1]), torch.Size([2, 1]))
    """

    def __init__(
        self, sharing: SharingRows, *, slices: int, batch_size: int, **options: int
    ) -> None:
        super().__init__(sharing.rows, batch_size, **options)
        self._sharing = sharing
        self._slices = slices

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # rows with their features
        for step in range(self.first, self.steps):
            yield self._draw(stream(self.seed, "slices", step))

    def _draw(self, draws: torch.Generator) -> Batch:
        sharing, s = self._sharing, self._slices
        features = sharing.features
        chosen = torch.randint(len(features), (s,), generator=draws)
        noise = normal((s, features.shape[1]), draws, dtype=features.dtype, device=draws.device)
        y = features[chosen] + sharing.variance_y**0.5 * noise
        labels = None if sharing.labels is None else sharing.labels[chosen]
        return Batch(sharing.draw(y, self.batch_size // s, draws, labels), labels, y)


@dataclass(frozen=True)
class Batches:
    """A fixed sequence of batches, which Lightning takes as one loader.

    Args:
        parts: The batches.
    """

    parts: Sequence[Tensor | Batch]

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Tensor | Batch]:
        return iter(self.parts)
