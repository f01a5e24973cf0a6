"""Rules for the variance: against scipy and numpy, closed forms and laws of scale."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import gaussian_kde

from hilbound.errors import InputError
from hilbound.variance import (
    RANK,
    ROWS,
    half_rank_variance,
    median_variance,
    rank_variance,
    silverman_variance,
)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)


def rank_of(x, variance):
    """The effective rank of the Gram matrix, by numpy."""
    gram = np.exp(-cdist(x.numpy(), x.numpy(), "sqeuclidean") / (2 * variance))
    share = np.linalg.svd(gram, compute_uv=False)
    share = share[share > 0] / share.sum()
    return math.exp(-(share * np.log(share)).sum())


@given(seed=st.integers(0, 1000), n=st.integers(2, 60), d=st.integers(1, 8))
def test_silverman_is_scipys_bandwidth_for_data_and_model(seed, n, d):
    x = normal(n, d, seed)
    factor = gaussian_kde(normal(n + d, d).numpy().T).silverman_factor() if n + d > d + 1 else 1
    # Scipy's factor is of standard deviations, for as many points as it was given.
    points = n + d
    h_squared = factor**2 * (points / n) ** (2 / (d + 4)) * x.numpy().var(0, ddof=1).mean()
    assert silverman_variance(x) == pytest.approx(2 * h_squared, rel=1e-9)


@given(
    seed=st.integers(0, 1000),
    n=st.integers(8, 40),
    d=st.integers(1, 5),
    share=st.floats(0.05, 0.9),
)
def test_the_gram_matrix_has_the_rank_that_was_asked_for(seed, n, d, share):
    x = normal(n, d, seed)
    rank = 1 + share * (n - 1)
    # A thousandth of the variance changes the rank by less than as much.
    assert rank_of(x, rank_variance(x, rank)) == pytest.approx(rank, rel=1e-3)


def test_the_default_rank_is_reached_and_half_means_half():
    x = normal(100, 2)
    assert rank_of(x, rank_variance(x)) == pytest.approx(RANK, rel=1e-3)
    assert rank_of(x, half_rank_variance(x)) == pytest.approx(50, rel=1e-3)


def test_half_of_the_rows_that_are_looked_at():
    x = normal(1000, 2)
    few, many = half_rank_variance(x, 64, seeded(0)), half_rank_variance(x, 512, seeded(0))
    assert half_rank_variance(x, ROWS, seeded(0)) == rank_variance(x, ROWS / 2, ROWS, seeded(0))
    assert many < few / 3, "more rows are closer to one another"


def test_two_points_have_a_closed_form():
    # The kernel k of the pair gives the eigenvalues (1 + k)/2 and (1 - k)/2.
    k = 0.4
    rank = math.exp(-sum(p * math.log(p) for p in ((1 + k) / 2, (1 - k) / 2)))
    x = torch.tensor([[0.0], [3.0]], dtype=torch.float64)
    assert rank_variance(x, rank) == pytest.approx(9 / (-2 * math.log(k)), rel=1e-3)


@pytest.mark.parametrize(
    "rule", [rank_variance, half_rank_variance, median_variance, silverman_variance]
)
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_rules_are_in_squared_units_and_know_no_origin(rule, scale):
    x = normal(60, 3)
    assert rule(scale * x + 5) == pytest.approx(scale**2 * rule(x), rel=2e-3)


def test_a_rank_that_is_small_does_not_depend_on_the_rows():
    x = normal(2000, 2)
    few, many = rank_variance(x, rows=128), rank_variance(x, rows=512)
    assert few == pytest.approx(many, rel=0.25)


def test_the_generator_draws_the_rows():
    x = normal(500, 2)
    same = [rank_variance(x, generator=seeded(i)) for i in (1, 1, 2)]
    assert same[0] == same[1] != same[2]
    before = torch.get_rng_state()
    rank_variance(x, generator=seeded(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_float32_far_from_the_origin():
    x = normal(50, 2).float() + 100
    assert rank_variance(x) == pytest.approx(rank_variance(x.double()), rel=2e-3)


@pytest.mark.parametrize("rank", [1.0, 0.5, 51.0, math.nan])
def test_ranks_that_no_kernel_has(rank):
    with pytest.raises(InputError, match=r"rank must lie between 1 and 50,.*50 rows of x, got"):
        rank_variance(normal(50, 2), rank)


def test_copies_count_as_one_point():
    # Shares of 1/2, 1/4 and 1/4: an effective number of 2^1.5 points.
    x = torch.tensor([[0.0], [0.0], [1.0], [5.0]])
    with pytest.raises(
        InputError, match=r"between 1 and 2\.828, the effective number of different"
    ):
        rank_variance(x, 2.9)
    assert rank_of(x.double(), rank_variance(x, 2.5)) == pytest.approx(2.5, rel=1e-3)


def test_too_few_points_for_the_default_rank():
    with pytest.raises(InputError, match=r"between 1 and 7, .*got 8: give more rows"):
        rank_variance(normal(7, 2))


def test_points_without_spread():
    with pytest.raises(InputError, match="no spread: all points coincide"):
        silverman_variance(torch.ones(5, 2))
    with pytest.raises(InputError, match="at least 2 rows"):
        silverman_variance(torch.ones(1, 2))


RULES = [rank_variance, half_rank_variance, median_variance, silverman_variance]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_points_are_finite(rule, bad):
    x = normal(300, 2)
    x[299, 1] = bad
    with pytest.raises(InputError, match="x must be finite, but 1 of 300 rows hold NaN"):
        rule(x)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(20,), (20, 3, 2), (20, 0), ()])
def test_points_are_rows_of_a_matrix(rule, shape):
    with pytest.raises(InputError, match=r"x must have shape \(n, d\), one point in a row, got"):
        rule(torch.ones(shape))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_points_are_floating(rule, dtype):
    with pytest.raises(InputError, match=rf"floating-point numbers, got {dtype}: give x\.float"):
        rule(torch.arange(40).reshape(20, 2).to(dtype))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n", [0, 1])
def test_there_are_two_points(rule, n):
    with pytest.raises(InputError, match=f"x must have at least 2 rows.*got {n}"):
        rule(torch.zeros(n, 2))


@pytest.mark.parametrize(
    ("rule", "name"),
    [(rank_variance, "rows"), (half_rank_variance, "rows"), (median_variance, "samples")],
)
@pytest.mark.parametrize("size", [1, 0, -1])
def test_a_subset_has_two_points(rule, name, size):
    with pytest.raises(InputError, match=f"{name} must be at least 2, .*got {size}"):
        rule(normal(30, 2), **{name: size})


def test_the_smallest_subset_is_a_pair():
    x = normal(30, 2)
    chosen = x[torch.randperm(30, generator=seeded(3))[:2]]
    apart = float((chosen[0] - chosen[1]).square().sum())
    assert median_variance(x, 2, seeded(3)) == pytest.approx(apart / 2, rel=1e-12)


def test_half_of_too_few_points_is_said_to_be_that():
    with pytest.raises(InputError, match=r"^half of the number of rows must lie.*2 rows.*got 1:"):
        half_rank_variance(normal(2, 2))
    copies = torch.tensor([[0.0]] * 9 + [[1.0]])
    with pytest.raises(InputError, match=r"^half of the number of rows must .*1\.384.*got 5:"):
        half_rank_variance(copies)
