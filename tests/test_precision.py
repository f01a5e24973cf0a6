"""Digits in float32: images of 784 pixels, and hundreds of centres that nearly coincide."""

import math
import warnings
from itertools import pairwise

import pytest
import torch

from hilbound import functional as F
from hilbound.bounds import marginal_bound
from hilbound.mixture import GaussianMixture, precise_log_inner
from support.oracles import as_dtype
from support.strategies import normal

N, D = 40, 784


def two_conditions(m):
    return GaussianMixture(torch.stack([m.means, m.means.roll(1, 0)]), 1.0)


def log_mean(log_values):
    return torch.logsumexp(log_values.double(), 0) - math.log(len(log_values))


def precise_log_limit(p):
    return log_mean(precise_log_inner(p, p))


# Every cost as a plain number; a logarithm of thousands as its distance from the limit, too.
COSTS = {
    "fidelity": F.fidelity,
    "fidelity of the logarithm": lambda p, q: F.log_fidelity(p, q).exp(),
    "trace": F.trace_overlap,
    "schatten": lambda p, q: F.schatten_overlap(p, q, 0.7),
    "debiased": lambda p, q: F.debiased_fidelity(
        p.select(slice(0, 20)), p.select(slice(20, 40)), q.select(slice(0, 20)), q, 0.5
    ),
    "schur": F.schur_cost,
    "distance": lambda p, q: F.distance_nuclear_norm(p.means, q.means),
    "scalar": F.log_scalar_cost,
    "vector": F.log_vector_cost,
    "likelihood": lambda p, q: F.negative_log_likelihood(p.means, q),
    "conditional": lambda p, q: F.conditional_log_scalar_cost(two_conditions(p), two_conditions(q)),
    "divergence": F.cauchy_schwarz_divergence,
    "tightness": lambda p, q: marginal_bound(p, q).tightness,
    "tightness of the vector cost": lambda p, q: (
        F.log_vector_cost(p, q) - precise_log_inner(p, p)
    ).exp(),
}


def images(dtype):
    """Points apart as white noise is, and centres a fraction of the kernel's width from them."""
    x = normal(0, N, D)
    p = GaussianMixture(x, 1.0, 0.5 + normal(1, N).abs())
    q = GaussianMixture(x + 1.5 / math.sqrt(D) * normal(2, N, D), 1.0, 0.5 + normal(3, N).abs())
    # From the float32 numbers in both precisions: their own rounding is not the costs'.
    return tuple(as_dtype(as_dtype(m, torch.float32), dtype) for m in (p, q))


@pytest.mark.parametrize("name", COSTS)
def test_every_cost_of_images_keeps_its_digits(name):
    exact = float(COSTS[name](*images(torch.float64)))
    assert float(COSTS[name](*images(torch.float32))) == pytest.approx(exact, rel=1e-5, abs=0)
    # None of them is a zero or a one that any precision would get right.
    assert abs(exact) > 1e-3
    assert abs(exact - 1) > 1e-3


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("name", COSTS)
def test_gradients_of_images_agree(name, offset):
    gradients = []
    for dtype in (torch.float32, torch.float64):
        p, q = images(dtype)
        p = GaussianMixture(p.means + offset, 1.0, p.weights)
        y = (q.means + offset).requires_grad_()
        (gradient,) = torch.autograd.grad(COSTS[name](p, GaussianMixture(y, 1.0, q.weights)), y)
        gradients.append(gradient.double())
    error = torch.linalg.vector_norm(gradients[0] - gradients[1])
    # Adding the offset rounds points to 4e-6 of the kernel's width and less.
    assert float(error / torch.linalg.vector_norm(gradients[1])) < 1e-4


# ------------------------------------------------------------------ centres that nearly coincide


def crowd(spread, d):
    """A hundred points, and three hundred centres in a crowd of them."""
    return normal(0, 100, d).float(), (0.3 + spread * normal(1, 300, d)).float()


def value_and_gradient(cost, x, y, drop):
    y = y.clone().requires_grad_()
    value = cost(GaussianMixture(x, 0.5), GaussianMixture(y, 0.5), drop)
    return float(value.detach()), torch.autograd.grad(value, y)[0].double().flatten()


@pytest.mark.parametrize("cost", [F.log_vector_cost, F.schur_cost])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 1e-1, 1.0])
@pytest.mark.parametrize("d", [2, 10])
def test_a_crowd_is_pulled_in_the_right_direction(cost, spread, d):
    x, y = crowd(spread, d)
    # The default in float32, and what it must not be without.
    drop = 300 * torch.finfo(torch.float32).eps
    value, gradient = value_and_gradient(cost, x, y, None)
    exact, expected = value_and_gradient(cost, x.double(), y.double(), drop)
    assert value == pytest.approx(exact, rel=1e-4)
    assert expected.norm() > 1e-6
    assert float(torch.cosine_similarity(gradient, expected, 0)) > 0.9
    assert float(gradient.norm() / expected.norm()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("cost", [F.log_vector_cost, F.schur_cost])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0.0, 1e-2, 1.0])
def test_of_a_crowd_drop_only_lowers_the_value(cost, dtype, spread):
    x, y = (a.to(dtype) for a in crowd(spread, 3))
    drops = [3e-5, 1e-3, 1e-2, 0.1, 0.5]
    values = [value_and_gradient(cost, x, y, drop)[0] for drop in drops]
    # The kernel's own rounding, divided by the root of the least eigenvalue that is kept.
    rounding = torch.finfo(dtype).eps / math.sqrt(drops[0])
    for more, less in pairwise(values):
        assert less <= more + rounding
    whole = value_and_gradient(cost, x.double(), y.double(), 1e-12)[0]
    assert values[0] <= whole + rounding


@pytest.mark.parametrize("spread", [0.0, 1e-3, 1e-1, 1.0])
def test_a_crowd_does_not_pass_the_limits_in_float32(spread):
    """As far as float32 kernels can tell: 1e-7 over the root of the line, of 3e-5."""
    _, y = crowd(spread, 3)
    p = GaussianMixture(y, 0.5)
    assert float(F.schur_cost(p, p)) <= 1 + 1e-5
    assert float(F.log_vector_cost(p, p)) <= float(precise_log_inner(p, p)) + 1e-5
    assert float(F.schur_cost(p, p)) > 0.99


# ------------------------------------------------------------------ fewer bits than float32


@pytest.fixture
def few_bits():
    """The setting of users who want speed; it is everybody's, so it is put back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("few_bits")
@pytest.mark.parametrize("name", COSTS)
def test_costs_keep_their_digits_where_products_may_have_ten_bits(name):
    exact = float(COSTS[name](*images(torch.float64)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.set_float32_matmul_precision allows")
        value = float(COSTS[name](*images(torch.float32)))
    assert value == pytest.approx(exact, rel=1e-5, abs=0)
