"""What importing costs: hilbound beside torch, and the command line's help.

    python benchmarks/import_time.py

Every measurement is a fresh process; the commands take turns, so that noise of the machine meets
all alike. Medians go to ``benchmarks/results/import_time.json`` with the machine and the versions.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from hilbound.training.machine import processor, versions

RESULT = Path(__file__).resolve().parent / "results" / "import_time.json"
USE_EVERYTHING = (
    "import hilbound; [getattr(hilbound, name) for name in hilbound.__all__ if name != 'fit']"
)
COMMANDS = {
    "python alone": [sys.executable, "-c", "pass"],
    "import torch": [sys.executable, "-c", "import torch"],
    "import hilbound": [sys.executable, "-c", "import hilbound"],
    "import hilbound, every name used": [sys.executable, "-c", USE_EVERYTHING],
    "hilbound --help": [str(Path(sys.executable).parent / "hilbound"), "--help"],
}


def seconds(command: list[str]) -> float:
    """Run a command and return how long it took."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Measure in turns and print the medians."""
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for repeat in range(8):
        for name, command in COMMANDS.items():
            measured = seconds(command)
            # The first round warms the file cache and is not counted.
            if repeat:
                taken[name].append(measured)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    for name, median in medians.items():
        print(f"{name:36s} {median:6.2f} s")
    beyond = medians["import hilbound, every name used"] - medians["import torch"]
    print(f"{'hilbound beyond torch':36s} {beyond:6.2f} s")
    content = {
        "processor": processor(),
        "versions": versions(),
        "seconds": medians,
        "beyond_torch": beyond,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
