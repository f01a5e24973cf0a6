"""Random splits: three sets of row numbers without common rows.

A seeded permutation of ``0, ..., n - 1`` is cut into validation, test and training rows, in this
order. For a stratified split, the classes are interleaved first. With the same seed, a smaller
training set is therefore a subset of a larger one, and the validation and test rows do not depend
on the size of the training set.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hilbound.config import HELD_OUT
from hilbound.datasets.base import Parts
from hilbound.errors import DataError, InputError

MINIMUM_ROWS = 10


class Split(NamedTuple):
    """Row numbers of the three splits, each a 1-D int64 tensor."""

    train: Tensor
    validation: Tensor
    test: Tensor

    def take(self, x: Tensor) -> Parts:
        """Return the training, validation and test rows of ``x`` with shape ``(n, ...)``."""
        return x[self.train], x[self.validation], x[self.test]

    def only(self, labels: Tensor, classes: Sequence[int]) -> "Split":
        """Keep the rows of some classes. ``labels`` with shape ``(n,)`` are those of all rows."""
        wanted = torch.isin(labels, torch.tensor(classes))
        return Split(*(rows[wanted[rows]] for rows in self))

    def limit(self, samples: int | None) -> "Split":
        """Keep the first ``samples`` training rows."""
        return self._replace(train=self.train[:samples])


def split_rows(
    n: int,
    *,
    generator: torch.Generator,
    validation_fraction: float = HELD_OUT,
    test_fraction: float = HELD_OUT,
    samples: int | None = None,
    labels: Tensor | None = None,
) -> Split:
    """Split ``n`` rows at random. Every split gets at least one row.

    Args:
        n: The number of rows.
        generator: The source of the permutation.
        validation_fraction: Share of the rows for validation, in (0, 1).
        test_fraction: Share of the rows for testing, in (0, 1).
        samples: Keep at most this many training rows.
        labels: Class numbers with shape ``(n,)``, or ``None``. With labels the split is
            stratified: all classes are split in the same proportions, and the first training rows
            hold them in these proportions, too.

    Raises:
        DataError: If there are fewer than ten rows.
        InputError: If the fractions are out of range or leave no row to train on.

    >>> train, validation, test = split_rows(20, generator=torch.Generator().manual_seed(0))
    >>> len(train), len(validation), len(test)
    (16, 2, 2)
    """
    check_fractions(validation_fraction, test_fraction)
    if n < MINIMUM_ROWS:
        raise DataError(
            f"{n} row{'s' if n != 1 else ''} of data, at least {MINIMUM_ROWS} are needed to train, "
            "validate and test: add rows"
        )
    held = [max(1, round(n * fraction)) for fraction in (validation_fraction, test_fraction)]
    if sum(held) >= n:
        raise InputError(
            f"validation_fraction={validation_fraction} and test_fraction={test_fraction} take all "
            f"{n} rows and leave none to train on: choose smaller fractions"
        )
    rows = torch.randperm(n, generator=generator)
    if labels is not None:
        rows = rows[_interleave(labels[rows])]
    validation, test, train = torch.tensor_split(rows, [held[0], sum(held)])
    return Split(train[:samples], validation, test)


def _interleave(labels: Tensor) -> Tensor:
    """Return an order in which every prefix holds about the same share of every class.

    Row j of the m rows of a class gets the position (j + 1/2) / m, and rows are sorted by position.
    """
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        own = (labels == label).nonzero().squeeze(1)
        place[own] = (torch.arange(len(own), dtype=torch.float64) + 0.5) / len(own)
    return place.argsort(stable=True)


def check_fractions(validation_fraction: float, test_fraction: float) -> None:
    """Refuse fractions outside (0, 1) and fractions that sum to 1 or more.

    Raises:
        InputError: If there are any. The message names the fraction, its value and the range.
    """
    pairs = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    for name, fraction in pairs.items():
        if not 0 < fraction < 1:
            raise InputError(f"{name}={fraction} must lie strictly between 0 and 1, such as 0.1")
    if validation_fraction + test_fraction >= 1:
        raise InputError(
            f"validation_fraction={validation_fraction} and test_fraction={test_fraction} sum to "
            "1 or more and leave no row to train on: choose smaller fractions"
        )
