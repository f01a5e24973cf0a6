"""Ctrl-C and SIGTERM as requests: noted at once, obeyed where it is safe."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: What asks for a stop between two steps.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen(asked: threading.Event) -> None:
    """Let Ctrl-C and SIGTERM ask for a stop; a second one stops at once. What is ignored stays so.

    Clusters send SIGTERM before they end a job.
    """
    heard = [one for one in SIGNALS if signal.getsignal(one) != signal.SIG_IGN]

    def ask(*_: object) -> None:
        asked.set()
        for one in heard:
            signal.signal(one, signal.default_int_handler)

    for one in heard:
        signal.signal(one, ask)


@contextmanager
def interruptible(asked: threading.Event) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM ask for a stop between two steps; a second one stops at once.

    Clusters send SIGTERM before they end a job. Afterwards the former handlers are restored.
    Lightning alone would leave Ctrl-C switched off.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in SIGNALS}
    listen(asked)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
