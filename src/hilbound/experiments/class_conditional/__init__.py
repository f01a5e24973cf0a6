"""Images by class: mixture decoder, autoencoder and VAE."""

from hilbound.experiments.class_conditional.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
