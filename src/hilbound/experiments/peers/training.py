"""One loop for all: the same network, batches, optimiser and seconds; only the loss differs."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn

from hilbound.datasets import Dataset
from hilbound.engine.seeding import seeded_globally, stream
from hilbound.experiments.peers.costs import loss_of
from hilbound.experiments.peers.settings import Budget
from hilbound.models.autoencoders import VAE, MixtureDecoder
from hilbound.models.base import DensityModel
from hilbound.models.density import MixtureDensityNetwork
from hilbound.models.encoder import Encoder
from hilbound.models.networks import MLP
from hilbound.objectives import Likelihood
from hilbound.training.batches import BatchStream
from hilbound.variance import median_variance

#: A loss of a batch at a step.
StepLoss = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class Trained:
    """A model, with what its training took.

    Args:
        model: The model.
        steps: Steps that the time allowed.
        seconds: Seconds of one core.
    """

    model: DensityModel
    steps: int
    seconds: float


def trained(
    budget: Budget, dataset: Dataset, method: str, option: float, *, seconds: float, seed: int
) -> Trained:
    """Train a method for some seconds of one core.

    Args:
        budget: Network, batch and optimiser.
        dataset: The data.
        method: The method.
        option: What it may choose.
        seconds: The time. The learning rate falls to zero along a cosine of it.
        seed: Seed of weights, batches and noise.
    """
    with seeded_globally(stream(seed, "weights").initial_seed()):
        model, loss = _model(budget, dataset, method, option, seed)
    rate = budget.learning_rate * (option if method == "energy" else 1)
    adam = torch.optim.Adam(model.parameters(), rate, betas=(0.5, 0.9))
    batch_size = min(budget.batch_size, len(dataset.train))
    # More steps than any budget allows; batches are drawn one by one.
    batches = iter(BatchStream(dataset.train, batch_size, 10**9, seed))
    began = time.process_time()
    for step in count():
        share = (time.process_time() - began) / seconds
        if share >= 1:
            break
        adam.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * share))
        value = loss(next(batches), step)
        adam.zero_grad()
        value.backward()
        adam.step()
    return Trained(model, step, time.process_time() - began)


def _model(
    budget: Budget, dataset: Dataset, method: str, option: float, seed: int
) -> tuple[DensityModel, StepLoss]:
    """Return a model with its loss. All have the same network from noise, or features, to data."""
    bounded = dataset.image_shape is not None
    median = median_variance(dataset.train, generator=stream(0, "median"))

    def network(inputs: int) -> nn.Module:
        return MLP(inputs, dataset.dim, budget.width, budget.depth)

    if method == "vae":
        features = int(option)
        coder = Encoder(
            MLP(dataset.dim, 2 * features, budget.width, budget.depth), dataset.dim, pixels=bounded
        )
        decoder = MixtureDecoder(
            network(features), features, 0, median / dataset.dim, learn_variance=True,
            bounded=bounded,
        )  # fmt: skip
        vae = VAE(coder, decoder)
        return vae, _evidence(vae, seed)
    generator = MixtureDensityNetwork(
        network(budget.noise_dim), budget.noise_dim, median, bounded=bounded
    )
    loss = loss_of(method, option, median, dataset.dim)

    def of_samples(x: Tensor, step: int) -> Tensor:
        draws = stream(seed, "noise", step)
        y = generator.centers(generator.noise(len(x), draws))
        return loss(x.to(y), y, draws)

    return generator, of_samples


def _evidence(vae: VAE, seed: int) -> StepLoss:
    objective = Likelihood()

    def loss(x: Tensor, step: int) -> Tensor:
        p, q, penalty = vae.compare(x, 1.0, 1, stream(seed, "noise", step))
        value: Tensor = objective(p, q).mean() + penalty
        return value

    return loss
