"""What all tests share: how examples are drawn, and a source of random numbers."""

import functools
import importlib.metadata
import signal

import pytest
import torch
from hypothesis import settings

from hilbound import bounds

# The same examples on every machine and every run; no deadline, because machines differ in speed.
settings.register_profile("hilbound", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("hilbound")

# A shell starts what it puts in the background with Ctrl-C ignored, and children inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Lightning asks for them at every training, and looks into every package that is installed.
importlib.metadata.entry_points = functools.cache(importlib.metadata.entry_points)

#: What takes longest begins first: side by side, a long file at the end would be waited for.
LONG = ("test_together.py", "test_runner.py", "test_commands.py", "test_failures.py")


def pytest_collection_modifyitems(items):
    """Put the long files before the others, and leave the order within files as it is."""
    items.sort(key=lambda item: LONG.index(name) if (name := item.path.name) in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_the_disk():
    """No test pulls the plug, so none has to wait for the disk. Tests of saving watch the calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture
def cut(monkeypatch):
    """Blocks as small as saves work, so that small problems are cut like large ones."""
    monkeypatch.setattr(bounds, "_BLOCK_WORK", 0)


@pytest.fixture
def compiler():
    """Compiling switches the validation of distributions off for the whole process."""
    before = torch.distributions.Distribution._validate_args
    torch._dynamo.reset()
    yield
    torch.distributions.Distribution.set_default_validate_args(before)


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh generator with the same seed for every test."""
    return torch.Generator().manual_seed(0)
