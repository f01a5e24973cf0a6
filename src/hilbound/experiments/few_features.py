"""Few features: is a mixture decoder more universal where features are too few?

The paper says that a decoder to a mixture is more universal than an autoencoder where an encoder
makes too few features. Whether that is so can only show in how a lead changes with the number of
features, all else alike: so all models are trained with 1, 2, 4, 8 and 16.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from hilbound.engine.seeding import stream
from hilbound.evaluation.quality import METRICS
from hilbound.experiments.base import (
    Cell,
    Claim,
    Experiment,
    Picture,
    Row,
    Settings,
    beyond,
    select,
    spread,
    together,
    train,
    values_of,
)
from hilbound.experiments.shared.sample_quality import features, images, sample_quality
from hilbound.reports.drawing import canvas, draw_line, look, tidy
from hilbound.reports.page import Table

MIXTURE, PLAIN, VAE = "mixture decoder", "autoencoder", "vae"
SLICES = "mixture decoder, by slices"
SHOWN = (("coverage", 3), ("recall", 3), ("precision", 3), ("frechet_distance", 1))
#: Too few features for digits, and enough.
FEW, ENOUGH = 2, 8

#: Every model with its options. Noise on features is the same where a model has any.
MODELS: dict[str, dict[str, Any]] = {
    PLAIN: {"model": "autoencoder", "objective": "mse", "variance_y": 0.01},
    SLICES: {
        "model": "encoder-mixture-decoder",
        "slices": 8,
        "batch_size": 512,
        "objective_options": {"weight": 0.42},
    },
    MIXTURE: {"model": "encoder-mixture-decoder", "centers": 10},
    VAE: {"model": "vae"},
}


class FewSettings(Settings):
    """The training that all cells share."""

    data: str = "digits"
    numbers: tuple[int, ...] = (1, 2, 4, 8, 16)
    width: int = 256
    batch_size: int = 128
    steps: int = 400
    learning_rate: float = 2e-3
    samples: int = 2000


class FewFeatures(Experiment[FewSettings]):
    """Coverage and recall of samples against the number of features, for four models."""

    name = "few-features"
    title = "Few features: where a mixture decoder leads an autoencoder"
    question = """
An encoder with too few features cannot say which image it saw. A plain autoencoder then answers
with an average of all images that share the feature. A mixture decoder can answer with many. It is
claimed to be *more universal when features are too few*. If so, it leads in coverage + recall of
samples with one and two features, and the lead shrinks as features are added.

There are two mixture decoders. One is trained together with its encoder on the conditional cost,
with 10 centres for every row. The other is fitted to the encoder of the plain autoencoder, *by
slices*: a step compares 8 features with 64 rows each, and as many centres. Networks, steps,
learning rate and the noise on the features are the same for all. So are batches, except those of
the slices. A mixture decoder has noise as a further input, and decodes more centres than rows. So
its seconds stand beside it. Samples are decoded features of training rows with their noise (of the
VAE, draws of its prior).
"""

    def settings(self, *, quick: bool) -> FewSettings:
        """Return the settings of digits, or a tiny training."""
        if quick:
            return FewSettings(numbers=(1, 8), width=16, batch_size=32, steps=5, samples=100)
        return FewSettings()

    def cells(
        self, settings: FewSettings, seeds: Sequence[int], rows: Sequence[Row]
    ) -> Iterable[Cell]:
        """Return a training of every model with every number of features and every seed.

        Slices wait for the autoencoder whose encoder they take over.
        """
        plain = {(row["features"], row["seed"]) for row in select(rows, model=PLAIN)}
        for number in settings.numbers:
            for model in MODELS:
                for seed in seeds:
                    if model != SLICES or (number, seed) in plain:
                        yield _cell(model, number, seed)

    def measure(self, settings: FewSettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Train once and measure samples against test rows."""
        number, seed, own = options["features"], options["seed"], MODELS[options["model"]]
        shared = settings.model_dump(include={"width", "batch_size", "steps", "learning_rate"})
        shared |= {"data": settings.data, "features": number, "seed": seed}
        if options["model"] == SLICES:
            source = folder.parent / _cell(PLAIN, number, seed).name / "run"
            shared |= {"encoder": str(source)}
        began = time.process_time()
        run = train(folder, **shared | own)
        seconds = time.process_time() - began
        dataset = images(settings.data, seed=options["seed"])
        samples = run.model.sample(settings.samples, stream(options["seed"], "few-features"))
        quality = sample_quality(dataset, features(settings.data), samples.to(dataset.test))
        return quality | {"training_seconds": seconds}

    def claims(self, settings: FewSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return claims about the lead with few features, and about how it changes."""
        few = [number for number in settings.numbers if number <= FEW]
        return [
            *(_leads(rows, SLICES, number, PLAIN) for number in few),
            _shrinks(settings, rows, SLICES),
            _leads(rows, SLICES, settings.numbers[0], VAE),
            *(_leads(rows, MIXTURE, number, PLAIN) for number in few),
            _shrinks(settings, rows, MIXTURE),
            _leads(rows, MIXTURE, settings.numbers[0], VAE),
        ]

    def tables(self, settings: FewSettings, rows: Sequence[Row]) -> list[Table]:
        """Return the metrics of every model and number of features."""
        lines = tuple(
            (
                str(number),
                model,
                spread(scores(rows, model, number), 2),
                *(spread(values_of(rows, n, model=model, features=number), d) for n, d in SHOWN),
                spread(values_of(rows, "novelty", model=model, features=number), 2),
                spread(values_of(rows, "training_seconds", model=model, features=number), 0),
            )
            for number in settings.numbers
            for model in MODELS
        )
        titles = (METRICS[name].title for name, _ in SHOWN)
        return [
            Table(
                ("features", "model", "coverage + recall", *titles, "Novelty", "seconds"),
                lines,
                f"Samples of {settings.data} against test rows, {settings.steps} steps each",
            )
        ]

    def pictures(self, settings: FewSettings, rows: Sequence[Row], work: Path) -> Iterator[Picture]:
        """Draw coverage + recall against the number of features."""
        del work
        figure, ax = canvas(6.2, 3.6)
        for i, model in enumerate(MODELS):
            means = [mean(scores(rows, model, number)) for number in settings.numbers]
            draw_line(ax, np.array(settings.numbers), np.array(means), model, look(i))
            for number in settings.numbers:
                values = scores(rows, model, number)
                ax.plot([number] * len(values), values, "o", color=look(i)[0], ms=3, alpha=0.5)
        ax.set(xscale="log", ylim=(0, 2.05), xlabel="features", ylabel="coverage + recall")
        ax.set_xticks(settings.numbers, [str(number) for number in settings.numbers])
        ax.minorticks_off()
        tidy(ax)
        ax.legend(frameon=False, fontsize=9, loc="lower right")
        yield Picture(
            "features",
            figure,
            "Coverage + recall of samples against the number of features, a line for each model",
            "Lines: mean over the seeds; points: the seeds. 2 is perfect.",
        )

    def notes(self, settings: FewSettings, rows: Sequence[Row]) -> str:
        """Say what is small."""
        del rows
        return (
            f"Small images ({settings.data}) and short trainings. Settings are the library's "
            "defaults for each model but for what is listed. Of the slices, their number and the "
            "weight (.42, which MNIST had in an earlier trial) were tried once on validation rows "
            "with one seed; nothing else was tuned. Seconds are those of one busy core. With many "
            "features hardly any row shares another's, and the nearest rows fill the slices."
        )


def scores(rows: Sequence[Row], model: str, number: int) -> list[float]:
    """Return coverage + recall of every seed.

    >>> row = {"model": "vae", "features": 1, "coverage": 0.25, "recall": 0.5}
    >>> scores([row], "vae", 1)
    [0.75]
    """
    own = select(rows, model=model, features=number)
    return [float(row["coverage"]) + float(row["recall"]) for row in own]


def leads(rows: Sequence[Row], model: str, number: int) -> list[float]:
    """Return a mixture decoder's lead over the autoencoder, for every seed."""
    pairs = zip(scores(rows, model, number), scores(rows, PLAIN, number), strict=True)
    return [a - b for a, b in pairs]


def _cell(model: str, number: int, seed: int) -> Cell:
    return Cell.of(model=model, features=number, seed=seed)


def _leads(rows: Sequence[Row], model: str, number: int, other: str) -> Claim:
    own, theirs = scores(rows, model, number), scores(rows, other, number)
    several = "1 feature" if number == 1 else f"{number} features"
    return Claim(
        f"With {several}, “{model}” is ahead of “{other}” in coverage + recall, in every seed",
        f"{spread(own, 2)} against {spread(theirs, 2)}",
        beyond(own, theirs),
    )


def _shrinks(settings: FewSettings, rows: Sequence[Row], model: str) -> Claim:
    by_number = {number: leads(rows, model, number) for number in settings.numbers}
    few = [v for number, values in by_number.items() if number <= FEW for v in values]
    enough = [v for number, values in by_number.items() if number >= ENOUGH for v in values]
    return Claim(
        f"The lead of “{model}” over the autoencoder is larger with at most {FEW} features than "
        f"with {ENOUGH} or more, in every seed, and positive there",
        ", ".join(f"{mean(values):+.2f} with {number}" for number, values in by_number.items()),
        together([beyond(few, enough), beyond(few, [0.0])]),
    )


EXPERIMENT = FewFeatures()
