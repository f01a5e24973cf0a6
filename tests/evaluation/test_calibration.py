"""Scores and calibration against closed forms, quadrature and scipy."""

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from hilbound.errors import InputError
from hilbound.evaluation import calibration
from hilbound.evaluation.table_metrics import (
    LEVELS,
    SIDES,
    TABLE_METRICS,
    measure_importance,
    measure_table,
)
from hilbound.mixture import GaussianMixture

RNG = np.random.default_rng(0)


def gaussians(mean, deviation):
    means = torch.as_tensor(np.asarray(mean, dtype=float))[:, None, None]
    variance = torch.as_tensor(np.asarray(deviation, dtype=float) ** 2)[:, None, None]
    return GaussianMixture(means, variance)


@pytest.fixture
def mixtures():
    """Five mixtures of three Gaussians in two coordinates, with a target each."""
    means = torch.from_numpy(RNG.normal(size=(5, 3, 2)))
    variance = torch.from_numpy(RNG.uniform(0.2, 1.0, size=(5, 3, 2)))
    weights = torch.from_numpy(RNG.uniform(0.1, 1.0, size=(5, 3)))
    return GaussianMixture(means, variance, weights), RNG.normal(size=(5, 2))


def densities(q, i, j, x):
    """The density of coordinate j of mixture i by scipy."""
    return sum(
        w * stats.norm.pdf(x, m, np.sqrt(v))
        for w, m, v in zip(
            q.weights[i].numpy(),
            q.means[i, :, j].numpy(),
            q.component_variance[i, :, j].numpy(),
            strict=True,
        )
    )


def test_pit_values_are_integrals_of_the_density(mixtures):
    q, y = mixtures
    found = calibration.pit_values(q, y)
    for i, j in np.ndindex(y.shape):
        area, _ = integrate.quad(lambda x, i=i, j=j: densities(q, i, j, x), -20, y[i, j])
        assert found[i, j] == pytest.approx(area, abs=1e-8)


def test_log_scores_are_those_of_independent_coordinates(mixtures):
    q, y = mixtures
    one = GaussianMixture(q.means[:, :1], q.component_variance[:, :1])
    variance = q.component_variance[:, 0].numpy()
    expected = stats.norm.logpdf(y, q.means[:, 0].numpy(), np.sqrt(variance)).sum(1)
    np.testing.assert_allclose(calibration.log_scores(one, y), expected, rtol=1e-10)


def test_crps_of_a_gaussian_is_the_closed_form():
    mean, deviation = RNG.normal(size=40), RNG.uniform(0.1, 3, size=40)
    y = RNG.normal(size=40)
    z = (y - mean) / deviation
    expected = deviation * (
        z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi)
    )
    found = calibration.crps(gaussians(mean, deviation), y[:, None])[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_crps_is_the_integral_of_the_squared_error_of_the_distribution(mixtures):
    q, y = mixtures
    found = calibration.crps(q, y)
    x = np.linspace(-12, 12, 200_001)
    for i, j in np.ndindex(y.shape):
        below = integrate.cumulative_trapezoid(densities(q, i, j, x), x, initial=0)
        expected = integrate.trapezoid((below - (x >= y[i, j])) ** 2, x)
        assert found[i, j] == pytest.approx(expected, abs=2e-4)


def test_coverage_counts_central_intervals():
    mean, deviation = RNG.normal(size=2000), RNG.uniform(0.5, 2, size=2000)
    y = mean + deviation * RNG.normal(size=2000)
    pit = calibration.pit_values(gaussians(mean, deviation), y[:, None])
    found = calibration.coverage(pit, LEVELS)[:, 0]
    z = np.abs(y - mean) / deviation
    expected = [(z <= stats.norm.ppf(0.5 + level / 2)).mean() for level in LEVELS]
    np.testing.assert_allclose(found, expected)
    assert stats.kstest(pit[:, 0], "uniform").pvalue > 0.01
    narrow = calibration.pit_values(gaussians(mean, deviation / 2), y[:, None])
    assert calibration.coverage(narrow, [0.9])[0, 0] < 0.65


def test_a_value_on_the_end_of_its_interval_is_inside():
    assert calibration.coverage(np.array([[0.05], [0.95]]), [0.9]).tolist() == [[1.0]]


def test_blocks_leave_nothing_out(mixtures, monkeypatch):
    q, y = mixtures
    whole = calibration.crps(q, y)
    monkeypatch.setattr(calibration, "_NUMBERS", 18)  # two rows at a time
    np.testing.assert_array_equal(calibration.crps(q, y), whole)


def test_targets_that_are_read_only_are_taken(mixtures):
    q, y = mixtures
    y.setflags(write=False)
    for measure in (calibration.log_scores, calibration.pit_values, calibration.crps):
        assert len(measure(q, y)) == 5


def test_baselines_know_the_training_targets():
    train = RNG.gamma(2.0, size=3000)
    gaussian = calibration.one_gaussian(train, 4)
    np.testing.assert_allclose(gaussian.mean.numpy(), np.full((4, 1), train.mean()))
    np.testing.assert_allclose(gaussian.variance.numpy(), np.full((4, 1), train.var()))
    new = RNG.gamma(2.0, size=(3000, 1))
    histogram = calibration.smoothed_histogram(train, 3000)
    score = calibration.log_scores(histogram, new).mean()
    truth = stats.gamma.logpdf(new, 2.0).mean()
    assert truth - 0.05 < score < truth + 0.02
    assert score > calibration.log_scores(calibration.one_gaussian(train, 3000), new).mean()


def test_a_value_outside_the_histogram_costs_a_finite_score():
    histogram = calibration.smoothed_histogram(np.arange(100.0), 1)
    far = np.array([[300.0]])
    least = stats.norm.logpdf(300, 49.5, np.arange(100.0).std()) - np.log(101)
    assert calibration.log_scores(histogram, far)[0] == pytest.approx(least, abs=1e-6)


def test_a_histogram_of_values_most_of_which_are_equal():
    values = np.array([3.0] * 90 + [4.0] * 10)
    variance = calibration.smoothed_histogram(values, 1).component_variance
    # Between the quartiles there is nothing; the deviation is all the spread there is.
    assert float(variance.min()) == pytest.approx((0.9 * 0.3 * 100**-0.2) ** 2)


# --- importance ---------------------------------------------------------------------------------


def linear_scores(x, y):
    """Log scores of y ~ N(2 a, 1), which knows nothing of the column b."""

    def score(name, order):
        columns = {**x, name: x[name][order]}
        return stats.norm.logpdf(y, 2 * columns["a"], 1)

    return score


def test_importance_is_what_shuffling_costs(generator):
    n = 4000
    x = {"b": RNG.normal(size=n), "a": RNG.normal(size=n)}
    y = 2 * x["a"] + RNG.normal(size=n)
    found = calibration.permutation_importance(
        linear_scores(x, y), list(x), n, repeats=3, generator=generator
    )
    assert [one.name for one in found] == ["a", "b"]
    # E (2a - 2a')^2 / 2 = 4 for independent standard normal a and a'.
    assert found[0].drop == pytest.approx(4, abs=4 * found[0].error)
    assert 0.02 < found[0].error < 0.2
    assert (found[1].drop, found[1].error) == (0, 0)


def test_importance_needs_columns_and_rows(generator):
    for names, n in (([], 9), (["a"], 1)):
        score = linear_scores({"a": np.zeros(n)}, np.zeros(n))
        with pytest.raises(InputError, match="needs a column and two rows"):
            calibration.permutation_importance(score, names, n, repeats=1, generator=generator)
    assert measure_importance(lambda *_: np.zeros(1), ["a"], 1, 0) == []


def test_importance_repeats_by_its_seed():
    x = {"a": RNG.normal(size=50)}
    score = linear_scores(x, x["a"])
    assert measure_importance(score, ["a"], 50, 3) == measure_importance(score, ["a"], 50, 3)
    assert measure_importance(score, ["a"], 50, 3) != measure_importance(score, ["a"], 50, 4)


# --- together -----------------------------------------------------------------------------------


def test_what_is_measured_of_two_targets(mixtures):
    q, y = mixtures
    train = RNG.normal(size=(30, 2))
    measured = measure_table(q, y, train, ["s", "t"])
    assert measured["rows"] == 5
    assert set(measured["targets"]) == {"s", "t"}
    assert set(measured["targets"]["t"]) == set(TABLE_METRICS)
    assert all(set(entry) == set(SIDES) for entry in measured["targets"]["s"].values())
    scores = calibration.log_scores(q, y)
    assert measured["log_score"]["model"] == pytest.approx(scores.mean())
    assert measured["log_score_error"] == pytest.approx(scores.std() / np.sqrt(5))
    gaussian = stats.norm.logpdf(y, train.mean(0), train.std(0)).sum(1).mean()
    assert measured["log_score"]["gaussian"] == pytest.approx(gaussian)
    rmse = np.sqrt(np.mean((q.mean[:, 1].numpy() - y[:, 1]) ** 2))
    assert measured["targets"]["t"]["rmse"]["model"] == pytest.approx(rmse)
