"""The trainings that the conditional experiments share, by known answers."""

import math

import pytest
import torch

from hilbound.bounds import log_component_norm
from hilbound.experiments.base import Claim
from hilbound.experiments.shared.conditional_runs import (
    QUICK,
    ConditionalSettings,
    bounds_at_end,
    conditional_model,
    curves,
    frozen_cell,
    joint_cell,
    reasons_once,
    run_folder,
    seeds_with_encoder,
    train_conditional,
)
from hilbound.mixture import GaussianMixture
from hilbound.training.runs import Run

SETTINGS = ConditionalSettings(**QUICK)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Cells' folders with a joint training and one with its encoder."""
    work = tmp_path_factory.mktemp("work")
    for cell, frozen in ((joint_cell(3, 0), False), (frozen_cell(1, 0), True)):
        options = {name: cell.options[name] for name in ("centers", "seed")}
        train_conditional(SETTINGS, work / cell.name, frozen=frozen, **options)
    return work


def run_of(work, cell):
    return Run.open(run_folder(work, cell))


def test_a_frozen_training_has_the_encoder_of_the_joint_one(work):
    joint, frozen = (run_of(work, cell) for cell in (joint_cell(3, 0), frozen_cell(1, 0)))
    ours, theirs = (conditional_model(run).encoder.state_dict() for run in (frozen, joint))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    decoders = (conditional_model(run).decoder.state_dict() for run in (frozen, joint))
    assert any(not torch.equal(a, b) for a, b in zip(*(d.values() for d in decoders), strict=True))


def test_the_limit_moves_with_the_encoder_only(work):
    joint, frozen = (
        curves(run_of(work, cell).read_bounds(), 0.0)["train_limit"]
        for cell in (joint_cell(3, 0), frozen_cell(1, 0))
    )
    assert len(set(frozen)) == 1
    assert curves(run_of(work, frozen_cell(1, 0)).read_bounds(), 0.0)["train_moved"] < 1e-12
    assert len(set(joint)) > 1
    assert joint[-1] == frozen[0]


def test_settings_reach_the_run_and_options_go_before_them(work, tmp_path):
    config = run_of(work, joint_cell(3, 0)).config
    assert (config.data, config.samples, config.steps) == ("digits", 200, 20)
    assert (config.variance, config.variance_y, config.features) == (2.0, 0.01, 1)
    run = train_conditional(SETTINGS, tmp_path, centers=2, seed=1, steps=2, variance=1.5)
    assert (run.config.steps, run.config.variance, run.config.seed) == (2, 1.5, 1)


def test_the_component_variance_is_half_that_of_the_kernel(work):
    assert run_of(work, joint_cell(3, 0)).component_variance == 1.0


def test_bounds_at_the_end_are_between_nothing_and_the_limit(work):
    found = bounds_at_end(run_of(work, joint_cell(3, 0)), SETTINGS)
    for split in ("train", "test"):
        assert 0 < found[f"{split}_tightness"] < 1
        # One draw of the noise: gap and tightness say the same.
        assert math.isclose(-math.log(found[f"{split}_tightness"]), found[f"{split}_gap"])
        # A feature stands for between one row and all of them.
        assert -math.log(SETTINGS.bound_rows) < found[f"{split}_log_limit"] < 0


def test_the_bound_of_one_split_is_that_of_both(work):
    run = run_of(work, joint_cell(3, 0))
    both, one = bounds_at_end(run, SETTINGS), bounds_at_end(run, SETTINGS, ["test"])
    assert one == {name: value for name, value in both.items() if name.startswith("test")}


def test_the_largest_limit_is_the_norm_of_one_gaussian():
    one = GaussianMixture(torch.zeros(1, 5, dtype=torch.float64), 0.7)
    assert math.isclose(log_component_norm(0.7, 5), float(one.log_norm()), rel_tol=1e-12)


def test_curves_find_the_highest_cost_wherever_it_is():
    def row(step, split, value, limit):
        sides = {"log_value": value, "log_limit": limit, "real_tightness": None}
        return {"step": float(step), "split": split, **sides}

    bounds = [
        row(0, "train", -9.0, -2.0),
        row(0, "validation", -9.5, -2.5),
        row(5, "train", -2.5, -2.25),
        row(5, "validation", -2.0, -2.125),
    ]
    found = curves(bounds, -1.0)
    assert found["tracked"] == 4
    assert found["excess"] == 0.125
    assert found["train_step"] == [0, 5]
    assert found["validation_cost"] == [-8.5, -1.0]
    assert found["train_limit"] == [-1.0, -1.25]
    assert (found["train_moved"], found["validation_moved"]) == (0.25, 0.375)


def test_curves_tell_how_far_a_limit_moved_before_it_was_rounded():
    limits = (-1784.15972, -1784.15968, -1784.15971)
    bounds = [
        {
            "step": i,
            "split": "train",
            "log_value": -1.8e3,
            "log_limit": limit,
            "real_tightness": 0.5,
        }
        for i, limit in enumerate(limits)
    ]
    found = curves(bounds, -1784.0)
    assert len(set(found["train_limit"])) == 1
    assert found["train_real"] == [0.5] * 3
    assert found["train_moved"] == pytest.approx(4e-5, rel=1e-6)


def test_seeds_wait_for_their_encoder():
    rows = [
        {"protocol": "joint", "centers": 3, "seed": 1},
        {"protocol": "joint", "centers": 1, "seed": 0},
        {"protocol": "frozen", "centers": 3, "seed": 2},
    ]
    assert list(seeds_with_encoder(SETTINGS, range(3), rows)) == [1]
    assert list(seeds_with_encoder(SETTINGS, range(3), [])) == []


def test_cells_have_names_of_their_own():
    cells = [joint_cell(3, 0), frozen_cell(3, 0), frozen_cell(3, 0, change="longer")]
    assert len({cell.name for cell in cells}) == 3


def test_a_reason_is_written_out_once():
    claims = [Claim(str(i), "", False, reason) for i, reason in enumerate(["", "x", "", "y", "x"])]
    assert [c.reason for c in reasons_once(claims)] == ["", "x", "", "y", "As above."]
