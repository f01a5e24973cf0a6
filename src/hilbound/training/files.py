"""Files of a run folder: written whole and onto the disk, and read as if a stranger made them.

:func:`write_whole` is the one place that writes them. The content goes into a new file beside the
target, is brought onto the disk, and takes the target's name. Then the folder is brought onto the
disk, too. So if the program is killed or the power fails, the target is the old file or the new
one. A link that bears the target's name is replaced, never followed.
"""

import json
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import Any

from hilbound.errors import InputError

#: What a file is called until it is whole.
PARTIAL = ".partial"
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
# Facts, metrics and the curves of a run are far smaller.
_MOST_TEXT = 1 << 24


def write_whole(target: Path, content: str | bytes) -> Path:
    """Write the whole file or nothing. If writing fails, the former file is still there.

    Args:
        target: The file. Its folder must be there.
        content: What it shall hold; texts in UTF-8.

    Raises:
        OSError: If the disk is full, or the folder is gone or cannot be written.
    """
    beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}{PARTIAL}")
    data = content.encode() if isinstance(content, str) else content
    try:
        # Exclusively: what has this name already, such as a link, is not followed.
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError:
        # A full disk needs no half files.
        beside.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)
    return target


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder onto the disk, where the system can do so."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    except OSError:  # some file systems do not sync folders
        pass
    finally:
        os.close(handle)


def own_file(folder: Path, name: str) -> Path:
    """Return the path of a file in a run folder.

    Raises:
        InputError: If the name is a link out of the folder, or something else than a file or folder
            is there. A pipe or a device would never end.

    >>> own_file(Path("run"), "config.yaml").name
    'config.yaml'
    """
    path = folder / name
    if path.is_symlink() or (folder / "checkpoints").is_symlink():
        try:
            inside = path.resolve().is_relative_to(folder.resolve())
        except (OSError, RuntimeError):  # links in a circle
            inside = False
        if not inside:
            raise InputError(
                f"{str(path)!r} is a link out of the run folder, which is not followed: copy the "
                "file into the folder"
            )
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return path
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{str(path)!r} is no regular file: remove it")
    return path


def read_text(path: Path) -> str:
    """Read a text file of a run folder.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not text, or far larger than such a file can be.
    """
    size = path.stat().st_size
    if size > _MOST_TEXT:
        raise ValueError(f"{size:,} bytes, at most {_MOST_TEXT:,} are read")
    return path.read_text(encoding="utf-8")


def parse_json(text: str) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: If it is no JSON, or nested beyond reason.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def remove(path: Path) -> None:
    """Remove a file, a folder or a link, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def plain_cell(value: Any) -> Any:
    """Return a value for a table in which no spreadsheet finds a formula. Only texts are changed.

    A text that starts like a formula gets an apostrophe before it, as the Open Worldwide
    Application Security Project recommends against CSV injection.

    >>> [plain_cell(value) for value in ("=1+1", "-x", "b", -1)]
    ["'=1+1", "'-x", 'b', -1]
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
