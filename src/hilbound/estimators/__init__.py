"""Density estimators for tables, with scikit-learn's manners."""

from hilbound.estimators.autoencoder import MixtureAutoencoder
from hilbound.estimators.density import MixtureDensityEstimator

__all__ = ["MixtureAutoencoder", "MixtureDensityEstimator"]
