"""Training class-conditional models in a loop of one's own.

Every decoder gets the class beside the features (:mod:`hilbound.models.classes`). The loop is a
plain one: a comparison of mixtures, an objective of this library, any optimiser.
"""

from collections.abc import Iterator
from functools import partial
from typing import cast

import torch
from torch import Tensor

from hilbound.datasets import Dataset
from hilbound.engine.seeding import seeded_globally, stream
from hilbound.experiments.class_conditional.settings import (
    LONGER,
    MIXTURES,
    SLICES,
    ClassSettings,
)
from hilbound.experiments.shared.descent import descend
from hilbound.models.autoencoders import VAE, Autoencoder, EncoderMixtureDecoder, FeatureModel
from hilbound.models.classes import ClassConditional, ClassDecoder
from hilbound.models.encoder import Encoder
from hilbound.models.networks import MLP, ConvEncoder
from hilbound.objectives import Likelihood, MeanSquaredError, Objective, Schatten
from hilbound.training.batches import BatchStream, SharingRows, SliceStream
from hilbound.variance import median_variance


def build(
    settings: ClassSettings, dataset: Dataset, kind: str, features: int
) -> tuple[FeatureModel, Objective]:
    """Return a model whose decoder is told the class, and what it is trained with."""
    f, classes, dim = features, dataset.classes or 1, dataset.dim
    median = median_variance(dataset.train, generator=stream(0, "median"))
    shape = dataset.image_shape
    if shape is None:
        raise TypeError(f"{dataset.name} has no images")
    noise = settings.noise_dim if kind in (*MIXTURES, SLICES) else 0
    network = MLP(f + classes + noise, dim, settings.width, 2)
    outputs = 2 * f if kind == "vae" else f
    convolutions = ConvEncoder(shape, outputs, settings.channels, 2)
    encoder = Encoder(convolutions, dim, standardized=None if kind == "vae" else f, pixels=True)
    decoder = partial(ClassDecoder, network, f, noise, classes=classes, bounded=True)
    if kind == "vae":
        return VAE(encoder, decoder(median / dim, learn_variance=True)), Likelihood()
    # Each side of a comparison has half of the kernel's variance.
    plain = decoder(median / 2 if kind == SLICES else settings.variance_share * median)
    if kind in ("autoencoder", LONGER):
        return Autoencoder(encoder, plain, variance_y=settings.variance_y), MeanSquaredError()
    mixture = EncoderMixtureDecoder(
        encoder, plain, variance_y=settings.variance_y, centers=settings.centers
    )
    return mixture, Schatten() if kind == SLICES else MIXTURES[kind]()


def train(
    model: ClassConditional,
    objective: Objective,
    dataset: Dataset,
    settings: ClassSettings,
    *,
    steps: int,
    seed: int,
) -> None:
    """Train a class-conditional model: one comparison, one objective, any optimiser."""
    adam = torch.optim.Adam(model.parameters(), settings.learning_rate)
    variance = float(model.decoder.variance)
    labels = train_labels(dataset)
    batches = BatchStream(torch.arange(len(labels)), settings.batch_size, steps, seed)

    def losses() -> Iterator[Tensor]:
        for step, rows in enumerate(batches):
            noise = stream(seed, "noise", step)
            p, q, penalty = model.compare(
                dataset.train[rows], variance, model.model.centers, noise, labels[rows]
            )
            yield objective(p, q).mean() + penalty

    descend(adam, losses(), steps)


def train_by_slices(
    model: ClassConditional,
    objective: Objective,
    dataset: Dataset,
    settings: ClassSettings,
    *,
    seed: int,
) -> None:
    """Train the decoder on rows that share a class and a feature. The encoder stays as it is."""
    network, labels = model.model, train_labels(dataset)
    network.freeze_encoder()
    with torch.no_grad():
        features = network.encode(dataset.train)
    sharing = SharingRows(dataset.train, features, settings.variance_y, labels)
    batches = SliceStream(
        sharing,
        slices=settings.slices,
        batch_size=settings.slice_rows,
        steps=settings.slice_steps,
        seed=seed,
    )
    # The momentum of the library's own training by slices.
    adam = torch.optim.Adam(
        model.decoder.parameters(), settings.slice_learning_rate, betas=(0.5, 0.9)
    )
    variance = float(model.decoder.variance)

    def losses() -> Iterator[Tensor]:
        for step, (x, own, y) in enumerate(batches):
            noise = stream(seed, "noise", step)
            with model.decoder.told(cast("Tensor", own)):
                p, q, penalty = network.compare_slices(
                    x, cast("Tensor", y), variance, x.shape[1], noise
                )
            yield objective(p, q).mean() + penalty

    descend(adam, losses(), settings.slice_steps)


def trained(
    settings: ClassSettings, dataset: Dataset, kind: str, features: int, seed: int
) -> ClassConditional:
    """Return a trained model, weights and batches drawn from the seed."""
    with seeded_globally(stream(seed, "weights").initial_seed()):
        network, objective = build(settings, dataset, kind, features)
    model = ClassConditional(network)
    if kind == SLICES:
        autoencoder = trained(settings, dataset, "autoencoder", features, seed)
        network.encoder.load_state_dict(autoencoder.model.encoder.state_dict())
        train_by_slices(model, objective, dataset, settings, seed=seed)
    else:
        # A mixture decoder makes several images of every row: more steps are a fairer amount of
        # work.
        steps = settings.steps * (settings.longer if kind == LONGER else 1)
        train(model, objective, dataset, settings, steps=steps, seed=seed)
    model.remember(dataset.train, train_labels(dataset))
    return model


def train_labels(dataset: Dataset) -> Tensor:
    """Return the labels of the training rows."""
    if dataset.train_labels is None:
        raise TypeError(f"{dataset.name} has no labels")
    return dataset.train_labels
