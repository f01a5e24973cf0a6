"""Kernels at a matched rank, and what squared distances can tell of a set."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.pairwise import laplacian_kernel, rbf_kernel

from hilbound import functional as F
from hilbound.engine.gram import squared_distances
from hilbound.errors import InputError
from hilbound.experiments.kernel_or_distance.experiment import EXPERIMENT, against_best
from hilbound.experiments.kernel_or_distance.kernels import (
    KERNELS,
    cost,
    gaussian,
    inverse_multiquadric,
    laplace,
    look_alikes,
    matched_scale,
    rank_of,
    seen_moments,
    theory,
)
from hilbound.mixture import GaussianMixture


def points(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norm_of_distances(x, y):
    matrix = ((x[:, None] - y[None]) ** 2).sum(-1).numpy()
    return np.linalg.svd(matrix, compute_uv=False).sum() / np.sqrt(matrix.size)


def test_kernels_are_those_of_the_books():
    x, y = points(6, 1, 0), points(4, 1, 1)
    distances = squared_distances(x, y)
    assert np.allclose(gaussian(distances, 0.7), rbf_kernel(x, y, gamma=1 / 1.4))
    # In one dimension the city-block distance of scikit-learn's Laplacian is the Euclidean one.
    assert np.allclose(laplace(distances, 0.49), laplacian_kernel(x, y, gamma=1 / 0.7))
    expected = 1 / np.sqrt(1 + (x - y.T).numpy() ** 2 / 0.7)
    assert np.allclose(inverse_multiquadric(distances, 0.7), expected)


def test_the_gaussian_cost_is_the_nuclear_objective():
    x, y = points(20, 3, 0), points(15, 3, 1)
    expected = F.fidelity(GaussianMixture(x, 0.4), GaussianMixture(y, 0.4))
    assert float(cost("gaussian", x, y, 0.8)) == pytest.approx(-float(expected), rel=1e-9)
    expected = F.distance_nuclear_norm(x, y)
    assert float(cost("distance", x, y, 0.8)) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("name", [*KERNELS, "distance"])
def test_gradients_are_finite_where_points_coincide(name):
    x = points(8, 2, 0)
    y = x.clone().requires_grad_()
    cost(name, x, y, 1.0).backward()
    assert y.grad.isfinite().all()


@pytest.mark.parametrize("name", KERNELS)
def test_gradients_are_those_of_differences(name):
    x, y = points(6, 2, 0), points(5, 2, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: cost(name, x, z, 1.3), (y,))


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("rank", [1.5, 12.0, 55.0])
def test_scales_are_matched_by_rank(kernel, rank):
    x = points(60, 5, 0)
    scale = matched_scale(kernel, x, rank)
    assert rank_of(kernel(squared_distances(x, x), scale)) == pytest.approx(rank, rel=1e-6)


def test_ranks_that_no_scale_has_are_refused():
    with pytest.raises(InputError, match="rank must lie between 1 and 5"):
        matched_scale(gaussian, points(5, 2, 0), 6.0)


@given(st.integers(1, 4), st.integers(0, 10_000))
def test_distances_have_rank_d_plus_2_at_most(d, seed):
    distances = squared_distances(points(30, d, seed), points(25, d, seed + 1))
    assert int(torch.linalg.matrix_rank(distances)) <= d + 2


@given(st.integers(1, 4), st.integers(0, 10_000))
def test_the_norm_of_distances_follows_from_the_seen_moments(d, seed):
    x, y = points(30, d, seed), points(25, d, seed + 1)
    square = (y**2).sum(1, keepdim=True)
    b = torch.cat([torch.ones_like(square), square, y], 1)
    eigenvalues = torch.linalg.eigvals(seen_moments(x) @ (b.mT @ b / 25)).real.clamp_min(0)
    assert float(eigenvalues.sqrt().sum()) == pytest.approx(norm_of_distances(x, y), rel=1e-6)


def test_sets_that_share_moments_are_one_to_distances_and_not_to_a_gaussian():
    sets, y = look_alikes(120, torch.Generator().manual_seed(0)), points(70, 2, 3) + 0.3
    ring, triangle, square = (sets[name] for name in ("ring", "triangle", "square"))
    assert len(torch.unique(triangle.round(decimals=9), dim=0)) == 3
    assert len(torch.unique(ring.round(decimals=9), dim=0)) == 120
    for other in (triangle, square):
        assert norm_of_distances(other, y) == pytest.approx(norm_of_distances(ring, y), rel=1e-12)
        apart = F.fidelity(GaussianMixture(other, 0.25), GaussianMixture(y, 0.25))
        of_ring = F.fidelity(GaussianMixture(ring, 0.25), GaussianMixture(y, 0.25))
        assert abs(float(apart) - float(of_ring)) > 0.1


def test_second_moments_alone_do_not_decide():
    sets, y = look_alikes(1200, torch.Generator().manual_seed(0)), points(300, 2, 3)
    for x in sets.values():
        assert torch.allclose(x.mean(0), torch.zeros(2, dtype=x.dtype), atol=1e-12)
        assert torch.allclose(x.mT @ x / 1200, torch.eye(2, dtype=x.dtype), atol=1e-12)
    ring, cloud = (norm_of_distances(sets[name], y) for name in ("ring", "Gaussian"))
    assert abs(cloud / ring - 1) > 0.02


@given(st.integers(0, 10_000))
def test_the_norm_of_distances_is_never_below_the_total_variance(seed):
    x, y = points(20, 3, seed), 0.1 * points(15, 3, seed + 1)
    assert norm_of_distances(x, y) >= float(x.var(0, correction=0).sum())


def test_corners_come_equally_often_or_not_at_all():
    with pytest.raises(InputError, match="n must be a multiple of 12"):
        look_alikes(100, torch.Generator())


def test_the_theory_in_numbers():
    row = theory(120, torch.Generator().manual_seed(1))
    assert row["ring"]["rank"] == row["triangle"]["rank"] == 3  # all |x|^2 are the same
    assert row["Gaussian"]["rank"] == 4
    assert row["triangle"]["gaussian_rank"] == 3
    assert row["ring"]["fourth"] == pytest.approx(4)
    assert row["triangle"]["moments_apart"] < 1e-12 < row["Gaussian"]["moments_apart"]


def rows_of(name, gaussian_values, other_values):
    columns = {"gaussian": gaussian_values, "laplace": other_values, "inverse multiquadric": [0, 0]}
    return [{"cost": k, name: v} for k, values in columns.items() for v in values]


def test_the_gaussian_is_better_only_beyond_the_deviations():
    words, sign = against_best(rows_of("coverage", [0.8, 0.82], [0.7, 0.71]), "coverage")
    assert sign == 1
    assert words == "coverage 0.810 ± 0.014, laplace 0.705 ± 0.007"
    assert against_best(rows_of("coverage", [0.6, 0.62], [0.7, 0.71]), "coverage")[1] == -1
    assert against_best(rows_of("coverage", [0.65, 0.8], [0.7, 0.71]), "coverage")[1] == 0


def test_of_a_distance_less_is_better():
    rows = rows_of("frechet_distance", [90.0, 91.0], [120.0, 121.0])
    rows += [{"cost": "inverse multiquadric", "frechet_distance": 500.0}] * 2
    rows = [row for row in rows if row["frechet_distance"] > 0]
    assert against_best(rows, "frechet_distance") == ("Fréchet distance 90 ± 1, laplace 120 ± 1", 1)


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_to_draw_centres_together_lowers_the_norm_of_distances(seed, d):
    # Skewed data as well, of which the mean is not the best place.
    x, y = points(20, d, seed).exp(), points(15, d, seed + 1)
    together = y.mean(0, keepdim=True).expand_as(y)
    found = norm_of_distances(x, together)
    assert found < norm_of_distances(x, y)
    fourth = (x - together[0]).square().sum(1).square().mean().sqrt()
    assert found == pytest.approx(float(fourth), rel=1e-9)


def test_the_best_place_of_skewed_data_is_not_their_mean():
    x = torch.tensor([[0.0], [0.0], [0.0], [1.0]], dtype=torch.float64)
    best = 1 / (1 + 3 ** (1 / 3))
    assert best == pytest.approx(0.41, abs=0.005)
    norms = [norm_of_distances(x, torch.full_like(x, c)) for c in (best, 0.25, 0.4, 0.42)]
    assert min(norms) == norms[0]


MEASURES = ("confidence", "precision", "recall", "coverage")


def experiment_rows(theories=None, better=0.1, distance_coverage=(0.0, 0.1)):
    """Rows of two seeds in which every claim holds, but for what is changed."""
    norms = {"ring": 9.0, "triangle": 9.0, "square": 9.0, "Gaussian": 9.0}
    rows = []
    for seed in (0, 1):
        sets = {
            name: {
                "distance": norm,
                "gaussian": 0.9 if name == "ring" else 0.5,
                "rank": 4,
                "gaussian_rank": 40,
                "fourth": 4.0,
            }
            for name, norm in norms.items()
        }
        for name, changed in (theories or {}).items():
            sets[name] |= changed
        rows.append({"cost": "theory", "seed": seed} | sets)
        for kernel in KERNELS:
            value = 0.6 + (better if kernel == "gaussian" else 0.0) + 0.001 * seed
            rows.append(
                {
                    "cost": kernel,
                    "seed": seed,
                    "spread": 0.6,
                    **dict.fromkeys(MEASURES, value),
                    "frechet_distance": 100 * (1 - value),
                }
            )
        rows.append(
            {
                "cost": "distance",
                "seed": seed,
                "spread": 0.0,
                **dict.fromkeys(MEASURES, 0.0),
                "coverage": distance_coverage[seed],
                "frechet_distance": 900.0,
                "loss": 50.0,
                "loss_at_data": 200.0,
                "loss_at_mean": 55.0,
            }
        )
    return rows


def claims_of(**changes):
    settings = EXPERIMENT.settings(quick=True)
    claims = EXPERIMENT.claims(settings, experiment_rows(**changes))
    return dict(zip(("rank", "moments", "kernel", "gaussian"), claims, strict=True))


def test_claims_that_hold_give_no_reasons():
    for claim in claims_of().values():
        assert claim.holds is True
        assert claim.reason == ""


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("rank", {"theories": {"square": {"rank": 5}}}),
        ("rank", {"theories": {"ring": {"gaussian_rank": 4}}}),
        ("moments", {"theories": {"Gaussian": {"distance": 9.1}}}),
        ("kernel", {"distance_coverage": (0.0, 0.7)}),
        ("gaussian", {"better": 0.001}),
        ("gaussian", {"better": -0.1}),
    ],
)
def test_claims_fail_one_by_one(name, changes):
    claims = claims_of(**changes)
    assert {n for n, claim in claims.items() if not claim.holds} == {name}


def test_failures_say_what_was_tested_and_what_was_not():
    changes = {"Gaussian": {"distance": 9.1, "fourth": 8.0}}
    reason = claims_of(theories=changes)["moments"].reason
    assert (
        "there the norm is the same to rounding. E|x|⁴ of the ring is 4.00, of the Gaussian 8.00"
        in reason
    )
    reason = claims_of(theories=changes | {"square": {"distance": 9.2}})["moments"].reason
    assert "there the norm is not the same" in reason
    reason = claims_of(better=-0.1)["gaussian"].reason
    assert "better in nothing; worse in confidence, precision, recall, coverage, Fréchet" in reason
    assert "Why was not tested" in reason


def test_notes_are_observations_with_their_figures():
    notes = EXPERIMENT.notes(EXPERIMENT.settings(quick=True), experiment_rows())
    assert "rows of the data it is 200.0 ± 0.0, between the batch and its own mean alone" in notes
    assert "keep gaussian 0.600 ± 0.000, laplace 0.600" in notes
    assert "was not tested" in notes
