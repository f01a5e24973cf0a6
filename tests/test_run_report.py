"""The report of a run: one file, nothing fetched, everything in it."""

import re
from html.parser import HTMLParser

import pytest
import torch

from hilbound.config import RunConfig
from hilbound.evaluation import METRICS, evaluate, format_metric
from hilbound.features import FeatureSpace
from hilbound.run_report import nearest_rows, percent, write_report
from tiny_runs import train

pytest_plugins = ["fixtures_runs"]


class Reader(HTMLParser):
    """Collects the text, the headings, the rows of the tables, the pictures and the references."""

    def __init__(self, html):
        super().__init__()
        self.headings, self.rows, self.images, self.references = [], [], [], []
        self.path = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.path.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag == "img":
            self.images.append(attrs)
        self.references += [v for k, v in attrs.items() if k in {"src", "href", "data", "srcset"}]

    def handle_endtag(self, tag):
        while self.path and self.path.pop() != tag:
            pass

    def handle_data(self, data):
        if self.path and self.path[-1] in {"h1", "h2"}:
            self.headings.append(data.strip())
        if {"td", "th"} & set(self.path):
            self.rows[-1][-1] += data.strip()


@pytest.fixture
def page(trained):
    return Reader(write_report(trained).read_text(encoding="utf-8"))


def test_the_page_is_one_file(page, trained):
    assert page.images
    for reference in page.references:
        assert reference.startswith(("data:", "#")), reference[:80]
    html = (trained.path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\((?!['\"]?data:)|<script[^>]+src", html)
    assert all(image["alt"] for image in page.images)


def test_the_page_has_every_part(page):
    assert page.headings[0] == "table, nuclear"
    assert page.headings[1:] == ["Samples", "Spectrum", "Metrics", "Configuration"]


def test_the_configuration_stands_there_in_full(page, trained):
    rows = {row[0]: row[1] for row in page.rows if len(row) == 2}
    for name, value in trained.config.model_dump(mode="json").items():
        assert rows[name.replace("_", "-")] == ("–" if value is None else str(value))
    assert len(RunConfig.model_fields) <= len(rows)


def test_every_metric_stands_beside_its_floor(page, trained):
    rows = {row[0]: row for row in page.rows if row}
    for name, entry in trained.read_json("metrics.json")["metrics"].items():
        row = rows[METRICS[name].title]
        assert row[1:4] == [
            format_metric(name, entry["model"]),
            format_metric(name, entry["real"]),
            entry["better"],
        ]


def test_the_run_is_measured_first_if_it_was_not(trained):
    (trained.path / "metrics.json").unlink(missing_ok=True)
    write_report(trained)
    measured = trained.read_json("metrics.json")
    write_report(trained)
    assert trained.read_json("metrics.json") == measured


def test_figures_of_the_training_are_there_once_there_is_a_curve(tmp_path):
    run = train(tmp_path / "run", data="swiss-roll", samples=200, steps=41, validate_every=41)
    evaluate(run, 50)
    page = Reader(write_report(run).read_text(encoding="utf-8"))
    assert page.headings[1:] == ["Training", "Samples", "Spectrum", "Metrics", "Configuration"]
    assert len(page.images) == 5


@pytest.mark.parametrize("objective", ["scalar", "likelihood"])
def test_other_objectives_are_reported_with_their_own_cost(tmp_path, objective):
    run = train(tmp_path / "run", steps=41, objective=objective, variance="2*median:median")
    html = write_report(run).read_text(encoding="utf-8")
    assert {"scalar": "normalised inner product", "likelihood": "log-likelihood"}[objective] in html
    facts = run.read_json("run.json")["variance"]
    assert f"{facts['start']:.4g} to {facts['end']:.4g}" in html


def test_images_are_shown_beside_their_neighbours(tmp_path):
    run = train(tmp_path / "run", data="digits", samples=100, steps=1)
    evaluate(run, 50)
    page = Reader(write_report(run).read_text(encoding="utf-8"))
    alts = [image["alt"] for image in page.images]
    assert "a grid of samples" in alts
    assert "samples and their nearest training images" in alts


def test_the_nearest_rows_are_the_nearest():
    train_rows = torch.tensor([[0.0], [10.0], [3.0], [4.0]])
    space = FeatureSpace(lambda x: x.double(), "coordinates")
    nearest = nearest_rows(space, torch.tensor([[3.4], [9.0]]), train_rows, 2)
    assert nearest.squeeze(-1).tolist() == [[3.0, 4.0], [10.0, 4.0]]


def test_markup_in_a_name_is_shown_and_not_run(trained):
    nasty = trained.config.model_copy(update={"label_column": None, "devices": "<img src=x>"})
    trained = type(trained)(trained.path, nasty)
    html = write_report(trained).read_text(encoding="utf-8")
    assert "<img src=x>" not in html
    assert "&lt;img src=x&gt;" in html


def test_shares_stay_readable():
    assert [percent(x) for x in (1.0, 0.12345, 1e-4, 1e-30)] == [
        "100.0 %", "12.3 %", "0.0 %", "< 0.01 %",
    ]  # fmt: skip
