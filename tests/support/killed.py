"""Kill a training at random moments, go on with it, and compare its end with an unharmed one.

``python tests/support/killed.py FOLDER --kills 50 --seed 1`` prints a line of JSON with the counts.
Whenever a training was killed, its folder must open; what goes on must end with the very weights
and bounds of the training that nobody killed. Lives are forked from one process, because imports
take longer than the trainings.
"""

import argparse
import collections
import json
import logging
import os
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

import hilbound
from hilbound.training.runs import Run

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.tiny_runs import TINY, write_points
from support.trainings import curve

_COMMON = {**TINY, "steps": 36, "validate_every": 3}
#: What has a state of its own: averages, schedules, heads, patience, a tracker, remembered rows.
KINDS = {
    "averages": {
        "objective": "scalar",
        "objective_options": {"momentum": 0.9},
        "variance": "2*median:median",
        "learn_weights": True,
    },
    "patience": {"learning_rate": 0.3, "decay": False, "patience": 3, "validate_every": 2},
    "encoder": {
        "model": "encoder-mixture-decoder",
        "features": 1,
        "bound_every": 4,
        "bound_rows": 40,
    },
}


def live(path: Path, options: dict) -> None:
    """Begin a run, or go on with it."""
    if (path / "config.yaml").exists():
        hilbound.resume(path, quiet=True)
    else:
        hilbound.fit(path, quiet=True, **options)


def one_life(path: Path, options: dict, seconds: float | None) -> int:
    """Fork a training, kill it after some time, and return its exit code or minus the signal."""
    child = os.fork()
    if child == 0:
        try:
            live(path, options)
        except BaseException:  # noqa: BLE001 - a fork ends here, whatever it met
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def state_of(path: Path) -> str:
    """Open a folder as it was left, read all that is there, and return its state."""
    if not (path / "config.yaml").exists():
        return "not begun"
    run = Run.open(path)
    steps = [(row["step"], row["split"]) for row in run.read_bounds()]
    assert len(set(steps)) == len(steps), "a row stands twice"
    if not (path / "run.json").exists():
        return "without facts"
    state = run.read_json("run.json")["status"]
    if (path / "model.safetensors").exists():
        assert run.model.sample(2).isfinite().all()
    return state


def compare(path: Path, whole: Run) -> None:
    """Refuse any difference from the training that nobody killed."""
    run = Run.open(path)
    ours, theirs = (load_file(one.path / "model.safetensors") for one in (run, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours), "other weights"
    assert curve(run) == curve(whole), "other bounds"
    left = [p.name for p in path.rglob("*.partial")]
    assert not left, left


def main() -> None:
    """Kill as often as asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    draw, counts = random.Random(asked.seed), collections.Counter()  # noqa: S311 - of moments
    points = write_points(asked.folder / "points.npy", 120)
    wholes = {}
    for kind, own in KINDS.items():
        options = {"data": points, **_COMMON, **own}
        began = time.perf_counter()
        whole = hilbound.fit(asked.folder / f"whole-{kind}", quiet=True, **options)
        wholes[kind] = whole, options, time.perf_counter() - began
    kinds, kills, run = list(KINDS), 0, 0
    while kills < asked.kills:
        whole, options, seconds = wholes[kinds[run % len(kinds)]]
        path = asked.folder / f"run-{run}"
        run += 1
        for _ in range(4):
            if one_life(path, options, draw.uniform(0, seconds)) == 0:
                break
            kills += 1
            counts[state_of(path)] += 1
        if not (path / "run.json").exists() or state_of(path) != "finished":
            assert one_life(path, options, None) == 0, "it does not go on"
        compare(path, whole)
        counts["compared"] += 1
    sys.stdout.write(json.dumps({"kills": kills, "runs": run, **counts}) + "\n")


if __name__ == "__main__":
    main()
