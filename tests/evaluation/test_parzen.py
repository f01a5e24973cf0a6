"""Parzen windows against scikit-learn's kernel density and closed forms."""

import math

import pytest
import torch
from sklearn.neighbors import KernelDensity

from hilbound.errors import InputError
from hilbound.evaluation.parzen import fit_window, parzen_log_likelihood


def points(n, d, seed, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_likelihood_is_that_of_a_kernel_density():
    samples, test, validation = points(300, 3, 0), points(80, 3, 1), points(90, 3, 2)
    found = parzen_log_likelihood(samples, test, validation)
    kde = KernelDensity(bandwidth=math.sqrt(found.variance)).fit(samples.numpy())
    expected = kde.score_samples(test.numpy())
    assert found.log_likelihood == pytest.approx(expected.mean(), rel=1e-9)
    assert found.standard_error == pytest.approx(expected.std(ddof=1) / math.sqrt(80), rel=1e-9)


def test_no_other_window_is_likelier_on_validation():
    samples, validation = points(200, 2, 3), points(150, 2, 4)
    best = fit_window(samples, validation)

    def score(variance):
        kde = KernelDensity(bandwidth=math.sqrt(variance)).fit(samples.numpy())
        return kde.score(validation.numpy())

    assert all(score(best) >= score(best * factor) for factor in (0.5, 0.9, 0.98, 1.02, 1.1, 2.0))


def test_of_one_sample_the_window_is_the_mean_square():
    validation = points(50, 4, 5)
    expected = float(validation.square().mean())
    assert fit_window(torch.zeros(1, 4, dtype=torch.float64), validation) == pytest.approx(expected)


def test_the_window_has_the_units_of_the_data_squared():
    samples, validation = points(60, 2, 6), points(60, 2, 7)
    assert fit_window(10 * samples, 10 * validation) == pytest.approx(
        100 * fit_window(samples, validation), rel=1e-6
    )


def test_float32_in_many_dimensions():
    samples, rows = points(100, 784, 8), points(60, 784, 9)
    exact = parzen_log_likelihood(samples, rows[:30], rows[30:])
    single = parzen_log_likelihood(samples.float(), rows[:30].float(), rows[30:].float())
    assert single.log_likelihood == pytest.approx(exact.log_likelihood, rel=1e-5)


def test_copies_and_wrong_shapes_are_refused():
    samples = points(5, 2, 10)
    with pytest.raises(InputError, match="every validation point is a sample"):
        parzen_log_likelihood(samples, samples, samples)
    with pytest.raises(InputError, match="test must have as many columns as samples, 2; got 3"):
        parzen_log_likelihood(samples, points(4, 3, 11), samples)


GOOD = {"samples": points(5, 2, 10), "test": points(6, 2, 11), "validation": points(7, 2, 12)}


def with_a_hole(x, value):
    x = x.clone()
    x[3, 1] = value
    return x


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda x: x[:0], r"must have at least 1 row, got 0"),
        (lambda x: x[:, :0], r"must have shape \(n, d\)"),
        (lambda x: x[0], r"must have shape.*got \(2,\)"),
        (lambda x: x.long(), ".*got torch.int64"),
        (lambda x: with_a_hole(x, math.nan), r"must be finite, but 1 of \d rows hold NaN"),
        (lambda x: with_a_hole(x, math.inf), r"must be finite, but 1 of \d rows hold NaN"),
    ],
)
def test_points_that_cannot_be_scored_are_named(name, damage, message):
    bad = GOOD | {name: damage(GOOD[name])}
    with pytest.raises(InputError, match=f"^{name} {message}"):
        parzen_log_likelihood(**bad)
    if name != "test":
        del bad["test"]
        with pytest.raises(InputError, match=f"^{name} {message}"):
            fit_window(**bad)


def test_validation_points_are_of_the_space_of_samples():
    with pytest.raises(
        InputError, match="validation must have as many columns as samples, 2; got 1"
    ):
        fit_window(GOOD["samples"], points(4, 1, 0))


@pytest.mark.parametrize("rows", [0, -1, 2.5])
def test_the_window_needs_a_number_of_rows(rows):
    with pytest.raises(InputError, match=r"rows must be a whole number of 1 or more.*got"):
        fit_window(GOOD["samples"], GOOD["validation"], rows)


def test_only_the_first_rows_choose_the_window():
    samples, validation = GOOD["samples"], GOOD["validation"]
    assert fit_window(samples, validation, 3) == fit_window(samples, validation[:3])
    assert fit_window(samples, validation, 3) != fit_window(samples, validation)
