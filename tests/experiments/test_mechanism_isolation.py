"""Where samples went, the further trainings, and the windows of variances."""

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from hilbound import datasets
from hilbound.datasets.toys import TOYS
from hilbound.engine.seeding import stream
from hilbound.experiments.mechanism_isolation import (
    DATA,
    EXPERIMENT,
    FROM_WIDE,
    SMOOTHED,
    SPREAD,
    IsolationSettings,
    all_found,
    pair_distances,
    smoothed_data,
    where_samples_went,
    window,
)

CENTERS = torch.tensor(TOYS[DATA].centres)
TRUE_DISTANCES = pair_distances(TOYS[DATA].sample(1000, stream(0, "pairs"))[0])


def test_data_find_all_modes_and_collapsed_samples_none():
    data = where_samples_went(datasets.load(DATA).train[:4000])
    assert data["modes"] == 8
    assert data["purity"] > 0.99
    assert data["distance"] == pytest.approx(SPREAD, rel=0.03)
    assert data["distance_error"] < 0.02
    collapsed = where_samples_went(torch.zeros(100, 2))
    assert (collapsed["modes"], collapsed["purity"], collapsed["distance"]) == (0, 0.0, 0.0)
    # The whole mean is missing.
    assert collapsed["distance_error"] == pytest.approx(1, abs=1e-3)
    assert collapsed["quantiles"] == [0.0] * 5


def test_a_right_mean_of_wrong_distances_is_told():
    """One Gaussian as wide as the ring has the mean squared distance of the data, and no gaps."""
    wide = (SPREAD / 4) ** 0.5 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    found = where_samples_went(wide)
    assert found["distance"] == pytest.approx(SPREAD, rel=0.05)
    assert found["distance_error"] > 0.1
    exact = wasserstein_distance(pair_distances(wide).numpy(), TRUE_DISTANCES.numpy())
    assert found["distance_error"] == pytest.approx(exact / float(TRUE_DISTANCES.mean()), rel=0.01)


def test_a_mode_is_found_by_a_fifth_of_its_share():
    rows = [CENTERS[0]] * 195 + [CENTERS[1]] * 5  # a fifth of 200 / 8 is 5
    assert where_samples_went(torch.stack(rows))["modes"] == 2
    rows = [CENTERS[0]] * 196 + [CENTERS[1]] * 4
    assert where_samples_went(torch.stack(rows))["modes"] == 1


def test_purity_ends_at_four_deviations():
    inside, outside = CENTERS[:1] * (1 + 0.79 / 3), CENTERS[:1] * (1 + 0.81 / 3)
    assert where_samples_went(torch.cat([inside, inside]))["purity"] == 1
    assert where_samples_went(torch.cat([inside, outside]))["purity"] == 0.5


def test_distances_are_those_of_all_pairs():
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    expected = torch.pdist(x).square().mean()
    assert where_samples_went(x)["distance"] == pytest.approx(float(expected), rel=1e-5)


def test_smoothed_data_are_wider_by_the_variance():
    plain, smoothed = datasets.load(DATA).train.numpy(), smoothed_data(4.0, 0)
    noise = smoothed - plain
    assert noise.var() == pytest.approx(4.0, rel=0.05)
    assert abs(np.corrcoef(noise[:, 0], plain[:, 0])[0, 1]) < 0.05
    assert np.array_equal(smoothed, smoothed_data(4.0, 0))


def rows_of(modes):
    return [
        {"objective": "nuclear", "training": "plain", "variance": v, "seed": s, "modes": m}
        for v, found in modes.items()
        for s, m in enumerate(found)
    ]


def test_windows_are_where_every_seed_finds_all():
    settings = IsolationSettings(variances=(0.1, 1.0, 2.0, 10.0))
    rows = rows_of({0.1: [8, 7], 1.0: [8, 8], 2.0: [8, 8], 10.0: [3, 8]})
    assert all_found(settings, rows, "nuclear") == [1.0, 2.0]
    assert window(settings, rows, "nuclear") == "1 to 2"
    assert window(settings, rows, "scalar") == "none"
    broken = rows_of({0.1: [8, 8], 1.0: [8, 7], 2.0: [8, 8], 10.0: [3, 8]})
    assert window(settings, broken, "nuclear") == "0.1, 2"


SETTINGS = IsolationSettings(variances=(0.01, 1.0, 10.0))
#: What makes every claim hold: modes and distance by cost and variance.
GOOD = {
    ("nuclear", 0.01): (0, 10.0),
    ("nuclear", 1.0): (8, 18.0),
    ("nuclear", 10.0): (6, 4.0),
    ("scalar", 0.01): (0, 1.0),
    ("scalar", 1.0): (8, 18.0),
    ("scalar", 10.0): (0, 17.0),
    ("trace", 0.01): (1, 0.1),
    ("trace", 1.0): (4, 9.0),
    ("trace", 10.0): (0, 0.0),
    ("likelihood", 0.01): (8, 18.0),
    ("likelihood", 1.0): (8, 16.0),
    ("likelihood", 10.0): (0, 1.8),
}


def claims_of(changes, seeds=2):
    """Claims by their first words; ``changes`` apply to the last seed only."""
    rows = []
    for seed in range(seeds):
        for key, good in GOOD.items():
            modes, distance = changes.get(key, good) if seed == seeds - 1 else good
            rows.append(
                {
                    "objective": key[0],
                    "training": "plain",
                    "variance": key[1],
                    "seed": seed,
                    "modes": modes,
                    "distance": distance,
                    "purity": 0.5,
                    "distance_error": abs(distance / SPREAD - 1),
                }
            )
        rows.append(
            {
                "objective": "nuclear",
                "training": FROM_WIDE,
                "variance": 0.01,
                "seed": seed,
                "modes": 8,
                "distance": 18.0,
                "purity": 1.0,
            }
        )
        rows.append(
            {
                "objective": "likelihood",
                "training": SMOOTHED,
                "variance": 10.0,
                "seed": seed,
                "modes": 8,
                "distance": 17.5,
                "purity": 1.0,
            }
        )
    claims = EXPERIMENT.claims(SETTINGS, rows)
    names = ("all modes", "small", "large", "agree", "trace", "norm")
    return dict(zip(names, claims, strict=True))


def test_claims_that_hold_give_no_reasons():
    for claim in claims_of({}).values():
        assert claim.holds is True
        assert claim.reason == ""


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("all modes", {("nuclear", 1.0): (7, 18.0)}),
        ("small", {("nuclear", 0.01): (0, 0.1)}),
        ("large", {("nuclear", 10.0): (6, 18.0)}),
        ("agree", {("nuclear", 1.0): (8, 17.0)}),
        ("trace", {("trace", 1.0): (5, 9.0)}),
        ("trace", {("trace", 10.0): (0, 9.2)}),
        ("norm", {("likelihood", 10.0): (0, 1.9)}),
        ("norm", {("scalar", 10.0): (0, 9.0)}),
        # Both have collapsed, the scalar cost less so.
        ("norm", {("scalar", 10.0): (0, 0.02), ("likelihood", 10.0): (0, 0.001)}),
        # Neither has.
        ("norm", {("likelihood", 10.0): (8, 8.0)}),
    ],
)
def test_one_seed_is_enough_to_fail_a_claim_and_no_other(name, changes):
    # Where means decide, the one seed has to outweigh the other.
    claims = claims_of(changes)
    assert {n for n, claim in claims.items() if claim.holds is False} == {name}


def test_failures_name_what_was_tested():
    small = claims_of({("nuclear", 0.01): (0, 0.1)})["small"].reason
    assert "the nuclear, started at 10, finds all modes at 0.01 (from the start" in small
    large = claims_of({("nuclear", 10.0): (8, 18.0)})["large"].reason
    assert "mean squared distance of 1.80 at variance 10, and of 17.50 if" in large
