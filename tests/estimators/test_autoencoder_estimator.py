"""Features and reconstructions of tables: what they keep, and scikit-learn's manners."""

import pickle
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from hilbound.errors import DataError, InputError
from hilbound.estimators import MixtureAutoencoder, MixtureDensityEstimator


def curve(n=1000, seed=0):
    """Ten columns that follow one number, in units of their own."""
    rng = np.random.RandomState(seed)
    t = rng.uniform(-2, 2, (n, 1))
    x = np.column_stack([t, t**2, np.sin(2 * t), np.cos(2 * t), np.abs(t)] * 2)
    return (x + 0.05 * rng.randn(*x.shape)) * np.geomspace(1e-3, 1e3, 10) + 5


@cache
def fitted(**options):
    return MixtureAutoencoder(1, random_state=0, max_steps=200, learning_rate=0.02, **options).fit(
        curve()
    )


@parametrize_with_checks([MixtureAutoencoder(max_steps=20, random_state=0)])
def test_scikit_learn_accepts_the_estimator(estimator, check):
    check(estimator)


def error(x, y):
    return float((((x - y) / x.std(0)) ** 2).mean())


@pytest.mark.parametrize("options", [{"n_centres": 4}, {"n_centres": 1, "objective": "trace"}])
def test_a_curve_is_reconstructed_better_than_by_a_line(options):
    x, test = curve(), curve(300, seed=1)
    coder = fitted(**options)
    back = coder.inverse_transform(coder.transform(test))
    scale = StandardScaler().fit(x)
    line = PCA(1).fit(scale.transform(x))
    flat = scale.inverse_transform(line.inverse_transform(line.transform(scale.transform(test))))
    assert error(test, back) < error(test, flat) / 4


def test_reconstructions_of_a_row_differ_where_features_leave_something_open():
    rng = np.random.RandomState(0)
    t, sign = rng.randn(1000), rng.choice([-1.0, 1.0], 1000)
    x = np.column_stack([t, t, t, 2 * sign]) + 0.1 * rng.randn(1000, 4)
    coder = MixtureAutoencoder(1, random_state=0, max_steps=200, learning_rate=0.02).fit(x)
    spread = coder.reconstruct(x[:200], 30).std(1).mean(0) / x.std(0)
    low, high = sorted([spread[:3].mean(), spread[3]])
    assert high > 0.3
    assert high > 2 * low


def test_features_are_normalised():
    features = fitted(n_centres=4).transform(curve())
    np.testing.assert_allclose(features.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(features.std(0), 1, atol=0.1)


def test_shapes_and_seeds_of_reconstructions():
    coder, x = fitted(n_centres=4), curve(7)
    rows = coder.reconstruct(x, 3, random_state=1)
    assert rows.shape == (7, 3, 10)
    np.testing.assert_array_equal(rows, coder.reconstruct(x, 3, random_state=1))
    assert not np.array_equal(rows, coder.reconstruct(x, 3, random_state=2))
    np.testing.assert_array_equal(coder.reconstruct(x, 3), coder.reconstruct(x, 3))


def test_the_bound_is_a_bound_and_grows_with_training():
    trained = fitted(n_centres=4)
    barely = MixtureAutoencoder(1, n_centres=4, random_state=0, max_steps=1).fit(curve())
    assert 0 < float(trained.bound_.tightness) <= 1 + 1e-9
    assert float(trained.bound_.tightness) > 1.2 * float(barely.bound_.tightness)
    assert MixtureAutoencoder(max_steps=1, random_state=0).fit(curve(19)).bound_ is None


def test_progress_is_told_to_those_who_ask(capsys):
    x = np.random.default_rng(0).normal(size=(40, 2))
    MixtureAutoencoder(1, max_steps=5, random_state=0).fit(x)
    assert capsys.readouterr() == ("", "")
    MixtureAutoencoder(1, max_steps=5, random_state=0, verbose=1).fit(x)
    assert capsys.readouterr() == ("", "fitting: 5 steps\n")


def test_names_and_frames_are_those_of_scikit_learn():
    frame = pd.DataFrame(curve(50)).add_prefix("column ")
    coder = MixtureAutoencoder(2, max_steps=3, random_state=0).set_output(transform="pandas")
    features = coder.fit_transform(frame)
    assert list(features.columns) == ["mixtureautoencoder0", "mixtureautoencoder1"]
    assert list(coder.get_feature_names_out()) == list(features.columns)
    pipeline = make_pipeline(coder, MixtureDensityEstimator(1, random_state=0)).fit(frame)
    assert np.isfinite(pipeline.score(frame))


def test_a_seed_repeats_every_bit_and_no_global_state_moves():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - to see it stay
    coders = [clone(fitted(n_centres=4)).set_params(max_steps=20).fit(curve()) for _ in range(2)]
    np.testing.assert_array_equal(*(coder.transform(curve(9)) for coder in coders))
    np.testing.assert_array_equal(*(coder.reconstruct(curve(9), 2) for coder in coders))
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_save_load_and_pickle_keep_every_bit(tmp_path):
    coder, x = fitted(n_centres=4), curve(9)
    coder.save(tmp_path / "coder")
    copy = pickle.loads(pickle.dumps(coder))  # noqa: S301 - our own bytes
    for other in (MixtureAutoencoder.load(tmp_path / "coder"), copy):
        np.testing.assert_array_equal(other.transform(x), coder.transform(x))
        np.testing.assert_array_equal(other.reconstruct(x, 2), coder.reconstruct(x, 2))
        features = coder.transform(x)
        np.testing.assert_array_equal(
            other.inverse_transform(features), coder.inverse_transform(features)
        )
        assert other.get_params() == coder.get_params()
        assert other.variance_ == coder.variance_
        assert float(other.bound_.gap) == float(coder.bound_.gap)
    with pytest.raises(DataError, match="holds a MixtureAutoencoder: load it with that class"):
        MixtureDensityEstimator.load(tmp_path / "coder")


@pytest.mark.parametrize("x", [np.ones((30, 3)), np.eye(2), np.full((1, 2), 3.0)])
def test_constant_columns_and_few_rows_are_enough(x):
    coder = MixtureAutoencoder(1, max_steps=5, random_state=0).fit(x)
    assert np.isfinite(coder.inverse_transform(coder.transform(x))).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.reconstruct(curve(2), 0), "n must be a whole number above zero, got 0"),
        (lambda c: c.inverse_transform([[0.0, 1.0]]), "X must have 1 columns, .* got 2: give what"),
        (lambda c: clone(c).set_params(objective="trace").fit(curve(9)), "=4: use n_centres=1"),
    ],
)
def test_wrong_arguments_are_named_with_what_to_do(call, message):
    with pytest.raises(InputError, match=message):
        call(fitted(n_centres=4))
