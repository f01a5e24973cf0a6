"""What a run answers in Python: data in memory, samples, log densities, metrics."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import hilbound
from hilbound import cli
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.training.runs import Run
from support import oracles
from support.tiny_runs import COLUMNS, TINY, ask, flags, same_weights, write_points, write_table

pytest_plugins = ["support.fixtures_runs"]


def test_data_in_memory_train_the_run_of_their_file(tmp_path):
    table = write_table(tmp_path / "t.csv")
    frame = pd.read_csv(table)
    array = np.load(write_points(tmp_path / "p.npy"))
    for data, file in ((frame, table), (array, tmp_path / "p.npy")):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        shutil.rmtree(tmp_path / "moved", ignore_errors=True)
        run = hilbound.fit(tmp_path / "run", data=data, quiet=True, **TINY)
        plain = hilbound.fit(tmp_path / "plain", data=file, overwrite=True, quiet=True, **TINY)
        assert same_weights(run, plain)
        # The folder has all that evaluation and resumption need, wherever it goes.
        moved = (tmp_path / "run").rename(tmp_path / "moved")
        assert Run.open(moved).evaluate()["metrics"] == plain.evaluate()["metrics"]
        longer = hilbound.resume(moved, steps=10, quiet=True)
        assert longer.read_json("run.json")["step"] == 10


def test_a_run_that_keeps_its_data_can_replace_itself(tmp_path):
    x = np.random.default_rng(0).normal(size=(100, 2))
    run = hilbound.fit(tmp_path / "run", data=x, quiet=True, **TINY)
    again = ["--config", run.path / "config.yaml", "-o", run.path, "--overwrite", "-q"]
    result = ask("fit", *again)
    assert result.exit_code == 0, result.stderr
    assert (run.path / "data.npy").exists()
    frame = pd.DataFrame(x, columns=["a", "b"])
    hilbound.fit(run.path, data=frame, overwrite=True, quiet=True, **TINY)
    assert not (run.path / "data.npy").exists()
    assert (run.path / "data.csv").exists()


def test_a_frame_comes_first_as_moons_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(100, 2))
    run = hilbound.fit(pd.DataFrame(x), quiet=True, **TINY)
    assert str(run.path) == "runs/data-debiased-0"
    assert run.dataset.columns == ("0", "1")


def test_the_log_density_is_that_of_the_mixture_in_the_users_units(trained):
    rows = np.loadtxt(trained.config.data, delimiter=",", skiprows=1)[:12]
    facts = trained.read_json("run.json")["data"]
    q = trained.model.draw(50, stream(3, "density"))
    scale = np.array(facts["scale"])
    density = oracles.as_dense(q)((rows - facts["offset"]) / scale) / scale.prod()
    found = trained.log_prob(rows, draws=50, seed=3)
    assert found.dtype == torch.float64
    assert found.numpy() == pytest.approx(np.log(density), rel=1e-6)
    frame = pd.DataFrame(rows, columns=COLUMNS)[[*COLUMNS[::-1]]]
    assert torch.equal(trained.log_prob(frame, draws=50, seed=3), found)
    rows[4, 1] = np.nan
    gaps = trained.log_prob(rows, draws=50, seed=3).isnan()
    assert gaps.tolist() == [i == 4 for i in range(12)]
    with pytest.raises(InputError, match="rows of 3 numbers are needed"):
        trained.log_prob(rows[:, :2])


def test_the_density_integrates_to_one_in_the_users_units(tmp_path):
    x = np.random.default_rng(0).normal(size=(200, 1)) * 50 + 300
    run = hilbound.fit(
        tmp_path / "run", data=pd.DataFrame(x, columns=["a"]), quiet=True, variance=0.3, **TINY
    )
    grid = np.linspace(-700, 1300, 4001)[:, None]
    density = run.log_prob(grid, draws=100).exp().numpy()
    assert np.trapezoid(density, grid[:, 0]) == pytest.approx(1, abs=1e-6)


def test_a_run_measures_itself(trained):
    assert trained.evaluate(15)["samples"] == 15
    assert trained.evaluate(15)["metrics"] == hilbound.evaluate(trained, 15)["metrics"]


def test_samples_that_no_memory_holds_are_refused_before_they_are_drawn(trained):
    with pytest.raises(InputError, match=r"samples need at least .* GiB.*draw at most [0-9,]+ at"):
        trained.sample(10**12)


def test_standard_input_trains_a_run_that_keeps_it(tmp_path):
    table = write_table(tmp_path / "t.csv")
    words = ["fit", "-", *flags(), "-o", str(tmp_path / "run"), "-q", "--no-report"]
    done = CliRunner().invoke(cli.app, words, input=table.read_bytes())
    assert done.exit_code == 0, done.stderr
    run = Run.open(tmp_path / "run")
    assert (run.path / "data.csv").read_bytes() == table.read_bytes()
    assert run.read_json("run.json")["data"]["name"] == "standard input"
    plain = hilbound.fit(tmp_path / "plain", data=table, quiet=True, **TINY)
    assert same_weights(run, plain)
