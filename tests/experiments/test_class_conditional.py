"""The experiment of images by class: its measures by hand, its verdicts on made-up rows."""

import pytest
import torch
from torch import nn

from hilbound import datasets
from hilbound.evaluation.image_metrics import UnavailableError
from hilbound.evaluation.spaces import ClassifierSpace
from hilbound.experiments.class_conditional import measures, training
from hilbound.experiments.class_conditional.experiment import (
    COMPARED,
    EXPERIMENT,
    MODELS,
    TRAINED,
    ahead,
    class_names,
)
from hilbound.experiments.class_conditional.measures import (
    class_row,
    distance,
    maps,
    measure_classes,
    published_row,
    reconstruction_row,
)
from hilbound.experiments.class_conditional.settings import LONGER, MIXTURES, SLICES
from hilbound.experiments.class_conditional.training import build, train
from hilbound.models.classes import ClassConditional

QUICK = EXPERIMENT.settings(quick=True)


@pytest.fixture(scope="module")
def dataset():
    return datasets.load("digits")


@pytest.fixture(scope="module")
def classifier(dataset):
    """One with the weights of its start: what is measured does not depend on how good it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ClassifierSpace(dataset).eval()


def test_maps_are_those_behind_the_two_convolutions(dataset, classifier):
    x = dataset.test[:5]
    standardize, lenet = classifier.features
    first, second = (layer for layer in lenet if isinstance(layer, nn.Conv2d))
    with torch.no_grad():
        one = torch.relu(first(standardize(x).reshape(5, 1, 8, 8)))
        two = torch.relu(second(nn.functional.max_pool2d(one, 2)))
    found = maps(classifier, x)
    assert [m.shape for m in found] == [(5, 6, 8, 8), (5, 16, 4, 4)]
    assert torch.allclose(found[0], one, atol=1e-6)
    assert torch.allclose(found[1], two, atol=1e-6)


def test_distance_is_a_mean_over_pairs(dataset, classifier):
    a, b = dataset.test[:2], dataset.test[2:4]
    each = [distance(classifier, a[i : i + 1], b[i : i + 1]) for i in range(2)]
    assert min(each) > 0.01
    assert distance(classifier, a, b) == pytest.approx(sum(each) / 2, rel=1e-5)
    assert distance(classifier, a, a) == 0


def test_images_of_a_class_against_themselves(dataset, classifier):
    real = dataset.test[dataset.test_labels == 3]
    row = class_row(classifier, real, real, 3)
    assert row["frechet"] == pytest.approx(0, abs=1e-4)
    assert (row["precision"], row["coverage"]) == (1, 1)
    assert row["agreement"] == pytest.approx(
        float((classifier.predict(real) == 3).float().mean()), abs=1e-7
    )


def test_samples_that_are_all_alike_have_no_diversity_and_no_coverage(dataset, classifier):
    real = dataset.test[dataset.test_labels == 3]
    row = class_row(classifier, real, real[:1].expand(20, -1), 3)
    assert row["diversity"] == 0
    assert row["coverage"] < 0.5
    assert row["frechet"] > 0


def test_reconstructions_at_known_places(dataset, classifier):
    x = dataset.test[:12]
    drawn = torch.stack([x, (x + 0.2).clamp(0, 1), (x - 0.1).clamp(0, 1)], 1)
    row = reconstruction_row(classifier, x, drawn)
    assert row["error_of_best"] == 0
    expected = sum((drawn[:, i] - x).square().mean() for i in range(3)) / 3
    assert row["error"] == pytest.approx(float(expected), rel=1e-5)
    assert row["reconstruction_diversity"] == pytest.approx(
        distance(classifier, drawn[:, 0], drawn[:, 1])
    )
    assert row["reconstruction_frechet"] == pytest.approx(0, abs=1e-4), "of the first of them"


def test_means_are_over_the_classes(dataset, classifier):
    def draw(n, label):  # what the model makes of class c are real images of class c + 1
        return dataset.test[dataset.test_labels == (label + 1) % 10][:n]

    row, samples = measure_classes(dataset, classifier, QUICK, draw, None)
    assert len(samples) == len(row["frechet_by_class"]) == row["classes"] == 10
    assert row["frechet"] == pytest.approx(sum(row["frechet_by_class"]) / 10)
    predicted = [classifier.predict(images) for images in samples]
    shares = [float((p == c).double().mean()) for c, p in enumerate(predicted)]
    assert row["agreement"] == pytest.approx(sum(shares) / 10)
    assert row["accuracy"] == pytest.approx(
        float((classifier.predict(dataset.test) == dataset.test_labels).double().mean())
    )
    assert "error" not in row, "there is no model to reconstruct with"


def test_published_metrics_compare_pairs_of_one_class(dataset, monkeypatch):
    seen = {}

    def fid(real, fake):
        seen["fid"] = (real, fake)
        return 3.5

    def lpips(a, b):
        seen["lpips"] = (a, b)
        return 0.25

    monkeypatch.setattr(measures, "true_fid", fid)
    monkeypatch.setattr(measures, "true_lpips", lpips)
    samples = [torch.full((7, 64), c / 10) for c in range(10)]
    row = published_row(dataset, samples, 47)
    assert row == {"fid": 3.5, "lpips": 0.25, "unavailable": []}
    assert [part.shape for part in seen["fid"]] == [(40, 1, 8, 8)] * 2
    a, b = seen["lpips"]
    assert len(a) == 20
    assert torch.equal(a, b), "a pair is of one class"
    assert torch.equal(a[:, 0, 0, 0], (torch.arange(10) / 10).repeat_interleave(2))


def test_what_is_not_there_is_said_in_a_sentence(dataset, monkeypatch):
    def missing(*_):
        raise UnavailableError("FID needs the package torch-fidelity: install it")

    monkeypatch.setattr(measures, "true_fid", missing)
    monkeypatch.setattr(measures, "true_lpips", lambda *_: 0.3)
    published = published_row(dataset, [torch.zeros(4, 64)] * 10, 20)
    assert published["fid"] is None
    assert published["lpips"] == 0.3
    rows = [
        published
        | {
            "model": kind,
            "features": 0,
            "seed": 0,
            "accuracy": 0.5,
            "classes": 10,
            "train_rows": 900,
        }
        | {"test_rows": 500}
        for kind in MODELS
    ]
    notes = EXPERIMENT.notes(QUICK, rows)
    assert "Skipped: FID needs the package torch-fidelity: install it." in notes
    assert "True LPIPS between two samples of a class: training images 0.300" in notes
    assert "True FID" not in notes
    assert "50% of the test images" in notes


@pytest.mark.parametrize(
    ("autoencoder", "vae", "holds", "said"),
    [
        ([1.0, 2.0], [0.0, 2.9], True, "in every seed ahead of the autoencoder and the VAE"),
        ([1.0, 3.5], [0.0, 2.9], None, "in every seed ahead of the VAE"),
        (
            [5.0, 6.0],
            [0.0, 2.9],
            False,
            "in every seed ahead of the VAE and behind the autoencoder",
        ),
        ([1.0, 3.5], [0.0, 9.0], None, "no clear difference"),
    ],
)
def test_the_verdict_asks_for_every_seed(autoencoder, vae, holds, said):
    values = {"mixture": [3.0, 4.0], "autoencoder": autoencoder, "vae": vae}
    rows = [
        {"model": kind, "seed": seed, "x": x}
        for kind in COMPARED
        for seed, x in enumerate(values.get(kind, []))
    ]
    claim = ahead(rows, "x", 1, "More")
    assert claim.holds is holds
    assert claim.outcome.endswith(f": {said}")
    assert "3.5 ± 0.7" in claim.outcome
    assert not claim.reason, "there is no row that tests it"
    turned = [row | {"x": -row["x"]} for row in rows]
    assert ahead(turned, "x", 1, "Less", more=False).holds is holds


@pytest.mark.parametrize(
    ("by_row", "said"),
    [
        ([2.0, 4.5], "no clear difference, so this does not explain it"),
        ([5.0, 6.0], "better in every seed, so this is part of the reason"),
        ([1.0, 2.0], "worse in every seed, so this is not the reason"),
    ],
)
def test_a_failure_has_a_reason_that_was_tested(by_row, said):
    values = {"mixture": [3.0, 4.0], "autoencoder": [7.0, 8.0], "vae": [0.0, 1.0], "by-row": by_row}
    rows = [
        {"model": kind, "seed": seed, "x": x}
        for kind, of_kind in values.items()
        for seed, x in enumerate(of_kind)
    ]
    claim = ahead(rows, "x", 1, "More")
    assert claim.holds is False
    assert said in claim.reason
    assert f"instead of 3.5 ± 0.7: {said}" in claim.reason
    held = [row | {"x": -1.0} if row["model"] == "autoencoder" else row for row in rows]
    assert ahead(held, "x", 1, "More").reason == ""


@pytest.mark.parametrize("kind", TRAINED)
def test_every_model_is_told_the_class_and_trains(kind, dataset):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network, objective = build(QUICK, dataset, kind, 4)
    model = ClassConditional(network)
    assert model.decoder.classes == 10
    assert isinstance(objective, MIXTURES.get(kind, object))
    before = [p.detach().clone() for p in model.parameters()]
    train(model, objective, dataset, QUICK, steps=3, seed=0)
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert all(moved), "every weight is trained"
    x = dataset.test[:4]
    code = network.decoder.network[0].weight[:, 4:14]
    assert code.shape == (QUICK.width, 10)
    drawn = model.reconstruct(x, dataset.test_labels[:4], 2, torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 2, 64)
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1


@pytest.mark.parametrize(("kind", "times"), [("autoencoder", 1), (LONGER, QUICK.longer)])
def test_the_longer_autoencoder_takes_more_steps(kind, times, dataset, monkeypatch):
    seen = []
    monkeypatch.setattr(training, "train", lambda *_, steps, seed: seen.append((steps, seed)))
    model = training.trained(QUICK, dataset, kind, 1, seed=5)
    assert seen == [(times * QUICK.steps, 5)]
    again = training.trained(QUICK, dataset, "autoencoder", 1, seed=5)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), "weights are a function of the seed alone"


def test_training_by_slices_moves_the_decoder_alone(dataset):
    model = training.trained(QUICK, dataset, SLICES, 4, seed=5)
    encoder = training.trained(QUICK, dataset, "autoencoder", 4, seed=5).model.encoder
    # The weights and the running averages of its last layer.
    kept = model.model.encoder.state_dict()
    for name, value in encoder.state_dict().items():
        assert torch.equal(kept[name], value), name
    untrained = QUICK.model_copy(update={"slice_steps": 0})
    before = training.trained(untrained, dataset, SLICES, 4, seed=5).decoder
    moved = [
        not torch.equal(a, b)
        for a, b in zip(before.parameters(), model.decoder.parameters(), strict=True)
    ]
    assert all(moved)


def test_slices_are_judged_against_the_longer_autoencoder_as_well():
    values = {SLICES: 10.0, "mixture": 50.0, "autoencoder": 20.0, "vae": 30.0, LONGER: 15.0}
    rows = [
        {"model": kind, "features": 2, "seed": seed, "frechet": value + seed}
        for kind, value in values.items()
        for seed in range(3)
    ]
    others = ("autoencoder", "vae", LONGER)
    claim = ahead(rows, "frechet", 1, "nearer", more=False, own=SLICES, others=others)
    assert claim.holds is True
    assert claim.outcome.startswith("mixture, slices 11.0 ± 1.0, autoencoder 21.0 ± 1.0")
    rows[2]["frechet"] = 16.0
    claim = ahead(rows, "frechet", 1, "nearer", more=False, own=SLICES, others=others)
    assert claim.holds is None


def test_classes_have_names():
    assert class_names(EXPERIMENT.settings(quick=False))[:2] == ("airplane", "automobile")
    assert class_names(QUICK)[9] == "9"
