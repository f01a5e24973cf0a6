"""How long each command of the README takes, measured in its order.

    python benchmarks/first_steps.py

The commands are read from the README, so what is measured is what is printed there. They run in a
new folder, with a table of 500 rows as ``table.csv`` and no classifier kept from earlier. Each
command runs once. Seconds go to ``benchmarks/results/first_steps.json`` with the machine and the
versions; a test compares the README's own figures with them.
"""

import csv
import json
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hilbound.training.machine import processor, versions

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "first_steps.json"
_FENCE = re.compile(r"^```\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ROWS = 500


def commands(readme: str) -> list[str]:
    """Return the commands of the README as they are typed, without comments.

    >>> commands("```\\nhilbound list # all\\nmake demo   # six models\\n```\\n")
    ['hilbound list', 'hilbound demo']
    """
    lines = [line for block in _FENCE.findall(readme) for line in block.splitlines()]
    typed = (line.partition("  #")[0].partition(" #")[0].strip() for line in lines)
    known = {"make demo": "hilbound demo"}
    return [known.get(line, line) for line in typed if line.startswith(("hilbound ", "make demo"))]


def write_tables(folder: Path) -> None:
    """Write the tables that the commands name: prices of houses, by area and city."""
    draw = random.Random(0)  # noqa: S311 - made-up houses
    rows = []
    for _ in range(_ROWS + 20):
        area, city = draw.uniform(30, 200), draw.choice(["Oslo", "Rome", "Bonn"])
        price = 3 * area + 100 * (city == "Oslo") + draw.gauss(0, 10 + area / 10)
        rows.append([f"{area:.1f}", city, draw.randint(1, 6), f"{price:.2f}"])
    for name, part in (("table.csv", rows[:_ROWS]), ("new.csv", rows[_ROWS:])):
        with (folder / name).open("w", newline="", encoding="utf-8") as lines:
            csv.writer(lines).writerows([["area", "city", "rooms", "price"], *part])


def main() -> None:
    """Run every command once, print the seconds, and write them down."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    seconds = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_tables(folder)
        setting = os.environ | {"HILBOUND_CACHE": str(folder / "cache")}
        for command in commands(readme):
            if command == "hilbound playground":
                continue
            words = [sys.executable, "-m", *shlex.split(command)]
            began = time.perf_counter()
            subprocess.run(words, check=True, cwd=folder, env=setting, capture_output=True)
            seconds[command] = round(time.perf_counter() - began, 1)
            print(f"{seconds[command]:7.1f} s  {command}", flush=True)
    content = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "versions": versions(),
        "rows": _ROWS,
        "seconds": seconds,
    }
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
