"""Seconds of training until samples cover the data: every objective and shape of batch, and peers.

    HILBOUND_DATA=... python benchmarks/time_to_quality.py [--data mnist digits moons --seeds 1]

Every method trains the library's default network for its data, with the default optimiser at a
constant learning rate, because nobody knows the end of a schedule beforehand. From time to time
samples are measured against validation rows; measuring is not counted. Seconds are those of one
core. A row says when each line of coverage was reached first, or the best coverage within the
time. Peers (Sinkhorn divergence of geomloss, MMD with several Gaussians) have the same network.
Rows that are there are kept; delete ``benchmarks/results/time_to_quality.json`` to begin anew.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hilbound.config import RunConfig
from hilbound.engine.seeding import stream
from hilbound.evaluation.metrics import precision_recall_density_coverage
from hilbound.experiments.peers.costs import loss_of
from hilbound.experiments.shared.sample_quality import features, images
from hilbound.models.blocks import BlockDensityNetwork
from hilbound.objectives import BlockObjective, Objective
from hilbound.training.batches import BatchStream, BlockStream
from hilbound.training.machine import processor, versions
from hilbound.training.plan import TrainingPlan, plan_training
from hilbound.variance import median_variance

RESULT = Path(__file__).resolve().parent / "results" / "time_to_quality.json"
#: Lines of coverage, the seconds at most, and the seconds to the first measurement.
GOALS: dict[str, tuple[tuple[float, ...], float, float]] = {
    "mnist": ((0.60, 0.75), 90.0, 4.0),
    "digits": ((0.90,), 60.0, 1.0),
    "moons": ((0.88,), 30.0, 0.5),
}
#: How much later every further measurement is.
LATER = 1.3
SAMPLES = 5000
_ENDLESS = 10**9


class Method(NamedTuple):
    """A way to train: options of the library, or the name of a peer."""

    name: str
    options: dict[str, Any]
    peer: str = ""


SHAPES = ((512, 512), (1024, 1024), (2048, 256), (4096, 512))
METHODS = [
    *(
        Method(f"nuclear, {n:,} x {m:,}", {"batch_size": n, "centers": m, "objective": "nuclear"})
        for n, m in SHAPES
    ),
    *(
        Method(f"{name}, {n:,} x {n:,}", {"batch_size": n, "objective": name, **options})
        for n in (512, 1024)
        for name, options in (
            ("debiased", {}),
            ("schatten", {}),
            ("scalar", {}),
            # Its kernel smooths the model alone, and has a rule of its own.
            ("likelihood", {"variance": "median/dim"}),
        )
    ),
    *(
        Method(f"{name}, {n:,} x {m:,}", {"batch_size": n, "centers": m, "objective": name})
        for n, m in SHAPES[2:]
        for name in ("debiased", "schatten")
    ),
    *(
        Method(f"{name}, 512 x 512", {"batch_size": 512, "objective": name})
        for name in ("vector", "schur", "distance")
    ),
    Method("Sinkhorn divergence, 512 x 512", {"batch_size": 512}, "sinkhorn"),
    Method("MMD, 512 x 512", {"batch_size": 512}, "mmd"),
    *(
        Method(
            f"blocks, {name}, 32 x {rows}",
            {"objective": name, "condition": "clusters=32", "batch_size": 32 * rows},
        )
        for name, rows in (("nuclear", 64), ("debiased", 64), ("debiased", 16))
    ),
    *(
        Method(
            f"{objective}, {name} {value:g}, 512 x 512",
            {"batch_size": 512, "objective": objective, "objective_options": {name: value}},
        )
        for objective, name, value in (
            ("debiased", "weight", 0.45),
            ("debiased", "weight", 0.4),
            ("schatten", "power", 0.9),
        )
    ),
]


def loss_and_batches(
    plan: TrainingPlan, method: Method, seed: int
) -> tuple[Callable[[Tensor, int], Tensor], Iterator[Tensor]]:
    """Return the loss of a batch at a step, and endless batches."""
    model, config, rows = plan.model, plan.config, plan.dataset.train
    objective: Objective = plan.objective
    if isinstance(model, BlockDensityNetwork):
        own = model.blocks_of(rows)
        size = config.batch_size // model.blocks
        batches = iter(BlockStream(rows, own, size, steps=_ENDLESS, seed=seed))
        if not isinstance(objective, BlockObjective):
            objective = BlockObjective(objective, model.share)
        centers = size
    else:
        batches = iter(BatchStream(rows, config.batch_size, _ENDLESS, seed))
        centers = config.centers or config.batch_size
    if method.peer:
        median = median_variance(rows, generator=stream(0, "median"))
        peer = loss_of(method.peer, 0.3, median, plan.dataset.dim)

        def of_peer(x: Tensor, step: int) -> Tensor:
            draws = stream(seed, "noise", step)
            return peer(x, model.centers(model.noise(len(x), draws)), draws)

        return of_peer, batches

    def loss(x: Tensor, step: int) -> Tensor:
        p, q, penalty = model.compare(
            x, plan.data_variance(step), centers, stream(seed, "noise", step)
        )
        value: Tensor = objective(p, q).mean() + penalty
        return value

    return loss, batches


def run(data: str, method: Method, seed: int) -> dict[str, Any]:
    """Train until the last line is reached or the time is over."""
    lines, most, due = GOALS[data]
    config = RunConfig.create(data=data, seed=seed, **method.options)
    plan = plan_training(config)
    loss, batches = loss_and_batches(plan, method, seed)
    held_out, space = images(data).validation[:SAMPLES], features(data)
    real = space.transform(held_out)
    adam = torch.optim.Adam(
        plan.model.parameters(),
        config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )
    reached: dict[str, float] = {}
    curve, spent, step = [], 0.0, 0
    while spent < most and len(reached) < len(lines):
        began = time.process_time()
        while spent + time.process_time() - began < due:
            value = loss(next(batches), step)
            adam.zero_grad()
            value.backward()
            adam.step()
            step += 1
        spent += time.process_time() - began
        due = min(max(spent, due) * LATER, most)
        samples = plan.model.sample(SAMPLES, stream(seed, "samples")).to(held_out)
        # As many samples as rows, because the metric's radii depend on both numbers.
        found = precision_recall_density_coverage(real, space.transform(samples[: len(real)]))
        quality = (round(x, 4) for x in (found.coverage, found.precision, found.recall))
        curve.append([round(spent, 1), step, *quality])
        for line in lines:
            if found.coverage >= line:
                reached.setdefault(f"{line:g}", round(spent, 1))
    return {
        "reached": reached,
        "best": max(coverage for _, _, coverage, *_ in curve),
        "precision": curve[-1][3],
        "recall": curve[-1][4],
        "steps": step,
        # Seconds, steps, coverage, precision, recall.
        "curve": curve,
    }


def main() -> None:
    """Measure what is missing, and keep every row at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(GOALS), choices=list(GOALS))
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(RESULT.read_text(encoding="utf-8"))["rows"] if RESULT.exists() else {}
    for data in given.data:
        for method in METHODS:
            for seed in range(given.seeds):
                key = f"{data}: {method.name}, seed {seed}"
                if key in kept:
                    continue
                kept[key] = run(data, method, seed)
                print(key, json.dumps(kept[key]["reached"]), kept[key]["best"], flush=True)
                content = {
                    "processor": processor(),
                    "threads": 1,
                    "versions": versions(),
                    "lines": {name: goal[0] for name, goal in GOALS.items()},
                    "seconds at most": {name: goal[1] for name, goal in GOALS.items()},
                    "rows": kept,
                }
                RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
