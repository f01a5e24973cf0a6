"""Density models for tables, with scikit-learn's manners."""

from hilbound.estimators.conditional import ConditionalDensityEstimator

__all__ = ["ConditionalDensityEstimator"]
