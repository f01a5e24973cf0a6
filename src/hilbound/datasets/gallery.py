"""From images that are not decoded yet to a data set. Only the images that are used are decoded."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from hilbound.datasets.base import Dataset, Parts
from hilbound.datasets.options import ImageOptions
from hilbound.datasets.pixels import Reader, Shape
from hilbound.datasets.splits import Split
from hilbound.engine.memory import machine_memory
from hilbound.errors import DataError

log = logging.getLogger(__name__)

_MEMORY_SHARE = 0.25  # for the rows, because training and the metrics hold copies of them
_GREY_ROWS = 256


@dataclass(frozen=True)
class Gallery:
    """Images by number, and facts about them.

    Args:
        name: The name or the path that the user typed.
        read: The function that makes rows of image numbers.
        shape: ``(channels, height, width)`` of an image as it is read.
        labels: Class numbers of all images with shape ``(n,)``, or ``None``.
        class_names: The names of the classes.
    """

    name: str
    read: Reader
    shape: Shape
    labels: Tensor | None = None
    class_names: Sequence[str] = ()

    def dataset(self, split: Split, options: ImageOptions, samples: int | None) -> Dataset:
        """Return the rows of a split: only the wanted classes, at most ``samples`` to train on.

        Raises:
            InputError: If there is no such class.
            DataError: If the rows do not fit into memory, or a split of the classes is empty.
        """
        classes = options.chosen(self.class_names, self.name)
        if classes is not None and self.labels is not None:
            split = split.only(self.labels, classes)
        split = split.limit(samples)
        self._check_split(split, options)
        check_memory(sum(map(len, split)), self.shape, self.name)
        rows = self.read(split.train), self.read(split.validation), self.read(split.test)
        _notice_grey(rows[0], self.shape, self.name)
        labels = self._labels(split, classes)
        return Dataset.from_parts(
            self.name,
            rows,
            labels,
            image_shape=self.shape,
            class_names=self._names(classes) if labels is not None else None,
        )

    def _names(self, classes: tuple[int, ...] | None) -> tuple[str, ...] | None:
        if classes is None:
            return tuple(self.class_names) or None
        return tuple(self.class_names[number] for number in classes)

    def _labels(self, split: Split, classes: tuple[int, ...] | None) -> Parts | None:
        if self.labels is None:
            return None
        labels = self.labels
        if classes is not None:
            labels = torch.searchsorted(torch.tensor(classes), labels)
        return split.take(labels)

    def _check_split(self, split: Split, options: ImageOptions) -> None:
        for part, rows in split._asdict().items():
            if len(rows) == 0:
                of = f" of classes={','.join(options.classes)}" if options.classes else ""
                raise DataError(f"{self.name}: no {part} image{of}: add images, or classes")


def _notice_grey(rows: Tensor, shape: Shape, source: str) -> None:
    """Log a notice if images with three channels are grey."""
    first = rows[:_GREY_ROWS].unflatten(1, shape)
    if shape[0] == 3 and bool((first == first[:, :1]).all()):
        log.warning(
            "%s: the first %d training images are grey: grayscale would make their rows a third as "
            "long",
            source,
            len(first),
        )


def check_memory(images: int, shape: Shape, source: str) -> None:
    """Refuse rows that would take more than a quarter of the machine's memory.

    Raises:
        DataError: If they would. The message says how much they would take and how to reduce it.

    >>> check_memory(1000, (1, 28, 28), "digits")
    """
    needed, memory = 4 * images * prod(shape), machine_memory()
    if memory is not None and needed > _MEMORY_SHARE * memory:
        raise DataError(
            f"{source}: {images} images of shape {shape} make {needed / 1e9:.1f} GB of float32 "
            f"rows, more than a quarter of this machine's {memory / 1e9:.1f} GB of memory: take "
            "fewer to train on with samples, smaller ones with image_size, or grey ones with "
            "grayscale"
        )
