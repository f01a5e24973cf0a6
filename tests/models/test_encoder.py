"""The encoder: what comes in is checked, what goes out is standardised, or frozen as it is."""

import math

import pytest
import torch
from torch import nn

from hilbound.errors import InputError
from hilbound.models.encoder import Encoder, FeatureStandardization
from hilbound.models.networks import MLP
from support.autoencoders import model_of
from support.models import randomised, seeded
from support.strategies import normal


def standardized(h):
    """What standardisation makes of one batch, as evaluation sees it, by hand."""
    mean, variance = h.mean(0), h.var(0, correction=0)
    return (h - mean) / (variance + 1e-5).sqrt()


def test_standardized_features_have_mean_zero_and_variance_one():
    encoder = Encoder(randomised(MLP(3, 2, 8, 1), 5.0), 3, standardized=2).double()
    x = normal(0, 500, 3)
    h = encoder(x)
    torch.testing.assert_close(h, standardized(encoder.network(x)), rtol=1e-9, atol=1e-9)
    assert h.mean(0).abs().max() < 1e-9
    assert (h.var(0, correction=0) - 1).abs().max() < 1e-3
    # Evaluation takes the averages, and a row alone is what it was among the others.
    encoder.eval()
    torch.testing.assert_close(encoder(x), h, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(encoder(x[3]), h[3], rtol=1e-9, atol=1e-9)
    assert torch.equal(Encoder(encoder.network, 3)(x), encoder.network(x))


def test_averages_are_plain_at_first_and_running_later():
    layer, batches = (
        FeatureStandardization(2, momentum=0.3),
        [3 * normal(i, 40, 2) + i for i in range(6)],
    )
    layer.double()
    mean = variance = torch.zeros(2).double()
    for h, share in zip(batches, (1, 1 / 2, 1 / 3, 0.3, 0.3, 0.3), strict=True):
        mean = (1 - share) * mean + share * h.mean(0)
        variance = (1 - share) * variance + share * h.var(0, correction=0)
        expected = (h - mean) / (variance + 1e-5).sqrt()
        torch.testing.assert_close(layer(h), expected, rtol=1e-6, atol=1e-6)
    layer.eval()
    expected = (batches[0] - mean) / (variance + 1e-5).sqrt()
    torch.testing.assert_close(layer(batches[0]), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(layer.mean, mean, rtol=1e-6, atol=1e-6)


def test_gradients_are_those_of_batch_normalisation_up_to_the_scale():
    layer, h = FeatureStandardization(2).double(), normal(0, 40, 2)
    layer(3 * normal(1, 40, 2) + 1)
    wish, a, b = normal(2, 40, 2), h.clone().requires_grad_(), h.clone().requires_grad_()
    (layer(a) * wish).sum().backward()
    # The scale is that of the running variance.
    (nn.functional.batch_norm(b, None, None, training=True) * wish).sum().backward()
    ratio = ((h.var(0, correction=0) + 1e-5) / (layer.variance + 1e-5)).sqrt()
    torch.testing.assert_close(a.grad, ratio * b.grad, rtol=1e-9, atol=1e-12)
    assert (a.grad.sum(0).abs() < 1e-9).all(), "features can be shifted"
    assert ((a.grad * h).sum(0).abs() < 1e-4).all(), "features can be stretched"


def test_a_feature_that_never_varies_stays_finite():
    layer = FeatureStandardization(1)
    assert torch.equal(layer(torch.full((9, 1), 7.0)), torch.zeros(9, 1))


def test_a_frozen_encoder_stays_as_it_is():
    model, x = model_of(), normal(0, 50, 3)
    model.encoder.standardization = FeatureStandardization(2).double()
    model(x)
    model.freeze_encoder()
    before = {k: v.clone() for k, v in model.encoder.state_dict().items()}
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert all(p.requires_grad for p in model.decoder.parameters())
    features = model.encode(x)
    model.train()
    model.encode(3 * x[:5] + 1)  # would move the averages if it were not frozen
    assert torch.equal(model.encode(x), features)
    assert all(torch.equal(v, before[k]) for k, v in model.encoder.state_dict().items())
    assert (model.training, model.encoder.training) == (True, False)


class Averaged(nn.Module):
    """Batch normalisation of the centres, and a layer."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.layer, self.norm = nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs)

    def forward(self, inputs):
        centers = self.layer(inputs)
        return self.norm(centers.reshape(-1, centers.shape[-1])).reshape(centers.shape)


@pytest.mark.parametrize("mode", [True, False])
def test_measuring_neither_moves_the_averages_nor_the_mode(mode):
    model, x = model_of(), normal(0, 50, 3)
    model.encoder.standardization = FeatureStandardization(2).double()
    # A decoder with averages and dice of its own, as a user may bring one.
    model.decoder.network = nn.Sequential(nn.Dropout(0.5), Averaged(4, 3)).double()
    model(x)
    model.train(mode)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    gaps = [float(model.bound(3 * x[:9] + 1, 0.5, generator=seeded()).gap) for _ in range(2)]
    assert gaps[0] == gaps[1]
    several = [model.reconstruct(3 * x[:9] + 1, 2, seeded()) for _ in range(2)]
    assert torch.equal(*several)
    model.feature_weights(3 * x[:9] + 1, x)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training == model.encoder.training == mode


@pytest.mark.parametrize("shape", [(), (2,), (5, 2), (5, 4), (3, 5)])
def test_inputs_of_another_shape_are_refused(shape):
    words = r"inputs must be rows of 3 coordinates.*got shape \("
    for call in (model_of().encode, model_of(), model_of().eval()):
        with pytest.raises(InputError, match=words):
            call(torch.zeros(shape).double())


def test_unflattened_images_are_told_so():
    encoder = Encoder(nn.Linear(64, 2), 64, pixels=True)
    with pytest.raises(InputError, match=r"\(8, 8\): flatten images$"):
        encoder(torch.zeros(8, 8))
    with pytest.raises(InputError, match=r"got shape \(5,\)$"):
        Encoder(nn.Linear(1, 1), 1)(torch.zeros(5))
    with pytest.raises(InputError, match=r"\(5, 1, 8, 8\): flatten images$"):
        encoder(torch.zeros(5, 1, 8, 8))
    with pytest.raises(InputError, match=r"got shape \(5, 63\)$"):
        encoder(torch.zeros(5, 63))


@pytest.mark.parametrize("bad", [-1e-3, 1.001, 255.0, math.nan, math.inf])
def test_pixels_out_of_range_are_refused(bad):
    x = torch.rand(5, 3, generator=seeded())
    x[3, 1] = bad
    with pytest.raises(InputError, match=r"pixels must lie in \[0, 1\].*divide bytes by 255"):
        Encoder(nn.Linear(3, 1), 3, pixels=True)(x)
    assert Encoder(nn.Linear(3, 1), 3)(x).shape == (5, 1)


def test_the_ends_of_the_range_and_empty_batches_are_pixels():
    encoder = Encoder(nn.Linear(2, 1), 2, pixels=True)
    assert encoder(torch.tensor([[0.0, 1.0]])).shape == (1, 1)
    assert encoder(torch.zeros(0, 2)).shape == (0, 1)
