"""A data set: three splits without common rows, and facts about them.

Every loader returns a :class:`Dataset`. Points are rows of float32 tensors with shape ``(n, d)``.
Images are flat rows, too, and ``image_shape`` says how to draw them. The values of a table may be
standardised. Then the :class:`Standardization`, computed from the training rows only, converts
values back to the user's units.
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

    Both tensors are float64, and so are the results. In float32, a column far from zero (a year, a
    time stamp) would lose digits.

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


# Data sets are compared by identity, because == on tensors gives a tensor, not a truth value.
@dataclass(frozen=True, eq=False)
class Dataset:
    """Training, validation and test rows, and the facts about them that a report needs.

    Args:
        name: The name or the path that the user typed.
        train: Training rows with shape ``(n, d)``, float32.
        validation: Rows for choosing options and for early stopping. They are never trained on.
        test: Rows for final results. They are used neither to train nor to choose.
        train_labels: Class numbers with shape ``(n,)``, int64, or ``None`` without labels.
        validation_labels: The same for the validation rows.
        test_labels: The same for the test rows.
        image_shape: ``(channels, height, width)`` of the flat rows, or ``None`` for vectors.
        class_names: The names of the classes in the order of their numbers, or ``None`` if they
            have none.
        log_density: The true log density, which maps rows ``(n, d)`` to ``(n,)``, if it is known.
        columns: Names of the columns of a table.
        standardization: How the rows were standardised, or ``None`` if they are as they came.
        whole: Positions of the columns that hold whole numbers only.
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    train_labels: Tensor | None = None
    validation_labels: Tensor | None = None
    test_labels: Tensor | None = None
    image_shape: tuple[int, int, int] | None = None
    class_names: tuple[str, ...] | None = None
    log_density: Callable[[Tensor], Tensor] | None = None
    columns: tuple[str, ...] | None = None
    standardization: Standardization | None = None
    whole: tuple[int, ...] = ()

    @classmethod
    def from_parts(
        cls,
        name: str,
        rows: Parts,
        labels: Parts | None = None,
        *,
        image_shape: tuple[int, int, int] | None = None,
        class_names: tuple[str, ...] | None = None,
        columns: tuple[str, ...] | None = None,
        standardization: Standardization | None = None,
        whole: tuple[int, ...] = (),
    ) -> "Dataset":
        """Make a data set from the parts of rows and labels: training, validation, test."""
        train_labels, validation_labels, test_labels = labels or (None, None, None)
        return cls(
            name,
            *rows,
            train_labels=train_labels,
            validation_labels=validation_labels,
            test_labels=test_labels,
            image_shape=image_shape,
            class_names=class_names,
            columns=columns,
            standardization=standardization,
            whole=whole,
        )

    @property
    def dim(self) -> int:
        """The number of coordinates ``d`` of a row."""
        return self.train.shape[1]

    @property
    def classes(self) -> int | None:
        """The number of classes, or ``None`` without labels."""
        if self.train_labels is None:
            return None
        # By their names where they have some, because a class may have no training row.
        return len(self.class_names or ()) or int(self.train_labels.max()) + 1

    def split(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Return the rows and the labels of ``"train"``, ``"validation"`` or ``"test"``."""
        return getattr(self, name), getattr(self, f"{name}_labels")

    def to_user_units(self, x: Tensor) -> Tensor:
        """Undo the standardisation of rows with shape ``(n, d)``."""
        return x if self.standardization is None else self.standardization.inverse(x)

    def from_user_units(self, x: Tensor) -> Tensor:
        """Standardise rows with shape ``(n, d)`` as the data were."""
        return x if self.standardization is None else self.standardization.forward(x)


class RawTable(NamedTuple):
    """The content of a file, before it is checked, split and scaled.

    Args:
        values: Points with shape ``(n,)``, ``(n, d)``, ``(n, h, w)`` or ``(n, c, h, w)``.
        labels: Class numbers with shape ``(n,)``, or ``None``.
        columns: Names of the ``d`` columns, or ``None`` where the file has none.
        class_names: Names of the classes, or ``None`` without labels.
    """

    values: NDArray[Any]
    labels: NDArray[np.int64] | None = None
    columns: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None


class Loader(Protocol):
    """The type of a registered loader: it maps a folder, a seed and a size to a data set."""

    def __call__(
        self, *, root: str | Path | None, seed: int, samples: int | None, options: ImageOptions
    ) -> Dataset:
        """Load the data set from the folder ``root``, with at most ``samples`` training rows."""
        ...


def data_root(root: str | Path | None = None) -> Path | None:
    """Return ``root``, else the folder in ``HILBOUND_DATA``, else ``None``.

    >>> data_root("data").name
    'data'
    """
    folder = root if root is not None else os.environ.get("HILBOUND_DATA")
    return Path(folder).expanduser() if folder else None
