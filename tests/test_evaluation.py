"""Evaluation: samples against held-out rows, and training rows in the samples' place beside."""

import logging
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.spatial.distance import cdist, pdist

from hilbound.datasets import load
from hilbound.errors import InputError
from hilbound.evaluation import METRICS, evaluate, format_metric, measure, reference_rows
from hilbound.features import FeatureSpace, fit_features
from tiny_runs import train, weights, write_table

pytest_plugins = ["fixtures_runs"]

PLAIN = FeatureSpace(lambda x: x.double(), "the coordinates themselves")


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
    xx, yy, xy = (np.exp(-cdist(a, b, "sqeuclidean") / (2 * variance))
                  for a, b in ((x, x), (y, y), (x, y)))  # fmt: skip
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
    space = FeatureSpace(lambda x: x.double(), "coordinates", lambda x: (x[:, 0] > 0).long())
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
    space = fit_features(dataset, seed=trained.config.seed)
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


def test_a_collapsed_model_is_measured_too(trained):
    """Every sample the same point: the worst that can happen, and still numbers."""
    state = {name: torch.zeros_like(t) for name, t in weights(trained).items()}
    state["variance"] = weights(trained)["variance"]
    save_file(state, trained.path / "model.safetensors")
    values = evaluate(trained)["metrics"]
    assert all(math.isfinite(entry["model"]) for entry in values.values())
    assert values["vendi_score"]["model"] == pytest.approx(1)
    assert values["recall"]["model"] == 0


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
        evaluate(trained)
    table.unlink()
    with pytest.raises(InputError, match="does not exist"):
        evaluate(trained)


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
    ],
)
def test_metrics_are_printed_to_be_read(name, value, text):
    assert format_metric(name, value) == text
