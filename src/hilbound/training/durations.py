"""How long a work takes: in words, and foreseen from what is done of it."""

import time
from collections.abc import Callable

# Of shorter works, and of fewer steps, nothing can be said.
_LEAST_SECONDS, _LEAST_STEPS = 1.0, 3


def in_words(seconds: float) -> str:
    """Return a duration, rounded to what an estimate is good for.

    >>> [in_words(s) for s in (0.4, 7.2, 43, 95, 1000, 4000, 40000)]
    ['1 s', '7 s', '45 s', '2 min', '17 min', '1 h 5 min', '11 h']
    """
    if seconds < 10:
        return f"{max(1, round(seconds))} s"
    if seconds < 57.5:
        return f"{5 * round(seconds / 5)} s"
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 600:
        hours, rest = divmod(5 * round(minutes / 5), 60)
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{round(minutes / 60)} h"


class Forecast:
    """Foresees the rest of a work from the pace so far.

    The first step is not counted: it does what is done once.

    Args:
        total: Number of steps.
        clock: Returns seconds.

    >>> now = iter([0.0, 10.0, 12.0, 14.0, 16.0])
    >>> forecast = Forecast(10, clock=lambda: next(now))
    >>> [forecast.rest(step) for step in (0, 1, 2, 3, 4)]
    [None, None, None, None, 12.0]
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self._clock = clock
        self._from: tuple[int, float] | None = None
        self._first: int | None = None

    def rest(self, step: int) -> float | None:
        """Return the seconds that are left when ``step`` steps are done, or ``None`` if unknown."""
        now = self._clock()
        if self._first is None:
            self._first = step
            return None
        if self._from is None:
            self._from = step, now
            return None
        done, passed = step - self._from[0], now - self._from[1]
        if done < _LEAST_STEPS or passed < _LEAST_SECONDS:
            return None
        return passed / done * (self.total - step)
