"""The costs that project on the span of the model's components: vector-matrix and Schur."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hilbound import functional as F
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from support import oracles
from support.oracles import as_dense, as_dtype, random_mixture
from support.strategies import DIMS, SEEDS, mixtures, normal, reweighted, union

# What a value may pass its limit by: the smallest eigenvalues that are kept are 1e-16 of the
# largest, and the root of that, times the rounding of a kernel, is what their share rounds by.
ROUNDING = 1e-7
COSTS = {"vector": F.log_vector_cost, "schur": F.schur_cost}


def limit(name, p):
    return p.log_norm() if name == "vector" else torch.tensor(1.0)


def condition(q):
    """The least eigenvalue of the components' overlaps."""
    return float(torch.linalg.eigvalsh(torch.from_numpy(oracles.unit_gram(q, q)))[0])


# ------------------------------------------------------------------ values


@given(mixtures(spreads=(1.0, 4.0)))
def test_values_are_those_of_least_squares_and_of_the_pseudo_inverse(pair):
    p, q = pair
    a, b = as_dense(p), as_dense(q)
    # Errors of the kernel are divided by the least eigenvalue, here and there.
    rel = 1e-10 + 1e-14 / max(condition(b), 1e-8)
    assert float(F.log_vector_cost(p, q)) == pytest.approx(
        oracles.log_vector_cost(a, b), rel=rel, abs=rel
    )
    assert float(F.schur_cost(p, q)) == pytest.approx(oracles.schur_cost(a, b), rel=rel)


@pytest.mark.parametrize("spread", [3.0, 1.0, 0.1, 0.01])
@pytest.mark.parametrize("seed", range(3))
def test_values_against_sixty_digits_are_never_too_large(spread, seed):
    """Where centres nearly coincide, directions fall below the line, and with them their share."""
    p = random_mixture(seed, 3, 2, spread=spread)
    q = random_mixture(seed + 9, 4, 2, spread=spread)
    vector, schur = oracles.precise_projections(as_dense(p), as_dense(q))
    ours = float(F.log_vector_cost(p, q)), float(F.schur_cost(p, q))
    least = condition(as_dense(q))
    assert ours[0] <= vector + ROUNDING
    assert ours[1] <= schur + ROUNDING
    if least > 1e-10:
        assert ours == pytest.approx((vector, schur), rel=1e-12 / least, abs=1e-12)
    # A dropped direction is a high difference of nearly equal Gaussians, of which data of the same
    # width have hardly anything.
    assert ours == pytest.approx((vector, schur), abs=1e-4)


def test_one_centre_has_a_closed_form():
    p = GaussianMixture(torch.tensor([[0.0, 0.0], [1.0, 0.0]]).double(), 0.2)
    q = GaussianMixture(torch.tensor([[3.0, 4.0]]).double(), 0.6)
    factor = 4 * 0.2 * 0.6 / 0.8**2  # to the power d / 2 = 1
    squares = [math.exp(-25 / 0.8), math.exp(-20 / 0.8)]
    assert float(F.schur_cost(p, q)) == pytest.approx(factor * sum(squares) / 2, rel=1e-12)
    # One centre has one weight up to scale: the vector cost is the scalar cost.
    assert float(F.log_vector_cost(p, q)) == pytest.approx(float(F.log_scalar_cost(p, q)))


@pytest.mark.parametrize("name", COSTS)
def test_batches_are_loops_over_batches(name):
    ps = [random_mixture(i, 5, 3) for i in range(3)]
    qs = [random_mixture(i + 9, 4, 3) for i in range(3)]
    p, q = (
        GaussianMixture(torch.stack([a.means for a in m]), 0.5, torch.stack([a.weights for a in m]))
        for m in (ps, qs)
    )
    alone = torch.stack([COSTS[name](a, b) for a, b in zip(ps, qs, strict=True)])
    assert torch.allclose(COSTS[name](p, q), alone, rtol=1e-10)


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_come_in_float64(name, dtype):
    p, q = (as_dtype(random_mixture(i, 4, 3), dtype) for i in range(2))
    value = COSTS[name](p, q)
    assert value.dtype == torch.float64
    assert value.shape == ()


def test_densities_that_no_number_holds():
    """At d = 3072 the logarithm of the cost is in the thousands; the gap is a plain number."""
    p = random_mixture(0, 4, 3072, variance=0.4)
    q = GaussianMixture(p.means[:3] + 0.01, 0.4)
    value = float(F.log_vector_cost(p, q))
    assert value < -2000
    expected = oracles.log_vector_cost(as_dense(p), as_dense(q)) - oracles.log_inner(
        as_dense(p), as_dense(p)
    )
    assert value - float(p.log_norm()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("d", [1, 4])
def test_mixtures_of_different_spaces_are_refused(name, d):
    """One coordinate would broadcast."""
    p, q = random_mixture(0, 3, 2), random_mixture(1, 3, d)
    for pair in ((p, q), (q, p)):
        with pytest.raises(InputError, match="both must live in the same space"):
            COSTS[name](*pair)


# ------------------------------------------------------------------ inequalities


@given(mixtures())
def test_scalar_below_vector_below_the_norm(pair):
    p, q = pair
    scalar, vector, norm = F.log_scalar_cost(p, q), F.log_vector_cost(p, q), p.log_norm()
    assert float(scalar) <= float(vector) + ROUNDING
    assert float(vector) <= float(norm) + ROUNDING


@given(mixtures(spreads=(1.0, 4.0)))
def test_the_vector_cost_is_the_scalar_cost_at_the_best_weights(pair):
    """Of any sign, which no mixture has: so the quotient is formed here, by hand."""
    p, q = pair
    a, b = as_dense(p), as_dense(q)
    k, g = torch.from_numpy(oracles.log_projections(a, b)).exp(), oracles.unit_gram(b, b)
    g = torch.from_numpy(g)
    best = torch.linalg.lstsq(g, k.unsqueeze(-1), driver="gelsd").solution.squeeze(-1)
    at_best = float((k @ best).square() / (best @ g @ best))
    value = float(F.log_vector_cost(p, q).exp())
    assert at_best == pytest.approx(value, rel=1e-6)
    for seed in range(5):
        weights = normal(seed, len(k))
        assert float((k @ weights).square() / (weights @ g @ weights)) <= value * (1 + 1e-6)


@given(mixtures(), st.floats(0.05, 0.95))
def test_both_reach_their_limit_where_the_data_lie_in_the_span(pair, share):
    """The model has the data's components, and others, and weights of its own."""
    p, other = pair
    q = union(p, other, share)
    q = reweighted(q, 0.1 + normal(0, q.components).abs())
    for name, cost in COSTS.items():
        assert float(cost(p, q)) == pytest.approx(float(limit(name, p)), abs=ROUNDING)


@given(mixtures())
def test_the_schur_cost_lies_between_zero_and_one(pair):
    p, q = pair
    assert 0 <= float(F.schur_cost(p, q)) <= 1 + ROUNDING


@given(seed=SEEDS, n=st.integers(2, 5), d=DIMS, change=st.sampled_from(["point", "variance"]))
def test_one_is_reached_in_the_span_only(seed, n, d, change):
    """Points lie 5 widths apart: many that overlap span nearly everything between them."""
    weights = 0.3 + normal(seed, n).abs()
    means = 5.0 * torch.arange(n).double().unsqueeze(-1) + 0.3 * normal(seed, n, d)
    v = torch.full((n, 1), 0.5).double()
    p = GaussianMixture(means.clone(), v.clone(), weights)
    if change == "point":
        means[0] += 0.5
    else:
        v[0] *= 1.5
    q = GaussianMixture(means, v)
    # Of the first component at most a share k^2 is left: exp(-d / 4), or its overlap in width.
    left = math.exp(-d / 4) if change == "point" else (4 * 1.5 / 2.5**2) ** (d / 2)
    lost = float(p.weights[0]) * (1 - left)
    assert float(F.schur_cost(p, q)) == pytest.approx(1 - lost, abs=0.01 * n)
    assert float(F.schur_cost(p, q)) < 1 - 0.3 * lost
    assert float(F.log_vector_cost(p, q)) < float(p.log_norm()) - 0.1 * lost**2


def test_the_vector_cost_can_reach_its_limit_where_the_schur_cost_does_not():
    """A symmetric sum may lie in a span that its components do not lie in: here of one vector."""
    p = GaussianMixture(torch.tensor([[-1.0], [1.0]]).double(), 0.5)
    both = GaussianMixture(torch.tensor([[-1.0], [1.0], [3.0]]).double(), 0.5)
    one = GaussianMixture(torch.tensor([[-1.0]]).double(), 0.5)
    assert float(F.schur_cost(p, both)) == pytest.approx(1, abs=1e-9)
    # k = exp(-2) between the two points: (1 + exp(-4)) / 2 of both, (1 + exp(-2)) / 2 of their sum.
    assert float(F.schur_cost(p, one)) == pytest.approx((1 + math.exp(-4)) / 2, rel=1e-12)
    share = float((F.log_vector_cost(p, one) - p.log_norm()).exp())
    assert share == pytest.approx((1 + math.exp(-2)) / 2, rel=1e-12)


@pytest.mark.parametrize("name", COSTS)
@given(pair=mixtures(), seed=SEEDS)
def test_the_models_weights_do_not_matter(name, pair, seed):
    p, q = pair
    other = reweighted(q, 0.05 + normal(seed, q.components).square())
    assert float(COSTS[name](p, other)) == pytest.approx(float(COSTS[name](p, q)), rel=1e-12)


@pytest.mark.parametrize("name", COSTS)
def test_a_component_of_weight_zero_is_absent(name):
    p, q = random_mixture(0, 5, 2), random_mixture(1, 4, 2)
    weights = torch.tensor([1.0, 0.0, 2.0, 0.0]).double()
    without = GaussianMixture(q.means[[0, 2]], 0.5)
    expected = float(COSTS[name](p, without))
    assert float(COSTS[name](p, reweighted(q, weights))) == pytest.approx(expected, rel=1e-12)
    assert expected < float(COSTS[name](p, q)) - 1e-3


@given(mixtures(), SEEDS)
def test_more_components_span_more(pair, seed):
    p, q = pair
    larger = union(q, random_mixture(seed, 2, p.dim))
    for cost in COSTS.values():
        assert float(cost(p, larger)) >= float(cost(p, q)) - ROUNDING


@pytest.mark.parametrize("name", COSTS)
@given(pair=mixtures(), seed=SEEDS, size=st.floats(-100, 100))
def test_order_and_place_do_not_matter(name, pair, seed, size):
    p, q = pair
    shift = size * normal(seed, p.dim)
    order = torch.randperm(q.components, generator=torch.Generator().manual_seed(seed))
    a = GaussianMixture(p.means + shift, p.component_variance, p.weights)
    v = q.component_variance.expand(q.means.shape)
    b = GaussianMixture(q.means[order] + shift, v[order], q.weights[order])
    assert float(COSTS[name](a, b)) == pytest.approx(float(COSTS[name](p, q)), rel=1e-4)


# ------------------------------------------------------------------ the line called drop


@pytest.mark.parametrize("name", COSTS)
@given(pair=mixtures())
def test_drop_only_lowers_the_value(name, pair):
    p, q = pair
    values = [float(COSTS[name](p, q, drop)) for drop in (None, 1e-9, 1e-3, 0.1, 0.5)]
    for more, less in itertools.pairwise(values):
        assert less <= more + ROUNDING


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("drop", [-0.1, 1.0, 2.0, math.nan, math.inf])
def test_a_drop_that_is_no_share_is_refused(name, drop):
    p = random_mixture(0, 3, 2)
    with pytest.raises(InputError, match=r"drop must lie in \[0, 1\), got"):
        COSTS[name](p, p, drop)
