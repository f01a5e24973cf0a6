"""Every message that the page on troubleshooting quotes is one that the library says."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
MESSAGES = [
    line for block in re.findall(r"```\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]
# A message is told from words that occur anywhere by this many letters of its own.
_LEAST = 20


def _literals(node):
    """Return the parts of a text in the source that stay as they are, or ``None`` for others."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("%d", "%s").split("%s")
    if isinstance(node, ast.JoinedStr):
        parts = [""]
        for value in node.values:
            if isinstance(value, ast.Constant):
                parts[-1] += value.value
            else:
                parts.append("")
        return parts
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = (_literals(side) or ["", ""] for side in (node.left, node.right))
        return [*left[:-1], left[-1] + right[0], *right[1:]]
    return None


@cache
def texts_of_the_source():
    found = set()
    for file in (ROOT / "src" / "hilbound").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            parts = _literals(node)
            if parts and sum(map(len, parts)) >= _LEAST:
                found.add(tuple(parts))
    return found


def is_said(message):
    """Whether some text of the source can become the message, whole or from its first colon on."""
    # The name of the file, and a colon, may stand before what another function says.
    texts = {message, message.partition(": ")[2]}
    return any(
        all(part in text for part in parts)
        and re.fullmatch(".*?".join(map(re.escape, parts)), text, re.DOTALL)
        for text in texts
        for parts in texts_of_the_source()
    )


def test_the_page_quotes_many_messages():
    assert len(MESSAGES) >= 25


@pytest.mark.parametrize("message", MESSAGES, ids=lambda text: text[:40])
def test_every_message_is_one_that_the_library_says(message):
    assert is_said(message)


def test_a_message_that_nobody_says_is_found_out():
    assert not is_said("people.csv: 3 values are missing: remove these rows, or give others")
    assert not is_said(MESSAGES[-1].replace("cannot be written", "could not be written"))


def test_it_is_linked_where_people_look():
    for page, link in (
        ("README.md", "docs/troubleshooting.md"),
        ("docs/index.md", "troubleshooting"),
    ):
        assert link in (ROOT / page).read_text(encoding="utf-8")
