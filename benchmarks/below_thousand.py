"""Below 1,000 points in the plane: the default against the SVD, and steps of a training.

    python benchmarks/below_thousand.py [--threads 2 --rounds 9]

``fidelity`` of two clouds, value and gradient, by the library's default and with the norm by
``torch.linalg.svd``. And training steps of the demo (moons, batches of 256) in a loop of ten lines,
by the library, with the norm by ``torch.linalg.svd``, and with no norm at all: the mean of the
matrix in its place. The last says what a norm that takes no time would reach. All methods take
turns. The median of the ratio within a round is kept, with the least and the largest, in
``benchmarks/results/below_thousand.json``.
"""

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from nuclear_norm import CLOUD_VARIANCES, by_svd, clouds
from torch import Tensor
from turns import take_turns

from hilbound import functional as F
from hilbound.config import RunConfig
from hilbound.engine.seeding import stream
from hilbound.functional import fidelity_plan
from hilbound.mixture import GaussianMixture
from hilbound.training.machine import processor, versions
from hilbound.training.plan import TrainingPlan, plan_training

RESULT = Path(__file__).resolve().parent / "results" / "below_thousand.json"
SIZES = (128, 256, 384, 512, 768, 999)
STEPS = 40


class _NormBySvd(torch.autograd.Function):
    """The nuclear norm as anyone would write it."""

    @staticmethod
    def forward(ctx: Any, a: Tensor) -> Tensor:
        """Return the norm and keep the polar factor."""
        value, slope = by_svd(a)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Return the gradient."""
        (slope,) = ctx.saved_tensors
        return grads[0] * slope


def fidelity_by_svd(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """Return the fidelity of equally weighted mixtures by LAPACK."""
    value: Tensor = _NormBySvd.apply(p.log_overlaps(q).exp())
    return value / (p.components * q.components) ** 0.5


def no_norm(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """Return the mean overlap."""
    return p.log_overlaps(q).exp().mean()


Cost = Callable[[GaussianMixture, GaussianMixture], Tensor]


def with_gradient(cost: Cost, n: int, variance: float) -> None:
    """Compute a cost of two clouds and its gradient."""
    p, q = clouds(n, variance)
    cost(p, q).backward()


def steps(plan: TrainingPlan, cost: Cost) -> None:
    """Train the demo's network from its present state."""
    model, config = plan.model, plan.config
    adam = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True)
    rows, variance = plan.dataset.train, float(model.variance)
    for step in range(STEPS):
        batch = rows[torch.randint(len(rows), (config.batch_size,), generator=stream(0, step))]
        centers = model.centers(model.noise(config.batch_size, stream(1, step)))
        p, q = (GaussianMixture(means, variance, validate_args=False) for means in (batch, centers))
        adam.zero_grad()
        (-cost(p, q)).backward()
        adam.step()


def compare(methods: dict[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    """Return the median milliseconds, and the ratio of the first method to the others."""
    seconds = take_turns(methods, rounds)
    first, *others = methods
    row: dict[str, Any] = {
        "milliseconds": {k: round(1e3 * statistics.median(v), 2) for k, v in seconds.items()}
    }
    for name in others:
        ratios = sorted(a / b for a, b in zip(seconds[first], seconds[name], strict=True))
        row[f"times as fast, {name}"] = round(statistics.median(ratios), 2)
        row[f"least and most, {name}"] = [round(ratios[0], 2), round(ratios[-1], 2)]
    return row


def main() -> None:
    """Measure every size and the steps."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--rounds", type=int, default=9)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    content: dict[str, Any] = {
        "processor": processor(),
        "threads": given.threads,
        "rounds": given.rounds,
        "seed": 0,
        "versions": versions(),
        "load before": os.getloadavg()[0],
        "rows": {},
    }
    for variance in CLOUD_VARIANCES:
        for n in SIZES:
            costs: dict[str, Cost] = {"svd": fidelity_by_svd, "library": F.fidelity}
            methods = {
                name: lambda cost=cost, n=n, variance=variance: with_gradient(cost, n, variance)
                for name, cost in costs.items()
            }
            row = compare(methods, given.rounds)
            row["plan"] = str(fidelity_plan(*clouds(n, variance)))
            content["rows"][f"{n} points, variance {variance}"] = row
            print(n, variance, json.dumps(row), flush=True)
    plan = plan_training(RunConfig.create(data="moons", batch_size=256, steps=STEPS))
    parts: dict[str, Cost] = {"svd": fidelity_by_svd, "library": F.fidelity, "no norm": no_norm}
    content["moons, steps of 256"] = compare(
        {name: lambda cost=cost: steps(plan, cost) for name, cost in parts.items()}, given.rounds
    )
    print(json.dumps(content["moons, steps of 256"]), flush=True)
    content["load after"] = os.getloadavg()[0]
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
