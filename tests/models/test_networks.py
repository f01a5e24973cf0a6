"""Shapes of the networks, and that every input and weight has a say."""

import math

import pytest
import torch
from torch import nn

from hilbound.errors import InputError
from hilbound.models.networks import ENCODERS, MLP, NETWORKS, ConvEncoder, ConvGenerator


@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)])
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_mlp_maps_rows_to_rows(batch, depth):
    network = MLP(4, 3, width=8, depth=depth)
    assert network(torch.zeros(*batch, 4)).shape == (*batch, 3)
    assert sum(isinstance(layer, nn.Linear) for layer in network) == depth + 1


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 30, 27), (1, 5, 9), (2, 1, 1)])
def test_conv_makes_images_of_any_size(shape, depth, batch):
    network = ConvGenerator(4, shape, width=16, depth=depth)
    assert network(torch.zeros(*batch, 4)).shape == (*batch, math.prod(shape))


@pytest.mark.parametrize("width", [1, 3, 20, 64])
@pytest.mark.parametrize("depth", [0, 1, 2, 4])
def test_conv_of_any_width(width, depth):
    assert ConvGenerator(2, (1, 6, 7), width, depth)(torch.zeros(2, 2)).shape == (2, 42)


def test_conv_upsamples_a_coarse_grid():
    assert ConvGenerator(4, (3, 30, 27), width=16, depth=2).grid == (16, 8, 7)
    assert ConvGenerator(4, (3, 32, 32), width=16, depth=3).grid == (16, 4, 4)


def build(name):
    return NETWORKS[name](4, 3 * 30 * 27, 16, 2, (3, 30, 27))


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_builds_from_the_table(name, generator):
    network, noise = build(name), torch.randn(6, 4, generator=generator)
    rows = network(noise)
    assert rows.shape == (6, 3 * 30 * 27)
    # Rows of a batch know nothing of each other.
    assert torch.allclose(network(noise[2:3]), rows[2:3], atol=1e-5)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_weight_and_input_has_a_say(name, generator):
    network, noise = build(name), torch.randn(6, 4, generator=generator).requires_grad_()
    weights = torch.randn(3 * 30 * 27, generator=generator)
    (network(noise) @ weights).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in network.parameters())
    assert (noise.grad.abs() > 0).all()


def test_float64_works_everywhere():
    for name in NETWORKS:
        assert build(name).double()(torch.zeros(2, 4).double()).dtype == torch.float64


def test_conv_needs_images():
    with pytest.raises(InputError, match=r"network 'conv' is for images.*use network 'mlp'"):
        NETWORKS["conv"](4, 10, 16, 2, None)
    with pytest.raises(InputError, match=r"network 'conv' is for images.*use network 'mlp'"):
        ENCODERS["conv"](10, 4, 16, 2, None)


def test_mlp_needs_none():
    assert NETWORKS["mlp"](4, 10, 16, 2, None)(torch.zeros(4)).shape == (10,)


# --- encoders ---------------------------------------------------------------------------------


def test_both_ends_of_an_autoencoder_have_the_same_names():
    assert sorted(ENCODERS) == sorted(NETWORKS)


@pytest.mark.parametrize("batch", [(), (5,), (2, 3), (0,)])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 30, 27), (1, 5, 9), (2, 1, 1)])
def test_conv_sums_up_images_of_any_size(shape, depth, batch):
    network = ConvEncoder(shape, 3, width=16, depth=depth)
    assert network(torch.zeros(*batch, math.prod(shape))).shape == (*batch, 3)


@pytest.mark.parametrize(("width", "depth"), [(1, 2), (3, 0), (20, 1), (64, 4)])
def test_conv_encoders_of_any_width(width, depth):
    assert ConvEncoder((1, 6, 7), 2, width, depth)(torch.zeros(3, 42)).shape == (3, 2)


def test_conv_halves_images_to_the_grid_of_the_generator():
    for depth in (1, 2, 3):
        channels, *sides = ConvGenerator(4, (3, 30, 27), width=32, depth=depth).grid
        images = torch.zeros(1, 3, 30, 27)
        grid = ConvEncoder((3, 30, 27), 4, width=32, depth=depth).convolutions(images)
        assert list(grid.shape[2:]) == sides
        assert grid.shape[1] == max(8, channels)


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_every_pixel_and_weight_of_an_encoder_has_a_say(name, generator):
    network = ENCODERS[name](3 * 30 * 27, 4, 16, 2, (3, 30, 27))
    x = torch.rand(6, 3 * 30 * 27, generator=generator).requires_grad_()
    rows = network(x)
    assert rows.shape == (6, 4)
    # Rows of a batch know nothing of each other.
    assert torch.allclose(network(x[2:3]), rows[2:3], atol=1e-5)
    (rows @ torch.randn(4, generator=generator)).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in network.parameters())
    assert (x.grad.abs() > 0).all()
    double = network.double()(x.detach().double())
    assert double.dtype == torch.float64
