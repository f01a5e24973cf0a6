"""Nuclear norms against numpy's singular values, and their gradient against the polar factor."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hilbound.engine.spectrum.norms import check_drop, nuclear_norm, schatten_power
from hilbound.engine.spectrum.svd import effective_rank, singular_values
from hilbound.errors import InputError

SHAPES = [(4, 4), (5, 3), (3, 6), (1, 4), (4, 1), (1, 1)]


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_singular_values(values, seed=0, n=None, m=None):
    """A matrix with given singular values between random orthogonal frames."""
    n, m = n or len(values), m or len(values)
    u, v = torch.linalg.qr(normal(seed, n, n))[0], torch.linalg.qr(normal(seed + 1, m, m))[0]
    r = len(values)
    return (u[:, :r] * torch.tensor(values, dtype=torch.float64)) @ v[:, :r].mT


def value_and_gradient(matrix, drop=None):
    matrix = matrix.clone().requires_grad_()
    norm = nuclear_norm(matrix, drop)
    return norm.detach(), torch.autograd.grad(norm.sum(), matrix)[0]


def polar(matrix, rank=None):
    u, _, vh = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    return torch.from_numpy(u[:, :rank] @ vh[:rank])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_value_and_gradient_are_numpys(shape, dtype, tol):
    a = normal(0, *shape, dtype=dtype)
    norm, gradient = value_and_gradient(a)
    assert norm.dtype == gradient.dtype == dtype
    assert float(norm) == pytest.approx(np.linalg.norm(a.double().numpy(), "nuc"), rel=tol)
    assert torch.allclose(gradient.double(), polar(a), atol=tol)
    assert float(nuclear_norm(a)) == pytest.approx(float(norm), rel=tol)


def test_gradient_is_that_of_finite_differences():
    for shape in SHAPES:
        assert torch.autograd.gradcheck(nuclear_norm, normal(0, *shape).requires_grad_())


def test_batches_are_loops_over_batches():
    a = normal(0, 2, 3, 4, 5)
    norms, gradients = value_and_gradient(a)
    assert norms.shape == (2, 3)
    for i in range(2):
        for j in range(3):
            norm, gradient = value_and_gradient(a[i, j])
            assert torch.allclose(norms[i, j], norm)
            assert torch.allclose(gradients[i, j], gradient, atol=1e-12)


@pytest.mark.parametrize(
    ("values", "rank"),
    [
        ([1.0, 1.0, 1.0], 3),
        ([2.0, 1.0, 1.0, 0.5, 0.5], 5),
        ([1.0, 1.0, 0.0, 0.0], 2),
        ([3.0, 0.0, 0.0], 1),
        ([1.0, 1e-20], 1),
    ],
)
def test_repeated_and_vanishing_singular_values(values, rank):
    a = with_singular_values(values)
    norm, gradient = value_and_gradient(a)
    assert float(norm) == pytest.approx(sum(values), rel=1e-12)
    assert torch.isfinite(gradient).all()
    if rank == len(values):
        assert torch.allclose(gradient, polar(a), atol=1e-12)
    # A subgradient of the norm has spectral norm 1 and attains the norm: <G, A> = |A|_*.
    assert float(torch.linalg.matrix_norm(gradient, 2)) == pytest.approx(1, abs=1e-12)
    assert float((gradient * a).sum()) == pytest.approx(float(norm), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_entries_whose_squares_are_subnormal_do_not_matter(dtype):
    a = torch.rand(12, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)
    small = 0.1 * math.sqrt(torch.finfo(dtype).tiny)
    seen = a * (a > 0.5)
    norm, gradient = value_and_gradient(seen + small * (a <= 0.5))
    expected, slope = value_and_gradient(seen)
    assert torch.equal(norm, expected)
    assert torch.equal(gradient, slope)


@pytest.mark.parametrize("shape", [(3, 3), (2, 5)])
def test_the_zero_matrix_has_the_zero_gradient(shape):
    norm, gradient = value_and_gradient(torch.zeros(shape))
    assert float(norm) == 0
    assert torch.equal(gradient, torch.zeros(shape))


@pytest.mark.parametrize(("drop", "rank"), [(0.0, 4), (0.005, 3), (0.05, 2), (0.5, 1), (1.0, 0)])
def test_drop_leaves_directions_out_of_the_gradient_but_not_of_the_value(drop, rank):
    values = [1.0, 0.4, 0.02, 0.003]
    a = with_singular_values(values)
    norm, gradient = value_and_gradient(a, drop)
    assert float(norm) == pytest.approx(sum(values), rel=1e-12)
    assert torch.allclose(gradient, polar(a, rank), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_default_drops_what_is_below_rounding(dtype):
    eps = torch.finfo(dtype).eps
    diagonal = torch.tensor([1.0, 10 * eps, 0.1 * eps], dtype=dtype)
    _, gradient = value_and_gradient(torch.diag(diagonal))
    assert gradient.diagonal().tolist() == pytest.approx([1, 1, 0], abs=1e-6)


@given(
    seed=st.integers(0, 10_000),
    n=st.integers(1, 6),
    m=st.integers(1, 6),
    scale=st.floats(1e-6, 1e6),
)
def test_it_is_a_norm(seed, n, m, scale):
    a, b = normal(seed, n, m), normal(seed + 1, n, m)
    assert float(nuclear_norm(a + b)) <= float(nuclear_norm(a) + nuclear_norm(b)) * (1 + 1e-12)
    assert float(nuclear_norm(-scale * a)) == pytest.approx(scale * float(nuclear_norm(a)))
    frobenius = float(torch.linalg.matrix_norm(a))
    norm = float(nuclear_norm(a))
    assert frobenius * (1 - 1e-12) <= norm <= math.sqrt(min(n, m)) * frobenius * (1 + 1e-12)


def fail(monkeypatch, name, times):
    """Let a decomposition of torch fail to converge for a number of calls."""
    original, calls = getattr(torch.linalg, name), []

    def flaky(matrix, *args, **options):
        calls.append(matrix.dtype)
        if len(calls) <= times:
            raise torch.linalg.LinAlgError("linalg.svd: failed to converge")
        return original(matrix, *args, **options)

    monkeypatch.setattr(torch.linalg, name, flaky)
    return calls


@pytest.mark.parametrize("shape", SHAPES)
def test_a_decomposition_that_fails_is_done_again_in_float64(monkeypatch, shape):
    a = normal(3, *shape, dtype=torch.float32)
    calls = fail(monkeypatch, "svd", 1)
    with pytest.warns(UserWarning, match=r"in torch.float32 did not converge.*again in float64"):
        norm, gradient = value_and_gradient(a)
    assert calls == [torch.float32, torch.float64]
    assert norm.dtype == gradient.dtype == torch.float32
    assert float(norm) == pytest.approx(np.linalg.norm(a.double().numpy(), "nuc"), rel=1e-6)
    assert torch.allclose(gradient.double(), polar(a), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_decomposition_that_fails_twice_is_done_by_another_algorithm(monkeypatch, shape):
    a = normal(3, *shape, dtype=torch.float64)
    fail(monkeypatch, "svd", 2)
    with pytest.warns(UserWarning, match="computed again in float64, in other ways"):
        norm, gradient = value_and_gradient(a)
    expected = np.linalg.norm(a.numpy(), "nuc", axis=(-2, -1))
    np.testing.assert_allclose(norm, expected, rtol=1e-12)
    assert torch.allclose(gradient, polar(a), atol=1e-10)


def test_a_failure_of_all_is_not_blamed_on_the_user(monkeypatch):
    fail(monkeypatch, "svd", 2)
    fail(monkeypatch, "eigh", 1)
    with (
        pytest.warns(UserWarning, match="did not converge"),
        pytest.raises(torch.linalg.LinAlgError, match="failed to converge"),
    ):
        nuclear_norm(normal(0, 3, 3).requires_grad_())


def test_values_without_gradient_survive_a_failure_too(monkeypatch):
    a = normal(0, 4, 3)
    fail(monkeypatch, "svdvals", 1)
    expected = np.linalg.svd(a.numpy(), compute_uv=False)
    np.testing.assert_allclose(singular_values(a), expected, rtol=1e-12)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("differentiable", [True, False])
def test_a_matrix_that_is_not_finite_is_refused(bad, differentiable):
    a = torch.eye(3)
    a[1, 2] = bad
    with pytest.raises(InputError, match=r"matrix holds NaN or infinite values.*check the means"):
        nuclear_norm(a.requires_grad_(differentiable))
    with pytest.raises(InputError, match="matrix holds NaN or infinite values"):
        singular_values(a)


def test_singular_values_descend_and_carry_no_gradient():
    a = normal(0, 2, 5, 3).requires_grad_()
    values = singular_values(a)
    assert not values.requires_grad
    assert values.shape == (2, 3)
    np.testing.assert_allclose(
        values, np.linalg.svd(a.detach().numpy(), compute_uv=False), rtol=1e-12
    )


@pytest.mark.parametrize("r", [1, 2, 7])
def test_effective_rank_counts_equal_values(r):
    values = torch.cat([torch.full((r,), 0.3), torch.zeros(4)])
    assert float(effective_rank(values)) == pytest.approx(r, rel=1e-6)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=8), st.floats(1e-3, 1e3))
def test_effective_rank_lies_between_one_and_the_count(values, scale):
    tensor = torch.tensor(values, dtype=torch.float64)
    share = np.array(values) / sum(values)
    expected = math.exp(-(share * np.log(share)).sum())
    rank = float(effective_rank(tensor))
    assert rank == pytest.approx(expected, rel=1e-9)
    assert 1 - 1e-9 <= rank <= len(values) * (1 + 1e-9)
    assert float(effective_rank(scale * tensor)) == pytest.approx(rank, rel=1e-9)


# ------------------------------------------------------------------ powers

POWERS = [0.1, 0.5, 0.85, 1.0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("power", POWERS)
@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_powers_and_their_gradient_are_numpys(shape, power, dtype, tol):
    a = normal(0, *shape, dtype=dtype)
    leaf = a.clone().requires_grad_()
    value = schatten_power(leaf, power)
    (gradient,) = torch.autograd.grad(value, leaf)
    u, s, vh = np.linalg.svd(a.double().numpy(), full_matrices=False)
    expected = power * (u * s ** (power - 1)) @ vh
    assert value.dtype == gradient.dtype == dtype
    assert float(value.detach()) == pytest.approx((s**power).sum(), rel=tol)
    assert float(schatten_power(a, power)) == pytest.approx((s**power).sum(), rel=tol)
    np.testing.assert_allclose(gradient.double(), expected, rtol=100 * tol, atol=100 * tol)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("power", POWERS)
def test_gradients_of_powers_are_those_of_finite_differences(shape, power):
    leaf = normal(0, *shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: schatten_power(a, power), leaf)


def test_power_one_is_the_nuclear_norm():
    a = normal(0, 3, 5, 4)
    assert torch.equal(schatten_power(a, 1.0), nuclear_norm(a))


@pytest.mark.parametrize("drop", [1e-12, 1e-3, 0.1])
@pytest.mark.parametrize("power", POWERS)
def test_drop_is_the_floor_under_the_singular_values(power, drop):
    """The steepest direction that is left pulls no more than one at the floor would."""
    a = with_singular_values([2.0, 0.5, 1e-2, 1e-9, 0.0]).requires_grad_()
    value = schatten_power(a, power, drop)
    value.backward()
    assert float(value.detach()) == pytest.approx(
        sum(s**power for s in (2.0, 0.5, 1e-2, 1e-9)), rel=1e-5, abs=5 * 1e-16**power
    )
    pull = float(torch.linalg.matrix_norm(a.grad, 2))
    kept = min(s for s in (2.0, 0.5, 1e-2, 1e-9) if s > drop * 2)
    # Of 1e-9 the computed value has six digits.
    assert pull == pytest.approx(power * kept ** (power - 1), rel=1e-5)
    assert pull <= power * (drop * 2) ** (power - 1)


@pytest.mark.parametrize("power", [0.1, 0.7])
@pytest.mark.parametrize(
    "matrix", [torch.zeros(3, 3), torch.ones(3, 4), torch.eye(3), 1e-30 * torch.ones(2, 2)]
)
def test_powers_of_matrices_without_rank_have_finite_gradients(power, matrix):
    leaf = matrix.clone().requires_grad_()
    schatten_power(leaf, power).backward()
    assert torch.isfinite(leaf.grad).all()


@pytest.mark.parametrize("power", [0.0, -0.5, 1.01, math.nan, math.inf])
def test_a_power_out_of_range_is_refused(power):
    with pytest.raises(InputError, match=r"power must lie in \(0, 1\], got"):
        schatten_power(torch.eye(2), power)


@pytest.mark.parametrize("drop", [-1e-9, 1.01, math.nan, math.inf])
def test_a_drop_that_is_no_share_is_refused(drop):
    for function in (nuclear_norm, lambda a, _, drop: schatten_power(a, 0.5, drop)):
        arguments = (torch.eye(2),) if function is nuclear_norm else (torch.eye(2), torch.eye(2))
        with pytest.raises(InputError, match=r"drop must lie in \[0, 1.*a share of the largest"):
            function(*arguments, drop)
    check_drop(None)
    check_drop(1.0)
    with pytest.raises(InputError, match=r"\[0, 1\), got 1.0"):
        check_drop(1.0, all_may_go=False)
