"""What tables cost: seconds and memory of `ConditionalDensityEstimator`, large and of usual size.

    HILBOUND_DATA=path/to/data python benchmarks/tables.py    # measures what is missing
    python benchmarks/tables.py --only large                  # measures one case anew

Every case has a process of its own, so that its peak of memory is its own, with two threads, or one
where it may use one core only. *Wall* seconds are what a user waits; on a machine that does other
work they are too many. *Core* seconds are what the process took of all cores together. Written to
``benchmarks/results/tables.json``.

The large table is simulated: 100,000 rows with 20 columns, of which 13 hold numbers of very
different scales, three have gaps and four hold texts. Its density is known, so the score of the
model stands beside that of the truth. ``power-plant`` is the largest of the four sets of
``hilbound experiment uci-regression``, on its first split.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hilbound.estimators import ConditionalDensityEstimator
from hilbound.experiments.uci_regression.experiment import split_of
from hilbound.training.machine import processor, versions

RESULT = Path(__file__).resolve().parent / "results" / "tables.json"
ROWS = 100_000
THREADS = min(2, len(os.sched_getaffinity(0)))
LEVELS = (0.05, 0.5, 0.95)

Floats = np.ndarray[Any, np.dtype[np.float64]]
Case = Callable[[], dict[str, float]]


def table(n: int, seed: int) -> tuple[pd.DataFrame, Floats, Floats]:
    """Return a simulated table with its target and the target's true log densities."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 16))
    scales = np.geomspace(1e-3, 1e4, 16)
    frame = pd.DataFrame(z * scales + scales, columns=[f"number {i}" for i in range(16)])
    for name in frame.columns[-3:]:  # gaps, where nothing depends on the column
        frame.loc[rng.random(n) < 0.1, name] = np.nan
    levels = [rng.integers(0, k, n) for k in (2, 5, 12, 40)]
    for i, level in enumerate(levels):
        frame[f"text {i}"] = np.char.add("level ", level.astype(str))
    mean = np.sin(2 * z[:, 0]) + z[:, 1] * z[:, 2] + 0.5 * (levels[1] == 3)
    deviation = np.where(levels[0] == 0, 0.2, 0.7)
    gap = 2.0 * (z[:, 3] > 0)  # two answers, as far apart as this
    side = rng.integers(0, 2, n)
    y = mean + gap * side + deviation * rng.normal(size=n)
    parts = [-0.5 * ((y - mean - gap * k) / deviation) ** 2 for k in (0, 1)]
    truth = np.logaddexp(*parts) - np.log(2 * deviation) - 0.5 * np.log(2 * np.pi)
    return frame, y, truth


def clock(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """Return what some work gives, with its wall and core seconds."""
    wall, core = time.perf_counter(), time.process_time()
    result = work()
    seconds = {"wall": time.perf_counter() - wall, "core": time.process_time() - core}
    return result, {name: round(value, 2) for name, value in seconds.items()}


def large(effort: str = "default") -> dict[str, Any]:
    """Fit the large table, and predict as many new rows."""
    x, y, _ = table(ROWS, 0)
    model = ConditionalDensityEstimator(effort=effort, random_state=0)
    _, fit = clock(lambda: model.fit(x, y))
    peak = _peak()
    new, target, truth = table(ROWS, 1)
    q, predict = clock(lambda: model.predict_distribution(new))
    score = float(q.log_prob(torch.from_numpy(target)[:, None]).mean())
    found = {
        "rows": ROWS,
        "columns": x.shape[1],
        "fit_seconds": fit,
        "fit_peak_mebibytes": peak,
        "predict_distribution_seconds": predict,
        "score": round(score, 4),
        "score_of_the_truth": round(float(truth.mean()), 4),
    }
    if effort == "default":
        _, quantiles = clock(lambda: model.predict_quantiles(new, LEVELS))
        found["predict_quantiles_seconds"] = quantiles
    return found | {"peak_mebibytes": _peak()}


def prediction() -> dict[str, Any]:
    """Predict the rows of a large table; how long that takes does not depend on the training."""
    x, y, _ = table(ROWS, 0)
    model = ConditionalDensityEstimator(max_epochs=1, random_state=0).fit(x, y)
    new, _, _ = table(ROWS, 1)
    _, predict = clock(lambda: model.predict_distribution(new))
    return {
        "rows": ROWS,
        "columns": x.shape[1],
        "predict_distribution_seconds": predict,
        "peak_mebibytes": _peak(),
    }


def usual(effort: str) -> dict[str, Any]:
    """Fit the first split of power-plant."""
    split = split_of("power-plant", 0)
    model = ConditionalDensityEstimator(effort=effort, random_state=0)
    _, fit = clock(lambda: model.fit(split.x, split.y))
    return {
        "rows": len(split.y),
        "columns": split.x.shape[1],
        "fit_seconds": fit,
        "nll": round(-model.score(split.new, split.target), 4),
        "peak_mebibytes": _peak(),
    }


def _peak() -> int:
    """Return the most memory that the process has held; Linux counts in kibibytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


CASES: dict[str, Case] = {
    "large": large,
    "large, prediction alone": prediction,
    "large, effort high": lambda: large("high"),
    "power-plant": lambda: usual("default"),
    "power-plant, effort high": lambda: usual("high"),
}


def measure(name: str) -> dict[str, Any]:
    """Measure a case in a process of its own."""
    command = [sys.executable, __file__, "--case", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure what is missing, and keep every case as it comes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", choices=CASES, help="measure it here, and print it")
    parser.add_argument("--only", choices=CASES, nargs="+", help="measure these anew")
    arguments = parser.parse_args()
    if arguments.case is not None:
        torch.set_num_threads(THREADS)
        print(json.dumps(CASES[arguments.case]()))
        return
    there = json.loads(RESULT.read_text(encoding="utf-8"))["cases"] if RESULT.exists() else {}
    for name in arguments.only or [case for case in CASES if case not in there]:
        facts = {"processor": processor(), "threads": THREADS, "versions": versions()}
        there[name] = measure(name) | facts
        print(name, there[name], flush=True)
        RESULT.write_text(json.dumps({"cases": there}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
