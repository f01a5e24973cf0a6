"""A plugin for pytest with what the tests of runs need set up.

A module takes it by ``pytest_plugins = ["support.fixtures_runs"]``.
"""

import shutil

import pytest

import hilbound
from support.tiny_runs import ask, flags, write_table


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    """Classifiers are kept for one test session, and never in the user's own cache."""
    monkeypatch.setenv("HILBOUND_CACHE", str(tmp_path_factory.getbasetemp() / "classifiers"))


@pytest.fixture(scope="session")
def _trained(tmp_path_factory):
    """A run on a table, trained and evaluated once."""
    folder = tmp_path_factory.mktemp("trained")
    table = write_table(folder / "table.csv")
    result = ask("fit", table, *flags(), "--output", folder / "run", "--quiet")
    assert result.exit_code == 0, result.stderr
    return folder / "run"


@pytest.fixture
def trained(_trained, tmp_path) -> hilbound.Run:
    """A copy of that run, to be damaged at will."""
    shutil.copytree(_trained, tmp_path / "trained")
    return hilbound.Run.open(tmp_path / "trained")
