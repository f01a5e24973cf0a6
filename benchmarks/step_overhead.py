"""What a training step costs beyond its network and objective: Lightning, logging, bounds.

    python benchmarks/step_overhead.py [--rounds 5 --threads 2]

The same data, batch, network, objective and optimiser run in a loop of ten lines, and in
``hilbound.fit``. Both take turns. A step of ``fit`` is the difference of a long and a short
training over the difference of their steps, so what happens once is not in it. With the bounds that
are recorded every 20 steps, as is the default. Wall time and the time of processors are kept: a
thread that waits for another one keeps its core busy. Medians go to
``benchmarks/results/step_overhead.json``.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hilbound
from hilbound.config import RunConfig
from hilbound.engine.seeding import stream
from hilbound.mixture import GaussianMixture
from hilbound.training.machine import processor, versions
from hilbound.training.plan import TrainingPlan, plan_training

RESULT = Path(__file__).resolve().parent / "results" / "step_overhead.json"
SHORT, LONG = 100, 400
TRAININGS: dict[str, dict[str, Any]] = {
    "moons, nuclear, 256": {"data": "moons", "batch_size": 256, "objective": "nuclear"},
    "moons, likelihood, 256": {"data": "moons", "batch_size": 256, "objective": "likelihood"},
    "digits, scalar, 128": {"data": "digits", "batch_size": 128, "objective": "scalar"},
}


def options(training: dict[str, Any], steps: int) -> dict[str, Any]:
    """Return the options of a training that is not validated on the way."""
    return {**training, "steps": steps, "validate_every": LONG, "tensorboard": False}


def now() -> Tensor:
    """Return the clocks of the wall and of the processors, in seconds."""
    return torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.float64)


def bare(plan: TrainingPlan, steps: int) -> Tensor:
    """Return the seconds of a step of the plain loop, by both clocks."""
    model, objective, config = plan.model, plan.objective, plan.config
    rows, variance = plan.dataset.train, float(model.variance)
    adam = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
    began = now()
    for step in range(steps):
        batch = rows[torch.randint(len(rows), (config.batch_size,), generator=stream(0, step))]
        centers = model.centers(model.noise(config.batch_size, stream(1, step)))
        p, q = (GaussianMixture(means, variance, validate_args=False) for means in (batch, centers))
        loss = objective(p, q)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return (now() - began) / steps


def fitted(training: dict[str, Any]) -> Tensor:
    """Return the seconds of a step of ``fit``, by both clocks."""
    seconds = []
    for steps in (SHORT, LONG):
        with tempfile.TemporaryDirectory() as folder:
            began = now()
            hilbound.fit(Path(folder) / "run", quiet=True, **options(training, steps))
            seconds.append(now() - began)
    return (seconds[1] - seconds[0]) / (LONG - SHORT)


def measure(training: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Return the medians of both, and of their difference."""
    plan = plan_training(RunConfig.create(**options(training, LONG)))
    plain, full = [], []
    for turn in range(rounds + 1):
        pair = bare(plan, LONG), fitted(training)
        if turn:  # the first warms up
            plain.append(pair[0])
            full.append(pair[1])
    row: dict[str, Any] = {}
    for clock, unit in enumerate(("milliseconds", "core milliseconds")):
        without, within = (1e3 * torch.stack(part)[:, clock] for part in (plain, full))
        extra = within - without
        row[f"{unit} of a step, plain loop"] = float(without.median())
        row[f"{unit} of a step, fit"] = float(within.median())
        row[f"{unit} beyond"] = float(extra.median())
        row[f"{unit} beyond, least and most"] = [float(extra.min()), float(extra.max())]
    return row


def main() -> None:
    """Measure every training and keep its row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    content: dict[str, Any] = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "rounds": given.rounds,
        "load before": os.getloadavg()[0],
        "rows": {},
    }
    for name, training in TRAININGS.items():
        content["rows"][name] = measure(training, given.rounds)
        print(name, json.dumps(content["rows"][name]), flush=True)
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
