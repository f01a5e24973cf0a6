"""Generation: samples of every objective, at equal steps and at equal time.

The same network is trained with every objective, once for the same number of steps and once for the
time that the nuclear norm takes for them. Beside them stand a variational autoencoder, and an
autoencoder that draws the features of its samples from those of training rows. Some of them are
then trained for longer. CelebA is measured, too, where its files are.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hilbound.datasets import Dataset, celeba
from hilbound.engine.seeding import stream
from hilbound.evaluation.spaces import MetricSpace
from hilbound.experiments.base import Cell, Claim, Experiment, Picture, Row, select, train
from hilbound.experiments.generation import page as pages
from hilbound.experiments.generation.settings import METHODS, GenerationSettings
from hilbound.experiments.shared.sample_quality import (
    features,
    images,
    parzen_row,
    sample_quality,
    training_rows,
)
from hilbound.reports.page import Table

#: The method whose time the others get.
REFERENCE = "nuclear"


class Generation(Experiment[GenerationSettings]):
    """Coverage, recall, precision, Fréchet distance, Vendi score and Parzen likelihood."""

    name = "generation"
    title = "Generation: samples of all objectives, at equal steps and equal time"
    question = pages.QUESTION

    def settings(self, *, quick: bool) -> GenerationSettings:
        """Return the settings for MNIST and CelebA, or a tiny training on digits."""
        if quick:
            return GenerationSettings(
                data=("digits",),
                width=16,
                noise_dim=4,
                batch_size=32,
                steps=10,
                samples=100,
                methods={
                    name: options | ({"features": 4} if "features" in options else {})
                    for name, options in METHODS.items()
                },
            )
        return GenerationSettings()

    def cells(
        self, settings: GenerationSettings, seeds: Sequence[int], rows: Sequence[Row]
    ) -> Iterable[Cell]:
        """Return the floor, then every method at equal steps, then by the time that those took."""
        for data in settings.data:
            if data == "celeba" and not celeba.is_there():
                continue
            yield Cell.of(data=data, method="real", budget="none", seed=0)
            for seed in seeds:
                for method in settings.methods:
                    yield Cell.of(data=data, method=method, budget="steps", seed=seed)
                yield from _by_time(settings, select(rows, data=data, seed=seed))

    def measure(
        self, settings: GenerationSettings, options: Mapping[str, Any], folder: Path
    ) -> Row:
        """Train once and measure the samples; of the floor, measure training rows."""
        shape = settings.celeba if options["data"] == "celeba" else {}
        # The split is that of the training; the space is one for all seeds, or they could not be
        # compared.
        dataset = images(options["data"], seed=options["seed"], **shape)
        space = features(options["data"], **shape)
        if options["method"] == "real":
            samples = training_rows(dataset, settings.samples, options["seed"])
            return _quality(dataset, space, samples)
        began = time.process_time()
        run = train(folder, **_options(settings, options, shape))
        # Seconds of one core: what else the machine does is no part of an equal time.
        trained = {"training_seconds": time.process_time() - began, "steps": run.config.steps}
        samples = run.model.sample(settings.samples, stream(options["seed"], "generation"))
        return _quality(dataset, space, samples.to(dataset.test)) | trained

    def identity(
        self, settings: GenerationSettings, options: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Return what one training depends on: not which other methods and data there are."""
        names = {"width", "noise_dim", "batch_size", "steps", "samples"}
        own = settings.model_dump(mode="json", include=names)
        if options["data"] == "celeba":
            own["celeba"] = settings.celeba
        return own | {"method": settings.methods.get(options["method"])}

    def claims(self, settings: GenerationSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return the goals, and what came out."""
        return pages.claims(settings, rows)

    def tables(self, settings: GenerationSettings, rows: Sequence[Row]) -> list[Table]:
        """Return a table for every data set and budget, and the published likelihoods."""
        return pages.tables(settings, rows)

    def pictures(
        self, settings: GenerationSettings, rows: Sequence[Row], work: Path
    ) -> Iterator[Picture]:
        """Draw precision against recall, and samples of every method."""
        return pages.pictures(settings, rows, work)

    def notes(self, settings: GenerationSettings, rows: Sequence[Row]) -> str:
        """Return what the two models with an encoder do, and what to do for CelebA."""
        return pages.notes(settings, rows)


def _options(
    settings: GenerationSettings, options: Mapping[str, Any], shape: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options of a training."""
    method = dict(settings.methods[options["method"]])
    shared = {
        "data": options["data"],
        "width": settings.width,
        "batch_size": min(settings.batch_size, method.pop("batch_size", settings.batch_size)),
        "steps": options.get("steps", settings.steps),
        "seed": options["seed"],
    }
    if "model" not in method:
        shared["noise_dim"] = settings.noise_dim
    return shared | method | dict(shape)


def _by_time(settings: GenerationSettings, rows: Sequence[Row]) -> Iterator[Cell]:
    """Return trainings of as many steps as fit into the time of the reference, or into more."""
    times = {row["method"]: row["training_seconds"] for row in select(rows, budget="steps")}
    if set(times) != set(settings.methods):
        return
    for method, seconds in times.items():
        ratio = times[REFERENCE] / seconds
        first = select(rows, budget="steps", method=method)[0]
        budgets = {"time": ratio, "longer": ratio * settings.longer}
        # Nearer than that, the time is the same to within what a busy machine makes of it.
        if abs(ratio - 1) < 0.1:
            del budgets["time"]
        if method not in settings.longer_methods:
            del budgets["longer"]
        for budget, factor in budgets.items():
            steps = max(1, round(settings.steps * factor))
            yield Cell.of(
                data=first["data"], method=method, budget=budget, seed=first["seed"], steps=steps
            )


def _quality(dataset: Dataset, space: MetricSpace, samples: Tensor) -> Row:
    return sample_quality(dataset, space, samples) | parzen_row(dataset, samples)


EXPERIMENT = Generation()
