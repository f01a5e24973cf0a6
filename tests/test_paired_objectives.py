"""Objectives that know which data point a centre belongs to, and how they are tied."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hilbound import functional as F
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.objectives import ConditionalScalarCost, MeanSquaredError, Trace
from support import oracles
from support.oracles import as_dense, as_dtype, random_mixture
from support.strategies import DIMS, SEEDS, mixtures, normal, reweighted


def stacked(ms):
    """Mixtures of one size as one of batch shape (B,)."""
    v = [m.component_variance.expand(m.means.shape) for m in ms]
    means, weights = (torch.stack([getattr(m, k) for m in ms]) for k in ("means", "weights"))
    return GaussianMixture(means, torch.stack(v), weights)


def conditions(seed, count, data, centers, dim, spread=1.0):
    """Mixtures of the data and of the model for ``count`` conditions."""
    return tuple(
        [
            random_mixture(seed + 97 * i + j, n, dim, variance=(n, 1), spread=spread)
            for i in range(count)
        ]
        for j, n in enumerate((data, centers))
    )


# ------------------------------------------------------------------ a mixture for every input


@given(
    seed=SEEDS, count=st.integers(1, 6), data=st.integers(1, 4), centers=st.integers(1, 4), dim=DIMS
)
def test_the_conditional_loss_is_minus_the_cost_and_below_the_limit(
    seed, count, data, centers, dim
):
    ps, qs = conditions(seed, count, data, centers, dim)
    p, q = stacked(ps), stacked(qs)
    cost, limit = oracles.log_conditional([*map(as_dense, ps)], [*map(as_dense, qs)])
    objective = ConditionalScalarCost()
    bound = objective.bound(p, q)
    assert float(objective(p, q)) == pytest.approx(-cost, rel=1e-9, abs=1e-9)
    assert float(bound.log_value) == pytest.approx(cost, rel=1e-9, abs=1e-9)
    assert float(bound.log_limit) == pytest.approx(limit, rel=1e-9, abs=1e-9)
    assert float(bound.gap) >= -1e-10
    assert float(objective.bound(p, p).gap) == pytest.approx(0, abs=1e-10)


def test_the_conditional_cost_asks_for_the_scale_of_every_condition():
    """Of two models that are right for each input alone, up to a factor, one is right for all."""
    p = stacked(conditions(0, 4, 3, 3, 2)[0])
    assert float(ConditionalScalarCost().bound(p, p).gap) == pytest.approx(0, abs=1e-12)
    wide = GaussianMixture(p.means[:, :1], torch.tensor([0.5, 5.0, 50.0, 0.5])[:, None, None])
    narrow = GaussianMixture(wide.means, 0.5)
    exact = ConditionalScalarCost().bound(wide, wide)
    assert float(exact.gap) == pytest.approx(0, abs=1e-12)
    assert float(ConditionalScalarCost().bound(wide, narrow).gap) > 0.05


def test_the_conditional_cost_is_one_number_for_a_batch():
    p, q = (as_dtype(stacked(m), torch.float32) for m in conditions(0, 5, 2, 3, 4))
    loss, bound = ConditionalScalarCost()(p, q), ConditionalScalarCost().bound(p, q)
    assert loss.shape == bound.gap.shape == ()
    assert loss.dtype == torch.float32
    for wrong in ((), (2, 5)):
        with pytest.raises(InputError, match=r"both have batch shape \(B,\).*for each condition"):
            ConditionalScalarCost()(random_mixture(0, 3, 2).expand(wrong), p)


def test_the_conditional_cost_has_finite_gradients_far_from_the_data():
    x = torch.zeros(4, 1, 784)
    for distance in (1e-3, 1.0, 1e3):
        centers = (x + distance).expand(4, 3, 784).clone().requires_grad_()
        loss = ConditionalScalarCost()(GaussianMixture(x, 1e-3), GaussianMixture(centers, 1e-3))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(centers.grad).all()
        # Uphill is towards the data, for all of them alike.
        assert (centers.grad > 0).all()


# ------------------------------------------------------------------ one centre for every row


@given(mixtures(same_size=True))
def test_trace_and_squared_error_by_hand(pair):
    p, q = pair
    a, b = as_dense(p), as_dense(q)
    overlaps = np.diag(oracles.log_overlaps(a, b))
    squares = ((a.means - b.means) ** 2).sum(-1)
    trace, mse = Trace(), MeanSquaredError()
    assert float(trace(p, q)) == pytest.approx(-oracles.trace_overlap(a, b), rel=1e-9)
    expected = a.weights @ squares / p.dim
    assert float(mse(p, q)) == pytest.approx(expected, rel=1e-9)
    assert float(F.mean_log_overlap(p, q)) == pytest.approx(
        a.weights @ overlaps, rel=1e-8, abs=1e-9
    )
    assert float(mse.bound(p, q).log_value) == float(F.mean_log_overlap(p, q))
    assert float(mse.bound(p, q).log_limit) == float(trace.bound(p, q).log_limit) == 0


@given(mixtures(same_size=True))
def test_the_geometric_mean_of_overlaps_is_below_the_arithmetic_one(pair):
    p, q = pair[0], reweighted(pair[1], pair[0].weights)
    low, high = float(F.mean_log_overlap(p, q)), float(F.log_trace_overlap(p, q))
    assert low <= high + 1e-12
    assert high <= 1e-12
    if p.components > 1 and high < -1e-3:
        assert low < high


def test_both_means_agree_where_all_overlaps_are_the_same():
    x = normal(0, 9, 3)
    p, q = GaussianMixture(x, 0.5), GaussianMixture(x + 0.7, 0.5)
    assert float(F.mean_log_overlap(p, q)) == pytest.approx(float(F.log_trace_overlap(p, q)))
    assert float(F.mean_log_overlap(p, q)) == pytest.approx(-3 * 0.49 / 2)


@pytest.mark.parametrize("v", [1e-3, 0.5, 100.0])
def test_with_equal_variances_the_logarithm_is_the_squared_error(v):
    p, q = (GaussianMixture(normal(i, 9, 5), v) for i in range(2))
    expected = -5 * float(MeanSquaredError()(p, q)) / (4 * v)
    assert float(F.mean_log_overlap(p, q)) == pytest.approx(expected, rel=1e-9)


def test_a_wide_kernel_makes_the_trace_a_squared_error():
    """To first order in 1/v the two losses have one gradient, up to the factor."""
    gradients = []
    for objective, scale in ((Trace(), 4e8 / 5), (MeanSquaredError(), 1.0)):
        y = normal(1, 9, 5).requires_grad_()
        objective(GaussianMixture(normal(0, 9, 5), 1e8), GaussianMixture(y, 1e8)).backward()
        gradients.append(scale * y.grad)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-12)


def test_batches_and_precisions():
    for dtype in (torch.float32, torch.float64):
        p, q = (as_dtype(random_mixture(i, 5, 3), dtype).expand((3,)) for i in range(2))
        for function in (F.mean_squared_error, F.mean_log_overlap, F.trace_overlap):
            assert function(p, q).shape == (3,)
            assert function(p, q).dtype == dtype


@pytest.mark.parametrize("function", [F.mean_squared_error, F.mean_log_overlap])
def test_pairs_are_needed_in_one_space(function):
    with pytest.raises(InputError, match="p has 3 components and q has 4"):
        function(random_mixture(0, 3, 2), random_mixture(1, 4, 2))
    with pytest.raises(InputError, match="p has 1 coordinates and q has 2"):
        function(random_mixture(0, 3, 1), random_mixture(1, 3, 2))


# ------------------------------------------------------------------ effective components


@given(seed=SEEDS, n=st.integers(1, 7), dim=DIMS, weighted=st.booleans())
def test_components_far_apart_count_by_their_weights(seed, n, dim, weighted):
    q = random_mixture(seed, n, dim, weighted=weighted)
    far = GaussianMixture(
        q.means + 1e4 * torch.arange(n).double()[:, None], q.component_variance, q.weights
    )
    expected = 1 / (q.weights.numpy() ** 2).sum()
    assert float(F.effective_components(far)) == pytest.approx(expected, rel=1e-10)
    assert weighted or expected == pytest.approx(n)


@given(mixtures())
def test_effective_components_lie_between_one_and_all(pair):
    for q in pair:
        a = as_dense(q)
        expected = 1 / (a.weights @ np.exp(oracles.log_overlaps(a, a)) @ a.weights)
        found = float(F.effective_components(q))
        assert found == pytest.approx(expected, rel=1e-9)
        assert 1 - 1e-9 <= found <= q.components + 1e-9


def test_components_that_coincide_are_one():
    q = GaussianMixture(normal(0, 5, 1, 3).expand(5, 7, 3), 0.5, 0.1 + torch.rand(5, 7).double())
    torch.testing.assert_close(F.effective_components(q), torch.ones(5).double())
    with_absent = GaussianMixture(normal(0, 3, 2), 1e-9, torch.tensor([1.0, 1.0, 0.0]).double())
    assert float(F.effective_components(with_absent)) == pytest.approx(2)


def test_two_components_in_closed_form():
    for apart in (0.0, 0.25, 1.0, 5.0):
        q = GaussianMixture(torch.tensor([[0.0], [apart]]).double(), 0.5)
        expected = 2 / (1 + math.exp(-(apart**2) / 2))
        assert float(F.effective_components(q)) == pytest.approx(expected, rel=1e-12)


def test_a_wide_half_of_the_conditional_loss_is_the_cost_at_wider_components():
    p = GaussianMixture(torch.randn(4, 1, 2, generator=torch.Generator().manual_seed(0)), 0.3)
    means = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(1))
    q = GaussianMixture(
        means, 0.2, 0.1 + torch.rand(4, 3, generator=torch.Generator().manual_seed(2))
    )
    wide_p, wide_q = (
        GaussianMixture(p.means, 4 * 0.3),
        GaussianMixture(means, 4 * 0.2, q.weights),
    )
    expected = -0.5 * (
        F.conditional_log_scalar_cost(p, q) + F.conditional_log_scalar_cost(wide_p, wide_q)
    )
    assert float(ConditionalScalarCost(wide=4.0)(p, q)) == pytest.approx(float(expected), rel=1e-6)
    with pytest.raises(InputError, match="wide must be 1 or more"):
        ConditionalScalarCost(wide=0.5)
