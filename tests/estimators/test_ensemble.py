"""Networks side by side, their folds, embeddings and losses."""

import numpy as np
import pytest
import torch

from hilbound.estimators.experts import networks
from hilbound.estimators.experts.embedding import Embedding
from hilbound.estimators.experts.ensemble import Recipe, fit_ensemble
from hilbound.estimators.experts.folds import Folds
from hilbound.estimators.experts.rows import Rows
from hilbound.mixture import GaussianMixture

FLOOR = torch.full((2,), 1e-6)


@pytest.fixture
def weights(generator):
    return networks.initial_weights(4, 3, width=8, components=3, targets=2, generator=generator)


def mixture(heads, member):
    return GaussianMixture(
        heads.means[member].double(),
        heads.variance[member].double(),
        heads.log_weights[member].double().exp(),
    )


def test_a_member_alone_gives_what_it_gives_among_others(weights, generator):
    x = torch.randn(4, 10, 3, generator=generator)
    together = networks.forward(weights, x, 2, FLOOR)
    alone = networks.forward([w[2:3] for w in weights], x[2:3], 2, FLOOR)
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[2], b[0])


def test_densities_and_norms_are_those_of_the_mixtures(weights, generator):
    x, y = (torch.randn(4, 10, k, generator=generator) for k in (3, 2))
    heads = networks.forward(weights, x, 2, FLOOR)
    log_density, log_norm = networks.log_densities(heads, y), networks.log_norms(heads)
    for member in range(4):
        q = mixture(heads, member)
        torch.testing.assert_close(
            log_density[member].double(), q.log_prob(y[member].double()), rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(log_norm[member].double(), q.log_norm(), rtol=1e-4, atol=1e-4)


def test_every_row_is_held_out_once_in_each_repetition(generator):
    folds = Folds.draw(23, 4, 3, generator)
    assert folds.members == 12
    for member in range(12):
        held = folds.held[member][folds.counts[member].bool()]
        assert not set(held.tolist()) & set(folds.fitted[member].tolist())
    rows = torch.arange(23.0)[folds.held]
    gathered = folds.gather(rows, 23)
    np.testing.assert_array_equal(gathered, np.repeat(np.arange(23.0)[:, None], 3, 1))


def test_embeddings_say_how_far_through_each_bin():
    x = np.stack([np.linspace(0, 4, 101), np.arange(101) % 2], 1)
    embedding = Embedding.learn(x, 4)
    assert embedding.column.tolist() == [0, 0, 0, 0]  # two values need no bins
    got = embedding(torch.tensor([[1.5, 1.0], [-3.0, 0.0], [9.0, 0.0]]))
    expected = [[1.5, 1, 1, 0, -1, -1], [-3, 0, -1, -1, -1, -1], [9, 0, 1, 1, 1, 1]]
    torch.testing.assert_close(got, torch.tensor(expected))


@pytest.mark.parametrize(("smoothing", "variance"), [(None, 0.16), (0.01, 0.32)])
def test_both_costs_find_a_line_and_its_noise(generator, smoothing, variance):
    """The log cosine of one Gaussian is greatest at twice the variance of the noise."""
    x = torch.randn(600, 1, generator=generator)
    y = 0.9 * x + 0.4 * torch.randn(600, 1, generator=generator)
    recipe = Recipe(
        folds=2, repeats=1, width=16, batch=64, steps=400, components=1, smoothing=smoothing
    )
    rows = Rows(x, y, torch.ones(600))
    ensemble, held_out = fit_ensemble(rows, recipe, FLOOR[:1], generator)
    q = ensemble.predict(torch.tensor([[-1.0], [0.0], [1.0]]))
    np.testing.assert_allclose(q.mean[:, 0], [-0.9, 0, 0.9], atol=0.15)
    np.testing.assert_allclose(q.variance[:, 0], variance, rtol=0.35)
    assert held_out.batch_shape == (600,)
    expected = -0.5 * np.log(2 * np.pi * variance) - 0.08 / variance
    score = float(held_out.log_prob(y.to(held_out.means)).mean())
    assert score == pytest.approx(expected, abs=0.12)


def test_held_out_rows_are_not_learned(generator):
    x = torch.randn(60, 4, generator=generator)
    y = torch.randn(60, 1, generator=generator)  # noise: what is learned of it is memory
    recipe = Recipe(folds=3, repeats=1, width=32, batch=32, steps=400, components=1)
    ensemble, held_out = fit_ensemble(Rows(x, y, torch.ones(60)), recipe, FLOOR[:1], generator)
    fitted = ensemble.predict(x).log_prob(y.double()).mean()
    assert float(held_out.log_prob(y.to(held_out.means)).mean()) < float(fitted)
