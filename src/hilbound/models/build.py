"""The table of models by name, and the functions that build them from options."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hilbound.config import ONE_CENTRE
from hilbound.engine.seeding import seeded_globally, stream
from hilbound.errors import InputError
from hilbound.models.autoencoders import VAE, Autoencoder, EncoderMixtureDecoder, MixtureDecoder
from hilbound.models.base import DensityModel
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
    """

    dim: int
    image_shape: ImageShape | None = None
    rows: int = 0


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
) -> MixtureDensityNetwork:
    build = NETWORKS[config.network]
    network = build(config.noise_dim, data.dim, config.width, config.depth, data.image_shape)
    options = _mixture_options(config, data)
    return MixtureDensityNetwork(network, config.noise_dim, variance, **options)


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
    network = build(data.dim, outputs, config.width, config.depth, data.image_shape)
    pixels = data.image_shape is not None
    return Encoder(network, data.dim, standardized=outputs if standardized else None, pixels=pixels)


def _decoder(
    config: "RunConfig", data: DataShape, variance: float, *, noise_dim: int
) -> MixtureDecoder:
    build = NETWORKS[config.network]
    features = _features(config, data)
    network = build(features + noise_dim, data.dim, config.width, config.depth, data.image_shape)
    options = _mixture_options(config, data)
    return MixtureDecoder(network, features, noise_dim, variance, **options)


def _remembered(data: DataShape) -> int:
    return min(data.rows, REMEMBERED_ROWS)


@MODELS.register(
    "encoder-mixture-decoder", "input -> features -> noise -> mixture of centres for every input"
)
def _encoder_mixture_decoder(
    config: "RunConfig", data: DataShape, variance: float
) -> EncoderMixtureDecoder:
    return EncoderMixtureDecoder(
        _encoder(config, data, outputs=_features(config, data), standardized=True),
        _decoder(config, data, variance, noise_dim=config.noise_dim),
        # The configuration sets it for this model. The model refuses zero.
        variance_y=config.variance_y or 0.0,
        centers=config.centers or 1,
        eval_centers=config.eval_centers,
        rows=_remembered(data),
    )


@MODELS.register("autoencoder", "input -> features -> one centre: the trace of the Gaussian Gram")
def _autoencoder(config: "RunConfig", data: DataShape, variance: float) -> Autoencoder:
    # Pairs compare features, which therefore need a scale.
    noisy = config.variance_y is not None or config.objective == "joint-nuclear"
    return Autoencoder(
        _encoder(config, data, outputs=_features(config, data), standardized=noisy),
        _decoder(config, data, variance, noise_dim=0),
        variance_y=config.variance_y,
        rows=_remembered(data),
    )


@MODELS.register(
    "latent-mixture", "autoencoder whose features have a Gaussian mixture as their density"
)
def _latent_mixture(config: "RunConfig", data: DataShape, variance: float) -> LatentMixture:
    paired = config.objective in ONE_CENTRE
    if config.components is not None and config.components > data.rows > 0:
        raise InputError(
            f"components must be at most the {data.rows:,} training rows, got "
            f"{config.components}: give fewer components, or more rows"
        )
    return LatentMixture(
        _encoder(config, data, outputs=_features(config, data), standardized=True),
        _decoder(config, data, variance, noise_dim=0 if paired else config.noise_dim),
        # The configuration sets it for this model. The model refuses zero.
        variance_y=config.variance_y or 0.0,
        components=config.components,
        centers=1 if paired else config.centers or _CENTERS,
        eval_centers=None if paired else config.eval_centers,
    )


@MODELS.register("vae", "variational autoencoder, trained on the evidence lower bound: a baseline")
def _vae(config: "RunConfig", data: DataShape, variance: float) -> VAE:
    return VAE(
        _encoder(config, data, outputs=2 * _features(config, data), standardized=False),
        _decoder(config, data, variance, noise_dim=0),
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
    with seeded_globally(stream(config.seed, "weights").initial_seed()):
        return build(config, data, variance)
