"""Tables of names that users type, one for each kind of object, with hints for unknown names."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TypeVar

from hilbound.errors import InputError

T = TypeVar("T")


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``"did you mean 'moons'? "`` or the empty string.

    >>> suggest("mons", ["moons", "digits"])
    "did you mean 'moons'? "
    """
    close = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}? " if close else ""


class Registry(Mapping[str, T]):
    """A read-only mapping from the names on the command line to objects.

    Args:
        kind: The word for an entry in messages, for example ``"objective"``.

    >>> greetings = Registry[str]("greeting")
    >>> greetings.register("hello", "Say hello.")(str.title)
    <method 'title' of 'str' objects>
    >>> greetings.describe("hello")
    'Say hello.'
    >>> greetings["helo"]
    Traceback (most recent call last):
        ...
    hilbound.errors.InputError: unknown greeting 'helo': did you mean 'hello'? known: hello
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}
        self._descriptions: dict[str, str] = {}

    def register(self, name: str, description: str) -> Callable[[T], T]:
        """Return a decorator that registers an object under ``name``, with a short description."""

        def file(entry: T) -> T:
            self._entries[name] = entry
            self._descriptions[name] = description
            return entry

        return file

    def describe(self, name: str) -> str:
        """Return the one-line description of an entry."""
        self[name]
        return self._descriptions[name]

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise InputError(
                f"unknown {self.kind} {name!r}: {suggest(name, self._entries)}"
                f"known: {', '.join(self._entries)}"
            )
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
