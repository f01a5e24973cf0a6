"""Samples with gradients, marginals and conditionals, diagonal and full, against scipy."""

import math

import hypothesis.strategies as st
import pytest
import scipy.integrate
import scipy.stats
import torch
from hypothesis import given

from hilbound import FullGaussianMixture, GaussianMixture, InputError
from support.full_mixtures import random_full
from support.oracles import random_mixture


def covariance_of(q):
    """The covariances of the components of either kind of mixture, (K, d, d)."""
    if isinstance(q, FullGaussianMixture):
        return q.component_covariance
    return torch.diag_embed(q.component_variance.expand(q.means.shape))


def make(kind, seed, components=3, dim=3):
    if kind == "full":
        return random_full(seed, components, dim)
    shape = {"scalar": (1,), "component": (components, 1), "diagonal": (components, dim)}[kind]
    return random_mixture(seed, components, dim, variance=shape)


KINDS = ["scalar", "component", "diagonal", "full"]


# ---------------------------------------------------------------------------- marginal, condition


@pytest.mark.parametrize("kind", KINDS)
def test_a_marginal_is_the_integral_over_the_rest(kind):
    q = make(kind, 1, dim=2)
    marginal = q.marginal([1])
    for x in (-1.5, 0.2):
        integral, _ = scipy.integrate.quad(
            lambda t, x=x: float(q.log_prob(torch.tensor([t, x], dtype=torch.float64)).exp()),
            -30,
            30,
            limit=200,
        )
        at = torch.tensor([x], dtype=torch.float64)
        assert float(marginal.log_prob(at).exp()) == pytest.approx(integral, rel=1e-7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dims", [[0], [2, 0], [1, 2], [-1]])
def test_a_conditional_is_the_joint_over_the_marginal(kind, dims, generator):
    q = make(kind, 2)
    rest = [c for c in range(3) if c not in {c % 3 for c in dims}]
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    conditional = q.condition(dims, x[:, dims])
    assert conditional.batch_shape == (7,)
    expected = q.log_prob(x) - q.marginal(dims).log_prob(x[:, dims])
    torch.testing.assert_close(conditional.log_prob(x[:, rest]), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_conditional_density_is_the_quotient_that_scipy_integrates(kind):
    q = make(kind, 3, dim=2)
    y = 0.7

    def joint(t):
        return math.exp(float(q.log_prob(torch.tensor([y, t], dtype=torch.float64))))

    evidence, _ = scipy.integrate.quad(joint, -30, 30, limit=200)
    first, _ = scipy.integrate.quad(lambda t: t * joint(t), -30, 30, limit=200)
    conditional = q.condition([0], torch.tensor([y], dtype=torch.float64))
    assert conditional.batch_shape == ()
    assert float(conditional.mean) == pytest.approx(first / evidence, rel=1e-7)
    at = torch.tensor([0.1], dtype=torch.float64)
    assert float(conditional.log_prob(at).exp()) == pytest.approx(joint(0.1) / evidence, rel=1e-7)


@given(st.integers(0, 999), st.permutations([0, 1, 2, 3]), st.integers(1, 3), st.booleans())
def test_conditioning_step_by_step_is_conditioning_at_once(seed, order, cut, full):
    q = random_full(seed, 2, 4) if full else random_mixture(seed, 2, 4, variance=(2, 4))
    dims = order[:cut]
    values = torch.linspace(-1, 1, 4, dtype=torch.float64)[dims]
    at_once, left = q.condition(dims, values), list(range(4))
    for c, value in zip(dims, values, strict=True):
        q = q.condition([left.index(c)], value.reshape(1))
        left.remove(c)
    torch.testing.assert_close(q.means, at_once.means)
    torch.testing.assert_close(covariance_of(q), covariance_of(at_once))
    torch.testing.assert_close(q.log_weights, at_once.log_weights)


@pytest.mark.parametrize("full", [False, True])
def test_a_marginal_of_a_batch_and_the_order_of_its_coordinates(full):
    singles = [make("full" if full else "diagonal", seed) for seed in (4, 5)]
    means = torch.stack([q.means for q in singles])
    weights = torch.stack([q.weights for q in singles])
    spread = [q.component_covariance if full else q.component_variance for q in singles]
    kind = FullGaussianMixture if full else GaussianMixture
    q = kind(means, torch.stack(spread), weights)
    marginal, values = q.marginal((2, 0)), torch.tensor([[0.5], [-0.5]], dtype=torch.float64)
    crossed = q.condition([1], values.unsqueeze(1))  # (2, 1, 1) against a batch of 2
    assert crossed.batch_shape == (2, 2)
    point = torch.tensor([0.3, -0.1], dtype=torch.float64)
    for b, single in enumerate(singles):
        expected = single.marginal([0, 2]).log_prob(point.flip(0))
        torch.testing.assert_close(marginal.log_prob(point)[b], expected)
        for i, value in enumerate(values):
            alone = single.condition([1], value).log_prob(point)
            torch.testing.assert_close(crossed.log_prob(point)[i, b], alone)


def test_weights_of_a_conditional_stay_logarithms():
    q = GaussianMixture(torch.tensor([[0.0, 0.0], [100.0, 3.0]]), 1.0)
    conditional = q.condition([0], torch.tensor([0.0]))
    assert float(conditional.log_weights[1]) == pytest.approx(-5000, rel=1e-6)
    # Far out the component rules whose weight is no number in float32.
    far = conditional.log_prob(torch.tensor([5000.0]))
    normal = scipy.stats.norm(3.0).logpdf(5000.0)
    assert float(far) == pytest.approx(normal - 5000, rel=1e-6)
    # And it survives all that a mixture can be asked for.
    for other in (conditional.marginal([0]), conditional.expand((2,)), conditional):
        assert (other.log_weights[..., 1] < -4999).all()
    assert float(conditional.select(slice(0, 1)).log_weights) == 0.0


def test_conditional_weights_keep_their_digits_in_high_dimension(generator):
    d = 3072
    x = torch.randn(5, d + 1, generator=generator, dtype=torch.float64).float()
    q = GaussianMixture(x, 50.0)
    y = x[0, :d] + 0.01
    exact = -((y.double() - x[:, :d].double()) ** 2).sum(-1) / 100
    got = q.condition(range(d), y).log_weights.double()
    torch.testing.assert_close(got, exact.log_softmax(0), rtol=1e-6, atol=1e-6)


def test_conditional_gradients(generator):
    means = torch.randn(3, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    v = torch.full((3, 2), 0.7, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[0.1], [2.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64, requires_grad=True)

    def mean(means, v, b, y):
        q = GaussianMixture(means, v, b, validate_args=False)
        return q.condition([1], y).mean, q.condition([1], y).log_norm()

    assert torch.autograd.gradcheck(mean, (means, v, b, y))


BAD_DIMS = [
    ([], "one or more of the 3"),
    ([3], "0 to 2"),
    ([-4], "0 to 2"),
    ([1, 1], "once"),
    ([1, -2], "once"),
    ([0.5], "whole numbers"),
    (1, "whole numbers"),
    ("01", "whole numbers"),
]


@pytest.mark.parametrize("kind", ["diagonal", "full"])
@pytest.mark.parametrize(("dims", "message"), BAD_DIMS)
def test_dims_that_are_refused(kind, dims, message):
    q = make(kind, 0)
    with pytest.raises(InputError, match=message):
        q.marginal(dims)
    with pytest.raises(InputError, match=message):
        q.condition(dims, torch.zeros(1))


@pytest.mark.parametrize("kind", ["diagonal", "full"])
def test_values_that_are_refused(kind):
    q = make(kind, 0)
    with pytest.raises(InputError, match=r"values must have shape \(\*, 2\).*got \(3,\)"):
        q.condition([0, 1], torch.zeros(3))
    with pytest.raises(InputError, match=r"got \(\)"):
        q.condition([0], torch.tensor(1.0))
    with pytest.raises(InputError, match="all 3 coordinates"):
        q.condition([0, 1, 2], torch.zeros(3))
    with pytest.raises(InputError, match="finite and near enough"):
        q.condition([0], torch.tensor([math.nan]))
    batched = random_full(0, 2, 3, batch=(2,))
    batched = batched if kind == "full" else GaussianMixture(batched.means, 1.0)
    with pytest.raises(InputError, match=r"batch shape \(2,\), got \(3, 1\)"):
        batched.condition([0], torch.zeros(3, 1))


def test_values_out_of_the_range_of_the_dtype_are_refused():
    q = GaussianMixture(torch.zeros(2, 2), 1.0)
    with pytest.raises(InputError, match=r"a number in torch\.float32"):
        q.condition([0], torch.tensor([1e30]))


# ---------------------------------------------------------------------------- samples


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [(0,), (3, 0), (0, 2)])
def test_no_points(kind, n):
    q = make(kind, 0)
    none = q.sample(n)
    assert none.shape == (*n, 3)
    assert q.log_prob(none).shape == n


def test_no_points_send_gradients_of_zero():
    means = torch.ones(2, 3, requires_grad=True)
    q = GaussianMixture(means, 0.5)
    q.log_prob(torch.empty(0, 3)).sum().backward()
    assert torch.equal(means.grad, torch.zeros(2, 3))
    assert q.rsample((0,)).shape == (0, 3)
    batch = GaussianMixture(torch.zeros(4, 2, 3), 0.5)
    assert batch.log_prob(torch.empty(0, 1, 3)).shape == (0, 4)
    assert GaussianMixture(torch.empty(0, 2, 3), 0.5).sample((5,)).shape == (5, 0, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_conditional_samples_are_the_samples_of_the_joint_near_the_value(kind, generator):
    q = make(kind, 6, dim=2)
    x = q.sample((400_000,), generator=generator)
    near = x[(x[:, 0] - 0.2).abs() < 0.02, 1]
    samples = q.condition([0], torch.tensor([0.2], dtype=torch.float64)).sample(
        (20_000,), generator=generator
    )
    assert len(near) > 1000
    assert scipy.stats.ks_2samp(near.numpy(), samples[:, 0].numpy()).pvalue > 1e-3


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_samples_of_a_batch_follow_their_own_mixture(batch, generator):
    q = random_full(7, 3, 2, batch=batch)
    x = q.sample((40_000,), generator=generator)
    assert x.shape == (40_000, *batch, 2)
    apart = x - x.mean(0)
    covariance = (apart.unsqueeze(-1) * apart.unsqueeze(-2)).mean(0)
    scale = float(q.covariance.abs().max())
    torch.testing.assert_close(x.mean(0), q.mean, rtol=0, atol=0.03 * scale**0.5 + 0.01)
    torch.testing.assert_close(covariance, q.covariance, rtol=0, atol=0.05 * scale)
    torch.testing.assert_close(q.variance, q.covariance.diagonal(dim1=-2, dim2=-1))


def test_rsample_is_sample_with_a_gradient():
    q = GaussianMixture(torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), 0.5)
    draws = [
        draw((5,), generator=torch.Generator().manual_seed(1)) for draw in (q.sample, q.rsample)
    ]
    assert torch.equal(*draws)
    assert not q.has_rsample
    means = torch.zeros(2, 1, requires_grad=True)
    assert GaussianMixture(means, 1.0).rsample((3,)).requires_grad
    assert not GaussianMixture(means, 1.0).sample((3,)).requires_grad


@pytest.mark.parametrize("shape", [(), (1,), (3, 1), (2,), (3, 2), (2, 1, 1), (2, 3, 2)])
def test_rsample_passes_gradcheck_at_fixed_noise(shape):
    means = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    v = torch.full(shape, 0.8, dtype=torch.float64)

    def draw(means, v):
        q = GaussianMixture(means, v, torch.tensor([1.0, 2.0, 3.0]), validate_args=False)
        return q.rsample((4,), generator=torch.Generator().manual_seed(3))

    assert torch.autograd.gradcheck(draw, (means.requires_grad_(), v.requires_grad_()))


def test_rsample_estimates_the_gradients_of_moments(generator):
    # E x = sum b m and E x^2 = sum b (m^2 + v), so dE x^2/dm = 2 b m and dE x^2/dv = b.
    means = torch.tensor([[-1.0], [0.5], [2.0]], dtype=torch.float64, requires_grad=True)
    v = torch.tensor([[0.3], [1.0], [0.5]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64, requires_grad=True)
    x = GaussianMixture(means, v, b).rsample((200_000,), generator=generator)
    first = torch.autograd.grad(x.mean(), means, retain_graph=True)[0]
    torch.testing.assert_close(first.squeeze(-1), b.detach(), rtol=0, atol=0.005)
    by_mean, by_variance = torch.autograd.grad(x.square().mean(), (means, v), retain_graph=True)
    expected = 2 * b.detach() * means.detach().squeeze(-1)
    torch.testing.assert_close(by_mean.squeeze(-1), expected, rtol=0, atol=0.015)
    torch.testing.assert_close(by_variance.squeeze(-1), b.detach(), rtol=0, atol=0.01)
    assert torch.autograd.grad(x.sum(), b, allow_unused=True)[0] is None
