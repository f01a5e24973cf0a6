"""Generation with and without a condition, at equal time."""

from hilbound.experiments.block_generation.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
