"""Where samples went, the further trainings, and the windows of variances."""

import numpy as np
import pytest
import torch

from hilbound import datasets
from hilbound.datasets.toys import TOYS
from hilbound.experiments.mechanism_isolation import (
    DATA,
    SPREAD,
    IsolationSettings,
    all_found,
    smoothed_data,
    where_samples_went,
    window,
)

CENTERS = torch.tensor(TOYS[DATA].centres)


def test_data_find_all_modes_and_collapsed_samples_none():
    data = where_samples_went(datasets.load(DATA).train[:4000])
    assert data["modes"] == 8
    assert data["purity"] > 0.99
    assert data["distance"] == pytest.approx(SPREAD, rel=0.03)
    assert where_samples_went(torch.zeros(100, 2)) == {"modes": 0, "purity": 0.0, "distance": 0.0}


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
