"""The plan that is said is the plan that runs, and every failure falls to the next method."""

import math

import pytest
import torch

from hilbound import functional as F
from hilbound.engine.spectrum import norms
from hilbound.engine.spectrum import plan as plan_module
from hilbound.engine.spectrum.norms import certified_nuclear_norm, nuclear_norm, schatten_power
from hilbound.engine.spectrum.plan import NormPlan, plan_norm
from hilbound.mixture import GaussianMixture

EPS = torch.finfo(torch.float32).eps


@pytest.fixture(autouse=True)
def _small_matrices_take_the_fast_method(monkeypatch):
    """So that these tests are fast; which size pays is the benchmark's matter."""
    monkeypatch.setattr(plan_module, "_LEAST_EIGEN", 320)


def kernel(n, m, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 24, generator=generator, dtype=torch.float64)
    y = x[torch.arange(m) % n] + 0.3 * torch.randn(m, 24, generator=generator, dtype=torch.float64)
    return (-torch.cdist(x, y).square() / 24).exp().to(dtype)


def value_and_gradient(a, power=1.0):
    leaf = a.clone().requires_grad_()
    value = schatten_power(leaf, power)
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


def reference(a, power=1.0):
    u, s, vh = torch.linalg.svd(a.double(), full_matrices=False)
    return s.pow(power).sum(-1), (u * (power * s.pow(power - 1)).unsqueeze(-2)) @ vh


@pytest.mark.parametrize(
    ("arguments", "options", "order"),
    [
        ((64, 64), {}, ("svd",)),
        ((1024, 1024), {}, ("sketch", "eigen", "svd")),
        ((256, 300), {}, ("sketch", "svd")),
        ((256, 256), {"batch": 10}, ("sketch", "threads", "svd")),
        ((256, 256), {"batch": 10, "power": 0.7}, ("threads", "svd")),
        ((64, 64), {"batch": 10}, ("threads", "svd")),
        ((1024, 1024), {"batch": 10}, ("sketch", "eigen", "svd")),
        ((1024, 1024), {"power": 0.7}, ("eigen", "svd")),
        ((4096, 32), {}, ("svd",)),
        ((1024, 1024), {"dtype": torch.float64}, ("svd",)),
        ((1024, 1024), {"gradient": False}, ("values",)),
        ((1024, 1024), {"drop": 0.1}, ("svd",)),
        ((4096, 4096), {"device": "cuda"}, ("polynomial", "svd")),
        ((4096, 4096), {"device": "cuda", "power": 0.7}, ("svd",)),
        ((4096, 4096), {"dim": 2}, ("low rank", "sketch", "eigen", "svd")),
        ((4096, 4096), {"dim": 784}, ("sketch", "eigen", "svd")),
        ((4096, 4096), {"dim": 784, "tol": 1e-3}, ("low rank", "sketch", "eigen", "svd")),
        ((4096, 4096), {"dim": 2, "power": 0.5}, ("eigen", "svd")),
        ((4096, 4096), {"dim": 2, "dtype": torch.float64}, ("svd",)),
        ((4096, 4096), {"dim": 2, "gradient": False}, ("low rank", "values")),
    ],
)
def test_plans(arguments, options, order):
    chosen = plan_norm(*arguments, **options)
    assert chosen.order == order
    assert plan_norm(*reversed(arguments), **options).order == order
    assert str(chosen).startswith(f"{order[0]}: ")
    assert all(name in str(chosen) for name in order)
    assert (chosen.rank_limit > 0) == (order[0] == "low rank") == (chosen.tol > 0)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_products_of_fewer_bits_are_kept_away(precision):
    before = torch.get_float32_matmul_precision()
    x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    y = x.flip(0).clone().requires_grad_()
    p, q = GaussianMixture(x, 0.9), GaussianMixture(y + 0.1, 0.9)
    (expected,) = torch.autograd.grad(F.fidelity(p, q), y, retain_graph=True)
    try:
        torch.set_float32_matmul_precision(precision)
        assert plan_norm(1024, 1024).order == ("svd",)
        (gradient,) = torch.autograd.grad(F.fidelity(p, q), y)
    finally:
        torch.set_float32_matmul_precision(before)
    assert float((gradient - expected).norm() / expected.norm()) < 1e-3


@pytest.mark.parametrize("shape", [(400, 400), (64, 64), (600, 330), (330, 600)])
@pytest.mark.parametrize("power", [1.0, 0.7])
def test_the_plan_is_what_runs(monkeypatch, shape, power):
    ran = []
    last = norms.slope_by_svd
    monkeypatch.setattr(norms, "slope_by_svd", lambda *a: (ran.append("svd"), last(*a))[1])
    for name, method in list(norms._METHODS.items()):
        monkeypatch.setitem(
            norms._METHODS, name, lambda *a, n=name, f=method: (ran.append(n), f(*a))[1]
        )
    a = kernel(*shape)
    value, gradient = value_and_gradient(a, power)
    order = plan_norm(*shape, power=power).order
    # These kernels have no low rank, so a look at them is followed by the next method.
    assert ran == list(order[:2] if order[0] == "sketch" else order[:1])
    expected, exact = reference(a, power)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert gradient.shape == a.shape
    assert float((gradient - exact).norm() / exact.norm()) < 5e-3


def test_batches_are_loops_in_the_fast_method_too():
    a = torch.stack([kernel(340, 330, seed) for seed in range(2)])
    values, gradients = value_and_gradient(a)
    for i in range(2):
        value, gradient = value_and_gradient(a[i])
        assert torch.allclose(values[i], value)
        assert torch.allclose(gradients[i], gradient, atol=1e-4)


def test_a_failed_method_falls_to_the_next_and_says_so_once(monkeypatch):
    def fail(*_):
        raise torch.linalg.LinAlgError("linalg.eigh: failed to converge")

    monkeypatch.setitem(norms._METHODS, "eigen", fail)
    a = kernel(330, 330)
    with pytest.warns(UserWarning, match="'eigen' for nuclear norms did not converge") as caught:
        value, gradient = value_and_gradient(a)
    assert len(caught) == 1
    expected, exact = reference(a)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert float((gradient - exact).norm() / exact.norm()) < 5e-3


@pytest.mark.parametrize("result", [None, (torch.tensor(math.nan), torch.zeros(330, 330))])
def test_a_method_that_gives_up_is_followed_in_silence(monkeypatch, result):
    monkeypatch.setitem(norms._METHODS, "eigen", lambda *_: result)
    a = kernel(330, 330)
    value, _ = value_and_gradient(a)
    assert float(value) == pytest.approx(float(reference(a)[0]), rel=1e-5)


@pytest.mark.parametrize(
    "a",
    [torch.zeros(400, 350), torch.ones(400, 400), 1e-30 * torch.ones(350, 400), torch.eye(400)],
    ids=["zero", "rank one", "tiny", "identity"],
)
def test_large_matrices_without_a_tail(a):
    value, gradient = value_and_gradient(a)
    s = torch.linalg.svdvals(a.double())
    # LAPACK itself leaves each of the 350 values up to two units of the largest off, by processor.
    rounding = 2 * 350 * EPS * float(s[0])
    assert float(value) == pytest.approx(
        float(s[s > 1e-6 * s[0]].sum()), rel=1e-5, abs=2 * rounding
    )
    assert torch.isfinite(gradient).all()
    assert float((gradient * a).sum()) == pytest.approx(float(value), rel=1e-5, abs=2 * rounding)


def test_there_is_no_second_derivative():
    a = torch.eye(3, dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(nuclear_norm(a) ** 2, a, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


@pytest.mark.parametrize("shape", [(40, 40), (400, 400), (30, 50)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certificates_of_matrices(shape, dtype):
    a = kernel(*shape, dtype=dtype).requires_grad_()
    norm, certificate = certified_nuclear_norm(a)
    expected = float(torch.linalg.svdvals(a.detach().double()).sum())
    assert norm.dtype == dtype
    assert abs(float(norm.detach()) - expected) <= float(certificate)
    assert float(certificate) < (1e-9 if dtype == torch.float64 else 1e-4) * expected
    (gradient,) = torch.autograd.grad(norm, a)
    assert float((gradient - reference(a.detach())[1]).norm()) < 0.05


def test_a_tolerance_that_float32_misses_is_met_in_float64():
    a = kernel(50, 50).requires_grad_()
    norm, certificate = certified_nuclear_norm(a, tol=1e-8)
    assert norm.dtype == torch.float64
    assert float(certificate) <= 1e-8
    assert nuclear_norm(a, tol=1e-8).dtype == torch.float32
    norm.backward()
    assert a.grad.dtype == torch.float32


@pytest.mark.usefixtures("compiler")
def test_compilers_meet_no_break():

    def loss(a):
        return nuclear_norm(2 * a).log() + schatten_power(a, 0.7)

    a = kernel(40, 30).requires_grad_()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    (gradient,) = torch.autograd.grad(compiled(a), a)
    (expected,) = torch.autograd.grad(loss(a), a)
    assert torch.allclose(gradient, expected)


def test_the_fidelity_of_mixtures_says_its_plan_and_keeps_to_it():
    x = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    p, q = GaussianMixture(x, 0.5), GaussianMixture(x.flip(0), 0.5)
    value, certificate = F.certified_fidelity(p, q, tol=1e-4)
    assert float(value) == pytest.approx(1, abs=float(certificate) + 1e-6)
    assert isinstance(F.fidelity(p, q), torch.Tensor)
    assert plan_norm(400, 400, dim=2, tol=1e-4) == NormPlan(
        "low rank",
        "2 dimensions and a tolerance of 0.0001",
        ("sketch", "eigen", "svd"),
        133,
        1e-4,
    )
