"""The modules: a loss to minimise, its limit, and the table that the command line reads."""

import math

import pytest
import torch
from torch import nn

import oracles
from hilbound import functional as F
from hilbound.mixture import GaussianMixture
from hilbound.objectives import OBJECTIVES, Likelihood, NuclearNorm, Objective, ScalarCost
from oracles import as_dense, as_dtype, random_mixture

NAMES = sorted(OBJECTIVES)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_names_of_the_table():
    assert OBJECTIVES["nuclear"] is NuclearNorm
    assert OBJECTIVES["scalar"] is ScalarCost
    assert OBJECTIVES["likelihood"] is Likelihood


def test_the_base_is_not_an_objective(generator):
    p = random_mixture(0, 3, 2)
    with pytest.raises(NotImplementedError):
        Objective()(p, p)
    with pytest.raises(NotImplementedError):
        Objective().bound(p, p, generator)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_every_objective_gives_a_loss_and_a_bound(name, dtype, batch):
    objective = OBJECTIVES[name]()
    assert isinstance(objective, nn.Module)
    p, q = (as_dtype(random_mixture(i, 5, 3), dtype).expand(batch) for i in range(2))
    loss, bound = objective(p, q), objective.bound(p, q, seeded(0))
    assert loss.dtype == dtype
    assert loss.shape == bound.gap.shape == batch
    assert torch.isfinite(loss).all()
    assert torch.isfinite(bound.gap).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_prefers_the_data_to_a_collapse_and_the_bound_agrees(name):
    objective = OBJECTIVES[name]()
    p = random_mixture(0, 200, 2, spread=4.0, weighted=False)
    collapsed = GaussianMixture(p.mean.expand(200, 2), 0.5)
    assert float(objective(p, p)) < float(objective(p, collapsed)) - 0.1
    same, worse = (objective.bound(p, q, seeded(1)) for q in (p, collapsed))
    assert float(same.gap) == pytest.approx(0, abs=1e-10)
    assert float(worse.gap) > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_has_a_gradient(name):
    p, q = random_mixture(0, 5, 3), random_mixture(1, 4, 3)
    y = q.means.clone().requires_grad_()
    OBJECTIVES[name]()(p, GaussianMixture(y, 0.5)).backward()
    assert torch.isfinite(y.grad).all()
    assert y.grad.abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_kernels_share_their_variance_as_the_objective_says(name):
    objective = OBJECTIVES[name]()
    assert objective.component_variance(3.0) * objective.smoothed == 3.0
    assert objective.smoothed == (1 if name == "likelihood" else 2)
    assert isinstance(objective.cost_name, str)


def test_readable_costs():
    assert NuclearNorm.readable(math.log(0.5)) == pytest.approx(0.5)
    assert ScalarCost.readable(-1234.5) == -1234.5
    assert Likelihood.readable(-2.0) == -2.0


def test_losses_are_minus_the_costs():
    p, q = random_mixture(0, 5, 3), random_mixture(1, 4, 3)
    a, b = as_dense(p), as_dense(q)
    assert float(NuclearNorm()(p, q)) == pytest.approx(-oracles.fidelity(a, b))
    assert float(ScalarCost()(p, q)) == pytest.approx(-oracles.log_scalar_cost(a, b))


def test_bounds_of_closed_form():
    p, q = random_mixture(0, 5, 3), random_mixture(1, 4, 3)
    a, b = as_dense(p), as_dense(q)
    nuclear, scalar = NuclearNorm().bound(p, q), ScalarCost().bound(p, q)
    assert float(nuclear.tightness) == pytest.approx(oracles.fidelity(a, b))
    assert float(nuclear.log_limit) == 0
    assert float(scalar.log_value) == pytest.approx(oracles.log_scalar_cost(a, b))
    assert float(scalar.log_limit) == pytest.approx(oracles.log_inner(a, a))


def test_drop_reaches_the_gradient():
    p, q = random_mixture(0, 5, 3), random_mixture(1, 5, 3)
    gradients = []
    for drop in (None, 1.0):
        y = q.means.clone().requires_grad_()
        objective = NuclearNorm(drop=drop)
        objective(p, GaussianMixture(y, 0.5)).backward()
        gradients.append(y.grad.abs().max())
    assert gradients[0] > 1e-3
    assert gradients[1] == 0


def test_the_likelihood_is_that_of_the_points_by_their_weights():
    means, weights = random_mixture(0, 3, 2).means, torch.tensor([1.0, 2.0, 0.0]).double()
    q = random_mixture(1, 4, 2)
    p = GaussianMixture(means, 0.5, weights)
    repeated = means[[0, 1, 1]]
    expected = F.negative_log_likelihood(repeated, q)
    assert float(Likelihood()(p, q)) == pytest.approx(float(expected))
    blurred = GaussianMixture(means, 50.0, weights)
    assert float(Likelihood()(blurred, q)) == float(Likelihood()(p, q))


def test_the_gap_of_the_likelihood_estimates_the_divergence():
    n, m = torch.tensor([[1.0, 0.0, -0.5]]), torch.zeros(1, 3)
    v, w = 0.5, 1.2
    p = GaussianMixture(n.expand(1000, 40, 3), v)
    q = GaussianMixture(m.expand(1000, 1, 3), w)
    gap = Likelihood().bound(p, q, seeded(0)).gap.mean()
    expected = oracles.gaussian_divergence(n, v, m, w)
    # The log ratio of both densities has a standard deviation below 1.5, and its mean of 40 000
    # draws one below 0.0075; four of those.
    assert float(gap) == pytest.approx(expected, abs=0.03)
    assert expected > 0.5


def test_the_bound_of_the_likelihood_is_a_function_of_the_generator():
    p, q = random_mixture(0, 5, 3), random_mixture(1, 4, 3)
    first, again, other = (Likelihood().bound(p, q, seeded(i)) for i in (0, 0, 1))
    assert torch.equal(first.log_value, again.log_value)
    assert torch.equal(first.log_limit, again.log_limit)
    assert not torch.equal(first.log_value, other.log_value)
