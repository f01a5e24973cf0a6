"""What a model with an encoder is trained on, and what it is measured by: objective and bound."""

import math

import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from hilbound import functional as F
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.models.autoencoders import VAE, Autoencoder, EncoderMixtureDecoder, MixtureDecoder
from hilbound.models.encoder import Encoder
from hilbound.models.networks import MLP
from hilbound.objectives import create_objective
from support import oracles
from support.autoencoders import decoder_of, echo, model_of
from support.memory import Largest
from support.models import randomised, seeded
from support.strategies import SEEDS, normal


def log_densities_given(y, points, x, variance_y):
    """The data's density at every feature point, as oracles' mixtures, by the definition."""
    distances = ((points[:, None] - y[None]) ** 2).sum(-1)
    weights = scipy.special.softmax(-distances / (2 * variance_y), axis=-1)
    return lambda variance: [oracles.dense(x, variance, w) for w in weights]


# ------------------------------------------------------------------ the bound


@pytest.mark.parametrize(
    "heads", [{}, {"learn_weights": True, "learn_variance": True}], ids=["fixed", "heads"]
)
@pytest.mark.parametrize("centers", [None, 1, 3])
def test_the_bound_is_the_three_sums_of_the_definition(heads, centers):
    model, x = model_of(variance_y=0.3, **heads), normal(0, 12, 3)
    bound = model.bound(x, 0.4, centers, seeded(7))
    draws = seeded(7)
    y = model.encode(x).detach()
    points = y + math.sqrt(0.3) * torch.randn(12, 2, generator=draws, dtype=torch.float64)
    noise = torch.randn(centers or 6, 2, generator=draws, dtype=torch.float64)
    qs = []
    for point in points:
        q = model.decoder(point, noise)
        qs.append(oracles.as_dense(q))
    ps = log_densities_given(y.numpy(), points.numpy(), x.numpy(), 0.3)(0.4)
    cost, limit = oracles.log_conditional(ps, qs)
    assert float(bound.log_value) == pytest.approx(cost, abs=1e-9)
    assert float(bound.log_limit) == pytest.approx(limit, abs=1e-9)
    assert bound.error < 1e-9


class DataItself(MixtureDecoder):
    """A decoder that knows the data's own density given features."""

    def __init__(self, x, y, variance, variance_y):
        super().__init__(nn.Identity(), y.shape[1], 1, variance)
        self.x, self.y, self.variance_y = x, y, variance_y
        self.double()

    def forward(self, features, _):
        distances = (features.unsqueeze(-2) - self.y).square().sum(-1)
        weights = (-distances / (2 * self.variance_y)).softmax(-1)
        means = self.x.expand(*features.shape[:-1], *self.x.shape)
        return GaussianMixture(means, self.variance.double(), weights)


@pytest.mark.parametrize("variance_y", [1e-4, 0.1, 100.0])
def test_cost_and_limit_are_equal_where_the_model_is_the_data(variance_y):
    x, encoder = normal(0, 15, 3), Encoder(randomised(MLP(3, 2, 8, 1)).double(), 3)
    decoder = DataItself(x, encoder(x).detach(), 0.5, variance_y)
    model = EncoderMixtureDecoder(encoder, decoder, variance_y=variance_y)
    bound = model.bound(x, 0.5, generator=seeded())
    assert float(bound.gap) == pytest.approx(0, abs=1e-9)
    decoder.x = x + 0.1
    assert float(model.bound(x, 0.5, generator=seeded()).gap) > 1e-4


@given(
    seed=SEEDS,
    rows=st.integers(1, 12),
    dim=st.sampled_from([1, 2, 5]),
    centers=st.integers(1, 5),
    variance=st.floats(1e-2, 1e2),
    variance_y=st.floats(1e-4, 1e2),
    heads=st.booleans(),
)
def test_the_cost_never_passes_the_limit(seed, rows, dim, centers, variance, variance_y, heads):
    options = {"learn_weights": heads, "learn_variance": heads}
    model = model_of(dim, 1, 1, seed=seed, variance_y=variance_y, **options)
    bound = model.bound(normal(seed, rows, dim), variance, centers, seeded(seed))
    assert math.isfinite(bound.log_value)
    assert float(bound.gap) >= -1e-9
    assert 0 <= float(bound.tightness) <= 1 + 1e-9


def test_many_feature_neighbours_lower_the_limit():
    model, x = model_of(variance_y=1e-8), normal(0, 20, 3)
    alone = float(model.bound(x, 0.5).log_limit)
    # Every feature tells its row: the norm of one component.
    assert alone == pytest.approx(-1.5 * math.log(4 * math.pi * 0.5), abs=1e-9)
    model.variance_y = 1e8
    together = GaussianMixture(x, 0.5).log_norm()
    assert float(model.bound(x, 0.5).log_limit) == pytest.approx(float(together), abs=1e-4)


def test_a_bound_needs_a_centre_and_leaves_no_graph():
    model, x = model_of(), normal(0, 5, 3)
    assert not model.bound(x, 0.5).log_value.requires_grad
    with pytest.raises(InputError, match="means must be"):
        model.bound(x, 0.5, 0)
    repeated = [float(model.bound(x, 0.5, generator=seeded(3)).gap) for _ in range(2)]
    assert repeated[0] == repeated[1] != float(model.bound(x, 0.5, generator=seeded(4)).gap)


def test_feature_weights_are_those_of_the_definition():
    model, x = model_of(variance_y=0.2), normal(0, 9, 3)
    y = model.encode(x).detach().numpy()
    expected = scipy.special.softmax(-((y[:4, None] - y) ** 2).sum(-1) / 0.4, axis=-1)
    np.testing.assert_allclose(model.feature_weights(x[:4], x).numpy(), expected, rtol=1e-9)


# ------------------------------------------------------------------ what is compared


def test_a_row_is_compared_with_the_mixture_at_its_noisy_features():
    model, x = echo(), normal(0, 5, 2)
    p, q, penalty = model.compare(x, 0.3, 4, seeded())
    assert (p.batch_shape, p.components, float(p.component_variance)) == ((5,), 1, 0.3)
    assert torch.equal(p.means[:, 0], x)
    expected = x + 0.2 * torch.randn(5, 2, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(q.means, expected.unsqueeze(1).expand(-1, 4, -1))
    assert float(penalty) == 0


def test_with_one_centre_the_cost_is_the_trace():
    """Up to a factor and a constant, and so are its gradients."""
    model, x, v = model_of(), normal(0, 12, 3), 0.5
    costs, gradients = [], []
    for paired in (False, True):
        model.zero_grad()
        p, q, _ = model.compare(x, v, 1, seeded())
        if paired:
            p, q = (GaussianMixture(m.means[:, 0], v) for m in (p, q))
            cost = 2 * F.trace_overlap(p, q).log() - 1.5 * math.log(4 * math.pi * v)
        else:
            cost = F.conditional_log_scalar_cost(p, q)
        cost.backward()
        costs.append(float(cost.detach()))
        gradients.append(torch.cat([g.grad.flatten() for g in model.parameters()]))
    assert costs[0] == pytest.approx(costs[1], abs=1e-12)
    assert gradients[0].abs().max() > 1e-3
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)


def test_the_numerator_of_a_batch_is_an_unbiased_sample():
    """At features around every row in turn, its own component is worth as much as their density."""
    model, x, v = model_of(variance_y=0.3, noise=1), normal(0, 6, 3), 8.0
    repeats = 4000
    p, q, _ = model.compare(x.repeat(repeats, 1), v, 3, seeded(1))
    one = p.log_inner(q).exp().detach()
    y = model.encode(x).detach()
    points = model.perturb(y.repeat(repeats, 1), seeded(2))
    weights = (-(torch.cdist(points, y) ** 2) / 0.6).softmax(-1)
    data = GaussianMixture(x.expand(len(points), -1, -1), v, weights)
    other = data.log_inner(model.decode(points, 3, seeded(3))).exp().detach()
    error = math.sqrt(float(one.var() + other.var()) / len(points))
    assert float(one.mean()) == pytest.approx(float(other.mean()), abs=5 * error)
    assert error < 0.02 * float(one.mean())


def test_an_autoencoder_compares_every_row_with_its_own_centre():
    decoder = decoder_of(3, 2, 0).double()
    model = Autoencoder(Encoder(randomised(MLP(3, 2, 8, 1)).double(), 3), decoder)
    x = normal(0, 9, 3)
    with torch.no_grad():
        p, q, penalty = model.compare(x, 0.5, 1)
    centers = decoder.network(model.encoder.network(x)).detach().numpy()
    np.testing.assert_allclose(q.means.numpy(), centers, rtol=1e-12)
    distances = ((x.numpy() - centers) ** 2).sum(-1)
    loss = float(create_objective("trace")(p, q))
    assert loss == pytest.approx(-np.exp(-distances / 2).mean(), rel=1e-12)
    assert float(create_objective("mse")(p, q)) == pytest.approx(distances.mean() / 3, rel=1e-12)
    assert float(penalty) == 0


def test_an_autoencoder_with_noise_decodes_noisy_features():
    model, x = echo(variance_y=0.04, kind=Autoencoder), normal(0, 5, 2)
    expected = x + 0.2 * torch.randn(5, 2, generator=seeded(), dtype=torch.float64)
    torch.testing.assert_close(model.compare(x, 0.5, 1, seeded()).q.means, expected)
    assert torch.equal(model.reconstruct(x, 1)[:, 0], x)


# ------------------------------------------------------------------ variational autoencoders


def vae_of(dim=3, features=2, variance=0.5, network=None, posterior=None):
    encoder = posterior or randomised(MLP(dim, 2 * features, 8, 1), 0.5, 1)
    network = network or randomised(MLP(features, dim, 8, 1), seed=2)
    return VAE(Encoder(encoder, dim), MixtureDecoder(network, features, 0, variance)).double()


def test_the_loss_is_the_evidence_lower_bound():
    model, x = vae_of(), normal(0, 7, 3)
    p, q, penalty = model.compare(x, 0.9, 1, seeded())
    mean, log_variance = model.encoder.network(x).chunk(2, -1)
    own = Normal(mean, log_variance.exp().sqrt())
    divergence = kl_divergence(own, Normal(torch.zeros(2).double(), 1.0)).sum(-1)
    torch.testing.assert_close(penalty, divergence.mean(), rtol=1e-12, atol=0)
    y = mean + own.scale * torch.randn(7, 2, generator=seeded(), dtype=torch.float64)
    log_q = MultivariateNormal(model.decoder.network(y), 0.5 * torch.eye(3).double()).log_prob(x)
    loss = create_objective("likelihood")(p, q)
    torch.testing.assert_close(loss, -log_q, rtol=1e-12, atol=1e-12)


def linear_vae(exact):
    """A decoder of one feature, whose marginal and posterior are known."""
    decoder, encoder = nn.Linear(1, 3), nn.Linear(3, 2)
    randomised(decoder), randomised(encoder, 0.4, 1)
    v = 0.5
    with torch.no_grad():
        w, b = decoder.weight[:, 0].double(), decoder.bias.double()
        variance = 1 / (1 + w @ w / v)
        if exact:
            encoder.weight.copy_(torch.stack([variance * w / v, torch.zeros(3)]))
            encoder.bias.copy_(torch.stack([-variance * (w @ b) / v, variance.log()]))
        marginal = MultivariateNormal(b, torch.outer(w, w) + v * torch.eye(3).double())

    def posterior_mean(x):
        return variance * ((x - b) @ w) / v

    model = vae_of(features=1, variance=v, network=decoder, posterior=encoder)
    return model, marginal, posterior_mean, float(variance)


@pytest.mark.parametrize("exact", [True, False])
def test_the_bound_misses_the_evidence_by_the_divergence_of_the_posterior(exact):
    model, marginal, posterior_mean, variance = linear_vae(exact)
    x = 1.5 * normal(3, 3)
    p, q, penalty = model.compare(x.expand(20_000, -1), 0.5, 1, seeded())
    bounds = -create_objective("likelihood")(p, q).detach() - penalty.detach()
    mean, log_variance = (float(t.detach()) for t in model.posterior(x))
    missing = oracles.gaussian_divergence(
        [mean], [math.exp(log_variance)], [float(posterior_mean(x))], [variance]
    )
    evidence = float(marginal.log_prob(x))
    error = 5 * float(bounds.std()) / math.sqrt(len(bounds))
    assert float(bounds.mean()) == pytest.approx(evidence - missing, abs=error)
    if exact:
        assert missing == pytest.approx(0, abs=1e-6)
    else:
        assert missing > 2 * error, "the test sees too little"


# ------------------------------------------------------------------ memory


def largest(rows, centers, dim, width, objective="conditional", **heads):
    network = MLP(3, dim, width, 1)
    encoder = Encoder(MLP(dim, 1, width, 1), dim, standardized=1)
    decoder = MixtureDecoder(network, 1, 2, 0.5, **heads)
    model = EncoderMixtureDecoder(encoder, decoder, variance_y=0.1, centers=centers)
    x = torch.randn(rows, dim, generator=seeded())
    with Largest() as seen:
        p, q, _ = model.compare(x, 0.5, centers, seeded())
        create_objective(objective)(p, q).mean().backward()
    return seen.numbers


@pytest.mark.parametrize("heads", [{}, {"learn_weights": True}], ids=["equal", "weights"])
@pytest.mark.parametrize("objective", ["conditional", "likelihood"])
@pytest.mark.parametrize(
    ("rows", "centers", "dim", "width"),
    [(64, 10, 20, 8), (256, 10, 20, 8), (64, 40, 3, 8), (64, 1, 100, 8), (16, 100, 3, 4)],
)
def test_the_memory_of_a_step(rows, centers, dim, width, objective, heads):
    # Where weights are learned, the head of 64 units is the widest layer.
    width = max(width, 64) if heads else width
    expected = max(
        rows * centers * dim, rows * centers**2, rows * centers * max(width, 3), width * dim
    )
    assert largest(rows, centers, dim, width, objective, **heads) <= expected


@pytest.mark.parametrize(("centers", "dim"), [(10, 50), (50, 5)])
def test_the_memory_of_a_step_grows_with_the_batch_and_not_its_square(centers, dim):
    numbers = [largest(rows, centers, dim, 8) for rows in (32, 64, 128, 256)]
    assert numbers == [numbers[0] * 2**i for i in range(4)]


def test_the_divergence_of_features_is_never_computed_in_half_precision():
    decoder = MixtureDecoder(MLP(2, 5, 8, 1), feature_dim=2, noise_dim=0, variance=0.5)
    model = VAE(Encoder(MLP(5, 4, 8, 1), 5), decoder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        compared = model.compare(torch.randn(7, 5, generator=seeded()), 0.5, 1, seeded())
    assert compared.penalty.dtype == compared.q.means.dtype == torch.float32


@pytest.mark.parametrize("points", [0, -5])
def test_a_bound_at_no_points_is_refused(points):
    with pytest.raises(InputError, match=f"points must be at least 1, got {points}"):
        model_of().bound(normal(0, 9, 3), 0.5, points=points)


def test_a_bound_at_a_few_points_holds_and_estimates_that_at_many():
    model, x = model_of(variance_y=0.05), normal(0, 300, 3)
    few = [model.bound(x, 0.5, generator=seeded(s), points=30) for s in range(20)]
    many = model.bound(x, 0.5, generator=seeded(99))
    assert min(float(bound.gap) for bound in few) > 0
    limits = [math.exp(float(bound.log_limit)) for bound in few]
    error = np.std(limits) / math.sqrt(len(limits))
    assert np.mean(limits) == pytest.approx(math.exp(float(many.log_limit)), abs=4 * error)


def test_features_and_noise_of_other_widths_are_refused():
    decoder = decoder_of(features=2, noise=3)
    with pytest.raises(InputError, match="must have 2 and 3 coordinates, got 1 and 3"):
        decoder(torch.zeros(5, 1).double(), torch.zeros(4, 3).double())
