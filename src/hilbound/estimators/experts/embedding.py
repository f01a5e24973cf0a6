r"""Piecewise-linear embeddings: how far a number has come through each bin of its column.

.. math:: e_j(x) = 2 \min(1, \max(0, (x - a_j) / (a_{j+1} - a_j))) - 1

A network that reads them beside x itself fits bends and steps of single columns at once.

References:
    On Embeddings for Numerical Features in Tabular Deep Learning (Gorishniy, Rubachev, Babenko,
    2022).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hilbound.estimators.frames import Floats


@dataclass(frozen=True)
class Embedding:
    """Bins of all columns, one after the other.

    Attributes:
        column: Which column each bin cuts, with shape ``(E,)``.
        start: Where each bin begins, with shape ``(E,)``.
        width: How wide it is, with shape ``(E,)``.
    """

    column: Tensor
    start: Tensor
    width: Tensor

    @classmethod
    def learn(cls, x: Floats, bins: int) -> "Embedding":
        """Cut every column of ``x``, with shape ``(n, p)``, at its quantiles.

        Columns with two values, for which a line is all there is, get no bin.
        """
        column, start, width = [], [], []
        for j, values in enumerate(x.T):
            edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)))
            if len(edges) > 2:
                column += [j] * (len(edges) - 1)
                start += edges[:-1].tolist()
                width += np.diff(edges).tolist()
        single = torch.float32
        return cls(
            torch.tensor(column, dtype=torch.long),
            torch.tensor(start, dtype=single),
            torch.tensor(width, dtype=single),
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``x``, with shape ``(n, p)``, and its embeddings beside it.

        >>> bins = Embedding.learn(np.array([[0.0], [1.0], [2.0]]), 2)
        >>> bins(torch.tensor([[0.5]]))
        tensor([[ 0.5000,  0.0000, -1.0000]])
        """
        through = (x[:, self.column] - self.start).div_(self.width).clamp_(0, 1)
        return torch.cat([x, through.mul_(2).sub_(1)], 1)
