"""A latent mixture on MNIST, beside models with an encoder that train as long."""

from hilbound.experiments.latent_mixture.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
