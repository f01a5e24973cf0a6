"""Mixture density networks: what they promise of their centres, weights and variances."""

import math

import pytest
import torch
from torch import nn

from hilbound import functional as F
from hilbound.config import RunConfig
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.models.base import DensityModel
from hilbound.models.build import MODELS, DataShape, build_model
from hilbound.models.density import MixtureDensityNetwork
from hilbound.models.networks import MLP
from hilbound.objectives import OBJECTIVES
from support.models import HEADS, randomised, seeded


def model_of(dim=2, variance=0.5, scale=1.0, **options):
    return randomised(MixtureDensityNetwork(MLP(3, dim, 16, 1), 3, variance, **options), scale)


def config(**options):
    return RunConfig(data="moons", width=8, noise_dim=4, **options)


@pytest.mark.parametrize(("learn_weights", "learn_variance"), HEADS)
@pytest.mark.parametrize("batch", [(), (4,), (2, 4)])
def test_a_call_is_a_mixture(learn_weights, learn_variance, batch):
    model = model_of(learn_weights=learn_weights, learn_variance=learn_variance)
    noise = torch.randn(*batch, 7, 3, generator=seeded())
    q = model(noise)
    assert isinstance(q, GaussianMixture)
    assert (q.batch_shape, q.components, q.dim) == (batch, 7, 2)
    assert torch.equal(q.means, model.centers(noise))
    varies = q.component_variance.shape == (*batch, 7, 1)
    assert varies == learn_variance
    assert torch.allclose(q.weights.sum(-1), torch.ones(batch))
    equal = torch.allclose(q.weights, torch.full((*batch, 7), 1 / 7))
    assert equal != learn_weights


@pytest.mark.parametrize(("learn_weights", "learn_variance"), HEADS)
def test_everything_learned_gets_a_gradient(learn_weights, learn_variance):
    model = model_of(learn_weights=learn_weights, learn_variance=learn_variance)
    p = GaussianMixture(torch.randn(6, 2, generator=seeded(1)), 0.5)
    F.log_scalar_cost(p, model(model.noise(5, seeded(2)))).backward()
    for name, parameter in model.named_parameters():
        # The weights' last bias shifts all of them alike, which a softmax does not see.
        if name != "weight_head.2.bias":
            assert parameter.grad.abs().max() > 0, name


def test_training_starts_from_equal_weights_and_the_given_variance():
    model = MixtureDensityNetwork(
        MLP(3, 2, 16, 1), 3, 0.7, learn_weights=True, learn_variance=True, min_variance=0.1
    )
    q = model(model.noise(9, seeded()))
    assert q.weights.tolist() == pytest.approx([1 / 9] * 9)
    assert q.component_variance.flatten().tolist() == pytest.approx([0.7] * 9)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_centres_of_images_are_bounded(scale):
    images, free = model_of(5, bounded=True, scale=scale), model_of(5, scale=scale)
    noise = images.noise(200, seeded())
    for rows in (images.centers(noise), images(noise).means, images.sample(50, seeded())):
        assert 0 <= rows.min() <= rows.max() <= 1
    assert torch.equal(images.centers(noise), free.centers(noise).sigmoid())
    assert free.centers(noise).max() > 1


DATA = {
    "one point": torch.zeros(32, 2),
    "far apart": 1e3 * torch.randn(32, 2, generator=seeded(3)),
}


@pytest.mark.parametrize("min_variance", [None, 0.05])
@pytest.mark.parametrize("data", DATA)
def test_variances_stay_above_their_limit_however_hard_they_are_pushed(data, min_variance):
    """A point calls for a variance of zero and distant ones for a million, at a rate of 1."""
    model = model_of(
        variance=0.5,
        scale=0.3,
        learn_weights=True,
        learn_variance=True,
        min_variance=min_variance,
    )
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=1.0), seeded(4)
    for _ in range(100):
        optimizer.zero_grad()
        F.negative_log_likelihood(DATA[data], model(model.noise(16, generator))).backward()
        optimizer.step()
    q = model(model.noise(200, generator))
    low = 0.005 if min_variance is None else min_variance
    assert model.min_variance == pytest.approx(low)
    assert float(q.component_variance.detach().min()) >= low * (1 - 1e-6)
    assert float(q.component_variance.detach().max()) < math.inf
    moved = q.component_variance < 0.1 if data == "one point" else q.component_variance > 10
    assert moved.any(), "the optimisation did not push"


@pytest.mark.parametrize(
    ("variance", "min_variance"),
    [
        *((variance, None) for variance in (0.0, -1.0, math.nan, math.inf)),
        *((1.0, low) for low in (2.0, 1.0, 0.0, -0.5)),
    ],
)
def test_variances_that_are_refused(variance, min_variance):
    with pytest.raises(InputError, match="variance must be positive and above min_variance, got"):
        MixtureDensityNetwork(MLP(3, 2), 3, variance, min_variance=min_variance)


def test_noise_is_standard_normal_and_repeatable():
    model = model_of()
    noise = model.noise(20_000, seeded())
    assert torch.equal(noise, model.noise(20_000, seeded()))
    assert not torch.equal(noise[:5], model.noise(5, seeded(1)))
    # Five standard errors of means and of variances of 20 000 normal numbers.
    assert noise.mean(0).abs().max() < 5 / math.sqrt(20_000)
    assert (noise.var(0) - 1).abs().max() < 5 * math.sqrt(2 / 20_000)
    assert model.double().noise(3).dtype == torch.float64


@pytest.mark.parametrize("learn_weights", [False, True])
def test_samples_are_centres_and_repeatable(learn_weights):
    model = model_of(learn_weights=learn_weights)
    before = torch.get_rng_state()
    x = model.sample(11, seeded())
    assert x.shape == (11, 2)
    assert not x.requires_grad
    assert torch.equal(x, model.sample(11, seeded()))
    assert not torch.equal(x, model.sample(11, seeded(1)))
    assert torch.equal(torch.get_rng_state(), before), "the global generator was touched"


def test_samples_without_weights_are_the_centres_of_the_noise():
    model = model_of()
    assert torch.equal(model.sample(6, seeded()), model.centers(model.noise(6, seeded())))


class FirstCoordinate(nn.Module):
    """A logit of 0 or ``log 4``, by the sign of the first coordinate of the noise."""

    def forward(self, noise):
        return math.log(4) * (noise[..., :1] > 0)


def test_samples_follow_the_learned_weights():
    n = 4000
    model = MixtureDensityNetwork(nn.Identity(), 3, 0.5, learn_weights=True)
    model.weight_head = FirstCoordinate()
    share = float((model.sample(n, seeded())[:, 0] > 0).float().mean())
    # Half of the noise weighs four times as much: 4 / 5. Five standard errors of a share of 4000
    # are 0.032, and the pool of 32 000 adds 0.4 of one of its own.
    assert share == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize(("image", "dim"), [(None, 5), ((1, 5, 9), 45)])
def test_models_are_built_from_the_table(name, image, dim):
    options = RunConfig(data="moons", model=name, width=8)
    model = build_model(options, DataShape(dim, image), 0.5)
    assert isinstance(model, DensityModel)
    assert options.objective == model.objectives[0]
    assert set(model.objectives) <= set(OBJECTIVES)
    assert model.head.bounded == (image is not None)
    assert float(model.head.variance) == 0.5
    x = torch.rand(6, dim, generator=seeded())
    model.remember(x)
    assert model.sample(3, seeded()).shape == (3, dim)
    assert model.draw(4, seeded()).means.shape == (4, dim)
    p, q, penalty = model.compare(x, 0.5, 1 if name != "mixture-density-network" else 6, seeded())
    assert p.batch_shape == q.batch_shape
    assert penalty.shape == ()


def test_a_mixture_density_network_is_compared_as_a_whole():
    model, x = model_of(), torch.randn(6, 2, generator=seeded(1))
    p, q, penalty = model.compare(x, 0.3, 9, seeded())
    assert torch.equal(p.means, x)
    assert (float(p.component_variance), float(penalty)) == (pytest.approx(0.3), 0)
    assert torch.equal(q.means, model(model.noise(9, seeded())).means)
    assert torch.equal(q.means, model.draw(9, seeded()).means)
    model.remember(x)
    assert model.head is model


@pytest.mark.parametrize(("learn_weights", "learn_variance"), HEADS)
def test_options_reach_the_model(learn_weights, learn_variance):
    options = {"learn_weights": learn_weights, "learn_variance": learn_variance}
    model = build_model(config(**options, min_variance=0.2), DataShape(2), 0.5)
    assert (model.weight_head is not None) == learn_weights
    assert (model.variance_head is not None) == learn_variance
    assert model.min_variance == 0.2
    assert float(model.variance) == 0.5


def flat(model):
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_the_seed_decides_the_weights_and_nothing_else_does():
    first = flat(build_model(config(seed=3), DataShape(2), 0.5))
    torch.rand(7)
    assert torch.equal(first, flat(build_model(config(seed=3), DataShape(2), 0.5)))
    assert not torch.equal(first, flat(build_model(config(seed=4), DataShape(2), 0.5)))


def test_building_leaves_the_global_generator_as_it_was():
    before = torch.get_rng_state()
    build_model(config(), DataShape(2), 0.5)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model": "mixture-density-net"},
            "unknown model .*did you mean 'mixture-density-network'",
        ),
        ({"network": "conf"}, "unknown network 'conf': did you mean 'conv'"),
        ({"network": "conv"}, "network 'conv' is for images"),
    ],
)
def test_what_cannot_be_built(options, message):
    with pytest.raises(InputError, match=message):
        build_model(config(**options), DataShape(2), 0.5)


def test_half_floats_of_mixed_precision_never_reach_the_mixture():
    model = model_of(learn_weights=True, learn_variance=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        q = model(model.noise(5, seeded()))
    assert q.means.dtype == q.component_variance.dtype == q.weights.dtype == torch.float32


def test_the_variance_travels_with_the_weights():
    source, target = model_of(variance=0.5), model_of(variance=0.9)
    target.load_state_dict(source.state_dict())
    assert float(target.variance) == 0.5
