"""How a long work tells what it is at: it calls a function with a few words before each part."""

from collections.abc import Callable
from typing import TypeAlias

#: What is called with a few words before each part of a work.
Tell: TypeAlias = Callable[[str], None]


def silent(what: str) -> None:
    """Tell nobody."""
    del what
