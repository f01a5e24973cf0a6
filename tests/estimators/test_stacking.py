"""Weights and temperatures of several models, where the best are known."""

import numpy as np
import pytest
import torch

from hilbound.estimators.experts.stacking import fit_stack
from hilbound.mixture import GaussianMixture


class Constant:
    """Predicts one Gaussian whatever the row."""

    def __init__(self, mean, variance):
        self.mean, self.variance = mean, variance

    def predict(self, x):
        return GaussianMixture(torch.full((len(x), 1, 1), self.mean).double(), self.variance)


def stack(experts, y, floor=1e-6, weight=None):
    x = torch.zeros(len(y), 1)
    weight = torch.ones(len(y)) if weight is None else weight
    held_out = [e.predict(x) for e in experts]
    return fit_stack(experts, held_out, y, weight, torch.tensor([floor]))


def test_weights_are_the_shares_of_what_each_explains(generator):
    first = torch.rand(4000, 1, generator=generator) < 0.3
    y = torch.where(first, -5.0, 5.0) + torch.randn(4000, 1, generator=generator)
    fitted, _ = stack([Constant(-5.0, 1.0), Constant(5.0, 1.0)], y)
    assert fitted.weights == pytest.approx([0.3, 0.7], abs=0.02)
    assert fitted.temperatures == pytest.approx([1, 1], rel=0.15)


def test_temperatures_mend_the_spread(generator):
    y = 0.7 * torch.randn(4000, 1, generator=generator)
    fitted, mixed = stack([Constant(0.0, 1.0)], y)
    assert fitted.temperatures == pytest.approx([0.49], rel=0.1)
    assert float(mixed.variance.mean()) == pytest.approx(0.49, rel=0.1)


def test_a_useless_model_is_dropped(generator):
    y = torch.randn(4000, 1, generator=generator)
    fitted, _ = stack([Constant(0.0, 1.0), Constant(40.0, 1.0)], y)
    assert len(fitted.experts) == 1
    assert fitted.weights == [1.0]


def test_rows_of_no_weight_say_nothing(generator):
    y = torch.randn(2000, 1, generator=generator)
    y[1000:] += 9
    weight = torch.cat([torch.full((1000,), 2.0), torch.zeros(1000)])
    fitted, _ = stack([Constant(0.0, 1.0), Constant(9.0, 1.0)], y, weight=weight)
    assert fitted.weights[0] == pytest.approx(1, abs=2e-3)


def test_no_temperature_goes_below_the_floor(generator):
    y = 0.1 * torch.randn(1000, 1, generator=generator)
    fitted, mixed = stack([Constant(0.0, 0.3)], y, floor=0.2)
    assert fitted.temperatures[0] < 0.7
    assert float(mixed.component_variance.min()) == pytest.approx(0.2)
    predicted = fitted.predict(torch.zeros(3, 1))
    np.testing.assert_allclose(predicted.component_variance, 0.2)
