"""The report of a run: one file, nothing fetched, everything in it."""

import math
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import hilbound
from hilbound.config import RunConfig
from hilbound.evaluation.evaluate import evaluate
from hilbound.evaluation.quality import (
    METRICS,
    RECONSTRUCTION,
    format_entry,
    format_metric,
    percent,
)
from hilbound.evaluation.spaces import MetricSpace
from hilbound.reports.feature_report import tracked_section
from hilbound.reports.run_report import write_report
from hilbound.reports.sample_sections import nearest_rows
from hilbound.training.fit import fit
from support.tiny_runs import train, write_points, write_table

pytest_plugins = ["support.fixtures_runs"]


class Reader(HTMLParser):
    """Collects the text, the headings, the rows of the tables, the pictures and the references."""

    def __init__(self, html):
        super().__init__()
        self.html = html
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


def read(run):
    return Reader(write_report(run).read_text(encoding="utf-8"))


def alts(page):
    return [image["alt"] for image in page.images]


@pytest.fixture(scope="module")
def reported(_trained, tmp_path_factory):
    """A run with its report, to be looked at only."""
    run = hilbound.Run.open(shutil.copytree(_trained, tmp_path_factory.mktemp("reported") / "run"))
    write_report(run)
    return run


@pytest.fixture(scope="module")
def page(reported):
    return Reader((reported.path / "report.html").read_text(encoding="utf-8"))


def test_the_page_is_one_file(page):
    assert page.images
    for reference in page.references:
        assert reference.startswith(("data:", "#")), reference[:80]
    assert not re.search(r"@import|url\((?!['\"]?data:)|<script[^>]+src", page.html)
    assert all(image["alt"] for image in page.images)


def test_the_page_has_every_part(page):
    assert page.headings[0] == "table, debiased"
    assert page.headings[1:] == ["Samples", "Spectrum", "Metrics", "Configuration", "Glossary"]


def test_the_configuration_stands_there_in_full(page, reported):
    rows = {row[0]: row[1] for row in page.rows if len(row) == 2}
    for name, value in reported.config.model_dump(mode="json").items():
        assert rows[name.replace("_", "-")] == ("–" if value is None else str(value))
    assert len(RunConfig.model_fields) <= len(rows)


def test_every_metric_stands_beside_its_floor(page, reported):
    rows = {row[0]: row for row in page.rows if len(row) == 5}
    for name, entry in reported.read_json("metrics.json")["metrics"].items():
        row = rows[METRICS[name].title]
        assert row[1:4] == [
            format_entry(name, entry, "model"),
            format_entry(name, entry, "real"),
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
    page = read(run)
    assert page.headings[1:] == [
        "Training",
        "Samples",
        "Spectrum",
        "Metrics",
        "Configuration",
        "Glossary",
    ]
    assert len(page.images) == 6
    # Samples over the steps, of which the last is the last of the training.
    assert "41, over the data" in page.images[4]["alt"]


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
    shown = alts(read(run))
    assert "a grid of samples" in shown
    assert "samples and their nearest training images" in shown


# Models with an encoder

EMD = {
    "model": "encoder-mixture-decoder",
    "centers": 3,
    "bound_every": 4,
    "bound_rows": 40,
}


@pytest.fixture(scope="module")
def _encoder(tmp_path_factory):
    """A run with an encoder, trained and measured once."""
    run = train(tmp_path_factory.mktemp("encoder") / "run", features=1, **EMD)
    evaluate(run)
    return run.path


@pytest.fixture
def encoder(_encoder, tmp_path):
    """A copy of that run, to be damaged at will."""
    return hilbound.Run.open(shutil.copytree(_encoder, tmp_path / "encoder"))


@pytest.mark.parametrize(
    ("features", "alt"),
    [
        (1, "density of the feature, one curve for each class"),
        (2, "scatter of the features, coloured by class"),
        (3, "scatter of the features, coloured by class"),
    ],
)
def test_an_encoder_has_sections_of_its_own(tmp_path, features, alt):
    run = train(tmp_path / "run", data="digits", samples=100, features=features, **EMD)
    page = read(run)
    # So short a training may not have spread its centres yet, which the diagnosis tells.
    assert [heading for heading in page.headings if heading != "Diagnosis"] == [
        "digits, encoder mixture decoder, conditional",
        "Training",
        "Reconstructions",
        "Features",
        "Samples",
        "Spectrum",
        "Metrics",
        "Configuration",
        "Glossary",
    ]
    assert alt in alts(page)
    assert "held-out inputs beside their reconstructions" in alts(page)
    for rows in ("training rows", "held-out rows"):
        assert f"conditional cost below its limit against training steps, on {rows}" in alts(page)
    html = page.html
    assert ("First two principal components of the 3 features" in html) == (features == 3)
    assert "it moves while the encoder learns" in html
    measured = run.read_json("metrics.json")
    assert percent(measured["conditional_bound"]["tightness"]) in html
    rows = {row[0]: row for row in page.rows if len(row) == 5}
    for name, entry in measured["reconstruction"]["metrics"].items():
        values = [format_metric(name, entry[side]) for side in ("model", "real")]
        assert rows[RECONSTRUCTION[name].title][1:3] == values
        if name != "validity":
            assert f" {values[0]}" in html


def test_without_labels_features_have_no_classes(encoder):
    assert "density of the feature" in alts(read(encoder))


def test_what_cannot_be_drawn_is_said_in_numbers(tmp_path):
    run = train(tmp_path / "run", data=write_table(tmp_path / "t.csv"), features=2, **EMD)
    page = read(run)
    assert "Reconstructions" in page.headings
    assert not any("reconstructions" in alt for alt in alts(page))
    assert "in standardised coordinates" in page.html


def test_the_curves_are_relative_to_the_largest_value(tmp_path, monkeypatch):
    """Every feature apart and every centre its row: then both would be zero."""
    run = train(tmp_path / "run", features=1, variance="1.5:0.5", **EMD)
    drawn = []
    monkeypatch.setattr(
        "hilbound.reports.feature_plots.plot_bound", lambda ax, *values: drawn.append(values) or ax
    )
    monkeypatch.setattr("hilbound.reports.page.figure_uri", lambda *_: "data:image/png;base64,")
    tracked = {"train": [], "validation": []}
    for row in run.read_bounds():
        tracked[row["split"]].append(row)
    tracked_section(run, tracked, 2)
    for (steps, cost, limit), rows in zip(drawn, tracked.values(), strict=True):
        assert steps == [row["step"] for row in rows]
        # In two dimensions C = 1 / (2 pi variance).
        largest = [-math.log(2 * math.pi * row["variance"]) for row in rows]
        assert cost == pytest.approx(
            [r["log_value"] - c for r, c in zip(rows, largest, strict=True)]
        )
        gaps = [top - value for top, value in zip(limit, cost, strict=True)]
        assert gaps == pytest.approx([row["gap"] for row in rows])
        assert max(limit) < 0


def baseline(folder, **options):
    return fit(
        folder / "run",
        quiet=True,
        data=write_points(folder / "p.npy"),
        features=1,
        width=8,
        depth=1,
        steps=41,
        validate_every=41,
        batch_size=32,
        tensorboard=False,
        **options,
    )


def test_a_vae_is_reported_with_its_lower_bound(tmp_path):
    run = baseline(tmp_path, model="vae")
    page = read(run)
    html = page.html
    assert page.headings[0] == "p, vae, likelihood"
    assert "evidence lower bound against training steps" in alts(page)
    assert not any("tightness" in alt for alt in alts(page))
    last = [row for row in run.read_bounds() if row["split"] == "validation"][-1]
    assert "Evidence lower bound" in html
    assert f"{-last['loss']:.4g}" in html
    assert "Bound reached" not in html


def test_an_autoencoder_is_shown_with_one_reconstruction(tmp_path):
    run = baseline(tmp_path, model="autoencoder")
    page = read(run)
    html = page.html
    assert page.headings[1:4] == ["Training", "Reconstructions", "Features"]
    assert "each reconstructed once" in html
    assert "Bound reached" in html
    assert "best of 10" not in html


def test_what_an_older_version_left_out_is_measured(encoder):
    whole = encoder.read_json("metrics.json")
    measured = dict(whole)
    del measured["reconstruction"], measured["conditional_bound"]
    encoder.write_json("metrics.json", measured)
    write_report(encoder)
    again = encoder.read_json("metrics.json")
    assert again["reconstruction"] == whole["reconstruction"]


@pytest.fixture
def pictures(monkeypatch):
    """The figures of the section of samples, before they become pictures."""
    kept = []

    def keep(figure, *_, **__):
        kept.append(figure)
        return "data:image/png;base64,"

    monkeypatch.setattr("hilbound.reports.sample_sections.figure_uri", keep)
    return kept


def test_a_table_is_drawn_with_its_names_in_its_units_and_as_many_samples_as_rows(
    tmp_path, pictures
):
    run = train(tmp_path / "run", data=write_table(tmp_path / "t.csv"))
    html = write_report(run).read_text(encoding="utf-8")
    histograms, pairs = pictures
    assert [ax.get_xlabel() for ax in histograms.axes] == list(run.dataset.columns)
    low, high = histograms.axes[0].get_xlim()
    assert low < 180 < high
    assert high - low < 150
    real, fake = (np.asarray(pairs.axes[k].collections[0].get_offsets()) for k in (3, 1))
    assert len(real) == len(fake) == 200
    assert np.abs(np.median(real, axis=0) - [180, 70]).max() < 3
    assert "200 rows, training rows among them, as few were held out, in the table" in html


def test_two_columns_are_drawn_over_each_other_in_their_units(tmp_path, pictures):
    table = tmp_path / "t.csv"
    x = np.random.default_rng(0).normal(size=(2500, 2)) * [10, 2e5] + [180, 1e6]
    np.savetxt(table, x, delimiter=",", header="height,身長", comments="", fmt="%.3f")
    run = train(tmp_path / "run", data=table)
    html = write_report(run).read_text(encoding="utf-8")
    for figure in pictures:
        (ax,) = figure.axes
        assert (ax.get_xlabel(), ax.get_aspect()) == ("height", "auto")
        real, _, fake, _ = (np.asarray(dots.get_offsets()) for dots in ax.collections[:4])
        assert len(real) == len(fake) == 250
        assert np.median(real[:, 1]) == pytest.approx(1e6, rel=0.1)
    # Contours stand where the data are: in the user's units, too.
    left, right = pictures[1].axes[0].get_xlim()
    assert left < 180 < right
    label = pictures[0].axes[0].get_ylabel()
    assert label == "身長" or f"{label} is “身長”" in html


def test_the_glossary_explains_the_words_of_the_page_and_no_others(tmp_path):
    page = read(train(tmp_path / "run", data=write_table(tmp_path / "t.csv")))
    words = {row[0] for row in page.rows[-25:] if len(row) == 2}
    assert {"Bound", "Coverage", "Real data", "±", "Effective rank"} <= words
    assert "Gap" not in words


def test_the_nearest_rows_are_the_nearest():
    train_rows = torch.tensor([[0.0], [10.0], [3.0], [4.0]])
    space = MetricSpace(lambda x: x.double(), "coordinates")
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
        "100.0 %",
        "12.3 %",
        "0.0 %",
        "< 0.01 %",
    ]


@pytest.mark.parametrize(
    ("variance", "words"),
    [("0.8", "it stays where it is"), ("2:0.8", "it moves with the variance of the kernel only")],
)
def test_a_frozen_encoder_keeps_its_limit(encoder, tmp_path, variance, words):
    run = train(tmp_path / "run", features=1, encoder=encoder.path, variance=variance, **EMD)
    assert words in write_report(run).read_text(encoding="utf-8")
    limits = [row["log_limit"] for row in run.read_bounds() if row["split"] == "train"]
    still = max(limits) - min(limits) < 1e-9
    assert still == (variance == "0.8")
