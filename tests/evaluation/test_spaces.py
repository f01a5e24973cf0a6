"""Feature spaces: whitening against scikit-learn, the classifier on real digits, the cache."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from hilbound.datasets.base import Dataset
from hilbound.errors import InputError
from hilbound.evaluation import spaces
from hilbound.evaluation.spaces import ClassifierSpace, WhitenedPCA, fit_classifier, fit_space


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def digits():
    rows, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    x = torch.tensor(rows[order] / 16, dtype=torch.float32)
    y = torch.tensor(labels[order])
    return Dataset(
        "digits",
        train=x[:1300],
        validation=x[1300:1550],
        test=x[1550:],
        train_labels=y[:1300],
        validation_labels=y[1300:1550],
        test_labels=y[1550:],
        image_shape=(1, 8, 8),
    )


@pytest.fixture
def blobs():
    """Three clouds in the plane, and the number of each point's cloud."""
    labels = torch.arange(90) % 3
    centres = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]])
    x = centres[labels] + normal(90, 2).float()
    return Dataset("blobs", x[:60], x[60:], x[:0], labels[:60], labels[60:])


@pytest.fixture
def trainings(monkeypatch):
    """Count the trainings, each cut to one epoch."""
    calls = []
    train = spaces._train

    def counted(*args):
        calls.append(args)
        train(*args)

    monkeypatch.setattr(spaces, "_train", counted)
    monkeypatch.setattr(spaces, "_EPOCHS", (1, 1))
    return calls


def test_whitened_components_have_unit_covariance():
    x = normal(300, 6) @ normal(6, 6, seed=1) + 1000
    z = WhitenedPCA.fit(x).transform(x)
    torch.testing.assert_close(torch.cov(z.T), torch.eye(6).double(), rtol=0, atol=1e-9)
    torch.testing.assert_close(z.mean(0), torch.zeros(6).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(200, 12), (10, 40)])
def test_whitened_components_are_those_of_scikit_learn(shape):
    x = normal(*shape)
    oracle = PCA(4, whiten=True, svd_solver="full").fit_transform(x.numpy())
    ours = WhitenedPCA.fit(x, components=4).transform(x).numpy()
    np.testing.assert_allclose(np.abs(ours), np.abs(oracle), atol=1e-8)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("rows", [50, 4])
def test_directions_without_variance_are_dropped(scale, rows):
    x = scale * normal(rows, 2) @ normal(2, 7, seed=1)  # rank two in seven coordinates
    pca = WhitenedPCA.fit(x)
    assert pca.transform(x).shape == (rows, 2)
    assert "2 whitened" in pca.description


def test_whitening_wide_rows_repeats_and_leaves_the_global_state():
    x = (normal(60, 20) @ normal(20, 1200, seed=1)).float()
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    first, second = (WhitenedPCA.fit(x).transform(x) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (60, 20)
    torch.testing.assert_close(torch.cov(first.T), torch.eye(20), rtol=0, atol=1e-3)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(before_numpy, np.random.get_state()[1])  # noqa: NPY002


def test_whitening_refuses_rows_without_variance():
    for constant in (torch.full((5, 2), 0.1), torch.zeros(5, 2)):
        with pytest.raises(InputError, match="all rows of train are equal"):
            WhitenedPCA.fit(constant)
    with pytest.raises(InputError, match="train must be finite, but 1 of 2 rows"):
        WhitenedPCA.fit(torch.tensor([[1.0, float("nan")], [0.0, 1.0]]))
    with pytest.raises(InputError, match="train must have at least 2 rows, got 1"):
        WhitenedPCA.fit(torch.zeros(1, 2))


def test_digits_are_told_apart(digits, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    space = fit_space(digits, cache=tmp_path / "cache")
    assert torch.equal(state, torch.get_rng_state())
    assert threads == torch.get_num_threads()
    assert logging.getLogger("lightning.pytorch").level != logging.ERROR
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]  # nothing strewn about
    assert space.predict is not None
    hits = (space.predict(digits.validation) == digits.validation_labels).double().mean()
    assert space.accuracy == pytest.approx(float(hits), abs=1e-12)
    assert space.accuracy > 0.95
    assert (space.predict(digits.test) == digits.test_labels).double().mean() > 0.95

    z = space.transform(digits.train.double())
    assert z.shape == (1300, 84)
    assert z.dtype == torch.float64
    assert not z.requires_grad
    # Features of one digit lie closer together than those of two, by far more than pixels do.
    assert contrast(z, digits.train_labels) > 1.5 * contrast(digits.train, digits.train_labels)


def contrast(x, labels):
    """Scatter between the classes over the scatter within them."""
    means = torch.stack([x[labels == c].mean(0) for c in labels.unique()])
    within = (x - means[labels]).square().sum(1).mean()
    return float((means - x.mean(0)).square().sum(1).mean() / within)


def test_a_seed_gives_the_same_classifier(digits, trainings):
    first, again, other = (ClassifierSpace.fit(digits, seed) for seed in (3, 3, 4))
    assert len(trainings) == 3
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.logits.weight, other.logits.weight)
    # In blocks or at once: every row is treated alone.
    assert torch.allclose(
        first.transform(digits.test)[:7], first.transform(digits.test[:7]), atol=1e-6
    )
    assert first.transform(digits.test[:0]).shape == (0, 84)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (2, 9, 13), (1, 1, 3)])
def test_images_of_any_size_fit(shape, trainings, tmp_path):
    x = normal(12, int(np.prod(shape))).float()
    data = Dataset("images", x, x[:0], x[:0], torch.arange(12) % 4, image_shape=shape)
    space = fit_space(data, cache=tmp_path)
    assert len(trainings) == 1
    assert space.transform(x).shape == (12, 84)
    assert space.predict(x).max() < 4
    assert space.accuracy is None
    assert "LeNet" in space.description


def test_labelled_points_in_the_plane_keep_their_coordinates(blobs, tmp_path):
    space = fit_space(blobs, cache=tmp_path)
    assert "2 whitened" in space.description
    torch.testing.assert_close(torch.cov(space.transform(blobs.train).T), torch.eye(2))
    assert space.accuracy == 1.0
    assert torch.equal(space.predict(blobs.validation), blobs.validation_labels)


def test_labelled_vectors_get_a_perceptron(tmp_path, trainings):
    x = normal(40, 9).float()
    x[:, 3] = 7  # a constant column must not divide by zero
    data = Dataset("table", x, x, x, (x[:, 0] > 0).long(), (x[:, 0] > 0).long())
    space = fit_space(data, cache=tmp_path)
    assert len(trainings) == 1
    assert "MLP" in space.description
    assert space.transform(x).isfinite().all()
    assert space.transform(x).shape == (40, 84)


def test_without_two_classes_there_is_no_classifier(blobs, trainings, tmp_path):
    for labels in (None, torch.zeros(60, dtype=torch.int64)):
        unlabelled = replace(blobs, train_labels=labels)
        space = fit_space(unlabelled, cache=tmp_path)
        assert space.predict is None
        assert space.accuracy is None
        with pytest.raises(InputError, match="'blobs' has no labels"):
            fit_classifier(unlabelled, cache=tmp_path)
    assert not trainings
    assert not list(tmp_path.iterdir())


def test_the_cache_is_used_and_keyed_by_all_that_matters(blobs, trainings, tmp_path):
    first = fit_classifier(blobs, cache=tmp_path)
    state = torch.get_rng_state()
    again = fit_classifier(blobs, cache=tmp_path)
    assert len(trainings) == 1
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.transform(blobs.validation), again.transform(blobs.validation))
    assert first.accuracy == again.accuracy
    assert not again.training
    changed = blobs.train.clone()
    changed[0, 0] += 1e-3
    for data, seed in [
        (replace(blobs, train=changed), 0),
        (replace(blobs, train_labels=2 - blobs.train_labels), 0),
        (replace(blobs, validation_labels=2 - blobs.validation_labels), 0),
        (blobs, 1),
    ]:
        trained = len(trainings)
        fit_classifier(data, seed, cache=tmp_path)
        assert len(trainings) == trained + 1
    assert len(list(tmp_path.iterdir())) == 5  # and no temporary file is left


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "folder"])
def test_a_damaged_cache_file_is_rebuilt(blobs, trainings, tmp_path, caplog, damage):
    good = fit_classifier(blobs, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    flipped = content[:-3] + bytes([content[-3] ^ 0x10]) + content[-2:]
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        wrong = {"empty": b"", "cut": content[:-50], "flipped": flipped, "foreign": b"x" * 999}
        path.write_bytes(wrong[damage])
    caplog.clear()
    again = fit_classifier(blobs, cache=tmp_path)
    assert len(trainings) == 2
    assert "training it anew" in caplog.text
    assert torch.equal(good.transform(blobs.train), again.transform(blobs.train))
    fit_classifier(blobs, cache=tmp_path)
    assert len(trainings) == (3 if damage == "folder" else 2)  # a folder cannot be replaced


def test_an_unwritable_cache_does_not_stop_the_run(blobs, trainings, tmp_path, caplog):
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    space = fit_space(blobs, cache=occupied / "cache")
    assert len(trainings) == 1
    assert space.predict is not None
    assert "cannot cache the classifier" in caplog.text


def test_the_environment_names_the_cache(blobs, trainings, tmp_path, monkeypatch):
    monkeypatch.setenv("HILBOUND_CACHE", str(tmp_path / "named"))
    fit_classifier(blobs)
    assert len(list((tmp_path / "named").iterdir())) == 1
    fit_classifier(blobs, cache=tmp_path / "given")
    assert len(list((tmp_path / "given").iterdir())) == 1
    monkeypatch.delenv("HILBOUND_CACHE")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / name))
    fit_classifier(blobs)
    assert len(list((tmp_path / "hilbound").iterdir())) == 1
    assert len(trainings) == 3
