"""The README keeps its word: its example runs, its commands exist, its links lead somewhere."""

import re
from pathlib import Path

import pytest
import torch
from typer.main import get_command

from hilbound import cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


CODE = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_table_is_predicted():
    _, code = CODE
    assert len(code.strip().splitlines()) <= 6
    names = {}
    quick = code.replace("random_state=0", "random_state=0, max_epochs=2")
    exec(compile(quick, "README.md", "exec"), names)
    assert names["interval"].shape == (442, 2)


def test_the_example_trains(capsys):
    code, _ = CODE
    assert len(code.strip().splitlines()) <= 14
    assert "range(500)" in code
    names = {}
    with torch.random.fork_rng():
        torch.random.manual_seed(0)
        exec(compile(code.replace("range(500)", "range(60)"), "README.md", "exec"), names)
    assert "% of what is possible" in capsys.readouterr().out
    # Untrained, the same network reaches 0.2; real data against real data 0.8.
    assert 0.7 < float(names["fidelity"].detach()) <= 1


def test_its_options_exist():
    commands = re.findall(r"^hilbound (\w+) (.*)$", README, flags=re.MULTILINE)
    known = get_command(cli.app).commands
    assert len(commands) > 5
    for name, line in commands:
        own = {option for parameter in known[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", " " + line.partition("#")[0])) <= own, line


PAGES = sorted(
    str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
)


@pytest.mark.parametrize("page", PAGES)
def test_its_links_lead_to_files(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [t for t in re.findall(r"\]\(([^)#]+)\)", text) if not t.startswith("http")]
    missing = [t for t in targets if not ((ROOT / page).parent / t).exists()]
    assert missing == []
