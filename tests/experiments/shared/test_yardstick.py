"""What reconstructions are held against, by inputs whose measures are known."""

import pytest
import torch

from hilbound.errors import InputError
from hilbound.experiments.shared.conditional_runs import QUICK, ConditionalSettings
from hilbound.experiments.shared.yardstick import (
    AVERAGED,
    MEASURES,
    Yardstick,
    agreement,
    mean_distance,
    one_hot,
)
from hilbound.models.autoencoders import EncoderMixtureDecoder, MixtureDecoder
from hilbound.models.encoder import Encoder

SETTINGS = ConditionalSettings(**QUICK)


@pytest.fixture(scope="module")
def yardstick():
    return Yardstick.of(SETTINGS)


class _Brightness(torch.nn.Module):
    """One feature that is known: the mean of the pixels."""

    def forward(self, x):
        return x.mean(-1, keepdim=True)


def model_with(variance_y):
    decoder = MixtureDecoder(torch.nn.Linear(3, 64), feature_dim=1, noise_dim=2, variance=1.0)
    encoder = Encoder(_Brightness(), 64, pixels=True)
    return EncoderMixtureDecoder(encoder, decoder, variance_y=variance_y, centers=2)


def test_the_parts_are_apart(yardstick):
    n = len(yardstick.inputs)
    assert n == SETTINGS.inputs
    assert n + len(yardstick.real) + len(yardstick.others) == 270
    together = torch.cdist(yardstick.inputs.double(), yardstick.others.double())
    assert float(together.amin()) > 0


def test_copies_of_the_inputs_are_no_different_and_perfect(yardstick):
    copies = yardstick.inputs.unsqueeze(1).expand(-1, 4, -1)
    found = yardstick.measure(model_with(1.0), copies)
    assert set(found) == set(MEASURES)
    assert found["distance"] == 0
    assert found["best"] == 0
    assert found["kinds"] == 1
    assert found["sure"] > 0.8
    assert found["own_class"] > 0.9


def test_pairs_of_two_images_differ_by_their_distance(yardstick):
    x = yardstick.inputs
    pairs = torch.stack([x, x.roll(1, 0)], 1)
    found = yardstick.measure(model_with(1.0), pairs)
    expected = float((x - x.roll(1, 0)).double().square().sum(1).mean())
    assert found["distance"] == pytest.approx(expected, rel=1e-6)
    different = yardstick.class_probabilities(x).argmax(1)
    kinds = 1 + float((different != different.roll(1)).double().mean())
    assert found["kinds"] == pytest.approx(kinds)


def test_grey_images_are_lost_and_nothing_else_is_said_of_them(yardstick):
    grey = torch.full((SETTINGS.inputs, 4, 64), 0.5)
    found = yardstick.measure(model_with(1.0), grey)
    assert found["lost"] == 1
    assert found["distance"] is None
    assert found["best"] == pytest.approx(
        float((yardstick.inputs - 0.5).double().square().mean()), rel=1e-6
    )


def test_lost_images_change_nothing_but_their_share(yardstick):
    model, real = model_with(1e-2), yardstick.real_in_place(model_with(1e-2), 4)
    inverted = 1 - real[:, :1]
    alone, together = (
        yardstick.measure(model, several) for several in (real, torch.cat([real, inverted], 1))
    )
    assert alone["lost"] <= 0.01
    assert together["lost"] == pytest.approx(0.2, abs=0.01)
    for name in ("distance", "kinds", "nearest", "sure", "precision", "agreement"):
        assert together[name] == pytest.approx(alone[name], rel=0.02)


def test_distances_from_the_nearest_are_of_pixels(yardstick):
    nearest = yardstick.from_nearest(yardstick.inputs)
    by_hand = ((yardstick.inputs[3] - yardstick.real).square().sum(1)).min()
    assert float(nearest[3]) == pytest.approx(float(by_hand), rel=1e-4)
    usual = (yardstick.from_nearest(yardstick.others) <= yardstick.farthest).double().mean()
    assert float(usual) >= 0.99


def test_shares_of_classes_follow_the_features(yardstick):
    model = model_with(1e-4)
    shares = yardstick.class_shares(model, 10)
    assert torch.allclose(shares.sum(1), torch.ones(SETTINGS.inputs, dtype=torch.float64))
    y, others = (rows.double().mean(1) for rows in (yardstick.inputs, yardstick.others))
    weights = torch.softmax(-(y[:, None] - others).square() / 2e-4, 1)
    for c in range(10):
        expected = weights[:, yardstick.other_classes == c].sum(1)
        assert torch.allclose(shares[:, c], expected, atol=1e-3)


def test_without_information_the_shares_are_those_of_all_images(yardstick):
    shares = yardstick.class_shares(model_with(1e6), 10)
    expected = torch.bincount(yardstick.other_classes, minlength=10).double()
    assert torch.allclose(shares, (expected / expected.sum()).expand_as(shares), atol=1e-5)


def test_averages_are_of_the_real_images_in_place(yardstick):
    model = model_with(1e-2)
    real = yardstick.real_in_place(model, 2 * AVERAGED)
    averages = yardstick.averages_in_place(model, 2)
    assert averages.shape == (SETTINGS.inputs, 2, 64)
    assert torch.allclose(averages[:, 1], real[:, AVERAGED:].mean(1))


def test_a_measure_of_validity_tells_averages_from_real_images(yardstick):
    model = model_with(1e-2)
    real, averages = (
        yardstick.measure(model, several)
        for several in (yardstick.real_in_place(model, 4), yardstick.averages_in_place(model, 4))
    )
    assert averages["sure"] < real["sure"]
    assert averages["nearest"] > real["nearest"]


def test_agreement_is_one_minus_the_total_variation():
    marks = one_hot(torch.tensor([[0, 0, 1, 2]]), 4)
    assert agreement(marks, torch.tensor([[0.5, 0.25, 0.25, 0.0]]).double()) == 1
    assert agreement(marks, torch.tensor([[0.0, 0.0, 1.0, 0.0]]).double()) == pytest.approx(0.25)
    assert agreement(marks, torch.tensor([[0.0, 0.0, 0.0, 1.0]]).double()) == 0


def test_what_does_not_count_changes_no_agreement():
    marks = one_hot(torch.tensor([[0, 1, 3], [2, 2, 2]]), 4)
    marks[0, 2] = 0
    marks[1] = 0
    assert agreement(marks, torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0, 0, 0]]).double()) == 1


def test_distances_are_those_of_pairs_that_are_kept():
    generator = torch.Generator().manual_seed(0)
    several = torch.randn(3, 4, 5, generator=generator)
    everything = torch.ones(3, 4, dtype=torch.bool)
    expected = 2 * several.double().var(1).sum(-1).mean()
    assert mean_distance(several, everything) == pytest.approx(float(expected))
    first_two = everything.clone()
    first_two[:, 2:] = False
    apart = (several[:, 0] - several[:, 1]).double().square().sum(-1).mean()
    assert mean_distance(several, first_two) == pytest.approx(float(apart))


def test_data_without_classes_are_refused():
    with pytest.raises(InputError, match=r"checkerboard.*have no classes"):
        Yardstick.of(ConditionalSettings(**QUICK | {"data": "checkerboard"}))
