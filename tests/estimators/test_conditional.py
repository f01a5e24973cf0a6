"""Conditional densities of tables, proven on data whose density is known."""

import pickle
import re
from functools import cache

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate, stats
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from hilbound.errors import InputError
from hilbound.estimators import ConditionalDensityEstimator
from hilbound.mixture import GaussianMixture
from support.simulators import ALL, HETEROSCEDASTIC, JUMP

QUICK = {"max_epochs": 40, "n_folds": 3, "random_state": 0}


@pytest.fixture(scope="module")
def fitted():
    """A model of a heteroscedastic target in units of its own: mean 500, deviation about 40."""
    x, y = HETEROSCEDASTIC.draw(1500)
    y = 500 + 50 * y
    return ConditionalDensityEstimator(**QUICK).fit(x, y), x, y


@pytest.fixture(scope="module")
def pair():
    """A model of two targets."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 2))
    y = np.stack([x[:, 0] + 0.3 * rng.normal(size=300), 100 * x[:, 1]], 1)
    y[:, 1] += 50 * rng.normal(size=300)
    return ConditionalDensityEstimator(**QUICK).fit(x, y), x, y


@pytest.fixture(scope="module")
def high():
    """The stack of several models on few rows, one of them missing a value."""
    x, y = JUMP.draw(90)
    table = pd.DataFrame({"x": x[:, 0], "k": np.where(x[:, 0] > 0.5, "u", "v")})
    table.loc[3, "x"] = np.nan
    model = ConditionalDensityEstimator(effort="high", max_epochs=20, random_state=0)
    return model.fit(table, y), table, y


@cache
def learned(name, n):
    """A model of n rows of a simulator."""
    model = ConditionalDensityEstimator(n_folds=3, max_epochs=30, random_state=0)
    return model.fit(*ALL[name].draw(n))


def hellinger(model, simulator):
    """Squared Hellinger distance to the truth, averaged over x."""
    x, y = np.linspace(-0.95, 0.95, 39), np.linspace(-6, 8, 2801)
    q = model.predict_distribution(x[:, None])
    density = q.log_prob(torch.from_numpy(y)[:, None, None]).exp().numpy().T
    overlap = integrate.trapezoid(np.sqrt(density * simulator.density(x, y)), y)
    return float(np.mean(1 - overlap))


@pytest.mark.parametrize("name", ALL)
def test_the_distance_to_the_truth_falls_with_the_rows(name):
    few, many = (hellinger(learned(name, n), ALL[name]) for n in (100, 1600))
    assert many < min(0.6 * few, 0.03)


def test_densities_integrate_to_one_in_the_users_units(fitted):
    model, x, _ = fitted
    grid = np.linspace(200, 800, 4001)
    q = model.predict_distribution(x[:20])
    assert q.batch_shape == (20,)
    density = q.log_prob(torch.from_numpy(grid)[:, None, None]).exp().numpy()
    np.testing.assert_allclose(integrate.trapezoid(density, grid, axis=0), 1, atol=1e-6)


def test_densities_of_two_targets_integrate_to_one(pair):
    model, x, _ = pair
    a, b = np.linspace(-6, 6, 401), np.linspace(-900, 900, 401)
    grid = torch.from_numpy(np.stack(np.meshgrid(a, b, indexing="ij"), -1))
    density = model.predict_distribution(x[:3]).log_prob(grid[:, :, None]).exp().numpy()
    mass = integrate.trapezoid(integrate.trapezoid(density, b, axis=1), a, axis=0)
    np.testing.assert_allclose(mass, 1, atol=1e-4)


def test_score_samples_are_the_logarithm_of_that_density(fitted):
    model, x, y = fitted
    scores = model.score_samples(x[:5], y[:5])
    step = 1e-3
    mass = model.cdf(x[:5], y[:5] + step) - model.cdf(x[:5], y[:5] - step)
    np.testing.assert_allclose(np.log(mass / (2 * step)), scores, atol=1e-4)
    assert model.score(x, y) == pytest.approx(model.score_samples(x, y).mean())
    weights = np.arange(5.0)
    assert model.score(x[:5], y[:5], weights) == pytest.approx(np.average(scores, weights=weights))


def test_the_units_of_the_target_move_the_score_by_their_jacobian(pair):
    _, x, y = pair
    base = ConditionalDensityEstimator(**QUICK).fit(x, y[:, 0])
    other = ConditionalDensityEstimator(**QUICK).fit(x, 1024 * y[:, 0])
    np.testing.assert_allclose(
        other.score_samples(x, 1024 * y[:, 0]),
        base.score_samples(x, y[:, 0]) - np.log(1024),
        rtol=1e-9,
    )
    np.testing.assert_allclose(other.predict(x), 1024 * base.predict(x), rtol=1e-9)
    assert other.held_out_score_ == pytest.approx(base.held_out_score_ - np.log(1024))


def test_the_score_is_near_that_of_the_true_density(fitted):
    model, _, _ = fitted
    x, y = HETEROSCEDASTIC.draw(2000, seed=1)
    true = stats.norm(np.sin(3 * x[:, 0]), 0.1 + 0.4 * np.abs(x[:, 0])).logpdf(y) - np.log(50)
    assert true.mean() - 0.06 < model.score(x, 500 + 50 * y) < true.mean() + 0.01
    assert model.held_out_score_ == pytest.approx(true.mean(), abs=0.1)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("name", ALL)
def test_intervals_reach_their_coverage(name, coverage):
    x, y = ALL[name].draw(4000, seed=1)
    low, high = learned(name, 1600).predict_interval(x, coverage).T
    assert ((y >= low) & (y <= high)).mean() == pytest.approx(coverage, abs=0.03)


def test_quantiles_and_cdf_invert_each_other_and_never_cross(fitted):
    model, x, _ = fitted
    alpha = np.array([0.9, 0.001, 0.5, 0.1, 0.999, 0.5])
    values = model.predict_quantiles(x[:50], alpha)
    assert values.shape == (50, 6)
    for a, column in zip(alpha, values.T, strict=True):
        np.testing.assert_allclose(model.cdf(x[:50], column), a, atol=1e-6)
    assert (np.diff(values[:, np.argsort(alpha)], axis=1) >= 0).all()


def test_one_alpha_is_one_column(fitted):
    model, x, _ = fitted
    assert model.predict_quantiles(x[:3], 0.5).shape == (3, 1)


def test_crps_is_the_integral_of_the_squared_error_of_the_cdf(fitted):
    model, x, y = fitted
    grid = np.linspace(100, 900, 80001)
    for i in range(3):
        p = model.predict_distribution(x[i : i + 1]).cdf(torch.from_numpy(grid)[:, None, None])
        error = (p[:, 0].numpy() - (grid >= y[i])) ** 2
        expected = integrate.trapezoid(error, grid)
        assert model.crps(x[i : i + 1], y[i : i + 1])[0] == pytest.approx(expected, abs=0.01)


def test_samples_follow_the_distribution(fitted):
    model, x, _ = fitted
    draws = model.sample(x[:3], 4000, random_state=1)
    assert draws.shape == (3, 4000, 1)
    q = model.predict_distribution(x[:3])
    for i in range(3):

        def cdf(values, i=i):
            single = GaussianMixture(q.means[i], q.component_variance[i], q.weights[i])
            return single.cdf(torch.from_numpy(values)[:, None]).numpy()

        assert stats.kstest(draws[i, :, 0], cdf).pvalue > 1e-3
    np.testing.assert_array_equal(model.sample(x[:3], 2), model.sample(x[:3], 2))


def test_memory_that_is_only_for_reading_is_enough(pair):
    model, x, y = pair
    kept = [model.score_samples(x, y), model.predict_quantiles(x, [0.1, 0.9])]
    levels = np.array([0.1, 0.9])
    x, y = x.copy(), y.copy()
    for array in (x, y, levels):
        array.setflags(write=False)
    ConditionalDensityEstimator(**QUICK).fit(x, y)
    np.testing.assert_array_equal(model.score_samples(x, y), kept[0])
    np.testing.assert_array_equal(model.predict_quantiles(x, levels), kept[1])


def test_several_targets_have_an_axis_of_their_own(pair):
    model, x, y = pair
    assert model.predict(x[:7]).shape == (7, 2)
    values = model.predict_quantiles(x[:7], [0.1, 0.5, 0.9])
    assert values.shape == (7, 3, 2)
    assert model.predict_interval(x[:7]).shape == (7, 2, 2)
    np.testing.assert_allclose(model.cdf(x[:7], values[:, 2]), 0.9, atol=1e-6)
    assert model.crps(x[:7], y[:7]).shape == (7, 2)
    assert model.sample(x[:7], 3).shape == (7, 3, 2)
    assert model.score_samples(x[:7], y[:7]).shape == (7,)
    residual = y - model.predict(x)
    assert (residual.std(0) < 1.2 * np.array([0.3, 50])).all()


def test_the_seed_repeats_every_bit(pair):
    model, x, y = pair
    again = ConditionalDensityEstimator(**QUICK).fit(x, y)
    np.testing.assert_array_equal(again.score_samples(x, y), model.score_samples(x, y))
    other = ConditionalDensityEstimator(**{**QUICK, "random_state": 1}).fit(x, y)
    assert (other.score_samples(x, y) != model.score_samples(x, y)).all()


def test_fitting_leaves_the_global_generator_alone(pair):
    _, x, y = pair
    state = torch.get_rng_state()
    ConditionalDensityEstimator(max_epochs=1, random_state=0).fit(x, y)
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_of_weight_zero_are_not_there(pair):
    model, x, y = pair
    more_x, more_y = np.concatenate([x, x + 9]), np.concatenate([y, -y])
    weight = np.repeat([2.0, 0.0], len(x))
    weighted = ConditionalDensityEstimator(**QUICK).fit(more_x, more_y, weight)
    np.testing.assert_array_equal(weighted.predict(x), model.predict(x))


def test_weights_choose_between_two_answers():
    x = np.zeros((400, 1))
    x[:, 0] = np.arange(400) % 7
    y = np.repeat([0.0, 1.0], 200) + 0.1 * np.random.default_rng(0).normal(size=400)
    weight = np.repeat([9.0, 1.0], 200)
    model = ConditionalDensityEstimator(**QUICK).fit(x, y, weight)
    assert model.cdf(x, np.full(400, 0.5)).mean() == pytest.approx(0.9, abs=0.04)


def test_pickles_copies_and_folders_predict_the_same(fitted, high, tmp_path):
    for model, x, y in (fitted, high):
        expected = model.score_samples(x[:40], y[:40])
        joblib.dump(model, tmp_path / "model.joblib")
        model.save(tmp_path / "folder")
        for other in (
            pickle.loads(pickle.dumps(model)),  # noqa: S301 - our own bytes
            joblib.load(tmp_path / "model.joblib"),
            ConditionalDensityEstimator.load(tmp_path / "folder"),
        ):
            np.testing.assert_array_equal(other.score_samples(x[:40], y[:40]), expected)
            assert other.get_params() == model.get_params()
            assert other.held_out_score_ == model.held_out_score_


def test_a_loaded_model_still_knows_its_columns(high, tmp_path):
    model, table, _ = high
    model.save(tmp_path / "run")
    loaded = ConditionalDensityEstimator.load(str(tmp_path / "run"))
    assert list(loaded.feature_names_in_) == ["x", "k"]
    with pytest.raises(InputError, match="same order"):
        loaded.predict(table[["k", "x"]])


def test_high_effort_gives_one_mixture_that_integrates_to_one(high):
    model, table, y = high
    assert len(model.model_.experts) > 1
    assert sum(model.model_.weights) == pytest.approx(1)
    q = model.predict_distribution(table[:5])
    assert isinstance(q, GaussianMixture)
    assert q.batch_shape == (5,)
    grid = np.linspace(-15, 17, 20001)
    density = q.log_prob(torch.from_numpy(grid)[:, None, None]).exp().numpy()
    np.testing.assert_allclose(integrate.trapezoid(density, grid, axis=0), 1, atol=1e-5)
    assert model.score(table, y) > stats.norm.logpdf(y, y.mean(), y.std()).mean() + 0.5


def test_high_effort_takes_two_targets(pair):
    _, x, y = pair
    model = ConditionalDensityEstimator(effort="high", max_epochs=5, random_state=0)
    assert model.fit(x[:80], y[:80]).predict_quantiles(x[:4], [0.5]).shape == (4, 1, 2)


def test_grid_search_picks_the_higher_log_density(pair):
    _, x, y = pair
    search = GridSearchCV(
        ConditionalDensityEstimator(**QUICK), {"variance_floor": [1e-3, 1.0]}, cv=2
    ).fit(x, y[:, 0])
    assert search.best_params_ == {"variance_floor": 1e-3}
    assert search.best_score_ == max(search.cv_results_["mean_test_score"])
    floor = search.best_estimator_.predict_distribution(x).component_variance.min()
    assert floor >= 1e-3


def test_pipelines_clones_and_cross_validation(pair):
    _, x, y = pair
    pipe = make_pipeline(StandardScaler(), ConditionalDensityEstimator(**QUICK))
    scores = cross_val_score(clone(pipe), x, y, cv=2)
    assert (scores > -7).all()
    assert pipe.fit(x, y).predict(x).shape == (300, 2)
    assert not hasattr(clone(pipe[-1]), "model_")


def test_weights_reach_fit_and_score_by_scikit_learns_routing(pair):
    _, x, y = pair
    weight = np.random.default_rng(0).uniform(0.1, 3, 300)
    quick = {**QUICK, "max_epochs": 5}
    with config_context(enable_metadata_routing=True):
        model = ConditionalDensityEstimator(**quick)
        model.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        search = GridSearchCV(make_pipeline(scaler, model), {}, cv=2)
        search.fit(x, y, sample_weight=weight)
    scaled = StandardScaler().fit_transform(x)
    direct = ConditionalDensityEstimator(**quick).fit(scaled, y, weight)
    np.testing.assert_allclose(search.predict(x), direct.predict(scaled))
    assert not np.allclose(
        direct.predict(scaled), ConditionalDensityEstimator(**quick).fit(scaled, y).predict(scaled)
    )


def test_frames_of_targets_and_a_column_of_one(pair):
    _, x, y = pair
    frame = pd.DataFrame(y, columns=["a", "b"])
    model = ConditionalDensityEstimator(max_epochs=2, random_state=0)
    assert model.fit(x, frame).predict(x).shape == (300, 2)
    assert model.fit(x, frame[["a"]]).predict(x).shape == (300,)
    assert model.fit(x, frame["a"].astype("Float64")).predict(x).shape == (300,)


def test_a_discrete_target_stops_at_the_variance_of_rounding(pair):
    _, x, y = pair
    model = ConditionalDensityEstimator(**QUICK).fit(x, np.round(2 * y[:, 0]).clip(-3, 3))
    assert model.variance_floor_ == pytest.approx(1 / 12)
    assert model.predict_distribution(x).component_variance.min() >= 1 / 12 - 1e-9


@pytest.mark.parametrize("effort", ["default", "high"])
def test_constant_columns_leave_the_marginal_density(effort):
    y = np.random.default_rng(0).normal(size=200)
    model = ConditionalDensityEstimator(effort=effort, **QUICK).fit(np.ones((200, 2)), y)
    assert model.score(np.ones((200, 2)), y) == pytest.approx(stats.norm.logpdf(y).mean(), abs=0.1)


def test_it_is_quiet_unless_asked(pair, capsys):
    _, x, y = pair
    ConditionalDensityEstimator(max_epochs=1, random_state=0).fit(x, y)
    assert capsys.readouterr() == ("", "")
    ConditionalDensityEstimator(max_epochs=1, random_state=0, verbose=1).fit(x, y)
    caught = capsys.readouterr()
    assert caught.out == ""
    assert re.match(r"fitting: [\d,]+ steps\n", caught.err)


def test_without_targets_the_samples_are_scored_by_the_models_own_expectation(fitted):
    model, x, _ = fitted
    grid = np.linspace(200, 800, 8001)
    log_density = model.predict_distribution(x[:4]).log_prob(torch.from_numpy(grid)[:, None, None])
    expected = np.log(integrate.trapezoid((2 * log_density).exp().numpy(), grid, axis=0))
    np.testing.assert_allclose(model.score_samples(x[:4]), expected, atol=1e-6)


def test_polars_frames_predict_as_pandas_frames_do(pair):
    polars = pytest.importorskip("polars", reason="install polars to run this")
    _, x, y = pair
    table = pd.DataFrame({"a": x[:, 0], "b": np.where(x[:, 1] > 0, "u", "v")})
    expected = ConditionalDensityEstimator(max_epochs=2, random_state=0).fit(table, y)
    other = polars.DataFrame({name: table[name].to_list() for name in table})
    model = ConditionalDensityEstimator(max_epochs=2, random_state=0)
    model.fit(other, polars.DataFrame(y, schema=["s", "t"]))
    np.testing.assert_array_equal(model.predict(other), expected.predict(table))
    assert model.fit(other, polars.Series(y[:, 0])).predict(other).shape == (300,)
    with pytest.raises(InputError, match="same order"):
        model.predict(other[["b", "a"]])
    with pytest.raises(InputError, match="categories or texts"):
        model.fit(other, other["b"].cast(polars.Categorical))
