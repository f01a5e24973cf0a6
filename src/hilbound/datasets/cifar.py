"""CIFAR-10 from its official binary version, packed as published or unpacked.

A batch is a sequence of records of 3,073 bytes. The first byte is the class, from 0 to 9. Then come
1,024 bytes each of red, green and blue, as 32 rows of 32 pixels. Five batches of 10,000 records are
for training and one is for testing. The archive is read in memory. Nothing is unpacked to disk or
unpickled.

References:
    A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

import gzip
import io
import logging
import re
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, cast

import numpy as np
import torch
from torch import Tensor

from hilbound.datasets.base import Dataset, data_root
from hilbound.datasets.claims import read_some
from hilbound.datasets.gallery import Gallery
from hilbound.datasets.options import PLAIN, ImageOptions
from hilbound.datasets.pixels import array_reader
from hilbound.datasets.splits import Split
from hilbound.errors import DataError

log = logging.getLogger(__name__)

ARCHIVE, FOLDER, TEST = "cifar-10-binary.tar.gz", "cifar-10-batches-bin", "test_batch.bin"
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
RECORD = 1 + 3 * 32 * 32
BATCH_RECORDS = 10_000
VALIDATION_ROWS = 5_000
_PUBLISHED = (50_000, 10_000)
# The published archive holds 184 MB.
_MOST_BYTES = 400_000_000
_BATCH = re.compile(r"data_batch_[1-5]\.bin|test_batch\.bin")
_PYTHON = ("cifar-10-python.tar.gz", "cifar-10-batches-py")
_REMEDY = "fetch the binary version again (cifar-10-binary.tar.gz, 'suitable for C programs')"


def load_cifar10(
    *, root: str | Path | None, seed: int, samples: int | None, options: ImageOptions = PLAIN
) -> Dataset:
    """Load CIFAR-10: 32 by 32 pixels in three channels, values in [0, 1].

    The official test images are the test split. The validation split is 5,000 random training
    images. If only some of the five batches are present, it is a tenth of the training images.

    The archive, or the folder ``cifar-10-batches-bin`` unpacked from it, is looked for in ``root``,
    or else in the folder that ``HILBOUND_DATA`` names. It may lie directly there or in the
    sub-folder ``cifar10``.

    Raises:
        DataError: If a file is missing or damaged, or is the pickled Python version.
        InputError: If an option does not apply here, or there is no such class.
    """
    options.allow("cifar10", "image_size", "crop", "grayscale", "classes")
    source = _find(data_root(root))
    batches = _read_folder(source) if source.is_dir() else _read_archive(source)
    names = [name for name in sorted(batches) if name != TEST]
    if not names or TEST not in batches:
        missing = TEST if names else "data_batch_1.bin"
        raise DataError(f"{source}: {missing} is missing: {_REMEDY}")
    parts = [_decode(batches[name], f"{source}, {name}") for name in (*names, TEST)]
    labels, pixels = (torch.cat(each) for each in zip(*parts, strict=True))
    test = len(parts[-1][0])
    _notice_partial(len(labels) - test, test, source)
    read, shape = array_reader(pixels, options, "cifar10")
    split = _split(len(labels) - test, test, torch.Generator().manual_seed(seed))
    return Gallery("cifar10", read, shape, labels, CLASSES).dataset(split, options, samples)


def _split(train: int, test: int, generator: torch.Generator) -> Split:
    rows = torch.randperm(train, generator=generator)
    held = min(VALIDATION_ROWS, max(1, train // 10))
    return Split(rows[held:], rows[:held], torch.arange(train, train + test))


def _find(base: Path | None) -> Path:
    folders = [] if base is None else [base / "cifar10", base]
    for folder in folders:
        for path in (folder / FOLDER, folder / ARCHIVE):
            if path.exists():
                return path
    for folder in folders:
        for path in (folder / name for name in _PYTHON):
            if path.exists():
                raise _python_version(path)
    looked = f"in {' or '.join(map(str, folders))}" if folders else "anywhere"
    unset = "" if folders else " HILBOUND_DATA is not set and no root was given."
    raise DataError(
        f"CIFAR-10: neither {ARCHIVE} nor the folder {FOLDER} found {looked}.{unset} Put the "
        f"archive into {folders[0] if folders else 'a folder'}, or set HILBOUND_DATA to the folder "
        "that holds it. Nothing is downloaded."
    )


def _python_version(source: Path | str) -> DataError:
    return DataError(
        f"{source}: the Python version of CIFAR-10, which is not read because unpickling runs "
        f"code: {_REMEDY}"
    )


def _read_folder(folder: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(folder.iterdir()) if _BATCH.fullmatch(path.name)]
    for path in paths:
        _check_size(path.stat().st_size, str(path))
    return {path.name: path.read_bytes() for path in paths}


def _read_archive(path: Path) -> dict[str, bytes]:
    try:
        # The stream is opened separately, so that its rest can be read to verify the checksum.
        with (
            gzip.open(path) as inner,
            _Capped(cast("IO[bytes]", inner)) as stream,
            tarfile.open(fileobj=stream, mode="r:") as archive,
        ):
            batches = _read_members(archive, path)
            while stream.read(1 << 20):
                pass
    except EOFError as error:
        raise DataError(f"{path}: a truncated gzip file: {_REMEDY}") from error
    except (OSError, ValueError, RecursionError, tarfile.TarError, zlib.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: a damaged archive ({error}): {_REMEDY}") from error
    return batches


class _Capped(io.RawIOBase):
    """A stream that ends with an error where it is longer than any CIFAR-10.

    A name in a tar file may claim to be gigabytes long, and a small gzip file may hold as many.
    """

    def __init__(self, inner: IO[bytes]) -> None:
        self.inner = inner

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.inner.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        self._check(offset)
        return self.inner.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        self._check(max(size, 0))
        self._check(self.inner.tell())
        return read_some(self.inner, _MOST_BYTES if size < 0 else size)

    def _check(self, size: int) -> None:
        if size > _MOST_BYTES:
            raise tarfile.ReadError(f"more than {_MOST_BYTES:,} bytes")


def _read_members(archive: tarfile.TarFile, path: Path) -> dict[str, bytes]:
    batches = {}
    for member in archive:
        name = PurePosixPath(member.name).name
        if name == "data_batch_1":
            raise _python_version(path)
        if not (member.isfile() and _BATCH.fullmatch(name)):
            continue
        _check_size(member.size, f"{path}, {name}")
        file = archive.extractfile(member)
        if file is not None:
            batches[name] = file.read()
    return batches


def _check_size(size: int, source: str) -> None:
    records, rest = divmod(size, RECORD)
    if rest or not 1 <= records <= BATCH_RECORDS:
        raise DataError(
            f"{source}: {size} bytes, where 1 to {BATCH_RECORDS} records of {RECORD} bytes are "
            f"expected: {_REMEDY}"
        )


def _decode(content: bytes, source: str) -> tuple[Tensor, Tensor]:
    """Return labels with shape ``(n,)`` and pixels with shape ``(n, 3, 32, 32)``."""
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    labels = records[:, 0].astype(np.int64)
    wrong = np.flatnonzero(labels >= len(CLASSES))
    if len(wrong):
        raise DataError(
            f"{source}: record {wrong[0] + 1} has the class {labels[wrong[0]]}, allowed are 0 to 9 "
            f"({len(wrong)} such records): {_REMEDY}"
        )
    pixels = records[:, 1:].reshape(-1, 3, 32, 32).copy()
    return torch.from_numpy(labels), torch.from_numpy(pixels)


def _notice_partial(train: int, test: int, source: Path) -> None:
    if (train, test) != _PUBLISHED:
        log.warning(
            "%s holds %d training and %d test images, where the published CIFAR-10 has %d and %d",
            source,
            train,
            test,
            *_PUBLISHED,
        )
