"""Exact tightness at 784 and 12,288 dimensions."""

from hilbound.experiments.high_dimensional_bound.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
