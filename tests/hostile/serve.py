"""Reads files in a process of its own with little memory, one after the other.

A line of JSON comes in with a reader and a path, a line goes out with what came of it. The memory
is limited to 500 MB above what the interpreter and its libraries have at the start.
"""

import json
import logging
import resource
import signal
import sys
import time
import warnings
from pathlib import Path

ABOVE = 500 * 2**20
SECONDS = 60


def limit_memory() -> None:
    """Allow this process so much more than it has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + ABOVE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def outcome(read, path: Path) -> dict[str, str]:
    """Return what came of reading: ``read``, ``refused``, or ``raised`` with the foreign error."""
    from hilbound.errors import InputError

    try:
        read(path)
    except InputError as error:
        return {"outcome": "refused", "message": str(error)}
    except Exception as error:
        return {"outcome": "raised", "message": f"{type(error).__name__}: {error}"}
    return {"outcome": "read", "message": ""}


def _late(*_: object) -> None:
    raise TimeoutError(f"not read in {SECONDS} s")


def main() -> None:
    """Serve until the input ends."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path(__file__).parent))
    from readers import READERS

    good = Path(sys.argv[1])
    for name, reader in (("table.csv", "table"), ("run", "run"), ("density", "density")):
        READERS[reader](good / name)  # what is imported late is imported now
    limit_memory()
    signal.signal(signal.SIGALRM, _late)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        signal.alarm(SECONDS)
        result = outcome(READERS[asked["reader"]], Path(asked["path"]))
        signal.alarm(0)
        print(json.dumps(result | {"seconds": time.perf_counter() - began}), flush=True)


if __name__ == "__main__":
    main()
