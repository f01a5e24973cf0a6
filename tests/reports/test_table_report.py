"""The report of a table's target and its pictures."""

import numpy as np
import pytest
import torch
from scipy import stats

from hilbound.config import TableConfig
from hilbound.errors import InputError
from hilbound.evaluation.table_metrics import measure_table
from hilbound.mixture import GaussianMixture
from hilbound.reports import density_plots as plots
from hilbound.reports.drawing import canvas
from hilbound.reports.table_report import TableResult, table_page

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def ax():
    return canvas()[1]


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def result(targets=("price",), columns=("area", "city"), n=60):
    rng = np.random.default_rng(0)
    d = len(targets)
    q = GaussianMixture(torch.from_numpy(rng.normal(size=(n, 2, d))), 0.5)
    y = q.mean.numpy() + rng.normal(size=(n, d))
    measured = measure_table(q, y, rng.normal(size=(90, d)), targets)
    importance = [{"name": c, "drop": 0.5 / (i + 1), "error": 0.1} for i, c in enumerate(columns)]
    measured |= {"split": "test", "unseen": {}, "importance": importance}
    data = {"name": "t.csv", "rows": n + 90, "train": 90, "test": n, "missing": 3}
    data |= {"columns": list(columns), "texts": [columns[-1]]}
    facts = {"data": data, "seconds": 4.2, "versions": {"hilbound": "1"}}
    config = TableConfig(data="t.csv", target=list(targets))
    return TableResult(config, facts, measured, q, y)


def test_the_page_shows_everything_and_fetches_nothing():
    html = table_page(result())
    for title in ("Predictions", "Can it be trusted?", "Which columns matter", "Metrics"):
        assert f">{title}</h2>" in html
    assert html.count("<img") == html.count('src="data:image/') == 6
    assert "http" not in html.replace("http-equiv", "")
    assert "60 test rows" in html
    assert "3 cells of the columns are missing" in html
    assert "test rows at 1: " in html  # the coverage tells its values under the pointer


def test_each_target_has_its_own_pictures():
    html = table_page(result(("price", "rent")))
    assert html.count("<img") == 2 * 5 + 1
    assert "rent: can it be trusted?" in html
    assert "price and rent" in html


def test_names_from_the_file_stay_text():
    page = result((SCRIPT,), (SCRIPT + "&amp;", "$\\frac{1}$"))
    page.facts["data"]["name"] = SCRIPT + ".csv"
    page.measured["unseen"][SCRIPT] = 2
    html = table_page(page)
    assert "<script" not in html.lower()
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5
    assert "&amp;amp;" in html


def test_a_table_of_many_columns_says_how_many_are_not_drawn():
    html = table_page(result(columns=tuple(f"c{i}" for i in range(40))))
    assert "25 columns that matter less are not drawn" in html


def test_without_importance_there_is_no_section_of_it():
    page = result()
    page.measured["importance"].clear()
    assert "Which columns matter" not in table_page(page)


# --- pictures -----------------------------------------------------------------------------------


def test_a_fan_draws_each_density_to_the_same_height(ax):
    x = np.linspace(-4, 4, 81)
    heights = np.stack([stats.norm.pdf(x, 0, s) for s in (0.2, 2)])
    assert plots.plot_fan(ax, x, heights, [0.1, 3.0], name="a $price$") is ax
    tops = [line.get_ydata().max() for line in ax.lines if len(line.get_xdata()) == 81]
    assert tops == pytest.approx([0.85, 1.85])
    assert ax.get_xlabel() == "a $price$"
    assert not ax.xaxis.label.get_parse_math()


def test_intervals_stand_in_the_order_of_their_medians(ax):
    plots.plot_intervals(ax, [2, 1], {0.5: ([1.5, 0.5], [2.5, 1.5]), 0.9: ([0, 0], [4, 3])}, [7, 8])
    assert ax.lines[0].get_ydata().tolist() == [1, 2]
    assert ax.lines[1].get_ydata().tolist() == [8, 7]
    assert labels(ax)[:2] == ["90 % interval", "50 % interval"]


def test_the_pit_histogram_has_the_band_of_chance(ax):
    n = 160
    plots.plot_pit(ax, np.linspace(0, 1, n))
    heights = [patch.get_height() for patch in ax.patches]
    assert np.mean(heights) == pytest.approx(1)
    assert len(heights) == 10
    band = sorted({round(v, 9) for v in ax.collections[0].get_paths()[0].vertices[:, 1]})
    assert band == pytest.approx(stats.binom.ppf([0.025, 0.975], n, 0.1) / 16)


def test_coverage_is_drawn_in_percent(ax):
    plots.plot_coverage(ax, [0.5, 0.9], [0.25, 0.8], 50)
    assert ax.lines[1].get_xdata().tolist() == [50, 90]
    assert ax.lines[1].get_ydata().tolist() == [25, 80]


def test_groups_of_errors_are_root_mean_squares(ax):
    rng = np.random.default_rng(0)
    s = rng.uniform(1, 5, 3000)
    plots.plot_spread(ax, s, s * rng.normal(size=3000))
    groups = ax.containers[0].lines[0]
    assert groups.get_ydata() == pytest.approx(groups.get_xdata(), rel=0.12)
    assert len(groups.get_xdata()) == 8


def test_importance_names_columns_as_they_are(ax):
    plots.plot_importance(ax, ["$a_b$", "x" * 60], [0.5, -0.1], [0.1, 0.1])
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["$a_b$", "x" * 27 + "…"]
    assert [patch.get_width() for patch in ax.patches] == [0.5, -0.1]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda ax: plots.plot_fan(ax, [0, 1], np.ones((2, 3)), [0, 0]), "expected \\(2, 2\\)"),
        (lambda ax: plots.plot_fan(ax, [0, 1], -np.ones((1, 2)), [0]), "not negative"),
        (lambda ax: plots.plot_intervals(ax, [0], {}, [0]), "bands is empty"),
        (lambda ax: plots.plot_intervals(ax, [0], {0.5: ([0], [1])}, [0, 1]), "make them equal"),
        (lambda ax: plots.plot_pit(ax, [0.5, 1.5]), "probabilities from 0 to 1"),
        (lambda ax: plots.plot_coverage(ax, [0.5], [0.5, 0.6], 9), "make them equal"),
        (lambda ax: plots.plot_spread(ax, [0.0], [1.0]), "must be positive"),
        (lambda ax: plots.plot_importance(ax, [], [], []), "names is empty"),
    ],
)
def test_what_cannot_be_drawn_is_refused(ax, draw, words):
    with pytest.raises(InputError, match=words):
        draw(ax)
