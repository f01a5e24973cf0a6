"""Show what a command is at: a line that moves on a terminal, plain lines in a file or a pipe."""

import threading
import time
from typing import Self

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hilbound.cli.base import err


class Stages:
    """Tells the parts of a work, inside a ``with`` block. Calling it names the next part.

    Args:
        title: What the work is.
        quiet: Whether to show nothing.
        every: Seconds between two plain lines, where there is no terminal.
    """

    def __init__(self, title: str, *, quiet: bool = False, every: float = 5.0) -> None:
        self._said = title
        self._title = title
        self._every = every
        self._over = threading.Event()
        self._bar = self._thread = None
        if quiet:
            return
        if err.is_terminal:
            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._bar = Progress(*columns, console=err, transient=True)
        else:
            self._thread = threading.Thread(target=self._lines, daemon=True)

    def __call__(self, what: str) -> None:
        """Name the part that begins."""
        self._said = f"{self._title}: {what}"
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], description=self._said)

    def __enter__(self) -> Self:
        """Begin."""
        if self._bar is not None:
            self._bar.add_task(self._title)
            self._bar.start()
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, and leave nothing on the screen."""
        self._over.set()
        if self._bar is not None:
            self._bar.stop()
        if self._thread is not None:
            self._thread.join()

    def _lines(self) -> None:
        began = time.monotonic()
        while not self._over.wait(self._every):
            line = f"{self._said}, {time.monotonic() - began:.0f} s"
            err.print(line, highlight=False, soft_wrap=True, markup=False)
