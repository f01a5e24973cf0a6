"""The former name of :mod:`hilbound.models.networks`, for one release."""

import sys
import warnings

from hilbound.models import networks

warnings.warn(
    "hilbound.networks is now hilbound.models.networks; the old name will go",
    DeprecationWarning,
    stacklevel=2,
)
sys.modules[__name__] = networks
