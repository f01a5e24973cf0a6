"""The objectives as functions: oracles, and inequalities that must hold."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hilbound import functional as F
from hilbound.engine import gram
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from support import oracles
from support.oracles import as_dense, as_dtype, random_mixture
from support.strategies import DIMS, KINDS, SEEDS, SIZES, mixtures, normal, union, variance_of


def tightness(p, q):
    return float((-2 * F.cauchy_schwarz_divergence(p, q)).exp())


def shuffled(q, seed):
    order = torch.randperm(q.components, generator=torch.Generator().manual_seed(seed))
    v = q.component_variance.expand(q.means.shape)
    return GaussianMixture(q.means[order], v[order], q.weights[order])


# ------------------------------------------------------------------ values


@given(mixtures())
def test_values_are_those_of_the_oracles(pair):
    p, q = pair
    a, b = as_dense(p), as_dense(q)
    assert float(F.log_scalar_cost(p, q)) == pytest.approx(oracles.log_scalar_cost(a, b), rel=1e-10)
    assert float(F.cauchy_schwarz_divergence(p, q)) == pytest.approx(
        -0.5 * oracles.log_tightness(a, b), rel=1e-9, abs=1e-12
    )
    assert float(F.fidelity(p, q)) == pytest.approx(oracles.fidelity(a, b), rel=1e-10)
    log_q = oracles.as_torch(q).log_prob(p.means)
    assert float(F.negative_log_likelihood(p.means, q)) == pytest.approx(-float(log_q.mean()))


@given(mixtures())
def test_the_fidelity_is_that_of_two_operators(pair):
    p, q = pair
    # Roots of eigenvalues that should vanish are of the order of the root of the rounding unit.
    expected = oracles.operator_fidelity(as_dense(p), as_dense(q))
    assert float(F.fidelity(p, q)) == pytest.approx(expected, abs=1e-6)


def test_costs_are_integrals():
    p, q = random_mixture(0, 3, 2, variance=(3, 1)), random_mixture(1, 4, 2, variance=(4, 2))
    a, b = as_dense(p), as_dense(q)
    pq, pp, qq = oracles.quadrature(a, b), oracles.quadrature(a, a), oracles.quadrature(b, b)
    assert float(F.log_scalar_cost(p, q)) == pytest.approx(math.log(pq**2 / qq), rel=1e-8)
    assert tightness(p, q) == pytest.approx(pq**2 / (pp * qq), rel=1e-8)


@pytest.mark.parametrize("d", [1, 2, 50, 784, 12288])
@pytest.mark.parametrize("v", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("kind", ["one", "diagonal"])
def test_fidelity_and_tightness_keep_their_digits_in_float32(d, v, offset, kind):
    # Centres within a fraction of the kernel's width of points that lie apart, in any dimension.
    x = offset + math.sqrt(v) * normal(0, 12, d)
    y = x[:9] + 0.5 * math.sqrt(v / d) * normal(1, 9, d)
    v = v * (0.5 + torch.rand(d, generator=torch.Generator().manual_seed(2))) ** (kind != "one")
    p, q = GaussianMixture(x.float(), v), GaussianMixture(y.float(), v)
    a, b = as_dense(p), as_dense(q)
    fidelity, log_tightness = oracles.fidelity(a, b), oracles.log_tightness(a, b)
    assert 0.3 < fidelity < 0.99
    assert float(F.fidelity(p, q)) == pytest.approx(fidelity, rel=1e-5)
    # With a variance for every coordinate the logarithms of d ratios do not cancel before they are
    # rounded: they leave 1e-7 of their sum, which is below d / 10 here.
    rel = 1e-5 if kind == "one" or d <= 784 else 2e-4
    assert tightness(p, q) == pytest.approx(math.exp(log_tightness), rel=rel)


@pytest.mark.parametrize(("a", "b"), [(1e-4, 1e4), (1e4, 1e-4), (1e-4, 1e-4), (1e4, 1e4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_variances_of_any_ratio(a, b, dtype):
    p, q = (
        GaussianMixture(normal(0, 5, 3, dtype=dtype), a),
        GaussianMixture(normal(1, 4, 3, dtype=dtype), b),
    )
    expected = oracles.fidelity(as_dense(p), as_dense(q))
    # The points of 1e-4 are a rank-one blur to the kernel of 1e4.
    assert float(F.fidelity(p, q)) == pytest.approx(expected, rel=1e-4)
    log_tau = oracles.log_tightness(as_dense(p), as_dense(q))
    assert float(F.cauchy_schwarz_divergence(p, q)) == pytest.approx(
        -0.5 * log_tau, rel=1e-4, abs=1e-6
    )


def test_one_component_has_a_closed_form():
    p = GaussianMixture(torch.tensor([[0.0, 0.0]]).double(), 0.2)
    q = GaussianMixture(torch.tensor([[3.0, 4.0]]).double(), 0.6)
    overlap = 4 * 0.2 * 0.6 / 0.8**2  # to the power d / 4 = 1/2
    assert float(F.fidelity(p, q)) == pytest.approx(math.sqrt(overlap) * math.exp(-25 / 1.6))
    assert tightness(p, q) == pytest.approx(overlap * math.exp(-25 / 0.8))


def test_batches_are_loops_over_batches():
    ps = [random_mixture(i, 5, 3) for i in range(3)]
    qs = [random_mixture(i + 9, 4, 3) for i in range(3)]
    p, q = (
        GaussianMixture(torch.stack([a.means for a in m]), 0.5, torch.stack([a.weights for a in m]))
        for m in (ps, qs)
    )
    for function in (F.log_scalar_cost, F.cauchy_schwarz_divergence, F.fidelity, F.log_fidelity):
        alone = torch.stack([function(a, b) for a, b in zip(ps, qs, strict=True)])
        assert torch.allclose(function(p, q), alone, rtol=1e-10)
    x = normal(5, 7, 3)
    alone = torch.stack([F.negative_log_likelihood(x, b) for b in qs])
    assert torch.allclose(F.negative_log_likelihood(x, q), alone)


def test_streaming_changes_nothing(monkeypatch):
    p, q = random_mixture(0, 9, 3, variance=(9, 3)), random_mixture(1, 7, 3, variance=(1, 3))
    functions = [F.log_scalar_cost, F.cauchy_schwarz_divergence]
    direct = [float(function(p, q)) for function in functions]
    monkeypatch.setattr(gram, "_BLOCK_PAIRS", 10)
    assert [float(function(p, q)) for function in functions] == pytest.approx(direct, rel=1e-12)


def test_mixtures_of_different_spaces_are_refused():
    p, q = random_mixture(0, 3, 2), random_mixture(1, 3, 4)
    for function in (F.log_scalar_cost, F.cauchy_schwarz_divergence, F.fidelity):
        with pytest.raises(InputError, match="both must live in the same space"):
            function(p, q)


# ------------------------------------------------------------------ inequalities


@given(mixtures())
def test_the_scalar_cost_never_passes_its_limit(pair):
    p, q = pair
    assert float(F.log_scalar_cost(p, q)) <= float(p.log_norm()) + 1e-12
    assert 0 <= tightness(p, q) <= 1 + 1e-12
    assert float(F.log_scalar_cost(p, p)) == pytest.approx(float(p.log_norm()), abs=1e-12)
    assert float(F.cauchy_schwarz_divergence(p, p)) == 0
    assert tightness(p, q) == pytest.approx(tightness(q, p), rel=1e-12)


@given(mixtures())
def test_the_fidelity_lies_between_zero_and_one(pair):
    p, q = pair
    assert 0 <= float(F.fidelity(p, q)) <= 1 + 1e-12
    assert float(F.log_fidelity(p, q)) == pytest.approx(math.log(float(F.fidelity(p, q))))
    assert float(F.fidelity(p, q)) == pytest.approx(float(F.fidelity(q, p)), rel=1e-12)
    assert float(F.fidelity(p, p)) == pytest.approx(1, abs=1e-12)


@given(mixtures(), SEEDS)
def test_order_does_not_matter(pair, seed):
    p, q = pair
    assert float(F.fidelity(p, shuffled(p, seed))) == pytest.approx(1, abs=1e-12)
    assert tightness(p, shuffled(p, seed)) == pytest.approx(1, abs=1e-12)
    assert float(F.fidelity(p, shuffled(q, seed))) == pytest.approx(float(F.fidelity(p, q)))


@given(
    seed=SEEDS,
    size=st.integers(2, 6),
    d=DIMS,
    change=st.sampled_from(["point", "weight", "variance"]),
)
def test_one_is_reached_by_the_same_components_only(seed, size, d, change):
    p = random_mixture(seed, size, d)
    means, v, weights = p.means.clone(), p.component_variance.expand(size, 1).clone(), p.weights
    if change == "point":
        means[0] += 0.1
    elif change == "variance":
        v[0] *= 1.3
    else:
        weights = weights.clone()
        weights[0] *= 1.3
    q = GaussianMixture(means, v, weights)
    assert float(F.fidelity(p, q)) < 1 - 1e-7
    assert tightness(p, q) < 1 - 1e-7


def test_a_point_may_be_split_in_two():
    """The operator of a mixture is what counts: halves of one component are that component."""
    p = GaussianMixture(torch.tensor([[0.0], [2.0]]), 0.5)
    q = GaussianMixture(torch.tensor([[0.0], [0.0], [2.0]]), 0.5, torch.tensor([1.0, 1.0, 2.0]))
    assert float(F.fidelity(p, q)) == pytest.approx(1, abs=1e-6)
    assert tightness(p, q) == pytest.approx(1, abs=1e-6)


@given(mixtures(), SEEDS, st.floats(-1e3, 1e3))
def test_shifts_do_not_matter(pair, seed, size):
    p, q = pair
    shift = size * normal(seed, p.dim)
    a, b = (GaussianMixture(m.means + shift, m.component_variance, m.weights) for m in (p, q))
    assert float(F.fidelity(a, b)) == pytest.approx(float(F.fidelity(p, q)), rel=1e-8)
    assert tightness(a, b) == pytest.approx(tightness(p, q), rel=1e-8)


@given(seed=SEEDS, d=st.integers(2, 5), n=SIZES, m=SIZES, kind=st.sampled_from(KINDS[:2]))
def test_rotations_do_not_matter_to_isotropic_components(seed, d, n, m, kind):
    p = random_mixture(seed, n, d, variance=variance_of(kind, n, d))
    q = random_mixture(seed + 1, m, d, variance=variance_of(kind, m, d))
    turn = torch.linalg.qr(normal(seed + 2, d, d))[0]
    a, b = (GaussianMixture(o.means @ turn, o.component_variance, o.weights) for o in (p, q))
    assert float(F.fidelity(a, b)) == pytest.approx(float(F.fidelity(p, q)), rel=1e-9)
    assert tightness(a, b) == pytest.approx(tightness(p, q), rel=1e-9)


@given(mixtures(), st.floats(1e-3, 1e3))
def test_the_unit_of_length_does_not_matter(pair, c):
    p, q = pair
    a, b = (GaussianMixture(c * m.means, c**2 * m.component_variance, m.weights) for m in (p, q))
    assert float(F.fidelity(a, b)) == pytest.approx(float(F.fidelity(p, q)), rel=1e-9)
    assert tightness(a, b) == pytest.approx(tightness(p, q), rel=1e-9)
    # The costs are densities: they change by the volume of the unit.
    change = float(F.log_scalar_cost(a, b) - F.log_scalar_cost(p, q))
    assert change == pytest.approx(-p.dim * math.log(c), abs=1e-8)


@given(seed=SEEDS, n=SIZES, d=DIMS, spread=st.sampled_from([0.1, 1.0, 4.0]))
def test_pairings_are_below_the_best_pairing_below_the_fidelity(seed, n, d, spread):
    p = random_mixture(seed, n, d, weighted=False, spread=spread)
    q = random_mixture(seed + 1, n, d, weighted=False, spread=spread)
    trace = float(p.log_overlaps(q).exp().trace())
    best = oracles.best_pairing(as_dense(p), as_dense(q))
    assert trace <= best + 1e-12
    assert best <= float(F.fidelity(p, q)) + 1e-12


@given(seed=SEEDS, n=st.integers(2, 6), d=DIMS)
def test_collapse_has_a_closed_form_and_is_worse(seed, n, d):
    p = random_mixture(seed, n, d, spread=3.0)
    centre = p.mean
    collapsed = GaussianMixture(centre.expand(n, d), p.component_variance)
    # Of rank one: the root of the mean of squared overlaps.
    k = (p.log_overlaps(GaussianMixture(centre[None], p.component_variance))).exp()
    assert float(F.fidelity(p, collapsed)) == pytest.approx(float(k.square().sum().sqrt()))
    assert float(F.fidelity(p, collapsed)) < float(F.fidelity(p, p))
    assert float(F.log_scalar_cost(p, collapsed)) < float(F.log_scalar_cost(p, p))


@given(mixtures(), SEEDS, st.floats(0.05, 0.95))
def test_the_fidelity_is_jointly_concave(pair, seed, share):
    """F of two unions is at least the mean of both: so a minibatch underestimates it."""
    p, q = pair
    r, s = random_mixture(seed, 3, p.dim), random_mixture(seed + 1, 2, p.dim)

    mean = share * float(F.fidelity(p, q)) + (1 - share) * float(F.fidelity(r, s))
    assert float(F.fidelity(union(p, r, share), union(q, s, share))) >= mean - 1e-12


def test_the_fidelity_of_two_halves_grows_with_the_sample(generator):
    means = []
    for n in (8, 32, 128):
        x = torch.randn(20, 2, n, 2, generator=generator)
        means.append(F.fidelity(GaussianMixture(x[:, 0], 0.25), GaussianMixture(x[:, 1], 0.25)))
    # The spread of one value of F is below 0.05 here, of the mean of 20 below 0.012.
    averages = [float(m.mean()) for m in means]
    assert averages[0] + 0.05 < averages[1]
    assert averages[1] + 0.05 < averages[2] < 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_and_shape_follow_the_input(dtype):
    p, q = (as_dtype(random_mixture(i, 4, 3), dtype) for i in range(2))
    for function in (
        F.fidelity,
        F.log_fidelity,
        F.log_scalar_cost,
        F.cauchy_schwarz_divergence,
        lambda p, q: F.negative_log_likelihood(p.means, q),
    ):
        value = function(p, q)
        assert value.dtype == dtype
        assert value.shape == ()


# ------------------------------------------------------------------ the likelihood, weighted


def test_the_likelihood_of_weighted_points_and_of_points_of_their_own():
    q = GaussianMixture(normal(0, 2, 5, 3), 0.4)
    x = normal(1, 2, 7, 3)
    weights = torch.rand(2, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = weights / weights.sum(-1, keepdim=True)
    log_q = torch.stack([GaussianMixture(q.means[b], 0.4).log_prob(x[b]) for b in range(2)])
    assert torch.allclose(F.negative_log_likelihood(x, q), -log_q.mean(-1), rtol=1e-13)
    found = F.negative_log_likelihood(x, q, weights)
    assert torch.allclose(found, -(weights * log_q).sum(-1), rtol=1e-13)


@pytest.mark.parametrize(
    "function",
    [
        F.fidelity,
        F.log_fidelity,
        F.cauchy_schwarz_divergence,
        F.log_scalar_cost,
        F.trace_overlap,
        F.log_vector_cost,
        F.schur_cost,
    ],
)
def test_points_in_place_of_a_mixture_are_told(function):
    x = torch.zeros(3, 2)
    with pytest.raises(InputError, match=r"p must be a GaussianMixture, got Tensor: of points x"):
        function(x, x)
