"""The page of several runs: what it says, in a real browser too."""

import json
import re

import pytest

from hilbound.evaluation.comparison import Data, Member, compare
from hilbound.evaluation.evaluate import evaluate
from hilbound.experiments.comparison import compare_runs
from hilbound.reports.comparison import curves_figure, label, settings_table, spread_figure
from hilbound.reports.comparison_report import comparison_page, write_comparison
from support.browser import Visit
from support.tiny_runs import train, write_points

pytest_plugins = ["support.fixtures_runs"]


def rows(*tightness):
    return [
        {"step": float(step), "split": "validation", "tightness": value}
        for step, value in enumerate(tightness)
    ]


def member(objective, seed, **kwargs):
    data = Data("<b>points</b>", "points", f"{seed}", f"{seed}")
    settings = {"objective": objective, "width": 8}
    return Member(f"{objective}-{seed}", seed, settings, data, **kwargs)


def test_all_curves_are_in_one_picture_with_a_line_of_the_legend_for_each_setting():
    (comparison,) = compare(
        [
            member("nuclear", 0, rows=rows(0.1, 0.4)),
            member("nuclear", 1, rows=rows(0.1, 0.5)),
            member("scalar", 0, rows=rows(0.2, float("nan"), 0.6)),
            member("mse", 0),
        ]
    )
    texts = {line for mark in curves_figure(comparison).marks for line in mark.text.split("\n")}
    assert texts == {
        "nuclear-0 at 0: 10 %",
        "nuclear-0 at 1: 40 %",
        "nuclear-1 at 0: 10 %",
        "nuclear-1 at 1: 50 %",
        "scalar-0 at 0: 20 %",
        "scalar-0 at 2: 60 %",
    }


def test_runs_without_curves_or_metrics_draw_none():
    (comparison,) = compare([member("nuclear", 0), member("scalar", 0)])
    assert curves_figure(comparison) is None
    assert spread_figure(comparison.groups, "") is None
    page = comparison_page([comparison])
    assert [section.title for section in page.sections] == ["Results", "Options", "Glossary"]
    assert "No run was measured" in page.sections[0].text


def test_a_table_has_a_row_for_each_setting_and_each_floor():
    runs = [
        member("nuclear", 0, values={"coverage": 0.4}, floors={"real data": {"coverage": 0.9}}),
        member("nuclear", 1, values={"coverage": 0.6}, floors={"real data": {"coverage": 0.8}}),
        member("scalar", 0, values={"recall": 0.5}),
    ]
    (comparison,) = compare(runs)
    table = settings_table(
        comparison.groups, ("objective",), comparison.columns(), "", floors=comparison.floors()
    )
    assert table.columns == ("objective", "seeds", "Recall", "Coverage")
    assert table.rows == (
        ("nuclear", "2", "–", "0.500 ± 0.141"),
        ("scalar", "1", "0.500", "–"),
        ("real data", "", "–", "0.850 ± 0.071"),
    )
    assert table.numeric == (False, True, True, True)


def test_names_of_users_are_escaped(tmp_path):
    found = compare([member("<script>", 0, values={"coverage": 0.4}), member("$x_{$", 0)])
    page = write_comparison(found, tmp_path / "page.html").read_text()
    assert "<script>" not in page
    assert "&lt;b&gt;points" in page


def test_a_setting_in_words():
    assert label({"objective_options": {"power": 0.7}, "drop": []}) == (
        "objective options power=0.7, drop none"
    )
    assert label({}) == "all runs"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    data = write_points(folder / "points.npy")
    runs = [
        train(folder / f"{objective}-{seed}", data=data, objective=objective, seed=seed)
        for objective in ("nuclear", "scalar")
        for seed in (0, 1)
    ]
    for run in runs:
        evaluate(run)
    digits = [train(folder / o, data="digits", objective=o) for o in ("trace", "vector")]
    found = compare_runs([run.path for run in (*runs, *digits)])
    return write_comparison(found, folder / "comparison.html").as_uri()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_and_fetches_nothing(opened, address, width):
    with Visit(opened, address, width=width) as visit:
        assert visit.errors == []
        assert visit.requests_elsewhere() == []
        assert visit.overflow() <= 0
        # The metrics, the curves and the samples: of points, and of images with the held-out ones.
        assert visit.page.locator("img:visible").count() >= 7


def test_curves_tell_which_run_they_are(opened, address):
    with Visit(opened, address) as visit:
        mark = visit.page.locator(".curves").first.locator("i").first
        mark.hover()
        assert re.match(r"(nuclear|scalar)-[01] at \d", mark.locator("b").inner_text())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(opened, address, scheme):
    with Visit(opened, address, color_scheme=scheme, bypass_csp=True) as visit:
        assert visit.faults() == []


def test_the_page_prints_without_cutting_a_table(opened, address):
    with Visit(opened, address, width=794) as visit:  # A4
        visit.page.emulate_media(media="print")
        wider = visit.page.evaluate(
            "[...document.querySelectorAll('table')].map((t) => t.scrollWidth "
            "- document.documentElement.clientWidth)"
        )
        assert max(wider) <= 0, json.dumps(wider)
