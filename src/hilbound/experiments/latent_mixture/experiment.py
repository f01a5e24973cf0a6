"""The latent mixture: how good its samples are, what limits them, and what its bounds say.

It is trained by its defaults. Beside its samples, reconstructions of training rows are measured in
their place: they show what the decoder loses, and the difference between both is what the density
of features loses. An autoencoder that draws features around those of training rows, and a
variational autoencoder, are trained for the same time of one core.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hilbound.datasets import Dataset
from hilbound.engine.seeding import stream
from hilbound.evaluation.latent import measure_latent
from hilbound.evaluation.spaces import MetricSpace
from hilbound.experiments.base import Cell, Claim, Experiment, Picture, Row, select, train
from hilbound.experiments.latent_mixture import page as pages
from hilbound.experiments.latent_mixture.settings import OWN, LatentSettings
from hilbound.experiments.shared.sample_quality import (
    features,
    images,
    parzen_row,
    sample_quality,
    training_rows,
)
from hilbound.models.latent import LatentMixture
from hilbound.reports.page import Table
from hilbound.training.runs import Run


class LatentExperiment(Experiment[LatentSettings]):
    """Samples, reconstructions, bounds and log-likelihood of latent mixtures."""

    name = "latent-mixture"
    title = "The latent mixture: samples as good as the data"
    question = pages.QUESTION

    def settings(self, *, quick: bool) -> LatentSettings:
        """Return the settings for MNIST, or a tiny training on digits."""
        if quick:
            tiny = {"width": 16, "batch_size": 32}
            return LatentSettings(
                data="digits",
                options=tiny | {"steps": 20, "features": 4, "components": 20},
                peers={
                    "autoencoder": tiny | {"model": "autoencoder", "features": 4},
                    "vae": tiny | {"model": "vae", "features": 4},
                },
                pilot_steps=5,
                samples=100,
            )
        return LatentSettings()

    def cells(
        self, settings: LatentSettings, seeds: Sequence[int], rows: Sequence[Row]
    ) -> Iterable[Cell]:
        """Return the floor, the latent mixtures, then the peers with the time that those took."""
        yield Cell.of(method="real", seed=0)
        for seed in seeds:
            yield Cell.of(method=OWN, seed=seed)
        for row in select(rows, method=OWN):
            for peer in settings.peers:
                options = {"method": peer, "seed": row["seed"]}
                seconds = round(row["training_seconds"])
                yield Cell(f"{peer}-{row['seed']}", options | {"seconds": seconds})

    def measure(self, settings: LatentSettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Train once and measure the samples; of the floor, measure training rows."""
        # The split is that of the training; the space is one for all seeds, or they could not be
        # compared.
        dataset = images(settings.data, seed=options["seed"])
        space = features(settings.data)
        if options["method"] == "real":
            samples = training_rows(dataset, settings.samples, 0)
            return _quality(dataset, space, samples)
        began = time.process_time()
        run = train(folder, **_options(settings, options, folder))
        # Seconds of one core: what else the machine does is no part of the time.
        trained: Row = {
            "training_seconds": time.process_time() - began,
            "steps": run.config.steps,
        }
        samples = run.model.sample(settings.samples, stream(options["seed"], "latent"))
        row = _quality(dataset, space, samples.to(dataset.test)) | trained
        return row | _own(run, dataset, space, settings.samples)

    def claims(self, settings: LatentSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return the goals, and what came out."""
        return pages.claims(settings, rows)

    def tables(self, settings: LatentSettings, rows: Sequence[Row]) -> list[Table]:
        """Return the quality of samples and reconstructions, and the bounds."""
        return pages.tables(settings, rows)

    def pictures(
        self, settings: LatentSettings, rows: Sequence[Row], work: Path
    ) -> Iterator[Picture]:
        """Draw samples beside held-out rows, and samples beside their nearest training rows."""
        return pages.pictures(settings, rows, work)

    def notes(self, settings: LatentSettings, rows: Sequence[Row]) -> str:
        """Return how the settings were chosen, and what does not help."""
        return pages.notes(settings, rows)


def _options(settings: LatentSettings, options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the options of a training. Those of a peer end when its time is over."""
    shared = {"data": settings.data, "seed": options["seed"]}
    if options["method"] == OWN:
        return shared | {"model": OWN} | settings.options
    own = shared | settings.peers[options["method"]]
    # A short training first, for the seconds that a start and a step take.
    pilots = []
    for factor in (1, 3):
        began = time.process_time()
        train(folder / "pilot", **own | {"steps": factor * settings.pilot_steps})
        pilots.append(time.process_time() - began)
    step = max((pilots[1] - pilots[0]) / (2 * settings.pilot_steps), 1e-6)
    start = max(pilots[0] - step * settings.pilot_steps, 0.0)
    return own | {"steps": max(1, round((options["seconds"] - start) / step))}


def _quality(dataset: Dataset, space: MetricSpace, samples: Tensor) -> Row:
    return sample_quality(dataset, space, samples) | parzen_row(dataset, samples)


def _own(run: Run, dataset: Dataset, space: MetricSpace, samples: int) -> Row:
    """Return what only a latent mixture has: reconstructions, bounds and a log-likelihood."""
    model, seed = run.model, run.config.seed
    if not isinstance(model, LatentMixture):
        return {}
    with torch.no_grad():
        rows = training_rows(dataset, samples, seed)
        reconstructed = model.reconstruct(rows, 1).squeeze(1)
    found = measure_latent(model, dataset.test, dataset.train, "test", seed)
    bound, likelihood = found["feature_bound"], found["log_likelihood"]
    held_out = [row for row in run.read_bounds() if row["split"] == "validation"]
    quality = sample_quality(dataset, space, reconstructed)
    return {f"reconstructed_{name}": value for name, value in quality.items()} | {
        "components": found["components"],
        "trace_tightness": held_out[-1]["tightness"],
        "feature_tightness": bound["tightness"],
        "real_feature_tightness": bound["real_tightness"],
        "feature_log_value": bound["log_value"],
        "feature_log_limit": bound["log_limit"],
        "feature_variance": bound["variance"],
        "log_likelihood": likelihood["mean"],
        "log_likelihood_error": likelihood["standard_error"],
        "error_of_draws": likelihood["error_of_draws"],
        "fewest_effective_draws": likelihood["fewest_effective_draws"],
        "output_variance": likelihood["variance"],
    }


EXPERIMENT = LatentExperiment()
