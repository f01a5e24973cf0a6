"""Gradients of the objectives: finite differences, closed forms, and inputs that strain them."""

import numpy as np
import pytest
import torch

from hilbound import functional as F
from hilbound.engine import gram
from hilbound.mixture import GaussianMixture
from support import oracles
from support.oracles import as_dense, random_mixture
from support.strategies import KINDS, normal, variance_of


def shifted(m, shift):
    return GaussianMixture(m.means + shift, m.component_variance, m.weights)


def two_conditions(m):
    """The mixture, and the same twice as wide: a batch of two."""
    weights = m.weights.expand(2, -1)
    return GaussianMixture(torch.stack([m.means, 2 * m.means]), m.component_variance, weights)


COSTS = {
    "fidelity": F.fidelity,
    "log_fidelity": F.log_fidelity,
    "log_scalar_cost": F.log_scalar_cost,
    "cauchy_schwarz_divergence": F.cauchy_schwarz_divergence,
    "negative_log_likelihood": lambda p, q: F.negative_log_likelihood(p.means, q),
    "log_vector_cost": F.log_vector_cost,
    "schur_cost": F.schur_cost,
    "trace_overlap": lambda p, q: F.trace_overlap(p.select(slice(0, q.components)), q),
    "schatten_overlap": lambda p, q: F.schatten_overlap(p, q, 0.7),
    "debiased_fidelity": lambda p, q: F.debiased_fidelity(
        p, shifted(p, -0.4), q, shifted(q, 0.3), 0.35
    ),
    "distance_nuclear_norm": lambda p, q: F.distance_nuclear_norm(p.means, q.means),
    "conditional_log_scalar_cost": lambda p, q: F.conditional_log_scalar_cost(
        two_conditions(p), two_conditions(q)
    ),
}
TWICE = ["log_scalar_cost", "log_vector_cost", "schur_cost", "trace_overlap"]


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 2)])
def test_gradients_are_those_of_finite_differences(name, kind, n, m):
    cost, leaves = differentiable(name, kind, n, m)
    assert torch.autograd.gradcheck(cost, leaves)


@pytest.mark.parametrize("name", TWICE)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 2)])
def test_second_derivatives_are_those_of_finite_differences(name, kind, n, m):
    """Where the spectrum decides, there is one derivative only; these have two."""
    assert torch.autograd.gradgradcheck(*differentiable(name, kind, n, m))


def differentiable(name, kind, n, m):
    """A cost as a function of every number of both mixtures, and these numbers."""
    d = 2
    p = random_mixture(0, n, d, variance=variance_of(kind, n, d))
    q = random_mixture(1, m, d, variance=variance_of(kind, m, d))
    leaves = [a.means for a in (p, q)] + [a.component_variance for a in (p, q)]
    leaves = [a.clone().requires_grad_() for a in (*leaves, p.weights, q.weights)]

    def cost(x, y, v, w, a, b):
        return COSTS[name](GaussianMixture(x, v, a), GaussianMixture(y, w, b))

    if name == "negative_log_likelihood":
        leaves[2].requires_grad_(False)
        leaves[4].requires_grad_(False)
    return cost, leaves


def test_gradients_of_distances_whose_matrix_lacks_rank():
    """Of 20 and 15 points of the plane it has 4 singular values; the rest must stay silent."""
    leaves = (normal(0, 20, 2).requires_grad_(), normal(1, 15, 2).requires_grad_())
    assert torch.autograd.gradcheck(F.distance_nuclear_norm, leaves)


def test_gradients_of_streamed_costs(monkeypatch):
    p, q = random_mixture(0, 9, 3), random_mixture(1, 7, 3)
    for cost in (COSTS["log_scalar_cost"], COSTS["negative_log_likelihood"]):
        gradients = []
        for pairs in (2**24, 8):
            monkeypatch.setattr(gram, "_BLOCK_PAIRS", pairs)
            y = q.means.clone().requires_grad_()
            cost(p, GaussianMixture(y, 0.5)).backward()
            gradients.append(y.grad)
        assert torch.allclose(*gradients, rtol=1e-11, atol=1e-14)


def points(kind, d=3):
    x = normal(0, 6, d)
    y = {
        "collapse": x.mean(0).expand(6, d),
        "collapse on a point": x[:1].expand(6, d),
        "duplicates": torch.cat([x[:3], x[:3]]),
        "identical": x,
        "overlaps of 1e-30": x + 6.8,
        "far": x + 30,
        "farther than float64": x + 1e4,
        "one centre": x[:1] + 0.1,
        "on a line": normal(1, 6, 1) * torch.ones(d).double(),
        # The corners of a simplex: all singular values but one agree.
        "repeated": torch.eye(6, d).double(),
    }[kind]
    return (torch.eye(6, d).double() if kind == "repeated" else x), y


STRAINS = [
    "collapse",
    "collapse on a point",
    "duplicates",
    "identical",
    "overlaps of 1e-30",
    "far",
    "farther than float64",
    "one centre",
    "on a line",
    "repeated",
]


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("strain", STRAINS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("zeros", [False, True])
def test_gradients_stay_finite(name, strain, dtype, zeros):
    x, y = points(strain)
    x, y = x.to(dtype), y.to(dtype).clone().requires_grad_()
    v = torch.full((len(y), 1), 0.5, dtype=dtype, requires_grad=True)
    weights = torch.ones(len(y), dtype=dtype)
    weights[1:3] = 0 if zeros else 1
    weights.requires_grad_()
    cost = COSTS[name](GaussianMixture(x, 0.5), GaussianMixture(y, v, weights))
    cost.backward()
    assert torch.isfinite(cost)
    for leaf in (y, v, weights):
        # The cost of distances knows of points alone.
        assert leaf.grad is None or torch.isfinite(leaf.grad).all()
    assert y.grad is not None


@pytest.mark.parametrize("distance", [12.0, 40.0, 1e3])
def test_mixtures_far_apart_still_pull_at_each_other(distance):
    """Overlaps of 1e-31, 1e-347 and 1e-217147: the pull is the displacement."""
    x, y = torch.zeros(1, 1).double(), torch.tensor([[distance]]).double().requires_grad_()
    p, q = GaussianMixture(x, 0.5), GaussianMixture(y, 0.5)
    log_fidelity = F.log_fidelity(p, q)
    assert log_fidelity.item() == pytest.approx(-(distance**2) / 2)
    for cost, factor in ((log_fidelity, 1), (F.log_scalar_cost(p, q), 2)):
        (gradient,) = torch.autograd.grad(cost, y)
        assert gradient.item() == pytest.approx(-factor * distance)


def test_the_gradient_of_the_fidelity_is_the_polar_factor():
    p, q = random_mixture(0, 5, 3), random_mixture(1, 4, 3)
    y = q.means.clone().requires_grad_()
    F.fidelity(p, GaussianMixture(y, 0.5, q.weights)).backward()
    a = oracles.cross_gram(as_dense(p), as_dense(q))
    u, _, vh = np.linalg.svd(a, full_matrices=False)
    pull = (u @ vh) * a  # dF/dA dA/d(log k); log k = -|x - y|^2 / 2 for variances of one half
    x, y0 = p.means.numpy(), q.means.numpy()
    expected = np.einsum("ij,ijc->jc", pull, x[:, None] - y0[None])
    np.testing.assert_allclose(y.grad, expected, rtol=1e-9, atol=1e-12)


def test_drop_silences_the_tail_of_the_gradient_and_not_the_value():
    p, q = random_mixture(0, 6, 2, weighted=False), random_mixture(1, 6, 2, weighted=False)
    values, gradients = [], []
    for drop in (None, 0.0, 0.2, 1.0):
        y = q.means.clone().requires_grad_()
        value = F.fidelity(p, GaussianMixture(y, 0.5), drop)
        value.backward()
        values.append(value.item())
        gradients.append(y.grad)
    assert values == pytest.approx([values[0]] * 4, rel=1e-12)
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.allclose(gradients[0], gradients[2], rtol=1e-2)
    assert torch.equal(gradients[3], torch.zeros(6, 2).double())


def test_equality_is_a_stationary_point():
    p = random_mixture(0, 5, 2)
    for function in (F.fidelity, F.log_scalar_cost, F.log_vector_cost, F.schur_cost):
        y = p.means.clone().requires_grad_()
        function(p, GaussianMixture(y, 0.5, p.weights)).backward()
        assert y.grad.abs().max() < 1e-9


@pytest.mark.parametrize("cost", [F.fidelity, F.log_scalar_cost])
def test_ascent_finds_the_points_whatever_the_order(cost, generator):
    p = GaussianMixture(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), 0.25)
    y = torch.randn(3, 2, generator=generator).add(0.7).requires_grad_()
    optimizer = torch.optim.Adam([y], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (-cost(p, GaussianMixture(y, 0.25))).backward()
        optimizer.step()
    assert F.cauchy_schwarz_divergence(p, GaussianMixture(y.detach(), 0.25)) < 5e-4


@pytest.mark.parametrize("small", [1e-38, 1e-40, 1e-45, 0.0])
def test_weights_that_a_softmax_nearly_lost_leave_gradients_finite(small):
    """The point sits on the lost component: the quotient of its density and weight is large."""
    weights = torch.tensor([1.0, small], requires_grad=True)
    q = GaussianMixture(torch.tensor([[1e3], [0.0]]), 0.5, weights)
    F.negative_log_likelihood(torch.zeros(1, 1), q).backward()
    assert torch.isfinite(weights.grad).all()
