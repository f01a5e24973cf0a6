"""What all tests share: how examples are drawn, and a source of random numbers."""

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
