"""Expectation-maximisation against scikit-learn's, and gaps against direct computation."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture as Reference

from hilbound.engine.expectation.algorithm import (
    Regularisation,
    fit_components,
    start_components,
)
from hilbound.engine.expectation.components import (
    Components,
    blur,
    draw,
    log_density,
    log_inner,
    log_norm,
)
from hilbound.engine.expectation.moments import expect
from hilbound.estimators.mixtures.joined import as_mixture


def made(n=300, dim=3, seed=0):
    rng = np.random.RandomState(seed)
    centres = 3 * rng.randn(4, dim)
    return torch.from_numpy(centres[rng.randint(0, 4, n)] + rng.randn(n, dim) @ rng.randn(dim, dim))


def with_gaps(x, share=0.3, seed=0):
    gaps = torch.from_numpy(np.random.RandomState(seed).rand(*x.shape) < share)
    return x.masked_fill(gaps, torch.nan)


def start(x, count, *, full, ridge=1e-6):
    generator = torch.Generator().manual_seed(0)
    return start_components(x, count, Regularisation(0.0, ridge), full=full, generator=generator)


@pytest.mark.parametrize(("full", "shape"), [(True, "full"), (False, "diag")])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_algorithm_is_that_of_scikit_learn_from_the_same_start(full, shape):
    x = made()
    first = start(x, 4, full=full)
    steps = 15
    reference = Reference(
        4,
        covariance_type=shape,
        max_iter=steps,
        tol=0.0,
        weights_init=first.log_weights.exp().numpy(),
        means_init=first.means.numpy(),
        precisions_init=(torch.linalg.inv(first.spread) if full else 1 / first.spread).numpy(),
    ).fit(x.numpy())
    ours = fit_components(x, first, Regularisation(), max_steps=steps, tolerance=-np.inf)
    np.testing.assert_allclose(ours.means, reference.means_, atol=1e-6)
    np.testing.assert_allclose(ours.spread, reference.covariances_, atol=1e-6)
    np.testing.assert_allclose(log_density(ours, x), reference.score_samples(x.numpy()), atol=1e-6)


def direct(x, means, covariances, weights):
    """The marginal density of every row, one submatrix at a time."""
    result = []
    for row in x.numpy():
        o = ~np.isnan(row)
        terms = [
            w * multivariate_normal(m[o], s[np.ix_(o, o)]).pdf(row[o]) if o.any() else w
            for m, s, w in zip(means, covariances, weights, strict=True)
        ]
        result.append(np.log(np.sum(terms)))
    return np.array(result)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_missing_values_are_integrated_out(full, shared):
    x = with_gaps(made(40), 0.4)
    x[0] = torch.nan
    c = start(made(), 4, full=full)
    c = Components(c.means, c.spread[:1] if shared else c.spread, c.log_weights)
    covariances = (c.spread if full else torch.diag_embed(c.spread)).expand(4, 3, 3)
    expected = direct(x, c.means.numpy(), covariances.numpy(), c.log_weights.exp().numpy())
    np.testing.assert_allclose(log_density(c, x), expected, atol=1e-9)


@pytest.mark.parametrize("full", [True, False])
def test_expected_moments_of_gaps_are_those_of_the_conditional_gaussians(full):
    x = with_gaps(made(120))  # frequent patterns and rare ones
    c = start(made(), 3, full=full)
    count, first = torch.zeros(3).double(), torch.zeros(3, 3).double()
    second = torch.zeros(3, 3, 3).double()
    for row in x:
        known = (~row.isnan()).nonzero().flatten().tolist()
        gaps = row.isnan().nonzero().flatten().tolist()
        parts = [
            as_mixture([Components(c.means[k : k + 1], c.spread[k : k + 1], torch.zeros(1))])
            for k in range(3)
        ]
        joint = c.log_weights.clone()
        if known:
            joint += torch.stack([q.marginal(known).log_prob(row[known]) for q in parts])
        r = joint.softmax(0)
        for k, q in enumerate(parts):
            filled, left = row.clone(), torch.zeros(3, 3).double()
            if gaps:
                rest = q.condition(known, row[known]) if known else q
                filled[gaps] = rest.mean
                one = rest.covariance if full else rest.variance.diag()
                left[np.ix_(gaps, gaps)] = one
            count[k] += r[k]
            first[k] += r[k] * filled
            second[k] += r[k] * (filled[:, None] * filled + left)
    moments = expect(x, c)
    np.testing.assert_allclose(moments.count, count, atol=1e-9)
    np.testing.assert_allclose(moments.first, first, atol=1e-8)
    second = second if full else second.diagonal(dim1=-2, dim2=-1)
    np.testing.assert_allclose(moments.second, second, atol=1e-8)
    assert float(moments.log_likelihood) == pytest.approx(float(log_density(c, x).sum()))


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("floor", [0.0, 2.0])  # the least variance of these rows is below 2
def test_every_step_raises_the_likelihood_of_incomplete_rows(full, floor):
    x = with_gaps(made(200))
    rule = Regularisation(ridge=0.0, floor=floor)
    c = fit_components(x, start(x, 4, full=full, ridge=0.0), rule, max_steps=1)
    scores = [float(log_density(c, x).mean())]
    for _ in range(15):
        c = fit_components(x, c, rule, max_steps=1)
        scores.append(float(log_density(c, x).mean()))
    assert (np.diff(scores) > -1e-12).all()
    assert scores[-1] > scores[0] + 0.01


def test_a_least_variance_is_met_where_it_must_be_and_changes_nothing_else():
    x = made(500) @ torch.diag(torch.tensor([1.0, 0.2, 0.02]).double())
    free = fit_components(x, start(x, 1, full=True), Regularisation(ridge=0.0), max_steps=1)
    floored = fit_components(
        x, start(x, 1, full=True), Regularisation(ridge=0.0, floor=0.01), max_steps=1
    )
    values, vectors = np.linalg.eigh(free.spread[0].numpy())
    assert (values < 0.01).sum() == 1  # in one direction alone
    expected = vectors @ np.diag(np.maximum(values, 0.01)) @ vectors.T
    np.testing.assert_allclose(floored.spread[0], expected, atol=1e-12)
    # No covariance with as much in every direction is better.
    best = float(log_density(floored, x).mean())
    rng = np.random.default_rng(0)
    for size in (0.003, 0.03, 0.3):
        turned = np.eye(3) + size * rng.normal(size=(3, 3))
        other = turned @ expected @ turned.T
        low, around = np.linalg.eigh(other)
        other = around @ np.diag(np.maximum(low, 0.01)) @ around.T
        c = Components(floored.means, torch.from_numpy(other)[None], floored.log_weights)
        assert float(log_density(c, x).mean()) < best


def test_gaps_leave_the_maximum_where_imputation_would_move_it():
    """One Gaussian, y missing where x is large: the mean of what is left is far off."""
    rng = np.random.RandomState(0)
    x = rng.randn(4000)
    y = x + 0.1 * rng.randn(4000)
    table = torch.from_numpy(np.column_stack([x, np.where(x > 0, np.nan, y)]))
    c = fit_components(table, start(table, 1, full=True), Regularisation(), tolerance=1e-9)
    assert abs(float(c.means[0, 1])) < 0.03
    assert float(torch.nanmean(table[:, 1])) < -0.7


def test_shrinkage_pulls_every_component_to_the_common_scatter():
    x = made()
    first = start(x, 4, full=True)
    c = fit_components(x, first, Regularisation(1e9, 0.0), max_steps=30, tolerance=-np.inf)
    spread = (c.spread - c.spread.mean(0)).abs().max() / c.spread.abs().max()
    assert float(spread) < 1e-6


def test_fewer_distinct_rows_than_components_are_enough():
    x = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).double().repeat(5, 1)
    c = start(x, 7, full=True)
    assert c.means.shape == (2, 2)
    assert torch.isfinite(log_density(fit_components(x, c, Regularisation()), x)).all()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_inner_products_are_those_of_the_mixtures(first, second, shared):
    a, b = start(made(), 3, full=first), start(made(seed=1), 4, full=second)
    if shared:
        a = Components(a.means, a.spread[:1], a.log_weights)
    p, q = as_mixture([a]), as_mixture([b])
    expected = q.log_inner(p) if second else p.log_inner(q)
    torch.testing.assert_close(log_inner([a], [b]), expected)
    both = [a.weighted(np.log(0.3)), b.weighted(np.log(0.7))]
    torch.testing.assert_close(log_norm(both), as_mixture(both).log_norm())


def test_blur_adds_a_variance():
    c = start(made(), 3, full=True)
    torch.testing.assert_close(blur(c, 0.5).spread, c.spread + 0.5 * torch.eye(3).double())


def test_draws_follow_the_mixture():
    parts = [start(made(), 3, full=True).weighted(np.log(0.4))]
    parts.append(start(made(seed=1), 2, full=False).weighted(np.log(0.6)))
    q = as_mixture(parts)
    rows = draw(parts, 40_000, torch.Generator().manual_seed(0))
    error = (rows.mean(0) - q.mean) / (q.variance / len(rows)).sqrt()
    assert error.abs().max() < 4
    torch.testing.assert_close(torch.cov(rows.mT), q.covariance, rtol=0.05, atol=0.3)
