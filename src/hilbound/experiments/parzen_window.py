"""The Parzen window: how high a log-likelihood of it our models reach, and what that says.

Papers compare generative models on MNIST by the log-likelihood of test images under Gaussians
around 10,000 samples. The figure rewards samples that are smooth and near the data. So models stand
beside two kinds of samples that nothing was learned for: training images, and means of them.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hilbound.engine.gram import squared_distances
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
    drawn_from,
    mean_of,
    select,
    spread,
    train,
    values_of,
)
from hilbound.experiments.generation.page import PUBLISHED
from hilbound.experiments.shared.descent import descend
from hilbound.experiments.shared.sample_quality import (
    features,
    images,
    parzen_row,
    sample_quality,
    training_rows,
)
from hilbound.mixture import GaussianMixture
from hilbound.models.autoencoders import FeatureModel
from hilbound.objectives import Likelihood
from hilbound.reports import plots
from hilbound.reports.page import Table
from hilbound.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REAL, MEANS = "training images", "means of training images"
PLAIN, POLISHED = "autoencoder", "autoencoder, polished"
#: The best published log-likelihood, in nats.
BEST = 340.0
SHOWN = (("coverage", 3), ("recall", 3), ("precision", 3), ("frechet_distance", 1))
SAMPLES = "samples.safetensors"
_IMAGES, _COLUMNS = 40, 8
_CHUNK = 1000


class WindowSettings(Settings):
    """The autoencoder, how it is polished, and what is measured."""

    data: str = "mnist"
    features: int = 12
    variance_y: float = 0.05
    width: int = 768
    batch_size: int = 256
    steps: int = 1600
    learning_rate: float = 2e-3
    polish_rows: int = 256
    polish_centers: int = 2048
    polish_steps: int = 500
    polish_learning_rate: float = 1e-3
    polish_variance_y: float = 0.01
    polish_variance: float = 0.024
    neighbours: int = 5
    samples: int = 10_000


class ParzenWindow(Experiment[WindowSettings]):
    """Log-likelihoods under a Parzen window, beside the quality of the samples."""

    name = "parzen-window"
    title = "The Parzen window: a high figure, and what it says"
    question = """
Many papers compare generative models on MNIST by one figure: the log-likelihood of the test images
under Gaussians around 10,000 samples. Their variance is chosen on validation images. How high can
our models come, and what does the figure say about samples?

The *autoencoder* has 12 features with noise, and is trained by squared error. A sample is a decoded
training image, its features moved by noise. Then its decoder is *polished*, with less noise: 2,048
samples are made from training images, and their mixture of Gaussians is to make 256 other training
images likely. So no image is compared with its own reconstruction. Nothing was learned for the
other two: *training images*, and *means* of a training image and its nearest neighbours.

The features, the noise, the steps and the variance while polishing were chosen on validation images
with seed 0, among ten trainings.
"""

    def settings(self, *, quick: bool) -> WindowSettings:
        """Return the settings for MNIST, or a tiny training on digits."""
        if quick:
            return WindowSettings(
                data="digits",
                features=4,
                width=16,
                batch_size=32,
                steps=10,
                polish_rows=16,
                polish_centers=32,
                polish_steps=5,
                samples=100,
            )
        return WindowSettings()

    def cells(
        self, settings: WindowSettings, seeds: Sequence[int], rows: Sequence[Row]
    ) -> Iterable[Cell]:
        """Return what nothing is learned for, the autoencoders, then those that are polished."""
        yield from (_cell(method, 0) for method in (REAL, MEANS))
        yield from (_cell(PLAIN, seed) for seed in seeds)
        yield from (_cell(POLISHED, row["seed"]) for row in select(rows, method=PLAIN))

    def measure(self, settings: WindowSettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Make samples in one way, and measure them."""
        method, seed = options["method"], int(options["seed"])
        # The split is that of the training; the space is one for all seeds, or they could not be
        # compared.
        dataset = images(settings.data, seed=seed)
        row: Row = {}
        if method in (REAL, MEANS):
            samples = training_rows(dataset, settings.samples, seed)
            if method == MEANS:
                samples = means_of_neighbours(samples, dataset.train, settings.neighbours)
        else:
            began = time.process_time()
            model = _model(settings, folder, method, dataset.train, seed)
            row["training_seconds"] = time.process_time() - began
            samples = model.sample(settings.samples, stream(seed, "parzen")).to(dataset.test)
        shape = dataset.image_shape or (1, 1, dataset.dim)
        shown = samples[:_IMAGES].unflatten(-1, shape).contiguous()
        save_file({"samples": shown}, folder / SAMPLES)
        quality = sample_quality(dataset, features(settings.data), samples)
        return row | quality | parzen_row(dataset, samples)

    def claims(self, settings: WindowSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return the goal, what polishing does, and what the figure rewards."""
        found = {m: values_of(rows, "parzen", method=m) for m in (REAL, MEANS, PLAIN, POLISHED)}
        real, means = found[REAL][0], found[MEANS][0]
        return [
            Claim(
                f"The polished autoencoder is above {BEST:g} nats, the best published, in every "
                "seed",
                f"{spread(found[POLISHED], 1)}; training images in the place of samples reach "
                f"{real:.0f}",
                beyond(found[POLISHED], [BEST]),
            ),
            Claim(
                "Polishing raises the figure, in every seed",
                f"{spread(found[POLISHED], 1)} against {spread(found[PLAIN], 1)}",
                beyond(found[POLISHED], found[PLAIN]),
            ),
            Claim(
                "The figure rewards blur: means of training images get more than the images",
                f"means of an image and its {settings.neighbours - 1} nearest {means:.0f}, the "
                f"images {real:.0f}",
                beyond([means], [real]),
            ),
        ]

    def tables(self, settings: WindowSettings, rows: Sequence[Row]) -> list[Table]:
        """Return the figure beside the quality of samples, and the published ones."""
        lines = tuple(
            (
                method,
                spread(values_of(rows, "parzen", method=method), 1),
                f"{mean_of(select(rows, method=method), 'parzen_error'):.1f}",
                *(spread(values_of(rows, n, method=method), d) for n, d in SHOWN),
                spread(values_of(rows, "novelty", method=method), 2),
                spread(seconds, 0) if seconds else "–",
            )
            for method in (REAL, MEANS, PLAIN, POLISHED)
            for seconds in [values_of(rows, "training_seconds", method=method)]
        )
        titles = (METRICS[name].title for name, _ in SHOWN)
        head = ("samples", "Parzen, nats", "its error by rows", *titles, "Novelty", "seconds")
        found = [Table(head, lines, f"{settings.samples:,} samples against the test rows")]
        if settings.data == "mnist":
            caption = "Parzen log-likelihood of MNIST's test set, as published"
            found.append(Table(("published", "nats"), PUBLISHED, caption))
        return found

    def pictures(
        self, settings: WindowSettings, rows: Sequence[Row], work: Path
    ) -> Iterator[Picture]:
        """Draw samples of every kind."""
        files = {m: work / _cell(m, 0).name / SAMPLES for m in (REAL, MEANS, PLAIN, POLISHED)}
        kept = Picture(
            "samples",
            None,
            "Four blocks of images: training images, means of them, and samples of two models",
            "Samples of every kind, not chosen, seed 0.",
        )
        yield drawn_from(files.values(), lambda: replace(kept, figure=_grid(files)), kept)

    def notes(self, settings: WindowSettings, rows: Sequence[Row]) -> str:
        """Say what the figure is not."""
        real, own = (select(rows, method=method) for method in (REAL, POLISHED))
        return (
            f"Real images reach {mean_of(real, 'parzen'):.0f} nats and cover "
            f"{mean_of(real, 'coverage'):.0%} of the test images. The polished model reaches "
            f"{mean_of(own, 'parzen'):.0f} and covers {mean_of(own, 'coverage'):.0%}. So a higher "
            "figure does not mean better samples. It is read beside coverage and recall, never "
            "alone. Samples of both models start from single training images. Novelty says how "
            "much of them is left (1 nothing, 0 a copy). The seconds are those of one core; those "
            "of the polished model do not include the autoencoder's."
        )


def polish(model: FeatureModel, rows: Tensor, settings: WindowSettings, seed: int) -> None:
    """Train a decoder so that samples from some rows make other rows likely.

    Args:
        model: The model. Its encoder stays as it is, its features get less noise.
        rows: Training rows with shape ``(N, d)``.
        settings: Rows and samples of a step, the steps, the variance of a Gaussian.
        seed: Seed of the rows and of the noise.
    """
    model.freeze_encoder()
    model.variance_y = settings.polish_variance_y
    with torch.no_grad():
        codes = torch.cat([model.encode(part) for part in rows.split(_CHUNK)])
    adam = torch.optim.Adam(model.decoder.parameters(), settings.polish_learning_rate)
    objective, variance = Likelihood(), settings.polish_variance
    b, m = settings.polish_rows, settings.polish_centers

    def losses() -> Iterator[Tensor]:
        for step in range(settings.polish_steps):
            order = torch.randperm(len(rows), generator=stream(seed, "polish", step))
            noise = stream(seed, "noise while polishing", step)
            q = model.decode(model.perturb(codes[order[b : b + m]], noise), 1, noise)
            centers = GaussianMixture(q.means.flatten(0, 1), variance)
            yield objective(GaussianMixture(rows[order[:b]], variance), centers)

    descend(adam, losses(), settings.polish_steps)


def means_of_neighbours(x: Tensor, rows: Tensor, k: int) -> Tensor:
    """Return the mean of the k rows nearest to each point, with shape ``(n, d)``.

    >>> rows = torch.tensor([[0.0], [1.0], [5.0]])
    >>> means_of_neighbours(rows[:1], rows, 2)
    tensor([[0.5000]])
    """
    near = [squared_distances(part, rows).topk(k, largest=False).indices for part in x.split(500)]
    return torch.cat([rows[part].mean(1) for part in near])


def _cell(method: str, seed: int) -> Cell:
    return Cell(
        f"{method.replace(',', '').replace(' ', '-')}-{seed}", {"method": method, "seed": seed}
    )


def _model(
    settings: WindowSettings, folder: Path, method: str, rows: Tensor, seed: int
) -> FeatureModel:
    """Return a trained autoencoder, or polish the one of the same seed."""
    if method == PLAIN:
        names = {"features", "variance_y", "width", "batch_size", "steps", "learning_rate", "data"}
        options = settings.model_dump(include=names)
        run = train(folder, model="autoencoder", objective="mse", seed=seed, **options)
        return cast("FeatureModel", run.model)
    run = Run.open(folder.parent / _cell(PLAIN, seed).name / "run")
    model = cast("FeatureModel", run.model)
    polish(model, rows, settings, seed)
    return model


def _grid(files: Mapping[str, Path]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 1.8), layout="constrained")
    for ax, (method, file) in zip(figure.subplots(1, len(files)), files.items(), strict=True):
        plots.plot_images(ax, load_file(file)["samples"], _COLUMNS)
        ax.set_title(method, fontsize=9)
    return figure


EXPERIMENT = ParzenWindow()
