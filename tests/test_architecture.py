"""The house is as docs/internals/architecture.md paints it."""

import ast
import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "hilbound"
PICTURE = (ROOT / "docs" / "internals" / "architecture.md").read_text(encoding="utf-8")

TABLE = {"mixture", "variance", "functional", "bounds", "objectives"}
GROUND = {"errors", "arguments", "registry"}
ROOMS = sorted(p.parent for p in SOURCE.glob("*/__init__.py"))


def layers() -> list[list[str]]:
    rules = configparser.ConfigParser()
    rules.read(ROOT / ".importlinter")
    lines = rules["importlinter:contract:layers"]["layers"].split("\n")
    return [sorted(re.split(r"\s*[|:]\s*", line)) for line in lines if line]


def test_the_root_is_the_table_and_the_ground():
    files = {p.stem for p in SOURCE.glob("*.py")} - {"__init__", "__main__"}
    # A noun of several files is a folder.
    folders = {room.name for room in ROOMS} & TABLE
    assert files | folders == TABLE | GROUND


def test_the_picture_names_every_room_and_no_other():
    painted = set(re.findall(r"^\| `([a-z]+)/` \|", PICTURE, flags=re.MULTILINE))
    assert painted == {room.name for room in ROOMS}


def test_the_picture_has_the_lines_that_are_enforced():
    (block,) = re.findall(r"## The ten lines.*?```\n(.*?)```", PICTURE, flags=re.DOTALL)
    painted = [sorted(re.split(r"[ |,]+", line)) for line in block.strip().splitlines()]
    assert painted == layers()
    assert len(painted) == 10


def test_every_room_and_file_of_the_root_is_on_one_line():
    on_lines = [name for line in layers() for name in line]
    assert sorted(on_lines) == sorted({room.name for room in ROOMS} | TABLE | GROUND)


@pytest.mark.parametrize("room", sorted(SOURCE.rglob("*/__init__.py")), ids=lambda p: p.parent.name)
def test_every_room_says_its_purpose_in_one_line(room):
    purpose = ast.get_docstring(ast.parse(room.read_text(encoding="utf-8")))
    first = purpose.splitlines()[0]
    assert first.endswith(".")
    assert 20 < len(first) < 100


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda p: p.stem)
def test_every_file_says_what_it_is_for(file):
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


def test_tests_live_in_the_room_that_they_test():
    """A file in a room's folder bears the name of a module there, or is a property of several."""
    folders = {p.name for p in (ROOT / "tests").iterdir() if p.is_dir()}
    # Hostile files and scale cut through all rooms.
    folders -= {"support", "data", "hostile", "__pycache__"}
    assert folders <= {room.name for room in ROOMS}
