"""Rows divided into those a member fits and those it holds out."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Folds:
    """Which rows each member fits and holds out.

    Attributes:
        fitted: Row numbers with shape ``(members, rows)``: as many for each member.
        held: Row numbers with shape ``(members, most)``, filled up with repetitions.
        counts: How often each entry of ``held`` counts, 1 or 0, with the same shape.
    """

    fitted: Tensor
    held: Tensor
    counts: Tensor

    @classmethod
    def draw(cls, n: int, folds: int, repeats: int, generator: torch.Generator) -> "Folds":
        """Divide ``n`` rows into ``folds`` parts, ``repeats`` times anew.

        Every row is held out by one member of each repetition.

        >>> parts = Folds.draw(5, 2, 1, torch.Generator().manual_seed(0))
        >>> parts.fitted.shape, parts.counts.tolist()
        (torch.Size([2, 2]), [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
        """
        most = -(-n // folds)
        fitted, held, counts = [], [], []
        for _ in range(repeats):
            for part in torch.randperm(n, generator=generator).tensor_split(folds):
                rest = torch.ones(n, dtype=torch.bool)
                rest[part] = False
                fitted.append(rest.nonzero().squeeze(-1)[: n - most])
                held.append(torch.cat([part, part[: most - len(part)]]))
                counts.append((torch.arange(most) < len(part)).float())
        return cls(torch.stack(fitted), torch.stack(held), torch.stack(counts))

    @property
    def members(self) -> int:
        """The number of members."""
        return len(self.held)

    def gather(self, values: Tensor, n: int) -> Tensor:
        """Order what the members gave for the rows they held out by row.

        Args:
            values: With shape ``(members, most, *)``.
            n: The number of rows.

        Returns:
            Values with shape ``(n, repeats, *)``.
        """
        real = self.counts.bool()
        rows = self.held[real]
        order = torch.argsort(rows, stable=True)
        return values[real][order].view(n, -1, *values.shape[2:])
