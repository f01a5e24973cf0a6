"""Does a fast nuclear norm cost quality? The same trainings by LAPACK's SVD and by the fast path.

    HILBOUND_DATA=path/to/data python docs/scripts/fast_paths.py

MNIST, nuclear norm, batches of 1,024 images against 1,024 centres, three seeds. Either path sees
the same batches, noise and initial weights; the only difference is the least size from which the
eigen method is taken. Runs that are already there are not repeated. Writes
``docs/results/fast_paths.json`` and the table between the marks of ``docs/engine.md``.
"""

import argparse
import json
import logging
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from marks import fill

import hilbound
from hilbound.config import RunConfig
from hilbound.engine.spectrum import plan
from hilbound.evaluation.evaluate import evaluate
from hilbound.training.machine import processor, versions
from hilbound.training.runs import Run

DOCS = Path(__file__).resolve().parents[2] / "docs"
SETTINGS: dict[str, Any] = {
    "data": "mnist",
    "samples": 20_000,
    "objective": "nuclear",
    "variance": 100,
    "width": 512,
    "batch_size": 1024,
    "learning_rate": 1e-2,
    "steps": 300,
    "validate_every": 300,
    "tensorboard": False,
}
SHOWN = ("coverage", "recall", "precision", "frechet_distance", "fidelity")
PATHS = {"svd": 10**9, "eigen": 0}
Row = dict[str, Any]


def one(folder: Path, path: str, seed: int) -> Row:
    """Train and measure by one of the paths, unless that was done before."""
    place = folder / f"{path}-{seed}"
    if not (place / "metrics.json").exists() or Run.open(place).config != RunConfig.create(
        seed=seed, **SETTINGS
    ):
        before = plan._LEAST_EIGEN
        plan._LEAST_EIGEN = PATHS[path]
        try:
            run = hilbound.fit(place, overwrite=True, quiet=True, seed=seed, **SETTINGS)
        finally:
            plan._LEAST_EIGEN = before
        evaluate(run, 2000)
    run = Run.open(place)
    measured = run.read_json("metrics.json")["metrics"]
    return {
        "path": path,
        "seed": seed,
        "validation_fidelity": run.read_bounds()[-1]["tightness"],
        **{name: measured[name]["model"] for name in SHOWN},
    }


def table(results: list[Row]) -> str:
    """Return the means and deviations of both paths as Markdown."""
    names = ("validation_fidelity", *SHOWN)
    lines = [
        "| path | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|---|" + "--:|" * len(names),
    ]
    for path in PATHS:
        rows = [row for row in results if row["path"] == path]
        cells = []
        for name in names:
            values = [row[name] for row in rows]
            digits = {"frechet_distance": 1, "validation_fidelity": 5}.get(name, 3)
            spread = stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{mean(values):.{digits}f} ± {spread:.{digits}f}")
        lines.append(f"| {path} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run both paths for every seed, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=DOCS.parent / "runs" / "fast_paths")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    results: list[Row] = []
    for seed in range(options.seeds):
        for path in PATHS:
            results.append(one(options.runs, path, seed))
            logging.info("%s", results[-1])
    content = {
        "settings": SETTINGS,
        "processor": processor(),
        "versions": versions(),
        "results": results,
    }
    (DOCS / "results" / "fast_paths.json").write_text(json.dumps(content, indent=2) + "\n")
    fill(DOCS / "engine.md", "quality", table(results))


if __name__ == "__main__":
    main()
