"""The demonstration, cut to a few steps: its road, its table, its report."""

import io
import re

import pytest
from rich.console import Console

from hilbound.cli import demo
from hilbound.config import RunConfig
from hilbound.errors import InputError
from hilbound.evaluation.quality import METRICS, format_metric
from hilbound.training.runs import Run

pytest_plugins = ["support.fixtures_runs"]

OBJECTIVES = ("nuclear", "scalar", "likelihood")


def run_demo(output, **options):
    console = Console(file=io.StringIO(), width=160)
    return demo.run_demo(output, console, **options), console.file.getvalue()


@pytest.fixture
def short(monkeypatch):
    settings = {"steps": 21, "batch_size": 64, "width": 8, "validate_every": 100, "samples": 500}
    monkeypatch.setattr(demo, "_SETTINGS", {"moons": settings, "digits": settings})


@pytest.fixture
def quick(short, monkeypatch):  # noqa: ARG001 - cut further here
    """One data set, and hardly measured."""
    original = demo.evaluate
    monkeypatch.setattr(demo, "evaluate", lambda run: original(run, 50))
    monkeypatch.setattr(demo, "_SETTINGS", {"digits": demo._SETTINGS["digits"]})


@pytest.mark.usefixtures("short")
def test_three_objectives_on_two_data_sets(monkeypatch, tmp_path):
    original = demo.evaluate
    monkeypatch.setattr(demo, "evaluate", lambda run: original(run, 200))
    report, printed = run_demo(tmp_path / "demo", quiet=True)
    html = report.read_text(encoding="utf-8")
    assert report == tmp_path / "demo" / "report.html"
    assert printed.rstrip().endswith(f"report: {report}")
    assert not re.search(r"(src|href)=.?https?:", html)
    for data in ("moons", "digits"):
        for objective in OBJECTIVES:
            run = Run.open(tmp_path / "demo" / f"{data}-{objective}")
            assert (run.config.data, run.config.objective, run.config.steps) == (
                data,
                objective,
                21,
            )
            for name in ("coverage", "recall", "frechet_distance", "tightness"):
                for side in ("model", "real"):
                    value = run.read_json("metrics.json")["metrics"][name][side]
                    text = format_metric(name, value)
                    assert f">{text}<" in html
                    assert text in printed
                assert METRICS[name].title in html
    assert html.count("<img") == 8
    assert printed.count("real data") >= 2


@pytest.mark.usefixtures("quick")
def test_it_can_be_repeated_and_replaces_its_own_runs(tmp_path):
    run_demo(tmp_path, quiet=True)
    marker = tmp_path / "digits-nuclear" / "metrics.json"
    marker.write_text("old")
    _, printed = run_demo(tmp_path)
    assert marker.read_text() != "old"
    for objective in OBJECTIVES:
        assert f"digits, {objective}" in printed


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="holds files that are not the demonstration's"):
        run_demo(tmp_path)
    with pytest.raises(InputError, match="choose another folder with --output"):
        run_demo(tmp_path / "thesis.tex")
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        run_demo(tmp_path / "thesis.tex" / "demo", quiet=True)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_every_setting_is_an_option_and_every_run_has_a_variance():
    assert set(demo._VARIANCES) == {(d, o) for d in demo._SETTINGS for o in OBJECTIVES}
    for (data, objective), variance in demo._VARIANCES.items():
        RunConfig.create(data=data, objective=objective, variance=variance, **demo._SETTINGS[data])
