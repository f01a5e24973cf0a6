"""The objectives against what people would use in their place, at equal time."""

from hilbound.experiments.peers.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
