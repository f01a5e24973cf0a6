"""The former name of :mod:`hilbound.evaluation.metrics`, for one release."""

import sys
import warnings

from hilbound.evaluation import metrics

warnings.warn(
    "hilbound.metrics is now hilbound.evaluation.metrics; the old name will go",
    DeprecationWarning,
    stacklevel=2,
)
sys.modules[__name__] = metrics
