"""What all tests share: how examples are drawn, and a source of random numbers."""

import pytest
import torch
from hypothesis import settings

# The same examples on every machine and every run; no deadline, because machines differ in speed.
settings.register_profile("hilbound", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("hilbound")


@pytest.fixture
def generator() -> torch.Generator:
    """A fresh generator with the same seed for every test."""
    return torch.Generator().manual_seed(0)
