"""The command line for tables with a target: fit, predict, evaluate, report, and wrong input."""

import gzip
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

from hilbound import cli
from hilbound.errors import InputError
from hilbound.estimators import ConditionalDensityEstimator
from hilbound.estimators.table_data import read_target
from hilbound.estimators.table_output import harmless
from hilbound.estimators.table_run import TableRun
from hilbound.training.runs import Run
from support.tables import fit_quickly, houses, write
from support.tiny_runs import ask, flags, write_points

pytest_plugins = ["support.fixtures_runs"]

OWN = {"config.yaml", "run.json", "model.safetensors", "metrics.json", "report.html"}


def plain(text):
    return re.sub(r"\s+", " ", text)


def refused(*arguments, words):
    """Ask, and look for a message on stderr alone, without a traceback, and exit code 2."""
    result = ask(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    said = re.sub(r"[\s│]+", " ", result.stderr).strip()
    assert re.search(words, said), said


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    table = write(houses().drop(columns="rent"), folder / "houses.csv")
    result = fit_quickly(table, folder / "run", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    return folder


@pytest.fixture
def fitted(original, tmp_path):
    """A copy of a run, beside its table; its configuration names the table of the original."""
    shutil.copytree(original, tmp_path / "fitted")
    return tmp_path / "fitted" / "run"


def new_rows(n=6, seed=1):
    return houses(n, seed).drop(columns=["rent", "price"])


# --- the road -----------------------------------------------------------------------------------


def test_fit_leaves_a_run_and_prints_what_it_is_worth(tmp_path):
    table = write(houses().drop(columns="rent"), tmp_path / "houses.csv")
    result = fit_quickly(table, tmp_path / "run", "--seed", 3, "--test-fraction", 0.25)
    assert result.exit_code == 0, result.stderr
    assert {file.name for file in (tmp_path / "run").iterdir()} == OWN
    shown = plain(result.stdout)
    assert "price, 30 test rows" in shown
    assert (
        "fitted on 90 rows, measured on the 30 others; columns: 2 of numbers, 1 of texts" in shown
    )
    for word in ("Log score", "CRPS", "RMSE", "Coverage of 95 % intervals", "one Gaussian"):
        assert word in shown
    assert f"report: {tmp_path / 'run' / 'report.html'}" in result.stdout
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config == {
        "kind": "table",
        "data": str(table),
        "target": ["price"],
        "columns": None,
        "drop": [],
        "header": None,
        "delimiter": None,
        "decimal": None,
        "effort": "default",
        "seed": 3,
        "test_fraction": 0.25,
        "max_epochs": 3,
    }


def test_the_figures_are_those_of_an_independent_fit(original):
    """The same rows held out, the same model, its own methods."""
    run = TableRun.open(original / "run")
    train, test = run.splits["train"], run.splits["test"]
    assert (len(train.y), len(test.y)) == (96, 24)
    both = pd.concat([train.table, test.table]).assign(price=np.concatenate([train.y, test.y]))
    table = pd.read_csv(original / "houses.csv")
    by = ["area", "price"]
    pd.testing.assert_frame_equal(
        both.sort_values(by)[table.columns].reset_index(drop=True),
        table.sort_values(by).reset_index(drop=True),
        check_dtype=False,
    )
    model = ConditionalDensityEstimator(max_epochs=3, random_state=0).fit(train.table, train.y)
    measured = run.read_json("metrics.json")
    y = test.y[:, 0]
    own = measured["targets"]["price"]
    assert own["log_score"]["model"] == pytest.approx(model.score(test.table, y))
    assert own["crps"]["model"] == pytest.approx(model.crps(test.table, y).mean())
    low, high = model.predict_interval(test.table, 0.8).T
    assert own["coverage_0.8"]["model"] == pytest.approx(((low <= y) & (y <= high)).mean())
    assert {one["name"] for one in measured["importance"]} == {"area", "rooms", "city"}


def test_configuration_repeats_the_run(fitted, tmp_path):
    again = tmp_path / "again"
    result = ask("fit", "--config", fitted / "config.yaml", "-o", again, "-q", "--no-report")
    assert result.exit_code == 0, result.stderr
    assert (again / "model.safetensors").read_bytes() == (fitted / "model.safetensors").read_bytes()
    assert (again / "metrics.json").read_text() == (fitted / "metrics.json").read_text()
    assert not (again / "report.html").exists()


def test_predict_writes_what_the_estimator_predicts(fitted, tmp_path):
    table = write(new_rows(), tmp_path / "new.csv")
    out = tmp_path / "deep" / "predictions.csv"
    result = ask("predict", fitted, table, "-o", out, "--quantiles", "0.9,0.5")
    assert result.exit_code == 0, result.stderr
    assert f"6 predictions: {out}" in result.stdout
    found = pd.read_csv(out)
    assert list(found) == [
        *("area", "rooms", "city"),
        *("price_mean", "price_std", "price_q0.5", "price_q0.9"),
    ]
    model, rows = ConditionalDensityEstimator.load(fitted / "model.safetensors"), new_rows()
    q = model.predict_distribution(rows)
    np.testing.assert_allclose(found["price_mean"], model.predict(rows), rtol=1e-8)
    np.testing.assert_allclose(found["price_std"], q.variance.sqrt().squeeze(-1), rtol=1e-8)
    quantiles = model.predict_quantiles(rows, [0.5, 0.9])
    np.testing.assert_allclose(found[["price_q0.5", "price_q0.9"]], quantiles, rtol=1e-8)


def test_predict_scores_targets_that_are_there(fitted, tmp_path):
    rows = houses(6, 1).drop(columns="rent")
    known = rows.copy()
    known.loc[2, "price"] = np.nan
    out = tmp_path / "p.csv"
    ask("predict", fitted, write(known, tmp_path / "new.csv"), "-o", out)
    found = pd.read_csv(out)["log_density"]
    model = ConditionalDensityEstimator.load(fitted / "model.safetensors")
    expected = model.score_samples(rows.drop(columns="price"), rows["price"])
    assert found.isna().tolist() == [False, False, True, False, False, False]
    np.testing.assert_allclose(found.drop(2), np.delete(expected, 2), rtol=1e-8)


def test_the_order_of_the_columns_is_free(fitted, tmp_path):
    ask("predict", fitted, write(new_rows(), tmp_path / "a.csv"), "-o", tmp_path / "pa.csv")
    other = new_rows()[["city", "rooms", "area"]]
    ask("predict", fitted, write(other, tmp_path / "b.csv"), "-o", tmp_path / "pb.csv")
    a, b = pd.read_csv(tmp_path / "pa.csv"), pd.read_csv(tmp_path / "pb.csv")
    pd.testing.assert_frame_equal(a, b[list(a)])


def test_rows_are_predicted_in_pieces(fitted, tmp_path, monkeypatch):
    table = write(new_rows(), tmp_path / "new.csv")
    ask("predict", fitted, table, "-o", tmp_path / "whole.csv")
    monkeypatch.setattr("hilbound.estimators.table_output._ROWS", 4)
    ask("predict", fitted, table, "-o", tmp_path / "pieces.csv")
    assert (tmp_path / "pieces.csv").read_text() == (tmp_path / "whole.csv").read_text()
    rows = new_rows().astype({"area": object})
    rows.loc[5, "area"] = "big"
    refused("predict", fitted, write(rows, table), words="'big' in row 6 below the header")


def test_formulas_are_made_harmless_in_texts_alone(fitted, tmp_path):
    rows = new_rows().assign(city="=Bonn", area=-1.5)
    out = tmp_path / "p.csv.gz"
    assert ask("predict", fitted, write(rows, tmp_path / "n.csv"), "-o", out).exit_code == 0
    with gzip.open(out, "rt") as lines:
        lines.readline()
        assert lines.readline().startswith("-1.5,,'=Bonn,")
    cells = pd.DataFrame({"@a": ["+1", "-2", "@x", "\tx", "a=b", None], "n": [-1] * 6})
    plain_texts = harmless(cells)["'@a"]
    assert plain_texts[:5].tolist() == ["'+1", "'-2", "'@x", "'\tx", "a=b"]
    assert plain_texts.isna().tolist() == [False] * 5 + [True]
    assert harmless(cells)["n"].tolist() == [-1] * 6


def test_two_targets(tmp_path):
    table = write(houses(), tmp_path / "houses.csv")
    result = fit_quickly(table, tmp_path / "run", targets=("price", "rent"))
    assert result.exit_code == 0, result.stderr
    shown = plain(result.stdout)
    assert "price, 24 test rows" in shown
    assert "rent, 24 test rows" in shown
    assert "all targets together: log score" in shown
    ask("predict", tmp_path / "run", table, "-o", tmp_path / "p.csv", "--quantiles", "0.5")
    found = list(pd.read_csv(tmp_path / "p.csv"))
    assert found[5:] == [
        *("price_mean", "price_std", "price_q0.5"),
        *("rent_mean", "rent_std", "rent_q0.5", "log_density"),
    ]


def numbered(n=40, seed=0):
    """A table with columns that nothing should be predicted from: a number, a date, all missing."""
    days = pd.date_range("2020-01-01", periods=n).astype(str)
    return houses(n, seed).assign(id=range(n), day=days, empty=np.nan)


@pytest.mark.parametrize(
    "options",
    [
        ("--drop", "id,day, empty,rent"),
        ("--columns", "area,rooms,city"),
        ("--columns", "city,area,rooms,day", "--drop", "day"),
    ],
)
def test_columns_are_left_out_and_may_stay_in_the_file(fitted, tmp_path, options):
    table, run = write(numbered(120), tmp_path / "t.csv"), tmp_path / "run"
    result = fit_quickly(table, run, "-q", *options)
    assert result.exit_code == 0, result.stderr
    # As if the columns had never been there, with what is kept in the table's own order.
    assert (run / "model.safetensors").read_bytes() == (fitted / "model.safetensors").read_bytes()
    assert ask("evaluate", run).exit_code == 0
    rows = numbered(6, 1)
    ask("predict", run, write(rows, tmp_path / "new.csv"), "-o", tmp_path / "p.csv")
    found = pd.read_csv(tmp_path / "p.csv")
    assert list(found)[: rows.shape[1]] == list(rows)  # a row is still known by its number
    ask("predict", run, write(new_rows(), tmp_path / "bare.csv"), "-o", tmp_path / "q.csv")
    bare = pd.read_csv(tmp_path / "q.csv")
    np.testing.assert_array_equal(found["price_mean"], bare["price_mean"])
    again = ask("fit", "--config", run / "config.yaml", "-o", tmp_path / "again", "-q")
    assert again.exit_code == 0, again.stderr
    refused("fit", table, "--target", "price", "-o", tmp_path / "other", words="'day' .*--drop")


def test_a_table_with_a_target_is_read_as_every_other(tmp_path, caplog):
    """Marks, decimal commas and a missing header are recognised or named, for fit and predict."""
    plain_run, run = tmp_path / "plain", tmp_path / "run"
    rows = houses(40).drop(columns="city").round(1)
    fit_quickly(write(rows, tmp_path / "t.csv"), plain_run, "-q", "--no-report")
    weights = (plain_run / "model.safetensors").read_bytes()
    rows.to_csv(tmp_path / "commas.csv", sep=";", decimal=",", index=False)
    rows.to_csv(tmp_path / "odd.csv", sep=":", index=False)
    for name, options in (("commas.csv", ()), ("odd.csv", ("--delimiter", ":"))):
        result = fit_quickly(tmp_path / name, run, "-q", "--no-report", "--overwrite", *options)
        assert result.exit_code == 0, result.stderr
        assert (run / "model.safetensors").read_bytes() == weights
        assert ask("evaluate", run).exit_code == 0
        new = ["-o", tmp_path / "p.csv", *options]
        assert ask("predict", run, tmp_path / name, *new).exit_code == 0
    rows.set_axis(["1", "2", "3", "4"], axis=1).to_csv(tmp_path / "years.csv", index=False)
    caplog.clear()
    result = fit_quickly(
        tmp_path / "years.csv", run, "--no-report", "--overwrite", targets=("column_3",)
    )
    assert result.exit_code == 0, result.stderr
    assert "no header found: the first line (1, 2, 3, 4) is taken for a row" in caplog.text
    caplog.clear()
    assert ask("evaluate", run).exit_code == 0
    assert caplog.text == ""
    result = fit_quickly(
        tmp_path / "years.csv", run, "--header", "--no-report", "--overwrite", targets=("3",)
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads((run / "run.json").read_text())["data"]["rows"] == 40


def test_the_default_folder_bears_the_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with gzip.open(tmp_path / "my.houses.csv.gz", "wt") as lines:
        lines.write(houses(40).to_csv(index=False))
    result = ask("fit", "my.houses.csv.gz", "--target", "price", "--max-epochs", 1, "-q")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "runs" / "my.houses-price-0" / "report.html").exists()


def test_tabs_and_semicolons_part_columns(tmp_path):
    run = tmp_path / "run"
    houses(40).rename(columns={"city": "city, town"}).to_csv(
        tmp_path / "t.tsv", sep="\t", index=False
    )
    assert fit_quickly(tmp_path / "t.tsv", run, "-q", "--no-report").exit_code == 0
    columns = json.loads((run / "run.json").read_text())["data"]["columns"]
    assert columns == ["area", "rooms", "city, town", "rent"]
    houses(40).to_csv(tmp_path / "t.csv", sep=";", index=False)
    result = fit_quickly(tmp_path / "t.csv", run, "-q", "--no-report", "--overwrite")
    assert result.exit_code == 0, result.stderr


def test_a_header_of_markup_stays_text_in_the_report(tmp_path):
    script = "<script>alert(1)</script>"
    table = houses(40).rename(columns={"area": script, "price": "[b]" + script})
    table = write(table.assign(city=script), tmp_path / "t.csv")
    result = fit_quickly(table, tmp_path / "run", targets=("[b]" + script,))
    assert result.exit_code == 0, result.stderr
    assert "[b]<script>" in plain(result.stdout)
    html = (tmp_path / "run" / "report.html").read_text()
    assert "<script" not in html
    assert "[b]&lt;script&gt;" in html


def test_evaluate_and_report(fitted):
    (fitted / "metrics.json").unlink()
    (fitted / "report.html").unlink()
    shown = plain(ask("evaluate", fitted, "--split", "train").stdout)
    assert "price, 96 training rows" in shown
    assert not (fitted / "metrics.json").exists()
    assert "price, 24 test rows" in plain(ask("evaluate", fitted).stdout)
    (fitted / "metrics.json").unlink()
    assert f"report: {fitted / 'report.html'}" in ask("report", fitted).stdout
    assert (fitted / "metrics.json").exists()
    assert (fitted / "report.html").stat().st_size > 10_000


def test_texts_that_only_test_rows_hold_count_as_missing_and_are_told(tmp_path):
    table = houses(60)
    table["city"] = [f"town {i}" for i in range(60)]
    table = write(table, tmp_path / "t.csv")
    result = fit_quickly(table, tmp_path / "run", "--no-report")
    assert result.exit_code == 0, result.stderr
    assert "12 texts of 'city' are in no training row and count as missing" in plain(result.stdout)


# --- wrong use ----------------------------------------------------------------------------------


def spoil(kind):
    table = houses(40).drop(columns="rent")
    changes = {
        "constant": lambda t: t.assign(price=3.0),
        "few rows": lambda t: t[:11],
        "fewer rows than folds": lambda t: t[:9],
        "one row": lambda t: t[:1],
        "missing": lambda t: t.assign(price=t["price"].where(t.index != 4)),
        "infinite target": lambda t: t.assign(price=t["price"].where(t.index != 4, np.inf)),
        "infinite column": lambda t: t.assign(area=t["area"].where(t.index != 4, -np.inf)),
        "text": lambda t: t.assign(price=t["price"].map("{} EUR".format)),
        "category": lambda t: t.assign(price=t["price"] > 300),
        "dates": lambda t: t.assign(day="2020-01-31"),
        "decimal comma": lambda t: t.assign(width="1,5"),
        "twice": lambda t: t[[*t, "area"]],
        "alone": lambda t: t[["price"]],
        "no rows": lambda t: t[:0],
    }
    return changes[kind](table)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("constant", r"'price' is constant \(3 in all 32 training rows\).*another column"),
        ("few rows", "has 11 rows, of which 9 are left .* 10 are needed.*smaller --test-fraction"),
        ("fewer rows than folds", "has 9 rows, .*give more rows$"),
        ("one row", "has 1 rows, of which 0 are left"),
        ("missing", "'price' is missing in 1 of 40 rows, first in row 5 below .*remove"),
        ("infinite target", "'price' is infinite in 1 of 40 rows, first in row 5"),
        ("infinite column", "'area' holds infinity in 1 of 40 rows, first in row 5"),
        ("text", "'price' holds '[0-9.]+ EUR', a category or text"),
        ("category", "'price' holds '(True|False)', a category.*classifier"),
        ("dates", "'day' holds dates such as '2020-01-31'.*days since"),
        ("decimal comma", "'width' holds numbers with a decimal comma such as '1,5'.*--decimal ,"),
        ("twice", "several columns are named 'area': rename or remove"),
        ("alone", "no column is left beside the target"),
        ("no rows", "no rows below the header"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_before_anything_is_written(tmp_path, kind, words):
    table = write(spoil(kind), tmp_path / "t.csv")
    refused("fit", table, "--target", "price", "-o", tmp_path / "run", words=words)
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", b"", "an empty file"),
        ("t.csv", b"a,price\n1,2\n3\n", "line 3 has 1 fields, the first line has 2"),
        ("t.csv", b"\xff\xfe,\x00", "UTF-8"),
        ("t.csv", b",price\n1,2\n", "column 1 has no name.*index=False"),
        ("t.csv.gz", b"a,price", r"t\.csv\.gz cannot be read"),
        ("t.parquet", b"PAR1", r"pip install .hilbound\[parquet\]|cannot be read as Parquet"),
        ("t.xlsx", b"", r"suffix '\.xlsx' is unknown, allowed .*\.csv\.gz"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    refused("fit", tmp_path / name, "--target", "price", "-o", tmp_path / "run", words=words)
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--target", "prise"], "no column 'prise': did you mean 'price'"),
        (["--target", "price", "--drop", "aera"], "^error: --drop: .* did you mean 'area'"),
        (["--target", "price", "--columns", "citi,area"], "^error: --columns: .* 'citi': did you"),
        (["--target", "price", "--columns", ""], "^error: --columns: .* no column ''"),
        (["--target", "price", "--drop", "area,price"], "drop names 'price', which is a target"),
        (["--target", "price", "--columns", "price"], "no column is left beside the target"),
        (["--target", "city"], "'city' holds '.*', a category or text"),
        (["--target", "price", "--target", "price"], "a target only once"),
        (["--target", "price", "--steps", 3], "--steps does not go with --target: a table takes"),
        (["--target", "price", "--model", "vae", "--variance", "1"], "--model.* do not go with"),
        (["--target", "price", "--test-fraction", 1.5], "test_fraction: .*less than 1"),
        (["--target", "price", "--effort", "much"], "Invalid value for '--effort'"),
        (["--effort", "high"], "--effort goes with --target"),
        (["--max-epochs", 3], "--max-epochs goes with --target"),
        (["--target", "price", "--resume", "run"], "--resume takes all options from"),
    ],
)
def test_options_that_do_not_go_together(tmp_path, options, words):
    table = write(houses(40), tmp_path / "t.csv")
    where = [] if "--resume" in options else ["-o", tmp_path / "run"]
    data = [] if "--resume" in options else [table]
    refused("fit", *data, *options, *where, words=words)
    assert [file.name for file in tmp_path.iterdir()] == ["t.csv"]


def test_yaml_of_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(houses(40), tmp_path / "t.csv")
    (tmp_path / "o.yaml").write_text("data: t.csv\ntarget: price\nefort: high\n")
    refused("fit", "--config", "o.yaml", words="unknown option 'efort': did you mean 'effort'")
    (tmp_path / "o.yaml").write_text("target: price\n")
    refused("fit", "--config", "o.yaml", words="data is missing")
    (tmp_path / "o.yaml").write_text("data: t.csv\ntarget: price\nmax-epochs: 1\nreport: false\n")
    assert ask("fit", "--config", "o.yaml", "-q").exit_code == 0
    assert (tmp_path / "runs" / "t-price-0").is_dir()


def test_folders_that_are_taken(fitted, tmp_path):
    table = write(houses(40), tmp_path / "t.csv")
    before = {f.name: f.read_bytes() for f in fitted.iterdir()}
    refused("fit", table, "--target", "price", "-o", fitted, words="another folder, or replace it")
    refused("fit", "moons", *flags(), "-o", fitted, words="another folder, or replace it")
    refused("fit", table, "--target", "prise", "-o", fitted, "--overwrite", words="did you mean")
    assert {f.name: f.read_bytes() for f in fitted.iterdir()} == before
    refused("fit", table, "--target", "price", "-o", table / "run", words="is no folder")
    assert fit_quickly(table, fitted, "-q", "--overwrite", "--no-report").exit_code == 0
    assert {f.name for f in fitted.iterdir()} == OWN - {"report.html"}


def test_runs_of_both_kinds_replace_each_other(fitted, tmp_path):
    points = write_points(tmp_path / "p.npy")
    options = ("-o", fitted, "-q", "--no-report", "--overwrite")
    assert ask("fit", points, *flags(), *options).exit_code == 0
    assert Run.open(fitted).config.data == str(points)
    table = write(houses(40), tmp_path / "t.csv")
    assert fit_quickly(table, *options[1:]).exit_code == 0
    assert {f.name for f in fitted.iterdir()} == OWN - {"report.html"}


def test_each_kind_of_run_says_what_to_use_instead(fitted, trained, tmp_path):
    for command in (["sample"], ["reconstruct"], ["fit", "--resume"]):
        refused(*command, fitted, words="predicts a table's target.*use 'hilbound predict")
    table = write(houses(6), tmp_path / "t.csv")
    refused("predict", trained.path, table, words="predicts no target.*'hilbound sample")
    refused("evaluate", fitted, "--samples", 9, words="--samples is for runs that draw")
    refused("evaluate", trained.path, "--split", "test", words="--split is for runs on a table")
    refused("predict", tmp_path, table, words=r"holds no config\.yaml")
    refused("predict", tmp_path / "nowhere", table, words="does not exist: give the folder")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.assign(city="Bern"), "'city' holds 'Bern', never seen.*--unknown missing"),
        (lambda t: t.drop(columns="area"), "lacks 'area', on which the model was fitted: add"),
        (lambda t: t.rename(columns={"area": "Area "}), "lacks 'area'.*did you mean 'Area'"),
        (lambda t: t.rename(columns={"rooms": "room"}), "lacks 'rooms'.*did you mean 'room'"),
        (lambda t: t.assign(id=1), "has 'id', on which the model was not fitted: remove"),
        (lambda t: t[["area", "area", "rooms", "city"]], "several columns are named 'area'"),
        (lambda t: t.assign(area=["1", "2", "big", "4", "5", "6"]), "'area' .*'big' in row 3"),
        (lambda t: t.assign(area=np.inf), "'area' holds infinity in 6 of 6 rows"),
        (lambda t: t.assign(price="dear"), "target 'price' holds 'dear', a category"),
        (lambda t: t.assign(price_mean=1, price=1.0), "not fitted|named as the predictions"),
        (lambda t: t[:0], "no rows below the header"),
    ],
)
def test_new_rows_that_cannot_be_used_are_refused(fitted, tmp_path, change, words):
    table = write(change(new_rows()), tmp_path / "new.csv")
    refused("predict", fitted, table, "-o", tmp_path / "p.csv", words=words)
    assert not (tmp_path / "p.csv").exists()


def test_texts_never_seen_can_count_as_missing(fitted, tmp_path):
    rows = new_rows()
    table = write(rows.assign(city="Bern"), tmp_path / "new.csv")
    out = tmp_path / "p.csv"
    assert ask("predict", fitted, table, "-o", out, "--unknown", "missing").exit_code == 0
    found = pd.read_csv(out)
    assert set(found["city"]) == {"Bern"}
    ask("predict", fitted, write(rows.assign(city=None), table), "-o", tmp_path / "q.csv")
    assert found["price_mean"].tolist() == pd.read_csv(tmp_path / "q.csv")["price_mean"].tolist()


def test_texts_that_look_like_numbers_stay_texts(tmp_path):
    table = houses(40).assign(city=["01", "02", "x", "04"] * 10)
    run = tmp_path / "run"
    fit_quickly(write(table, tmp_path / "t.csv"), run, "-q", "--no-report")
    rows = write(table[:2].drop(columns="price"), tmp_path / "new.csv")
    result = ask("predict", run, rows, "-o", tmp_path / "p.csv")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "p.csv").read_text().splitlines()[1].split(",")[2] == "01"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "p.txt"], r"must end in one of \.csv, \.csv\.gz, \.parquet"),
        (["--quantiles", "0.5,1"], "different probabilities between 0 and 1.*got '0.5,1'"),
        (["--quantiles", "half"], "different probabilities"),
        (["--quantiles", "0.5,0.5"], "different probabilities"),
        (["-o", "new.csv"], "is the table itself"),
        (["--unknown", "ignore"], "Invalid value for '--unknown'"),
        (["-o", "new.csv/p.csv"], "cannot be written"),
    ],
)
def test_wrong_options_of_predict(fitted, tmp_path, monkeypatch, options, words):
    monkeypatch.chdir(tmp_path)
    write(new_rows(), tmp_path / "new.csv")
    refused("predict", fitted, "new.csv", *options, words=words)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["fitted", "new.csv"]


def test_a_table_that_changed_or_is_gone(tmp_path):
    table = write(houses(40), tmp_path / "t.csv")
    run = tmp_path / "run"
    fit_quickly(table, run, "-q")
    write(houses(40)[::-1], table)
    for command in ("evaluate", "report"):
        refused(command, run, words="has changed since.*restore it, or fit anew")
    table.unlink()
    refused("evaluate", run, words="table of run .*run.* is not there any more.*by --data")


def test_a_table_that_was_moved_is_named_again(tmp_path, monkeypatch):
    """A run keeps the whole path, and the name as given; --data says where the table went."""
    monkeypatch.chdir(tmp_path)
    write(houses(40), Path("t.csv"))
    fit_quickly(Path("t.csv"), Path("run"), "-q")
    facts = json.loads(Path("run/run.json").read_text())
    assert facts["data"]["name"] == "t.csv"
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["data"] == str(tmp_path / "t.csv")
    before = json.loads(Path("run/metrics.json").read_text())
    Path("away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    assert ask("evaluate", "../run").exit_code == 0
    (tmp_path / "t.csv").rename(tmp_path / "moved.csv")
    refused("evaluate", "../run", words="by --data")
    assert ask("evaluate", "../run", "--data", "../moved.csv").exit_code == 0
    after = json.loads(Path("../run/metrics.json").read_text())
    assert after["log_score"] == before["log_score"]
    result = ask("report", "../run", "--data", "../moved.csv", "-o", "page.html")
    assert result.exit_code == 0, result.stderr
    assert Path("page.html").read_text().startswith("<!doctype html>")


def test_a_table_comes_on_standard_input_and_stays_with_the_run(tmp_path):
    frame = houses(40)
    table = write(frame, tmp_path / "t.csv")
    words = [
        "fit",
        "-",
        "--target",
        "price",
        "--max-epochs",
        "3",
        "-q",
        "-o",
        str(tmp_path / "run"),
    ]
    done = CliRunner().invoke(cli.app, words, input=table.read_bytes())
    assert done.exit_code == 0, done.stderr
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    assert json.loads((moved / "run.json").read_text())["data"]["name"] == "standard input"
    assert (moved / "data.csv").read_bytes() == table.read_bytes()
    assert ask("evaluate", moved).exit_code == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.yaml", "config.yaml|data is missing"),
        ("run.json", r"run\.json"),
        ("model.safetensors", r"model\.safetensors"),
        ("metrics.json", r"metrics\.json"),
    ],
)
def test_damaged_files_are_named(fitted, name, words):
    whole = (fitted / name).read_bytes()
    for damage in (whole[:4], b"{}"):
        (fitted / name).write_bytes(damage)
        refused("report", fitted, words=words)


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(ConditionalDensityEstimator, "fit", stop)
    result = fit_quickly(write(houses(40), tmp_path / "t.csv"), tmp_path / "run")
    assert result.exit_code == 1
    assert "interrupted: nothing was written" in result.stderr
    assert not (tmp_path / "run").exists()


def test_parquet_there_and_back(fitted, tmp_path):
    pytest.importorskip("pyarrow", reason="install pyarrow to run this")
    rows = houses(6, 1).drop(columns="rent")
    rows.to_parquet(tmp_path / "new.parquet")
    out = tmp_path / "p.parquet"
    assert ask("predict", fitted, tmp_path / "new.parquet", "-o", out).exit_code == 0
    assert pd.read_parquet(out)["log_density"].notna().all()


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pd.Series([1, 2], dtype="category", name="p"), "'p' holds '1', a category"),
        (pd.Series(pd.date_range("2020", periods=2), name="p"), "'p' holds dates or times"),
        (pd.Series([1j, 2j], name="p"), "'p' holds something else than numbers"),
        (pd.Series([[1], [2]], name="p"), "'p' holds something else than numbers"),
    ],
)
def test_targets_of_typed_files_that_are_no_numbers(column, words):
    with pytest.raises(InputError, match=words):
        read_target(column, "t.parquet")


def test_nullable_numbers_are_numbers():
    column = pd.Series([1, None], dtype="Int64", name="p")
    np.testing.assert_array_equal(read_target(column, "t"), [1, np.nan])
