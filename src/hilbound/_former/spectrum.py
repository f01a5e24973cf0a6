"""The former name of what is in :mod:`hilbound.engine.spectrum`, for one release."""

import warnings

from hilbound.engine.spectrum.norms import check_drop, default_drop, nuclear_norm, schatten_power
from hilbound.engine.spectrum.plan import NormPlan as Plan
from hilbound.engine.spectrum.plan import plan_norm as plan
from hilbound.engine.spectrum.svd import effective_rank, singular_values

__all__ = [
    "Plan",
    "check_drop",
    "default_drop",
    "effective_rank",
    "nuclear_norm",
    "plan",
    "schatten_power",
    "singular_values",
]

warnings.warn(
    "hilbound.spectrum is now hilbound.engine.spectrum (norms, plan and svd); the old name will go",
    DeprecationWarning,
    stacklevel=2,
)
