"""A data set: three splits that never mix, and what is known about them.

Every loader returns a :class:`Dataset`. Points are rows of float32 tensors with shape ``(n, d)``;
an image keeps its ``image_shape`` beside the flat rows, so that objectives see vectors and pictures
can be drawn. A table's values may be standardised: then the :class:`Standardization`, learned from
the training rows alone, leads back to the user's own units.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hilbound.datasets.options import ImageOptions

Parts: TypeAlias = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Standardization:
    """The affine map between a table's own units and the standardised ones.

    Both tensors are float64, and so are the results: a column far from zero (a year, a time stamp)
    would lose its digits in float32.

    Args:
        offset: Training mean of every column, with shape ``(d,)``.
        scale: Training standard deviation of every column, with shape ``(d,)``.
    """

    offset: Tensor
    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Map the user's units with shape ``(n, d)`` to standardised ones."""
        return (x - self.offset) / self.scale

    def inverse(self, z: Tensor) -> Tensor:
        """Map standardised values with shape ``(n, d)`` back to the user's units."""
        return z * self.scale + self.offset


# One set of rows is itself and no other: comparing tensors has no single answer.
@dataclass(frozen=True, eq=False)
class Dataset:
    """Training, validation and test rows with what a report wants to know about them.

    Args:
        name: The name or the path that the user typed.
        train: Training rows with shape ``(n, d)``, float32.
        validation: Rows for choosing and stopping, never trained on.
        test: Rows for the final figures, never trained on or chosen by.
        train_labels: Class numbers with shape ``(n,)``, int64, or ``None`` without labels.
        validation_labels: Likewise for the validation rows.
        test_labels: Likewise for the test rows.
        image_shape: ``(channels, height, width)`` of the flat rows, or ``None`` for vectors.
        log_density: The true log density, from rows ``(n, d)`` to ``(n,)``, where there is one.
        columns: Names of the columns of a table.
        standardization: How the rows were standardised, or ``None`` if they are as they came.
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    train_labels: Tensor | None = None
    validation_labels: Tensor | None = None
    test_labels: Tensor | None = None
    image_shape: tuple[int, int, int] | None = None
    log_density: Callable[[Tensor], Tensor] | None = None
    columns: tuple[str, ...] | None = None
    standardization: Standardization | None = None

    @classmethod
    def from_parts(
        cls,
        name: str,
        rows: Parts,
        labels: Parts | None = None,
        *,
        image_shape: tuple[int, int, int] | None = None,
        columns: tuple[str, ...] | None = None,
        standardization: Standardization | None = None,
    ) -> "Dataset":
        """Gather the training, validation and test parts, in this order, of rows and labels."""
        train_labels, validation_labels, test_labels = labels or (None, None, None)
        return cls(
            name,
            *rows,
            train_labels=train_labels,
            validation_labels=validation_labels,
            test_labels=test_labels,
            image_shape=image_shape,
            columns=columns,
            standardization=standardization,
        )

    @property
    def dim(self) -> int:
        """The number of coordinates ``d`` of a row."""
        return self.train.shape[1]

    @property
    def classes(self) -> int | None:
        """The number of classes, or ``None`` without labels."""
        return None if self.train_labels is None else int(self.train_labels.max()) + 1

    def to_user_units(self, x: Tensor) -> Tensor:
        """Undo the standardisation of rows with shape ``(n, d)``."""
        return x if self.standardization is None else self.standardization.inverse(x)


class RawTable(NamedTuple):
    """What a file holds, before it is checked, split and scaled.

    Args:
        values: Points with shape ``(n,)``, ``(n, d)``, ``(n, h, w)`` or ``(n, c, h, w)``.
        labels: Class numbers with shape ``(n,)``, or ``None``.
        columns: Names of the ``d`` columns, or ``None`` where the file has none.
    """

    values: NDArray[Any]
    labels: NDArray[np.int64] | None = None
    columns: tuple[str, ...] | None = None


class Loader(Protocol):
    """What a registered data set is: a function from a folder, a seed and a size to a data set."""

    def __call__(
        self, *, root: str | Path | None, seed: int, samples: int | None, options: ImageOptions
    ) -> Dataset:
        """Load the data set: ``root`` is where its files lie, ``samples`` the training rows."""
        ...


def data_root(root: str | Path | None = None) -> Path | None:
    """Return ``root``, else the folder in ``HILBOUND_DATA``, else ``None``.

    >>> data_root("data").name
    'data'
    """
    folder = root if root is not None else os.environ.get("HILBOUND_DATA")
    return Path(folder).expanduser() if folder else None
