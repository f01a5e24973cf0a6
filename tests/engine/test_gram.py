"""Inner products of components against loops in float64, sixty digits, and scipy's distances."""

import math
import re
import warnings
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from hilbound.engine import gram
from support import oracles

DIMS = [1, 2, 50, 784, 12288]
KINDS = ["one", "diagonal", "component", "full"]
PAIRS = [*product(KINDS, KINDS)]


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def variances(kind, seed, n, d, dtype=torch.float64):
    """Variances from 0.3 to 1.3 in each of the shapes that a mixture hands over."""
    shape = {"one": (1, 1), "diagonal": (1, d), "component": (n, 1), "full": (n, d)}[kind]
    return 0.3 + torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def components(x, v):
    return oracles.dense(x.double().numpy(), v.double().numpy())


@pytest.mark.parametrize("d", DIMS)
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squared_distances_are_those_of_scipy(d, offset, dtype):
    x, y = normal(0, 9, d, dtype=dtype) + offset, normal(1, 7, d, dtype=dtype) + offset
    ours = gram.squared_distances(x, y)
    assert ours.dtype == dtype
    exact = cdist(x.double().numpy(), y.double().numpy(), "sqeuclidean")
    # Subtracting the centre rounds each coordinate once, a relative error of eps in a coordinate
    # of size 1 that carries over to the sum of d squares at most sqrt-wise; 1e-6 in float32.
    rel, tiny = (1e-6, 1e-6) if dtype == torch.float32 else (1e-12, 1e-12)
    np.testing.assert_allclose(ours.numpy(), exact, rtol=rel, atol=tiny)


@pytest.mark.parametrize("resolution", [1e-6, 1e-3, 1.0])
def test_squared_distances_keep_the_resolution_that_was_asked_for(resolution):
    x = normal(0, 40, 784, dtype=torch.float32)
    y = x + 1e-2 * normal(1, 40, 784, dtype=torch.float32)
    ours = gram.squared_distances(x, y, resolution)
    exact = cdist(x.double().numpy(), y.double().numpy(), "sqeuclidean")
    # On top of the resolution a float32 result carries its own rounding.
    assert (np.abs(ours.numpy() - exact) <= resolution + 2e-7 * exact).all()


def test_the_resolution_decides_the_precision_of_the_product():
    x, y = normal(0, 40, 784, dtype=torch.float32), normal(1, 40, 784, dtype=torch.float32)
    fine, coarse = gram.squared_distances(x, y, 0.0), gram.squared_distances(x, y, 1e6)
    assert not torch.equal(fine, coarse)
    assert torch.allclose(fine, coarse, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_to_itself_are_zero_and_duplicates_never_negative(dtype):
    x = 1e3 + normal(0, 30, 20, dtype=dtype)
    assert torch.equal(gram.squared_distances(x, x).diagonal(), torch.zeros(30, dtype=dtype))
    to_copy = gram.squared_distances(x, x.clone(), 1e9)
    assert (to_copy >= 0).all()
    assert (to_copy.diagonal() < 1e-3).all()


def test_an_outlier_does_not_blur_the_others():
    x = torch.tensor([[0.0], [1e-3], [3e-3], [1e3]])
    exact = cdist(x.double().numpy(), x.double().numpy(), "sqeuclidean")
    # In float64 the expansion rounds the outlier's 1e6 to 1e-10; in float32 to 0.1.
    np.testing.assert_allclose(gram.squared_distances(x, x), exact, rtol=1e-6, atol=1e-9)


def test_squared_distances_of_batches():
    x, y = normal(0, 3, 5, 4), normal(1, 3, 6, 4)
    ours = gram.squared_distances(x, y)
    for i in range(3):
        np.testing.assert_allclose(ours[i], cdist(x[i], y[i], "sqeuclidean"), rtol=1e-12)
    assert torch.equal(
        gram.squared_distances(x, x).diagonal(dim1=-2, dim2=-1), torch.zeros(3, 5).double()
    )


@pytest.mark.parametrize(("v", "w"), PAIRS)
@pytest.mark.parametrize("d", [1, 2, 50])
def test_log_inner_products_and_overlaps_are_those_of_the_loops(v, w, d):
    x, y = normal(0, 4, d), normal(1, 3, d)
    v, w = variances(v, 2, 4, d), variances(w, 3, 3, d)
    p, q = components(x, v), components(y, w)
    inner, overlaps = gram.log_inner_products(x, v, y, w), gram.log_overlaps(x, v, y, w)
    np.testing.assert_allclose(inner, oracles.log_products(p, q), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(overlaps, oracles.log_overlaps(p, q), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [784, 12288])
def test_high_dimensions_in_float32(kind, d):
    """Near pairs, whose kernels are not tiny, keep 1e-5 of the kernel; so 1e-5 of the exponent."""
    x = 1e3 + normal(0, 4, d, dtype=torch.float32)
    y = x[:3] + normal(1, 3, d, dtype=torch.float32) / math.sqrt(d)
    v = variances(kind, 2, 4, d, torch.float32)
    w = v if v.shape[0] == 1 else v[:3]
    ours = gram.log_overlaps(x, v, y, w).numpy()
    exact = oracles.log_overlaps(components(x, v), components(y, w))
    near = np.abs(exact) < 5
    assert near.sum() >= 3
    np.testing.assert_allclose(ours[near], exact[near], rtol=0, atol=1e-5)
    # Far pairs have exponents in the thousands, of which float32 has seven digits.
    np.testing.assert_allclose(ours, exact, rtol=1e-6, atol=1e-5)


EXTREMES = [1e-4, 1.0, 1e4]


@pytest.mark.parametrize(("a", "b"), [*product(EXTREMES, EXTREMES)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_variances_of_any_ratio_against_sixty_digits(a, b, dtype):
    d = 12
    x, y = normal(0, 2, d, dtype=dtype), normal(1, 2, d, dtype=dtype)
    v, w = torch.full((1, 1), a, dtype=dtype), torch.full((1, 1), b, dtype=dtype)
    inner, overlaps = gram.log_inner_products(x, v, y, w), gram.log_overlaps(x, v, y, w)
    rel = 1e-6 if dtype == torch.float32 else 1e-13
    for i, j in product(range(2), range(2)):
        arguments = (x[i].tolist(), [v.item()] * d, y[j].tolist(), [w.item()] * d)
        assert float(inner[i, j]) == pytest.approx(
            float(oracles.precise_log_product(*arguments)), rel=rel, abs=10 * rel
        )
        assert float(overlaps[i, j]) == pytest.approx(
            float(oracles.precise_log_overlap(*arguments)), rel=rel, abs=rel
        )


@pytest.mark.parametrize(("v", "w"), PAIRS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_overlaps_are_at_most_one_and_exactly_one_with_itself(v, w, dtype):
    x, y = normal(0, 6, 30, dtype=dtype), normal(1, 5, 30, dtype=dtype)
    v, w = variances(v, 2, 6, 30, dtype), variances(w, 3, 5, 30, dtype)
    assert (gram.log_overlaps(x, v, y, w) <= 0).all()
    assert torch.equal(gram.log_overlaps(x, v, x, v).diagonal(), torch.zeros(6, dtype=dtype))
    assert torch.allclose(
        gram.log_overlaps(x, v, y, w), gram.log_overlaps(y, w, x, v).mT, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("unit", [1e-4, 0.7, 1e4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_unit_multiplies_by_the_volume_it_stands_for(kind, unit):
    x, v = normal(0, 4, 6), variances(kind, 1, 4, 6)
    y, w, b = normal(2, 3, 6), variances(kind, 3, 3, 6), torch.zeros(3).double()
    volume = 3 * math.log(2 * math.pi * unit)
    in_unit, plain = (
        gram.log_inner_products(x, v, y, w, unit),
        gram.log_inner_products(x, v, y, w),
    )
    assert torch.allclose(in_unit, plain + volume, rtol=1e-13)
    in_unit, plain = gram.log_row_sums(x, v, y, w, b, unit=unit), gram.log_row_sums(x, v, y, w, b)
    assert torch.allclose(in_unit, plain + volume, rtol=1e-13)


def test_batches_are_loops_over_batches():
    x, y = normal(0, 3, 4, 5), normal(1, 3, 6, 5)
    v, w = torch.rand(3, 4, 1).double() + 0.5, torch.rand(3, 6, 5).double() + 0.5
    for function in (gram.log_inner_products, gram.log_overlaps):
        together = function(x, v, y, w)
        for i in range(3):
            assert torch.allclose(together[i], function(x[i], v[i], y[i], w[i]), rtol=1e-12)


def row_sums_and_gradients(x, v, y, w, b):
    leaves = [a.clone().requires_grad_() for a in (x, v, y, w, b)]
    sums = gram.log_row_sums(*leaves)
    return sums, torch.autograd.grad(sums.sin().sum(), leaves)


@pytest.mark.parametrize("batch", [(), (2,)])
@pytest.mark.parametrize(("v", "w"), PAIRS)
@pytest.mark.parametrize("pairs", [1, 31])
def test_blocks_change_neither_values_nor_gradients(monkeypatch, v, w, batch, pairs):
    x, y, b = normal(0, *batch, 7, 3), normal(1, *batch, 5, 3), normal(2, *batch, 5)
    v, w = variances(v, 3, 7, 3), variances(w, 4, 5, 3)
    values, gradients = row_sums_and_gradients(x, v, y, w, b)
    calls = []
    whole = gram.log_inner_products

    def counted(*args, **options):
        calls.append(args[0].shape)
        return whole(*args, **options)

    monkeypatch.setattr(gram, "_BLOCK_PAIRS", pairs)
    monkeypatch.setattr(gram, "log_inner_products", counted)
    streamed, streamed_gradients = row_sums_and_gradients(x, v, y, w, b)
    assert len(calls) > 2, "the sums did not stream"
    assert torch.allclose(streamed, values, rtol=1e-13)
    for ours, direct in zip(streamed_gradients, gradients, strict=True):
        assert torch.allclose(ours, direct, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("v", "w"), PAIRS)
def test_a_block_holds_no_more_numbers_than_its_limit(monkeypatch, v, w):
    n, m, d, limit = 40, 8, 5, 160
    x, y, b = normal(0, 2, n, d), normal(1, m, d), torch.zeros(m).double()
    v, w = variances(v, 2, n, d), variances(w, 3, m, d)
    monkeypatch.setattr(gram, "_BLOCK_PAIRS", limit)
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, _, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            # What has the m columns of the pairs is the block's own, not a view of an argument.
            if isinstance(result, torch.Tensor) and m in result.shape[-2:] and result.ndim > 2:
                largest = max(largest, result.numel())
            return result

    with Watch():
        gram.log_row_sums(x, v, y, w, b)
    assert 0 < largest <= limit


@pytest.mark.parametrize("magnitude", [1e-3, 1e3])
@given(seed=st.integers(0, 1000), d=st.integers(1, 6), v=st.sampled_from(KINDS))
def test_shifting_both_sides_changes_nothing(magnitude, seed, d, v):
    x, y = normal(seed, 4, d), normal(seed + 1, 3, d)
    v, w = variances(v, seed, 4, d), variances("one", seed, 3, d)
    shift = magnitude * normal(seed + 2, d)
    assert torch.allclose(
        gram.log_overlaps(x + shift, v, y + shift, w),
        gram.log_overlaps(x, v, y, w),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize(("v", "w"), PAIRS)
def test_gradients_are_those_of_finite_differences(v, w):
    leaves = (normal(0, 3, 2), variances(v, 1, 3, 2), normal(2, 2, 2), variances(w, 3, 2, 2))
    leaves = tuple(a.requires_grad_() for a in leaves)
    assert torch.autograd.gradcheck(gram.log_inner_products, leaves)
    assert torch.autograd.gradcheck(gram.log_overlaps, leaves)


# ------------------------------------------------------------------ fewer bits


@pytest.fixture
def matmul_precision():
    """Set the bits of float32 products, which are everybody's, and put them back."""
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("setting", "dtype", "unit"),
    [
        ("highest", torch.float32, 2.0**-23),
        ("high", torch.float32, 2.0**-10),
        ("medium", torch.float32, 2.0**-7),
        ("medium", torch.float64, 2.0**-52),
        ("high", torch.float16, 2.0**-10),
        ("highest", torch.bfloat16, 2.0**-7),
    ],
)
def test_the_rounding_unit_is_that_of_the_products(matmul_precision, setting, dtype, unit):
    matmul_precision(setting)
    assert gram.rounding_unit(dtype) == unit


def rounded_square(x, y, dtype):
    """The expanded square in float64 of centred points that were rounded once: no other error."""
    return cdist(*(a.to(dtype).double().numpy() for a in (x, y)), "sqeuclidean")


def expanded_square(x, y, dtype):
    """The expanded square as a machine forms it: float32 sums of products of rounded points."""
    squares = [a.float().square().sum(-1) for a in (x, y)]
    product = x.to(dtype).float() @ y.to(dtype).float().mT
    return (squares[0].unsqueeze(-1) + squares[1] - 2 * product).double().numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("d", [1, 2, 10, 784])
def test_no_exponent_is_further_off_than_predicted(dtype, d):
    """Points on either side of their mean are the worst: there all the roundings add up."""
    worst = 0.0
    for seed in range(100):
        # Within the range of float16, in any unit: powers of two round as one does.
        scale = 2.0 ** (seed % 7 - 3) * (1 + seed / 100)
        x = scale * normal(seed, 6, d)
        y = (2 * x.mean(0) - x) if seed % 2 else scale * normal(seed + 1, 5, d)
        v = 0.1 + seed / 10
        exact = cdist(x, y, "sqeuclidean") / (2 * v)
        bound = gram.exponent_error(x, y, v, dtype)
        centre = x.mean(0)
        for square in (rounded_square, expanded_square):
            error = np.abs(square(x - centre, y - centre, dtype) / (2 * v) - exact).max()
            worst = max(worst, error / bound)
    assert worst <= 1
    # No bound of anything: it is within two orders of what happens.
    assert worst > 0.01


@given(
    seed=st.integers(0, 10_000),
    d=st.integers(1, 20),
    scale=st.floats(1e-2, 1e2),
    offset=st.sampled_from([0.0, 1e3]),
)
def test_the_predicted_error_bounds_that_of_the_squared_distances(seed, d, scale, offset):
    x, y = (offset + scale * normal(seed + i, 7, d, dtype=torch.float32) for i in range(2))
    exact = cdist(x.double().numpy(), y.double().numpy(), "sqeuclidean") / 2
    # Products in float32, however large their error.
    error = np.abs(gram.squared_distances(x, y, math.inf).double().numpy() / 2 - exact).max()
    # The mean of float32 points is a float32 number: subtracting it rounds by the offset's digits.
    slack = 8 * torch.finfo(torch.float32).eps * offset * float(np.sqrt(2 * exact).max()) * d**0.5
    assert error <= gram.exponent_error(x, y, 1.0) + slack


def test_the_prediction_follows_the_setting_the_dtype_and_the_variance(matmul_precision):
    x = normal(0, 5, 3, dtype=torch.float32)
    plain = gram.exponent_error(x, x, 1.0)
    assert gram.exponent_error(x, x, 4.0) == pytest.approx(plain / 4)
    assert gram.exponent_error(10 * x, 10 * x, 1.0) == pytest.approx(100 * plain, rel=1e-5)
    assert gram.exponent_error(x, x, 1.0, torch.bfloat16) == pytest.approx(2**16 * plain)
    matmul_precision("high")
    assert gram.exponent_error(x, x, 1.0) == pytest.approx(2**13 * plain)
    assert gram.exponent_error(x, x, 1.0, torch.float64) == pytest.approx(2**-29 * plain)


@pytest.mark.parametrize("setting", ["high", "medium"])
def test_too_few_bits_are_not_used_and_that_is_said_once(matmul_precision, setting):
    x, y = (normal(i, 30, 50, dtype=torch.float32) for i in range(2))
    v = torch.ones(1, 1)
    exact = gram.log_overlaps(x, v, y, v)
    matmul_precision(setting)
    with pytest.warns(UserWarning, match="formed in float64") as caught:
        ours = gram.log_overlaps(x, v, y, v)
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "set_float32_matmul_precision allows products of fewer bits" in message
    # What is predicted and what would be harmless, in the units of the distance.
    predicted, harmless = map(float, re.findall(r"\((\S+?)(?: predicted)?\)", message))
    assert predicted > harmless > 0
    assert torch.allclose(ours, exact, rtol=1e-6, atol=1e-6)
    seen = []
    original = torch.Tensor.double
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(torch.Tensor, "double", lambda self: seen.append(1) or original(self))
        gram.log_overlaps(x, v, y, v)
    assert seen, "the products were not formed in float64"


def test_few_bits_that_do_no_harm_are_used_in_silence(matmul_precision):
    matmul_precision("high")
    x = 1e-4 * normal(0, 5, 3, dtype=torch.float32)
    v = torch.ones(1, 1)
    gram.log_overlaps(x, v, x, v)
    gram.log_overlaps(x.double(), v.double(), 1e3 * x.double(), v.double())


def test_float64_without_the_wish_for_fewer_bits_needs_no_warning():
    x = 1e3 * normal(0, 5, 3, dtype=torch.float32)
    v = torch.ones(1, 1)
    assert torch.isfinite(gram.log_overlaps(x, v, x.clone(), v)).all()
