"""Tables of names: what they hold, and what they say to a name that they don't."""

from collections.abc import Mapping

import pytest

from hilbound.errors import InputError
from hilbound.registry import Registry, suggest


@pytest.fixture
def fruits():
    registry = Registry("fruit")
    registry.register("apple", "An apple.")("APPLE")
    registry.register("banana", "A banana.")("BANANA")
    return registry


def test_it_is_a_mapping_in_the_order_of_registration(fruits):
    assert isinstance(fruits, Mapping)
    assert dict(fruits) == {"apple": "APPLE", "banana": "BANANA"}
    assert list(fruits) == ["apple", "banana"]
    assert len(fruits) == 2


def test_membership_is_asked_without_an_error(fruits):
    assert "apple" in fruits
    assert "cherry" not in fruits
    assert 3 not in fruits


def test_descriptions(fruits):
    assert fruits.describe("banana") == "A banana."


def test_registering_returns_the_entry_itself(fruits):
    @fruits.register("cherry", "A function.")
    def cherry():
        return "CHERRY"

    assert fruits["cherry"] is cherry
    assert cherry() == "CHERRY"


@pytest.mark.parametrize("read", [Registry.__getitem__, Registry.describe])
def test_a_name_that_is_nearly_right_gets_a_hint(fruits, read):
    message = r"^unknown fruit 'aple': did you mean 'apple'\? known: apple, banana$"
    with pytest.raises(InputError, match=message):
        read(fruits, "aple")


def test_a_name_that_is_far_off_gets_the_list(fruits):
    with pytest.raises(InputError, match=r"^unknown fruit 'zzz': known: apple, banana$"):
        fruits["zzz"]


def test_it_cannot_be_assigned_to(fruits):
    with pytest.raises(TypeError, match="item assignment"):
        fruits["cherry"] = "CHERRY"


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("mons", ["moons", "digits"], "did you mean 'moons'? "),
        ("moons", iter(["digits"]), ""),
        ("x", [], ""),
    ],
)
def test_suggest(name, known, hint):
    assert suggest(name, known) == hint
