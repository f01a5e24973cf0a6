"""A program of a user, as a type checker sees it: its types come from the installed package."""

import torch

from hilbound import Bound, GaussianMixture, NuclearNorm, functional
from hilbound.estimators import ConditionalDensityEstimator


def tightness(x: torch.Tensor, y: torch.Tensor) -> float:
    p = GaussianMixture(x, variance=0.1)
    q = GaussianMixture(y, variance=0.1)
    bound: Bound = NuclearNorm().bound(p, q)
    value: torch.Tensor = functional.fidelity(p, q)
    return float(bound.tightness) + float(value)


def estimator(seed: int) -> ConditionalDensityEstimator:
    return ConditionalDensityEstimator(random_state=seed)
