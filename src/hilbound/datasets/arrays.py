"""NumPy's own files: one array (``.npy``) or several by name (``.npz``).

Files with pickled Python objects are refused, because unpickling a file runs its code. Headers are
read first: what they claim is compared with the bytes that are there. Only those arrays of an
archive are read that are used.
"""

import io
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any, NamedTuple, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hilbound.datasets.base import RawTable
from hilbound.datasets.checks import encode_labels
from hilbound.datasets.claims import (
    damaged,
    file_size,
    most_inflated,
    require_present,
    require_room,
)
from hilbound.errors import DataError, InputError
from hilbound.registry import suggest

# More than numpy itself takes for a header.
_HEADER = 1 << 14
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Spec(NamedTuple):
    """What the header of an array says of it."""

    shape: tuple[int, ...]
    dtype: "np.dtype[Any]"

    @property
    def size(self) -> int:
        """The number of values."""
        return prod(self.shape)


Specs: TypeAlias = Mapping[str, Spec]

POINT_KEYS = ("x", "features", "data", "images")
LABEL_KEYS = ("y", "labels")


def read_npy(path: Path, label_column: str | None = None) -> RawTable:
    """Read the points from a ``.npy`` file.

    Raises:
        DataError: If the file is damaged or holds Python objects.
        InputError: If ``label_column`` is given. An array has no named columns.
    """
    if label_column is not None:
        raise InputError(
            f"--label-column {label_column!r}: a .npy file has no named columns; save the points "
            "as 'x' and the labels as 'y' in a .npz file"
        )
    size = file_size(path)
    with _reading(path, ".npy"), path.open("rb") as file:
        spec, start = _read_spec(file)
        _refuse_objects(spec, str(path))
        _check(spec, size - start, str(path))
        file.seek(0)
        return RawTable(np.lib.format.read_array(file, allow_pickle=False))


def read_npz(path: Path, label_column: str | None = None) -> RawTable:
    """Read points and labels from a ``.npz`` file.

    The points are the array called ``x``, ``features``, ``data`` or ``images``, or else the only
    array of floats. The labels are the array that ``label_column`` names, or else an array of
    integers called ``y`` or ``labels``. An array of floats with such a name is the target of a
    regression and is ignored.

    Raises:
        DataError: If the file is damaged, holds Python objects, or several arrays could be meant.
        InputError: If no array is called ``label_column``.
    """
    with _Archive(path) as archive:
        specs = archive.specs
        key = _label_key(path, specs, label_column)
        points = _only_points(path, {name: spec for name, spec in specs.items() if name != key})
        if key is None:
            return RawTable(archive.read(points))
        if specs[key].dtype.kind not in "iubU":
            raise DataError(
                f"{path}: labels {key!r} of type {specs[key].dtype}, where integers or text are "
                "needed"
            )
        values, labels = archive.read(points), archive.read(key)
    rows = len(values) if values.ndim else 0
    numbers, names = encode_labels(labels, rows, f"{path}, {key!r}")
    return RawTable(values, numbers, class_names=names)


def read_archive(path: Path, wanted: Collection[str]) -> dict[str, NDArray[Any]]:
    """Read arrays by name from a ``.npz`` file.

    Raises:
        DataError: If the file is missing or damaged, holds Python objects, or lacks an array.
    """
    with _Archive(path) as archive:
        lacking = set(wanted) - set(archive.specs)
        if lacking:
            raise DataError(
                f"{path}: no array {', '.join(sorted(lacking))} in {_listed(archive.specs)}"
            )
        return {name: archive.read(name) for name in wanted}


class _Archive:
    """A ``.npz`` file whose headers were read, and compared with what is there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        size = file_size(path)
        with _reading(path, ".npz"):
            self.zip = zipfile.ZipFile(path)
            try:
                self.members = {
                    info.filename.removesuffix(".npy"): info
                    for info in self.zip.infolist()
                    if info.filename.endswith(".npy")
                }
                self.specs = {name: self._spec(name, size) for name in self.members}
            except BaseException:
                self.zip.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.zip.close()

    def _spec(self, name: str, size: int) -> Spec:
        info, source = self.members[name], f"{self.path}, {name!r}"
        packed = {zipfile.ZIP_STORED: info.compress_size}
        packed[zipfile.ZIP_DEFLATED] = most_inflated(info.compress_size)
        if info.compress_type not in packed:
            raise DataError(f"{source}: packed in a way that numpy does not write: save it anew")
        require_present(info.compress_size, size, source)
        require_present(info.file_size, packed[info.compress_type], source)
        with self.zip.open(info) as member:
            spec, start = _read_spec(member)
        if not spec.dtype.hasobject:  # what nobody asks for may hold objects
            _check(spec, info.file_size - start, source)
        return spec

    def read(self, name: str) -> NDArray[Any]:
        """Return an array."""
        _refuse_objects(self.specs[name], str(self.path))
        with _reading(self.path, ".npz"), self.zip.open(self.members[name]) as member:
            content = np.lib.format.read_array(member, allow_pickle=False)
            member.read(1)  # at the end, the checksum is compared
            return content


def _read_spec(file: IO[bytes]) -> tuple[Spec, int]:
    """Return what a header says, and its length."""
    # A header of two gigabytes would be made room for.
    head = io.BytesIO(file.read(_HEADER))
    version = np.lib.format.read_magic(head)
    if version not in _READERS:
        raise ValueError(f"version {version} of the format, which holds no plain numbers")
    shape, _, dtype = _READERS[version](head)
    if any(side < 0 for side in shape):
        raise ValueError(f"shape {shape}")
    return Spec(shape, dtype), head.tell()


def _refuse_objects(spec: Spec, source: str) -> None:
    if spec.dtype.hasobject:
        raise DataError(
            f"{source}: holds Python objects, which are not read because unpickling runs code: "
            "save numbers, as in np.save(path, np.asarray(x, dtype=float))"
        )


def _check(spec: Spec, present: int, source: str) -> None:
    if spec.dtype.itemsize == 0:
        raise DataError(f"{source}: values of no size ({spec.dtype}): save numbers")
    require_present(spec.size * spec.dtype.itemsize, present, source)
    # Numbers become float64.
    require_room(spec.size * max(spec.dtype.itemsize, 8), source)


@contextmanager
def _reading(path: Path, suffix: str) -> Iterator[None]:
    """Refuse a file of another kind, and turn whatever numpy raises into a DataError."""
    remedy = f"a damaged or truncated {suffix} file, or not one at all: save it again"
    with damaged(path, "an empty file" if file_size(path) == 0 else remedy):
        with path.open("rb") as file:
            start = file.read(6)
        if start.startswith({".npy": b"PK\x03\x04", ".npz": b"\x93NUMPY"}[suffix]):
            raise DataError(
                f"{path}: not what its name says, a {suffix} file: np.save writes .npy, np.savez "
                ".npz"
            )
        yield


def _label_key(path: Path, arrays: Specs, label_column: str | None) -> str | None:
    if label_column is not None:
        if label_column not in arrays:
            raise InputError(
                f"--label-column {label_column!r}: {suggest(label_column, arrays)}{path} holds "
                f"{_listed(arrays)}"
            )
        return label_column
    keys = [key for key in LABEL_KEYS if key in arrays and arrays[key].dtype.kind in "iu"]
    if len(keys) > 1:
        raise DataError(
            f"{path}: labels could be any of {', '.join(keys)} in {_listed(arrays)}: name one with "
            "--label-column, or save only one"
        )
    return keys[0] if keys else None


def _only_points(path: Path, arrays: Specs) -> str:
    named = [key for key in POINT_KEYS if key in arrays]
    found = named or [key for key, array in arrays.items() if array.dtype.kind == "f"]
    if len(found) != 1:
        raise DataError(
            f"{path}: {len(found)} arrays could be the points in {_listed(arrays)}: save exactly "
            f"one called {', '.join(POINT_KEYS[:-1])} or {POINT_KEYS[-1]}, or one of floats"
        )
    return found[0]


def _listed(arrays: Specs) -> str:
    listed = ", ".join(f"{name} {array.shape} {array.dtype}" for name, array in arrays.items())
    return listed or "no arrays"
