"""Kernel estimates against direct sums, one pair of rows at a time."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from hilbound.engine.expectation.components import log_density
from hilbound.estimators.mixtures.kernels import fit_kernel, kernel_components, leave_one_out


def rows(n=30, dim=3, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)))


def a_covariance(dim=3, seed=1):
    a = np.random.default_rng(seed).normal(size=(dim, dim))
    return torch.from_numpy(a @ a.T + 0.3 * np.eye(dim))


def direct(x, covariance, point, left_out=None):
    """The log density of a point, kernel by kernel."""
    there = [row for i, row in enumerate(x.numpy()) if i != left_out]
    return np.log(np.mean([multivariate_normal(row, covariance).pdf(point) for row in there]))


def test_a_row_left_out_is_predicted_by_the_kernels_of_all_others():
    x, s = rows(), a_covariance()
    asked = torch.tensor([4, 0, 29])
    expected = [direct(x, s, x[i].numpy(), i) for i in asked.tolist()]
    np.testing.assert_allclose(leave_one_out(x, asked, s), expected, atol=1e-10)


@pytest.mark.parametrize("full", [True, False])
def test_the_mixture_is_the_mean_of_all_kernels(full):
    x, s, points = rows(), a_covariance(), rows(5, seed=3)
    spread = s if full else s.diagonal()
    expected = [direct(x, s if full else s.diagonal().diag(), point) for point in points.numpy()]
    found = log_density(kernel_components(x, spread), points)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_a_round_kernel_has_the_best_width_by_leaving_each_row_out():
    x, asked = rows(), torch.arange(30)
    fitted = fit_kernel(x, asked, 1e-6, full=False)

    def loss(log_variance):
        spread = np.exp(log_variance) * torch.eye(3, dtype=x.dtype)
        return -float(leave_one_out(x, asked, spread).mean())

    best = np.exp(minimize_scalar(loss, bounds=(-5, 3), method="bounded").x)
    assert float(fitted[0, 0]) == pytest.approx(best, rel=0.02)
    assert torch.equal(fitted, fitted[0, 0] * torch.eye(3, dtype=x.dtype))


def test_a_covariance_is_a_maximum_by_leaving_each_row_out():
    """Any small change is for the worse."""
    x, asked = rows(200), torch.arange(200)
    fitted = fit_kernel(x, asked, 1e-9, full=True)
    best = float(leave_one_out(x, asked, fitted).mean())
    rng = np.random.default_rng(0)
    for _ in range(10):
        change = torch.from_numpy(rng.normal(size=(3, 3)))
        factor = torch.eye(3, dtype=x.dtype) + 0.1 * change
        assert float(leave_one_out(x, asked, factor @ fitted @ factor.mT).mean()) < best


@pytest.mark.parametrize("full", [True, False])
def test_the_least_variance_is_a_floor_and_not_added(full):
    x, asked = rows(200), torch.arange(200)
    free = fit_kernel(x, asked, 1e-9, full=full)
    least = float(torch.linalg.eigvalsh(free).min())
    # Below every variance on the way, from the start on, it changes no bit.
    assert torch.equal(fit_kernel(x, asked, 0.1 * least, full=full), free)
    lifted = fit_kernel(x, asked, 3 * least, full=full)
    assert float(torch.linalg.eigvalsh(lifted).min()) == pytest.approx(3 * least)
