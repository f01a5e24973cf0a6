"""What tracking the conditional bound takes of a training, with the default interval.

    HILBOUND_DATA=path/to/data python benchmarks/tracking.py [--steps 300]

Trains encoders with mixture decoders as ``hilbound fit`` does, and measures the seconds inside the
tracking callback as a share of all seconds between the first step and the end. The last
measurement, which every run makes, weighs more in a short run than in one of the default 2,000
steps, and a short run measures more often, for the sake of its curve; the share of a default run is
extrapolated from the seconds of a step and of a measurement. Written to
``benchmarks/results/tracking.json``.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

import hilbound
from hilbound.config import RunConfig
from hilbound.training import tracking
from hilbound.training.machine import processor, versions

RESULT = Path(__file__).resolve().parent / "results" / "tracking.json"
CASES: dict[str, dict[str, Any]] = {
    "mnist, 1 feature, 30 centres": {"data": "mnist", "features": 1, "centers": 30},
    "mnist, 2 features, 10 centres": {"data": "mnist"},
    "digits, 2 features, 10 centres": {"data": "digits"},
}


class Watched(tracking.ConditionalTracker):
    """Keeps what it measured about itself."""

    last: dict[str, float]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self._start = time.perf_counter()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop it."""
        super().on_train_end(trainer, pl_module)
        total = time.perf_counter() - self._start
        # One measurement at the start, one at the end, and those between them.
        interval = self.interval or trainer.global_step
        count = 2 + (trainer.global_step - 1) // interval
        one, steps = self.seconds / count, RunConfig.model_fields["steps"].default
        step = (total - self.seconds) / trainer.global_step
        usual = tracking.default_interval(one, step, steps)
        long = one * (2 + (steps - 1) // usual)
        type(self).last = {
            "interval": interval,
            "interval_of_2000_steps": usual,
            "seconds_of_a_measurement": one,
            "seconds_of_a_step": step,
            "share_of_this_run": self.seconds / total,
            "share_of_2000_steps": long / (long + steps * step),
        }


def main() -> None:
    """Train every case and write what tracking took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    tracking.ConditionalTracker = Watched  # type: ignore[misc]  # what training looks up
    results = {}
    for title, options in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            hilbound.fit(
                Path(folder) / "run",
                quiet=True,
                steps=steps,
                model="encoder-mixture-decoder",
                validate_every=steps,
                tensorboard=False,
                **options,
            )
        results[title] = Watched.last
        print(title, {name: round(value, 4) for name, value in Watched.last.items()})
    content = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "steps": steps,
        "results": results,
    }
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
