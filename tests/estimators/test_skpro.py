"""The adapter to skpro: its own checks, and distributions that agree with the estimator's."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate
from sklearn.model_selection import KFold

from hilbound.errors import DataError, InputError
from hilbound.estimators import ConditionalDensityEstimator
from hilbound.mixture import GaussianMixture

pytest.importorskip("skpro", reason="skpro is missing: pip install 'hilbound[skpro]'")

from skpro.metrics import CRPS, LogLoss
from skpro.model_selection import GridSearchCV
from skpro.utils import check_estimator

from hilbound.estimators.skpro import ConditionalDensityRegressor, PredictedMixture

QUICK = {"n_folds": 2, "max_epochs": 10, "random_state": 0}
Y = np.linspace(-12, 16, 20_001)


@pytest.fixture(scope="module")
def table():
    """Rows with a label each, a missing value, a text column and two targets."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=80)
    X = pd.DataFrame({"x": x, "kind": np.where(x > 0, "u", "v")}, index=range(100, 180))
    y = pd.DataFrame({"a": x + rng.normal(size=80), "b": 50 * x**2}, index=X.index)
    X.loc[103, "x"] = np.nan
    return X, y


@pytest.fixture(scope="module")
def fitted(table):
    return ConditionalDensityRegressor(**QUICK).fit(*table)


@pytest.fixture
def mixture():
    """Two rows of two columns, three unequal components."""
    rng = np.random.default_rng(1)
    means = torch.from_numpy(rng.normal(1, 2, size=(2, 3, 2)))
    weights = torch.from_numpy(rng.dirichlet(np.ones(3), size=2))
    return GaussianMixture(means, torch.from_numpy(rng.uniform(0.1, 1, size=(2, 3, 2))), weights)


@pytest.fixture
def dist(mixture):
    return PredictedMixture(mixture, index=["r", "s"], columns=["a", "b"])


def densities(q):
    """Densities of every entry on the line, by hand, with shape ``(n, d, len(Y))``."""
    m, v = (t.numpy()[..., None] for t in (q.means, q.component_variance))
    bells = np.exp(-0.5 * (Y - m) ** 2 / v) / np.sqrt(2 * np.pi * v)
    return (q.weights.numpy()[:, :, None, None] * bells).sum(1)


@pytest.mark.parametrize("kind", [PredictedMixture, ConditionalDensityRegressor])
def test_skpros_checks_pass(kind):
    results = check_estimator(kind, raise_exceptions=True, verbose=False)
    assert len(results) > 50
    assert set(results.values()) == {"PASSED"}


def test_moments_norms_and_energies_are_integrals(dist, mixture):
    p, x = densities(mixture), np.array([[0.5, -1.0], [2.0, 0.1]])
    below = integrate.cumulative_trapezoid(p, Y, initial=0)
    mean = integrate.trapezoid(Y * p, Y)
    expected = {
        "mean": mean,
        "var": integrate.trapezoid((Y - mean[..., None]) ** 2 * p, Y),
        "pdfnorm": integrate.trapezoid(p**2, Y),
        "energy": integrate.trapezoid(2 * below * (1 - below), Y).sum(-1, keepdims=True),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(dist, name)(), value, rtol=1e-5, err_msg=name)
    distance = integrate.trapezoid(np.abs(Y - x[..., None]) * p, Y).sum(-1, keepdims=True)
    np.testing.assert_allclose(dist.energy(x), distance, rtol=1e-5)


def test_density_probability_and_quantile_of_every_entry(dist, mixture):
    p = densities(mixture)
    at = np.array([[9000, 11000], [8000, 10000]])
    x, density = Y[at], np.take_along_axis(p, at[..., None], -1)[..., 0]
    below = integrate.cumulative_trapezoid(p, Y, initial=0)
    np.testing.assert_allclose(dist.pdf(x), density, rtol=1e-9)
    np.testing.assert_allclose(dist.log_pdf(x), np.log(density), rtol=1e-9)
    share = np.take_along_axis(below, at[..., None], -1)[..., 0]
    np.testing.assert_allclose(dist.cdf(x), share, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(dist.ppf(dist.cdf(x)), x, rtol=1e-7)


def test_a_far_density_keeps_its_logarithm(dist):
    assert (dist.log_pdf(1e3) < -1e5).all(axis=None)
    assert np.isfinite(dist.log_pdf(1e3)).all(axis=None)


def test_samples_keep_the_dependence_of_columns_and_follow_numpys_seed():
    q = GaussianMixture(torch.tensor([[[-3.0, 5.0], [3.0, -5.0]]]).double(), 0.1)
    dist = PredictedMixture(q, index=["r"], columns=["a", "b"])
    np.random.seed(0)  # noqa: NPY002 - skpro's only way to a seed
    drawn = dist.sample(4000)
    assert drawn.corr().loc["a", "b"] < -0.98
    assert abs(drawn["a"].mean()) < 0.2
    np.random.seed(0)  # noqa: NPY002
    pd.testing.assert_frame_equal(dist.sample(4000), drawn)
    assert not dist.sample(4000).equals(drawn)


def test_samples_belong_to_their_row(dist):
    means = dist.sample(4000).groupby(level=1, sort=False).mean()
    np.testing.assert_allclose(means, dist.mean(), atol=0.15)
    assert list(means.index) == ["r", "s"]


def test_parts_are_those_of_the_whole(dist):
    log_pdf = dist.log_pdf(0.3)
    flipped = dist.loc[["s", "r"], ["b"]].log_pdf(0.3)
    pd.testing.assert_frame_equal(flipped, log_pdf.loc[["s", "r"], ["b"]])
    pd.testing.assert_frame_equal(dist.iloc[1:, :].log_pdf(0.3), log_pdf.iloc[1:])
    mask = np.array([False, True])
    pd.testing.assert_frame_equal(dist.iloc[mask].log_pdf(0.3), log_pdf[mask])
    at = [dist.iat[1, 0], dist.at["s", "a"]]  # noqa: PD008, PD009 - not pandas'
    for entry in (*at, dist.iloc[1, 0], dist.loc["s", "a"]):
        assert entry.shape == ()
        assert entry.log_pdf(0.3) == pytest.approx(log_pdf.loc["s", "a"])
        assert entry.ppf(entry.cdf(0.3)) == pytest.approx(0.3)
        assert entry.pdfnorm() == pytest.approx(dist.pdfnorm().loc["s", "a"])


@pytest.mark.parametrize(
    ("shape", "labels"),
    [
        ((2, 3, 1), {"index": ["r"]}),
        ((2, 3, 2), {"columns": ["a"]}),
        ((3, 2), {}),
        ((3, 1), {"index": ["r"]}),
        ((2, 2, 3, 1), {}),
    ],
)
def test_labels_and_shapes_that_do_not_fit(shape, labels):
    with pytest.raises(InputError, match=r"must (have|name)"):
        PredictedMixture(GaussianMixture(torch.zeros(shape), 1.0), **labels)


def test_predictions_are_those_of_the_estimator(fitted, table):
    X, y = table
    model = ConditionalDensityEstimator(**QUICK).fit(X, y)
    dist = fitted.predict_proba(X)
    assert dist.index.equals(X.index)
    assert list(dist.columns) == ["a", "b"]
    np.testing.assert_array_equal(fitted.predict(X), model.predict(X))
    variance = model.predict_distribution(X).variance
    np.testing.assert_allclose(fitted.predict_var(X), variance)
    np.testing.assert_allclose(dist.cdf(y), model.cdf(X, y))
    crps = model.crps(X, y).sum(1, keepdims=True)
    np.testing.assert_allclose(dist.energy(y) - 0.5 * dist.energy(), crps, rtol=1e-6)
    joint = dist.mixture.log_prob(torch.from_numpy(y.to_numpy(copy=True)))
    np.testing.assert_array_equal(joint, model.score_samples(X, y))


def test_quantiles_and_intervals_agree(fitted, table):
    X, y = table
    quantiles = fitted.predict_quantiles(X, [0.9, 0.1])
    intervals = fitted.predict_interval(X, 0.8)
    expected = fitted.estimator_.predict_quantiles(X, [0.9, 0.1])
    for i, target in enumerate(y):
        np.testing.assert_allclose(quantiles[target], expected[..., i])
        np.testing.assert_allclose(intervals[target][0.8][["upper", "lower"]], quantiles[target])
    np.testing.assert_allclose(
        fitted.predict_proba(X).cdf(quantiles.xs(0.1, axis=1, level=1)), 0.1, rtol=1e-9
    )


def test_skpros_scores_are_ours(table):
    X, y = table[0], table[1][["a"]]
    model = ConditionalDensityRegressor(**QUICK).fit(X, y)
    dist, ours = model.predict_proba(X), model.estimator_
    assert LogLoss()(y, dist) == pytest.approx(-ours.score(X, y))
    assert CRPS()(y, dist) == pytest.approx(ours.crps(X, y).mean())


def test_a_grid_search_finds_the_better_fit(table):
    X, y = table[0], table[1][["a"]]
    model = ConditionalDensityRegressor(n_folds=2, random_state=0)
    search = GridSearchCV(model, KFold(2), {"max_epochs": [1, 30]}, LogLoss(), backend="None")
    search.fit(X, y)
    assert search.best_params_ == {"max_epochs": 30}
    assert search.predict_proba(X).shape == (80, 1)


def test_names_of_any_type_and_arrays(table):
    X, y = table[0][["x"]].fillna(0).assign(z=1.0), table[1]["a"]
    mixed = X.set_axis([0, "z"], axis=1)
    by_frame = ConditionalDensityRegressor(**QUICK).fit(mixed, y)
    by_array = ConditionalDensityRegressor(**QUICK).fit(X.to_numpy(), y.to_numpy())
    predicted = by_frame.predict(mixed)
    assert isinstance(predicted, pd.Series)
    np.testing.assert_array_equal(np.ravel(by_array.predict(X.to_numpy())), predicted)


def test_what_was_fitted_survives_pickling(fitted, table):
    again = pickle.loads(pickle.dumps(fitted))  # noqa: S301 - our own bytes
    pd.testing.assert_frame_equal(again.predict(table[0]), fitted.predict(table[0]))


def test_wrong_input_keeps_its_words(fitted, table):
    X, y = table
    with pytest.raises(DataError, match="y holds NaN"):
        ConditionalDensityRegressor(**QUICK).fit(X, y.mask(y > 100))
    with pytest.raises(DataError, match="'kind'"):
        fitted.predict(X.assign(kind="w"))


def test_the_estimators_do_not_pay_for_skpro():
    code = "import sys, hilbound, hilbound.estimators; sys.exit('skpro' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own interpreter
