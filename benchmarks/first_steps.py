"""How long each command of the README takes, measured in its order.

    python benchmarks/first_steps.py            # all sections of the README
    python benchmarks/first_steps.py Models     # one of them; the others' figures are kept

The commands are read from the README, so what is measured is what is printed there. Those of a
section run in a new folder, with a table of 500 rows as ``table.csv`` and no classifier kept from
earlier. Each command runs once. Seconds go to ``benchmarks/results/first_steps.json`` with the
machine and the versions; a test compares the README's own figures with them.
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
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ROWS = 500
_KNOWN = {"make demo": "hilbound demo"}


def commands(readme: str) -> dict[str, list[str]]:
    """Return the commands of each section as they are typed, without comments.

    >>> commands("## Try\\n```\\nhilbound list # all\\nmake demo   # six models\\n```\\n")
    {'Try': ['hilbound list', 'hilbound demo']}
    """
    found = {}
    for section in f"\n{readme}".split("\n## ")[1:]:
        shells = [block for language, block in _FENCE.findall(section) if not language]
        lines = [line for block in shells for line in block.splitlines()]
        typed = (line.partition(" #")[0].strip() for line in lines)
        own = [line for line in typed if line.startswith(("hilbound ", "make demo"))]
        if own:
            found[section.partition("\n")[0]] = [_KNOWN.get(line, line) for line in own]
    return found


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


def run(section: list[str]) -> dict[str, float]:
    """Run the commands of a section in a new folder, and return how long each took."""
    seconds = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_tables(folder)
        setting = os.environ | {"HILBOUND_CACHE": str(folder / "cache")}
        for command in section:
            words = [sys.executable, "-m", *shlex.split(command)]
            began = time.perf_counter()
            subprocess.run(words, check=True, cwd=folder, env=setting, capture_output=True)
            seconds[command] = round(time.perf_counter() - began, 1)
            print(f"{seconds[command]:7.1f} s  {command}", flush=True)
    return seconds


def main() -> None:
    """Run every command once, print the seconds, and write them down."""
    sections = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    asked = sys.argv[1:] or list(sections)
    known = json.loads(RESULT.read_text(encoding="utf-8"))["seconds"] if RESULT.exists() else {}
    for name in asked:
        known |= run(sections[name])
        content = {
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)),
            "threads": os.environ.get("OMP_NUM_THREADS", "all"),
            "versions": versions(),
            "rows": _ROWS,
            "seconds": {
                c: known[c] for section in sections.values() for c in section if c in known
            },
        }
        RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
