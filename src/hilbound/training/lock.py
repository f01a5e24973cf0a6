"""A lock on a run folder: two trainings that write into one would leave parts of either."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hilbound.errors import InputError

#: The name of the file that a training holds open.
LOCK = ".lock"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other trainings out of a run folder, which is made if it is missing.

    The system lets go of the lock however the process ends, so that none is left behind.

    Raises:
        InputError: If another training is writing there, or the folder cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        # A stranger's folder may hold a link of this name, to a file that would be emptied.
        handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        file = os.fdopen(handle, "w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"output {str(path)!r} cannot be written: {error.strerror}") from None
    with file:
        if not _take(file):
            raise InputError(
                f"another training is writing into {str(path)!r}: wait for its end, or choose "
                "another folder (--output)"
            )
        try:
            yield
        finally:
            (path / LOCK).unlink(missing_ok=True)


def _take(file: IO[str]) -> bool:
    """Whether the file was free; where a system or a disk knows no locks, it always is."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
