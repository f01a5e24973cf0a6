"""Small models with an encoder, and parts whose answers are known."""

from torch import nn

from hilbound.models.autoencoders import (
    Autoencoder,
    EncoderMixtureDecoder,
    MixtureDecoder,
)
from hilbound.models.encoder import Encoder
from hilbound.models.networks import MLP
from support.models import randomised


class Part(nn.Module):
    """A network that returns some of its inputs: the features, or the noise."""

    def __init__(self, *span):
        super().__init__()
        self.span = slice(*span)

    def forward(self, inputs):
        return inputs[..., self.span]


def decoder_of(dim=3, features=2, noise=2, variance=0.5, seed=0, **options):
    network = MLP(features + noise, dim, 16, 1)
    return randomised(MixtureDecoder(network, features, noise, variance, **options), seed=seed)


def model_of(dim=3, features=2, noise=2, *, variance=0.5, seed=0, rows=0, **options):
    settings = {"variance_y": 0.05, "centers": 4, "eval_centers": 6}
    heads = {k: options.pop(k) for k in ("learn_weights", "learn_variance") if k in options}
    encoder = Encoder(randomised(MLP(dim, features, 16, 1), 0.5, seed + 1), dim)
    decoder = decoder_of(dim, features, noise, variance, seed, **heads)
    return EncoderMixtureDecoder(encoder, decoder, rows=rows, **settings | options).double()


def echo(dim=2, variance_y=0.04, kind=EncoderMixtureDecoder, **options):
    """A model whose features are its inputs, and whose centres are its features."""
    decoder = MixtureDecoder(Part(dim), dim, 0 if kind is Autoencoder else 1, 0.5)
    encoder = Encoder(nn.Identity(), dim)
    return kind(encoder, decoder, variance_y=variance_y, **options).double()
