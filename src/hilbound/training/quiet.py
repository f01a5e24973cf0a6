"""Less noise: Lightning's notices, on which nobody can act; our own, on request; idle threads."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# These notices do not apply to hilbound. Data in memory have no workers. A resumed run finds its
# own checkpoints. Tiny data make few steps. A frozen encoder stays in evaluation mode. Lightning
# itself uses a name that torch has deprecated. hilbound itself refuses unusable devices.
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
    """Silence Lightning inside a ``with`` block. Every setting is restored at the end.

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
def notices(*, quiet: bool) -> Iterator[None]:
    """If ``quiet``, leave out the library's notices inside a ``with`` block."""
    logger = logging.getLogger("hilbound")
    before = logger.level
    logger.setLevel(logging.ERROR if quiet else before)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work in one thread inside a ``with`` block.

    Small batches gain nothing from more threads. With one thread, sums are the same on every
    machine. On a busy machine, several threads that wait for each other can be ten times slower
    than one.

    >>> import torch
    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    # Imported here because the command line needs the rest of this module, but no torch at once.
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
