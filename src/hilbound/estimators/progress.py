"""Progress for those who ask for it: a bar on a terminal, plain lines in a file or a pipe."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hilbound.training.durations import Forecast, in_words

# Seconds between two plain lines.
_EVERY = 5.0


@contextmanager
def progress_bar(label: str, total: int, *, shown: bool) -> Iterator[Callable[[], None]]:
    """Lend a function that says on stderr that one step more is done; without a bar it is silent.

    >>> with progress_bar("fitting", 3, shown=False) as advance:
    ...     advance()
    """
    if not shown:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        yield _Lines(label, total, console.print)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(label, total=total)
        yield lambda: bar.advance(task)


class _Lines:
    """Says every few seconds how far a work is.

    Args:
        label: What the work is.
        total: Number of steps.
        say: Prints a line.
        every: Seconds between two lines.
    """

    def __init__(
        self, label: str, total: int, say: Callable[..., None], every: float = _EVERY
    ) -> None:
        self._label, self._total, self._say, self._every = label, total, say, every
        self._done = 0
        self._forecast = Forecast(total)
        self._forecast.rest(0)
        self._said = time.monotonic()
        self._print(f"{total:,} steps")

    def _print(self, what: str) -> None:
        self._say(f"{self._label}: {what}", highlight=False, soft_wrap=True)

    def __call__(self) -> None:
        self._done += 1
        rest = self._forecast.rest(self._done)
        if time.monotonic() - self._said < self._every:
            return
        self._said = time.monotonic()
        line = f"step {self._done:,} of {self._total:,}"
        if rest is not None and rest >= 1:
            line += f", about {in_words(rest)} to go"
        self._print(line)
