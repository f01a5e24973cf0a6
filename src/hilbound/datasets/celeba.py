"""CelebA from its official files: aligned faces, their partition and their attributes.

References:
    Z. Liu, P. Luo, X. Wang and X. Tang, "Deep Learning Face Attributes in the Wild", 2015.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from hilbound.datasets.base import Dataset, data_root
from hilbound.datasets.gallery import Gallery
from hilbound.datasets.options import PLAIN, ImageOptions
from hilbound.datasets.pixels import file_reader
from hilbound.datasets.splits import Split
from hilbound.errors import DataError, InputError
from hilbound.registry import suggest

IMAGES, PARTITION = "img_align_celeba", "list_eval_partition.txt"
ATTRIBUTES = "list_attr_celeba.txt"
IMAGE_SIZE, CROP = 64, 148
VALIDATION_ROWS = 5_000


def load_celeba(
    *, root: str | Path | None, seed: int, samples: int | None, options: ImageOptions = PLAIN
) -> Dataset:
    """Load CelebA: the central 148 by 148 of 178 by 218 pixels, resized to 64 by 64.

    The splits are those of the official partition, each in a random order. 5,000
    validation images are used. ``label_column`` makes an attribute such as ``Smiling`` the label,
    with the classes ``not-Smiling`` and ``Smiling``.

    The folder ``img_align_celeba`` and the two lists are looked for in ``root``, or else in the
    folder that ``HILBOUND_DATA`` names. They may lie directly in it or in its sub-folder
    ``celeba``, and there also in the published sub-folders ``Img``, ``Eval`` and ``Anno``.

    Raises:
        DataError: If files are missing or damaged, or the rows do not fit into memory.
        InputError: If an option does not apply here, or there is no such attribute or class.
    """
    options.allow("celeba", "image_size", "crop", "grayscale", "classes", "label_column")
    if options.classes and options.label_column is None:
        raise InputError(
            f"classes={','.join(options.classes)!r}: the classes of CelebA are those of an "
            "attribute: name it with label_column, such as Smiling"
        )
    size, crop = options.image_size or IMAGE_SIZE, options.crop or CROP
    options = replace(options, image_size=size, crop=crop)
    base = data_root(root)
    folder, listed = _find(base, IMAGES), _find(base, PARTITION)
    names, parts = _read_partition(listed)
    _check_images(folder, names, listed)
    labels, class_names = _labels(base, options.label_column, names)
    read, shape = file_reader([folder / name for name in names], options)
    split = _split(parts, torch.Generator().manual_seed(seed))
    gallery = Gallery("celeba", read, shape, labels, class_names)
    return gallery.dataset(split, options, samples)


def is_there(root: str | Path | None = None) -> bool:
    """Whether :func:`load_celeba` can find the images and their partition."""
    try:
        return all(_find(data_root(root), name).exists() for name in (IMAGES, PARTITION))
    except DataError:
        return False


def _find(base: Path | None, name: str) -> Path:
    folders = [] if base is None else [base / "celeba", base]
    for folder in folders:
        for path in (folder / part / name for part in ("", "Img", "Eval", "Anno")):
            if path.exists():
                return path
    looked = f"in {' or '.join(map(str, folders))}" if folders else "anywhere"
    unset = "" if folders else " HILBOUND_DATA is not set and no root was given."
    raise DataError(
        f"CelebA: {name} not found {looked}.{unset} Put the folder {IMAGES} (unpacked from "
        f"{IMAGES}.zip), {PARTITION} and, for labels, {ATTRIBUTES} into "
        f"{folders[0] if folders else 'a folder'}, or set HILBOUND_DATA to the folder that holds "
        "them. Nothing is downloaded."
    )


def _read_lines(path: Path) -> list[list[str]]:
    """Return the fields of all lines that are not empty."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return [line.split() for line in lines if line.strip()]


def _read_partition(path: Path) -> tuple[list[str], Tensor]:
    """Return the names of all images, and 0, 1 or 2 for each with shape ``(n,)``."""
    lines = _read_lines(path)
    for number, fields in enumerate(lines, 1):
        if len(fields) != 2 or fields[1] not in {"0", "1", "2"}:
            raise DataError(
                f"{path}: line {number} is {' '.join(fields)!r}, where the name of an image and 0 "
                "(train), 1 (validation) or 2 (test) are expected: fetch the file again"
            )
    names = [fields[0] for fields in lines]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: some images are listed twice: fetch the file again")
    return names, torch.tensor([int(fields[1]) for fields in lines])


def _check_images(folder: Path, names: list[str], listed: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: unpack {IMAGES}.zip there")
    there = {path.name for path in folder.iterdir()}
    missing = [name for name in names if name not in there]
    if missing or not names:
        raise DataError(
            f"{folder}: {len(missing)} of the {len(names)} images that {listed} lists are missing"
            f"{f', the first is {missing[0]}' if missing else ''}: unpack {IMAGES}.zip again"
        )


def _labels(
    base: Path | None, attribute: str | None, names: list[str]
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Return 1 for images with the attribute and 0 for others, shape ``(n,)``, and the classes."""
    if attribute is None:
        return None, ()
    path = _find(base, ATTRIBUTES)
    values = _read_attribute(path, attribute)
    missing = [name for name in names if name not in values]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} images have no attributes, the first is {missing[0]}: fetch "
            "the file again"
        )
    return torch.tensor([values[name] for name in names]), (f"not-{attribute}", attribute)


def _read_attribute(path: Path, attribute: str) -> dict[str, int]:
    """Map the names of images to 0 or 1.

    The file has a line with the number of images, one with the names of the attributes, and then
    a line of values -1 or 1 for each image.
    """
    lines = _read_lines(path)
    known = lines[1] if len(lines) > 1 else []
    if attribute not in known:
        raise InputError(
            f"label_column={attribute!r}: {suggest(attribute, known)}the attributes in {path} are "
            f"{', '.join(known) or 'none'}"
        )
    column = 1 + known.index(attribute)
    for number, fields in enumerate(lines[2:], 3):
        if len(fields) != 1 + len(known) or fields[column] not in {"-1", "1"}:
            raise DataError(
                f"{path}: line {number} does not hold the name of an image and {len(known)} values "
                "of -1 or 1: fetch the file again"
            )
    return {fields[0]: int(fields[column] == "1") for fields in lines[2:]}


def _split(parts: Tensor, generator: torch.Generator) -> Split:
    rows = torch.randperm(len(parts), generator=generator)
    train, validation, test = (rows[parts[rows] == part] for part in range(3))
    return Split(train, validation[:VALIDATION_ROWS], test)
