"""Mixtures with full covariances against scipy, quadrature and their diagonal kin."""

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given

from hilbound import FullGaussianMixture, InputError
from support.full_mixtures import random_full
from support.oracles import random_mixture

POINT = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)


def scipy_log_prob(q, points):
    """The log density of a full mixture without a batch at (n, d), by scipy."""
    parts = zip(q.weights, q.means, q.component_covariance, strict=True)
    density = sum(
        float(b) * scipy.stats.multivariate_normal(m.numpy(), s.numpy()).pdf(points)
        for b, m, s in parts
    )
    with np.errstate(divide="ignore"):  # far out there is none
        return np.log(density)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_full_densities_are_those_of_scipy(dim, generator):
    q = random_full(8, 3, dim)
    x = 2 * torch.randn(20, dim, generator=generator, dtype=torch.float64)
    np.testing.assert_allclose(q.log_prob(x).numpy(), scipy_log_prob(q, x.numpy()), rtol=1e-10)


def test_full_inner_products_are_integrals():
    p, q = random_full(9, 2, 2), random_full(10, 3, 2)
    axis = np.linspace(-20, 20, 801)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    for one, other in ((p, q), (p, p)):
        product = np.exp(scipy_log_prob(one, grid) + scipy_log_prob(other, grid))
        expected = product.sum() * (axis[1] - axis[0]) ** 2
        assert float(one.log_inner(other).exp()) == pytest.approx(expected, rel=1e-8)
    assert float(p.renyi_entropy()) == float(-p.log_norm()) == float(-p.log_inner(p))


def test_full_inner_products_stream(monkeypatch):
    p, q = random_full(11, 5, 3), random_full(12, 4, 3)
    whole = p.log_inner(q)
    monkeypatch.setattr("hilbound.mixture.full._BLOCK_ENTRIES", 2 * 4 * 3 * 3)
    torch.testing.assert_close(p.log_inner(q), whole, rtol=1e-14, atol=0)
    torch.testing.assert_close(q.log_inner(p), whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(1,), (3, 1), (3, 3)])
def test_a_full_mixture_with_diagonal_covariances_is_the_diagonal_one(shape):
    p, q = random_mixture(13, 3, 3, variance=shape), random_mixture(14, 3, 3, variance=(3, 3))
    full = FullGaussianMixture.from_diagonal(p)
    torch.testing.assert_close(full.log_prob(POINT), p.log_prob(POINT))
    torch.testing.assert_close(full.mean, p.mean)
    torch.testing.assert_close(full.variance, p.variance)
    torch.testing.assert_close(full.log_norm(), p.log_norm())
    torch.testing.assert_close(full.log_inner(q), p.log_inner(q))
    mine, theirs = full.condition([1], POINT[:1]), p.condition([1], POINT[:1])
    torch.testing.assert_close(mine.log_weights, theirs.log_weights)
    torch.testing.assert_close(mine.means, theirs.means)


@given(st.integers(0, 999))
def test_full_inner_products_do_not_know_a_rotation(seed):
    p, q = random_full(seed, 2, 3), random_full(seed + 1, 3, 3)
    turn, _ = torch.linalg.qr(random_full(seed + 2, 1, 3).component_covariance[0])
    turned = [
        FullGaussianMixture(m.means @ turn.mT, turn @ m.component_covariance @ turn.mT, m.weights)
        for m in (p, q)
    ]
    torch.testing.assert_close(turned[0].log_inner(turned[1]), p.log_inner(q))
    assert float(2 * p.log_inner(q) - p.log_norm() - q.log_norm()) <= 1e-12


def test_full_batches_are_loops(generator):
    p, q = random_full(15, 2, 2, batch=(3,)), random_full(16, 4, 2, batch=(3,))
    x = torch.randn(5, 3, 2, generator=generator, dtype=torch.float64)
    inner, density = p.log_inner(q), p.log_prob(x)
    assert (inner.shape, density.shape) == ((3,), (5, 3))
    for b in range(3):
        one, other = (
            FullGaussianMixture(m.means[b], m.component_covariance[b], m.weights[b]) for m in (p, q)
        )
        torch.testing.assert_close(inner[b], one.log_inner(other))
        torch.testing.assert_close(density[:, b], one.log_prob(x[:, b]))


def test_full_gradients(generator):
    means = torch.randn(2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    root = torch.randn(2, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.4, 0.6], dtype=torch.float64, requires_grad=True)
    y, other = torch.tensor([0.3], dtype=torch.float64), random_full(17, 2, 2)

    def values(means, root, b):
        covariance = root @ root.mT + torch.eye(2, dtype=torch.float64)
        q = FullGaussianMixture(means, covariance, b, validate_args=False)
        return q.log_inner(other), q.log_norm(), q.condition([0], y).mean

    assert torch.autograd.gradcheck(values, (means, root, b))


def test_full_components_of_weight_zero_are_not_there():
    q = random_full(18, 2, 2)
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64)
    one = FullGaussianMixture(q.means[:1], q.component_covariance[:1])
    both = FullGaussianMixture(q.means, q.component_covariance, weights)
    torch.testing.assert_close(both.log_norm(), one.log_norm())
    torch.testing.assert_close(both.log_prob(q.means[1]), one.log_prob(q.means[1]))


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (torch.eye(3), r"shape \(3, 3\) does not broadcast to \(4, 2, 2\)"),
        (torch.tensor([[1.0, 0.5], [0.0, 1.0]]), "symmetric"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), "positive definite, but 4 of 4 are not"),
        (torch.tensor([[math.nan, 0.0], [0.0, 1.0]]), "finite and symmetric"),
    ],
)
def test_covariances_that_are_refused(covariance, message):
    with pytest.raises(InputError, match=message):
        FullGaussianMixture(torch.zeros(4, 2), covariance)


def test_full_means_weights_and_spaces_that_are_refused():
    with pytest.raises(InputError, match="means must be"):
        FullGaussianMixture(torch.zeros(2), torch.eye(2))
    with pytest.raises(InputError, match="weights must have shape"):
        FullGaussianMixture(torch.zeros(4, 2), torch.eye(2), torch.ones(3))
    with pytest.raises(InputError, match="not negative"):
        FullGaussianMixture(torch.zeros(2, 2), torch.eye(2), torch.tensor([1.0, -1.0]))
    q = FullGaussianMixture(torch.zeros(4, 2), torch.eye(2))
    assert repr(q) == "FullGaussianMixture(components=4, dim=2, batch_shape=())"
    for ask in (lambda: q.log_inner(random_full(0, 1, 3)), lambda: q.log_prob(torch.zeros(3))):
        with pytest.raises(InputError, match="3 coordinates, but this mixture has 2"):
            ask()


def test_the_dtype_follows_the_means():
    q = FullGaussianMixture(torch.zeros(4, 2), torch.eye(2, dtype=torch.float64))
    assert q.sample((3,)).dtype == q.log_norm().dtype == torch.float32
    assert q.condition([0], torch.zeros(1, dtype=torch.float64)).means.dtype == torch.float32
