"""The processor and the software versions, to record with measured results."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def processor() -> str:
    """Return the name of the processor and the number of its cores that may be used.

    >>> "core" in processor()
    True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_model_name()}, {cores} cores"


def _model_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute a run.

    >>> sorted(versions())
    ['hilbound', 'lightning', 'numpy', 'python', 'torch']
    """
    libraries = {name: version(name) for name in ("hilbound", "torch", "lightning", "numpy")}
    return {"python": platform.python_version(), **libraries}
