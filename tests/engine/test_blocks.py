"""What the conditional bound leaves out, its certificate, and its work in blocks."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from hilbound import bounds
from hilbound.bounds import conditional_bound
from hilbound.engine import blocks
from hilbound.mixture import GaussianMixture
from support.conditional import case, check, oracle
from support.memory import Largest
from support.strategies import normal

# ------------------------------------------------------------------ the cut


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("f", [1, 2, 3])
@pytest.mark.parametrize("tail", [1e-2, 1e-4, 1e-8, 1e-12])
def test_the_certified_error_is_never_passed(tail, f):
    errors, certified = [], []
    for seed in range(20):
        variance_y = 10.0 ** -(seed % 5)
        # A narrow kernel between data makes what is left out matter to the model.
        arguments = case(seed, n=60, m=20, k=2, d=1, f=f, noise=variance_y)
        variances = {"variance_p": 10.0 ** -(seed % 3), "variance_y": variance_y}
        bound = conditional_bound(*arguments, **variances, tail=tail)
        cost, limit = oracle(*arguments, **variances)
        error = max(abs(float(bound.log_value) - cost), abs(float(bound.log_limit) - limit))
        assert error <= bound.error + 1e-11
        errors.append(error)
        certified.append(bound.error)
    assert sum(error > 0 for error in certified) > 8
    if tail >= 1e-4:
        # Something was cut, and not only in the accounts.
        assert max(errors) > 1e-3 * tail
    assert max(certified) < 1e3 * tail


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("tail", [0.1, 1e-3, 1e-9])
def test_the_certified_error_can_be_reached(tail):
    """Where the model is exactly at the datum that was left out, the bound is all but an equality.

    With the overlap k of the two data, <p, q> = (1 - s) k + s and what was kept of it is k.
    """
    variance_y, overlap = 0.1, 0.01
    distance = math.sqrt(1.001 * 2 * variance_y * math.log(2 / tail))
    features = torch.tensor([[0.0], [distance]], dtype=torch.float64)
    x = torch.tensor([[0.0], [math.sqrt(-2 * math.log(overlap))]], dtype=torch.float64)
    q = GaussianMixture(x[1].view(1, 1, 1), 0.5)
    bound = conditional_bound(
        x, features, features[:1], q, variance_p=0.5, variance_y=variance_y, tail=tail
    )
    t = math.exp(-(distance**2) / (2 * variance_y))
    cost, limit = oracle(x, features, features[:1], q, variance_p=0.5, variance_y=variance_y)
    assert bound.error == pytest.approx(2 * math.log1p(t / overlap), rel=1e-6)
    assert cost - float(bound.log_value) <= bound.error
    assert cost - float(bound.log_value) == pytest.approx(bound.error, rel=0.1)
    assert abs(limit - float(bound.log_limit)) <= bound.error


@pytest.mark.parametrize("f", [1, 2, 3])
@pytest.mark.parametrize("tail", [0.5, 1e-3, 1e-12])
def test_what_a_block_leaves_out(f, tail):
    """Of every point, in its own sums: never more than was said, and that within the tail."""
    _, features, points, _ = case(3, n=300, m=200, f=f)
    variance = 1e-3
    found = list(blocks.blocks(features, points, variance, tail, lambda b, s: b * s))
    assert torch.cat([block.points for block in found]).sort().values.tolist() == list(range(200))
    assert max(len(block.active) for block in found) < 300
    mass = np.exp(-cdist(points, features, "sqeuclidean") / (2 * variance))
    for block in found:
        kept = mass[np.ix_(block.points, block.active)].sum(1)
        omitted = mass[block.points.numpy()].sum(1) - kept
        assert (omitted <= math.exp(block.log_omitted) + 1e-15 * kept).all()
        assert (math.exp(block.log_omitted) <= tail * kept).all()


@pytest.mark.usefixtures("cut")
def test_a_smaller_tail_costs_little_and_errs_less():
    arguments = case(0, n=400, m=50)
    variances = {"variance_p": 0.5, "variance_y": 1e-4}
    errors = [
        conditional_bound(*arguments, **variances, tail=tail).error
        for tail in (1e-1, 1e-3, 1e-12, 1e-100, 1e-300)
    ]
    assert errors == sorted(errors, reverse=True)
    assert 0 < errors[3] < 1e-90


@pytest.mark.usefixtures("cut")
def test_an_error_that_overflows_is_a_number():
    """A model that sees nothing of what was kept has no small bound, but has one."""
    x, features, points, q = case(0, n=30)
    far = GaussianMixture(q.means + 1e4, 0.5)
    bound = conditional_bound(x, features, points, far, variance_p=0.5, variance_y=1e-4)
    assert 1e6 < bound.error < math.inf
    assert math.isfinite(bound.gap)


# ------------------------------------------------------------------ blocks


@pytest.mark.usefixtures("cut")
def test_a_function_gives_what_a_tensor_gives(monkeypatch):
    monkeypatch.setattr(blocks, "_TILE_NUMBERS", 200)
    x, features, points, q = case(0, n=30, m=50)
    asked = []

    def decode(some):
        asked.append(len(some))
        index = (some.unsqueeze(1) == points).all(-1).int().argmax(-1)
        return GaussianMixture(q.means[index], 0.5, q.weights[index])

    variances = {"variance_p": 0.5, "variance_y": 1e-2}
    a = conditional_bound(x, features, points, q, **variances)
    b = conditional_bound(x, features, points, decode, **variances)
    check(a, (float(b.log_value), float(b.log_limit)), 1e-14)
    assert a.error == pytest.approx(b.error, rel=1e-12)
    assert asked[0] == 1
    assert sum(asked[1:]) == 50
    assert 1 < max(asked) < 20


@pytest.mark.parametrize(
    ("home", "name"),
    [
        (blocks, "_BLOCK_NUMBERS"),
        (blocks, "_TILE_NUMBERS"),
        (blocks, "_CANDIDATES"),
        (bounds, "_GRAM_ROWS"),
    ],
)
@pytest.mark.parametrize("number", [1, 7, 300])
@pytest.mark.parametrize("variance_y", [1e-3, 1.0])
def test_sizes_of_blocks_change_nothing(monkeypatch, home, name, number, variance_y):
    arguments = case(0, n=40, m=30, d=3, f=2)
    variances = {"variance_p": 0.5, "variance_y": variance_y}
    expected = conditional_bound(*arguments, **variances, tail=1e-15)
    monkeypatch.setattr(home, name, number)
    bound = conditional_bound(*arguments, **variances, tail=1e-15)
    check(bound, (float(expected.log_value), float(expected.log_limit)), 1e-12)


@pytest.mark.usefixtures("cut")
def test_the_order_of_data_and_points_changes_nothing():
    x, features, points, q = case(0, n=40, m=30, f=2)
    data, conditions = (
        torch.randperm(n, generator=torch.Generator().manual_seed(1)) for n in (40, 30)
    )
    variances = {"variance_p": 0.5, "variance_y": 1e-3}
    expected = conditional_bound(x, features, points, q, **variances)
    turned = GaussianMixture(q.means[conditions], 0.5, q.weights[conditions])
    bound = conditional_bound(x[data], features[data], points[conditions], turned, **variances)
    check(bound, (float(expected.log_value), float(expected.log_limit)), 1e-12)


@pytest.mark.usefixtures("cut")
def test_coinciding_points_and_features(monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_NUMBERS", 20)
    x, q = normal(0, 30, 2), GaussianMixture(normal(1, 12, 2, 2), 0.5)
    arguments = x, torch.ones(30, 1).double(), torch.ones(12, 1).double(), q
    variances = {"variance_p": 0.5, "variance_y": 1e-3}
    bound = conditional_bound(*arguments, **variances)
    check(bound, oracle(*arguments, **variances))
    assert bound.error == 0


@pytest.mark.parametrize("variance_y", [1e-5, 1e2])
def test_nothing_larger_than_a_block_is_formed(variance_y):
    """Neither all weights nor the Gram matrix, although they are 9,000,000 numbers."""
    arguments = case(0, n=3000, m=3000, k=1)
    with Largest() as largest:
        conditional_bound(*arguments, variance_p=0.5, variance_y=variance_y)
    assert 10**5 < largest.numbers <= 2**23


def test_nor_where_blocks_are_small(monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_NUMBERS", 2**15)
    monkeypatch.setattr(blocks, "_TILE_NUMBERS", 2**14)
    x, features, points, _ = case(0, n=500, m=400, k=2, d=20)

    def decode(some):
        return GaussianMixture(some.unsqueeze(-1).expand(len(some), 5, 20) * 2, 0.5)

    with Largest() as largest:
        conditional_bound(x, features, points, decode, variance_p=0.5, variance_y=1.0)
    assert 2**14 < largest.numbers <= 2**15
