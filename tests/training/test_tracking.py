"""The bound while a model trains: on which rows, when it is due, what it says of collapse."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import hilbound
from hilbound.bounds import Bound
from hilbound.config import RunConfig
from hilbound.engine.seeding import stream
from hilbound.models.autoencoders import EncoderMixtureDecoder, MixtureDecoder
from hilbound.models.encoder import Encoder
from hilbound.reports.run_report import write_report
from hilbound.training import tracking
from hilbound.training.callbacks import BoundsRecord
from hilbound.training.curves import read_bounds
from hilbound.training.plan import plan_training
from hilbound.training.runs import Run
from hilbound.training.tracking import ConditionalTracker, collapse_cause, round_interval
from support.autoencoders import Part
from support.models import seeded
from support.strategies import normal
from support.tiny_runs import TINY, same_weights, train, weights, write_points
from support.trainings import curve, fail, press_ctrl_c, spoil, stop_at

pytest_plugins = ["support.fixtures_runs"]

EMD = {"model": "encoder-mixture-decoder", "features": 1, "centers": 3, "bound_every": 3}


def steps(run, split="train"):
    return [row["step"] for row in run.read_bounds() if row["split"] == split]


# ------------------------------------------------------------------ when


@pytest.mark.parametrize("steps", [0.0, 1e-9, 1, 9.99, 10, 10.01, 20, 21, 99, 100, 101, 4321, 5e7])
def test_intervals_are_the_next_round_number(steps):
    interval = round_interval(steps)
    assert interval >= max(steps, 10)
    digits = str(interval)
    assert digits[0] in "125"
    assert set(digits[1:]) == {"0"}
    # The round number before would have been too few.
    before = {"1": interval / 2, "2": interval / 2, "5": interval / 2.5}[digits[0]]
    assert interval == 10 or before < steps


class Training:
    """A trainer and a module of which every step and every measurement takes a known time."""

    def __init__(self, tmp_path, monkeypatch, per_step, per_bound, **options):
        self.clock, self.global_step, self.is_global_zero = 1000.0, 0, True
        self.per_step, self.shown = per_step, []
        points = write_points(tmp_path / "points.npy", 60)
        made = plan_training(RunConfig.create(**{"data": str(points), **TINY, **EMD, **options}))
        self.model, self.device = made.model, torch.device("cpu")
        self.record = BoundsRecord(tmp_path / "bounds.csv")

        def bound(*_, **__):
            self.clock += per_bound
            return Bound(torch.tensor(-1.0), torch.tensor(0.0))

        monkeypatch.setattr(
            tracking, "time", SimpleNamespace(perf_counter=lambda: self.clock), raising=True
        )
        monkeypatch.setattr(EncoderMixtureDecoder, "bound", bound)
        self.tracker = ConditionalTracker(made, self.record)

    def log(self, name, value, *, prog_bar=False):
        self.shown.append((name, value, prog_bar))

    def run(self, first, last):
        self.global_step = first
        self.record.on_train_start(self, self)
        self.tracker.on_train_start(self, self)
        while self.global_step < last:
            self.tracker.on_train_batch_start(self, self, None, 0)
            self.clock += self.per_step
            self.global_step += 1
        self.tracker.on_train_end(self, self)
        rows = read_bounds(self.record.path)
        return [int(row["step"]) for row in rows if row["split"] == "train"]


@pytest.mark.parametrize(
    # Both splits are measured: at 3 %, twice per_bound is paid for by so many steps.
    ("per_step", "per_bound", "interval"),
    [
        (0.01, 0.0029, 20),
        (0.01, 0.0149, 100),
        (0.01, 0.016, 200),
        (1.0, 1e-4, 10),
    ],
)
def test_the_interval_follows_from_what_measuring_takes(
    tmp_path, monkeypatch, per_step, per_bound, interval
):
    training = Training(tmp_path, monkeypatch, per_step, per_bound, bound_every=None, steps=2000)
    seen = training.run(0, 410)
    assert training.tracker.interval == interval
    assert 2 * per_bound / (interval * per_step) <= 0.03 + 1e-9
    assert seen == [0, *range(max(20, interval), 410, interval), 410]
    assert training.tracker.seconds == pytest.approx(2 * per_bound * len(seen))


@pytest.mark.parametrize(("steps", "interval"), [(410, 82), (40, 10), (2000, 400)])
def test_a_curve_has_a_few_points_however_dear_they_are(tmp_path, monkeypatch, steps, interval):
    training = Training(tmp_path, monkeypatch, 1e-3, 0.5, bound_every=None, steps=steps)
    assert training.run(0, steps) == [0, *range(max(20, interval), steps, interval), steps]
    assert training.tracker.interval == interval


def test_a_resumed_training_finds_its_interval_again(tmp_path, monkeypatch):
    training = Training(tmp_path, monkeypatch, 0.01, 0.016, bound_every=None, steps=2000)
    assert training.run(333, 640) == [333, 400, 600, 640]


@pytest.mark.parametrize("interval", [1, 3, 5, 1000])
def test_an_interval_that_is_asked_for_is_kept(tmp_path, monkeypatch, interval):
    training = Training(tmp_path, monkeypatch, 0.01, 5.0, bound_every=interval, steps=40)
    assert training.run(0, 40) == [*range(0, 40, interval), 40]


def test_the_training_rows_are_shown(tmp_path, monkeypatch):
    training = Training(tmp_path, monkeypatch, 0.01, 0.1, bound_every=2)
    training.run(0, 2)
    # Of a gap of one; the two tightnesses are what the bar has room for.
    real = pytest.approx(0.5, abs=0.5)
    assert training.shown == [
        ("tightness", pytest.approx(math.exp(-1)), True),
        ("gap", 1.0, False),
        ("real", real, True),
    ]


def test_real_rows_are_those_of_the_other_split(tmp_path, monkeypatch):
    """No row stands for itself: training rows meet validation rows, and the other way round."""
    seen = []
    original = EncoderMixtureDecoder.real_bound

    def look(self, x, rows, *arguments, **options):
        seen.append((x, rows, original(self, x, rows, *arguments, **options)))
        return seen[-1][-1]

    monkeypatch.setattr(EncoderMixtureDecoder, "real_bound", look)
    run = train(tmp_path / "run", bound_rows=30, **EMD)
    made = plan_training(run.config).dataset
    sides = (made.train, made.validation), (made.validation, made.train)
    for (x, rows, bound), (own, other), row in zip(seen, sides, run.read_bounds(), strict=False):
        assert len(rows) == len(other)
        assert {tuple(r) for r in x.tolist()} <= {tuple(r) for r in own.tolist()}
        assert {tuple(r) for r in rows.tolist()} == {tuple(r) for r in other.tolist()}
        assert float(bound.log_limit) == row["log_limit"]
        assert row["real_tightness"] == pytest.approx(float(bound.tightness), rel=1e-12)


def test_a_training_without_the_diagonal_is_tracked_with_it(tmp_path):
    """The cost that is trained may pass its limit; the one that is tracked never does."""
    run = train(tmp_path / "run", objective_options={"diagonal": False}, **EMD)
    assert all(row["gap"] >= 0 for row in run.read_bounds())
    other = train(tmp_path / "other", **EMD)
    assert run.read_bounds()[0]["log_value"] == other.read_bounds()[0]["log_value"]
    assert not same_weights(run, other)


def test_without_as_many_real_rows_as_centres_there_is_no_yardstick(tmp_path):
    run = train(tmp_path / "run", **EMD | {"eval_centers": 50})
    rows = {row["split"]: row["real_tightness"] for row in run.read_bounds()}
    # 20 validation rows stand for no 50 centres; training rows are enough.
    assert rows["train"] is None
    assert 0 < rows["validation"] <= 1


def test_only_the_first_device_measures(tmp_path, monkeypatch):
    training = Training(tmp_path, monkeypatch, 0.01, 0.1, bound_every=2)
    training.record.path.write_text(
        "step,split,loss,log_value,log_limit,gap,tightness,variance,seconds\n"
    )
    training.is_global_zero = False
    assert training.run(0, 4) == []
    assert training.shown == []


# ------------------------------------------------------------------ what


def test_fixed_rows_of_either_set_are_taken(tmp_path, monkeypatch):
    seen = []
    original = EncoderMixtureDecoder.bound

    def look(self, x, variance, *arguments, generator):
        draws = torch.rand(1, generator=generator.clone_state())
        seen.append((x.clone(), variance, float(self.head.variance), float(draws)))
        return original(self, x, variance, *arguments, generator=generator)

    monkeypatch.setattr(EncoderMixtureDecoder, "bound", look)
    points = write_points(tmp_path / "points.npy", 200)
    run = train(tmp_path / "run", data=points, bound_rows=30, **EMD | {"variance": 0.6})
    made = plan_training(run.config).dataset
    train_rows, validation_rows = seen[0][0], seen[1][0]
    assert (train_rows.shape, validation_rows.shape) == ((30, 2), (20, 2))
    for chosen, rows in ((train_rows, made.train), (validation_rows, made.validation)):
        assert len(chosen.unique(dim=0)) == len(chosen)
        assert all((row == rows).all(1).any() for row in chosen)
    # The same rows with the same noise every time; half of the kernel's variance on either side.
    for i, (x, *rest) in enumerate(seen):
        assert torch.equal(x, seen[i % 2][0])
        assert rest == [pytest.approx(0.3), pytest.approx(0.3), seen[i % 2][3]]
    assert len(seen) == 2 * len([0, 3, 6, 8])


def test_both_sides_follow_a_schedule_together(tmp_path, monkeypatch):
    seen = []
    original = EncoderMixtureDecoder.bound

    def look(self, x, variance, **options):
        seen.append((variance, float(self.head.variance)))
        return original(self, x, variance, **options)

    monkeypatch.setattr(EncoderMixtureDecoder, "bound", look)
    run = train(tmp_path / "run", **EMD | {"variance": "8:2", "steps": 5, "bound_every": 1})
    expected = [4 * 4 ** (-min(k, 4) / 4) for k in range(6) for _ in range(2)]
    assert [p for p, _ in seen] == pytest.approx(expected)
    assert [q for _, q in seen] == pytest.approx(expected)
    assert [row["variance"] for row in run.read_bounds()] == pytest.approx(
        [2 * v for v in expected]
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"eval_centers": 7, "learn_weights": True, "learn_variance": True},
        {"centers": 1},
        {"precision": "64-true", "variance": "2*median:median"},
        {"precision": "bf16-mixed", "learn_weights": True},
        {"data": "digits", "network": "conv", "samples": 60, "bound_rows": 40, "features": 3},
    ],
    ids=str,
)
def test_the_cost_is_below_the_limit_in_every_row(tmp_path, options):
    run = train(tmp_path / "run", **EMD | options)
    assert steps(run) == steps(run, "validation") == [0, 3, 6, 8]
    for row in run.read_bounds():
        assert row["log_value"] <= row["log_limit"] + 1e-6
        assert row["gap"] == pytest.approx(row["log_limit"] - row["log_value"], abs=1e-9)
        assert row["tightness"] == pytest.approx(math.exp(-row["gap"]))
        assert row["loss"] == pytest.approx(-row["log_value"])
    losses = [row["loss"] for row in run.read_bounds() if row["split"] == "train"]
    assert losses[-1] < losses[0]


def test_a_row_is_the_bound_of_the_weights_of_its_step(tmp_path, whole):
    made = plan_training(whole.config)
    tracker = ConditionalTracker(made, BoundsRecord(tmp_path / "bounds.csv"))
    model = whole.load_model()
    variance = made.schedule.start / 2
    draws = stream(0, "tracked-noise", "train")
    bound = model.bound(tracker.rows["train"].x, variance, generator=draws)
    last = [row for row in whole.read_bounds() if row["split"] == "train"][-1]
    assert last["step"] == 8
    assert last["log_value"] == pytest.approx(float(bound.log_value), rel=1e-6)
    assert last["log_limit"] == pytest.approx(float(bound.log_limit), rel=1e-6)


def test_measuring_changes_no_weights(tmp_path, whole):
    options = EMD | {"data": whole.config.data}
    often = train(tmp_path / "often", **options | {"bound_every": 1})
    seldom = train(tmp_path / "seldom", **options | {"bound_every": None, "bound_rows": 7})
    assert same_weights(often, seldom)
    assert same_weights(often, whole)
    assert (steps(often), steps(seldom)) == ([*range(9)], [0, 8])
    rows = [row for row in curve(often) if row["step"] in (0, 8) and row["split"] == "validation"]
    assert [row["log_limit"] for row in rows] != [row["log_limit"] for row in curve(seldom)][1::2]


# ------------------------------------------------------------------ going on


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training that nothing interrupts."""
    return train(tmp_path_factory.mktemp("whole") / "run", **EMD)


@pytest.mark.parametrize("step", [0, 2, 4])
def test_a_resumed_run_leaves_the_curve_of_an_uninterrupted_one(tmp_path, monkeypatch, whole, step):
    stop_at(monkeypatch, step, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", data=whole.config.data, **EMD)
    resumed = hilbound.resume(tmp_path / "part", quiet=True)
    assert same_weights(resumed, whole)
    assert curve(resumed) == curve(whole)


def test_a_failed_run_drops_what_comes_again(tmp_path, monkeypatch, whole):
    """The checkpoint is that of step 3, at which both rows had been written."""
    stop_at(monkeypatch, 5, fail)
    with pytest.raises(OSError, match="No space left"):
        train(tmp_path / "part", data=whole.config.data, **EMD, validate_every=3)
    assert curve(Run.open(tmp_path / "part"))[-1]["step"] == 3
    resumed = hilbound.resume(tmp_path / "part", quiet=True)
    assert curve(resumed) == curve(whole)


def test_a_run_trained_for_longer_leaves_one_curve(tmp_path):
    options = EMD | {"decay": False, "variance": 0.6, "bound_every": 4}
    train(tmp_path / "part", steps=8, **options)
    longer = hilbound.resume(tmp_path / "part", steps=14, quiet=True)
    whole = train(tmp_path / "whole", steps=14, **options)
    assert same_weights(longer, whole)
    assert curve(longer) == curve(whole)
    assert steps(longer) == [0, 4, 8, 12, 14]


def test_the_run_remembers_the_features_of_its_training_rows(whole):
    """They are in the folder, so that sampling needs no data."""
    model = Run.open(whole.path).load_model().eval()
    rows = plan_training(whole.config).dataset.train
    assert torch.equal(model.training_features, weights(whole)["training_features"])
    torch.testing.assert_close(model.training_features, model.features_of(rows).detach())
    assert torch.equal(
        model.sample(6, seeded()), Run.open(whole.path).load_model().sample(6, seeded())
    )


# ------------------------------------------------------------------ collapse


class FeaturesOnly(nn.Module):
    """Ignores the noise, which is the last coordinate."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return self.network(inputs[..., :-1])


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name == tracking.__name__]


def measured(tmp_path, caplog, model=None, variance=0.5, step=8, **options):
    """What is said of a model where the tracker looks at it."""
    caplog.set_level(logging.WARNING)
    config = RunConfig.create(
        data=str(write_points(tmp_path / "points.npy")),
        **{**TINY, **EMD, "variance": variance, **options},
    )
    made = plan_training(config)
    record = BoundsRecord(tmp_path / "bounds.csv")
    record.on_train_start(SimpleNamespace(global_step=0, is_global_zero=True), None)
    tracker = ConditionalTracker(made, record)
    trainer = SimpleNamespace(global_step=step, is_global_zero=True)
    module = SimpleNamespace(model=model or made.model, device=torch.device("cpu"))
    tracker.on_train_end(trainer, module)
    tracker.on_train_end(trainer, module)
    return warnings(caplog)


def blind(variance_y, k=4, **options):
    """A model of the plane: its feature is the first coordinate, its decoder sees no more."""
    decoder = MixtureDecoder(FeaturesOnly(nn.Linear(1, 2)), 1, 1, 0.25)
    encoder = Encoder(Part(1), 2)
    return EncoderMixtureDecoder(encoder, decoder, variance_y=variance_y, centers=k, **options)


def spread():
    """The same, with centres that are spread by the noise."""
    decoder = MixtureDecoder(nn.Linear(2, 2), 1, 1, 0.25)
    with torch.no_grad():
        decoder.network.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
    return EncoderMixtureDecoder(Encoder(Part(1), 2), decoder, variance_y=0.1, centers=4)


@pytest.mark.parametrize(
    ("variance_y", "variance", "cause", "remedy"),
    [
        (0.1, 1e6, "variance 1e+06 the data themselves look like one point", "lower --variance"),
        (1e-12, 0.5, "The features tell all rows apart (1.0", "raise --variance-y"),
        (0.1, 0.5, "The decoder does not use its noise", "raise --noise-dim"),
    ],
)
def test_a_collapse_is_told_once_with_its_cause(
    tmp_path, caplog, variance_y, variance, cause, remedy
):
    (message,) = measured(tmp_path, caplog, blind(variance_y), variance)
    start = "the decoder has collapsed: the 4 centres of an input are as diverse as 1.000 (bound "
    assert message.startswith(start)
    assert cause in message
    assert remedy in message
    rows = read_bounds(tmp_path / "bounds.csv")
    assert f"reached: {100 * rows[0]['tightness']:.1f} %" in message


def test_a_healthy_model_is_not_told_of(tmp_path, caplog):
    assert measured(tmp_path, caplog, spread()) == []


def test_one_centre_cannot_collapse(tmp_path, caplog):
    assert measured(tmp_path, caplog, blind(0.1, k=1)) == []
    # Measured with more, it can.
    assert measured(tmp_path, caplog, blind(0.1, k=1, eval_centers=2)) != []


def test_the_start_of_a_training_is_not_judged(tmp_path, caplog):
    assert measured(tmp_path, caplog, blind(0.1), step=9, steps=100) == []
    assert measured(tmp_path, caplog, blind(0.1), step=10, steps=100) != []


def test_a_training_that_collapses_says_so(tmp_path, caplog):
    train(tmp_path / "run", **EMD | {"variance": 1e7})
    (message,) = warnings(caplog)
    assert "data themselves look like one point: lower --variance" in message
    told = {
        one["name"]: one for one in Run.open(tmp_path / "run").read_json("run.json")["findings"]
    }
    assert told["decoder-collapse"]["message"] == message
    assert "the decoder has collapsed" in write_report(Run.open(tmp_path / "run")).read_text()


def test_a_training_that_does_not_is_silent(tmp_path, caplog):
    train(tmp_path / "run", **EMD | {"variance": 1e-3})
    assert warnings(caplog) == []


def test_neighbours_are_counted_by_the_weights():
    """Rows in pairs with one feature each: two share one."""
    model = blind(1e-4)
    x = torch.stack([torch.arange(10.0).repeat(2), normal(0, 20).float()], 1)
    # A few rows tell apart what the training data share.
    assert "does not use its noise" in collapse_cause(model, x[:10], x, 0.5)
    assert "(1.00 rows share a feature)" in collapse_cause(model, x[:10], x[:10], 0.5)
    assert "one point" in collapse_cause(model, x, x, 1e5)


def test_a_model_without_a_conditional_bound_is_refused(tmp_path):
    made = plan_training(RunConfig.create(data=str(write_points(tmp_path / "points.npy")), **TINY))
    tracker = ConditionalTracker(made, BoundsRecord(tmp_path / "bounds.csv"))
    trainer = SimpleNamespace(global_step=0, is_global_zero=True)
    with pytest.raises(TypeError, match="MixtureDensityNetwork has no conditional bound"):
        tracker.on_train_end(trainer, SimpleNamespace(model=made.model, device="cpu"))


def test_spoilt_weights_are_no_wrong_input(tmp_path, monkeypatch):
    stop_at(monkeypatch, 5, spoil)
    with pytest.raises(FloatingPointError, match=r"step 5.*--learning-rate.*--variance"):
        train(tmp_path / "run", **EMD | {"bound_every": 1})
