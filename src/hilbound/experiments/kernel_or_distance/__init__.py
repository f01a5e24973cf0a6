"""The Gaussian kernel against raw distances and other kernels."""

from hilbound.experiments.kernel_or_distance.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
