"""The commands on several runs: compare and report."""

import json
import re
import shutil

import pytest
import yaml

import hilbound
from hilbound.evaluation.evaluate import evaluate
from support.tables import fit_quickly, houses, write
from support.tiny_runs import ask, train, write_points

pytest_plugins = ["support.fixtures_runs"]


def plain(text):
    return re.sub(r"\s+", " ", text)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two objectives with two seeds; one is not measured."""
    folder = tmp_path_factory.mktemp("compared")
    data = write_points(folder / "points.npy")
    for objective in ("nuclear", "scalar"):
        for seed in (0, 1):
            run = train(folder / f"{objective}-{seed}", data=data, objective=objective, seed=seed)
            if (objective, seed) != ("scalar", 1):
                evaluate(run)
    return [folder / f"{o}-{s}" for o in ("nuclear", "scalar") for s in (0, 1)]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    table = write(houses().drop(columns="rent"), folder / "houses.csv")
    for name, words in {"0": [], "1": ["--seed", 1], "less": ["--drop", "area"]}.items():
        result = fit_quickly(table, folder / name, "--quiet", *words)
        assert result.exit_code == 0, result.output
    return [folder / name for name in ("0", "1", "less")]


def test_a_table_has_means_deviations_floors_and_what_is_absent(runs):
    result = ask("compare", *runs)
    assert result.exit_code == 0, result.output
    rows = [line for line in result.stdout.splitlines() if re.search("nuclear|scalar|real d", line)]
    assert len(rows) == 5  # results, real data, bounds
    measured = [json.loads((run / "metrics.json").read_text()) for run in runs[:2]]
    values = [one["metrics"]["coverage"]["model"] for one in measured]
    assert f"{sum(values) / 2:.3f}" in rows[0]
    assert "±" in result.stdout
    assert "scalar-1: not measured" in result.stderr
    assert not re.search("warning|Traceback", result.stderr)


def test_json_says_everything_to_other_programs(runs):
    result = ask("compare", *runs, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    (told,) = json.loads(result.stdout)["comparisons"]
    assert [group["setting"] for group in told["groups"]] == [
        {"objective": "nuclear"},
        {"objective": "scalar"},
    ]
    assert [group["seeds"] for group in told["groups"]] == [[0, 1], [0, 1]]
    assert [len(g["values"]["coverage"]["values"]) for g in told["groups"]] == [2, 1]
    assert len(told["floors"]["real data"]["coverage"]["values"]) == 2
    assert told["groups"][0]["values"]["limit"]["mean"] == pytest.approx(1)


def test_different_data_stand_in_tables_of_their_own(runs, tmp_path):
    other = train(tmp_path / "other", data=write_points(tmp_path / "other.npy", 300))
    evaluate(other)
    result = ask("compare", runs[0], other.path)
    assert result.exit_code == 0
    assert "values of different tables cannot be compared" in plain(result.stderr)
    content = json.loads(ask("compare", runs[0], other.path, "--json").stdout)
    assert [one["data"] for one in content["comparisons"]] == ["points.npy", "other.npy"]
    path = tmp_path / "page.html"
    assert ask("report", runs[0], other.path, "-o", path).exit_code == 0
    assert "1. points.npy: Results" in path.read_text()


def test_a_page_compares_runs(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = ask("report", *runs)
    assert result.exit_code == 0, result.output
    assert "report: comparison.html" in result.stdout
    page = (tmp_path / "comparison.html").read_text()
    for words in ("4 runs compared", "real data", "scalar-1: not measured", "Options that differ"):
        assert words in page
    assert not re.search(r"<script|(src|href)=.https?:", page)


def test_a_page_is_made_where_the_data_are_gone(runs, tmp_path):
    for run in runs[:2]:
        shutil.copytree(run, tmp_path / run.name)
        config = yaml.safe_load((run / "config.yaml").read_text())
        gone = {**config, "data": str(tmp_path / "gone.npy")}
        (tmp_path / run.name / "config.yaml").write_text(yaml.safe_dump(gone))
    copies = [tmp_path / run.name for run in runs[:2]]
    assert ask("compare", *copies).exit_code == 0
    done = ask("report", *copies, "-o", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert "2 runs compared" in (tmp_path / "page.html").read_text()


def test_tables_with_a_target_are_compared_among_themselves(tables, runs, tmp_path):
    result = ask("compare", *tables)
    assert result.exit_code == 0, result.output
    assert "one Gaussian" in result.stdout
    (told,) = json.loads(ask("compare", *tables, "--json").stdout)["comparisons"]
    assert [group["options"] for group in told["groups"]] == [{"drop": []}, {"drop": ["area"]}]
    assert told["groups"][0]["seeds"] == [0, 1]
    assert set(told["floors"]) == {"histogram", "one Gaussian"}
    mixed = json.loads(ask("compare", *tables, runs[0], "--json").stdout)
    assert len(mixed["comparisons"]) == 2
    done = ask("report", *tables, "-o", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    assert "coverage of intervals" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("command", ["compare", "report"])
def test_what_is_no_run_or_comes_twice_is_refused(runs, tmp_path, command):
    wrong = {
        "comes twice": [runs[0], runs[1], f"{runs[0]}/../{runs[0].name}"],
        "does not exist": [runs[0], tmp_path / "nothing"],
        "holds no config.yaml": [runs[0], tmp_path],
    }
    for words, paths in wrong.items():
        result = ask(command, *paths)
        assert (result.exit_code, result.stdout) == (2, "")
        assert words in plain(result.stderr)


def test_an_interrupted_run_says_so(runs, tmp_path):
    shutil.copytree(runs[0], tmp_path / "half")
    hilbound.Run.open(tmp_path / "half").update(status="interrupted", step=4)
    assert "half: interrupted at step 4" in ask("compare", tmp_path / "half").stderr
