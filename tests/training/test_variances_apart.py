"""Different variances of the data's and the model's components, from options to mixtures."""

import pytest
import torch

import hilbound
from hilbound.bounds import marginal_bound
from hilbound.config import RunConfig
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.training.batches import BatchStream
from hilbound.training.plan import plan_training
from hilbound.variance import median_variance
from support.tiny_runs import ask, flags, train, weights, write_points
from support.trainings import curve, press_ctrl_c, stop_at

APART = {"objective": "scalar", "variance_data": "0.2*median", "variance_model": 0.7}


@pytest.fixture(name="points")
def _points(tmp_path):
    return write_points(tmp_path / "points.npy")


def plan(points, **options):
    return plan_training(RunConfig.create(data=points, batch_size=32, width=8, **options))


def test_each_side_has_its_own_variance_and_the_kernel_their_sum(points):
    made = plan(points, **APART)
    median = median_variance(made.dataset.train, generator=stream(0, "median"))
    assert made.data_variance(5) == pytest.approx(0.2 * median)
    assert made.model_variance(5) == 0.7
    assert made.kernel_variance(5) == pytest.approx(0.2 * median + 0.7)
    assert float(made.model.head.variance) == pytest.approx(0.7)


def test_a_side_that_is_not_given_has_half_of_the_kernel(points):
    made = plan(points, objective="scalar", variance=3.0, variance_data=0.25)
    assert (made.data_variance(0), made.model_variance(0)) == (0.25, 1.5)
    made = plan(points, objective="nuclear", variance=3.0)
    assert made.data_variance(0) == made.model_variance(0) == 1.5


def test_each_side_may_have_a_schedule(points):
    made = plan(points, objective="scalar", variance_data="4:1", variance_model=0.5, steps=11)
    assert [made.data_variance(step) for step in (0, 5, 10)] == pytest.approx([4, 2, 1])
    assert made.model_variance(10) == 0.5
    made.smooth_model(10)
    assert float(made.model.head.variance) == 0.5
    moving = plan(points, objective="scalar", variance_model="4:1", steps=11)
    moving.smooth_model(5)
    assert float(moving.model.head.variance) == pytest.approx(2)


def test_a_run_compares_mixtures_of_these_variances_and_records_them(tmp_path):
    run = train(tmp_path / "run", **APART, steps=4)
    text = (run.path / "config.yaml").read_text()
    assert "variance_data: 0.2*median" in text
    assert "variance_model: 0.7" in text
    facts, made = run.read_json("run.json"), plan_training(run.config)
    assert facts["variance"]["data_end"] == pytest.approx(made.data_variance(3))
    assert run.component_variance == pytest.approx(made.data_variance(3))
    row = next(row for row in run.read_bounds() if row["split"] == "train")
    x = next(iter(BatchStream(made.dataset.train, 32, 4, 0)))
    model = plan_training(run.config).model
    q = model.compare(x, made.data_variance(0), 32, stream(0, "noise", 0, 0)).q
    expected = marginal_bound(GaussianMixture(x, made.data_variance(0)), q)
    assert row["log_value"] == pytest.approx(expected.log_value.item(), rel=1e-5)
    assert row["log_limit"] == pytest.approx(expected.log_limit.item(), rel=1e-5)
    assert row["variance"] == pytest.approx(made.kernel_variance(0))
    # In another process the model has the variance it was trained with.
    assert float(run.load_model().head.variance) == pytest.approx(0.7)


def test_a_resumed_run_keeps_them(tmp_path, monkeypatch):
    options = APART | {"variance_data": "4:1"}
    whole = train(tmp_path / "whole", **options)
    stop_at(monkeypatch, 5, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", **options)
    resumed = hilbound.resume(tmp_path / "part", quiet=True)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name])
    assert curve(resumed) == curve(whole)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"objective": "likelihood", "variance_data": 1.0}, "variance_data would have no effect"),
        (
            {"objective": "distance", "variance_data": 1.0, "variance_model": 1.0},
            "variance_data and variance_model would have no effect",
        ),
        (
            {"model": "autoencoder", "objective": "mse", "variance_model": 1.0},
            "variance_model would have no effect",
        ),
        ({"objective": "scalar", "variance_data": -1.0}, "variance must be a positive"),
        ({"objective": "scalar", "variance_model": "medean"}, "did you mean 'median'"),
        (
            {"objective": "scalar", "variance_model": "2:1", "learn_variance": True},
            "is a schedule, and learn_variance learns it",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(points, options, says):
    with pytest.raises(InputError, match=says):
        plan(points, **options)


def test_on_the_command_line(tmp_path, points):
    out = str(tmp_path / "run")
    options = flags(objective="scalar", variance_data=0.3, variance_model="0.1*median")
    result = ask("fit", str(points), *options, "-o", out, "--no-report")
    assert result.exit_code == 0, result.output
    config = hilbound.Run.open(out).config
    assert (str(config.variance_data), config.variance_model) == ("0.3", "0.1*median")
