"""The sums behind the high-dimensional bound, against closed forms and direct summation."""

import math

import pytest
import torch

from hilbound import GaussianMixture
from hilbound.bounds import marginal_bound
from hilbound.experiments.high_dimensional_bound.experiment import EXPERIMENT, QUICK, against_oracle
from hilbound.experiments.high_dimensional_bound.page import most
from hilbound.experiments.high_dimensional_bound.settings import Source
from hilbound.experiments.high_dimensional_bound.sums import (
    Limit,
    direct_log_inner,
    error_of_one,
    error_of_rows,
    measure_bound,
    pooled_gap,
    rounding_error,
    without_own,
)


def points(n, d, seed, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_bound_is_that_of_the_library():
    x, centers, v = points(40, 3, 0), points(30, 3, 1) + 0.5, 0.4
    row = measure_bound(Limit.of(x, v), centers)
    bound = marginal_bound(GaussianMixture(x, v), GaussianMixture(centers, v))
    assert row["gap"] == pytest.approx(float(bound.gap), abs=1e-12)
    assert row["log_value"] == pytest.approx(float(bound.log_value), abs=1e-12)
    assert row["log_limit"] == pytest.approx(float(bound.log_limit), abs=1e-12)


def test_direct_sums_agree_with_the_distribution_of_torch():
    x, y, v = points(7, 4, 0, torch.float64), points(5, 4, 1, torch.float64), 0.3
    kernel = torch.distributions.MultivariateNormal(
        torch.zeros(4, dtype=torch.float64), 2 * v * torch.eye(4, dtype=torch.float64)
    )
    expected = kernel.log_prob(x[:, None] - y[None]).exp().mean().log()
    assert direct_log_inner(x, y, v) == pytest.approx(float(expected), abs=1e-12)


def test_without_own_leaves_the_pairs_of_different_components():
    x, v = points(6, 2, 3, torch.float64), 0.7
    kernel = torch.exp(-torch.cdist(x, x).square() / (4 * v)) / (4 * math.pi * v)
    others = (kernel.sum() - kernel.trace()) / 30
    log_own = -math.log(4 * math.pi * v)
    found = without_own(float(kernel.mean().log()), 6, log_own)
    assert found == pytest.approx(float(others.log()), abs=1e-12)


def test_without_own_where_there_is_nothing_else():
    assert without_own(math.log(0.25), 4, 0.0) == -math.inf
    assert math.isnan(without_own(0.0, 1, 0.0))


def test_the_unbiased_norm_has_no_bias_and_the_plain_one_has():
    # <q, q> of centres drawn from N(0, 1) in one dimension is N(0; 2 + 2v).
    v, m = 0.1, 8
    truth = 1 / math.sqrt(2 * math.pi * (2 + 2 * v))
    log_own = -0.5 * math.log(4 * math.pi * v)
    norms = [direct_log_inner(x, x, v) for x in points(4000, m, 5, torch.float64).unsqueeze(-1)]
    plain = torch.tensor(norms, dtype=torch.float64).exp()
    unbiased = torch.tensor([math.exp(without_own(a, m, log_own)) for a in norms])
    error = float(unbiased.std()) / math.sqrt(4000)
    assert abs(float(unbiased.mean()) - truth) < 4 * error
    assert float(plain.mean()) - truth > 20 * error


def test_groups_of_rows_predict_what_other_rows_do():
    centers, v, n = 0.8 * points(500, 2, 99, torch.float64) + 0.4, 0.5, 400
    gaps = [
        measure_bound(Limit.of(points(n, 2, seed, torch.float64), v), centers)["unbiased_gap"]
        for seed in range(60)
    ]
    found = float(torch.tensor(gaps).std())
    predicted = error_of_rows(points(24_000, 2, 77, torch.float64), centers, v, 60) / math.sqrt(n)
    # Deviations of 60 sets are themselves uncertain by 9 %.
    assert predicted == pytest.approx(found, rel=0.4)


def test_pooled_draws_are_averaged_before_the_logarithm():
    x, v = points(50, 2, 0, torch.float64), 0.3
    limit, draws = Limit.of(x, v), [points(20, 2, seed, torch.float64) for seed in (1, 2, 3)]
    kernels = [torch.exp(-torch.cdist(c, c).square() / (4 * v)) for c in draws]
    others = sum((k.sum() - 20) / 380 for k in kernels) / 3
    inner = sum(torch.exp(-torch.cdist(x, c).square() / (4 * v)).mean() for c in draws) / 3
    own = (torch.exp(-torch.cdist(x, x).square() / (4 * v)).sum() - 50) / 2450
    found = pooled_gap([measure_bound(limit, c) for c in draws])
    assert found == pytest.approx(float((own * others / inner**2).log()), abs=1e-10)


def test_the_error_of_one_is_that_of_a_mean():
    means = points(4000, 25, 0, torch.float64).mul(3).mean(1).tolist()
    assert error_of_one(means, 25) == pytest.approx(3, rel=0.05)


def test_the_certificate_holds_and_is_small():
    x, centers, v = points(200, 500, 0), 0.9 * points(150, 500, 1), 150.0
    found = against_oracle(x, centers, v)
    assert found["difference"] <= found["certified"] < 1e-3
    assert found["certified"] == rounding_error(x, centers, v)


def test_points_far_from_zero_are_certified_by_what_computes_them():
    x = points(50, 3, 0)
    x[0] += 3000.0  # in float32 its distances would be off by more than is harmless
    found = against_oracle(x, points(40, 3, 1), 0.5)
    assert found["difference"] <= found["certified"] < 1e-3


def test_densities_of_many_dimensions_have_no_quotient():
    few = against_oracle(points(20, 2, 0), points(20, 2, 1), 0.5)
    many = against_oracle(points(20, 784, 0), points(20, 784, 1), 100.0)
    assert few["quotient"]
    assert not many["quotient"]
    assert many["exponent_of_peak"] == pytest.approx(-392 * math.log10(400 * math.pi))
    assert math.isfinite(many["gap"])


SETTINGS = QUICK.model_copy(update={"draws": ((32, 2), (128, 1))})


def a_row(seed=0):
    """A row of the digits in which every claim holds: nearly all bias is that of own pairs."""

    def bound(centers, gap, unbiased, **more):
        gaps = {"gap": gap, "unbiased_gap": unbiased}
        return {"centers": centers, "rows": 1000, "log_limit": -4.0} | gaps | more

    limit = Limit.of(points(50, 2, 0, torch.float64), 0.3)
    few = [measure_bound(limit, points(32, 2, 10 * seed + k, torch.float64)) for k in (1, 2)]
    for b, gap in zip(few, (0.7, 0.9), strict=True):
        b |= {"gap": gap, "unbiased_gap": 0.32}
    return {
        "data": "digits",
        "all_centers": seed == 0,
        "seed": seed,
        "dim": 64,
        "rows": 1000,
        "kernel": 2.0,
        "bounds": [
            *few,
            bound(128, 0.4, 0.31),
            bound(1000, 0.3, 0.3, error=1e-6, took=2.0),
            bound(500, 0.05, 0.04, real=True, error=1e-6),
        ],
        "variances": [
            {"factor": f, "model": g, "real": r}
            for f, g, r in ((1 / 3, 0.9, 0.02), (1.0, 0.3, 0.01), (3.0, 0.1, 0.001))
        ],
        "oracle": {
            "difference": 1e-9,
            "certified": 1e-6,
            "float32_difference": 1e-3,
            "exponent": -40.0,
            "quotient": True,
        },
        "errors": {"of_row": 0.1, "of_center": 0.1},
    }


def claims_of(change=lambda _: None):
    rows = [a_row(0), a_row(1)]
    for row in rows:
        change(row)
    names = ("tractable", "exact", "negligible", "unbiased", "tells")
    return dict(zip(names, EXPERIMENT.claims(SETTINGS, rows), strict=True))


def test_claims_that_hold_give_no_reasons():
    for claim in claims_of().values():
        assert claim.holds is True
        assert claim.reason == ""


def without_a_number(row):
    row["bounds"][3]["gap"] = math.nan


def below_zero(row):
    row["bounds"][3]["gap"] = -0.001


def beyond_the_certificate(row):
    row["oracle"]["difference"] = 2e-6


def rounded_badly(row):
    row["bounds"][3]["error"] = 0.1


def still_biased(row):
    for b in row["bounds"][:2]:
        b["unbiased_gap"] = 0.7


def like_data(row):
    row["variances"][1]["real"] = 0.16


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("exact", beyond_the_certificate),
        ("negligible", rounded_badly),
        ("unbiased", still_biased),
        ("tells", like_data),
    ],
)
@pytest.mark.parametrize("only", [None, 1])
def test_claims_fail_one_by_one(name, change, only):
    """In both seeds, or in the second alone."""

    def where(row):
        if only in (None, row["seed"]):
            change(row)

    claims = claims_of(where)
    assert {n for n, claim in claims.items() if not claim.holds} == {name}


@pytest.mark.parametrize("change", [without_a_number, below_zero])
def test_a_bound_without_a_number_was_not_computed(change):
    assert claims_of(change)["tractable"].holds is False


def test_what_is_left_of_the_bias_is_within_two_standard_errors():
    def noisy(row):
        still_biased(row)
        row["errors"]["of_center"] = 3.0  # over 2 draws of 32, in two seeds: bars of 0.27

    assert claims_of(noisy)["unbiased"].holds is True


def test_a_bias_that_is_left_names_the_test():
    reason = claims_of(still_biased)["unbiased"].reason
    assert "the sums of all 2 draws are averaged first. Left is then: digits" in reason


def test_the_page_says_how_much_of_the_data_there_was():
    source = Source(title="pictures", data="cifar10", steps=1, batch_size=2, width=2)
    settings = SETTINGS.model_copy(update={"sources": (source,)})

    def notes(n):
        row = a_row() | {"data": "cifar10", "rows": n, "dim": 12288}
        return EXPERIMENT.notes(settings, [row])

    assert "- pictures: 9,000 training rows, 20% of the 45,000 of the complete set. Up" in notes(
        9000
    )
    assert "- pictures: 45,000 training rows. Upscaling" in notes(45_000)
    assert "arithmetic of 12,288 coordinates" in notes(9000)
    assert "JPEG" not in notes(9000)
    digits = EXPERIMENT.notes(SETTINGS, [a_row()])
    assert digits.endswith("- digits: 1,000 training rows.")


def test_of_several_bounds_with_the_most_centres_the_certified_one_counts():
    bounds = [
        {"centers": 8, "gap": 1.0},
        {"centers": 8, "gap": 2.0, "error": 1e-6},
        {"centers": 9, "gap": 3.0, "error": 1e-6, "real": True},
    ]
    assert most({"bounds": bounds})["gap"] == 2.0
