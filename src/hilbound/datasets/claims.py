"""What a file claims to hold, against the bytes that are there and the memory of the machine.

A few bytes can claim gigabytes: in the header of an array, in an archive, in a compressed stream.
Readers compare first and make arrays afterwards. What they refuse is a
:class:`~hilbound.errors.DataError`.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hilbound.engine.memory import room_for_data
from hilbound.errors import DataError, InputError

# No stream of deflate (gzip, zip, PNG) grows by more.
_DEFLATE = 1032
_CHUNK = 1 << 20


def most_inflated(size: int) -> int:
    """Return the most bytes that ``size`` bytes of deflate can hold.

    >>> most_inflated(100)
    104224
    """
    return _DEFLATE * size + 1024


def require_present(claimed: int, present: int, source: str) -> None:
    """Refuse a file that claims to hold more than is there.

    Args:
        claimed: Bytes that its header speaks of.
        present: The most bytes that can be there.
        source: What to call it in the message.

    Raises:
        DataError: If it does.

    >>> require_present(10**9, 136, "x.npy")
    Traceback (most recent call last):
        ...
    hilbound.errors.DataError: x.npy: damaged or truncated, its header speaks of 1,000,000,000 \
bytes and there are at most 136: save or fetch it again
    """
    if claimed > present:
        raise DataError(
            f"{source}: damaged or truncated, its header speaks of {claimed:,} bytes and there are "
            f"at most {present:,}: save or fetch it again"
        )


def require_room(needed: int, source: str, remedy: str = "take a part of it") -> None:
    """Refuse data that would take more than a quarter of the memory.

    Args:
        needed: Bytes that they take when read.
        source: What to call them in the message.
        remedy: What to do.

    Raises:
        DataError: If they would.
    """
    room = room_for_data()
    if room is not None and needed > room:
        raise DataError(
            f"{source}: takes {needed / 1e9:.1f} GB when read, more than a quarter of the memory "
            f"({room / 1e9:.1f} GB): {remedy}"
        )


def file_size(path: Path) -> int:
    """Return the size of a regular file. A pipe or a device would never end.

    Raises:
        DataError: If it is missing, or something else than a file.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}") from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} cannot be read: it is no regular file")
    return found.st_size


def read_some(stream: IO[bytes], most: int) -> bytes:
    """Read at most so many bytes, making room only as they come.

    >>> import io
    >>> read_some(io.BytesIO(b"abc"), 10**15)
    b'abc'
    """
    content = bytearray()
    while len(content) < most:
        part = stream.read(min(_CHUNK, most - len(content)))
        if not part:
            break
        content += part
    return bytes(content)


@contextmanager
def damaged(source: Path | str, remedy: str) -> Iterator[None]:
    """Turn whatever a parser raises inside a ``with`` block into a DataError.

    Parsers of other projects raise almost anything on a damaged file.

    Args:
        source: What to call the file in the message.
        remedy: What it is and what to do.

    Raises:
        DataError: If anything but an InputError was raised.

    >>> with damaged("x.png", "no picture: replace it"):
    ...     {}["IHDR"]
    Traceback (most recent call last):
        ...
    hilbound.errors.DataError: x.png: no picture: replace it ('IHDR')
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise DataError(f"{source}: does not fit into memory: {remedy}") from error
    except Exception as error:
        raise DataError(f"{source}: {remedy} ({error})") from error
