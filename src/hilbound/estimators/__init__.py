"""Density estimators for tables, with scikit-learn's manners."""

from hilbound.estimators.density import MixtureDensityEstimator

__all__ = ["MixtureDensityEstimator"]
