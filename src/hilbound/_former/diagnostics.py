"""The former name of :mod:`hilbound.training.failures`, for one release."""

import sys
import warnings

from hilbound.training import failures

warnings.warn(
    "hilbound.diagnostics is now hilbound.training.failures; the old name will go",
    DeprecationWarning,
    stacklevel=2,
)
sys.modules[__name__] = failures
