"""Whether a long training stays as it began: memory and speed over 20,000 steps, and bf16.

    python benchmarks/endurance.py [--steps 20000] [--seeds 3]

Trains on moons as ``hilbound fit`` does, in one thread, and notes every twentieth of the way the
resident memory and the steps per second since the last note. Then trains shorter runs in float32
and under bf16 autocast with the same seeds, and measures both against validation rows. Written to
``benchmarks/results/endurance.json``.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

import hilbound
from hilbound.evaluation.evaluate import evaluate
from hilbound.training import callbacks
from hilbound.training.machine import processor, versions

RESULT = Path(__file__).resolve().parent / "results" / "endurance.json"
#: A long training needs cheap steps; a good one needs a batch.
_MOONS: dict[str, Any] = {"data": "moons", "objective": "nuclear", "tensorboard": False}
LONG = _MOONS | {"batch_size": 32, "width": 16}
GOOD = _MOONS | {"batch_size": 128, "width": 64}
METRICS = ("coverage", "precision", "recall", "frechet_distance")


def resident() -> float:
    """Return the resident memory in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


class Watched(callbacks.BoundsRecord):
    """Notes memory and speed beside the bounds."""

    notes: list[dict[str, float]]
    every = 1000

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        type(self).notes, self._last = [], time.perf_counter()
        self._busy = time.process_time()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Note, if it is time."""
        if trainer.global_step % self.every == 0:
            now, busy = time.perf_counter(), time.process_time()
            self.notes.append(
                {
                    "step": trainer.global_step,
                    "resident_mb": round(resident(), 1),
                    "steps_per_second": round(self.every / (now - self._last), 1),
                    "steps_per_processor_second": round(self.every / (busy - self._busy), 1),
                }
            )
            self._last, self._busy = now, busy


def endure(steps: int) -> list[dict[str, float]]:
    """Return the notes of a long training."""
    callbacks.BoundsRecord = Watched  # type: ignore[misc]  # what training looks up
    Watched.every = max(1, steps // 20)
    with tempfile.TemporaryDirectory() as folder:
        hilbound.fit(Path(folder) / "run", quiet=True, steps=steps, **LONG)
    return Watched.notes


def quality(precision: str, seeds: int, steps: int) -> dict[str, list[float]]:
    """Return the metrics of every seed against validation rows."""
    found: dict[str, list[float]] = {name: [] for name in METRICS}
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            run = hilbound.fit(
                Path(folder) / "run",
                quiet=True,
                steps=steps,
                seed=seed,
                precision=precision,
                variance="0.05*median",
                **GOOD,
            )
            measured = evaluate(run, split="validation")["metrics"]
        for name in METRICS:
            found[name].append(round(measured[name]["model"], 4))
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quality-steps", type=int, default=600)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    notes = endure(asked.steps)
    print(json.dumps(notes), flush=True)
    kinds = {p: quality(p, asked.seeds, asked.quality_steps) for p in ("32-true", "bf16-mixed")}
    content = {
        "processor": processor(),
        "threads": 1,
        "versions": versions(),
        "settings": {
            "long": LONG,
            "good": GOOD | {"seeds": asked.seeds, "steps": asked.quality_steps},
        },
        "notes": notes,
        "memory_growth_mb": notes[-1]["resident_mb"] - notes[1]["resident_mb"],
        "speed_last_quarter_over_first": round(
            statistics.median(n["steps_per_processor_second"] for n in notes[-5:])
            / statistics.median(n["steps_per_processor_second"] for n in notes[1:6]),
            3,
        ),
        "precision": kinds,
    }
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
