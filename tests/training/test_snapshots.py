"""Snapshots of samples: few, of the same noise, and the same after an interruption."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import hilbound
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.training import module
from hilbound.training.curves import MOST_SNAPSHOTS, SNAPSHOTS
from hilbound.training.runs import Run
from hilbound.training.snapshots import POINTS, snapshot_steps
from support.tiny_runs import TINY, same_weights, train, write_points, write_table


def snapshots(run):
    return Run.open(run.path).read_snapshots()


@pytest.mark.parametrize("steps", [1, 2, 7, 15, 16, 17, 600, 10**6])
def test_they_are_few_and_reach_from_the_first_step_to_the_last(steps):
    found = snapshot_steps(steps)
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (0, steps)
    assert len(found) == min(steps + 1, MOST_SNAPSHOTS) or steps < 2 * MOST_SNAPSHOTS
    assert len(found) <= MOST_SNAPSHOTS


def test_each_is_what_the_network_makes_of_the_same_noise(tmp_path):
    run = train(tmp_path / "run")
    found = snapshots(run)
    assert list(found) == snapshot_steps(TINY["steps"])
    model = run.load_model()
    with torch.no_grad():
        last = model.network(model.noise(POINTS, stream(0, "snapshots")))
    assert torch.allclose(found[8], run.to_user_units(last), atol=1e-5)
    assert not torch.allclose(found[0], found[8], atol=1e-2)
    assert (run.path / SNAPSHOTS).stat().st_size < 8 * 2 * POINTS * MOST_SNAPSHOTS


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_resumed_run_has_the_same_ones(tmp_path, monkeypatch, step):
    whole = train(tmp_path / "whole")
    original = module.DensityModule.training_step

    def interrupted(self, *arguments):
        if self.global_step == step:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(module.DensityModule, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part")
    monkeypatch.undo()
    resumed = hilbound.resume(tmp_path / "part", quiet=True)
    assert same_weights(resumed, whole)
    expected, found = snapshots(whole), snapshots(resumed)
    assert list(found) == list(expected)
    assert all(torch.equal(found[one], expected[one]) for one in expected)
    files = [(run.path / SNAPSHOTS).read_bytes() for run in (whole, resumed)]
    assert files[0] == files[1]


def test_a_longer_training_keeps_no_more(tmp_path):
    train(tmp_path / "run", steps=40, validate_every=20)
    longer = hilbound.resume(tmp_path / "run", steps=60, quiet=True)
    found = list(snapshots(longer))
    assert len(found) <= MOST_SNAPSHOTS
    assert (found[0], found[-1]) == (0, 60)
    assert sum(step > 40 for step in found) == sum(step > 40 for step in snapshot_steps(60))


def test_early_stopping_shows_none_after_the_weights_that_were_kept(tmp_path):
    run = train(tmp_path / "run", steps=40, validate_every=2, patience=2, learning_rate=0.3)
    kept = run.read_json("run.json")["kept_step"]
    assert kept < 40
    assert max(snapshots(run)) <= kept


def test_only_the_plane_has_them(tmp_path):
    run = train(tmp_path / "run", data=write_table(tmp_path / "t.csv"))
    assert snapshots(run) == {}
    assert not (run.path / SNAPSHOTS).exists()


def test_a_model_with_an_encoder_has_them_and_trains_as_before(tmp_path):
    points = write_points(tmp_path / "points.npy", 200)
    options = {"data": points, "model": "latent-mixture", "noise_dim": 16}
    run = train(tmp_path / "run", **options)
    found = snapshots(run)
    assert list(found) == snapshot_steps(TINY["steps"])
    assert found[8].shape == (POINTS, 2)


@pytest.mark.parametrize("kind", ["shape", "nan", "many", "text"])
def test_damage_is_found_before_it_is_drawn(tmp_path, kind):
    run = train(tmp_path / "run")
    file = run.path / SNAPSHOTS
    tensors = load_file(file)
    if kind == "shape":
        tensors["steps"] = tensors["steps"][:-1].clone()
    elif kind == "nan":
        tensors["points"][0, 0, 0] = torch.nan
    elif kind == "many":
        n = MOST_SNAPSHOTS + 1
        tensors = {"steps": torch.arange(n), "points": torch.zeros(n, 3, 2)}
    save_file(tensors, file)
    if kind == "text":
        file.write_text("no tensors")
    with pytest.raises(InputError, match=r"snapshots.safetensors' is damaged .*: remove it"):
        snapshots(run)
    file.unlink()
    assert snapshots(run) == {}
