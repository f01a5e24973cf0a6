"""Certified factors of low rank against float64 singular values, and their gradients."""

import math

import pytest
import torch

from hilbound import functional as F
from hilbound.engine.spectrum import low_rank
from hilbound.engine.spectrum.low_rank import Points, low_rank_fidelity
from hilbound.functional import _factored_fidelity, fidelity_plan
from hilbound.mixture import GaussianMixture
from support.oracles import as_dense, random_mixture
from support.oracles import fidelity as dense_fidelity

EPS = torch.finfo(torch.float64).eps


def cloud(seed, n, dim=2, dtype=torch.float64, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    return spread * torch.randn(n, dim, generator=generator, dtype=torch.float64).to(dtype)


def dense_gradients(p, q, names, drop=None):
    """The fidelity and its gradients by a float64 SVD and autograd through the matrix."""
    a = p.log_overlaps(q).exp()
    u, s, vh = torch.linalg.svd(a.detach(), full_matrices=False)
    kept = s > (EPS if drop is None else drop) * s[0]
    return s.sum(), torch.autograd.grad(a, names, (u * kept) @ vh)


def mixtures(seed=0, n=300, m=260, dim=2, variances=(1.0, 1.0), weighted=True, dtype=torch.float64):
    """Two mixtures and the leaves that a gradient is asked for."""
    x, y = cloud(seed, n, dim, dtype), 0.8 * cloud(seed + 1, m, dim, dtype) + 0.2
    v, w = (torch.as_tensor(v, dtype=dtype) for v in variances)
    a, b = (0.2 + cloud(seed + i, k, 1, dtype).square().squeeze(-1) for i, k in ((2, n), (3, m)))
    leaves = [part.requires_grad_() for part in (x, y, v, w, a, b)]
    p = GaussianMixture(x, v, a if weighted else None)
    q = GaussianMixture(y, w, b if weighted else None)
    return p, q, leaves if weighted else leaves[:4]


def relative(a, b):
    return float((a.double() - b).norm() / b.norm())


CASES = {
    "equal": {},
    "unweighted": {"weighted": False},
    "another variance": {"variances": (0.7, 1.5)},
    "diagonal": {"variances": ([0.7, 1.8], [1.5, 0.9])},
    "one dimension": {"dim": 1},
    "three dimensions": {"dim": 3, "variances": (5.0, 5.0)},
    "many against few": {"n": 500, "m": 120, "variances": (3.0, 3.0)},
}


@pytest.mark.parametrize("name", CASES)
def test_value_certificate_and_gradients(name):
    p, q, leaves = mixtures(**CASES[name])
    *copies, others = mixtures(**CASES[name])
    value, certificate = _factored_fidelity(p, q, EPS, 1e-6)
    expected, exact = dense_gradients(*copies, others)
    assert abs(float(value.detach() - expected)) <= float(certificate) <= 1e-6
    gradients = torch.autograd.grad(value, leaves)
    for gradient, other in zip(gradients, exact, strict=True):
        assert gradient.dtype == torch.float64
        assert relative(gradient, other) < 1e-3


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6])
def test_the_gradient_follows_the_tolerance(tol):
    p, q, leaves = mixtures(n=400, m=400, weighted=False)
    value, certificate = F.certified_fidelity(p, q, tol=tol)
    expected, exact = dense_gradients(p, q, leaves)
    assert abs(float(value.detach() - expected)) <= float(certificate) <= tol
    gradient = torch.autograd.grad(value, leaves[1])[0]
    assert relative(gradient, exact[1]) < 4 * tol**0.5


def test_certificates_hold_in_ten_thousand_random_cases(monkeypatch):
    monkeypatch.setattr(low_rank, "_LEAST_BLOCK", 3)
    monkeypatch.setattr(low_rank, "_LARGEST_BLOCK", 3)
    generator = torch.Generator().manual_seed(0)
    count, n, m = 10_000, 5, 4
    x = torch.randn(count, n, 2, generator=generator, dtype=torch.float64)
    y = torch.randn(count, m, 2, generator=generator, dtype=torch.float64)
    spread = torch.logspace(-2, 1, count, dtype=torch.float64)[:, None, None]
    log_a = torch.randn(count, n, generator=generator, dtype=torch.float64).log_softmax(-1)
    log_b = torch.randn(count, m, generator=generator, dtype=torch.float64).log_softmax(-1)
    x, y = x * spread, y * spread
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    tolerances = (10.0 ** (-6 * torch.rand(count, generator=generator))).tolist()
    factors = [
        low_rank._factorise(Points(*parts, zero, one, one), tol, 100)
        for *parts, tol in zip(x, y, log_a, log_b, tolerances, strict=True)
    ]
    products = torch.stack([f.x.mT @ f.y for f in factors])
    exact = (-0.5 * torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square()).exp()
    exact = exact * (0.5 * (log_a.unsqueeze(-1) + log_b.unsqueeze(-2))).exp()
    norms = [torch.linalg.svdvals(a).sum(-1) for a in (exact, products)]
    certificates = torch.tensor([f.certificate for f in factors], dtype=torch.float64)
    assert bool(((norms[0] - norms[1]).abs() <= certificates + 1e-13).all())
    assert bool((certificates <= torch.tensor(tolerances, dtype=torch.float64)).all())
    # The bound is one worth having: errors come near it.
    assert float(((norms[0] - norms[1]).abs() / certificates).max()) > 0.3


def test_float32_points_by_default_are_as_exact_as_the_dense_path():
    p, q, leaves = mixtures(n=1000, m=1000, dtype=torch.float32, weighted=False)
    assert fidelity_plan(p, q).method == "low rank"
    value = F.fidelity(p, q)
    assert value.dtype == torch.float32
    doubles = [GaussianMixture(m.means.double(), m.component_variance.double()) for m in (p, q)]
    expected, exact = dense_gradients(*doubles, [m.means for m in doubles])
    assert float(value.detach()) == pytest.approx(float(expected), rel=3e-7)
    matrix = p.log_overlaps(q).exp()
    u, _, vh = torch.linalg.svd(matrix.detach(), full_matrices=False)
    dense = torch.autograd.grad(matrix, leaves[:2], u @ vh)
    for ours, theirs, right in zip(
        torch.autograd.grad(value, leaves[:2]), dense, exact, strict=True
    ):
        assert relative(ours, right) < max(1e-4, relative(theirs, right))


def test_what_has_no_low_rank_goes_the_dense_way():
    """Points that hardly see each other: every one is a direction of its own."""
    p, q, leaves = mixtures(n=200, m=200, variances=(1e-4, 1e-4))
    *copies, others = mixtures(n=200, m=200, variances=(1e-4, 1e-4))
    assert fidelity_plan(p, q, 1e-6).method == "low rank"
    assert _factored_fidelity(p, q, None, 1e-6) is None
    value, certificate = F.certified_fidelity(p, q, tol=1e-6)
    expected, exact = dense_gradients(*copies, others)
    assert abs(float(value.detach() - expected)) <= float(certificate) <= 1e-6
    for gradient, other in zip(torch.autograd.grad(value, leaves), exact, strict=True):
        assert relative(gradient, other) < 1e-6


def test_batches_and_variances_of_their_own_go_the_dense_way():
    x = cloud(0, 600).reshape(2, 300, 2)
    batch = GaussianMixture(x, 0.5)
    assert fidelity_plan(batch, batch, 1e-4).method != "low rank"
    assert F.fidelity(batch, batch, tol=1e-4).tolist() == pytest.approx([1, 1], abs=1e-4)
    own = GaussianMixture(x[0], torch.rand(300, 1, dtype=torch.float64) + 0.5)
    assert fidelity_plan(own, own, 1e-4).method != "low rank"
    assert float(F.fidelity(own, own, tol=1e-6)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("weighted", [True, False])
def test_a_mixture_with_itself_has_fidelity_one(weighted):
    p, _, leaves = mixtures(weighted=weighted)
    value, certificate = F.certified_fidelity(p, p, tol=1e-6)
    assert float(value.detach()) == pytest.approx(1, abs=float(certificate) + 1e-12)
    gradient = torch.autograd.grad(value, leaves[0])[0]
    assert float(gradient.abs().max()) < 1e-5


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_a_distant_origin_costs_nothing(offset):
    p, q, leaves = mixtures()
    moved = [GaussianMixture(m.means + offset, m.component_variance, m.weights) for m in (p, q)]
    one, other = (F.fidelity(*pair, tol=1e-6) for pair in ((p, q), moved))
    assert float(one.detach()) == pytest.approx(float(other.detach()), abs=2e-6)
    gradients = [torch.autograd.grad(v, leaves[1], retain_graph=True)[0] for v in (one, other)]
    assert relative(gradients[1], gradients[0]) < 1e-3


def test_points_that_coincide_and_weights_of_zero():
    x = cloud(0, 40).repeat(8, 1)
    weights = torch.ones(320, dtype=torch.float64)
    weights[::2] = 0
    p, q = GaussianMixture(x, 0.5, weights), GaussianMixture(x.flip(0), 0.5)
    value, certificate = F.certified_fidelity(p, q, tol=1e-6)
    assert float(value) == pytest.approx(dense_fidelity(as_dense(p), as_dense(q)), abs=1e-6)
    assert float(certificate) <= 1e-6


def test_sets_that_never_meet_have_fidelity_zero():
    p, q = GaussianMixture(cloud(0, 300), 0.1), GaussianMixture(cloud(1, 300) + 1000, 0.1)
    assert float(F.fidelity(p, q, tol=1e-3)) == pytest.approx(0, abs=1e-3)
    # By default the tolerance is a share of the fidelity, and its logarithm stays finite.
    far = [GaussianMixture(m.means.float().repeat(2, 1), 0.1) for m in (p, q)]
    assert math.isfinite(float(F.log_fidelity(*far)))


def test_small_mixtures_of_any_kind_against_the_oracle():
    for seed in range(5):
        p, q = random_mixture(seed, 40, 2), random_mixture(seed + 50, 30, 2, variance=0.8)
        value, certificate = F.certified_fidelity(p, q, tol=1e-5)
        assert abs(float(value) - dense_fidelity(as_dense(p), as_dense(q))) <= float(certificate)


def test_results_repeat_and_leave_the_global_generator_alone():
    p, q, _ = mixtures()
    state = torch.get_rng_state()
    values = {float(F.fidelity(p, q, tol=1e-4).detach()) for _ in range(3)}
    assert len(values) == 1
    assert torch.equal(state, torch.get_rng_state())


def test_a_rank_limit_is_obeyed():
    x = cloud(0, 300)
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    weight = torch.full((300,), 1 / 300, dtype=torch.float64).log()
    points = Points(x, x, weight, weight, zero, one, one)
    assert low_rank_fidelity(points, 1e-9, 16, EPS, dtype=x.dtype) is None
    assert low_rank_fidelity(points, 1e-9, 290, EPS, dtype=x.dtype) is not None


@pytest.mark.parametrize("variance", [0.05, 0.3, 1.4, 10.0])
def test_squares_are_as_far_off_as_they_say(variance):
    """Against the decomposition that squares nothing, of the same factors."""
    x, y = cloud(0, 400), 0.8 * cloud(1, 300) + 0.2
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    log_a, log_b = (torch.full((k,), -math.log(k), dtype=torch.float64) for k in (400, 300))
    unit = variance**-0.5
    points = Points(unit * x, unit * y, log_a, log_b, zero, one, one)
    for tol in (1e-2, 1e-4, 1e-6):
        factor = low_rank._factorise(points, tol, 700)
        quick, exact = low_rank._by_squares(factor, EPS), low_rank._decompose(factor, EPS, 0.0)
        assert exact.rounding == 0
        error = abs(float(quick.value - exact.value))
        assert error <= quick.rounding <= 2e-5
        assert (
            float((quick.u.mT @ (quick.s.unsqueeze(-1) * quick.v) - factor.x.mT @ factor.y).norm())
            < 1e-5
        )
        # All directions above the rounding of squares are there, and they are frames.
        k = len(quick.s)
        assert torch.allclose(quick.s.flip(0), exact.s[:k], rtol=0.1)
        safe = quick.s > 1e-5
        for part in (quick.u[safe], quick.v[safe]):
            assert torch.allclose(part @ part.mT, torch.eye(len(part)).double(), atol=1e-4)


def test_a_tolerance_near_rounding_does_without_squares(monkeypatch):
    p, q, _ = mixtures()
    ran = []
    squares = low_rank._by_squares
    monkeypatch.setattr(low_rank, "_by_squares", lambda *a: (ran.append(1), squares(*a))[1])
    F.certified_fidelity(p, q, tol=1e-9)
    assert not ran
    F.certified_fidelity(p, q, tol=1e-3)
    assert ran == [1]


@pytest.mark.parametrize("number", range(6))
def test_every_gradient_alone_is_the_one_among_all(number):
    p, q, leaves = mixtures()
    gradients = torch.autograd.grad(F.fidelity(p, q, tol=1e-4), leaves)
    alone = [leaf.detach().requires_grad_(k == number) for k, leaf in enumerate(leaves)]
    x, y, v, w, a, b = alone
    value = F.fidelity(GaussianMixture(x, v, a), GaussianMixture(y, w, b), tol=1e-4)
    (gradient,) = torch.autograd.grad(value, alone[number])
    assert torch.allclose(gradient, gradients[number], rtol=1e-9, atol=1e-12)


def test_the_stopping_rule_takes_no_more_columns_than_it_needs():
    """One column less, and the certificate would miss the tolerance by far less than a block."""
    x, y = cloud(0, 400), cloud(1, 400)
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    weight = torch.full((400,), -math.log(400), dtype=torch.float64)
    for tol in (1e-2, 1e-3, 1e-4, 1e-5):
        factor = low_rank._factorise(Points(x, y, weight, weight, zero, one, one), tol, 400)
        assert 0.6 * tol <= factor.certificate <= tol
