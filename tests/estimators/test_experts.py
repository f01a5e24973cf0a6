"""Processes, trees and bent targets, against refits, scikit-learn and sampling."""

import numpy as np
import pytest
import torch
from scipy import integrate
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, Matern, WhiteKernel
from sklearn.preprocessing import PowerTransformer

from hilbound.estimators.experts import processes
from hilbound.estimators.experts.boosting import fit_boosters
from hilbound.estimators.experts.processes import Process, fit_processes
from hilbound.estimators.experts.rows import Rows
from hilbound.estimators.experts.trees import Trees
from hilbound.estimators.experts.warping import Bend, fit_warped
from hilbound.mixture import GaussianMixture


@pytest.fixture
def rows(generator):
    x = torch.randn(120, 2, generator=generator)
    noise = torch.randn(120, 1, generator=generator)
    y = torch.sin(2 * x[:, :1]) + 0.5 * x[:, 1:] + 0.2 * noise
    return Rows(x, y, torch.ones(120))


@pytest.fixture
def process(rows):
    logs = torch.tensor([0.5, 0.9, 1.5, 0.7, 0.6, 0.3, 0.1, 0.2, 0.05]).double().log()
    return Process(logs, rows.x.double(), rows.y.double()[:, 0], rows.weight.double())


def test_a_process_is_scikit_learns(process, generator):
    kernel = (
        ConstantKernel(0.6) * RBF([0.5, 0.9])
        + ConstantKernel(0.3) * Matern([1.5, 0.7], nu=1.5)
        + ConstantKernel(0.1) * DotProduct(np.sqrt(2))
        + WhiteKernel(0.05 + 1e-6)
    )
    oracle = GaussianProcessRegressor(kernel, optimizer=None, alpha=1e-12).fit(process.x, process.y)
    new = torch.randn(30, 2, generator=generator).double()
    mean, variance = process.predict(new)
    expected, deviation = oracle.predict(new, return_std=True)
    np.testing.assert_allclose(mean, expected, atol=1e-5)
    np.testing.assert_allclose(variance, deviation**2, atol=1e-5)


def test_leaving_one_out_is_fitting_without_it(process):
    means, variance = process.leave_one_out()
    for i in (0, 17, 119):
        rest = torch.arange(120) != i
        other = Process(process.logs, process.x[rest], process.y[rest], process.share[rest])
        mean, spread = other.predict(process.x[i : i + 1])
        assert float(means[i]) == pytest.approx(float(mean), abs=1e-6)
        assert float(variance[i]) == pytest.approx(float(spread), abs=2e-6)


def test_processes_learn_and_rows_beyond_theirs_are_held_out(rows, generator, monkeypatch):
    monkeypatch.setattr(processes, "_MOST", 90)
    fitted, held_out = fit_processes(rows, generator)
    assert len(fitted.parts[0].x) == 90
    score = float(held_out.log_prob(rows.y.double()).mean())
    assert score == pytest.approx(-np.log(0.2) - 1.419, abs=0.3)


def test_trees_are_scikit_learns(generator):
    x = torch.randn(500, 3, generator=generator).double()
    y = (x[:, 0] * x[:, 1] + x[:, 2]).numpy()
    model = HistGradientBoostingRegressor(max_iter=30, random_state=0).fit(x.numpy(), y)
    new = torch.randn(200, 3, generator=generator).double()
    np.testing.assert_allclose(Trees.of(model)(new), model.predict(new.numpy()), rtol=1e-10)
    model = HistGradientBoostingRegressor(loss="gamma", max_iter=9).fit(x.numpy(), y**2 + 0.1)
    np.testing.assert_allclose(Trees.of(model)(new).exp(), model.predict(new.numpy()), rtol=1e-10)


def test_boosters_learn_where_the_noise_is(generator):
    x = torch.rand(1500, 1, generator=generator)
    y = (0.1 + (x > 0.5)) * torch.randn(1500, 1, generator=generator)
    boosters, _ = fit_boosters(Rows(x, y, torch.ones(1500)), generator)
    quiet, loud = boosters.predict(torch.tensor([[0.2], [0.8]])).variance[:, 0].sqrt()
    assert quiet < 0.25
    assert 0.7 < loud < 1.6


def test_a_bend_is_the_power_transform_and_back(generator):
    y = torch.randn(300, generator=generator).double().exp()
    bend = Bend.learn(y)
    expected = PowerTransformer().fit_transform(y.numpy()[:, None])[:, 0]
    np.testing.assert_allclose(bend(y), expected, atol=1e-3)
    q = GaussianMixture(torch.tensor([[[0.3]], [[-1.0]]]).double(), 0.09)
    back = bend.back(q)
    draws = q.rsample((20000,), generator=generator).numpy()
    levels = np.linspace(0.05, 0.95, 19)
    for i in range(2):
        sampled = np.interp(np.quantile(draws[:, i, 0], levels), bend.bent, bend.target)
        single = GaussianMixture(back.means[i], back.component_variance[i], back.weights[i])
        got = single.cdf(torch.from_numpy(sampled)[:, None])
        np.testing.assert_allclose(got, levels, atol=0.03)


def test_a_warped_process_is_a_density_of_the_target(generator):
    x = torch.randn(100, 1, generator=generator)
    y = (x + 0.3 * torch.randn(100, 1, generator=generator)).exp()
    rows = Rows(x, (y - y.mean()) / y.std(), torch.ones(100))
    model, held_out = fit_warped(rows, generator)
    _, straight = fit_processes(rows, generator)
    grid = torch.linspace(-20, 60, 40001).double()
    density = model.predict(x[:4].double()).log_prob(grid[:, None, None]).exp()
    np.testing.assert_allclose(integrate.trapezoid(density.T, grid), 1, atol=1e-4)
    target = rows.y.double()
    assert held_out.log_prob(target).mean() > straight.log_prob(target).mean() + 0.2
