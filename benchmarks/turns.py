"""Timing functions that take turns, so that what else the machine does meets all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping

#: What tells the time: wall time, or the time of all cores.
WALL, CORES = time.perf_counter, time.process_time


def take_turns(
    methods: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = WALL,
) -> dict[str, list[float]]:
    """Return the seconds of every function and round, after one round of warming up."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(rounds + 1):
        for name, method in methods.items():
            began = clock()
            method()
            if number:
                seconds[name].append(clock() - began)
    return seconds


def medians(
    methods: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = WALL,
) -> dict[str, float]:
    """Return the median milliseconds of functions that take turns."""
    seconds = take_turns(methods, rounds, clock)
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}
