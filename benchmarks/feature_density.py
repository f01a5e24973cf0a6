"""How the density of a latent mixture's features is fitted and drawn from, on validation images.

    HILBOUND_DATA=path/to/data python benchmarks/feature_density.py            # trains first
    HILBOUND_DATA=path/to/data python benchmarks/feature_density.py --run RUN  # an earlier training

One latent mixture is trained on MNIST, with a seed that no experiment has. Then the density of its
features is fitted with several numbers of components and with covariances that are drawn more or
less towards their mean. From each, 5,000 samples are drawn three times, with and without a
refinement, and compared with 5,000 validation images. Everything is stored, with the machine and
the versions, in ``benchmarks/results/feature_density.json``.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hilbound
from hilbound.engine.expectation.algorithm import Regularisation
from hilbound.engine.seeding import stream
from hilbound.evaluation.quality import measure_in_space
from hilbound.experiments.shared.sample_quality import features, novelty, training_rows
from hilbound.models import feature_mixture
from hilbound.models.latent import LatentMixture
from hilbound.training.machine import processor, versions
from hilbound.training.runs import Run

RESULT = Path(__file__).resolve().parent / "results" / "feature_density.json"
SEED, STEPS = 10, 10_000
SAMPLES, DRAWS = 5000, 3
#: (components, rows' worth of the common scatter); all of them refined.
FITS = ((500, 15.0), (500, 5.0), (500, 45.0), (350, 15.0), (125, 15.0))
#: Of the first fit.
REFINEMENTS = (0, 1, 2)
SHOWN = ("coverage", "recall", "precision", "frechet_distance")


class Bench:
    """A trained model and the rows to compare with."""

    def __init__(self, run: Run) -> None:
        model = run.model
        if not isinstance(model, LatentMixture):
            raise SystemExit(f"{run.path} is no run of a latent mixture")
        self.run, self.model, self.data = run, model, run.dataset
        self.space = features("mnist")
        with torch.no_grad():
            self.train = model.features_of(self.data.train)
            self.held_out = model.features_of(self.data.validation)

    def fit(self, components: int, shrinkage: float) -> dict[str, Any]:
        """Fit the density, and return how probable it makes features."""
        # The number of rows is no option of the model: this script is where it was chosen.
        ridge = feature_mixture._REGULARISATION.ridge
        feature_mixture._REGULARISATION = Regularisation(shrinkage=shrinkage, ridge=ridge)
        density = self.model.density
        density.components = components
        generator = stream(self.run.config.seed, "feature density")
        density.fit(self.train, self.held_out, generator=generator)
        q = density.mixture()
        return {
            "components": components,
            "shrinkage": shrinkage,
            "log_density_of_training_features": float(q.log_prob(self.train[:SAMPLES]).mean()),
            "log_density_of_held_out_features": float(q.log_prob(self.held_out).mean()),
        }

    def quality(self, draw: Callable[[int], Tensor]) -> dict[str, float]:
        """Return the mean quality of some sets of samples."""
        real, rows = self.data.validation[:SAMPLES], []
        for seed in range(DRAWS):
            samples = draw(seed).to(real)
            row = measure_in_space(real, samples, self.space)
            own = novelty(self.data.train, self.data.validation, samples)
            rows.append({name: row[name] for name in SHOWN} | {"novelty": own})
        return {name: statistics.mean(row[name] for row in rows) for name in rows[0]}

    def samples(self, seed: int) -> Tensor:
        """Draw samples of the density that is fitted."""
        return self.model.sample(SAMPLES, stream(seed, "feature density samples"))


def measure(run: Run) -> list[dict[str, Any]]:
    """Return a row for real images, and one for every fit and refinement."""
    bench = Bench(run)
    rows: list[dict[str, Any]] = []
    real = bench.quality(lambda seed: training_rows(bench.data, SAMPLES, seed))
    rows.append({"method": "training rows", **real})
    print(rows[-1], flush=True)
    for i, (components, shrinkage) in enumerate(FITS):
        fitted = bench.fit(components, shrinkage)
        for refinements in REFINEMENTS if i == 0 else (1,):
            bench.model.refinements = refinements
            said = {"method": "latent mixture", "refinements": refinements, **fitted}
            rows.append(said | bench.quality(bench.samples))
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Train if no run is given, measure, and store."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, help=f"a latent mixture of MNIST, seed {SEED}")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = (
            Run.open(arguments.run)
            if arguments.run
            else hilbound.fit(
                Path(folder, "run"), data="mnist", model="latent-mixture", seed=SEED, steps=STEPS
            )
        )
        steps, rows = run.config.steps, measure(run)
    content = {"processor": processor(), "versions": versions(), "seed": SEED, "steps": steps}
    RESULT.write_text(json.dumps(content | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
