"""The best variance of the kernel, and rules that choose it."""

from hilbound.experiments.variance_sweep.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
