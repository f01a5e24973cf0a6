"""The fast polar factors against float64 singular value decompositions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hilbound.engine.spectrum import polynomial
from hilbound.engine.spectrum.certificate import norm_bounds
from hilbound.engine.spectrum.eigen import eigen_slope
from hilbound.engine.spectrum.polynomial import polar_by_products, quintics, split_product

EPS = torch.finfo(torch.float32).eps


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def frames(n, m, seed=0):
    return torch.linalg.qr(normal(seed, n, m))[0], torch.linalg.qr(normal(seed + 1, m, m))[0]


def matrix_of(values, n=None, seed=0):
    """A float32 matrix with given singular values, up to its own rounding."""
    values = torch.as_tensor(values, dtype=torch.float64)
    u, v = frames(n or len(values), len(values), seed)
    return ((u * values) @ v.mT).float()


def kernel(n, m, seed=0, dim=24, variance=12.0, copy=0.3):
    """Cross Gram matrix of a data set and a perturbed copy: few large values and a long tail."""
    x = normal(seed, n, dim)
    y = x[torch.arange(m) % n] + copy * normal(seed + 1, m, dim)
    return (-torch.cdist(x, y).square() / (2 * variance)).exp().float()


def reference(a, power=1.0, drop=EPS):
    u, s, vh = torch.linalg.svd(a.double(), full_matrices=False)
    kept = s > drop * s[0]
    slope = power * s.where(kept, 1).pow(power - 1).where(kept, 0)
    return s.pow(power).sum(), (u * slope) @ vh, s


def of_float32_svd(a, power=1.0):
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    return s.pow(power).sum(), (u * (power * s.pow(power - 1))) @ vh


def relative(a, b):
    return float((a.double() - b.double()).norm() / b.double().norm())


SPECTRA = {
    "flat": torch.ones(256),
    "one large": torch.cat([torch.tensor([400.0]), torch.full((255,), 0.05)]),
    "two levels": torch.cat([torch.full((128,), 10.0), torch.full((128,), 1.0)]),
    "falling": 100 / torch.arange(1, 257) ** 1.3,
    "repeated": torch.tensor([8.0, 4.0, 2.0, 1.0]).repeat_interleave(64),
    "uniform": torch.linspace(1, 0.1, 256),
    "uniform down to zero": torch.linspace(1, 0, 256),
    "slowly falling": torch.logspace(0, -1, 256),
    "stepped": torch.tensor([1.0, 1e-2, 1e-4, 1e-4]).repeat_interleave(64),
    "a short top over a long flat tail": torch.cat([torch.ones(64), torch.full((192,), 1e-3)]),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("n", [256, 700])
def test_values_and_gradients_over_spectra(name, n):
    a = matrix_of(SPECTRA[name], n)
    result = eigen_slope(a, 1.0, EPS)
    expected, polar, _ = reference(a)
    assert result is not None
    value, slope = result
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    assert relative(slope, polar) < max(3 * relative(of_float32_svd(a)[1], polar), 1e-4)


@pytest.mark.parametrize("power", [1.0, 0.85, 0.5])
@pytest.mark.parametrize(("n", "m"), [(512, 512), (700, 400), (900, 340)])
def test_gram_matrices_are_as_exact_as_the_svd(power, n, m):
    a = kernel(n, m)
    value, slope = eigen_slope(a, power, EPS)
    expected, exact, _ = reference(a, power)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    svd_error = relative(of_float32_svd(a, power)[1], exact)
    assert relative(slope, exact) < 3 * svd_error + 1e-4


@pytest.mark.parametrize("copy", [0.1, 0.3, 1.0])
def test_the_tail_is_kept(copy):
    """The smallest directions that float32 resolves are in the gradient, with full weight."""
    a = kernel(512, 512, copy=copy)
    u, s, vh = torch.linalg.svd(a.double())
    _, slope = eigen_slope(a, 1.0, EPS)
    resolved = s > 100 * EPS * s[0]
    assert int(resolved.sum()) > 300
    weights = (u.mT @ slope.double() @ vh.mT).diagonal()[resolved]
    assert float((weights - 1).abs().max()) < 0.02
    assert float((weights[: int(resolved.sum()) // 2] - 1).abs().max()) < 1e-3


@pytest.mark.parametrize("spread", [0.1, 0.3, 1.0])
def test_centres_that_hardly_differ_get_no_worse_a_gradient(spread):
    """As early in training: most of the spectrum is tail, down to rounding and below."""
    x, y = normal(0, 512, 24), spread * normal(1, 512, 24)
    exact = (-torch.cdist(x, y).square() / 48).exp()

    def to_centres(slope):
        pull = slope.double() * exact
        return pull.mT @ x - pull.sum(0).unsqueeze(-1) * y

    a = exact.float()
    value, slope = eigen_slope(a, 1.0, EPS)
    expected, polar, _ = reference(exact)
    u, s, vh = torch.linalg.svd(a)
    of_svd = to_centres((u * (s > EPS * s[0])) @ vh)
    assert float(value) == pytest.approx(float(expected), rel=1e-5)
    target = to_centres(polar)
    assert relative(to_centres(slope), target) < 1.5 * relative(of_svd, target)


@pytest.mark.parametrize(
    "a",
    [torch.zeros(64, 64), torch.ones(64, 64), torch.ones(90, 64) * 1e-20, torch.eye(64) * 1e15],
    ids=["zero", "rank one", "tiny", "large"],
)
def test_matrices_without_a_spectrum_are_right_or_refused(a):
    result = eigen_slope(a, 1.0, EPS)
    if result is not None and all(bool(part.isfinite().all()) for part in result):
        expected, polar, _ = reference(a)
        assert float(result[0]) == pytest.approx(float(expected), rel=1e-4, abs=1e-30)
        assert relative(result[1], polar) < 1e-3 or float(result[1].abs().max()) == 0


def test_a_spectrum_that_falls_through_rounding_keeps_what_float32_resolves():
    """Most values are noise here. Above it, directions are right; below, none is lengthened."""
    a = matrix_of(0.9 ** torch.arange(256))
    u, s, vh = torch.linalg.svd(a.double())
    value, slope = eigen_slope(a, 1.0, EPS)
    assert float(value) == pytest.approx(float(s.sum()), rel=1e-5)
    resolved = s > 1e4 * EPS * s[0]
    weights = (u.mT @ slope.double() @ vh.mT).diagonal()[resolved]
    assert int(resolved.sum()) > 50
    assert float((weights - 1).abs().max()) < 1e-3
    assert float(torch.linalg.matrix_norm(slope, 2)) < 1.1


def test_a_kernel_of_many_dimensions_is_flat_and_not_refused():
    """One large value, all others within a factor of two: one direction is taken out, not 48."""
    x = 0.35 * normal(0, 320, 784)
    y = x + 0.2 * normal(1, 320, 784)
    a = (-torch.cdist(x, y).square() / 100).exp().float()
    value, slope = eigen_slope(a, 1.0, EPS)
    expected, polar, _ = reference(a)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    assert relative(slope, polar) < 2 * relative(of_float32_svd(a)[1], polar)


def test_a_line_above_rounding_is_left_to_the_svd():
    assert eigen_slope(matrix_of(torch.linspace(2, 1, 128)), 1.0, 0.75) is None


def test_the_number_of_threads_changes_rounding_only():
    a, threads = kernel(384, 384), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(eigen_slope(a, 1.0, EPS))
    finally:
        torch.set_num_threads(threads)
    (value, slope), (other_value, other_slope) = results
    assert float(value) == pytest.approx(float(other_value), rel=1e-6)
    assert relative(slope, other_slope) < 1e-3


# ------------------------------------------------------------------ certificates


@pytest.mark.parametrize(("n", "m"), [(5, 5), (7, 3), (2, 6)])
@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-3, 0.3])
def test_bounds_hold_in_ten_thousand_random_cases(n, m, noise):
    a = normal(n, 900, n, m) * torch.logspace(-6, 0, m, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    polar = u @ vh + noise * normal(m, 900, n, m)
    lower, upper = norm_bounds(a, polar)
    assert bool((lower <= s.sum(-1)).all())
    assert bool((s.sum(-1) <= upper).all())
    if noise <= 1e-6:
        assert bool((upper - lower <= 1e-3 * s.sum(-1)).all())


def test_bounds_of_missing_directions_and_of_nothing():
    a = matrix_of([3.0, 2.0, 1.0, 1e-9]).double()
    _, polar, s = reference(a, drop=1e-6)
    lower, upper = norm_bounds(a, polar)
    assert float(lower) <= float(s.sum()) <= float(upper) < 6 + 1e-6
    lower, upper = norm_bounds(torch.zeros(3, 3), torch.zeros(3, 3))
    assert float(lower) <= 0 <= float(upper) < 1e-12


# ------------------------------------------------------------------ products


@pytest.mark.parametrize("least", [1e-3, 1e-7, 2e-16])
def test_quintics_bring_every_value_to_one(least):
    x = torch.logspace(math.log10(least), 0, 2000, dtype=torch.float64)
    largest = 1.0
    for a, b, c, low in quintics(least):
        assert float(x.min()) >= low * (1 - 1e-9)
        x = a * x + b * x**3 + c * x**5
        largest = max(largest, float(x.max()))
    assert float((x - 1).abs().max()) < 1e-6
    assert largest < 2.1


def test_the_first_quintics_are_the_best_ones():
    """Equal errors of alternating sign at four points: what makes a best approximation."""
    low, high = 0.1, 1.0
    a, b, c = polynomial._best_quintic(low, high)
    x = torch.linspace(low, high, 100_001, dtype=torch.float64)
    error = 1 - (a * x + b * x**3 + c * x**5)
    peak = float(error.abs().max())
    signs = error[error.abs() > peak * (1 - 1e-6)].sign()
    changes = int((signs[1:] != signs[:-1]).sum())
    assert changes == 3


@given(st.integers(0, 100), st.booleans())
@settings(deadline=None, max_examples=20)
def test_split_products_have_the_bits_they_promise(seed, lifted):
    a, b = normal(seed, 30, 40, dtype=torch.float32), normal(seed + 1, 40, 20, dtype=torch.float32)
    exact = a.double() @ b.double()
    size = a.double().abs() @ b.double().abs()
    error = float(((split_product(a, b, lifted).double() - exact).abs() / size).max())
    assert error < (2.0**-15 if lifted else 2.0**-21)
    assert error > (2.0**-20 if lifted else 0)


@pytest.mark.parametrize(("n", "m"), [(60, 60), (90, 40), (40, 90)])
def test_products_reach_the_polar_factor_in_float64(n, m):
    a = normal(0, n, m)
    _, polar, s = reference(a, drop=0)
    assert torch.allclose(polar_by_products(a), polar, atol=1e-9 / float(s[-1] / s[0]))
    both = polar_by_products(torch.stack([a, 2 * a]))
    assert torch.allclose(both, polar_by_products(a).expand_as(both), atol=1e-9)


@pytest.mark.parametrize("multiply", [None, split_product], ids=["float32", "split"])
@pytest.mark.parametrize("copy", [0.1, 0.3])
def test_products_in_emulated_rounding_are_as_exact_as_the_svd(multiply, copy):
    a = kernel(256, 256, copy=copy)
    polar = polar_by_products(a, multiply)
    expected, exact, _ = reference(a)
    value, svd = float((polar.double() * a.double()).sum()), of_float32_svd(a)[1]
    assert value == pytest.approx(float(expected), rel=1e-6)
    assert relative(polar, exact) < 3 * relative(svd, exact) + 1e-5
    lower, upper = norm_bounds(a, polar)
    assert float(lower) <= float(expected) <= float(upper)
    assert float(upper - lower) < 1e-3 * float(expected)


@pytest.mark.parametrize("values", [SPECTRA["flat"], SPECTRA["repeated"], SPECTRA["two levels"]])
def test_products_over_spectra(values):
    a = matrix_of(values, 300)
    value, polar = polynomial.polynomial_slope(a, 1.0, EPS)
    expected, exact, _ = reference(a)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    assert relative(polar, exact) < 1e-5
    assert polynomial.polynomial_slope(a, 0.5, EPS) is None
    assert polynomial.polynomial_slope(a, 1.0, 0.1) is None


def test_products_of_nothing_and_of_rank_one_are_finite():
    assert float(polar_by_products(torch.zeros(5, 4)).abs().max()) == 0
    one = polar_by_products(torch.ones(6, 6))
    # The other directions are rounding, and stay at its size or are lifted to at most one.
    assert float((one.double().sum() / 6) - 1) == pytest.approx(0, abs=1e-6)
    assert float(torch.linalg.matrix_norm(one, 2)) < 1 + 1e-5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_products_on_the_device_are_those_emulated_here():
    a = kernel(512, 512)
    emulated = polar_by_products(a, split_product)
    assert relative(polar_by_products(a.cuda()).cpu(), emulated) < 1e-3
