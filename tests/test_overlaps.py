"""The costs around the fidelity: one-to-one, Schatten powers, without bias, without Gaussian."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from hilbound import functional as F
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from support import oracles
from support.oracles import as_dense, as_dtype, random_mixture
from support.strategies import DIMS, SEEDS, SIZES, mixtures, normal, reweighted

POWERS = st.floats(0.05, 1.0)


def stacked(*rows, variance=0.5):
    """A batch of unweighted mixtures of equally many points."""
    return GaussianMixture(torch.stack(rows), variance)


# ------------------------------------------------------------------ one to one


@given(mixtures(same_size=True))
def test_trace_below_the_best_permutation_below_the_fidelity(pair):
    p, q = pair
    a, b = as_dense(p), as_dense(q)
    trace, best = float(F.trace_overlap(p, q)), oracles.best_pairing(a, b)
    assert trace == pytest.approx(oracles.trace_overlap(a, b), rel=1e-10)
    assert 0 <= trace <= best + 1e-12
    assert best <= float(F.fidelity(p, q)) + 1e-12
    assert float(F.trace_overlap(p, p)) == pytest.approx(1, abs=1e-12)


@given(seed=SEEDS, n=st.integers(2, 6))
def test_the_trace_alone_asks_for_the_order(seed, n):
    p = random_mixture(seed, n, 2, spread=4.0)
    turned = GaussianMixture(p.means.roll(1, 0), 0.5, p.weights.roll(1, 0))
    assert float(F.fidelity(p, turned)) == pytest.approx(1, abs=1e-12)
    assert oracles.best_pairing(as_dense(p), as_dense(turned)) == pytest.approx(1, abs=1e-12)
    assert float(F.trace_overlap(p, turned)) < 1 - 1e-6


def test_the_trace_forms_no_matrix_of_pairs():
    """A hundred thousand pairs of 50 coordinates; a matrix of them would be of 80 gigabytes."""
    x = normal(0, 100_000, 50)
    p, q = GaussianMixture(x, 0.5), GaussianMixture(x + 0.1, 0.5)
    assert float(F.trace_overlap(p, q)) == pytest.approx(math.exp(-50 * 0.01 / 2), rel=1e-12)


def test_the_trace_needs_as_many_of_both():
    p, q = random_mixture(0, 5, 2), random_mixture(1, 4, 2)
    with pytest.raises(InputError, match="p has 5 components and q has 4: they are paired"):
        F.trace_overlap(p, q)


@pytest.mark.parametrize("d", [1, 4])
def test_different_spaces_are_refused(d):
    """One coordinate would broadcast."""
    p, q = random_mixture(0, 3, 2), random_mixture(1, 3, d)
    functions = [
        F.trace_overlap,
        lambda p, q: F.schatten_overlap(p, q, 0.5),
        lambda p, q: F.debiased_fidelity(p, p, q, q),
        lambda p, q: F.distance_nuclear_norm(p.means, q.means),
    ]
    for function in functions:
        with pytest.raises(InputError, match="both must live in the same space"):
            function(p, q)


# ------------------------------------------------------------------ Schatten powers


@given(mixtures(spreads=(1.0, 4.0)), POWERS)
def test_schatten_overlaps_are_those_of_numpys_singular_values(pair, power):
    p, q = pair
    a, b = as_dense(p), as_dense(q)
    # A singular value of rounding size, 1e-17 here and 3e-17 there, counts with its power.
    noise = 6 * (1e-16) ** power
    expected = oracles.schatten_overlap(a, b, power)
    assert float(F.schatten_overlap(p, q, power)) == pytest.approx(expected, rel=1e-9, abs=noise)
    assert float(F.schatten_overlap(p, q, 1.0)) == pytest.approx(float(F.fidelity(p, q)), rel=1e-9)


@given(mixtures(), POWERS, st.floats(0.0, 0.9))
def test_schatten_overlaps_fall_with_the_power_and_keep_their_limit(pair, power, share):
    p, q = pair
    lower = max(0.05, share * power)
    value = float(F.schatten_overlap(p, q, power))
    assert float(F.fidelity(p, q)) <= value + 1e-12
    assert value <= float(F.schatten_overlap(p, q, lower)) + 1e-12
    assert 0 <= value <= min(p.components, q.components) ** (1 - power) + 1e-12


@pytest.mark.parametrize(("n", "m"), [(4, 4), (4, 2), (1, 5)])
@pytest.mark.parametrize("power", [0.3, 0.85, 1.0])
def test_the_limit_is_reached_by_a_flat_spectrum(n, m, power):
    """The smaller set is r points far apart; the larger repeats them equally often."""
    r = min(n, m)
    points = 50.0 * torch.arange(r).double().unsqueeze(-1)
    p, q = (GaussianMixture(points.repeat(k // r, 1), 0.5) for k in (n, m))
    assert float(F.schatten_overlap(p, q, power)) == pytest.approx(r ** (1 - power), rel=1e-12)


def test_below_one_the_data_are_not_the_best_model():
    """Nine tenths of the weight on one of two points: a flatter model has a higher value."""
    p = GaussianMixture(torch.tensor([[0.0], [50.0]]), 0.5, torch.tensor([9.0, 1.0]))
    flat = reweighted(p, torch.tensor([1.0, 1.0]))
    assert float(F.schatten_overlap(p, flat, 0.5)) > float(F.schatten_overlap(p, p, 0.5)) + 1e-2
    assert float(F.schatten_overlap(p, flat, 1.0)) < float(F.schatten_overlap(p, p, 1.0)) - 1e-2


@pytest.mark.parametrize("power", [0.0, -1.0, 1.5, math.nan])
def test_a_power_out_of_range_is_refused(power):
    p = random_mixture(0, 3, 2)
    with pytest.raises(InputError, match=r"power must lie in \(0, 1\], got"):
        F.schatten_overlap(p, p, power)


# ------------------------------------------------------------------ without the bias


@given(mixtures(), st.floats(0, 2))
def test_the_divergence_is_its_four_terms(pair, weight):
    p, q = pair
    x, y = random_mixture(1, 3, p.dim), random_mixture(2, 2, p.dim)
    a, b, c, d = map(as_dense, (p, x, q, y))
    fidelity = oracles.fidelity
    model = weight * fidelity(c, d) - 0.5 * (fidelity(a, c) + fidelity(a, d))
    ours = float(F.debiased_fidelity(p, x, q, y, weight))
    assert ours == pytest.approx(0.5 * fidelity(a, b) + model, rel=1e-9, abs=1e-12)
    assert float(F.debiased_fidelity(p, None, q, y, weight)) == pytest.approx(
        model, rel=1e-9, abs=1e-12
    )


@given(mixtures())
def test_the_divergence_of_identical_batches_is_zero(pair):
    p, _ = pair
    assert float(F.debiased_fidelity(p, p, p, p)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [2, 8])
def test_the_divergence_has_no_bias_where_the_model_is_the_data(generator, n):
    """By construction its mean is zero; that of the plain fidelity is far below its limit."""
    batches = torch.randn(4, 12_000, n, 2, generator=generator, dtype=torch.float64)
    x, x_copy, y, y_copy = (GaussianMixture(batch, 0.25) for batch in batches)
    values = F.debiased_fidelity(x, x_copy, y, y_copy)
    error = float(values.std() / math.sqrt(len(values)))
    # Four standard errors: with independent draws chance passes them once in 16 000 seeds.
    assert abs(float(values.mean())) < 4 * error
    # The limits can tell: a weight of 0.45 would shift the mean by far more.
    shift = 0.05 * float(F.fidelity(y, y_copy).mean())
    assert shift > 8 * error
    assert float(F.fidelity(x, y).mean()) < 0.9


@given(seed=SEEDS, d=DIMS, n=st.integers(1, 4), m=st.integers(1, 4))
def test_single_points_give_half_the_squared_mean_discrepancy(seed, d, n, m):
    """All draws with replacement from two sets of points: an expectation, without chance."""
    x, y = normal(seed, n, d), 0.5 + normal(seed + 1, m, d)
    draws = torch.tensor([*product(range(n), range(n), range(m), range(m))])
    rows = (x[draws[:, 0]], x[draws[:, 1]], y[draws[:, 2]], y[draws[:, 3]])
    mean = F.debiased_fidelity(*(GaussianMixture(r.unsqueeze(-2), 0.5) for r in rows)).mean()

    def kernel(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(-1) / 2).mean()

    a, b = x.numpy(), y.numpy()
    squared = kernel(a, a) + kernel(b, b) - 2 * kernel(a, b)
    assert float(mean) == pytest.approx(squared / 2, rel=1e-9, abs=1e-12)
    assert squared >= -1e-12


# ------------------------------------------------------------------ without the Gaussian


@given(seed=SEEDS, d=DIMS, n=SIZES, m=SIZES, offset=st.sampled_from([0.0, 100.0]))
def test_the_norm_of_distances_is_numpys_and_at_least_the_variance(seed, d, n, m, offset):
    x, y = offset + normal(seed, n, d), offset + normal(seed + 1, m, d)
    norm = float(F.distance_nuclear_norm(x, y))
    assert norm == pytest.approx(oracles.distance_nuclear_norm(x, y), rel=1e-9)
    assert norm >= float(x.var(0, correction=0).sum()) * (1 - 1e-12)
    assert norm >= float(y.var(0, correction=0).sum()) * (1 - 1e-12)
    assert norm == pytest.approx(float(F.distance_nuclear_norm(y, x)), rel=1e-9)


@given(seed=SEEDS, d=st.integers(1, 4))
def test_the_matrix_of_distances_has_rank_d_plus_two(seed, d):
    """So the norm is a function of few numbers: 20 points of the line give three values."""
    x, y = normal(seed, 20, d), normal(seed + 1, 15, d)
    values = np.linalg.svd(cdist(x, y, "sqeuclidean"), compute_uv=False)
    assert values[d + 1] > 1e-6 * values[0]
    assert values[d + 2] < 1e-13 * values[0]
    norm = float(F.distance_nuclear_norm(x, y))
    assert norm == pytest.approx(values[: d + 2].sum() / math.sqrt(300), rel=1e-12)


def test_collapse_reaches_the_limit_for_points_of_a_sphere():
    """The roots of unity, and all centres at their mean: the ablation asks for nothing more."""
    angles = 2 * math.pi * torch.arange(7).double() / 7
    x = torch.stack([angles.cos(), angles.sin()], -1)
    assert float(F.distance_nuclear_norm(x, torch.zeros(4, 2).double())) == pytest.approx(1)
    assert float(F.distance_nuclear_norm(x, x)) > 1.5
    assert float(x.var(0, correction=0).sum()) == pytest.approx(1)


# ------------------------------------------------------------------ all of them

ALL = {
    "trace": F.trace_overlap,
    "schatten": lambda p, q: F.schatten_overlap(p, q, 0.7),
    "debiased": lambda p, q: F.debiased_fidelity(p, q, q, p),
    "debiased without data": lambda p, q: F.debiased_fidelity(p, None, q, p),
    "distance": lambda p, q: F.distance_nuclear_norm(p.means, q.means),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_dtype_and_shape(name, dtype):
    ps, qs = ([random_mixture(10 * i + k, 4, 3) for i in range(3)] for k in range(2))
    ps, qs = ([as_dtype(m, dtype) for m in mixed] for mixed in (ps, qs))
    p, q = (
        GaussianMixture(torch.stack([a.means for a in m]), 0.5, torch.stack([a.weights for a in m]))
        for m in (ps, qs)
    )
    alone = torch.stack([ALL[name](a, b) for a, b in zip(ps, qs, strict=True)])
    together = ALL[name](p, q)
    assert together.shape == (3,)
    assert together.dtype == dtype
    assert torch.allclose(together, alone, rtol=1e-4 if dtype == torch.float32 else 1e-10)
    assert ALL[name](ps[0], qs[0]).shape == ()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("cost", "slope"),
    [
        (F.log_trace_overlap, 1.0),
        (F.log_fidelity, 1.0),
        (lambda p, q: F.log_schatten_overlap(p, q, 0.5), 0.5),
        (F.log_schur_cost, 2.0),
    ],
)
def test_logarithms_outlive_the_numbers(cost, slope, dtype):
    """Far apart every overlap underflows; its exponent, known by hand, has to come through."""
    x = torch.zeros(1, 3, dtype=dtype)
    y = x + torch.tensor([100.0, 0.0, 0.0], dtype=dtype)
    p, q = GaussianMixture(x, 0.5), GaussianMixture(y.requires_grad_(), 0.5)
    value = cost(p, q)
    assert float(value.detach()) == pytest.approx(-5000 * slope)
    value.backward()
    assert y.grad.squeeze().tolist() == pytest.approx([-100 * slope, 0, 0])


def test_the_rounding_of_half_means_is_predicted_far_from_the_origin():
    exact = 1000 + 10 * torch.rand(40, 2, generator=torch.Generator().manual_seed(0))
    rounded = exact.bfloat16().double()
    moved = torch.cdist(rounded, rounded) ** 2 - torch.cdist(exact.double(), exact.double()) ** 2
    measured = float((moved / (4 * 0.3)).abs().max())
    with pytest.warns(UserWarning, match="change exponents by up to") as caught:
        GaussianMixture(exact.bfloat16(), 0.3)
    predicted = float(str(caught[0].message).rsplit(" ", 1)[1])
    assert measured <= predicted <= 100 * measured
