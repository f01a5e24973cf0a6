"""The mixture as a distribution: torch's own mixtures, quadrature and loops are the oracles."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hilbound.engine import gram
from hilbound.errors import InputError
from hilbound.mixture import FullGaussianMixture, GaussianMixture
from support import oracles
from support.oracles import as_dense, random_mixture

DTYPES = [torch.float32, torch.float64]
# A number, one for each component, one for each coordinate, one for each of both.
VARIANCES = [0.4, (5, 1), (1, 3), (3,), (5, 3)]


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def batch_of(*mixtures):
    return GaussianMixture(
        torch.stack([q.means for q in mixtures]),
        torch.stack([q.component_variance for q in mixtures]),
        torch.stack([q.weights for q in mixtures]),
    )


# ------------------------------------------------------------------ densities and moments


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("weighted", [True, False])
def test_densities_and_moments_are_those_of_torch(variance, weighted):
    q = random_mixture(0, 5, 3, variance=variance, weighted=weighted)
    theirs, x = oracles.as_torch(q), 2 * normal(1, 20, 3)
    assert torch.allclose(q.log_prob(x), theirs.log_prob(x), rtol=1e-12)
    assert torch.allclose(q.mean, theirs.mean, rtol=1e-12)
    assert torch.allclose(q.variance, theirs.variance, rtol=1e-12)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
@pytest.mark.parametrize("sample", [(), (5,), (2, 5)])
def test_log_prob_of_sample_and_batch_shapes(batch, sample):
    means = normal(0, *batch, 6, 3)
    variance = 0.3 + normal(1, *batch, 6, 1).square()
    q = GaussianMixture(means, variance, normal(2, *batch, 6).square())
    x = normal(3, *sample, *batch, 3)
    ours = q.log_prob(x)
    assert ours.shape == (*sample, *batch)
    assert torch.allclose(ours, oracles.as_torch(q).log_prob(x), rtol=1e-12)


def test_points_broadcast_against_the_batch():
    q = GaussianMixture(normal(0, 4, 6, 3), 0.5)
    one, column = normal(1, 3), normal(2, 5, 1, 3)
    assert torch.allclose(q.log_prob(one), q.log_prob(one.expand(4, 3)))
    assert torch.allclose(q.log_prob(column), q.log_prob(column.expand(5, 4, 3)))


@pytest.mark.parametrize("variance", VARIANCES)
def test_log_prob_in_blocks_is_log_prob(monkeypatch, variance):
    q, x = random_mixture(0, 5, 3, variance=variance), normal(1, 20, 3).requires_grad_()
    whole = q.log_prob(x)
    (gradient,) = torch.autograd.grad(whole.sum(), x)
    monkeypatch.setattr(gram, "_BLOCK_PAIRS", 12)
    blocks = q.log_prob(x)
    assert torch.allclose(blocks, whole, rtol=1e-13)
    assert torch.allclose(torch.autograd.grad(blocks.sum(), x)[0], gradient, rtol=1e-11)


@pytest.mark.parametrize("d", [1, 2, 50, 784, 12288])
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_log_prob_with_an_offset(d, dtype, rel):
    q = random_mixture(0, 4, d, offset=1e3, weighted=False)
    q = oracles.as_dtype(q, dtype)
    x = q.means[:2] + 0.1
    exact = oracles.as_torch(oracles.as_dtype(q, torch.float64)).log_prob(x.double())
    assert q.log_prob(x).tolist() == pytest.approx(exact.tolist(), rel=rel, abs=10 * rel)


def test_components_of_weight_zero_are_not_there():
    means, x = normal(0, 4, 2), normal(1, 6, 2)
    with_zero = GaussianMixture(means, 0.5, torch.tensor([1.0, 0.0, 2.0, 0.0]))
    without = GaussianMixture(means[[0, 2]], 0.5, torch.tensor([1.0, 2.0]))
    assert torch.allclose(with_zero.log_prob(x), without.log_prob(x))
    assert torch.allclose(with_zero.log_norm(), without.log_norm())
    assert torch.allclose(with_zero.mean, without.mean)
    assert torch.allclose(with_zero.variance, without.variance)
    sums = with_zero.log_overlaps(without).exp().sum(-1)
    assert (sums == 0).tolist() == [False, True, False, True]


def test_weights_are_relative():
    means, weights = normal(0, 4, 2), normal(1, 4).square()
    q, scaled = GaussianMixture(means, 0.5, weights), GaussianMixture(means, 0.5, 7e5 * weights)
    assert torch.allclose(q.weights, weights / weights.sum())
    assert torch.allclose(q.weights, scaled.weights)
    assert float(q.weights.sum()) == pytest.approx(1)
    assert GaussianMixture(means, 0.5).weights.tolist() == [0.25] * 4


# ------------------------------------------------------------------ samples


def test_samples_have_the_moments_of_the_mixture(generator):
    n = 40_000
    q = random_mixture(3, 4, 3, variance=(4, 3), spread=2.0)
    x = q.sample((n,), generator=generator)
    # Five standard errors: of a mean it is sqrt(variance / n), of a variance sqrt((m4 - s^4) / n)
    # with the fourth central moment m4. Chance breaks one of six such limits once in 3e5 seeds.
    centred = x - q.mean
    error_of_mean = (q.variance / n).sqrt()
    error_of_variance = ((centred**4).mean(0) - q.variance**2).div(n).sqrt()
    assert ((x.mean(0) - q.mean).abs() < 5 * error_of_mean).all()
    assert ((x.var(0) - q.variance).abs() < 5 * error_of_variance).all()


def test_samples_come_from_components_by_their_weights(generator):
    n, weights = 20_000, torch.tensor([0.1, 0.0, 0.6, 0.3])
    q = GaussianMixture(100.0 * torch.arange(4.0).unsqueeze(-1), 1.0, weights)
    x = q.sample((n,), generator=generator)
    share = torch.bincount((x.squeeze(-1) / 100).round().long(), minlength=4) / n
    assert share[1] == 0
    # Five standard errors of a binomial share.
    assert ((share - weights).abs() <= 5 * (weights * (1 - weights) / n).sqrt()).all()


def test_every_batch_samples_from_its_own_mixture(generator):
    means = torch.tensor([[[0.0], [1.0]], [[50.0], [60.0]], [[-50.0], [-60.0]]])
    q = GaussianMixture(means, 1e-4, torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))
    x = q.sample((200,), generator=generator)
    assert x.shape == (200, 3, 1)
    assert [sorted(set(x[:, i].round().flatten().tolist())) for i in range(3)] == [
        [0.0],
        [50.0, 60.0],
        [-60.0],
    ]


def test_variances_belong_to_their_components(generator):
    means, variance = torch.tensor([[0.0], [1e3]]), torch.tensor([[1e-4], [4.0]])
    x = GaussianMixture(means, variance).sample((20_000,), generator=generator)
    low, high = x[x < 500], x[x > 500]
    # The relative standard error of a Gaussian's variance is sqrt(2 / n), below 0.015 here.
    assert float(low.var()) == pytest.approx(1e-4, rel=0.075)
    assert float(high.var()) == pytest.approx(4.0, rel=0.075)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
@pytest.mark.parametrize("sample", [(), (5,), (2, 5)])
def test_shapes_of_samples(batch, sample):
    q = GaussianMixture(normal(0, *batch, 6, 3).requires_grad_(), 0.5)
    x = q.sample(sample)
    assert x.shape == (*sample, *batch, 3)
    assert not x.requires_grad


def test_a_generator_makes_samples_repeatable():
    q = random_mixture(0, 5, 2)

    def draw(seed):
        return q.sample((10,), generator=torch.Generator().manual_seed(seed))

    before = torch.get_rng_state()
    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert torch.equal(torch.get_rng_state(), before), "the global generator was touched"


# ------------------------------------------------------------------ expand


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("weighted", [True, False])
def test_expand_repeats_the_mixture(variance, weighted):
    q = random_mixture(0, 5, 3, variance=variance, weighted=weighted)
    many, x = q.expand((2, 4)), normal(1, 3)
    assert isinstance(many, GaussianMixture)
    assert (many.batch_shape, many.event_shape) == ((2, 4), (3,))
    assert torch.allclose(many.log_prob(x), q.log_prob(x).expand(2, 4))
    assert torch.allclose(many.log_norm(), q.log_norm().expand(2, 4))
    assert torch.allclose(many.mean, q.mean.expand(2, 4, 3))
    assert many.sample((7,)).shape == (7, 2, 4, 3)


def test_expand_keeps_weights_of_zero_and_their_gradients_finite():
    weights = torch.tensor([1.0, 0.0, 3.0], requires_grad=True)
    many = GaussianMixture(normal(0, 3, 2).float(), 1.0, weights).expand((2,))
    assert many.weights.tolist() == [[0.25, 0.0, 0.75]] * 2
    many.log_norm().sum().backward()
    assert torch.isfinite(weights.grad).all()


def test_expand_of_a_batch():
    q = GaussianMixture(normal(0, 1, 5, 3), 0.5 + normal(1, 1, 5, 1).square())
    assert torch.allclose(q.expand((4,)).log_norm(), q.log_norm().expand(4))


# ------------------------------------------------------------------ inner products


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_inner_products_are_integrals(d, seed):
    p = random_mixture(seed, 3, d, variance=(3, d))
    q = random_mixture(seed + 10, 2, d, variance=(2, 1))
    for a, b in ((p, q), (p, p), (q, q)):
        integral = oracles.quadrature(as_dense(a), as_dense(b))
        assert float(a.log_inner(b).exp()) == pytest.approx(integral, rel=1e-9)


@pytest.mark.parametrize("variance_p", VARIANCES)
@pytest.mark.parametrize("variance_q", [0.7, (4, 1), (1, 3), (4, 3)])
def test_inner_products_and_overlaps_are_those_of_the_loops(variance_p, variance_q):
    p = random_mixture(0, 5, 3, variance=variance_p)
    q = random_mixture(1, 4, 3, variance=variance_q)
    a, b = as_dense(p), as_dense(q)
    assert float(p.log_inner(q)) == pytest.approx(oracles.log_inner(a, b), rel=1e-12)
    assert float(q.log_inner(p)) == pytest.approx(oracles.log_inner(a, b), rel=1e-12)
    assert float(p.log_norm()) == pytest.approx(oracles.log_inner(a, a), rel=1e-12)
    assert float(p.renyi_entropy()) == -float(p.log_norm())
    np.testing.assert_allclose(
        p.log_overlaps(q).exp(), oracles.cross_gram(a, b), rtol=1e-10, atol=1e-15
    )


@pytest.mark.parametrize("d", [50, 784, 12288])
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_inner_products_in_high_dimension(d, offset, dtype, rel):
    p = oracles.as_dtype(random_mixture(0, 4, d, variance=(4, 1), offset=offset), dtype)
    q = GaussianMixture(p.means[:3] + 0.01, 0.6)
    exact = oracles.log_inner(as_dense(p), as_dense(q))
    assert float(p.log_inner(q)) == pytest.approx(exact, rel=rel)


@pytest.mark.parametrize("v", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_entropy_of_one_gaussian(v, dtype):
    d = 12288
    q = GaussianMixture(torch.ones(1, d, dtype=dtype), v)
    expected = 0.5 * d * math.log(4 * math.pi * v)
    assert float(q.renyi_entropy()) == pytest.approx(expected, rel=1e-6)


def test_batches_are_loops_over_batches():
    ps = [random_mixture(i, 5, 3, variance=(5, 1)) for i in range(3)]
    qs = [random_mixture(i + 9, 4, 3, variance=(4, 3)) for i in range(3)]
    p, q = batch_of(*ps), batch_of(*qs)
    for name in ("log_inner", "log_overlaps"):
        together = getattr(p, name)(q)
        for i in range(3):
            assert torch.allclose(together[i], getattr(ps[i], name)(qs[i]), rtol=1e-12)
    assert torch.allclose(p.log_norm(), torch.stack([a.log_norm() for a in ps]))


def test_a_batch_meets_a_mixture_without_one():
    p = batch_of(*[random_mixture(i, 5, 3) for i in range(3)])
    q = random_mixture(9, 4, 3)
    expected = p.log_inner(q.expand((3,)))
    assert torch.allclose(p.log_inner(q), expected)
    assert torch.allclose(q.log_inner(p), expected)


@pytest.mark.parametrize("variance", VARIANCES)
def test_streamed_norms_are_norms(monkeypatch, variance):
    q = random_mixture(0, 5, 3, variance=variance, offset=1e3)
    q.means.requires_grad_()
    direct = q.log_norm()
    (gradient,) = torch.autograd.grad(direct, q.means)
    monkeypatch.setattr(gram, "_BLOCK_PAIRS", 6)
    streamed = q.log_norm()
    assert torch.allclose(streamed, direct, rtol=1e-12)
    assert torch.allclose(torch.autograd.grad(streamed, q.means)[0], gradient, atol=1e-10)


@given(
    seed=st.integers(0, 1000),
    shift=st.floats(-1e3, 1e3),
    variance=st.sampled_from(VARIANCES),
)
def test_norms_know_neither_order_nor_place(seed, shift, variance):
    q = random_mixture(seed, 5, 3, variance=variance)
    v = q.component_variance.expand(5, 3)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    moved = GaussianMixture(q.means[order] + shift, v[order], q.weights[order])
    assert float(moved.log_norm()) == pytest.approx(float(q.log_norm()), abs=1e-9)


@given(seed=st.integers(0, 1000), p_size=st.integers(1, 5), q_size=st.integers(1, 5))
def test_cauchy_schwarz(seed, p_size, q_size):
    p = random_mixture(seed, p_size, 2, variance=(p_size, 2))
    q = random_mixture(seed + 1, q_size, 2, variance=(q_size, 2))
    assert 2 * float(p.log_inner(q)) <= float(p.log_norm() + q.log_norm()) + 1e-12


# ------------------------------------------------------------------ parts


@pytest.mark.parametrize("chosen", [slice(1, 4), slice(0, 5, 2), torch.tensor([4, 0, 0])])
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("weighted", [True, False])
def test_a_selection_is_the_mixture_of_these_components(chosen, variance, weighted):
    q = random_mixture(0, 5, 3, variance=variance, weighted=weighted)
    part = q.select(chosen)
    v = q.component_variance.expand(5, 3)[chosen]
    expected = GaussianMixture(q.means[chosen], v, q.weights[chosen])
    x = normal(1, 6, 3)
    assert part.components == 3
    assert torch.allclose(part.weights, q.weights[chosen] / q.weights[chosen].sum())
    assert torch.allclose(part.log_prob(x), expected.log_prob(x), rtol=1e-12)
    assert torch.allclose(part.log_norm(), expected.log_norm(), rtol=1e-12)
    # One variance for all stays one, and its products cheap.
    assert part.component_variance.shape[-2] == (1 if q.component_variance.shape[-2] == 1 else 3)


def test_selections_of_batches_and_their_gradients():
    means = normal(0, 2, 5, 3).requires_grad_()
    v = (0.5 + normal(1, 2, 5, 1).square()).requires_grad_()
    weights = (0.5 + normal(2, 2, 5).square()).requires_grad_()
    part = GaussianMixture(means, v, weights).select(slice(1, 4))
    assert part.batch_shape == (2,)
    assert part.means.shape == (2, 3, 3)
    for i in range(2):
        alone = GaussianMixture(means[i], v[i], weights[i]).select(slice(1, 4))
        assert torch.allclose(part.log_norm()[i], alone.log_norm(), rtol=1e-12)
    gradients = torch.autograd.grad(part.log_norm().sum(), (means, v, weights))
    for gradient in gradients:
        assert gradient[:, 1:4].abs().amax() > 1e-3
        # The sum of all weights cancels, but for its rounding.
        assert gradient[:, [0, 4]].abs().amax() < 1e-15


# ------------------------------------------------------------------ half precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_and_the_price_is_said(dtype):
    means = normal(0, 6, 4)
    half = means.to(dtype)
    with pytest.warns(UserWarning, match=rf"means come in {dtype}.*exponents by up to") as caught:
        q = GaussianMixture(half, 0.3, torch.ones(6, dtype=dtype))
    assert len(caught) == 1
    assert {q.means.dtype, q.component_variance.dtype, q.weights.dtype} == {torch.float32}
    assert torch.equal(q.means, half.float())
    # No exponent is further from that of the means before their rounding than was said.
    said = float(str(caught[0].message).split()[-1])
    exact = GaussianMixture(means, 0.3)
    error = float((gram_of(exact) - gram_of(q).double()).abs().max())
    assert 0.01 * said < error <= said


def gram_of(q):
    v = q.component_variance
    return gram.log_overlaps(q.means, v, q.means, v)


def test_wider_components_forgive_more():
    errors = []
    for variance in (0.1, 1.0):
        with pytest.warns(UserWarning, match="means come in") as caught:
            GaussianMixture(normal(0, 6, 4).half(), variance)
        errors.append(float(str(caught[0].message).split()[-1]))
    assert errors[0] == pytest.approx(10 * errors[1], rel=0.1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_full_precision_needs_no_warning(dtype):
    assert GaussianMixture(1e3 * normal(0, 6, 4, dtype=dtype), 0.1).means.dtype == dtype


# ------------------------------------------------------------------ entropy


@pytest.mark.parametrize("full", [False, True])
def test_the_entropy_is_that_of_quadrature_within_its_error(full):
    means = torch.tensor([[-2.0], [0.5], [3.0]], dtype=torch.float64)
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    q = GaussianMixture(means, 0.6, weights)
    x = torch.linspace(-15, 15, 60_001, dtype=torch.float64).unsqueeze(-1)
    log_q = q.log_prob(x)
    exact = float(torch.trapezoid(-log_q.exp() * log_q, x.squeeze(-1)))
    mixture = FullGaussianMixture.from_diagonal(q) if full else q
    draws = [
        mixture.estimate_entropy(2000, torch.Generator().manual_seed(seed)) for seed in range(40)
    ]
    scores = torch.stack([(d.value - exact) / d.error for d in draws])
    # Errors of forty draws in units of their own standard error: mean 0 and deviation 1.
    assert abs(float(scores.mean())) < 4 / math.sqrt(40)
    assert 0.7 < float(scores.std()) < 1.3


def test_the_entropy_of_a_batch_and_of_too_few_points():
    q = GaussianMixture(torch.zeros(2, 1, 3), torch.tensor([1.0, 4.0]).view(2, 1, 1))
    found = q.estimate_entropy(20_000, torch.Generator().manual_seed(0))
    assert found.value.shape == q.entropy().shape == (2,)
    gap = float(found.value[1] - found.value[0])
    assert gap == pytest.approx(3 * math.log(2), abs=4 * float(found.error.sum()))
    with pytest.raises(InputError, match="samples must be at least 2"):
        q.estimate_entropy(1)


@pytest.mark.parametrize("full", [False, True])
def test_the_divergence_is_that_of_quadrature_within_its_error(full):
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    means = torch.tensor([[-2.0], [0.5], [3.0]], dtype=torch.float64)
    q, p = GaussianMixture(means, 0.6, weights), GaussianMixture(means + 0.7, 1.1)
    x = torch.linspace(-15, 15, 60_001, dtype=torch.float64).unsqueeze(-1)
    log_q, log_p = q.log_prob(x), p.log_prob(x)
    exact = float(torch.trapezoid(log_q.exp() * (log_q - log_p), x.squeeze(-1)))
    one = FullGaussianMixture.from_diagonal(q) if full else q
    draws = [one.estimate_kl(p, 2000, torch.Generator().manual_seed(s)) for s in range(40)]
    scores = torch.stack([(d.value - exact) / d.error for d in draws])
    assert abs(float(scores.mean())) < 4 / math.sqrt(40)
    assert 0.7 < float(scores.std()) < 1.3


def test_torchs_own_divergence_is_the_estimate():
    q = GaussianMixture(torch.zeros(2, 1, 3), 1.0)
    p = GaussianMixture(torch.ones(2, 1, 3), 1.0)
    assert torch.distributions.kl_divergence(q, p).numpy() == pytest.approx(1.5, abs=0.2)
    assert torch.equal(torch.distributions.kl_divergence(q, q), torch.zeros(2))
    with pytest.raises(InputError, match="other has 2 coordinates"):
        q.estimate_kl(GaussianMixture(torch.zeros(2, 1, 2), 1.0))
    with pytest.raises(InputError, match="samples must be at least 2"):
        q.estimate_kl(p, 1)
