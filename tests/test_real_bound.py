"""Real rows in the place of centres: known densities, an oracle, the draws; and <q,q> between."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from hilbound import bounds
from hilbound import functional as F
from hilbound.bounds import conditional_bound, real_bound
from hilbound.engine import blocks
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.models.autoencoders import Autoencoder, EncoderMixtureDecoder, MixtureDecoder
from hilbound.models.classes import ClassConditional, ClassDecoder, bound_of, real_bound_of
from hilbound.objectives import ConditionalScalarCost
from support.conditional import check, oracle
from support.strategies import normal


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------ known densities


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("n", [2, 5])
def test_draws_of_n_rows_far_apart_reach_k_over_n_plus_k_minus_1(n, k):
    """p(x|y) is n points: two of K draws from many copies of them agree with a known chance."""
    copies, points = 400, 3000
    x = 100 * torch.arange(n, dtype=torch.float64).unsqueeze(1)
    y, rows = torch.zeros(n, 1).double(), x.repeat(copies, 1)
    same = torch.zeros(len(rows), 1).double()
    bound = real_bound(
        x, y, torch.zeros(points, 1).double(), rows, same, centers=k,
        variance_p=0.1, variance_y=1.0, generator=seeded(),
    )  # fmt: skip
    agree = (copies - 1) / (n * copies - 1)
    expected = (1 / n) / (1 / k + (1 - 1 / k) * agree)
    assert expected == pytest.approx(k / (n + k - 1), rel=0.01)
    assert float(bound.tightness) == pytest.approx(expected, rel=0.02)


def simulated(n, seed):
    """Rows of x = (2y, y²) + noise of variance .25, for y uniform in [-1, 1]."""
    draw = seeded(seed)
    y = 2 * torch.rand(n, 1, generator=draw, dtype=torch.float64) - 1
    return given(y, draw), y


def given(y, draw):
    noise = torch.randn(*y.shape[:-1], 2, generator=draw, dtype=torch.float64)
    return torch.cat([2 * y, y.square()], -1) + 0.5 * noise


@pytest.mark.parametrize("k", [1, 8, 30])
def test_other_rows_reach_what_fresh_draws_of_the_known_density_reach(k):
    variances = {"variance_p": 0.05, "variance_y": 1e-3}
    x, y = simulated(400, 0)
    rows, row_features = simulated(20_000, 1)
    points = y + math.sqrt(1e-3) * normal(5, 400, 1)
    found = real_bound(x, y, points, rows, row_features, centers=k, **variances, generator=seeded())
    # p(x|y) mixes the rows of features that are as near as the noise.
    near = points.unsqueeze(1) + math.sqrt(1e-3) * normal(6, 400, k, 1)
    fresh = given(near.clamp(-1, 1), seeded(7))
    expected = conditional_bound(x, y, points, GaussianMixture(fresh, 0.05), **variances)
    assert float(found.log_limit) == float(expected.log_limit)
    assert float(found.tightness) == pytest.approx(float(expected.tightness), abs=0.02)
    assert 0 < float(found.tightness) <= 1


def test_values_are_those_of_the_oracle_at_the_rows_drawn(monkeypatch):
    x, y, points = normal(0, 9, 3), normal(1, 9, 2), normal(2, 7, 2)
    rows, row_features = normal(3, 40, 3), normal(4, 40, 2)
    options = {"centers": 5, "variance_p": 0.4, "variance_y": 0.3}
    expected = real_bound(x, y, points, rows, row_features, **options, generator=seeded())
    chosen = bounds._draw_rows(row_features, points, 5, 0.3, seeded())
    q = GaussianMixture(rows[chosen], 0.4)
    check(expected, oracle(x, y, points, q, variance_p=0.4, variance_y=0.3))
    # However the points are cut into tiles.
    monkeypatch.setattr(blocks, "_TILE_NUMBERS", 50)
    again = real_bound(x, y, points, rows, row_features, **options, generator=seeded())
    assert float(again.log_value) == pytest.approx(float(expected.log_value), abs=1e-12)


# ------------------------------------------------------------------ the draws


def test_rows_are_drawn_by_their_weights_and_none_twice():
    row_features = torch.tensor([[0.0], [0.5], [1.0], [3.0]]).double()
    points = torch.zeros(40_000, 1).double()
    weights = (-row_features.square().squeeze(1) / (2 * 0.2)).softmax(0)
    first = bounds._draw_rows(row_features, points, 1, 0.2, seeded())
    shares = torch.bincount(first.flatten(), minlength=4) / len(points)
    assert shares.tolist() == pytest.approx(weights.tolist(), abs=0.01)
    several = bounds._draw_rows(row_features, points[:50], 4, 0.2, seeded())
    assert several.sort(-1).values.tolist() == [[0, 1, 2, 3]] * 50


def test_weights_that_underflow_still_choose_the_nearest():
    row_features = torch.tensor([[1e3], [2e3], [3e3]]).double()
    chosen = bounds._draw_rows(row_features, torch.zeros(9, 1).double(), 2, 1e-3, seeded())
    assert chosen.sort(-1).values.tolist() == [[0, 1]] * 9


def test_a_model_and_real_rows_share_points_and_limit():
    decoder = MixtureDecoder(nn.Linear(3, 4), feature_dim=1, noise_dim=2, variance=0.5)
    model = EncoderMixtureDecoder(nn.Linear(4, 1), decoder, variance_y=0.1, centers=3)
    x, rows = torch.randn(20, 4, generator=seeded()), torch.randn(60, 4, generator=seeded(1))
    for points in (None, 7):
        model_bound = model.bound(x, 0.5, generator=seeded(2), points=points)
        real = model.real_bound(x, rows, 0.5, generator=seeded(2), points=points)
        assert float(real.log_limit) == float(model_bound.log_limit)
        assert float(real.gap) >= 0


def test_wrong_input_is_named():
    x, y, rows = torch.zeros(3, 2), torch.zeros(3, 1), torch.zeros(5, 2)
    options = {"variance_p": 0.5, "variance_y": 0.1}
    with pytest.raises(InputError, match="centers must lie between 1 and the 5 rows"):
        real_bound(x, y, y, rows, torch.zeros(5, 1), centers=6, **options)
    with pytest.raises(InputError, match="rows and row_features must have shapes"):
        real_bound(x, y, y, rows, torch.zeros(4, 1), centers=2, **options)
    with pytest.raises(InputError, match="rows"):
        real_bound(x, y, y, rows[:0], torch.zeros(0, 1), centers=1, **options)
    with pytest.raises(InputError, match="variance_y must be positive"):
        real_bound(x, y, y, rows, torch.zeros(5, 1), centers=2, variance_p=0.5, variance_y=0.0)


# ------------------------------------------------------------------ <q,q> without its diagonal


def dense_between(means, variances, weights):
    """The mean over pairs of different components, one product after the other."""
    total, k = 0.0, len(means)
    for i in range(k):
        for j in range(k):
            if i != j:
                v = variances[i] + variances[j]
                density = np.exp(-0.5 * (means[i] - means[j]) ** 2 / v) / np.sqrt(2 * np.pi * v)
                total += weights[i] * weights[j] * density.prod()
    return math.log(total / (1 - (weights**2).sum()))


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (1, 3), (4, 3)])
def test_the_norm_between_is_that_of_pairs_one_by_one(shape):
    means = normal(0, 4, 3)
    v = 0.3 + normal(1, *shape).abs()
    q = GaussianMixture(means, v, 0.1 + normal(2, 4).abs())
    expected = dense_between(means.numpy(), v.expand(4, 3).numpy(), q.weights.numpy())
    assert float(F.log_norm_between(q)) == pytest.approx(expected, abs=1e-12)
    # Far beyond the range of float64.
    wide = GaussianMixture(1e3 * means, v, q.weights)
    assert math.isfinite(float(F.log_norm_between(wide)))


def test_the_norm_between_is_unbiased_for_draws_of_a_density():
    """Draws of N(0, 1) with kernels of variance .2: the squared norm of N(0, 1.2)."""
    draws = torch.randn(200_000, 3, 1, generator=seeded(), dtype=torch.float64)
    values = F.log_norm_between(GaussianMixture(draws, 0.2)).exp()
    expected = 1 / math.sqrt(2 * math.pi * 2 * 1.2)
    assert float(values.mean()) == pytest.approx(expected, rel=0.005)
    assert float(GaussianMixture(draws, 0.2).log_norm().exp().mean()) > 1.3 * expected


@pytest.mark.parametrize("k", [2, 5])
def test_without_the_diagonal_a_perfect_sampler_reaches_the_limit(k):
    n, variance = 60_000, 0.2
    y = torch.rand(n, 1, generator=seeded(), dtype=torch.float64)
    one = GaussianMixture(given(y, seeded(1)).unsqueeze(1), variance)
    q = GaussianMixture(given(y.unsqueeze(1).expand(n, k, 1), seeded(2)), variance)
    # The squared norm of N(m, .25 + .2) in two dimensions, for every y.
    limit = -math.log(4 * math.pi * 0.45)
    assert float(F.conditional_log_scalar_cost(one, q, diagonal=False)) == pytest.approx(
        limit, abs=0.02
    )
    assert float(F.conditional_log_scalar_cost(one, q)) < limit - 0.15


def test_the_gradient_without_the_diagonal():
    means = normal(0, 3, 4, 2).requires_grad_()
    p = GaussianMixture(normal(1, 3, 1, 2), 0.4)

    def cost(m):
        return F.conditional_log_scalar_cost(p, GaussianMixture(m, 0.5), diagonal=False)

    assert torch.autograd.gradcheck(cost, [means])


def test_the_objective_trains_without_it_and_tracks_with_it():
    p, q = GaussianMixture(normal(0, 3, 1, 2), 0.4), GaussianMixture(normal(1, 3, 4, 2), 0.4)
    objective = ConditionalScalarCost(diagonal=False)
    expected = F.conditional_log_scalar_cost(p, q, diagonal=False)
    assert float(objective(p, q)) == pytest.approx(-float(expected))
    assert float(objective.bound(p, q).log_value) == pytest.approx(
        float(F.conditional_log_scalar_cost(p, q))
    )


def test_one_component_has_nothing_between():
    q = GaussianMixture(torch.zeros(3, 1, 2), 0.5)
    with pytest.raises(InputError, match="at least 2 components"):
        F.conditional_log_scalar_cost(q, q, diagonal=False)


# ------------------------------------------------------------------ classes


def test_rows_of_other_classes_never_stand_in():
    """Classes share all features, but rows of one class lie far from those of another."""
    decoder = ClassDecoder(nn.Linear(1 + 2 + 2, 3), 1, 2, 0.5, classes=2)
    encoder = nn.Linear(3, 1)
    nn.init.zeros_(encoder.weight)
    inner = EncoderMixtureDecoder(encoder, decoder, variance_y=10.0, centers=4)
    model = ClassConditional(inner)

    def rows(n, seed):
        labels = torch.randint(2, (n,), generator=seeded(seed))
        return torch.randn(n, 3, generator=seeded(seed + 1)) + 50 * labels[:, None], labels

    (x, own), (others, of_others) = rows(40, 0), rows(400, 5)
    real = real_bound_of(model, x, others, 0.5, seeded(), labels=(own, of_others))
    limit = bound_of(model, x, 0.5, seeded(), own).log_limit
    assert float(real.log_limit) == float(limit)
    # Rows of the wrong class would overlap with nothing.
    mixed = real_bound_of(model, x, others, 0.5, seeded(), labels=(own, of_others.flip(0)))
    assert float(real.tightness) > 1.5 * float(mixed.tightness)
    few = of_others.clone()
    few[:] = 0
    few[:3] = 1
    assert real_bound_of(model, x, others, 0.5, seeded(), labels=(own, few)) is None
    with pytest.raises(InputError, match="label of every row"):
        model.real_bound(x, others, 0.5)


def test_models_without_a_conditional_bound_have_no_real_rows_either():
    decoder = MixtureDecoder(nn.Linear(1, 4), feature_dim=1, noise_dim=0, variance=0.5)
    model = Autoencoder(nn.Linear(4, 1), decoder)
    assert real_bound_of(model, torch.zeros(5, 4), torch.zeros(9, 4), 0.5) is None
