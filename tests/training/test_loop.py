"""Training in memory: the same weights as in a folder, and nothing written."""

import logging

import pytest
import torch

from hilbound.config import RunConfig
from hilbound.datasets import Dataset
from hilbound.training.loop import train
from hilbound.training.plan import plan_training
from support.tiny_runs import TINY, weights
from support.tiny_runs import train as fit


def points(n=120, seed=0):
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, 2, generator=draw) ** 3
    return Dataset("points", train=rows[:80], validation=rows[80:100], test=rows[100:])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"objective": "debiased", "objective_options": {"calibrate": True}},
        {"model": "encoder-mixture-decoder", "features": 1, "bound_rows": 20, "bound_every": 4},
        {"patience": 1},
    ],
    ids=["nuclear", "debiased", "encoder", "early stopping"],
)
def test_memory_and_folder_end_with_the_same_weights(tmp_path, options):
    run = fit(tmp_path / "run", **options)
    written = sorted(tmp_path.rglob("*"))
    trained = train(plan_training(run.config))
    kept = weights(run)
    assert all(torch.equal(kept[name], t) for name, t in trained.model.state_dict().items())
    assert not trained.model.training
    bounds = [{k: v for k, v in row.items() if k != "seconds"} for row in trained.bounds]
    of_file = [{k: v for k, v in row.items() if k != "seconds"} for row in run.read_bounds()]
    assert bounds == of_file
    assert sorted(tmp_path.rglob("*")) == written


def test_data_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = points()
    trained = train(plan_training(RunConfig(data="points", **TINY), dataset=data))
    assert trained.plan.dataset is data
    assert trained.model.sample(5).shape == (5, 2)
    assert trained.bounds[-1]["step"] == TINY["steps"]
    assert list(tmp_path.iterdir()) == []


def test_failures_are_told_when_asked_for(caplog):
    config = RunConfig(data="points", **TINY | {"variance": 1e9})
    with caplog.at_level(logging.WARNING, "hilbound"):
        train(plan_training(config, dataset=points()))
        assert caplog.text == ""
        train(plan_training(config, dataset=points()), diagnose=True)
    assert "variance" in caplog.text
