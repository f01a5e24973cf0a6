r"""Gaussian mixtures as torch distributions, with inner products in closed form.

A data set and a model are both mixtures :math:`p = \sum_i a_i N(\cdot - x_i; v_i)`. The inner
product of two mixtures is a double sum of Gaussians (:mod:`hilbound.engine.gram`). The squared norm
:math:`\langle p, p \rangle` gives Rényi's quadratic entropy
:math:`H_2(p) = -\log \langle p, p \rangle`.
"""

from hilbound.mixture.base import Estimate, Mixture
from hilbound.mixture.full import FullGaussianMixture
from hilbound.mixture.gaussian import GaussianMixture
from hilbound.mixture.inner import in_common_unit, precise_log_inner

__all__ = [
    "Estimate",
    "FullGaussianMixture",
    "GaussianMixture",
    "Mixture",
    "in_common_unit",
    "precise_log_inner",
]
