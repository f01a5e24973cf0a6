"""What a command shows while it works: nothing that is not needed, and never silence for long."""

import io
import re
import time

import pytest
from rich.console import Console

from hilbound.cli import stages
from support.tiny_runs import ask

pytest_plugins = ["support.fixtures_runs"]


@pytest.fixture
def screen(monkeypatch):
    """A console in memory; it is a terminal where a test says so."""
    written = io.StringIO()

    def use(*, terminal):
        console = Console(file=written, force_terminal=terminal, width=80)
        monkeypatch.setattr(stages, "err", console)
        return written

    return use


def test_plain_lines_come_every_few_seconds_and_name_the_part(screen):
    written = screen(terminal=False)
    with stages.Stages("evaluating", every=0.02) as tell:
        tell("the bound")
        deadline = time.monotonic() + 5
        while written.getvalue().count("\n") < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    lines = written.getvalue().splitlines()
    assert len(lines) >= 3
    assert all(re.fullmatch(r"evaluating(: the bound)?, \d s", line) for line in lines)


def test_what_is_done_at_once_says_nothing(screen):
    written = screen(terminal=False)
    with stages.Stages("evaluating") as tell:
        tell("the bound")
    assert written.getvalue() == ""


def test_a_terminal_shows_the_part_and_the_time_and_is_left_clean(screen):
    written = screen(terminal=True)
    with stages.Stages("evaluating") as tell:
        tell("the bound")
        time.sleep(0.25)
    assert "evaluating: the bound" in written.getvalue()
    assert "0:00:00" in written.getvalue()
    assert written.getvalue().rstrip("\n").endswith("\x1b[2K")


def test_quiet_shows_nothing(screen):
    written = screen(terminal=True)
    with stages.Stages("evaluating", quiet=True) as tell:
        tell("the bound")
    assert written.getvalue() == ""


def test_a_slow_evaluation_names_its_parts(trained, monkeypatch):
    told = []

    class Listening(stages.Stages):
        def __call__(self, what):
            told.append(what)

    for module in ("commands", "comparing"):
        monkeypatch.setattr(f"hilbound.cli.{module}.Stages", Listening)
    assert ask("evaluate", trained.path).exit_code == 0
    assert told == [
        "reading the data",
        "fitting the space of the metrics",
        "samples against held-out rows",
        "real data against held-out rows",
        "the bound",
    ]
    told.clear()
    (trained.path / "metrics.json").unlink()
    assert ask("report", trained.path).exit_code == 0
    assert told[-2:] == ["the bound", "drawing"]
