"""Models: networks that make Gaussian mixtures. They depend on neither runs nor training."""

from hilbound.models.autoencoders import VAE, Autoencoder, EncoderMixtureDecoder, MixtureDecoder
from hilbound.models.base import DensityModel
from hilbound.models.blocks import BlockDensityNetwork, Clusters
from hilbound.models.build import MODELS, REMEMBERED_ROWS, DataShape, build_model
from hilbound.models.classes import ClassConditional, ClassDecoder
from hilbound.models.density import MixtureDensityNetwork
from hilbound.models.encoder import Encoder
from hilbound.models.feature_mixture import FeatureMixture
from hilbound.models.latent import LatentMixture

__all__ = [
    "MODELS",
    "REMEMBERED_ROWS",
    "VAE",
    "Autoencoder",
    "BlockDensityNetwork",
    "ClassConditional",
    "ClassDecoder",
    "Clusters",
    "DataShape",
    "DensityModel",
    "Encoder",
    "EncoderMixtureDecoder",
    "FeatureMixture",
    "LatentMixture",
    "MixtureDecoder",
    "MixtureDensityNetwork",
    "build_model",
]
