"""Each toy's stated density against independent quadrature, its total mass and its own samples."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from hilbound.datasets import load
from hilbound.datasets.toys import TOYS
from hilbound.errors import InputError

NAMES = list(TOYS)
MODES = {"moons": 2, "circles": 2, "eight-gaussians": 8, "25-grid": 25, "pinwheel": 5}


def draw(name, n=20_000, seed=0):
    return TOYS[name].sample(n, torch.Generator().manual_seed(seed))


SIDE, BINS, POINTS = 5.0, 20, 8  # [-5, 5]^2 in 20 by 20 cells of 8 by 8 points
AREA = (2 * SIDE / (BINS * POINTS)) ** 2


@pytest.fixture(scope="module")
def log_densities():
    """The stated log densities in the middles of the cells of a fine grid."""
    n = BINS * POINTS
    middle = (torch.arange(n, dtype=torch.float64) + 0.5) * (2 * SIDE / n) - SIDE
    x = torch.cartesian_prod(middle, middle)
    return {name: TOYS[name].log_density(x).reshape(n, n) for name in NAMES}


def curve_density(curves, variance, x):
    """Adaptive quadrature along curves given as numpy functions of t in [0, 1]."""

    def integrand(t, curve):
        return math.exp(-np.sum((x - curve(t)) ** 2) / (2 * variance)) / (2 * math.pi * variance)

    def piece(curve, low, high):
        return integrate.quad(integrand, low, high, args=(curve,), epsabs=1e-14, epsrel=1e-12)[0]

    ends = np.linspace(0, 1, 9)
    each = [sum(piece(c, a, b) for a, b in pairwise(ends)) for c in curves]
    return sum(each) / len(curves)


# The curves written anew, from the usual definitions.
ORACLES = {
    "moons": (
        [
            lambda t: 2 * (np.array([np.cos(np.pi * t), np.sin(np.pi * t)]) - [0.5, 0.25]),
            lambda t: (
                2 * (np.array([1 - np.cos(np.pi * t), 0.5 - np.sin(np.pi * t)]) - [0.5, 0.25])
            ),
        ],
        0.2**2,
    ),
    "swiss-roll": (
        [
            lambda t: (
                (4.5 * np.pi * t + (1 - t) * 1.5 * np.pi)
                / 4
                * np.array([np.sin(3 * np.pi * t), -np.cos(3 * np.pi * t)])
            )
        ],
        0.1**2,
    ),
    "circles": (
        [
            lambda t: 3.0 * np.array([np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)]),
            lambda t: 1.5 * np.array([np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)]),
        ],
        0.2**2,
    ),
}


@pytest.mark.parametrize("name", list(ORACLES))
def test_density_of_noisy_curves_matches_adaptive_quadrature(name):
    x = draw(name, 12)[0] + torch.tensor([0.3, -0.2], dtype=torch.float64)
    expected = [curve_density(*ORACLES[name], point) for point in x.numpy()]
    found = TOYS[name].log_density(x)
    np.testing.assert_allclose(found.numpy(), np.log(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "side", "std"), [("eight-gaussians", None, 0.2), ("25-grid", 1.5, 0.1)]
)
def test_density_of_gaussians_matches_scipy(name, side, std):
    if side is None:
        centres = [(3 * math.cos(k * math.pi / 4), 3 * math.sin(k * math.pi / 4)) for k in range(8)]
    else:
        centres = [(side * i, side * j) for i in range(-2, 3) for j in range(-2, 3)]
    x = draw(name, 50)[0]
    density = np.mean(
        [stats.multivariate_normal(c, std**2 * np.eye(2)).pdf(x) for c in centres], axis=0
    )
    np.testing.assert_allclose(TOYS[name].log_density(x).numpy(), np.log(density), atol=1e-10)


def test_density_of_pinwheel_matches_the_change_of_variables_by_autograd():
    """Push a Gaussian arm forward, and divide by the Jacobian that autograd finds."""
    toy = TOYS["pinwheel"]
    u = torch.tensor([[2.5, 0.1], [1.2, -0.3], [3.4, 0.2]], dtype=torch.float64)

    def turn(point, arm):
        angle = 2 * math.pi * arm / 5 + 0.25 * torch.exp(point.norm() / 2)
        c, s = torch.cos(angle), torch.sin(angle)
        return torch.stack([c * point[0] - s * point[1], s * point[0] + c * point[1]])

    gaussian = stats.multivariate_normal([2, 0], np.diag([0.36, 0.04]))
    for point in u:
        x = turn(point, 1)
        jacobian = torch.autograd.functional.jacobian(lambda p: turn(p, 1), point)
        own_arm = gaussian.pdf(point) / abs(np.linalg.det(jacobian)) / 5
        others = 0.0
        for arm in (0, 2, 3, 4):  # the same point seen from the other arms
            angle = -(2 * math.pi * (arm - 1) / 5)
            turned = torch.tensor(
                [
                    math.cos(angle) * point[0] - math.sin(angle) * point[1],
                    math.sin(angle) * point[0] + math.cos(angle) * point[1],
                ],
                dtype=torch.float64,
            )
            others += gaussian.pdf(turned) / 5
        found = toy.log_density(x.unsqueeze(0)).exp().item()
        assert found == pytest.approx(own_arm + others, rel=1e-10)


def test_density_of_checkerboard_is_uniform_on_every_other_square():
    x = torch.tensor([[-3.0, -3.0], [-1.0, -3.0], [1.0, 1.0], [1.0, -1.0], [5.0, 1.0]])
    expected = [-math.log(32), -math.inf, -math.log(32), -math.inf, -math.inf]
    assert TOYS["checkerboard"].log_density(x).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_density_integrates_to_one(name, log_densities):
    assert log_densities[name].exp().sum().item() * AREA == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_samples_fit_the_density(name, log_densities):
    """Pearson's chi-squared test over the cells of a grid."""
    n = 20_000
    x = draw(name, n)[0].numpy()
    edges = np.linspace(-5, 5, 21)
    counts = np.histogram2d(x[:, 0], x[:, 1], bins=[edges, edges])[0].ravel()
    cells = log_densities[name].exp().reshape(BINS, POINTS, BINS, POINTS).sum(dim=(1, 3))
    expected = n * AREA * cells.numpy().ravel()
    large = expected >= 5
    rest = counts[~large].sum() + (n - counts.sum()), n - expected[large].sum()
    statistic = ((counts[large] - expected[large]) ** 2 / expected[large]).sum()
    if rest[1] > 5:
        statistic += (rest[0] - rest[1]) ** 2 / rest[1]
    assert stats.chi2.sf(statistic, large.sum()) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_mean_log_density_of_samples_is_minus_the_entropy(name, log_densities):
    """Monte Carlo against the entropy integral, -sum p log p on a fine grid."""
    p = log_densities[name].exp()
    entropy = -torch.special.xlogy(p, p).sum().item() * AREA
    sampled = TOYS[name].log_density(draw(name, 4000, seed=7)[0])
    error = sampled.std().item() / len(sampled) ** 0.5
    assert sampled.mean().item() == pytest.approx(-entropy, abs=4 * error + 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_log_density_keeps_type_and_handles_few_and_far_points(name):
    toy = TOYS[name]
    x = draw(name, 5000)[0]
    whole = toy.log_density(x)
    assert torch.equal(whole[4999:], toy.log_density(x[4999:]))  # the chunks leave no seam
    assert toy.log_density(x.float()).dtype == torch.float32
    assert toy.log_density(x[:0]).shape == (0,)
    far = toy.log_density(torch.tensor([[30.0, -40.0]]))
    assert not far.isnan().any()
    assert far.item() < -500


@pytest.mark.parametrize("name", NAMES)
def test_modes(name):
    x, modes = draw(name, 5000)
    if name not in MODES:
        assert modes is None
        return
    counts = torch.bincount(modes)
    assert len(counts) == MODES[name]
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4
    assert load(name, samples=500).classes == MODES[name]
    # The mean of a mode is its own: a label that named another mode would share the overall mean.
    if name == "eight-gaussians":
        angle = torch.atan2(x[:, 1], x[:, 0]) / (math.pi / 4)
        assert torch.equal(angle.round().long() % 8, modes)
    if name == "circles":
        assert ((x.norm(dim=1) < 2.25).long() == modes).double().mean() > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_load_draws_three_independent_splits(name):
    data = load(name, seed=3)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [10_000, 2000, 2000]
    assert data.train.dtype == torch.float32
    assert data.train.abs().max() < 5.5
    assert data.log_density(data.test).isfinite().all()
    rows = torch.cat([data.train, data.validation, data.test])
    assert len(rows.unique(dim=0)) == len(rows)


def test_seed_and_samples():
    first, again, other = load("moons", seed=1), load("moons", seed=1), load("moons", seed=2)
    assert torch.equal(first.train, again.train)
    assert not torch.equal(first.train, other.train)
    few, many = load("moons", seed=1, samples=7), load("moons", seed=1, samples=12_345)
    assert len(few.train) == 7
    assert len(many.train) == 12_345
    assert torch.equal(few.test, first.test)
    assert torch.equal(many.validation, first.validation)


def test_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    load("pinwheel", samples=10)
    assert torch.equal(state, torch.get_rng_state())


def test_more_samples_than_memory_bears_are_refused():
    with pytest.raises(InputError, match=r"samples=1000000000: 'moons' .*at most 10,000,000"):
        load("moons", samples=10**9)
