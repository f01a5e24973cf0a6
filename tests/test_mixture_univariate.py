"""Probabilities and quantiles on the line, against SciPy and mpmath."""

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture

MEANS = torch.tensor([[-3.0], [0.5], [400.0]], dtype=torch.float64)
VARIANCE = torch.tensor([[1e-4], [2.0], [900.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)


def mixture(dtype=torch.float64):
    return GaussianMixture(MEANS.to(dtype), VARIANCE.to(dtype), WEIGHTS.to(dtype))


def scipy_cdf(x):
    z = np.asarray(x)[..., None]
    parts = norm.cdf(z, MEANS[:, 0].numpy(), VARIANCE[:, 0].sqrt().numpy())
    return parts @ WEIGHTS.numpy()


def test_cdf_is_the_weighted_sum_of_scipys():
    x = torch.linspace(-20, 600, 301, dtype=torch.float64)
    np.testing.assert_allclose(mixture().cdf(x[:, None]), scipy_cdf(x.numpy()), rtol=1e-12)


def test_cdf_keeps_its_digits_far_in_the_lower_tail():
    x = torch.tensor([[-30.0]], dtype=torch.float64)
    with mpmath.workdps(40):
        exact = mpmath.fsum(
            w * mpmath.ncdf((-30 - m) / mpmath.sqrt(v))
            for m, v, w in zip(
                MEANS[:, 0].tolist(), VARIANCE[:, 0].tolist(), WEIGHTS.tolist(), strict=True
            )
        )
    assert float(mixture().cdf(x)) == pytest.approx(float(exact), rel=1e-9)


@given(st.floats(1e-300, 1 - 1e-12))
def test_quantiles_invert_the_cdf(p):
    prob = torch.tensor(p, dtype=torch.float64)
    assert float(mixture().cdf(mixture().icdf(prob))) == pytest.approx(p, rel=1e-6)


@given(st.floats(-40, 500))
def test_the_cdf_inverts_quantiles_where_it_is_not_flat(value):
    x = torch.tensor([value], dtype=torch.float64)
    p = mixture().cdf(x)
    density = float(mixture().log_prob(x).exp())
    if density * 1e-6 > 1e-14:  # a double near 1 cannot tell such neighbours apart
        assert float(mixture().icdf(p)) == pytest.approx(value, abs=1e-6)


def test_quantiles_of_one_component_are_scipys():
    q = GaussianMixture(torch.tensor([[2.0]], dtype=torch.float64), 9.0)
    p = torch.tensor([1e-200, 1e-9, 0.3, 0.5, 0.9, 1 - 1e-9], dtype=torch.float64)
    np.testing.assert_allclose(q.icdf(p)[..., 0], norm.ppf(p.numpy(), 2, 3), rtol=1e-12)


def test_a_batch_is_its_members_one_by_one(generator):
    means = torch.randn(4, 3, 5, 1, generator=generator, dtype=torch.float64)
    variance = torch.rand(4, 3, 5, 1, generator=generator, dtype=torch.float64) + 0.01
    q = GaussianMixture(means, variance)
    p = torch.rand(2, 4, 3, generator=generator, dtype=torch.float64)
    x = q.icdf(p)
    assert x.shape == (2, 4, 3, 1)
    one = GaussianMixture(means[1, 2], variance[1, 2])
    torch.testing.assert_close(one.icdf(p[:, 1, 2]), x[:, 1, 2])
    torch.testing.assert_close(q.cdf(x), p)


def test_a_gap_without_mass_and_a_weight_of_zero():
    means = torch.tensor([[-1e4], [1e4], [1e9]], dtype=torch.float64)
    q = GaussianMixture(means, 1e-6, torch.tensor([0.5, 0.5, 0.0]))
    p = torch.tensor([0.25, 0.4999, 0.5001, 0.75], dtype=torch.float64)
    x = q.icdf(p)[..., 0]
    expected = [-1e4 + 1e-3 * norm.ppf(0.5), -1e4 + 1e-3 * norm.ppf(0.9998)]
    np.testing.assert_allclose(x[:2], expected, rtol=1e-13)
    np.testing.assert_allclose(x[2:], -np.array(expected[::-1]), rtol=1e-13)


def test_the_ends_of_the_line():
    q = mixture()
    ends = q.icdf(torch.tensor([0.0, 1.0], dtype=torch.float64))[..., 0]
    assert ends.tolist() == [-torch.inf, torch.inf]


def test_float32_follows_the_input():
    q = mixture(torch.float32)
    x = q.icdf(torch.tensor([0.3, 0.7]))
    assert x.dtype == torch.float32
    torch.testing.assert_close(q.cdf(x), torch.tensor([0.3, 0.7]), atol=1e-6, rtol=1e-5)


def test_the_gradient_of_the_cdf_is_the_density():
    x = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    mixture().cdf(x).backward()
    torch.testing.assert_close(x.grad[0], mixture().log_prob(x.detach()).exp())


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_what_is_no_probability_is_refused(p):
    with pytest.raises(InputError, match="prob must be probabilities from 0 to 1, got"):
        mixture().icdf(torch.tensor(p))


def test_more_than_one_coordinate_is_refused():
    q = GaussianMixture(torch.zeros(2, 2), 1.0)
    with pytest.raises(InputError, match=r"cdf needs .* one coordinate, this one has 2.*marginal"):
        q.cdf(torch.zeros(2))
    with pytest.raises(InputError, match=r"icdf needs .* one coordinate"):
        q.icdf(torch.tensor(0.5))
