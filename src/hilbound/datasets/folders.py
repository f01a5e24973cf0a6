"""A folder of images: flat, or with one sub-folder for each class."""

import logging
from collections import Counter
from pathlib import Path

import torch

from hilbound.config import HELD_OUT
from hilbound.datasets.base import Dataset
from hilbound.datasets.gallery import Gallery
from hilbound.datasets.options import PLAIN, ImageOptions
from hilbound.datasets.pixels import file_reader
from hilbound.datasets.splits import split_rows
from hilbound.errors import DataError

log = logging.getLogger(__name__)

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
)
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})


def load_folder(
    path: str | Path,
    *,
    seed: int = 0,
    samples: int | None = None,
    validation_fraction: float = HELD_OUT,
    test_fraction: float = HELD_OUT,
    options: ImageOptions = PLAIN,
) -> Dataset:
    """Load the images of a folder and split them at random, in equal proportions for every class.

    Sub-folders are the classes, numbered in the order of their names. Images may lie at any depth
    below them. Images directly in the folder have no class. Hidden files, and files without the
    suffix of an image, are ignored. Rows have three channels, or one with ``grayscale``. Without a
    crop or a size, all images must have the same size.

    Args:
        path: The folder.
        seed: Seed of the random split.
        samples: Train on at most this many images. The others are not decoded.
        validation_fraction: Share of the images for validation, in (0, 1).
        test_fraction: Share of the images for testing, in (0, 1).
        options: Sizes, colours and classes.

    Raises:
        DataError: If there are no images, one is damaged, or they do not fit into memory.
        InputError: If an option does not apply here, or there is no such class.
    """
    folder = Path(path).expanduser()
    options.allow(str(path), "image_size", "crop", "grayscale", "classes")
    paths, class_names = _find_images(folder)
    numbers = {name: number for number, name in enumerate(class_names)}
    labels = (
        torch.tensor([numbers[file.relative_to(folder).parts[0]] for file in paths])
        if class_names
        else None
    )
    split = split_rows(
        len(paths),
        generator=torch.Generator().manual_seed(seed),
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        labels=labels,
    )
    read, shape = file_reader(paths, options)
    return Gallery(str(path), read, shape, labels, class_names).dataset(split, options, samples)


def _find_images(folder: Path) -> tuple[list[Path], list[str]]:
    """Return all images in the order of their names, and the names of the classes."""
    paths = sorted(path for path in folder.rglob("*") if _is_image(path.relative_to(folder), path))
    counts = Counter(path.relative_to(folder).parts[0] for path in paths if path.parent != folder)
    loose = len(paths) - counts.total()
    if not paths:
        raise DataError(
            f"{folder} holds no images ({', '.join(SUFFIXES)}): put some into it, in one "
            "sub-folder for each class or without sub-folders, or name a file of a table"
        )
    if loose and counts:
        raise DataError(
            f"{folder}: {loose} images lie beside the sub-folders {', '.join(sorted(counts))}: put "
            "them into one, or name a single sub-folder"
        )
    _refuse_splits(folder, counts)
    _notice_empty(folder, counts)
    return paths, sorted(counts)


def _is_image(relative: Path, path: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in relative.parts)
    return not hidden and path.suffix.lower() in SUFFIXES and path.is_file()


def _refuse_splits(folder: Path, counts: Counter[str]) -> None:
    if counts and {name.lower() for name in counts} <= _SPLITS:
        names = sorted(counts)
        raise DataError(
            f"{folder}: the sub-folders {', '.join(names)} look like splits, not classes: name one "
            f"of them, such as {folder / names[-1]}, which is split anew"
        )


def _notice_empty(folder: Path, counts: Counter[str]) -> None:
    for path in sorted(folder.iterdir()):
        shown = not path.name.startswith(".") and path.name != "__MACOSX"
        if counts and shown and path.is_dir() and path.name not in counts:
            log.warning("%s holds no images, and is not counted as a class", path)
