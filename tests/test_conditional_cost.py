"""The conditional scalar cost: its oracle, its limit, and what makes it one number."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hilbound import functional as F
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from support import oracles
from support.oracles import as_dense, as_dtype, random_mixture
from support.strategies import DIMS, SEEDS, SIZES, normal


def conditions(seed, size, components, d, *, spread=1.0, variance=0.5):
    """A mixture for each of ``size`` conditions, and the same as a batch."""
    alone = [
        random_mixture(seed + 100 * i, components, d, spread=spread, variance=variance)
        for i in range(size)
    ]
    batch = GaussianMixture(
        torch.stack([m.means for m in alone]),
        torch.stack([m.component_variance for m in alone]),
        torch.stack([m.weights for m in alone]),
    )
    return alone, batch


def log_limit(p):
    return float(torch.logsumexp(p.log_norm(), 0)) - math.log(p.batch_shape[0])


@given(seed=SEEDS, size=SIZES, n=SIZES, m=SIZES, d=DIMS)
def test_values_are_those_of_the_oracle(seed, size, n, m, d):
    ps, p = conditions(seed, size, n, d, variance=(n, 1))
    qs, q = conditions(seed + 1, size, m, d, variance=(m, d))
    cost, limit = oracles.log_conditional(map_dense(ps), map_dense(qs))
    value = F.conditional_log_scalar_cost(p, q)
    assert value.shape == ()
    assert float(value) == pytest.approx(cost, rel=1e-10, abs=1e-10)
    assert log_limit(p) == pytest.approx(limit, rel=1e-10, abs=1e-10)


def map_dense(several):
    return [as_dense(m) for m in several]


def test_no_cost_of_a_thousand_passes_its_limit():
    """Cauchy-Schwarz holds for the numbers themselves, whatever the model: also near equality."""
    random = np.random.default_rng(0)
    gaps = []
    for seed in range(1000):
        size, n, m, d = random.integers(1, [9, 7, 7, 5])
        x = normal(seed, size, n, d) * float(random.choice([0.1, 1.0, 5.0]))
        p = GaussianMixture(x, 0.5, normal(seed + 1, size, n).square())
        if seed % 2:
            q = GaussianMixture(normal(seed + 2, size, m, d), float(random.choice([0.1, 0.5, 3.0])))
        else:
            q = GaussianMixture(x + 0.01 * float(random.random()), 0.5, p.weights)
        gaps.append(log_limit(p) - float(F.conditional_log_scalar_cost(p, q)))
    assert min(gaps) >= -1e-12
    assert min(gaps) < 1e-4
    assert max(gaps) > 1


@given(seed=SEEDS, size=SIZES, n=SIZES, d=DIMS)
def test_the_limit_is_reached_where_the_model_is_the_data(seed, size, n, d):
    _, p = conditions(seed, size, n, d, variance=(n, d))
    assert float(F.conditional_log_scalar_cost(p, p)) == pytest.approx(log_limit(p), abs=1e-12)


def test_the_right_mixtures_for_the_wrong_conditions_do_not_reach_it():
    _, p = conditions(0, 5, 3, 2, spread=3.0)
    turned = GaussianMixture(p.means.roll(1, 0), 0.5, p.weights.roll(1, 0))
    assert float(F.conditional_log_scalar_cost(p, turned)) < log_limit(p) - 0.5


def test_one_condition_is_the_marginal_cost():
    p, q = random_mixture(0, 5, 3), random_mixture(1, 4, 3)
    alone = F.conditional_log_scalar_cost(p.expand((1,)), q.expand((1,)))
    assert float(alone) == pytest.approx(float(F.log_scalar_cost(p, q)), rel=1e-12)


def test_repeating_the_conditions_changes_nothing():
    _, p = conditions(0, 3, 4, 2)
    _, q = conditions(9, 3, 5, 2)

    def twice(m):
        return GaussianMixture(m.means.repeat(2, 1, 1), 0.5, m.weights.repeat(2, 1))

    expected = float(F.conditional_log_scalar_cost(p, q))
    assert float(F.conditional_log_scalar_cost(twice(p), twice(q))) == pytest.approx(expected)


def test_densities_that_no_number_holds():
    """At d = 3072 every inner product is 1e-1000 or so, and their mean a logarithm."""
    alone, p = conditions(0, 3, 4, 3072, variance=0.4)
    moved = [GaussianMixture(m.means + 0.01, 0.4, m.weights) for m in alone]
    q = GaussianMixture(p.means + 0.01, 0.4, p.weights)
    value = float(F.conditional_log_scalar_cost(p, q))
    assert value < -2000
    tightness = [
        math.exp(oracles.log_tightness(as_dense(a), as_dense(b)))
        for a, b in zip(alone, moved, strict=True)
    ]
    assert min(tightness) * 0.999 <= math.exp(value - log_limit(p)) <= max(tightness) * 1.001


@pytest.mark.parametrize(
    ("p", "q"), [((), ()), ((3,), (4,)), ((3,), ()), ((), (3,)), ((2, 3), (2, 3))]
)
def test_other_batch_shapes_are_refused(p, q):
    mixture = random_mixture(0, 3, 2)
    with pytest.raises(InputError, match=r"must both have batch shape \(B,\).*got \("):
        F.conditional_log_scalar_cost(mixture.expand(p), mixture.expand(q))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows_the_input(dtype):
    p, q = (as_dtype(conditions(i, 3, 4, 2)[1], dtype) for i in range(2))
    assert F.conditional_log_scalar_cost(p, q).dtype == dtype


@given(seed=SEEDS, scale=st.floats(0.01, 100))
def test_the_unit_of_length_does_not_matter(seed, scale):
    _, p = conditions(seed, 3, 4, 2)
    _, q = conditions(seed + 1, 3, 4, 2)

    def gap(p, q):
        return log_limit(p) - float(F.conditional_log_scalar_cost(p, q))

    a, b = (GaussianMixture(scale * m.means, 0.5 * scale**2, m.weights) for m in (p, q))
    assert gap(a, b) == pytest.approx(gap(p, q), rel=1e-9, abs=1e-9)
