"""The latent mixture against closed forms, quadrature, and the models that it is made of."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import nn

from hilbound.errors import InputError
from hilbound.models import Autoencoder, EncoderMixtureDecoder, LatentMixture, MixtureDecoder
from hilbound.models.encoder import Encoder
from hilbound.models.networks import MLP
from support.models import randomised


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def model_of(dim=3, features=2, noise=0, *, linear=False, variance=0.5, seed=0, **options):
    decoder = nn.Linear(features + noise, dim) if linear else MLP(features + noise, dim, 16, 1)
    encoder = Encoder(randomised(nn.Linear(dim, features), 0.5, seed + 1), dim)
    head = MixtureDecoder(randomised(decoder, 0.7, seed), features, noise, variance, bounded=False)
    settings = {"variance_y": 0.05, "components": 4}
    return LatentMixture(encoder, head, **settings | options).double().eval()


def fitted(**options):
    model = model_of(**options)
    model.fit_features(normal(5, 300, model.encoder.dim))
    return model


# ------------------------------------------------------------------ training


def test_one_centre_for_every_row_is_the_comparison_of_the_autoencoder():
    model, x = model_of(), normal(0, 6, 3)
    other = Autoencoder(model.encoder, model.decoder, variance_y=0.05).eval()
    own, expected = (m.compare(x, 0.3, 1, seeded(1)) for m in (model, other))
    for name in ("p", "q"):
        a, b = getattr(own, name), getattr(expected, name)
        assert a.batch_shape == b.batch_shape == ()
        assert torch.equal(a.means, b.means)
        torch.testing.assert_close(
            a.component_variance.expand_as(a.means), b.component_variance.expand_as(b.means)
        )


def test_several_centres_are_the_comparison_of_the_mixture_decoder():
    model, x = model_of(noise=2, centers=5), normal(0, 6, 3)
    other = EncoderMixtureDecoder(model.encoder, model.decoder, variance_y=0.05, centers=5).eval()
    own, expected = (m.compare(x, 0.3, 5, seeded(1)) for m in (model, other))
    assert own.q.batch_shape == (6,)
    assert torch.equal(own.q.means, expected.q.means)


def test_decoders_with_noise_are_not_refined():
    assert model_of(noise=2).refinements == 0
    with pytest.raises(InputError, match="refinements must be 0 or more, got -1"):
        model_of(refinements=-1)


def test_several_centres_need_noise():
    with pytest.raises(InputError, match="centers must be 1 for a decoder without noise"):
        model_of(centers=3)


# ------------------------------------------------------------------ sampling


def test_samples_are_the_decoded_draws_of_the_density():
    model = fitted()
    drawn = model.density.draw(50, None, seeded(3))
    once = model.encoder(model.decoder.centers(drawn))
    assert torch.equal(model.sample(50, seeded(3)), model.decoder.centers(once).detach())
    model.refinements = 0
    assert torch.equal(model.sample(50, seeded(3)), model.decoder.centers(drawn).detach())
    model.refinements = 1
    q = model.draw(50, seeded(3))
    assert torch.equal(q.means, model.sample(50, seeded(3)))
    torch.testing.assert_close(
        q.component_variance.squeeze(), model.output_variance.expand_as(q.means).squeeze()[0, 0]
    )


def test_no_training_features_are_kept():
    model = fitted()
    assert len(model.training_features) == 0
    assert sum(t.numel() for t in model.density.state_dict().values()) < 50


@pytest.mark.parametrize("refinements", [0, 1, 2])
def test_the_variance_of_the_output_is_the_error_of_held_out_rows(refinements):
    model, x, held_out = model_of(refinements=refinements), normal(5, 300, 3), normal(6, 50, 3)
    model.fit_features(x, held_out)
    reconstructed = held_out
    for _ in range(refinements + 1):
        reconstructed = model.decoder.centers(model.encoder(reconstructed)).detach()
    torch.testing.assert_close(
        model.output_variance, (reconstructed - held_out).square().mean(), rtol=1e-12, atol=0
    )
    # A decoder with noise keeps the variance of its kernel.
    several = model_of(noise=1, centers=2)
    several.fit_features(x, held_out)
    assert float(several.output_variance) == 0.5


def test_classes_have_densities_of_their_own():
    model = model_of(classes=2, components=4)
    x = normal(5, 300, 3)
    labels = (x[:, 0] > 0).long()
    model.fit_features(x, labels=labels)
    for label in (0, 1):
        q = model.feature_density(label)
        mean = model.encoder(x[labels == label]).mean(0).detach()
        torch.testing.assert_close(q.mean, mean, atol=1e-6, rtol=0)
        assert model.sample(7, seeded(), label=label).shape == (7, 3)
    with pytest.raises(InputError, match="label must lie between 0 and 1, got 2"):
        model.sample(7, label=2)


def test_what_training_remembers_can_be_sampled_from():
    model = model_of(components=None)
    with pytest.raises(InputError, match="not fitted yet"):
        model.sample(3)
    model.remember(normal(5, 60, 3))
    assert model.sample(3, seeded()).isfinite().all()


# ------------------------------------------------------------------ density


def exact(model, x):
    """The density of a linear decoder: mixtures of Gaussians stay such under linear maps."""
    weight = model.decoder.network.weight.detach().numpy()
    bias = model.decoder.network.bias.detach().numpy()
    back = model.encoder.network
    for _ in range(model.refinements):  # decoder, encoder and decoder are one linear map
        decoder = model.decoder.network.weight.detach().numpy()
        encoder = decoder @ back.weight.detach().numpy()
        bias = (
            encoder @ bias
            + decoder @ back.bias.detach().numpy()
            + (model.decoder.network.bias.detach().numpy())
        )
        weight = encoder @ weight
    q, noise = model.feature_density(), model.decoder.noise_dim
    own, rest = weight[:, : q.dim], weight[:, q.dim :]
    v = float(model.output_variance if noise == 0 else model.decoder.variance)
    around = rest @ rest.T + v * np.eye(len(weight))
    parts = [
        b * multivariate_normal(own @ m + bias, own @ s @ own.T + around).pdf(x.numpy())
        for b, m, s in zip(
            q.weights.numpy(), q.means.numpy(), q.component_covariance.numpy(), strict=True
        )
    ]
    return torch.from_numpy(np.log(sum(parts)))


@pytest.mark.parametrize("noise", [0, 2])
def test_the_density_of_a_linear_decoder_is_the_closed_form(noise):
    model = fitted(linear=True, noise=noise, dim=4)
    x = model.sample(100, seeded(2)) + 0.3 * normal(8, 100, 4)
    found, expected = model.log_prob(x, 400, seeded(4)), exact(model, x)
    apart = (found.value - expected) / found.standard_error
    assert float(found.standard_error.max()) < 0.2
    # The errors are as large as they are said to be.
    assert 0.6 < float(apart.square().mean().sqrt()) < 1.5
    assert float(apart.abs().max()) < 5


def test_more_draws_make_the_error_smaller_as_its_square_root():
    # With one component the integrand is a Gaussian, and no draw of the proposal is a rare one.
    model = fitted(linear=True, dim=4, components=1)
    x = model.sample(40, seeded(2)) + 0.3 * normal(8, 40, 4)
    few, many = (model.log_prob(x, n, seeded(4)) for n in (100, 1600))
    ratio = float((few.standard_error / many.standard_error).median())
    assert ratio == pytest.approx(4, rel=0.15)
    assert (many.effective_draws <= 1600).all()


def test_the_density_of_a_curved_decoder_is_that_of_quadrature():
    model = fitted(features=1, dim=2, components=3)
    x = model.sample(30, seeded(2)) + 0.2 * normal(8, 30, 2)
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64).unsqueeze(1)
    centres = model.decoder.centers(model.encoder(model.decoder.centers(grid))).detach()
    v = float(model.output_variance)
    log_joint = model.feature_density().log_prob(grid) - (
        torch.cdist(x, centres).square() / (2 * v) + math.log(2 * math.pi * v)
    )
    expected = log_joint.logsumexp(1) + math.log(24 / 20_000)
    found = model.log_prob(x, 2000, seeded(4))
    assert ((found.value - expected).abs() < 5 * found.standard_error + 1e-6).all()
    assert float(found.standard_error.median()) < 0.05


def test_wrong_draws_and_learned_heads_are_refused():
    model = fitted()
    with pytest.raises(InputError, match="draws must be at least 2"):
        model.log_prob(normal(0, 2, 3), draws=1)
    decoder = MixtureDecoder(nn.Linear(2, 3), 2, 0, 0.5, learn_variance=True)
    learned = LatentMixture(model.encoder, decoder.double(), variance_y=0.1)
    with pytest.raises(InputError, match="equal weights and variances"):
        learned.log_prob(normal(0, 2, 3))
    with pytest.raises(InputError, match="not fitted yet"):
        model_of().log_prob(normal(0, 2, 3))
