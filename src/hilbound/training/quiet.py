"""Lightning without its notices on hardware and loaders, which no user of hilbound can act on."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Data in memory have no workers, a resumed run finds its own checkpoints, tiny data make few steps,
# an encoder that was taken over stays in evaluation mode, Lightning itself still uses a name that
# torch has deprecated, and what cannot be had is refused by hilbound itself.
_MESSAGES = (
    "many workers",
    "available but not used",
    "exists and is not empty",
    "log_every_n_steps",
    "in eval mode at the start of training",
    "LeafSpec",
    "fp16 is not supported",
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work in one thread for a while.

    Small batches gain nothing from more, sums come out alike on any machine, and on a busy one
    threads that wait for each other can be slower than one by a factor of ten.

    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
