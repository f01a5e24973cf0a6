"""The former name of :mod:`hilbound.reports.plots`, for one release."""

import sys
import warnings

from hilbound.reports import plots

warnings.warn(
    "hilbound.plots is now hilbound.reports.plots; the old name will go",
    DeprecationWarning,
    stacklevel=2,
)
sys.modules[__name__] = plots
