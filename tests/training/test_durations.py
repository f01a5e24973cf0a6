"""Estimates of time: none where nothing is known, and right where the pace is even."""

import re

from hypothesis import given
from hypothesis import strategies as st

from hilbound.training.durations import Forecast, in_words

SECONDS = {"s": 1, "min": 60, "h": 3600}


@given(st.floats(0, 1e7, allow_nan=False))
def test_words_are_within_a_tenth_of_the_seconds(seconds):
    told = sum(
        int(n) * SECONDS[unit] for n, unit in re.findall(r"(\d+) (s|min|h)", in_words(seconds))
    )
    assert abs(told - seconds) <= max(0.1 * seconds, 1) or 55 < seconds < 90
    assert told > 0


def ticking(*times):
    clock = iter(times)
    return lambda: next(clock)


@given(st.integers(10, 1000), st.floats(0.5, 100), st.floats(0, 1000), st.integers(0, 5))
def test_an_even_pace_is_continued_whatever_the_first_step_took(total, pace, slow, start):
    steps = range(start, start + 9)
    times = [0, *(slow + pace * i for i in range(1, 9))]
    forecast = Forecast(start + total, ticking(*times))
    found = [forecast.rest(step) for step in steps]
    assert found[:4] == [None] * 4
    assert abs(found[-1] - pace * (total - 8)) < 1e-6 * (total * pace + slow + 1)


def test_of_a_tiny_training_nothing_is_said():
    forecast = Forecast(8, ticking(*(0.01 * i for i in range(9))))
    assert [forecast.rest(step) for step in range(9)] == [None] * 9
