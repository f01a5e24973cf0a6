"""Training: it learns, it repeats itself, it can be stopped, resumed and trained for longer."""

import logging
import math
import pickle
import shutil
import signal
from pathlib import Path

import pytest
import torch

import hilbound
from hilbound.errors import InputError
from hilbound.evaluation.evaluate import evaluate
from hilbound.models.base import Comparison
from hilbound.reports.run_report import write_report
from hilbound.training.checkpoints import read_checkpoint, write_checkpoint
from hilbound.training.fit import default_output
from hilbound.training.lock import locked
from hilbound.training.module import DensityModule
from hilbound.training.plan import plan_training
from hilbound.training.runs import Run
from support.tiny_runs import (
    TINY,
    Bomb,
    same_weights,
    train,
    weights,
    write_points,
    write_table,
)
from support.trainings import by_hand, curve, fail, press_ctrl_c, spoil, stop_at, validation

pytest_plugins = ["support.fixtures_runs"]


def interrupt(_):
    raise KeyboardInterrupt


def terminate(_):
    signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"objective": "scalar"},
        {"objective": "likelihood"},
        {"learn_weights": True},
        {"learn_variance": True},
        {"learn_weights": True, "learn_variance": True, "objective": "likelihood"},
        {"centers": 50},
        {"precision": "bf16-mixed"},
        {"precision": "bf16-mixed", "learn_weights": True, "learn_variance": True},
        {"precision": "64-true"},
        {"data": "digits", "network": "conv", "depth": 1},
        {"data": "digits", "samples": 40},
    ],
    ids=lambda options: ", ".join(f"{k}={v}" for k, v in options.items()) or "as it comes",
)
def test_training_lowers_the_held_out_loss(tmp_path, options):
    run = train(tmp_path / "run", steps=20, **options)
    losses = [row["loss"] for row in validation(run)]
    assert losses[-1] < losses[0] - 1e-4
    assert all(row["gap"] > -1e-5 for row in run.read_bounds() if options.get("objective") is None)
    samples = run.sample(5)
    assert samples.shape == (5, run.read_json("run.json")["data"]["dim"])
    assert samples.isfinite().all()


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_every_precision_can_be_measured_and_reported(tmp_path, precision):
    table = write_table(tmp_path / "table.csv")
    run = train(tmp_path / "run", data=table, precision=precision)
    assert 0 < evaluate(run)["metrics"]["tightness"]["model"] <= 1
    assert write_report(run).exists()
    expected = torch.float64 if precision == "64-true" else torch.float32
    assert {t.dtype for t in weights(run).values()} == {expected}


@pytest.mark.parametrize(
    ("precision", "expected"),
    [("bf16-mixed", torch.float32), ("64-true", torch.float64), ("32-true", torch.float32)],
)
@pytest.mark.parametrize("model", ["mixture-density-network", "encoder-mixture-decoder"])
def test_objectives_are_never_below_float32(tmp_path, monkeypatch, precision, expected, model):
    seen = set()
    compare = DensityModule._compare

    def look(self, *arguments):
        p, q, penalty = compare(self, *arguments)
        seen.update((p.means.dtype, q.means.dtype, q.component_variance.dtype))
        seen.add(self.objective(p, q).dtype)
        return Comparison(p, q, penalty)

    monkeypatch.setattr(DensityModule, "_compare", look)
    train(tmp_path / "run", precision=precision, steps=2, model=model)
    assert seen == {expected}


def test_a_run_is_a_function_of_its_configuration(tmp_path):
    table = write_table(tmp_path / "table.csv")
    one = train(tmp_path / "one", data=table, learn_weights=True)
    torch.manual_seed(123)  # nobody else's generator plays a part
    other = hilbound.fit(tmp_path / "other", quiet=True, **Run.open(one.path).config.model_dump())
    assert same_weights(one, other)
    assert curve(one) == curve(other)
    assert not same_weights(one, train(tmp_path / "third", data=table, seed=1, learn_weights=True))


def test_training_leaves_the_global_generator_alone(tmp_path):
    before = torch.get_rng_state()
    train(tmp_path / "run", steps=2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("objective", ["nuclear", "scalar", "likelihood"])
def test_lightning_does_the_loop_that_one_would_write(tmp_path, objective):
    run = train(tmp_path / "run", objective=objective, decay=False)
    expected = by_hand(run.config, steps=8)
    for name, tensor in weights(run).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)


def test_the_run_folder_is_complete(tmp_path):
    run = train(tmp_path / "run", tensorboard=True)
    names = {file.name for file in run.path.iterdir()}
    assert names == {
        "config.yaml",
        "run.json",
        "model.safetensors",
        "bounds.csv",
        "snapshots.safetensors",
        "checkpoints",
        "tensorboard",
    }
    assert list((run.path / "tensorboard").glob("events.out.tfevents.*"))
    assert [file.name for file in (run.path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_schedule_moves_the_variance_from_start_to_end(tmp_path):
    run = train(tmp_path / "run", variance="2*median:median", steps=20)
    facts = run.read_json("run.json")["variance"]
    assert facts["start"] == pytest.approx(2 * facts["end"])
    rows = run.read_bounds()
    assert rows[0]["variance"] == pytest.approx(facts["start"])
    assert rows[-1]["variance"] == pytest.approx(facts["end"])
    between = [row["variance"] for row in rows]
    assert between == sorted(between, reverse=True)
    assert float(weights(run)["variance"]) == pytest.approx(facts["end"] / 2, rel=1e-6)


# --- stopping early ---------------------------------------------------------------------------


def test_patience_stops_and_keeps_the_best_weights(tmp_path):
    """A huge learning rate spoils what the first steps learned; the best is what stays."""
    run = train(
        tmp_path / "run", learning_rate=0.3, decay=False, steps=40, validate_every=1, patience=3
    )
    rows = validation(run)
    facts = run.read_json("run.json")
    best = min(rows, key=lambda row: row["loss"])
    assert facts["kept_step"] == best["step"] < rows[-1]["step"] == facts["step"] < 40
    assert rows[-1]["step"] == best["step"] + 3
    alone = train(tmp_path / "alone", learning_rate=0.3, decay=False, steps=int(best["step"]))
    assert same_weights(run, alone)


def test_patience_outlives_an_interruption_and_a_move(tmp_path, monkeypatch):
    options = {
        "learning_rate": 0.3,
        "decay": False,
        "steps": 40,
        "validate_every": 1,
        "patience": 3,
    }
    whole = train(tmp_path / "whole", **options)
    kept = whole.read_json("run.json")["kept_step"]
    stop_at(monkeypatch, kept + 1, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", **options)
    shutil.move(tmp_path / "part", tmp_path / "moved")
    resumed = hilbound.resume(tmp_path / "moved", quiet=True)
    assert resumed.read_json("run.json")["kept_step"] == kept
    assert curve(resumed) == curve(whole)
    assert same_weights(resumed, whole)


# --- interruption and resumption --------------------------------------------------------------

VARIANTS = [
    {},
    {"objective": "scalar", "variance": "2*median:median"},
    {"learn_weights": True, "learn_variance": True, "decay": False},
    {"precision": "64-true", "objective": "likelihood"},
]


@pytest.mark.parametrize("options", VARIANTS, ids=["nuclear", "schedule", "heads", "float64"])
@pytest.mark.parametrize("step", [0, 3, 4, 6])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch, options, step):
    whole = train(tmp_path / "whole", **options)
    stop_at(monkeypatch, step, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", **options)
    part = Run.open(tmp_path / "part")
    # The step in which Ctrl-C came is carried through.
    assert part.read_json("run.json")["step"] == step + 1
    assert part.read_json("run.json")["status"] == "interrupted"
    resumed = hilbound.resume(part.path, quiet=True)
    assert resumed.read_json("run.json")["status"] == "finished"
    assert same_weights(resumed, whole)
    assert curve(resumed) == curve(whole)


@pytest.mark.parametrize("stop", [interrupt, terminate, press_ctrl_c])
def test_an_interrupted_run_is_usable(tmp_path, monkeypatch, stop):
    table = write_table(tmp_path / "table.csv")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stop_at(monkeypatch, 5, stop)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", data=table)
    assert {number: signal.getsignal(number) for number in before} == before
    run = Run.open(tmp_path / "run")
    assert run.read_json("run.json")["status"] == "interrupted"
    assert run.sample(3).shape == (3, 3)
    assert evaluate(run)["samples"] == 20
    assert "interrupted at step" in write_report(run).read_text()
    resumed = hilbound.resume(run.path, quiet=True)
    assert same_weights(resumed, train(tmp_path / "whole", data=table))
    # What was measured belonged to the weights of before.
    assert not (run.path / "metrics.json").exists()
    assert not (run.path / "report.html").exists()


def test_a_second_ctrl_c_stops_at_once(tmp_path, monkeypatch):
    stop_at(monkeypatch, 5, lambda _: (press_ctrl_c(_), press_ctrl_c(_)))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.read_json("run.json")["step"] == 5
    assert same_weights(hilbound.resume(run.path, quiet=True), train(tmp_path / "whole"))


def test_a_run_that_failed_goes_on_from_the_last_validation(tmp_path, monkeypatch):
    """The checkpoint is that of step 12, the record of the bounds is further."""
    options = {"steps": 50, "validate_every": 12}
    stop_at(monkeypatch, 45, fail)
    with pytest.raises(OSError, match="No space left"):
        train(tmp_path / "run", **options)
    run = Run.open(tmp_path / "run")
    assert (run.read_json("run.json")["status"], run.read_bounds()[-1]["step"]) == ("failed", 40)
    resumed = hilbound.resume(run.path, quiet=True)
    whole = train(tmp_path / "whole", **options)
    assert same_weights(resumed, whole)
    assert curve(resumed) == curve(whole)


def test_a_finished_run_can_be_trained_for_longer(tmp_path):
    run = train(tmp_path / "run", decay=False)
    longer = hilbound.resume(run.path, steps=14, quiet=True)
    assert same_weights(longer, train(tmp_path / "whole", decay=False, steps=14))
    assert Run.open(run.path).config.steps == 14
    assert longer.read_json("run.json")["step"] == 14
    assert len(curve(longer)) == len({(r["step"], r["split"]) for r in curve(longer)})


def test_the_learning_rate_of_a_longer_run_falls_to_zero_at_its_new_end(tmp_path, monkeypatch):
    """It follows one cosine over all steps; torch's own would rise again after the old end."""
    run = train(tmp_path / "run", steps=4)
    seen = {}
    original = DensityModule.training_step

    def look(self, *arguments):
        seen[self.global_step] = self.trainer.optimizers[0].param_groups[0]["lr"]
        return original(self, *arguments)

    monkeypatch.setattr(DensityModule, "training_step", look)
    hilbound.resume(run.path, steps=12, quiet=True)
    rates = [seen[step] for step in range(5, 12)]
    expected = [5e-3 * 0.5 * (1 + math.cos(math.pi * step / 12)) for step in range(5, 12)]
    assert rates == pytest.approx(expected)


def test_nothing_is_left_to_do_in_a_finished_run(tmp_path):
    run = train(tmp_path / "run")
    for steps in (None, 8, 5):
        with pytest.raises(InputError, match="has done all its 8 steps: give a larger --steps"):
            hilbound.resume(run.path, steps=steps)
    with pytest.raises(InputError, match="steps: "):
        hilbound.resume(run.path, steps=0)
    assert Run.open(run.path).config.steps == 8


@pytest.mark.parametrize("change", [{"seed": 1}, {"n": 150}])
def test_changed_data_are_refused(tmp_path, change):
    table = write_table(tmp_path / "table.csv")
    run = train(tmp_path / "run", data=table)
    before = weights(run)
    write_table(table, **change)
    with pytest.raises(InputError, match=r"data of run .* have changed since it started"):
        hilbound.resume(run.path, steps=12)
    assert Run.open(run.path).config.steps == 8
    assert all(torch.equal(before[name], t) for name, t in weights(run).items())
    table.unlink()
    with pytest.raises(InputError, match="does not exist"):
        hilbound.resume(run.path, steps=12)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        hilbound.resume(tmp_path / "run")
    run = train(tmp_path / "run")
    run.checkpoint.unlink()
    with pytest.raises(InputError, match="is missing, and steps were done"):
        hilbound.resume(run.path, steps=12)


def damage(path, kind, mark):
    content = path.read_bytes()
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Bomb(mark)))
    elif kind == "torch":
        torch.save({"global_step": 2, "state_dict": Bomb(mark)}, path)
    elif kind == "old torch":
        torch.save(Bomb(mark), path, _use_new_zipfile_serialization=False)
    elif kind == "another model":
        torch.save({"global_step": 2, "state_dict": {"model.variance": torch.ones(())}}, path)
    elif kind == "a tensor":
        torch.save(torch.ones(3), path)
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes({"empty": b"", "text": b"hello", "zeros": bytes(100)}[kind])


@pytest.mark.parametrize(
    "kind",
    [
        "pickle",
        "torch",
        "old torch",
        "another model",
        "a tensor",
        "truncated",
        "empty",
        "text",
        "zeros",
    ],
)
def test_a_damaged_or_malicious_checkpoint_is_refused_and_not_run(trained, tmp_path, kind):
    before = weights(trained)
    damage(trained.checkpoint, kind, tmp_path / "mark")
    with pytest.raises(InputError, match="is no checkpoint of this run"):
        hilbound.resume(trained.path, steps=12)
    assert not (tmp_path / "mark").exists()
    assert all(torch.equal(before[name], t) for name, t in weights(trained).items())
    assert Run.open(trained.path).config.steps == 8


def test_every_truncation_of_a_checkpoint_is_refused(trained):
    content = trained.checkpoint.read_bytes()
    for length in range(0, len(content), len(content) // 40):
        trained.checkpoint.write_bytes(content[:length])
        with pytest.raises(InputError, match="is no checkpoint"):
            hilbound.resume(trained.path, steps=12)


# --- wrong input loses nothing ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": "mons"}, "unknown data set 'mons': did you mean 'moons'"),
        ({"data": "nowhere/table.csv"}, "does not exist"),
        ({"objective": "nucleer"}, "unknown objective 'nucleer': did you mean 'nuclear'"),
        ({"model": "mixture-density"}, "unknown model .*did you mean 'mixture-density-network'"),
        ({"network": "mpl"}, "unknown network 'mpl': did you mean 'mlp'"),
        ({"network": "conv"}, "use network 'mlp'"),
        ({"stepps": 3}, "unknown option 'stepps': did you mean 'steps'"),
        ({"variance": -1}, "variance must be"),
        ({"variance": 0}, "variance must be positive and finite"),
        ({"variance": "nan"}, "variance must be"),
        ({"variance": "mean"}, "variance must be"),
        ({"variance": "1:2:3"}, "variance must be"),
        ({"min_variance": 1e9}, "min_variance"),
        ({"variance": "1:2", "learn_variance": True}, "is a schedule, and learn_variance"),
        ({"data": "moons", "label_column": "y"}, "is for files"),
        ({"accelerator": "abacus"}, "accelerator 'abacus'.* cannot be used here"),
        ({"devices": "none"}, "devices 'none'.* cannot be used here"),
        ({"devices": "0"}, "devices '0'.* cannot be used here"),
        ({"precision": "16-mixed", "accelerator": "cpu"}, "on a CPU, use 'bf16-mixed'"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_wrong_options_leave_the_old_run_as_it_was(trained, options, words):
    def content():
        return {f: f.read_bytes() for f in trained.path.rglob("*") if f.is_file()}

    before = content()
    with pytest.raises(InputError, match=words):
        train(trained.path, overwrite=True, **options)
    assert content() == before


def test_a_run_is_replaced_when_asked_and_only_then(tmp_path):
    run = train(tmp_path / "run", patience=2)
    with pytest.raises(InputError, match="already holds a run"):
        train(run.path, seed=1)
    assert Run.open(run.path).config.seed == 0
    train(run.path, seed=1, overwrite=True)
    assert Run.open(run.path).config.seed == 1
    assert same_weights(run, train(tmp_path / "fresh", seed=1))
    assert [file.name for file in (run.path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_batch_beyond_the_data_uses_every_row_and_says_so(tmp_path, caplog):
    table = write_table(tmp_path / "table.csv", n=40)
    with caplog.at_level(logging.WARNING, "hilbound"):
        run = train(tmp_path / "run", data=table, batch_size=500)
    assert "batch_size 500 is more than the 32 training rows" in caplog.text
    assert run.read_json("run.json")["status"] == "finished"
    # The configuration keeps what was asked for, so that it can be repeated on more data.
    assert Run.open(run.path).config.batch_size == 500
    made = plan_training(run.config)
    assert (made.config.batch_size, made.config.centers) == (32, 500)
    again = hilbound.fit(tmp_path / "again", quiet=True, **Run.open(run.path).config.model_dump())
    assert same_weights(run, again)


def test_spoilt_weights_fail_with_a_remedy_and_keep_the_last_good_ones(tmp_path, monkeypatch):
    stop_at(monkeypatch, 5, spoil)
    with pytest.raises(FloatingPointError, match=r"step 5.*--learning-rate.*--variance"):
        train(tmp_path / "run")
    run = Run.open(tmp_path / "run")
    facts = run.read_json("run.json")
    assert (facts["status"], facts["step"]) == ("failed", 4)
    assert run.sample(3).isfinite().all()


def test_a_loss_that_is_no_number_fails_with_a_remedy(tmp_path, monkeypatch):
    def nothing(_, __, q):
        return q.means.sum() * torch.nan

    monkeypatch.setattr("hilbound.objectives.debiased.DebiasedNuclearNorm.forward", nothing)
    with pytest.raises(FloatingPointError, match=r"the loss became nan at step .*learning-rate"):
        train(tmp_path / "run")
    assert Run.open(tmp_path / "run").read_json("run.json")["status"] == "failed"


def test_where_a_run_goes_without_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = write_table(tmp_path / "table.csv")
    run = hilbound.fit(quiet=True, **{**TINY, "data": table, "seed": 4})
    assert run.path == default_output(run.config)
    assert (tmp_path / "runs" / "table-debiased-4" / "model.safetensors").exists()


def test_the_first_line_that_everyone_types(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    points = write_points(tmp_path / "points.npy")
    run = hilbound.fit(points, quiet=True, **TINY)
    assert (run.config.data, str(run.path)) == (str(points), "runs/points-debiased-0")


def test_an_output_in_the_home_folder_is_one_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    run = train(Path("~/run"), data=write_points(tmp_path / "points.npy"))
    assert run.path == tmp_path / "home" / "run"
    assert not (tmp_path / "~").exists()
    assert Run.open("~/run").config == run.config
    with pytest.raises(InputError, match="user that is not known"):
        train(Path("~nobody-of-that-name/run"), data=tmp_path / "points.npy")


def test_a_name_that_no_checkpoint_can_have_is_refused_first(tmp_path):
    with pytest.raises(InputError, match=r"holds '::', .*--output"):
        train(tmp_path / "a::b", data=write_points(tmp_path / "points.npy"))
    assert not (tmp_path / "a::b").exists()


def test_a_learning_rate_that_breaks_everything_is_named(tmp_path):
    with pytest.raises(FloatingPointError, match="lower --learning-rate"):
        train(
            tmp_path / "run",
            data="moons",
            learning_rate=1e12,
            steps=60,
            width=64,
            batch_size=64,
            depth=2,
        )


def test_two_trainings_do_not_share_a_folder(tmp_path):
    points = write_points(tmp_path / "points.npy")
    with locked(tmp_path / "run"), pytest.raises(InputError, match="another training is writing"):
        train(tmp_path / "run", data=points)
    run = train(tmp_path / "run", data=points)
    with locked(run.path):
        with pytest.raises(InputError, match="another training is writing"):
            train(run.path, data=points, overwrite=True)
        with pytest.raises(InputError, match="another training is writing"):
            hilbound.resume(run.path, steps=12, quiet=True)
    assert Run.open(run.path).read_json("run.json")["step"] == 8
    assert not (run.path / ".lock").exists()


def test_a_lock_that_was_left_behind_keeps_nobody_out(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    assert train(tmp_path / "run").read_json("run.json")["status"] == "finished"


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer_states": None},
        {"optimizer_states": []},
        {"global_step": "9"},
        {"global_step": -4},
    ],
)
def test_a_checkpoint_that_lacks_something_is_damaged(tmp_path, change):
    run = train(tmp_path / "run")
    content = read_checkpoint(run.checkpoint)
    changed = {k: v for k, v in (content | change).items() if v is not None}
    write_checkpoint(changed, run.checkpoint)
    with pytest.raises(InputError, match="is no checkpoint of this run"):
        hilbound.resume(run.path, steps=12, quiet=True)


def test_a_device_without_its_package_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"accelerator 'tpu'.* cannot be used here"):
        train(tmp_path / "run", accelerator="tpu")


def test_a_run_that_was_lengthened_says_how_it_is_repeated(tmp_path):
    run = train(tmp_path / "run")
    assert "To repeat the run: hilbound fit --config" in write_report(run).read_text()
    hilbound.resume(run.path, steps=12, quiet=True)
    longer = hilbound.resume(run.path, steps=20, quiet=True)
    legs = [{"at": 8, "from": 8, "to": 12}, {"at": 12, "from": 12, "to": 20}]
    assert longer.read_json("run.json")["lengthened"] == legs
    assert (
        "fit --config config.yaml --steps 8, stopped at 8; then fit --resume RUN --steps 12, "
        "stopped at 12; then fit --resume RUN --steps 20."
    ) in write_report(longer).read_text()


def test_data_that_a_run_has_are_not_asked_about_again(tmp_path, caplog):
    table = tmp_path / "years.csv"
    table.write_text("9019,9020\n" + "".join(f"0.{i},1.{i + i % 3}\n" for i in range(10, 99)))
    with pytest.raises(InputError, match="--no-header"):
        train(tmp_path / "run", data=table)
    run = train(tmp_path / "run", data=table, header=False)
    # As an older version has left it.
    config = run.config.model_copy(update={"header": None})
    run.write_text("config.yaml", config.to_yaml())
    assert Run.open(run.path).dataset.dim == 2
    assert hilbound.resume(run.path, steps=12, quiet=True).read_json("run.json")["step"] == 12
    assert "header" not in caplog.text
