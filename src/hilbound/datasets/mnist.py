"""Pictures of digits: a small set that comes with scikit-learn, and MNIST from its own files.

An IDX file starts with a magic number of four bytes: two zeros, the type (8 for unsigned bytes) and
the number of dimensions. It is 2049 for labels and 2051 for images. Then come one big-endian 32-bit
size for each dimension, and the values.

References:
    Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits", 1998.
"""

import gzip
import struct
import zlib
from math import prod
from pathlib import Path
from typing import IO, cast

import numpy as np
import torch
from torch import Tensor

from hilbound.datasets.base import Dataset, data_root
from hilbound.datasets.claims import (
    file_size,
    most_inflated,
    read_some,
    require_present,
    require_room,
)
from hilbound.datasets.gallery import Gallery
from hilbound.datasets.options import PLAIN, ImageOptions
from hilbound.datasets.pixels import array_reader
from hilbound.datasets.splits import Split
from hilbound.errors import DataError

MAGIC_DIMENSIONS = {2049: 1, 2051: 3}

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)

MNIST_VALIDATION_ROWS = 5_000

CLASSES = tuple("0123456789")
_MOST_TRAILING = 1 << 20


def load_digits(
    *,
    root: str | Path | None,  # noqa: ARG001 - scikit-learn holds the files, but every loader is called alike
    seed: int,
    samples: int | None,
    options: ImageOptions = PLAIN,
) -> Dataset:
    """Load scikit-learn's 1,797 digits of 8 by 8 pixels, split 70/15/15 within every class.

    Raises:
        InputError: If an option has no meaning here, or there is no such class.

    >>> load_digits(root=None, seed=0, samples=None).image_shape
    (1, 8, 8)
    """
    # Imported here because scikit-learn takes a second, and only the digits need it.
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import train_test_split

    options.allow("digits", "classes")
    images, labels = sklearn_digits(return_X_y=True)
    train, rest = train_test_split(
        np.arange(len(labels)), train_size=0.7, stratify=labels, random_state=seed
    )
    validation, test = train_test_split(
        rest, train_size=0.5, stratify=labels[rest], random_state=seed
    )
    split = Split(*(torch.from_numpy(rows) for rows in (train, validation, test)))
    x, y = torch.from_numpy(images / 16).float(), torch.from_numpy(labels).long()
    gallery = Gallery("digits", lambda rows: x[rows], (1, 8, 8), y, CLASSES)
    return gallery.dataset(split, options, samples)


def load_mnist(
    *, root: str | Path | None, seed: int, samples: int | None, options: ImageOptions = PLAIN
) -> Dataset:
    """Load MNIST from its four IDX files, plain or gzipped, with values in [0, 1].

    The official test images are the test split. The validation split is 5,000 random training
    images. The files are looked for in ``root``, or else in the folder that ``HILBOUND_DATA``
    names. They may lie directly there or in the sub-folder ``mnist``.

    Raises:
        DataError: If a file is missing or damaged, or images and labels do not match.
        InputError: If an option does not apply here, or there is no such class.
    """
    options.allow("mnist", "image_size", "crop", "grayscale", "classes")
    paths = _find_mnist(data_root(root))
    train, labels = _read_pair(*paths[:2])
    test, test_labels = _read_pair(*paths[2:])
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"{paths[2]}: images of {tuple(test.shape[1:])} pixels, but those of {paths[0]} have "
            f"{tuple(train.shape[1:])}: use the files of one data set"
        )
    if len(train) <= MNIST_VALIDATION_ROWS:
        raise DataError(
            f"{paths[0]}: {len(train)} images, more than {MNIST_VALIDATION_ROWS} are needed, "
            "because that many are held out to validate: use the complete file"
        )
    rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    held, kept = rows[:MNIST_VALIDATION_ROWS], rows[MNIST_VALIDATION_ROWS:]
    split = Split(kept, held, torch.arange(len(test)) + len(train))
    read, shape = array_reader(torch.cat([train, test]).unsqueeze(1), options, "mnist")
    y = torch.cat([labels, test_labels]).long()
    return Gallery("mnist", read, shape, y, CLASSES).dataset(split, options, samples)


def _find_mnist(base: Path | None) -> list[Path]:
    folders = [] if base is None else [base / "mnist", base]
    found = [_find_file(name, folders) for name in MNIST_FILES]
    missing = [name for name, path in zip(MNIST_FILES, found, strict=True) if path is None]
    if missing:
        looked = " and ".join(str(folder) for folder in folders)
        raise DataError(
            f"MNIST: {', '.join(missing)} not found"
            + (f" in {looked}" if folders else ": HILBOUND_DATA is not set and no root was given")
            + f". Put the four files {', '.join(MNIST_FILES)} (plain, or with .gz) into "
            + (f"{folders[0]}" if folders else "a folder")
            + ", or set HILBOUND_DATA to the folder that holds them. Nothing is downloaded."
        )
    return [path for path in found if path is not None]


def _find_file(name: str, folders: list[Path]) -> Path | None:
    names = [folder / f"{name}{suffix}" for folder in folders for suffix in ("", ".gz")]
    return next((path for path in names if path.is_file()), None)


def _read_pair(images_path: Path, labels_path: Path) -> tuple[Tensor, Tensor]:
    images, labels = read_idx(images_path), read_idx(labels_path)
    for path, values, ndim in ((images_path, images, 3), (labels_path, labels, 1)):
        if values.ndim != ndim:
            raise DataError(
                f"{path}: {values.ndim} dimensions where {ndim} are needed: the file holds "
                f"{'images' if values.ndim == 3 else 'labels'}; were two files exchanged?"
            )
        if values.numel() == 0:
            raise DataError(f"{path}: an empty array of shape {tuple(values.shape)}")
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: {len(labels)} labels for the {len(images)} images of {images_path}: "
            "use the two files of one release"
        )
    return images, labels


def read_idx(path: str | Path) -> Tensor:
    """Read an IDX file of unsigned bytes. If its name ends in ``.gz``, it is decompressed.

    Returns:
        A uint8 tensor with shape ``(n,)`` for labels or ``(n, h, w)`` for images.

    Raises:
        DataError: If the file is missing, damaged, too short, too long or of another kind.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist")
    size = file_size(path)
    try:
        with _opened(path) as stream:
            return _read_tensor(path, stream, size)
    except EOFError as error:
        raise DataError(f"{path}: a truncated gzip file; fetch it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: a corrupt gzip file ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path))
    return path.open("rb")


def _read_tensor(path: Path, stream: IO[bytes], size: int) -> Tensor:
    content = read_some(stream, 4)
    _check_length(path, content, 4, exact=False)
    (magic,) = struct.unpack(">I", content)
    if magic not in MAGIC_DIMENSIONS:
        raise DataError(
            f"{path}: magic number {magic}, allowed are 2049 (labels) and 2051 (images): this is "
            "not an IDX file of unsigned bytes; fetch it again"
        )
    header = 4 + 4 * MAGIC_DIMENSIONS[magic]
    content += read_some(stream, header - 4)
    _check_length(path, content, header, exact=False)
    shape = struct.unpack(f">{MAGIC_DIMENSIONS[magic]}I", content[4:])
    if path.suffix == ".gz":
        require_present(prod(shape), most_inflated(size), str(path))
    elif header + prod(shape) > size:
        raise _truncated(path, f"{header + prod(shape)}", size)
    require_room(4 * prod(shape), str(path))
    values = read_some(stream, prod(shape))
    _check_length(path, content + values, header + prod(shape), exact=True, rest=stream)
    # Copied, because bytes are read-only and a tensor must be writable.
    return torch.from_numpy(np.frombuffer(values, np.uint8).reshape(shape).copy())


def _check_length(
    path: Path, content: bytes, expected: int, *, exact: bool, rest: IO[bytes] | None = None
) -> None:
    # Reading to the end of a gzip file compares its checksum; a longer rest is not counted.
    got = len(content) + (0 if rest is None else len(read_some(rest, _MOST_TRAILING)))
    if got < expected:
        raise _truncated(path, f"{'' if exact else 'at least '}{expected}", got)
    if exact and got > expected:
        raise DataError(
            f"{path}: {got - expected} trailing bytes, expected {expected} bytes, got {got}; "
            "fetch it again"
        )


def _truncated(path: Path, expected: str, got: int) -> DataError:
    return DataError(f"{path}: truncated, expected {expected} bytes, got {got}; fetch it again")
