"""``hilbound score``: the log density of every row, in the units of the user."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from hilbound.engine.seeding import stream
from hilbound.estimators.table_run import TableRun
from support.tables import fit_quickly, houses, write
from support.tiny_runs import COLUMNS, ask, train, weights, write_points

pytest_plugins = ["support.fixtures_runs"]


def refused(*arguments, words):
    result = ask("score", *arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    said = re.sub(r"[\s│]+", " ", result.stderr).strip()
    assert re.search(words, said), said


def scored(*arguments):
    result = ask("score", *arguments)
    assert result.exit_code == 0, result.stderr
    return result


@pytest.fixture
def table(trained):
    return pd.read_csv(trained.config.data)


def test_a_table_comes_back_with_its_densities(trained, table, tmp_path):
    table = table.assign(note="=1+1")[[*COLUMNS[::-1], "note"]].head(30)
    table.loc[3, "weight"] = np.nan
    source = write(table, tmp_path / "new.csv")
    said = scored(trained.path, source, "-o", tmp_path / "s.csv", "--draws", 50, "--seed", 3)
    assert "1 row with missing values: no density" in said.stderr
    assert "mean log density of 29 rows: " in said.stdout
    found = pd.read_csv(tmp_path / "s.csv")
    assert list(found) == [*table, "log_density", "log_density_error"]
    # A spreadsheet must find no formula.
    assert set(found["note"]) == {"'=1+1"}
    expected = trained.log_density(table[[*COLUMNS]], draws=50, seed=3)
    assert found["log_density"].to_numpy() == pytest.approx(expected.value, rel=1e-8, nan_ok=True)
    assert found["log_density"].isna().tolist() == [i == 3 for i in range(30)]


def test_other_units_move_the_density_by_their_logarithm(tmp_path):
    """The density of y = a x + b is that of x, divided by a: here from centimetres to metres."""
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(200, 2)) * [10, 3] + [180, 70])
    x.columns = ["height", "weight"]
    scores = []
    for factor in (1, 0.01):
        own = x.assign(height=x["height"] * factor)
        source = write(own, tmp_path / f"{factor}.csv")
        run = train(tmp_path / f"run{factor}", data=source)
        scored(run.path, source, "-o", tmp_path / "s.csv", "--draws", 200)
        scores.append(pd.read_csv(tmp_path / "s.csv")["log_density"].to_numpy())
    assert scores[1] == pytest.approx(scores[0] + math.log(100), abs=1e-3)


def test_arrays_give_a_density_for_each_row(tmp_path):
    run = train(tmp_path / "run")
    rows = write_points(tmp_path / "new.npy", 20)
    scored(run.path, rows, "-o", tmp_path / "s.csv")
    found = pd.read_csv(tmp_path / "s.csv")
    assert list(found) == ["log_density", "log_density_error"]
    # The same rows without names, as text.
    np.savetxt(tmp_path / "new.csv", np.load(rows), delimiter=",")
    scored(run.path, tmp_path / "new.csv", "-o", tmp_path / "t.csv", "--no-header")
    again = pd.read_csv(tmp_path / "t.csv")
    assert again["log_density"].to_numpy() == pytest.approx(found["log_density"].to_numpy())


def test_the_error_bar_tells_how_far_another_seed_is(tmp_path):
    run = train(tmp_path / "run", steps=40)
    rows = np.load(run.config.data)[:30]
    draws = [run.log_density(rows, draws=200, seed=seed) for seed in range(40)]
    spread = torch.stack([one.value for one in draws]).std(0)
    told = torch.stack([one.standard_error for one in draws]).mean(0)
    reliable = torch.stack([one.effective_draws for one in draws]).mean(0) > 20
    assert reliable.sum() > 10
    ratio = (spread / told)[reliable]
    assert float(ratio.median()) == pytest.approx(1, abs=0.2)


def test_a_latent_mixture_is_sampled_where_rows_need_it(tmp_path):
    run = train(tmp_path / "run", model="latent-mixture", noise_dim=16, steps=40)
    rows = np.load(run.config.data)[:20]
    near = run.log_density(rows, draws=1000, seed=2)
    data = run.read_json("run.json")["data"]
    z = torch.from_numpy((rows - data["offset"]) / data["scale"])
    with torch.no_grad():
        own = run.model.log_prob(z, 1000, stream(2, "density"))
        blind = run.model.draw(20_000, torch.Generator().manual_seed(0)).log_prob(z.float())
    log_volume = np.log(data["scale"]).sum()
    assert torch.allclose(near.value, own.value.double() - log_volume)
    assert torch.allclose(near.standard_error, own.standard_error.double())
    # Many draws from the model see every way to a row; draws near it may miss one, never add one.
    apart = near.value - (blind.double() - log_volume)
    assert -0.5 < float(apart.median()) < 0.05
    source = tmp_path / "rows.npy"
    np.save(source, rows)
    scored(run.path, source, "-o", tmp_path / "s.csv", "--draws", 1000, "--seed", 2)
    found = pd.read_csv(tmp_path / "s.csv")["log_density"]
    assert found.to_numpy() == pytest.approx(near.value, rel=1e-6)


def test_classes_are_weighted_by_their_rows(tmp_path):
    rng = np.random.default_rng(0)
    y = (rng.uniform(size=240) < 0.25).astype(int)
    x = rng.normal(size=(240, 2)) + 6 * y[:, None]
    np.savez(tmp_path / "t.npz", x=x, y=y)
    run = train(
        tmp_path / "run",
        data=tmp_path / "t.npz",
        model="latent-mixture",
        noise_dim=16,
        condition="classes",
        steps=60,
    )
    found = run.log_density(x[:40], draws=500)
    inner, counts = run.model.model, run.model.remembered_rows
    data = run.read_json("run.json")["data"]
    z = torch.from_numpy((x[:40] - data["offset"]) / data["scale"])
    each = [inner.log_prob(z, 500, torch.Generator().manual_seed(7), c).value for c in (0, 1)]
    expected = torch.stack(each).double() + (counts / counts.sum()).log()[:, None]
    expected = expected.logsumexp(0) - np.log(data["scale"]).sum()
    assert (found.value - expected).abs().median() < 0.1


def test_images_come_as_bytes(tmp_path):
    run = train(tmp_path / "run", data="digits", samples=64, steps=2)
    images = (run.dataset.test[:5].reshape(5, 8, 8) * 255).round().byte().numpy()
    np.save(tmp_path / "x.npy", images)
    scored(run.path, tmp_path / "x.npy", "-o", tmp_path / "s.csv", "--draws", 20)
    expected = run.log_prob(images / 255.0, draws=20)
    found = pd.read_csv(tmp_path / "s.csv")["log_density"]
    assert found.to_numpy() == pytest.approx(expected, rel=1e-8)


# --- tables with a target -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder = tmp_path_factory.mktemp("target")
    source = write(houses().drop(columns="rent"), folder / "houses.csv")
    assert fit_quickly(source, folder / "run", "--quiet", "--no-report").exit_code == 0
    return folder / "run"


def test_a_target_is_scored_given_the_other_columns(target, tmp_path):
    new = houses(40, 5).drop(columns="rent")
    new.loc[2, "price"] = np.nan
    source = write(new, tmp_path / "new.csv")
    said = scored(target, source, "-o", tmp_path / "s.csv")
    assert "1 row with missing values" in said.stderr
    found = pd.read_csv(tmp_path / "s.csv")
    assert list(found) == [*new, "log_density"]
    run = TableRun.open(target)
    q = run.predict(new.drop(columns="price"), "new")
    y = torch.tensor(new[["price"]].to_numpy())
    expected = q.log_prob(y.nan_to_num()).numpy()
    keep = new["price"].notna()
    assert found["log_density"][keep].to_numpy() == pytest.approx(expected[keep], rel=1e-6)
    assert "'=Bonn" in set(found["city"])


def test_what_is_wrong_with_new_rows_of_a_target_is_named(target, tmp_path):
    new = houses(6, 5).drop(columns="rent")
    for frame, words in (
        (new.drop(columns="price"), "new.csv lacks the target 'price', whose density is asked"),
        (new.drop(columns="area"), "new.csv lacks 'area', on which the model was fitted"),
        (new.assign(city="Paris"), "column 'city' holds 'Paris', never seen"),
        (new.assign(log_density=1.0), "new.csv has 'log_density', on which the model was not"),
    ):
        refused(target, write(frame, tmp_path / "new.csv"), words=words)
    source = write(new.assign(city="Paris"), tmp_path / "new.csv")
    scored(target, source, "--unknown", "missing", "-o", tmp_path / "s.csv")
    refused(target, source, "--draws", 5, words="--draws 5: a run on a table's target draws")


# --- wrong input --------------------------------------------------------------------------------


def test_what_cannot_be_scored_is_refused(trained, table, tmp_path):
    source = tmp_path / "new.csv"
    for frame, words in (
        (table.drop(columns="weight"), "new.csv lacks 'weight', on which the model was fitted"),
        (table.assign(weight="70 kg"), "column 'weight' holds '70 kg' in row 1 below the header"),
        (table.assign(log_density=1), "columns named as the results are, 'log_density': rename"),
    ):
        refused(trained.path, write(frame, source), words=words)
    refused(trained.path, source, "-o", source, words="is the file of rows: choose another")
    refused(trained.path, source, "-o", tmp_path / "s.txt", words="output must end in one of .csv")
    refused(trained.path, tmp_path / "gone.csv", words="gone.csv does not exist")
    refused(trained.path, source, "--unknown", "missing", words="--unknown missing: it is for runs")
    refused(tmp_path, source, words="holds no config.yaml")
    assert not (tmp_path / "scores.csv").exists()


def test_spoilt_weights_have_no_density(trained, table, tmp_path):
    spoilt = {name: torch.full_like(t, torch.nan) for name, t in weights(trained).items()}
    spoilt["variance"] = weights(trained)["variance"]
    save_file(spoilt, trained.path / "model.safetensors")
    source = write(table.head(3), tmp_path / "new.csv")
    refused(trained.path, source, words="its training failed. Fit again with a lower --learning")
