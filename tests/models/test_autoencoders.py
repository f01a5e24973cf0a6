"""Models with an encoder: what they promise of features, mixtures, reconstructions and samples."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn

from hilbound.config import RunConfig
from hilbound.errors import InputError
from hilbound.models.autoencoders import (
    VAE,
    Autoencoder,
    EncoderMixtureDecoder,
    FeatureModel,
    MixtureDecoder,
)
from hilbound.models.build import DataShape, build_model
from hilbound.models.encoder import Encoder
from hilbound.models.networks import MLP
from support import oracles
from support.autoencoders import Part, decoder_of, echo, model_of
from support.models import HEADS, randomised, seeded
from support.strategies import normal


class HeavyNoise(nn.Module):
    """A logit of 0 or ``log 4``, by the sign of the last coordinate, which is noise."""

    def forward(self, inputs):
        return math.log(4) * (inputs[..., -1:] > 0)


# ------------------------------------------------------------------ the decoder


@pytest.mark.parametrize(("learn_weights", "learn_variance"), HEADS)
def test_the_density_given_features_is_that_of_the_formula(learn_weights, learn_variance):
    decoder = decoder_of(learn_weights=learn_weights, learn_variance=learn_variance).double()
    y, c, points = normal(0, 5, 2), normal(1, 5, 4, 2), normal(2, 7, 3)
    q = decoder(y, c)
    densities = q.log_prob(points.unsqueeze(1)).exp().detach().numpy()
    for b in range(5):
        inputs = torch.stack([torch.cat([y[b], c[b, k]]) for k in range(4)])
        weights, variance = np.ones(4), np.full((4, 1), 0.5)
        if learn_weights:
            weights = np.exp(decoder.weight_head(inputs).detach().numpy()[:, 0])
        if learn_variance:
            raw = decoder.variance_head(inputs).detach().numpy()
            variance = 0.005 + 0.495 * np.logaddexp(0, raw + math.log(math.e - 1))
        means = decoder.network(inputs).detach().numpy()
        expected = oracles.dense(means, variance, weights)(points.numpy())
        np.testing.assert_allclose(densities[:, b], expected, rtol=1e-10)


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_noise_may_be_shared_by_all_conditions(batch):
    decoder = decoder_of(learn_weights=True, learn_variance=True)
    y, c = normal(0, *batch, 2).float(), normal(1, 4, 2).float()
    shared, repeated = decoder(y, c), decoder(y, c.repeat(*batch, 1, 1))
    assert (shared.batch_shape, shared.components, shared.dim) == (batch, 4, 3)
    for one, other in (
        (shared.means, repeated.means),
        (shared.component_variance, repeated.component_variance),
        (shared.weights, repeated.weights),
    ):
        assert torch.equal(one, other)
    assert not torch.allclose(shared.means, decoder(y, c + 1).means)


def test_a_condition_knows_nothing_of_the_others():
    decoder, y, c = decoder_of(), normal(0, 5, 2).float(), normal(1, 5, 4, 2).float()
    torch.testing.assert_close(decoder(y, c).means[3:4], decoder(y[3:4], c[3:4]).means)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_centres_of_images_are_bounded(scale):
    decoder = randomised(decoder_of(bounded=True), scale)
    means = decoder(normal(0, 50, 2).float(), normal(1, 9, 2).float()).means
    assert 0 <= means.min() < 0.4 < 0.6 < means.max() <= 1


def test_noise_has_the_dtype_of_the_decoder_and_its_own_shape():
    noise = decoder_of(noise=3).double().noise(2, 5, generator=seeded())
    assert (noise.shape, noise.dtype) == ((2, 5, 3), torch.float64)


# ------------------------------------------------------------------ training and evaluation mode


def test_features_get_noise_in_training_only():
    model, x = echo(centers=3, eval_centers=5), normal(0, 4000, 2)
    model.eval()
    assert torch.equal(model(x).means, x.unsqueeze(1).expand(-1, 5, -1))
    model.train()
    q = model(x, seeded())
    assert q.components == 3
    noise = q.means - x.unsqueeze(1)
    # All centres of an input see the same features.
    assert torch.equal(noise[:, 0], noise[:, 1])
    # Five standard errors of the mean and the variance of 8000 normal numbers.
    assert float(noise[:, 0].mean()) == pytest.approx(0, abs=5 * 0.2 / math.sqrt(8000))
    assert float(noise[:, 0].var()) == pytest.approx(0.04, rel=5 * math.sqrt(2 / 8000))
    assert abs(float(np.corrcoef(noise[:, 0].T)[0, 1])) < 5 / math.sqrt(4000)


def test_a_generator_repeats_a_call():
    model, x = model_of(), normal(0, 5, 3)
    before = torch.get_rng_state()
    assert torch.equal(model(x, seeded(1)).means, model(x, seeded(1)).means)
    assert not torch.equal(model(x, seeded(1)).means, model(x, seeded(2)).means)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was touched"


@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)])
def test_batch_shapes(batch):
    model, x = model_of(), normal(0, *batch, 3)
    assert model.encode(x).shape == (*batch, 2)
    assert model.encode(x).dtype == torch.float64
    assert model(x).batch_shape == batch
    assert model.decode(model.encode(x), 7).components == 7


def test_as_many_centres_are_used_in_evaluation_unless_said_otherwise():
    assert model_of(centers=3, eval_centers=None).eval()(normal(0, 2, 3)).components == 3


# ------------------------------------------------------------------ reconstructions


def test_reconstructions_differ_by_their_noise_alone():
    model, x = model_of(), normal(0, 5, 3)
    made = model.reconstruct(x, 7, seeded())
    assert (made.shape, made.dtype, made.requires_grad) == ((5, 7, 3), torch.float64, False)
    assert torch.equal(made, model.reconstruct(x, 7, seeded()))
    assert all(torch.pdist(rows).min() > 1e-6 for rows in made)
    # They come from features without noise, in either mode.
    c = model.decoder.noise(5, 7, generator=seeded())
    assert torch.equal(made, model.decoder(model.encode(x), c).means)
    still = EncoderMixtureDecoder(
        model.encoder, MixtureDecoder(Part(2), 2, 1, 0.5).double(), variance_y=0.05
    )
    assert (still.reconstruct(x, 7).std(1) == 0).all()


def test_reconstructions_follow_the_learned_weights():
    decoder = MixtureDecoder(Part(1, 2), 1, 1, 0.5, learn_weights=True)
    decoder.weight_head = HeavyNoise()
    model = EncoderMixtureDecoder(Encoder(nn.Identity(), 1), decoder, variance_y=0.1)
    made = model.reconstruct(torch.zeros(2, 1), 2000, seeded())
    assert made.shape == (2, 2000, 1)
    # 4 / 5 of the weight; five standard errors of a share of 4000 are 0.032, of the pool 0.013.
    assert float((made > 0).float().mean()) == pytest.approx(0.8, abs=0.045)
    model.remember(torch.zeros(9, 1))
    share = float((model.sample(4000, seeded()) > 0).float().mean())
    # A pool of eight for each: by quadrature over how many of the eight are heavy.
    heavy = np.arange(9)
    expected = (scipy.stats.binom.pmf(heavy, 8, 0.5) * 4 * heavy / (8 + 3 * heavy)).sum()
    assert share == pytest.approx(expected, abs=0.032)


def test_reconstructions_of_each_kind():
    x = normal(0, 5, 3).float()
    decoder = MixtureDecoder(MLP(2, 3, 8, 1), 2, 0, 0.5)
    plain = Autoencoder(Encoder(MLP(3, 2, 8, 1), 3), decoder)
    assert plain.reconstruct(x, 4).shape == (5, 4, 3)
    assert (plain.reconstruct(x, 4).std(1) == 0).all()
    vae = VAE(Encoder(MLP(3, 4, 8, 1), 3), decoder)
    made = vae.reconstruct(x, 4, seeded())
    assert made.shape == (5, 4, 3)
    assert all(torch.pdist(rows).min() > 1e-6 for rows in made)


@pytest.mark.parametrize("n", [0, -1])
def test_no_reconstructions_are_refused(n):
    vae = VAE(Encoder(MLP(3, 4), 3), MixtureDecoder(MLP(2, 3), 2, 0, 0.5)).double()
    for model in (model_of(), vae):
        with pytest.raises(InputError, match=f"n must be at least 1, got {n}"):
            model.reconstruct(normal(0, 5, 3), n)


# ------------------------------------------------------------------ samples


def test_features_are_drawn_around_the_remembered_ones():
    """The centres are the features: they have the law of the mixture around five points."""
    model, y = echo(dim=1, variance_y=0.01), torch.tensor([[-0.9], [-0.2], [0.0], [0.5], [0.6]])
    model.remember(y)
    assert torch.equal(model.training_features, y.double())
    x = model.sample(5000, seeded())[:, 0].numpy()

    def cdf(t):
        return scipy.stats.norm.cdf(t[..., None], y[:, 0].numpy(), 0.1).mean(-1)

    assert scipy.stats.kstest(x, cdf).pvalue > 1e-3
    wider = scipy.stats.norm.cdf(x[:, None], y[:, 0].numpy(), 0.15).mean(-1)
    assert scipy.stats.kstest(wider, "uniform").pvalue < 1e-5, "the test sees too little"


@pytest.mark.parametrize("n", [4, 5, 13])
def test_every_remembered_row_is_drawn_equally_often(n):
    model = echo(dim=1, variance_y=1e-12)
    rows = torch.tensor([[-0.9], [-0.2], [0.0], [0.5], [0.6]], dtype=torch.float64)
    model.remember(rows)
    drawn = model.sample(n, seeded())
    counts = (drawn - rows.T).abs().argmin(1).bincount(minlength=5)
    assert int(counts.max() - counts.min()) <= 1
    assert not torch.equal(drawn[:4], rows[:4]), "in random order"


def test_without_noise_the_density_of_features_follows_scotts_rule():
    model, y, n = echo(1, None, Autoencoder), normal(0, 40, 1), 40
    model.remember(y)
    # scipy divides the variance by n - 1.
    kde = scipy.stats.gaussian_kde(
        y[:, 0].numpy(), lambda kde: kde.scotts_factor() * math.sqrt((n - 1) / n)
    )
    points = normal(1, 9, 1)
    density = model.feature_density().log_prob(points).exp()
    np.testing.assert_allclose(density.numpy(), kde(points[:, 0].numpy()), rtol=1e-10)
    model.remember(torch.cat([y, torch.zeros(40, 1)], 1)[:, 1:])
    assert float(model.feature_density().component_variance.max()) < 1e-12


def test_two_features_have_a_variance_each():
    model, y = echo(2, None, Autoencoder), normal(0, 60, 2) * torch.tensor([1.0, 5.0])
    model.remember(y)
    expected = 60 ** (-1 / 3) * np.var(y.numpy(), axis=0)
    np.testing.assert_allclose(
        model.feature_density().component_variance.numpy().ravel(), expected, rtol=1e-12
    )


def test_a_vae_draws_features_from_its_prior():
    vae = VAE(Encoder(nn.Linear(1, 2), 1), MixtureDecoder(nn.Identity(), 1, 0, 0.5))
    x = vae.sample(5000, seeded())[:, 0].numpy()
    assert scipy.stats.kstest(x, "norm").pvalue > 1e-3
    vae.remember(torch.ones(5, 1))
    assert np.array_equal(vae.sample(5000, seeded())[:, 0].numpy(), x)


@pytest.mark.parametrize("learn_variance", [False, True])
@pytest.mark.parametrize("learn_weights", [False, True])
def test_a_draw_is_a_mixture_of_components_the_decoder_made(learn_weights, learn_variance):
    model = model_of(learn_weights=learn_weights, learn_variance=learn_variance)
    model.remember(normal(0, 20, 3))
    q = model.draw(30, seeded())
    assert (q.batch_shape, q.components, q.dim) == ((), 30, 3)
    assert torch.equal(q.means, model.sample(30, seeded()))
    assert (q.component_variance.unique().numel() > 1) == learn_variance
    assert torch.allclose(q.weights, torch.tensor(1 / 30).double())
    assert q.means.unique(dim=0).shape == (30, 3)


@pytest.mark.parametrize("rows", [0, 5])
def test_who_remembers_nothing_draws_nothing(rows):
    model = model_of(rows=rows)
    with pytest.raises(InputError, match=r"remembers no training features.*call remember\(x\)"):
        model.sample(3)


def test_what_was_remembered_travels_with_the_weights():
    source, target = model_of(rows=20), model_of(rows=20, seed=5)
    source.remember(normal(0, 20, 3))
    assert torch.equal(source.training_features, source.encode(normal(0, 20, 3)))
    assert not source.training_features.requires_grad
    target.load_state_dict(source.state_dict())
    assert torch.equal(source.sample(9, seeded()), target.sample(9, seeded()))


def test_many_rows_are_encoded_in_parts():
    """More than are encoded at a time, in another precision than the model's."""
    model, x = model_of(features=1), normal(0, 9000, 3)
    model.remember(x.float())
    torch.testing.assert_close(model.training_features, model.encode(x.float().double()).detach())


# ------------------------------------------------------------------ wrong arguments


@pytest.mark.parametrize("value", [0.0, -0.1, math.inf, math.nan])
def test_variance_y_must_be_positive(value):
    with pytest.raises(InputError, match="variance_y must be positive and finite, got"):
        model_of(variance_y=value)


@pytest.mark.parametrize("counts", [(0, 1), (1, 0), (-3, None), (0, None)])
def test_there_must_be_a_centre(counts):
    words = f"centers and eval_centers must be at least 1, got {counts[0]} and {counts[1]}"
    with pytest.raises(InputError, match=words):
        model_of(centers=counts[0], eval_centers=counts[1])


def test_features_are_fewer_than_coordinates():
    config = RunConfig(data="moons", model="encoder-mixture-decoder", features=3, width=8)
    with pytest.raises(InputError, match="between 1 and the 2 coordinates of the data, got 3"):
        build_model(config, DataShape(2), 0.5)
    assert build_model(config, DataShape(3), 0.5).encode(torch.zeros(4, 3)).shape == (4, 3)


# ------------------------------------------------------------------ built from a configuration

KINDS = ["encoder-mixture-decoder", "autoencoder", "vae"]


@pytest.mark.parametrize("network", ["mlp", "conv"])
@pytest.mark.parametrize("kind", KINDS)
def test_models_of_images_are_built_from_the_table(kind, network):
    config = RunConfig(data="digits", model=kind, network=network, width=8, depth=1, features=3)
    model = build_model(config, DataShape(45, (1, 5, 9), rows=20_000), 0.5)
    x = torch.rand(6, 45, generator=seeded())
    assert isinstance(model, FeatureModel)
    assert model.encode(x).shape == (6, 3)
    assert 0 <= model.reconstruct(x, 2).min() <= model.reconstruct(x, 2).max() <= 1
    assert model.training_features.shape == ((0 if kind == "vae" else 10_000), 3)
    with pytest.raises(InputError, match="pixels must lie in"):
        model.encode(255 * x)
    model.remember(x)
    assert model.sample(4, seeded()).shape == (4, 45)


def test_options_reach_the_model():
    options = {"variance_y": 0.3, "centers": 7, "eval_centers": 9, "noise_dim": 5, "features": 1}
    config = RunConfig(data="moons", model="encoder-mixture-decoder", width=8, **options)
    model = build_model(config, DataShape(2), 0.5)
    assert (model.variance_y, model.centers, model.eval_centers) == (0.3, 7, 9)
    assert (model.decoder.noise_dim, model.decoder.feature_dim) == (5, 1)
    assert (model.head, float(model.head.variance)) == (model.decoder, 0.5)


def test_only_noise_standardises_the_features_of_an_autoencoder():
    for variance_y in (None, 0.01):
        config = RunConfig(data="moons", model="autoencoder", width=8, variance_y=variance_y)
        model = build_model(config, DataShape(2), 0.5)
        assert (model.encoder.standardization is None) == (variance_y is None)
        assert (model.variance_y, model.decoder.noise_dim, model.centers) == (variance_y, 0, 1)
