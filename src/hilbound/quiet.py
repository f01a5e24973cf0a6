"""Lightning without its notices on hardware and loaders, which no user of hilbound can act on."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Data in memory have no workers, a resumed run finds its own checkpoints, tiny data make few steps,
# and Lightning itself still uses a name that torch has deprecated.
_MESSAGES = (
    "many workers",
    "available but not used",
    "exists and is not empty",
    "log_every_n_steps",
    "LeafSpec",
)
_LOGGERS = ("lightning.pytorch", "lightning.fabric")


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning for a while; every setting is put back at the end.

    >>> with quiet_lightning():
    ...     logging.getLogger("lightning.pytorch").isEnabledFor(logging.INFO)
    False
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in _MESSAGES:
            warnings.filterwarnings("ignore", message=f".*{message}.*")
        try:
            for logger in loggers:
                logger.setLevel(logging.WARNING)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
