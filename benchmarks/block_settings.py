"""How many clusters, rows and steps a network that is told the cluster needs.

    HILBOUND_DATA=path/to/data python benchmarks/block_settings.py             # trains: two hours
    HILBOUND_DATA=path/to/data python benchmarks/block_settings.py --runs DIR  # keeps the trainings

Mixture density networks are trained on MNIST, with a seed that no experiment has. From each, 5,000
samples are drawn four times and compared with 5,000 validation images. The experiment
``block-generation`` takes its settings from here. Everything is stored, with the machine and the
versions, in ``benchmarks/results/block_settings.json``.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hilbound
from hilbound.config import RunConfig
from hilbound.engine.seeding import stream
from hilbound.evaluation.quality import measure_in_space
from hilbound.experiments.shared.sample_quality import features, images, training_rows
from hilbound.training.machine import processor, versions
from hilbound.training.runs import Run

RESULT = Path(__file__).resolve().parent / "results" / "block_settings.json"
SEED, SAMPLES, DRAWS = 1000, 5000, 4
SHOWN = ("coverage", "precision", "recall", "frechet_distance")
COMMON: dict[str, Any] = {
    "data": "mnist",
    "objective": "debiased",
    "objective_options": {"weight": 0.48},
    "variance": 60.0,
    "seed": SEED,
    "tensorboard": False,
}
#: Name, clusters, rows of a step, steps, and what else differs.
SETTINGS: tuple[tuple[str, int, int, int, dict[str, Any]], ...] = (
    ("64 clusters", 64, 1024, 4000, {}),
    ("128 clusters", 128, 1024, 4000, {}),
    ("256 clusters", 256, 1024, 4000, {}),
    ("128 clusters, more steps", 128, 1024, 12000, {}),
    ("128 clusters, more rows", 128, 2048, 2000, {}),
    ("128 clusters, more rows and steps", 128, 2048, 3700, {}),
    ("128 clusters, most rows", 128, 4096, 1500, {}),
    ("width 768", 128, 1024, 11000, {"width": 768}),
    ("depth 3", 128, 1024, 3000, {"depth": 3}),
    ("learned weights", 128, 1024, 4000, {"learn_weights": True}),
    ("learning rate .01", 128, 1024, 4000, {"learning_rate": 0.01}),
    ("learning rate .002", 128, 1024, 4000, {"learning_rate": 0.002, "beta2": 0.99}),
    ("variance 40", 128, 1024, 4000, {"variance": 40.0}),
    ("variance from 80 to 20", 128, 1024, 4000, {"variance": "80:20"}),
    ("weight .5", 128, 1024, 4000, {"objective_options": {"weight": 0.5}}),
    ("weight .46", 128, 1024, 4000, {"objective_options": {"weight": 0.46}}),
)


def trained(folder: Path, options: dict[str, Any]) -> tuple[Run, float]:
    """Return a run and the seconds of one core that it took, trained now if it is not there."""
    kept = folder.with_suffix(".seconds")
    if kept.is_file():
        run = Run.open(folder)
        if run.config != RunConfig.create(**options):
            raise SystemExit(f"{folder} is a training with other options: give another folder")
        return run, float(kept.read_text(encoding="utf-8"))
    began = time.process_time()
    run = hilbound.fit(folder, quiet=True, overwrite=True, **options)
    seconds = time.process_time() - began
    kept.write_text(f"{seconds}\n", encoding="utf-8")
    return run, seconds


def quality(draw: Callable[[int], Tensor]) -> dict[str, float]:
    """Return the mean quality of some sets of samples."""
    data, space = images("mnist", seed=SEED), features("mnist")
    real = data.validation[:SAMPLES]
    rows = [measure_in_space(real, draw(i).to(real), space) for i in range(DRAWS)]
    return {name: statistics.mean(row[name] for row in rows) for name in SHOWN}


def measure(runs: Path) -> list[dict[str, Any]]:
    """Return a row for real images, and one for every setting."""
    data = images("mnist", seed=SEED)
    rows = [{"method": "training rows", **quality(lambda i: training_rows(data, SAMPLES, i))}]
    print(rows[-1], flush=True)
    for number, (name, clusters, batch, steps, changed) in enumerate(SETTINGS):
        options = COMMON | {
            "condition": f"clusters={clusters}",
            "batch_size": batch,
            "centers": batch,
            "steps": steps,
            # A validation is no part of the time.
            "validate_every": steps,
        }
        run, seconds = trained(runs / str(number), options | changed)
        said = {"method": name, "clusters": clusters, "rows": batch, "steps": steps}
        drawn = quality(lambda i, run=run: run.model.sample(SAMPLES, stream(SEED, "v", i)))
        rows.append(said | {"changed": changed, "seconds_of_one_core": seconds} | drawn)
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Train what is not there yet, measure, and store."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, help="a folder that keeps the trainings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments.runs or Path(folder))
    content = {"processor": processor(), "versions": versions(), "seed": SEED, "rows": rows}
    RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
