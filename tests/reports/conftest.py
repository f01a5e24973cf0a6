"""What the tests of pages in a browser share."""

import pytest

from support.browser import browser


@pytest.fixture(scope="module")
def opened():
    """A running browser."""
    with browser() as running:
        yield running
