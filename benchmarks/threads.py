"""How many threads a training step should use, on an idle machine and beside other work.

    python benchmarks/threads.py [--rounds 3]

Threads of the linear algebra wait for each other after every product. A thread that waits
*actively* keeps its core busy; one that waits *passively* (``OMP_WAIT_POLICY=passive``) sleeps.
Each cell is a process of its own: steps of a training with one thread and with all, waiting either
way, alone and beside processes that keep one core or all cores busy. Median milliseconds of a step
go to ``benchmarks/results/threads.json``.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parent / "results" / "threads.json"
CORES = os.cpu_count() or 1
#: Data, batch and objective of a training, and its steps.
TRAININGS: dict[str, tuple[dict[str, Any], int]] = {
    "moons, nuclear, 256": ({"data": "moons", "batch_size": 256, "objective": "nuclear"}, 60),
    "digits, scalar, 256": ({"data": "digits", "batch_size": 256, "objective": "scalar"}, 100),
    "mnist, nuclear, 1,024": ({"data": "mnist", "batch_size": 1024, "objective": "nuclear"}, 12),
}
WAYS = {
    "1 thread": (1, "active"),
    f"{CORES} threads, active": (CORES, "active"),
    f"{CORES} threads, passive": (CORES, "passive"),
    f"{CORES} threads, as torch has them": (CORES, ""),
}
NEIGHBOURS = {"alone": 0, "one busy neighbour": 1, f"{CORES} busy neighbours": CORES}


def steps_of(name: str) -> None:
    """Print the median milliseconds of a step, in a process whose environment is set."""
    import torch

    from hilbound.config import RunConfig
    from hilbound.engine.seeding import stream
    from hilbound.mixture import GaussianMixture
    from hilbound.training.plan import plan_training

    options, steps = TRAININGS[name]
    plan = plan_training(RunConfig.create(**options))
    rows, variance, size = plan.dataset.train, float(plan.model.variance), plan.config.batch_size
    adam = torch.optim.Adam(plan.model.parameters(), 1e-3)
    seconds = []
    for step in range(steps):
        began = time.perf_counter()
        centers = plan.model.centers(plan.model.noise(size, stream(1, step)))
        p, q = (
            GaussianMixture(means, variance, validate_args=False)
            for means in (rows[step * size % (len(rows) - size) :][:size], centers)
        )
        loss = plan.objective(p, q)
        adam.zero_grad()
        loss.backward()
        adam.step()
        seconds.append(time.perf_counter() - began)
    print(1e3 * statistics.median(seconds[steps // 4 :]))


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep cores busy inside a ``with`` block."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(name: str, threads: int, policy: str) -> float:
    """Return the median milliseconds of a step in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment.pop("OMP_WAIT_POLICY", None)
    if policy:
        environment["OMP_WAIT_POLICY"] = policy
    call = [sys.executable, __file__, "--steps-of", name]
    done = subprocess.run(call, env=environment, capture_output=True, check=True, text=True)
    return float(done.stdout)


def main() -> None:
    """Measure every cell in turn, and keep the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.steps_of:
        steps_of(given.steps_of)
        return
    from hilbound.training.machine import processor, versions

    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for _ in range(given.rounds):
        for neighbours, count in NEIGHBOURS.items():
            for name in TRAININGS:
                for way, (threads, policy) in WAYS.items():
                    with busy(count):
                        value = measure(name, threads, policy)
                    cell = found.setdefault(name, {}).setdefault(neighbours, {})
                    cell.setdefault(way, []).append(round(value, 2))
                    print(name, neighbours, way, f"{value:.2f} ms", flush=True)
    content = {
        "processor": processor(),
        "cores": CORES,
        "versions": versions(),
        "rounds": given.rounds,
        "milliseconds of a step": {
            name: {
                neighbours: {way: statistics.median(values) for way, values in cells.items()}
                for neighbours, cells in rows.items()
            }
            for name, rows in found.items()
        },
        "every round": found,
    }
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
