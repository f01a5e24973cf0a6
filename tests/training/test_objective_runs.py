"""Every objective and its options, from the command line and YAML to a trained run."""

import html
import math
import re

import pytest
import torch
import yaml

import hilbound
from hilbound.errors import InputError
from hilbound.evaluation.evaluate import evaluate
from hilbound.models.density import MixtureDensityNetwork
from hilbound.objectives import OBJECTIVES
from hilbound.reports.run_report import write_report
from hilbound.training.checkpoints import read_checkpoint
from hilbound.training.module import DensityModule
from hilbound.training.plan import plan_training
from hilbound.training.runs import Run
from support.tiny_runs import TINY, ask, flags, same_weights, train, weights, write_points
from support.trainings import by_hand, curve, press_ctrl_c, stop_at, validation

pytest_plugins = ["support.fixtures_runs"]

# The others need a model with an encoder: test_encoder_runs.
NAMES = sorted(MixtureDensityNetwork.objectives)
# 32 centres span nearly all there is on the plane from the start: little is left to learn.
LONGER = {"vector": {"steps": 60}}
OPTIONS = [
    *({"objective": name, **LONGER.get(name, {})} for name in NAMES),
    {"objective": "schatten", "objective_options": {"power": 0.6, "drop": 1e-3}},
    {"objective": "debiased", "objective_options": {"weight": 0.35, "reference": True}},
    {"objective": "scalar", "objective_options": {"momentum": 0.9}},
    {"objective": "scalar", "objective_options": {"reference": True}},
    {"objective": "vector", "objective_options": {"drop": 0.01}, "learn_weights": True},
    {"objective": "schur", "learn_variance": True},
    {"objective": "trace", "centers": 32},
    {"objective": "debiased", "precision": "64-true", "centers": 21},
    {"objective": "vector", "precision": "bf16-mixed", "variance": "2*median:median"},
]


def name(options):
    return " ".join(f"{k}={v}" for k, v in options.items()) if isinstance(options, dict) else ""


@pytest.mark.parametrize("options", OPTIONS, ids=name)
def test_every_objective_learns(tmp_path, options):
    run = train(tmp_path / "run", **{"steps": 20, **options})
    rows = validation(run)
    assert rows[-1]["loss"] < rows[0]["loss"] - 1e-4
    for row in run.read_bounds():
        # The likelihood's limit holds in expectation only.
        assert row["gap"] > (-math.inf if options["objective"] == "likelihood" else -1e-5)
        assert all(math.isfinite(row[key]) for key in ("loss", "gap", "tightness"))
    assert run.sample(5).isfinite().all()


@pytest.mark.parametrize("objective", NAMES)
def test_every_objective_can_be_measured_and_reported(tmp_path, objective):
    run = train(tmp_path / "run", steps=2, objective=objective)
    assert 0 < evaluate(run)["metrics"]["tightness"]["model"] <= 1
    assert OBJECTIVES.describe(objective) in html.unescape(write_report(run).read_text())


@pytest.mark.parametrize(
    "options",
    [{"objective": "schatten", "objective_options": {"power": 0.6}}, {"objective": "debiased"}],
    ids=name,
)
def test_lightning_does_the_loop_that_one_would_write(tmp_path, options):
    run = train(tmp_path / "run", decay=False, **options)
    expected = by_hand(run.config, steps=8)
    for key, tensor in weights(run).items():
        torch.testing.assert_close(tensor, expected[key], rtol=1e-5, atol=1e-6)


# --- running averages -------------------------------------------------------------------------


def momentum(**options):
    return {"objective": "scalar", "objective_options": {"momentum": 0.9}, **options}


@pytest.mark.parametrize("step", [0, 4, 6])
def test_running_averages_outlive_an_interruption(tmp_path, monkeypatch, step):
    whole = train(tmp_path / "whole", **momentum())
    stop_at(monkeypatch, step, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", **momentum())
    resumed = hilbound.resume(tmp_path / "part", quiet=True)
    assert same_weights(resumed, whole)
    assert curve(resumed) == curve(whole)
    states = [read_checkpoint(run.checkpoint)["state_dict"] for run in (whole, resumed)]
    for key in ("objective.log_cross", "objective.log_own"):
        assert states[0][key].isfinite()
        assert torch.equal(states[0][key], states[1][key])


def test_validation_leaves_the_averages_alone(tmp_path, monkeypatch):
    seen = []
    original = DensityModule.validation_step

    def look(self, *arguments):
        before = self.objective.log_cross.clone(), self.objective.log_own.clone()
        original(self, *arguments)
        seen.append(before == (self.objective.log_cross, self.objective.log_own))

    monkeypatch.setattr(DensityModule, "validation_step", look)
    train(tmp_path / "run", **momentum())
    assert seen
    assert all(seen)


def test_a_run_with_averages_is_stopped_by_the_cost_itself(tmp_path):
    """Around its averages the loss would be one half whatever was learned."""
    run = train(tmp_path / "run", **momentum(patience=2, steps=12, validate_every=2))
    for row in validation(run):
        assert row["loss"] == pytest.approx(-row["log_value"], rel=1e-6)


# --- wrong options ----------------------------------------------------------------------------

WRONG = [
    (["schatten", "power=1.5"], r"power must lie in \(0, 1\], got 1.5"),
    (["schatten", "power=0"], r"power must lie in \(0, 1\], got 0.0"),
    (["schatten", "pwer=0.5"], "no option 'pwer': did you mean 'power'"),
    (["nuclear", "power=0.5"], "objective 'nuclear' has no option 'power': known: drop"),
    (["trace", "power=0.5"], "objective 'trace' has no option 'power': known: none"),
    (["scalar", "momentum=1"], r"momentum must lie in \(0, 1\)"),
    (["scalar", "momentum=0.9", "reference=true"], "cannot be combined with reference"),
    (["debiased", "weight=-1"], "weight must be 0 or more"),
    (["vector", "drop=1"], r"drop must lie in \[0, 1\), got 1.0"),
    (["schatten", "power"], "must be written as name=value"),
    (["schatten", "power=much"], "objective_options.power: input should be a valid number"),
    (["schatten", "power={"], "objective_options.power: input should be a valid number"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(w) for w, _ in WRONG])
def test_wrong_options_are_answered_and_nothing_is_written(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    objective, *pairs = words
    arguments = [word for pair in pairs for word in ("--objective-options", pair)]
    result = ask("fit", "moons", "--objective", objective, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(message, " ".join(result.stderr.split())), result.stderr
    with pytest.raises(InputError, match=message):
        hilbound.fit(data="moons", objective=objective, objective_options=pairs, quiet=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("centers", [16, 33])
def test_paired_centres_must_be_as_many_as_points(tmp_path, centers):
    points = write_points(tmp_path / "points.npy")
    words = f"'trace' pairs every centre with a data point.*batch_size .32., got {centers}"
    with pytest.raises(InputError, match=words):
        train(tmp_path / "run", data=points, objective="trace", centers=centers)
    options = flags(objective="trace", centers=centers)
    result = ask("fit", points, *options, "-o", tmp_path / "run", "-q")
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(words, " ".join(result.stderr.split()))
    assert [file.name for file in tmp_path.iterdir()] == ["points.npy"]


def test_paired_centres_follow_a_batch_beyond_the_data(tmp_path):
    points = write_points(tmp_path / "points.npy", n=50)
    run = train(tmp_path / "run", data=points, objective="trace", batch_size=200)
    assert run.read_json("run.json")["status"] == "finished"


# --- the same from everywhere -----------------------------------------------------------------


def test_flags_yaml_python_and_the_runs_own_file_are_the_same_run(tmp_path):
    points = write_points(tmp_path / "points.npy")
    wish = {"power": 0.6, "drop": 1e-3}
    python = train(tmp_path / "python", data=points, objective="schatten", objective_options=wish)
    pairs = ("--objective-options", "power=0.6", "--objective-options", "drop=1e-3")
    common = ("-q", "--no-report")
    result = ask(
        "fit", points, *flags(objective="schatten"), *pairs, "-o", tmp_path / "flags", *common
    )
    assert result.exit_code == 0, result.stderr
    file = tmp_path / "options.yaml"
    file.write_text(
        yaml.safe_dump(
            TINY | {"data": str(points), "objective": "schatten", "objective-options": wish}
        )
    )
    result = ask("fit", "--config", file, "-o", tmp_path / "yaml", *common)
    assert result.exit_code == 0, result.stderr
    own = tmp_path / "flags" / "config.yaml"
    result = ask("fit", "--config", own, "-o", tmp_path / "again", *common)
    assert result.exit_code == 0, result.stderr
    for folder in ("flags", "yaml", "again"):
        run = Run.open(tmp_path / folder)
        assert run.config == python.config, folder
        assert run.config.objective_options == wish
        assert same_weights(run, python), folder
    assert plan_training(python.config).objective.power == 0.6


def test_options_on_the_command_line_replace_those_of_the_file(tmp_path):
    """All of them: which of two halves holds would be hard to say."""
    points = write_points(tmp_path / "points.npy")
    file = tmp_path / "options.yaml"
    options = {"objective": "schatten", "objective_options": {"power": 0.9, "drop": 0.1}}
    file.write_text(yaml.safe_dump(TINY | options | {"data": str(points)}))
    arguments = ("-o", tmp_path / "run", "-q", "--no-report")
    result = ask("fit", "--config", file, "--objective-options", "power=0.5", *arguments)
    assert result.exit_code == 0, result.stderr
    assert Run.open(tmp_path / "run").config.objective_options == {"power": 0.5}


def test_without_options_nothing_changes(tmp_path):
    points = write_points(tmp_path / "points.npy")
    one = train(tmp_path / "one", data=points, objective="nuclear")
    other = train(tmp_path / "other", data=points, objective="nuclear", objective_options={})
    assert same_weights(one, other)
    schatten = train(
        tmp_path / "s", data=points, objective="schatten", objective_options={"power": 1.0}
    )
    for key, tensor in weights(schatten).items():
        torch.testing.assert_close(tensor, weights(one)[key], rtol=1e-5, atol=1e-6)
