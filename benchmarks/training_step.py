"""Where the time of a training step goes: network, Gram matrix, nuclear norm, backward, optimiser.

    python benchmarks/training_step.py [--data mnist --batch-size 1024 --steps 20]

The parts of a step are timed one after another within the same step, so that noise of the machine
meets all of them alike; medians over steps are printed and their shares are stored, with the
machine and the versions, in ``benchmarks/results/training_step.json``.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hilbound.config import RunConfig
from hilbound.engine.seeding import stream
from hilbound.engine.spectrum.norms import nuclear_norm
from hilbound.mixture import GaussianMixture
from hilbound.training.machine import processor, versions
from hilbound.training.plan import TrainingPlan, plan_training

RESULT = Path(__file__).resolve().parent / "results" / "training_step.json"


class Clock:
    """Collects the seconds of named parts."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        began = time.perf_counter()
        yield
        self.seconds.setdefault(name, []).append(time.perf_counter() - began)

    def medians(self) -> dict[str, float]:
        """Return the median seconds of every part."""
        return {name: statistics.median(values) for name, values in self.seconds.items()}


def step(
    prepared: TrainingPlan, optimiser: torch.optim.Optimizer, number: int, clock: Clock
) -> None:
    """One step of the nuclear norm, cut into its parts.

    The cut is made by detaching: the gradient of a part is computed by itself and handed on.
    """
    config, model = prepared.config, prepared.model
    rows = torch.randint(
        len(prepared.dataset.train), (config.batch_size,), generator=stream(0, number)
    )
    noise = model.noise(config.centers or config.batch_size, stream(1, number))
    variance = float(model.variance)
    optimiser.zero_grad()
    with clock.part("network, forward"):
        centers = model.centers(noise)
    leaf = centers.detach().requires_grad_()
    with clock.part("Gram matrix, forward"):
        p = GaussianMixture(prepared.dataset.train[rows], variance)
        gram = p.log_overlaps(GaussianMixture(leaf, variance)).exp()
    middle = gram.detach().requires_grad_()
    with clock.part("nuclear norm and polar factor"):
        loss = -nuclear_norm(middle)
        loss.backward()
    with clock.part("Gram matrix, backward"):
        gram.backward(middle.grad)
    with clock.part("network, backward"):
        centers.backward(leaf.grad)
    with clock.part("optimiser"):
        optimiser.step()


def main() -> None:
    """Time the parts and print their shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    prepared = plan_training(
        RunConfig.create(data=given.data, batch_size=given.batch_size, objective="nuclear")
    )
    optimiser = torch.optim.Adam(prepared.model.parameters(), 1e-3)
    warm_up = Clock()
    for number in range(3):
        step(prepared, optimiser, number, warm_up)
    clock = Clock()
    for number in range(given.steps):
        step(prepared, optimiser, number, clock)
    medians = clock.medians()
    total = sum(medians.values())
    for name, seconds in medians.items():
        print(f"{name:32s} {1000 * seconds:8.2f} ms {100 * seconds / total:6.1f} %")
    print(f"{'together':32s} {1000 * total:8.2f} ms")
    content = {
        "data": given.data,
        "batch_size": given.batch_size,
        "steps": given.steps,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "milliseconds": {name: 1000 * seconds for name, seconds in medians.items()},
        "shares": {name: seconds / total for name, seconds in medians.items()},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
