"""Evaluation: samples against held-out rows, and training rows in the samples' place beside."""

import logging
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.spatial.distance import cdist, pdist

import hilbound
from hilbound.datasets import load
from hilbound.errors import InputError
from hilbound.evaluation.evaluate import evaluate, measure_reconstructions
from hilbound.evaluation.quality import (
    METRICS,
    RECONSTRUCTION,
    format_metric,
    measure,
    reference_rows,
)
from hilbound.evaluation.spaces import MetricSpace, fit_space
from hilbound.models.autoencoders import EncoderMixtureDecoder, FeatureModel
from hilbound.reports.run_report import write_report
from hilbound.training.runs import Run
from support.tiny_runs import ask, train, weights, write_points, write_table

pytest_plugins = ["support.fixtures_runs"]

PLAIN = MetricSpace(lambda x: x.double(), "the coordinates themselves")


def normal(n, d=3, seed=0, shift=0.0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_metrics_agree_with_their_definitions():
    """Straight from the formulas, in NumPy and SciPy, float64."""
    test, fake = normal(60), normal(60, seed=1, shift=0.3)
    x, y = test.double().numpy(), fake.double().numpy()
    values = measure(test, fake, PLAIN, None)

    def radii(z, k=5):
        return np.sort(cdist(z, z), axis=1)[:, k]

    inside = cdist(y, x) <= radii(x)
    assert values["precision"] == pytest.approx(inside.any(1).mean())
    assert values["recall"] == pytest.approx((cdist(x, y) <= radii(y)).any(1).mean())
    assert values["density"] == pytest.approx(inside.sum(1).mean() / 5)
    assert values["coverage"] == pytest.approx((cdist(x, y).min(1) <= radii(x)).mean())

    variance = np.median(pdist(x, "sqeuclidean")) / 2
    xx, yy, xy = (
        np.exp(-cdist(a, b, "sqeuclidean") / (2 * variance)) for a, b in ((x, x), (y, y), (x, y))
    )
    assert values["tightness"] == pytest.approx(xy.mean() ** 2 / xx.mean() / yy.mean(), rel=1e-4)
    # The kernel of the whole variance is the overlap of two components of half of it.
    fidelity = np.linalg.svd(xy, compute_uv=False).sum() / 60
    assert values["fidelity"] == pytest.approx(fidelity, rel=1e-4)
    off = 1 - np.eye(60)
    mmd = (xx * off).sum() / (60 * 59) + (yy * off).sum() / (60 * 59) - 2 * xy.mean()
    assert values["squared_mmd"] == pytest.approx(mmd, rel=1e-3, abs=1e-6)


def test_metrics_know_a_good_sample_from_a_bad_one():
    test, good, bad = normal(200), normal(200, seed=1), normal(200, seed=2, shift=2.0)
    right, wrong = measure(test, good, PLAIN, None), measure(test, bad, PLAIN, None)
    for name, value in right.items():
        if METRICS[name].better == "higher":
            assert value > wrong[name], name
        elif METRICS[name].better == "lower":
            assert value < wrong[name], name


def test_classes_are_counted_where_there_are_any():
    space = MetricSpace(lambda x: x.double(), "coordinates", lambda x: (x[:, 0] > 0).long())
    values = measure(normal(50), normal(50, seed=1).abs(), space, classes=2)
    assert values["classes_hit"] == 1
    assert values["class_entropy"] == pytest.approx(0)
    assert set(measure(normal(50), normal(50, seed=1), space, 2)) == set(METRICS)


def test_a_run_is_measured_beside_real_data(trained):
    measured = evaluate(trained)
    assert trained.read_json("metrics.json") == measured
    assert measured["samples"] == 20
    for entry in measured["metrics"].values():
        assert math.isfinite(entry["model"])
        assert math.isfinite(entry["real"])
    dataset = load(trained.config.data)
    test, real = reference_rows(dataset.test, dataset.train, 20, trained.config.seed)
    assert {tuple(row) for row in test.tolist()} <= {tuple(row) for row in dataset.test.tolist()}
    assert {tuple(row) for row in real.tolist()} <= {tuple(row) for row in dataset.train.tolist()}
    space = fit_space(dataset, seed=trained.config.seed)
    floor = measure(test, real, space, None, trained.config.seed)
    assert {n: entry["real"] for n, entry in measured["metrics"].items()} == floor
    # A model of eight steps is worse than the data themselves.
    assert measured["metrics"]["coverage"]["model"] < measured["metrics"]["coverage"]["real"]


def test_evaluation_is_a_function_of_the_run(trained):
    assert evaluate(trained)["metrics"] == evaluate(trained)["metrics"]


def test_fewer_samples_can_be_asked_for(trained):
    assert evaluate(trained, 12)["samples"] == 12
    before = trained.read_json("metrics.json")
    for wrong in (9, 21, 0, -3):
        with pytest.raises(InputError, match=f"between 10 and 20, the held-out .* got {wrong}"):
            evaluate(trained, wrong)
    assert trained.read_json("metrics.json") == before


def test_labelled_images_are_measured_by_a_classifier(tmp_path):
    run = train(tmp_path / "run", data="digits", steps=2)
    measured = evaluate(run, 100)
    assert measured["classifier_accuracy"] > 0.8
    assert set(measured["metrics"]) == set(METRICS)
    assert measured["metrics"]["classes_hit"]["real"] == 10


# Models with an encoder

EMD = {"model": "encoder-mixture-decoder", "centers": 3, "features": 1}


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    return train(tmp_path_factory.mktemp("conditional") / "run", bound_rows=30, **EMD)


class Known(FeatureModel):
    """A model whose reconstructions are the input, and the input a step to the right."""

    variance_y = 0.01

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.decoder = torch.nn.Module()
        self.decoder.variance = torch.tensor(1.0)

    def feature_weights(self, x, train):
        return (-((x[:, :1] - train[:, 0]) ** 2) / (2 * self.variance_y)).softmax(-1)

    def reconstruct(self, x, n, generator):
        assert generator is not None
        return torch.stack([x, *[x + torch.tensor([0.5, 0.0])] * (n - 1)], dim=1)


def test_reconstructions_are_measured_as_by_hand():
    # Six neighbours a tenth apart, in two places: the fifth neighbour is at most half a unit away.
    near = torch.stack([torch.arange(6) * 0.1, torch.zeros(6)], dim=1)
    train_rows = torch.cat([near, near + 10])
    x = torch.tensor([[0.0, 0.0], [10.2, 10.0], [50.0, 50.0]]).repeat(2, 1)
    block = measure_reconstructions(Known(), x, train_rows, PLAIN)
    assert (block["inputs"], block["reconstructions"]) == (6, 10)
    values = block["metrics"]
    assert set(values) == set(RECONSTRUCTION)
    # One of ten is exact, nine are half a unit off in one of two coordinates.
    assert values["error_of_mean"]["model"] == pytest.approx(0.45**2 / 2)
    assert values["error_of_best"]["model"] == 0
    assert values["pairwise_distance"]["model"] == pytest.approx(9 / 45 * 0.25 / 2)
    inside = [
        bool(
            (cdist([point], train_rows)[0] < np.sort(cdist(train_rows, train_rows), 1)[:, 5]).any()
        )
        or bool((train_rows == point).all(1).any())
        for row in x
        for point in [row, *[row + torch.tensor([0.5, 0.0])] * 9]
    ]
    assert 0 < sum(inside) < 60
    assert values["validity"]["model"] == pytest.approx(np.mean(inside))
    assert values["validity"]["real"] == pytest.approx(2 / 3)
    # Rows that share a feature in [0, 0.5] lie within half a unit; the third input has no such row.
    assert 0 < values["pairwise_distance"]["real"] < 0.25
    assert values["error_of_best"]["real"] > 100


def test_a_model_with_an_encoder_has_two_further_blocks(conditional):
    measured = evaluate(conditional)
    assert conditional.read_json("metrics.json") == measured
    block = measured["reconstruction"]
    assert block["inputs"] == measured["samples"] == 40
    for name, entry in block["metrics"].items():
        assert math.isfinite(entry["model"])
        assert math.isfinite(entry["real"])
        assert entry["better"] == RECONSTRUCTION[name].better
    assert evaluate(conditional)["reconstruction"] == block


@pytest.mark.parametrize("objective", ["conditional", "likelihood"])
def test_the_conditional_bound_is_that_of_held_out_rows(tmp_path, monkeypatch, objective):
    run = train(tmp_path / "run", bound_rows=30, variance="2:0.7", objective=objective, **EMD)
    seen = []
    original = EncoderMixtureDecoder.bound

    def bound(self, x, variance, *arguments, **options):
        seen.append((x, variance, original(self, x, variance, *arguments, **options)))
        return seen[-1][-1]

    monkeypatch.setattr(EncoderMixtureDecoder, "bound", bound)
    block = evaluate(run)["conditional_bound"]
    ((rows, variance, result),) = seen
    # The data's component has half of the kernel's variance, of a likelihood's all of it.
    assert variance == pytest.approx(0.35 if objective == "conditional" else 0.7)
    test = {tuple(row) for row in load(run.config.data).test.tolist()}
    assert len({tuple(row) for row in rows.tolist()} & test) == 30
    assert block == {
        "rows": 30,
        "centers": 3,
        "log_value": float(result.log_value),
        "log_limit": float(result.log_limit),
        "gap": pytest.approx(block["log_limit"] - block["log_value"]),
        "tightness": pytest.approx(math.exp(-block["gap"])),
        "error": result.error,
        "real_tightness": pytest.approx(0.5, abs=0.5),
        "point_tightness": block["point_tightness"],
    }
    assert block["gap"] > 0


def test_real_rows_in_the_place_of_centres_are_none_of_the_bounds_own(tmp_path, monkeypatch):
    run = train(tmp_path / "run", bound_rows=30, **EMD)
    seen = {}
    original = EncoderMixtureDecoder.real_bound

    def real_bound(self, x, rows, *arguments, **options):
        seen.update(x=x, rows=rows, bound=original(self, x, rows, *arguments, **options))
        return seen["bound"]

    monkeypatch.setattr(EncoderMixtureDecoder, "real_bound", real_bound)
    for split, further in (("test", "validation"), ("validation", "train")):
        block = evaluate(run, split=split)["conditional_bound"]
        assert block["real_tightness"] == float(seen["bound"].tightness)
        assert block["log_limit"] == float(seen["bound"].log_limit)
        data = load(run.config.data)
        bound_rows, others = ({tuple(row) for row in seen[n].tolist()} for n in ("x", "rows"))
        assert not bound_rows & others
        held_out, more = ({tuple(r) for r in getattr(data, n).tolist()} for n in (split, further))
        assert bound_rows | others == held_out | more


def test_fewer_other_rows_than_centres_are_no_yardstick(tmp_path):
    run = train(tmp_path / "run", bound_rows=500, **EMD | {"eval_centers": 300})
    assert evaluate(run)["conditional_bound"]["real_tightness"] is None


@pytest.mark.parametrize("model", ["autoencoder", "vae"])
def test_features_without_noise_have_no_real_counterpart(tmp_path, model):
    run = hilbound.fit(
        tmp_path / "run",
        quiet=True,
        data=write_points(tmp_path / "p.npy"),
        model=model,
        features=1,
        width=8,
        depth=1,
        steps=2,
        batch_size=32,
        tensorboard=False,
    )
    measured = evaluate(run)
    assert "conditional_bound" not in measured
    values = measured["reconstruction"]["metrics"]
    real = {name for name, entry in values.items() if entry["real"] is not None}
    assert real == {"validity"}
    assert (values["pairwise_distance"]["model"] == 0) == (model == "autoencoder")


def test_a_density_network_has_the_bound_of_batches_alone(trained):
    assert set(evaluate(trained)) == {
        "batch_bound",
        "split",
        "samples",
        "features",
        "classifier_accuracy",
        "seconds",
        "metrics",
    }


def test_loaded_data_are_taken_as_they_are(trained, monkeypatch):
    expected, data = evaluate(trained)["metrics"], load(trained.config.data)
    opened = Run.open(trained.path)
    opened.keep(data)
    monkeypatch.setattr("hilbound.training.runs.load_dataset", None)
    assert evaluate(opened)["metrics"] == expected


def test_a_collapsed_model_is_measured_too(trained):
    """Every sample the same point: the worst that can happen, and still numbers."""
    state = {name: torch.zeros_like(t) for name, t in weights(trained).items()}
    state["variance"] = weights(trained)["variance"]
    save_file(state, trained.path / "model.safetensors")
    values = evaluate(trained)["metrics"]
    assert all(math.isfinite(entry["model"]) for entry in values.values())
    assert values["vendi_score"]["model"] == pytest.approx(1)
    assert values["recall"]["model"] == 0


def test_samples_far_from_all_data_are_a_finding_everywhere(trained):
    """The recall of a lost run is 1: it never stands there alone."""
    state = weights(trained)
    state = {n: t + 1e4 if n.endswith("bias") else t for n, t in state.items()}
    save_file(state, trained.path / "model.safetensors")
    result = ask("evaluate", trained.path)
    assert result.exit_code == 0
    plain = " ".join(result.stderr.split())
    assert "warning: the samples are far from all data" in plain
    assert "lower --learning-rate" in plain
    ask("evaluate", trained.path)
    (finding,) = trained.read_json("run.json")["findings"]
    assert finding["name"] == "far-from-data"
    html = write_report(trained).read_text(encoding="utf-8")
    assert html.index("far from all data") < html.index("Coverage")
    assert "the samples are far from all data" in html
    cards = html[: html.index("Diagnosis</h2>")]
    assert "Coverage" in cards
    assert "Recall" not in cards


def test_too_few_held_out_rows_are_told(tmp_path):
    run = train(tmp_path / "run", data=write_table(tmp_path / "t.csv", n=40))
    with pytest.raises(InputError, match=r"has 4 held-out rows, at least 10 .*--test-fraction"):
        evaluate(run)


def test_changed_data_are_told_and_data_of_another_shape_refused(trained, tmp_path, caplog):
    table = write_table(tmp_path / "table.csv", seed=9)
    moved = trained.config.model_copy(update={"data": str(table)})
    trained.write_text("config.yaml", moved.to_yaml())
    trained = type(trained).open(trained.path)
    with caplog.at_level(logging.WARNING, "hilbound"):
        evaluate(trained)
    assert "have changed since" in caplog.text
    np.savetxt(table, np.random.default_rng(0).normal(size=(200, 4)), delimiter=",")
    with pytest.raises(InputError, match="now have 4 coordinates, and had 3 when it was trained"):
        evaluate(Run.open(trained.path))
    table.unlink()
    with pytest.raises(InputError, match="does not exist"):
        evaluate(Run.open(trained.path))


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("coverage", 0.93123, "0.931"),
        ("coverage", 0, "0.000"),
        ("squared_mmd", 4.2e-5, "4.20e-05"),
        ("squared_mmd", -4.2e-5, "-4.20e-05"),
        ("frechet_distance", 1234.5, "1234"),
        ("frechet_distance", 0.01234, "0.0123"),
        ("classes_hit", 9.0, "9"),
        ("error_of_best", None, "–"),
    ],
)
def test_metrics_are_printed_to_be_read(name, value, text):
    assert format_metric(name, value) == text


def test_a_run_that_cannot_be_written_is_measured_and_reported_elsewhere(
    trained, tmp_path, monkeypatch, caplog
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    (trained.path / "metrics.json").unlink()
    monkeypatch.setattr("pathlib.Path.replace", full)
    result = ask("evaluate", trained.path)
    assert (result.exit_code, "Coverage" in result.stdout) == (0, True)
    assert "cannot be written: No space left on device" in caplog.text
    assert not [*trained.path.rglob("*.partial")]
    result = ask("report", trained.path, "-o", tmp_path / "no.html")
    assert result.exit_code == 2
    assert "no.html' cannot be written: No space left" in " ".join(result.stderr.split())
    monkeypatch.undo()
    assert ask("report", trained.path, "-o", tmp_path / "page.html").exit_code == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
