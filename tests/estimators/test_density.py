"""Densities of tables, proven from outside: quadrature, closed forms, scikit-learn's own checks."""

import pickle
from functools import cache

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.base import clone
from sklearn.mixture import GaussianMixture as Reference
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from hilbound.errors import DataError, InputError
from hilbound.estimators import MixtureAutoencoder, MixtureDensityEstimator
from hilbound.mixture import FullGaussianMixture, GaussianMixture


def two_clusters(n=300, seed=0):
    """Two clusters in very different units."""
    rng = np.random.RandomState(seed)
    z = rng.randn(n, 2) @ np.array([[1.0, 0.8], [0.0, 0.6]]) + 5 * rng.randint(0, 2, (n, 1))
    return z * [1e-4, 1e5] + [3.0, -7e6]


@cache
def fitted(**options):
    return MixtureDensityEstimator(random_state=0, **options).fit(two_clusters())


@parametrize_with_checks([MixtureDensityEstimator(random_state=0)])
def test_scikit_learn_accepts_the_estimator(estimator, check):
    check(estimator)


@pytest.mark.parametrize("n_components", [None, 2])
@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_the_density_integrates_to_one_in_the_units_of_the_columns(n_components, covariance):
    q = fitted(n_components=n_components, covariance=covariance)
    x = two_clusters()
    low, high = x.min(0), x.max(0)
    margin = (high - low) / 2
    axes = list(np.linspace(low - margin, high + margin, 250).T)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    assert np.exp(q.score_samples(grid)).sum() * cell == pytest.approx(1, abs=2e-3)


def test_the_density_of_one_known_column_integrates_to_one():
    q = fitted()
    x = two_clusters()[:, 1]
    axis = np.linspace(2 * x.min() - x.max(), 2 * x.max() - x.min(), 4000)
    rows = np.column_stack([np.full_like(axis, np.nan), axis])
    density = np.exp(q.score_samples(rows))
    assert np.trapezoid(density, axis) == pytest.approx(1, abs=1e-4)
    mixture = q.marginal([1])
    np.testing.assert_allclose(density, mixture.log_prob(torch.tensor(axis)[:, None]).exp())


@pytest.mark.parametrize("covariance", ["auto", "diagonal"])
def test_the_mixture_is_what_score_samples_says(covariance):
    q, x = fitted(covariance=covariance), two_clusters(seed=1)
    assert isinstance(
        q.mixture_, GaussianMixture if covariance == "diagonal" else FullGaussianMixture
    )
    assert q.mixture_.components == q.n_components_
    np.testing.assert_allclose(q.score_samples(x), q.mixture_.log_prob(torch.tensor(x)), atol=1e-6)
    assert q.score(x) == pytest.approx(q.score_samples(x).mean())
    assert sum(q.members_.values()) == pytest.approx(1)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_conditions_are_ratios_of_densities(covariance):
    q = fitted(covariance=covariance)
    x = two_clusters(seed=1)[:5]
    conditional = q.condition([0], x[:, :1])
    assert conditional.batch_shape == (5,)
    expected = q.score_samples(x) - q.score_samples(np.column_stack([x[:, 0], [np.nan] * 5]))
    np.testing.assert_allclose(conditional.log_prob(torch.tensor(x[:, 1:])), expected, atol=1e-5)


def test_one_gaussian_has_the_closed_forms():
    x = two_clusters()[:, :2]
    x[:, 1] /= 1e5
    q = MixtureDensityEstimator(1, covariance="full", random_state=0).fit(x)
    mean, covariance = q.mixture_.mean.numpy(), q.mixture_.covariance.numpy()
    np.testing.assert_allclose(mean, x.mean(0))
    np.testing.assert_allclose(covariance, np.cov(x.T, bias=True), rtol=0.02)
    exact = multivariate_normal(mean, covariance)
    np.testing.assert_allclose(q.score_samples(x), exact.logpdf(x))
    given = x[0, 0]
    rest = q.condition([0], [given])
    slope = covariance[0, 1] / covariance[0, 0]
    np.testing.assert_allclose(rest.mean, mean[1:] + slope * (given - mean[0]))
    np.testing.assert_allclose(rest.variance, covariance[1, 1] - slope * covariance[0, 1])
    np.testing.assert_allclose(q.marginal([1]).variance, covariance[1, 1])


def test_densities_follow_a_change_of_units():
    x = two_clusters()
    plain = fitted().score_samples(x)
    other = MixtureDensityEstimator(random_state=0).fit(8 * x + 2)
    np.testing.assert_allclose(other.score_samples(8 * x + 2), plain - 2 * np.log(8), atol=1e-5)


def test_held_out_rows_are_predicted_at_least_as_well_as_by_scikit_learn():
    rng = np.random.RandomState(0)
    angle, noise = rng.uniform(0, 2 * np.pi, 800), 0.1 * rng.randn(800, 2)
    x = np.column_stack([np.cos(angle), np.sin(angle)]) + noise
    train, test = x[:400], x[400:]
    best = max(
        GridSearchCV(model, grid, cv=5).fit(train).score(test) / scale
        for model, grid, scale in (
            (Reference(random_state=0, n_init=2), {"n_components": [2, 4, 8, 12, 16]}, 1),
            (KernelDensity(), {"bandwidth": np.geomspace(0.03, 1, 15)}, len(test)),
        )
    )
    assert MixtureDensityEstimator(random_state=0).fit(train).score(test) > best - 0.01


def test_heavy_tails_cost_a_bounded_price():
    """A row far outside: one Gaussian pays the square of its distance."""
    x = np.random.RandomState(0).standard_t(2, (400, 2))
    q = MixtureDensityEstimator(random_state=0).fit(x[:300])
    one = Reference(1).fit(x[:300])
    assert q.score(x[300:]) > one.score(x[300:]) + 0.2


def test_the_known_density_is_approached_with_more_rows():
    def hellinger(n):
        rng = np.random.RandomState(1)
        x = np.where(rng.rand(n) < 0.3, rng.randn(n) - 2, 0.5 * rng.randn(n) + 1)[:, None]
        q = MixtureDensityEstimator(random_state=0).fit(x)
        axis = np.linspace(-8, 6, 3000)
        true = 0.3 * norm(-2, 1).pdf(axis) + 0.7 * norm(1, 0.5).pdf(axis)
        root = np.sqrt(true * np.exp(q.score_samples(axis[:, None])))
        return 1 - np.trapezoid(root, axis)

    few, many = hellinger(50), hellinger(1000)
    assert many < few / 2
    assert many < 0.005


def test_missing_values_are_better_left_out_than_imputed():
    rng = np.random.RandomState(0)
    x = two_clusters(200)
    gaps = x.copy()
    gaps[rng.rand(*x.shape) < 0.4] = np.nan
    gaps[0] = np.nan
    q = MixtureDensityEstimator(2, random_state=0).fit(gaps)
    imputed = np.where(np.isnan(gaps), np.nanmean(gaps, 0), gaps)
    other = MixtureDensityEstimator(2, random_state=0).fit(imputed)
    test = two_clusters(300, seed=1)
    assert q.score(test) > other.score(test) + 0.3
    assert q.score_samples(gaps[:1])[0] == pytest.approx(0, abs=1e-12)


def test_constant_discrete_and_repeated_columns_have_a_density():
    rng = np.random.RandomState(0)
    x = np.column_stack([rng.randint(0, 3, 200), np.full(200, 7.3), rng.randn(200)]).astype(float)
    x = np.repeat(x[:100], 2, axis=0)
    q = MixtureDensityEstimator(random_state=0, min_variance=1e-4).fit(x)
    assert np.isfinite(q.score_samples(x)).all()
    assert q.scale_[1] == 1
    # No component is narrower than what is stated.
    units = torch.from_numpy(np.outer(q.scale_, q.scale_))
    least = torch.linalg.eigvalsh(q.mixture_.component_covariance / units)
    assert float(least.min()) > 0.999e-4


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("n_components", [None, 5])
def test_few_rows_are_enough(n, n_components):
    x = two_clusters()[:n]
    q = MixtureDensityEstimator(n_components, random_state=0).fit(x)
    assert np.isfinite(q.score_samples(two_clusters()[:10])).all()
    assert q.sample(3, random_state=0).shape == (3, 2)
    if n_components:
        assert q.n_components_ <= n


@pytest.mark.parametrize("options", [{}, {"n_components": 3}, {"covariance": "diagonal"}])
def test_a_least_variance_that_is_not_needed_costs_nothing(options):
    """It is a floor, and not added to what the rows have."""
    x, new = two_clusters(), two_clusters(seed=1)
    free = MixtureDensityEstimator(random_state=0, **options).fit(x)
    floored = MixtureDensityEstimator(random_state=0, min_variance=1e-3, **options).fit(x)
    assert floored.score(new) == pytest.approx(free.score(new), abs=0.03)


@pytest.mark.parametrize("options", [{}, {"n_components": 2, "objective": "scalar"}])
def test_progress_is_told_to_those_who_ask(capsys, options):
    x = two_clusters(60)
    MixtureDensityEstimator(random_state=0, **options).fit(x)
    assert capsys.readouterr() == ("", "")
    MixtureDensityEstimator(random_state=0, verbose=1, **options).fit(x)
    assert capsys.readouterr() == ("", "fitting: 6 steps\n")


def test_equal_rows_are_a_narrow_gaussian():
    q = MixtureDensityEstimator(random_state=0).fit(np.ones((20, 2)))
    assert q.score([[1.0, 1.0]]) > q.score([[1.1, 1.0]]) + 10


def test_samples_follow_the_density():
    q = fitted()
    rows = q.sample(20_000, random_state=1)
    np.testing.assert_array_equal(rows, q.sample(20_000, random_state=1))
    assert not np.array_equal(rows, q.sample(20_000, random_state=2))
    np.testing.assert_array_equal(q.sample(5), q.sample(5))  # the estimator's own seed
    error = (rows.mean(0) - q.mixture_.mean.numpy()) / (rows.std(0) / np.sqrt(len(rows)))
    assert np.abs(error).max() < 4


@pytest.mark.parametrize(
    ("objective", "covariance"),
    [
        ("scalar", "full"),
        ("scalar", "diagonal"),
        ("vector", "auto"),
        ("nuclear", "diagonal"),
    ],
)
def test_gradient_steps_raise_the_objective_on_held_out_rows(objective, covariance):
    x = two_clusters()
    options = {"covariance": covariance, "random_state": 0}
    q = MixtureDensityEstimator(2, objective=objective, **options).fit(x)
    ascent = q._held_back.ascent
    assert ascent.steps == q.polish_steps_
    assert ascent.after >= ascent.before
    assert q.n_components_ == 2
    if objective == "scalar" and q.polish_steps_:
        # What was climbed is what the bound reports: same rows, same kernel.
        assert float(q.bound_.log_value) == pytest.approx(ascent.after, abs=1e-6)


def test_the_bound_is_a_bound_and_tight_for_a_good_model():
    for options in ({}, {"n_components": 2}, {"covariance": "diagonal"}):
        assert 0 < float(fitted(**options).bound_.tightness) <= 1
    x = np.random.RandomState(0).randn(3000, 1)
    assert float(MixtureDensityEstimator(1, random_state=0).fit(x).bound_.tightness) > 0.97
    bimodal = np.sign(x) * 5 + x
    assert float(MixtureDensityEstimator(1, random_state=0).fit(bimodal).bound_.tightness) < 0.7


def test_there_is_no_bound_where_every_row_has_a_gap():
    x = two_clusters()
    x[::2, 0] = np.nan
    x[1::2, 1] = np.nan
    assert MixtureDensityEstimator(2, random_state=0).fit(x).bound_ is None


def test_a_seed_repeats_every_bit_and_no_global_state_moves():
    x = two_clusters()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - to see it stay
    first, second = (MixtureDensityEstimator(random_state=3).fit(x) for _ in range(2))
    np.testing.assert_array_equal(first.score_samples(x), second.score_samples(x))
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("options", [{}, {"n_components": 2, "objective": "scalar"}])
def test_save_load_pickle_and_joblib_keep_every_bit(tmp_path, options):
    frame = pd.DataFrame(two_clusters(), columns=["width", "<script>"])
    q = MixtureDensityEstimator(random_state=np.int64(0), **options).fit(frame)
    q.save(tmp_path / "q.safetensors")
    joblib.dump(q, tmp_path / "q.joblib")
    others = (
        MixtureDensityEstimator.load(tmp_path / "q.safetensors"),
        pickle.loads(pickle.dumps(q)),  # noqa: S301 - our own bytes
        joblib.load(tmp_path / "q.joblib"),
    )
    for other in others:
        np.testing.assert_array_equal(other.score_samples(frame), q.score_samples(frame))
        np.testing.assert_array_equal(other.sample(4), q.sample(4))
        assert other.get_params() == q.get_params()
        assert list(other.feature_names_in_) == ["width", "<script>"]
        assert (other.members_, other.n_components_) == (q.members_, q.n_components_)
        assert other.polish_steps_ == q.polish_steps_
        assert float(other.bound_.gap) == float(q.bound_.gap)
    others[0].save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "q.safetensors").read_bytes()


def test_another_estimators_file_is_refused(tmp_path):
    class Other(MixtureDensityEstimator):
        pass

    fitted().save(tmp_path / "q")
    with pytest.raises(DataError, match="holds a MixtureDensityEstimator: load it with that class"):
        Other.load(tmp_path / "q")


def test_it_works_inside_scikit_learns_tools():
    x = two_clusters(120)
    search = GridSearchCV(MixtureDensityEstimator(random_state=0), {"n_components": [1, 2]}, cv=3)
    assert search.fit(x).best_params_ == {"n_components": 2}
    scores = cross_val_score(clone(search.best_estimator_), x, cv=3)
    assert scores.shape == (3,)
    pipeline = make_pipeline(StandardScaler(), MixtureDensityEstimator(2, random_state=0)).fit(x)
    assert np.isfinite(pipeline.score(x))


def test_columns_are_known_by_name_and_by_position():
    frame = pd.DataFrame(two_clusters(), columns=["width", "price"])
    q = MixtureDensityEstimator(2, random_state=0).fit(frame)
    for column in ("price", 1, -1, np.int64(1)):
        torch.testing.assert_close(q.marginal([column]).mean, q.mixture_.mean[1:])
    value = frame["width"][0]
    a, b = q.condition(["width"], [value]), q.condition([0], [value])
    torch.testing.assert_close(a.mean, b.mean)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q: q.marginal(["weight"]), "got 'weight': give one of 'width', 'price'"),
        (
            lambda q: q.marginal("width"),
            r"columns must be a list .* got 'width': write \['width'\]",
        ),
        (lambda q: q.marginal([2]), "columns must be names, or positions from 0 to 1, got 2"),
        (lambda q: q.marginal([0.5]), "columns must be names, or positions from 0 to 1, got 0.5"),
        (lambda q: q.condition(["price"], [np.nan]), "values must be finite, got NaN .* leave out"),
        (lambda q: q.sample(0), "n_samples must be a whole number above zero, got 0"),
        (lambda q: q.sample(2.5), "n_samples must be a whole number above zero, got 2.5"),
    ],
)
def test_wrong_arguments_are_named_with_what_to_do(call, message):
    frame = pd.DataFrame(two_clusters(), columns=["width", "price"])
    q = MixtureDensityEstimator(1, random_state=0).fit(frame)
    with pytest.raises(InputError, match=message):
        call(q)


def test_positions_are_asked_for_where_there_are_no_names():
    with pytest.raises(InputError, match="give a position: X had no names"):
        fitted().marginal(["width"])


def test_a_column_without_values_is_named():
    frame = pd.DataFrame({"a": [1.0, 2.0], "empty": [np.nan, np.nan]})
    with pytest.raises(InputError, match="only missing ones in column 'empty': drop"):
        MixtureDensityEstimator().fit(frame)
    with pytest.raises(InputError, match="only missing ones in column 1: drop"):
        MixtureDensityEstimator().fit(frame.to_numpy())


@pytest.mark.parametrize("estimator", [MixtureDensityEstimator(1), MixtureAutoencoder(1)])
@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["a", "b"], "column '<b>' holds texts such as 'a'.*encode it"),
        (
            pd.Series(["a", "b"], dtype="category"),
            "column '<b>' holds texts such as 'a'.*encode it",
        ),
        (
            pd.to_datetime(["2020-01-01", "2020-01-02"]),
            "column '<b>' holds dates or times.*replace it",
        ),
        ([np.inf, 1.0], "column '<b>' holds infinity, first in row 0"),
    ],
)
def test_columns_that_are_no_numbers_are_named(estimator, column, message):
    frame = pd.DataFrame({"fine": [1, 2], "<b>": column})
    with pytest.raises(InputError, match=message):
        estimator.fit(frame)


def test_two_columns_of_one_name_are_refused():
    frame = pd.DataFrame(np.eye(3), columns=["a", "b", "a"])
    with pytest.raises(InputError, match=r"several columns named 'a'.*rename"):
        MixtureDensityEstimator(1).fit(frame)


def test_nullable_columns_are_numbers_with_gaps():
    frame = pd.DataFrame(two_clusters(50), columns=["a", "b"])
    frame.iloc[0, 0] = np.nan
    q = MixtureDensityEstimator(1, random_state=0)
    expected = q.fit(frame).score_samples(frame)
    np.testing.assert_array_equal(q.fit(frame.convert_dtypes()).score_samples(frame), expected)


def test_an_objective_that_cannot_be_had_is_refused_with_alternatives():
    q = MixtureDensityEstimator(objective="nuclear", covariance="full")
    with pytest.raises(InputError, match="got covariance='full': use covariance='diagonal'"):
        q.fit(two_clusters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.rename(columns={"price": "cost"}), "- cost"),
        (lambda x: x[["price", "width"]], "same order"),
        (lambda x: x.drop(columns="price"), "missing:\n- price"),
        (lambda x: x.assign(extra=1.0), "unseen at fit time:\n- extra"),
    ],
)
@pytest.mark.parametrize(
    "estimator", [MixtureDensityEstimator(1), MixtureAutoencoder(1, max_steps=1)]
)
def test_columns_that_are_not_those_of_fit(estimator, change, message):
    frame = pd.DataFrame(two_clusters(), columns=["width", "price"])
    q = clone(estimator).fit(frame)
    use = q.transform if isinstance(q, MixtureAutoencoder) else q.score_samples
    with pytest.raises(InputError, match=message) as caught:
        use(change(frame))
    assert "X[model.feature_names_in_]" in str(caught.value)


def test_infinities_are_refused():
    q = MixtureDensityEstimator(1, random_state=0)
    with pytest.raises(ValueError, match="infinity"):
        q.fit([[np.inf, 1.0], [0.0, 1.0]])
