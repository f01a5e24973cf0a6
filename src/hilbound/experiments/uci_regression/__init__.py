"""Conditional densities on four tables, with the published splits."""

from hilbound.experiments.uci_regression.experiment import EXPERIMENT

__all__ = ["EXPERIMENT"]
