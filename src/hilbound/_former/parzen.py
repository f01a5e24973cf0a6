"""The former name of :mod:`hilbound.evaluation.parzen`, for one release."""

import sys
import warnings

from hilbound.evaluation import parzen

warnings.warn(
    "hilbound.parzen is now hilbound.evaluation.parzen; the old name will go",
    DeprecationWarning,
    stacklevel=2,
)
sys.modules[__name__] = parzen
