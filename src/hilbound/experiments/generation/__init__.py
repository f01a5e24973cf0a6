"""Samples of all objectives and the VAE, at equal steps and at equal time."""

from hilbound.experiments.generation.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
