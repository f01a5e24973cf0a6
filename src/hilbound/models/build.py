"""The table of models by name, and the functions that build them from options."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hilbound.engine.memory import machine_memory
from hilbound.engine.seeding import seeded_globally, stream
from hilbound.errors import InputError
from hilbound.models.autoencoders import (
    VAE,
    Autoencoder,
    EncoderMixtureDecoder,
    FeatureModel,
    MixtureDecoder,
)
from hilbound.models.base import DensityModel
from hilbound.models.blocks import BlockDensityNetwork, Clusters
from hilbound.models.classes import ClassConditional, ClassDecoder
from hilbound.models.density import MixtureDensityNetwork
from hilbound.models.encoder import Encoder
from hilbound.models.latent import LatentMixture
from hilbound.models.networks import ENCODERS, NETWORKS, ImageShape
from hilbound.registry import Registry

if TYPE_CHECKING:
    from hilbound.config import RunConfig


@dataclass(frozen=True)
class DataShape:
    """The facts about its data that a model needs.

    Args:
        dim: Number of coordinates of a row.
        image_shape: ``(channels, height, width)`` if rows are images.
        rows: Number of training rows.
        classes: Number of classes, or ``None`` without labels.
    """

    dim: int
    image_shape: ImageShape | None = None
    rows: int = 0
    classes: int | None = None


#: A function of (config, shape of the data, variance of a component) that builds a model.
ModelBuilder = Callable[["RunConfig", DataShape, float], DensityModel]

MODELS: Registry[ModelBuilder] = Registry("model")

#: A latent mixture has at most so many features by default, and as many as coordinates at most.
_LATENT_FEATURES = 32
#: Its centres for every input, where an objective compares several.
_CENTERS = 10

#: A model with an encoder remembers the features of at most this many training rows.
REMEMBERED_ROWS = 10_000


def _mixture_options(config: "RunConfig", data: DataShape) -> dict[str, Any]:
    return {
        "learn_weights": config.learn_weights,
        "learn_variance": config.learn_variance,
        "min_variance": config.min_variance,
        "bounded": data.image_shape is not None,
    }


@MODELS.register("mixture-density-network", "noise -> network -> centres of a Gaussian mixture")
def _mixture_density_network(
    config: "RunConfig", data: DataShape, variance: float
) -> MixtureDensityNetwork | BlockDensityNetwork:
    build = NETWORKS[config.network]
    blocks = number_of_blocks(config, data) or 0
    inputs = config.noise_dim + blocks
    network = build(inputs, data.dim, config.width, config.depth, data.image_shape)
    options = _mixture_options(config, data)
    if not blocks:
        return MixtureDensityNetwork(network, config.noise_dim, variance, **options)
    clusters = None if config.clusters is None else Clusters(blocks, data.dim, data.rows)
    return BlockDensityNetwork(
        network, config.noise_dim, variance, blocks=blocks, clusters=clusters, **options
    )


def number_of_blocks(config: "RunConfig", data: DataShape) -> int | None:
    """Return the number of classes or clusters that a model is conditioned on, or ``None``.

    Raises:
        InputError: If it is conditioned on classes, and the data have no labels.
    """
    if config.condition is None or config.clusters is not None:
        return config.clusters
    if data.classes is None:
        raise InputError(
            f"condition 'classes' needs labels, and {config.data!r} has none: name the column that "
            "holds them (label_column), or use condition 'clusters=32' with "
            "mixture-density-network"
        )
    return data.classes


def _features(config: "RunConfig", data: DataShape) -> int:
    """Return the number of features. A latent mixture takes as many as it can use."""
    return min(_LATENT_FEATURES, data.dim) if config.features is None else config.features


def _encoder(config: "RunConfig", data: DataShape, *, outputs: int, standardized: bool) -> Encoder:
    features = _features(config, data)
    if not 1 <= features <= data.dim:
        raise InputError(
            f"features must lie between 1 and the {data.dim} coordinates of the data, got "
            f"{features}: an encoder must not return more numbers than its input has"
        )
    build = ENCODERS[config.network]
    network = build(data.dim, outputs, *config.encoder_size, data.image_shape)
    pixels = data.image_shape is not None
    return Encoder(network, data.dim, standardized=outputs if standardized else None, pixels=pixels)


def _decoder(
    config: "RunConfig", data: DataShape, variance: float, *, noise_dim: int
) -> MixtureDecoder:
    build = NETWORKS[config.network]
    classes = number_of_blocks(config, data)
    features = _features(config, data)
    inputs = features + (classes or 0) + noise_dim
    network = build(inputs, data.dim, config.width, config.depth, data.image_shape)
    options = _mixture_options(config, data)
    if classes is None:
        return MixtureDecoder(network, features, noise_dim, variance, **options)
    return ClassDecoder(network, features, noise_dim, variance, classes=classes, **options)


def _remembered(config: "RunConfig", data: DataShape) -> int:
    """Return how many features the model itself remembers: a class-conditional one none."""
    return 0 if config.condition is not None else min(data.rows, REMEMBERED_ROWS)


def _told_classes(config: "RunConfig", data: DataShape, model: FeatureModel) -> DensityModel:
    if config.condition is None:
        return model
    without = isinstance(model, VAE | LatentMixture)
    rows = 0 if without else min(data.rows, REMEMBERED_ROWS)
    return ClassConditional(model, rows)


@MODELS.register(
    "encoder-mixture-decoder", "input -> features -> noise -> mixture of centres for every input"
)
def _encoder_mixture_decoder(config: "RunConfig", data: DataShape, variance: float) -> DensityModel:
    model = EncoderMixtureDecoder(
        _encoder(config, data, outputs=_features(config, data), standardized=True),
        _decoder(config, data, variance, noise_dim=config.noise_dim),
        # The configuration sets it for this model. The model refuses zero.
        variance_y=config.variance_y or 0.0,
        centers=config.centers or (config.rows_per_slice if config.slices else 1),
        eval_centers=config.eval_centers,
        rows=_remembered(config, data),
    )
    return _told_classes(config, data, model)


@MODELS.register("autoencoder", "input -> features -> one centre: the trace of the Gaussian Gram")
def _autoencoder(config: "RunConfig", data: DataShape, variance: float) -> DensityModel:
    # Pairs compare features, which therefore need a scale.
    noisy = config.variance_y is not None or config.objective == "joint-nuclear"
    model = Autoencoder(
        _encoder(config, data, outputs=_features(config, data), standardized=noisy),
        _decoder(config, data, variance, noise_dim=0),
        variance_y=config.variance_y,
        rows=_remembered(config, data),
    )
    return _told_classes(config, data, model)


@MODELS.register(
    "latent-mixture", "autoencoder whose features have a Gaussian mixture as their density"
)
def _latent_mixture(config: "RunConfig", data: DataShape, variance: float) -> DensityModel:
    # Imported here because configurations need pydantic, and networks do not.
    from hilbound.config import ONE_CENTRE

    paired = config.objective in ONE_CENTRE
    if config.components is not None and config.components > data.rows > 0:
        raise InputError(
            f"components must be at most the {data.rows:,} training rows, got "
            f"{config.components}: give fewer components, or more rows"
        )
    model = LatentMixture(
        _encoder(config, data, outputs=_features(config, data), standardized=True),
        _decoder(config, data, variance, noise_dim=0 if paired else config.noise_dim),
        # The configuration sets it for this model. The model refuses zero.
        variance_y=config.variance_y or 0.0,
        components=config.components,
        classes=number_of_blocks(config, data) or 1,
        centers=1 if paired else config.centers or _CENTERS,
        eval_centers=None if paired else config.eval_centers,
    )
    return _told_classes(config, data, model)


@MODELS.register("vae", "variational autoencoder, trained on the evidence lower bound: a baseline")
def _vae(config: "RunConfig", data: DataShape, variance: float) -> DensityModel:
    model = VAE(
        _encoder(config, data, outputs=2 * _features(config, data), standardized=False),
        _decoder(config, data, variance, noise_dim=0),
    )
    return _told_classes(config, data, model)


def model_shapes(
    config: "RunConfig", data: DataShape, variance: float
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tensors of the model that a configuration names.

    The model is built without memory for its weights. So a configuration of any size can be
    compared with a file of weights, or with the memory of the machine.

    Args:
        config: The options of the run.
        data: The shape of its data.
        variance: Variance of a component at the start.

    Raises:
        InputError: If the model or the network is unknown, or does not fit the data.
    """
    with torch.device("meta"):
        model = MODELS[config.model](config, data, variance)
    return {name: tuple(t.shape) for name, t in model.state_dict().items()}


def _refuse_large(config: "RunConfig", data: DataShape, variance: float) -> None:
    """Raise an InputError if the weights alone do not fit into memory."""
    numbers = sum(map(math.prod, model_shapes(config, data, variance).values()))
    memory = machine_memory()
    if memory is not None and 4 * numbers > memory:
        raise InputError(
            f"the model has {numbers:,} weights, which take {4 * numbers / 1e9:.0f} GB, and this "
            f"machine has {memory / 1e9:.0f} GB of memory: lower --width or --depth"
        )


def build_model(config: "RunConfig", data: DataShape, variance: float) -> DensityModel:
    """Build the model that a configuration names. Its seed determines the initial weights.

    Args:
        config: The options of the run.
        data: The shape of its data.
        variance: Variance of a component at the start.

    Raises:
        InputError: If the model or the network is unknown, or does not fit the data.

    >>> from hilbound.config import RunConfig
    >>> build_model(RunConfig(data="moons", width=8), DataShape(2), 0.5).noise_dim
    16
    """
    build = MODELS[config.model]
    _refuse_large(config, data, variance)
    with seeded_globally(stream(config.seed, "weights").initial_seed()):
        return build(config, data, variance)
