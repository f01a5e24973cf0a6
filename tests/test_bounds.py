"""A cost beside its limit: the numbers of the oracles, and their digits in float32."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hilbound import functional as F
from hilbound.bounds import Bound, marginal_bound
from hilbound.mixture import GaussianMixture
from support import oracles
from support.oracles import as_dense, as_dtype, random_mixture


def test_gap_and_tightness():
    bound = Bound(torch.tensor([0.0, -1.0, 2.0]), torch.tensor([0.0, 1.0, 2.5]))
    assert bound.gap.tolist() == [0.0, 2.0, 0.5]
    assert bound.tightness.tolist() == pytest.approx([1.0, math.exp(-2), math.exp(-0.5)])


def test_text():
    assert str(Bound(torch.tensor(-2.0), torch.tensor(-1.0))) == "36.8 % of the limit, gap 1"
    learned = torch.tensor(-2.0, requires_grad=True)
    assert str(Bound(learned, torch.tensor(-1.0))) == "36.8 % of the limit, gap 1"


def test_a_bound_does_not_change():
    bound = Bound(torch.tensor(0.0), torch.tensor(0.0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        bound.log_value = torch.tensor(1.0)


def test_costs_that_no_number_holds_are_compared():
    """The cost and its limit are 1e-1077 or so; their ratio is a plain number."""
    p = random_mixture(0, 4, 3072, variance=0.4)
    q = GaussianMixture(p.means + 0.01, 0.4, p.weights)
    bound = marginal_bound(p, q)
    assert float(bound.log_limit) < -2400
    expected = oracles.log_tightness(as_dense(p), as_dense(q))
    assert float(bound.tightness) == pytest.approx(math.exp(expected), rel=1e-9)


@given(
    seed=st.integers(0, 1000),
    d=st.sampled_from([1, 3, 50]),
    variance=st.sampled_from([0.2, (4, 1), (1, 1)]),
)
def test_the_marginal_bound_is_that_of_the_oracle(seed, d, variance):
    p, q = random_mixture(seed, 4, d, variance=variance), random_mixture(seed + 1, 3, d)
    bound, a, b = marginal_bound(p, q), as_dense(p), as_dense(q)
    assert float(bound.log_value) == pytest.approx(oracles.log_scalar_cost(a, b), rel=1e-11)
    assert float(bound.log_limit) == pytest.approx(oracles.log_inner(a, a), rel=1e-11)
    assert float(bound.log_value) <= float(bound.log_limit) + 1e-12
    assert float(bound.log_value) == pytest.approx(float(F.log_scalar_cost(p, q)), rel=1e-11)
    divergence = float(F.cauchy_schwarz_divergence(p, q))
    assert float(bound.gap) == pytest.approx(2 * divergence, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("d", [2, 784, 12288])
@pytest.mark.parametrize("v", [1e-4, 1.0, 1e4])
def test_tightness_keeps_its_digits_in_float32(d, v):
    x = 1e3 * math.sqrt(v) + random_mixture(0, 30, d).means * math.sqrt(v)
    y = x[:25] + 0.5 * math.sqrt(v / d) * random_mixture(1, 25, d).means
    p, q = GaussianMixture(x.float(), v), GaussianMixture(y.float(), v)
    bound = marginal_bound(p, q)
    assert bound.log_value.dtype == bound.log_limit.dtype == torch.float64
    expected = math.exp(oracles.log_tightness(as_dense(p), as_dense(q)))
    assert 0.3 < expected < 0.999
    assert float(bound.tightness) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [2, 784])
def test_the_limit_is_reached_at_equality(dtype, d):
    p = as_dtype(random_mixture(0, 6, d, variance=(6, 1)), dtype)
    assert float(marginal_bound(p, p).gap) == 0
    assert float(marginal_bound(p, p.expand(())).tightness) == pytest.approx(1, abs=1e-5)


def test_batches():
    p, q = random_mixture(0, 5, 2).expand((3,)), random_mixture(1, 4, 2).expand((3,))
    assert marginal_bound(p, q).tightness.shape == (3,)
