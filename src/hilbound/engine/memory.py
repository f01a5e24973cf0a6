"""How much memory this process may use, and what may ask for it.

A header is not believed: what it claims is held against the bytes that are there and against the
memory of the machine, before anything is made.
"""

import os
from pathlib import Path

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_SHARE = 4  # of the memory, for what is read: training and the metrics hold copies of it


def machine_memory() -> int | None:
    """Return the bytes of memory that this process may use, or ``None`` if that is not known.

    It is the least of the machine's memory, the limit of a container, and the limit of the process
    (``ulimit -v``).
    """
    known = []
    names = getattr(os, "sysconf_names", {})
    if {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(names):
        known.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in map(Path, _LIMITS):
        text = file.read_text(encoding="ascii").strip() if file.is_file() else ""
        known += [int(text)] if text.isdecimal() else []
    return min([*known, *_process_limit()], default=None)


def _process_limit() -> list[int]:
    try:
        import resource
    except ImportError:  # not a Unix
        return []
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return [] if soft == resource.RLIM_INFINITY else [soft]


def room_for_data() -> int | None:
    """Return how many bytes data in memory may take: a quarter, or ``None`` if none is known."""
    memory = machine_memory()
    return None if memory is None else memory // _SHARE
