"""scikit-learn's manners, for tables: densities, conditional densities and an autoencoder."""

from hilbound.estimators.autoencoder import MixtureAutoencoder
from hilbound.estimators.conditional import ConditionalDensityEstimator
from hilbound.estimators.density import MixtureDensityEstimator

__all__ = ["ConditionalDensityEstimator", "MixtureAutoencoder", "MixtureDensityEstimator"]
