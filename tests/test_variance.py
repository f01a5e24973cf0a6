"""Variances: the median against numpy, schedules, and what users may write."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from hilbound.config import RunConfig
from hilbound.errors import InputError
from hilbound.variance import (
    METHODS,
    VarianceSchedule,
    choose,
    half_rank_variance,
    median_variance,
    parse_variance,
    rank_variance,
    silverman_variance,
)

X = torch.tensor([[0.0], [1.0], [3.0]])  # its median variance is 2


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@given(seed=st.integers(0, 1000), n=st.integers(2, 30), d=st.integers(1, 8))
def test_the_median_is_numpys(seed, n, d):
    x = torch.randn(n, d, generator=seeded(seed), dtype=torch.float64)
    squares = pdist(x.numpy(), "sqeuclidean")
    # Of an even number of pairs it is the lower of both in the middle.
    expected = 0.5 * np.quantile(squares, 0.5, method="lower")
    assert median_variance(x) == pytest.approx(expected, rel=1e-10)
    if len(squares) % 2:
        assert expected == 0.5 * np.median(squares)


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("d", [1, 784])
def test_the_median_in_float32(offset, d):
    x = torch.randn(51, d, generator=seeded(0)) + offset
    squares = pdist(x.double().numpy(), "sqeuclidean")
    expected = 0.5 * np.quantile(squares, 0.5, method="lower")
    assert median_variance(x) == pytest.approx(expected, rel=1e-6)


def test_the_kernel_of_a_typical_pair_is_one_over_e():
    x = torch.randn(41, 3, generator=seeded(1), dtype=torch.float64)
    kernel = np.exp(-pdist(x.numpy(), "sqeuclidean") / (2 * median_variance(x)))
    assert np.median(kernel) == pytest.approx(math.exp(-1), rel=1e-2)


def test_a_subset_stands_for_many_points():
    x = torch.randn(3000, 2, generator=seeded(0), dtype=torch.float64)
    whole = median_variance(x, samples=3000)
    part = [median_variance(x, samples=300, generator=seeded(i)) for i in (1, 1, 2)]
    assert part[0] == part[1] != part[2]
    # The squared distances of 300 points spread like those of 300 draws: 10 % is four deviations.
    assert part[0] == pytest.approx(whole, rel=0.1)
    assert part[2] == pytest.approx(whole, rel=0.1)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    median_variance(torch.arange(50.0).unsqueeze(-1), samples=10, generator=seeded(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("n", [0, 1])
def test_one_point_has_no_distance(n):
    with pytest.raises(InputError, match=f"x must have at least 2 rows.*got {n}"):
        median_variance(torch.zeros(n, 2))


@pytest.mark.parametrize("apart", [0, 1])
def test_points_that_coincide_have_no_scale(apart):
    # Three of four equal points: half of the six pairs coincide.
    x = torch.tensor([[0.0], [0.0], [0.0], [float(apart)]])
    with pytest.raises(InputError, match=r"median distance of zero.*give the variance as a number"):
        median_variance(x)


def test_less_than_half_of_the_pairs_may_coincide():
    assert median_variance(torch.tensor([[0.0], [0.0], [2.0]])) == 2.0


@pytest.mark.parametrize(("start", "end"), [(100.0, 1.0), (1e-4, 1e4), (0.3, 0.3)])
def test_schedules_go_from_start_to_end(start, end):
    schedule = VarianceSchedule(start, end)
    assert schedule.at(0.0) == pytest.approx(start, rel=1e-12)
    assert schedule.at(1.0) == pytest.approx(end, rel=1e-12)
    assert schedule.at(0.5) == pytest.approx(math.sqrt(start * end), rel=1e-12)
    assert schedule.constant is (start == end)


def test_schedules_are_geometric_and_stay_within_their_ends():
    schedule = VarianceSchedule(8.0, 0.5)
    path = [schedule.at(i / 8) for i in range(9)]
    ratios = [b / a for a, b in pairwise(path)]
    assert ratios == pytest.approx([ratios[0]] * 8)
    assert ratios[0] < 1
    assert schedule.at(-3.0) == pytest.approx(8.0)
    assert schedule.at(7.0) == pytest.approx(0.5)


def test_a_constant_is_exact():
    assert VarianceSchedule(0.1, 0.1).at(0.7) == 0.1


@pytest.mark.parametrize(
    ("specification", "start", "end"),
    [
        (0.5, 0.5, 0.5),
        (3, 3.0, 3.0),
        ("0.5", 0.5, 0.5),
        (".5", 0.5, 0.5),
        ("1e-3", 1e-3, 1e-3),
        (1e-7, 1e-7, 1e-7),
        ("2.5E+2", 250.0, 250.0),
        ("median", 2.0, 2.0),
        (" median ", 2.0, 2.0),
        ("0.25*median", 0.5, 0.5),
        ("0.25 * median", 0.5, 0.5),
        ("2*median:0.5*median", 4.0, 1.0),
        ("median : 0.1", 2.0, 0.1),
        ("9:1e-1", 9.0, 0.1),
        ("median/dim", 2.0, 2.0),
    ],
)
def test_what_users_may_write(specification, start, end):
    schedule = parse_variance(specification, X)
    assert (schedule.start, schedule.end) == pytest.approx((start, end))


@pytest.mark.parametrize(
    "specification",
    [
        "",
        "medium",
        "MEDIAN",
        "-1",
        -1.0,
        "1:2:3",
        "1:",
        ":1",
        "median*2",
        "1,5",
        "median/2",
        "0.5/dim",
        "median/dim/dim",
        "nan",
        "inf",
        "٣",
    ],
)
def test_what_is_not_a_variance(specification):
    with pytest.raises(InputError, match="variance must be a positive number, 'median'") as error:
        parse_variance(specification, X)
    assert str(error.value).endswith(f"got {specification!r}")


@pytest.mark.parametrize("specification", [0, "0", "0*median", "1:0", "0.0:1", "1e999"])
def test_variances_that_are_not_positive_and_finite(specification):
    with pytest.raises(InputError, match="variance must be positive and finite, got"):
        parse_variance(specification, X)


def test_rows_whose_squares_no_float_holds_are_named_and_not_the_rule():
    x = 1e25 * X
    with pytest.raises(InputError, match=r"for rows with values up to \S+e.25, whose squares"):
        parse_variance("0.5*median", x.float())


def test_numbers_need_no_points():
    assert parse_variance("0.5:0.1", torch.zeros(0, 2)).end == 0.1
    with pytest.raises(InputError, match="at least 2 rows"):
        parse_variance("median", torch.zeros(0, 2))


def test_the_generator_reaches_the_median():
    x = torch.randn(2100, 1, generator=seeded(0), dtype=torch.float64)
    values = {parse_variance("median", x, seeded(i)).start for i in (1, 1, 2)}
    assert len(values) == 2


@pytest.mark.parametrize(("ends", "text"), [((0.5, 0.5), "0.5"), ((4.0, 1 / 3), "4 to 0.3333")])
def test_text(ends, text):
    assert str(VarianceSchedule(*ends)) == text


@pytest.mark.parametrize(
    ("specification", "start", "end"),
    [
        ("median/dim", 1 / 8, 1 / 8),
        ("median / dim", 1 / 8, 1 / 8),
        ("0.5*median/dim", 0.5 / 8, 0.5 / 8),
        ("median:3*median/dim", 1, 3 / 8),
        ("median/dim:0.1", 1 / 8, 0.1),
        ("0.5*median", 0.5, 0.5),
    ],
)
def test_the_share_of_one_coordinate(specification, start, end):
    """In units of the median variance, of points in eight dimensions."""
    x = torch.randn(31, 8, generator=seeded(0), dtype=torch.float64)
    median = 0.5 * np.median(pdist(x.numpy(), "sqeuclidean"))
    schedule = parse_variance(specification, x)
    ends = (0.1 if v == 0.1 else v * median for v in (start, end))
    assert (schedule.start, schedule.end) == pytest.approx(tuple(ends), rel=1e-9)


def test_choose_knows_every_rule():
    x = torch.randn(300, 2, generator=seeded(0))
    expected = {
        "rank": rank_variance(x, generator=seeded(1)),
        "median": median_variance(x, generator=seeded(1)),
        "silverman": silverman_variance(x),
        "half-rank": half_rank_variance(x, generator=seeded(1)),
    }
    assert {method: choose(x, method, seeded(1)) for method in METHODS} == expected
    assert len(set(expected.values())) == len(expected)
    assert choose(x, generator=seeded(1)) == expected["rank"]


def test_unknown_rules_are_refused():
    with pytest.raises(InputError, match=r"unknown method of .* 'medain': did you mean 'median'"):
        choose(X, "medain")


@pytest.mark.parametrize("method", METHODS)
def test_users_may_write_every_rule(method):
    x = torch.randn(300, 4, generator=seeded(0))
    v = choose(x, method, seeded(1))
    assert parse_variance(method, x, seeded(1)).start == v
    schedule = parse_variance(f"2*{method} : {method}/dim", x, seeded(1))
    assert (schedule.start, schedule.end) == pytest.approx((2 * v, v / 4))


def test_a_schedule_may_go_from_one_rule_to_another():
    x = torch.randn(100, 2, generator=seeded(0))
    schedule = parse_variance("median:0.5*silverman", x)
    assert schedule.start == median_variance(x)
    assert schedule.end == pytest.approx(0.5 * silverman_variance(x))


@pytest.mark.parametrize("specification", ["ranks", "half-median", "rank*2", "half", "-rank"])
def test_what_is_no_rule_is_told_which_there_are(specification):
    with pytest.raises(InputError, match="another of rank, median, silverman, half-rank"):
        parse_variance(specification, X)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "x", [torch.full((20, 2), math.nan), torch.zeros(20), torch.arange(40).reshape(20, 2)]
)
def test_what_are_no_points_is_refused_by_every_rule(method, x):
    with pytest.raises(InputError, match=r"^x must "):
        choose(x, method)
    with pytest.raises(InputError, match=r"^x must "):
        parse_variance(method, x)


def test_the_defaults_are_those_that_the_texts_name():
    x = torch.randn(50, 2, generator=seeded(0))
    assert choose(x) == choose(x, "rank")
    assert RunConfig.model_fields["variance"].default == "median"
