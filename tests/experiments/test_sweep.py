"""Sweeps: what is trained, what is kept, what is gone on with, what is shown."""

import json

import pandas as pd
import pytest

import hilbound
from hilbound.errors import InputError
from hilbound.experiments.sweep import Sweep, measure_cell, plan_cells, sweep
from hilbound.reports.sweep_report import sweep_page, table_of
from support.tiny_runs import TINY, ask, weights, write_points
from support.trainings import press_ctrl_c, stop_at

OPTIONS = {**TINY, "samples": 100}
GRID = {"objective": ["nuclear", "scalar"], "variance": ["median", "2*median"]}


@pytest.fixture
def data(tmp_path):
    return str(write_points(tmp_path / "points.npy"))


def test_every_combination_is_trained_with_every_seed_and_measured_on_validation_rows(
    data, tmp_path
):
    ended = []
    found = sweep(
        tmp_path / "sweep", GRID, seeds=2, quiet=True, done=ended.append, data=data, **OPTIONS
    )
    assert [(row["setting"], row["seed"]) for row in found.rows] == [
        ({"objective": o, "variance": v}, seed)
        for o in GRID["objective"]
        for v in GRID["variance"]
        for seed in (0, 1)
    ]
    assert len(ended) == 8
    run = hilbound.Run.open(tmp_path / "sweep" / "runs" / "scalar-median-1")
    assert (run.config.objective, run.config.variance, run.config.seed) == ("scalar", "median", 1)
    assert run.read_json("metrics.json")["split"] == "validation"
    told = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert told["rows"] == found.rows
    frame = pd.read_csv(tmp_path / "sweep" / "sweep.csv")
    assert frame["coverage"].tolist() == pytest.approx(
        [row["metrics"]["coverage"] for row in found.rows]
    )
    assert "2*median" in (tmp_path / "sweep" / "report.html").read_text()
    # A run by itself is the same.
    alone = hilbound.fit(
        tmp_path / "alone", quiet=True, data=data, objective="scalar", seed=1, **OPTIONS
    )
    assert all((weights(run)[name] == t).all() for name, t in weights(alone).items())


def test_the_same_call_goes_on_where_it_was_stopped(data, tmp_path, monkeypatch):
    grid = {"objective": ["nuclear", "scalar"]}
    whole = sweep(tmp_path / "whole", grid, quiet=True, data=data, **OPTIONS)
    stop_at(monkeypatch, 5, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path / "part", grid, quiet=True, data=data, **OPTIONS)
    half = hilbound.Run.open(tmp_path / "part" / "runs" / "nuclear-0")
    assert half.read_json("run.json")["status"] == "interrupted"
    part = sweep(tmp_path / "part", grid, quiet=True, data=data, **OPTIONS)
    assert [row["metrics"] for row in part.rows] == [row["metrics"] for row in whole.rows]
    monkeypatch.setattr("hilbound.training.fit.plan_training", None)  # nothing is trained again
    assert sweep(tmp_path / "part", grid, quiet=True, data=data, **OPTIONS).rows == part.rows
    monkeypatch.undo()
    other = sweep(tmp_path / "part", grid, quiet=True, data=data, **{**OPTIONS, "steps": 4})
    run = hilbound.Run.open(tmp_path / "part" / "runs" / "scalar-0")
    assert (run.config.steps, len(other.rows)) == (4, 2)


def test_what_fails_is_a_result(data, tmp_path):
    options = {**OPTIONS, "data": data}
    del options["learning_rate"]
    found = sweep(tmp_path / "s", {"learning_rate": [5e-3, 1e30]}, quiet=True, **options)
    assert [row["failure"] is None for row in found.rows] == [True, False]
    assert found.best() == {"learning_rate": 5e-3}
    page = sweep_page(found)
    assert page.sections[-1].title == "Failures"
    assert table_of(found).rows[1][2:6] == ("–",) * 4


def test_the_best_is_that_of_the_highest_mean_coverage():
    def row(variance, seed, coverage):
        setting = {"variance": variance}
        return {
            "setting": setting,
            "seed": seed,
            "failure": None,
            "metrics": {"coverage": coverage},
        }

    rows = [row("a", 0, 0.9), row("a", 1, 0.1), row("b", 0, 0.6), row("b", 1, 0.6)]
    assert Sweep(None, ("variance",), rows).best() == {"variance": "b"}
    rows[2]["metrics"] = {}  # what has failed once is not chosen
    assert Sweep(None, ("variance",), rows).best() == {"variance": "a"}


@pytest.mark.parametrize(
    ("grid", "options", "words"),
    [
        ({"objective": ["nuclear"]}, {"objective": "scalar"}, "either as one value or as several"),
        ({"seed": [0, 1]}, {}, "seed: give"),
        ({"width": [8, "wide"]}, {}, "width"),
        ({"widht": [8]}, {}, "did you mean 'width'"),
    ],
)
def test_wrong_grids_are_refused_before_anything_is_trained(grid, options, words):
    with pytest.raises(InputError, match=words):
        plan_cells(grid, 1, {"data": "moons", **options})


def test_names_that_look_alike_are_told_apart():
    cells = plan_cells({"variance": ["1*median", "1:median"]}, 1, {"data": "moons"})
    assert len({cell.name for cell in cells}) == 2


def test_a_folder_of_something_else_is_refused(data, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").touch()
    with pytest.raises(InputError, match="no sweep's"):
        sweep(tmp_path / "s", {}, quiet=True, data=data, **OPTIONS)


def test_the_command_runs_processes_side_by_side(data, tmp_path):
    words = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in OPTIONS.items()
        if name != "tensorboard"
    ]
    done = ask(
        "sweep",
        data,
        "--objective",
        "nuclear,scalar",
        "--workers",
        2,
        *words,
        "-o",
        tmp_path / "s",
    )
    assert done.exit_code == 0, done.stderr
    assert "2 of 2" in done.stderr
    assert "nuclear" in done.stdout
    again = ask("sweep", data, "--objective", "nuclear,,scalar", "-o", tmp_path / "s")
    assert (again.exit_code, "different values" in again.stderr) == (2, True)


def test_a_sweep_over_ray_finds_the_same(data, tmp_path):
    pytest.importorskip("ray", reason="install hilbound[ray] to run this: make test-ray")
    grid = {"objective": ["nuclear", "scalar"]}
    here = sweep(tmp_path / "here", grid, quiet=True, data=data, **OPTIONS)
    there = sweep(
        tmp_path / "there", grid, quiet=True, workers=2, ray="local", data=data, **OPTIONS
    )
    assert [row["metrics"] for row in there.rows] == [row["metrics"] for row in here.rows]


def test_without_ray_that_is_said(data, tmp_path, monkeypatch):
    monkeypatch.setattr("hilbound.experiments.sweep.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'hilbound\[ray\]'"):
        sweep(tmp_path / "s", {}, quiet=True, ray="local", data=data, **OPTIONS)


def test_a_cell_is_measured_by_its_folder_alone(data, tmp_path):
    (cell,) = plan_cells({}, 1, {"data": data, **OPTIONS})
    name, row = measure_cell(tmp_path, cell, quiet=True)
    assert (name, row["setting"], row["seed"]) == ("0", {}, 0)
