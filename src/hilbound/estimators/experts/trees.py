"""Boosted trees as arrays, so that they can be kept without pickling."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NUMBERS = 1 << 22  # positions held at once


@dataclass(frozen=True)
class Trees:
    """Regression trees whose leaves add up; all nodes stand one after the other.

    Attributes:
        roots: The first node of each tree, with shape ``(t,)``.
        column: Which column a node asks for, with shape ``(m,)``.
        threshold: Rows up to it go left.
        left: Where they go; a leaf goes to itself.
        right: Where the others go.
        value: What a leaf adds.
        base: What the sum begins with.
        depth: The longest way from a root to a leaf.
    """

    roots: Tensor
    column: Tensor
    threshold: Tensor
    left: Tensor
    right: Tensor
    value: Tensor
    base: float
    depth: int

    @classmethod
    def of(cls, model: Any) -> "Trees":
        """Read the trees of a fitted ``HistGradientBoostingRegressor`` for columns of numbers."""
        nodes = [stage[0].nodes for stage in model._predictors]
        sizes = np.asarray([len(n) for n in nodes])
        roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
        every = np.concatenate(nodes)
        offset, own = np.repeat(roots, sizes), np.arange(len(every))
        leaf = every["is_leaf"].astype(bool)
        return cls(
            roots=torch.from_numpy(roots),
            column=torch.from_numpy(every["feature_idx"].astype(np.int64)),
            threshold=torch.from_numpy(every["num_threshold"].astype(np.float64)),
            left=torch.from_numpy(np.where(leaf, own, every["left"] + offset)),
            right=torch.from_numpy(np.where(leaf, own, every["right"] + offset)),
            value=torch.from_numpy(np.where(leaf, every["value"], 0.0)),
            base=float(np.ravel(model._baseline_prediction)[0]),
            depth=int(every["depth"].max()),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Return the sums for rows with shape ``(n, p)``, float64."""
        size = max(1, _NUMBERS // max(1, len(self.roots)))
        return torch.cat([self._sum(rows) for rows in x.split(size)])

    def _sum(self, x: Tensor) -> Tensor:
        at = self.roots.expand(len(x), -1)
        for _ in range(self.depth):
            goes_left = x.gather(1, self.column[at]) <= self.threshold[at]
            at = torch.where(goes_left, self.left[at], self.right[at])
        return self.base + self.value[at].sum(1)
