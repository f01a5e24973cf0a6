"""Kernel estimates against direct sums, one pair of rows at a time."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.stats import multivariate_normal

from hilbound.engine.expectation.components import log_density
from hilbound.estimators.mixtures.kernels import Kernels, fit_kernels


def rows(n=30, dim=3, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)))


def spreads(count, dim=3, seed=1):
    a = np.random.default_rng(seed).normal(size=(count, dim, dim))
    return torch.from_numpy(a @ a.transpose(0, 2, 1) + 0.3 * np.eye(dim))


def grouped(n=30):
    """Kernels of two groups, whose rows are not in order."""
    even, odd = torch.arange(0, n, 2).flip(0), torch.arange(1, n, 2)
    return Kernels(rows(n), [even, odd], spreads(2))


def direct(kernels, point, left_out=None):
    """The log density of a point, kernel by kernel."""
    total, count = 0.0, 0
    for group, covariance in zip(kernels.groups, kernels.covariances.numpy(), strict=True):
        for i in group.tolist():
            if i != left_out:
                total += multivariate_normal(kernels.x[i].numpy(), covariance).pdf(point)
                count += 1
    return np.log(total / count)


def test_a_row_left_out_is_predicted_by_the_kernels_of_all_others():
    kernels = grouped()
    asked = torch.tensor([4, 0, 29])
    expected = [direct(kernels, kernels.x[i].numpy(), i) for i in asked.tolist()]
    np.testing.assert_allclose(kernels.leave_one_out(asked), expected, atol=1e-10)


def test_the_mixture_is_the_mean_of_all_kernels():
    kernels, points = grouped(), rows(5, seed=3)
    expected = [direct(kernels, point) for point in points.numpy()]
    np.testing.assert_allclose(log_density(kernels.components(), points), expected, atol=1e-10)


@pytest.mark.parametrize("gone", [[0, 3, 4], list(range(0, 30, 2))])
def test_rows_that_are_taken_away_have_no_kernel(gone):
    kernels, point = grouped(), rows(1, seed=3)
    mask = torch.zeros(30, dtype=torch.bool)
    mask[gone] = True
    left = kernels.without(mask)
    kept = [
        multivariate_normal(kernels.x[i].numpy(), kernels.covariances[i % 2].numpy()).pdf(point[0])
        for i in range(30)
        if i not in gone
    ]
    assert float(log_density(left.components(), point)[0]) == pytest.approx(np.log(np.mean(kept)))


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("shrinkage", [0.0, 5.0])
def test_every_group_together_is_one_group(full, shrinkage):
    x, asked = rows(), torch.arange(30)
    one = fit_kernels(x, asked, 1e-6, full=full)
    explicit = fit_kernels(x, asked, 1e-6, full=full, groups=[asked], shrinkage=shrinkage)
    torch.testing.assert_close(one.covariances, explicit.covariances)


def test_a_round_kernel_has_the_best_width_by_leaving_each_row_out():
    x, asked = rows(), torch.arange(30)
    fitted = fit_kernels(x, asked, 1e-6, full=False)

    def loss(log_variance):
        spread = np.exp(log_variance) * torch.eye(3, dtype=x.dtype)[None]
        return -float(Kernels(x, [asked], spread).leave_one_out(asked).mean())

    best = np.exp(minimize_scalar(loss, bounds=(-5, 3), method="bounded").x)
    assert float(fitted.covariances[0, 0, 0]) == pytest.approx(best, rel=0.02)
    assert fitted.components()[0].spread.shape == (1, 3)


def test_covariances_are_a_maximum_by_leaving_each_row_out():
    """Any small change of either group's covariance is for the worse."""
    x, asked = rows(200), torch.arange(200)
    groups = [asked[x[:, 0] < 0], asked[x[:, 0] >= 0]]
    kernels = fit_kernels(x, asked, 1e-9, groups=groups, shrinkage=0.0)
    best = float(kernels.leave_one_out(asked).mean())
    rng = np.random.default_rng(0)
    for _ in range(10):
        change = torch.from_numpy(rng.normal(size=(2, 3, 3)))
        factor = torch.eye(3, dtype=x.dtype) + 0.1 * change
        other = Kernels(x, groups, factor @ kernels.covariances @ factor.mT)
        assert float(other.leave_one_out(asked).mean()) < best


def test_local_kernels_lean_as_the_rows_around_them_do():
    rng = np.random.default_rng(0)
    flat = np.stack([rng.normal(size=300), 0.02 * rng.normal(size=300)], 1)
    x = torch.from_numpy(np.concatenate([flat, flat[:, ::-1] + [8.0, 0.0]]))
    halves = [torch.arange(300), torch.arange(300, 600)]
    asked = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    common = fit_kernels(x, asked, 1e-6)
    local = fit_kernels(x, asked, 1e-6, groups=halves, shrinkage=2.0)
    wide, high = local.covariances
    assert wide[0, 0] > 20 * wide[1, 1]
    assert high[1, 1] > 20 * high[0, 0]
    gain = local.leave_one_out(asked) - common.leave_one_out(asked)
    assert float(gain.mean()) > 0.2


@pytest.mark.parametrize("full", [True, False])
def test_the_least_variance_is_a_floor_and_not_added(full):
    x, asked = rows(200), torch.arange(200)
    free = fit_kernels(x, asked, 1e-9, full=full)
    least = float(torch.linalg.eigvalsh(free.covariances).min())
    same = fit_kernels(x, asked, 0.5 * least, full=full)
    torch.testing.assert_close(same.covariances, free.covariances, rtol=1e-3, atol=1e-4)
    lifted = fit_kernels(x, asked, 3 * least, full=full)
    assert float(torch.linalg.eigvalsh(lifted.covariances).min()) == pytest.approx(3 * least)
    narrow = free.scaled(0.1, least)
    assert float(torch.linalg.eigvalsh(narrow.covariances).min()) == pytest.approx(least)
