"""One loop for all: the same network, batches, optimiser and seconds; only the loss differs."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from itertools import count

import torch
from torch import Tensor, nn

from hilbound.datasets import Dataset
from hilbound.engine.seeding import seeded_globally, stream
from hilbound.experiments.peers.costs import Loss, loss_of
from hilbound.experiments.peers.settings import CLUSTER_ROWS, Budget
from hilbound.mixture import GaussianMixture
from hilbound.models.autoencoders import VAE, MixtureDecoder
from hilbound.models.base import DensityModel
from hilbound.models.blocks import BlockDensityNetwork, Clusters
from hilbound.models.density import MixtureDensityNetwork
from hilbound.models.encoder import Encoder
from hilbound.models.networks import MLP
from hilbound.objectives import BlockObjective, DebiasedNuclearNorm, Likelihood
from hilbound.training.batches import BatchStream, BlockStream
from hilbound.variance import median_variance, of_component

#: The variance for clusters of toys, as a multiple of the median heuristic; of images it is 1.
NARROW = 0.1
_ENDLESS = 10**9

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
    _warm_up(budget, dataset, method, option)
    # What a method alone needs before its first step, such as clusters, is part of its own.
    began = time.process_time()
    with seeded_globally(stream(seed, "weights").initial_seed()):
        model, loss, batches = _model(budget, dataset, method, option, seed)
    rate = budget.learning_rate * (option if method == "energy" else 1)
    adam = torch.optim.Adam(model.parameters(), rate, betas=(0.5, 0.9))
    rows = iter(batches)
    for step in count():
        share = (time.process_time() - began) / seconds
        if share >= 1:
            break
        adam.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * share))
        value = loss(next(rows), step)
        adam.zero_grad()
        value.backward()
        adam.step()
    return Trained(model, step, time.process_time() - began)


@cache
def _warm_up(budget: Budget, dataset: Dataset, method: str, option: float) -> None:
    """Build a model and take one step, once in a process: what is slow the first time is no time.

    Imports, and the first call of a decomposition, would otherwise count for whoever comes first.
    """
    with seeded_globally(0):
        _, loss, batches = _model(budget, dataset, method, option, 0)
        loss(next(iter(batches)), 0).backward()


@cache
def _median(dataset: Dataset) -> float:
    return median_variance(dataset.train, generator=stream(0, "median"))


def _model(
    budget: Budget, dataset: Dataset, method: str, option: float, seed: int
) -> tuple[DensityModel, StepLoss, Iterable[Tensor]]:
    """Return a model, its loss and its batches.

    All have the same network from noise, or features, to data.
    """
    bounded = dataset.image_shape is not None
    median = _median(dataset)
    batch_size = min(budget.batch_size, len(dataset.train))
    # More steps than any budget allows; batches are drawn one by one.
    batches = BatchStream(dataset.train, batch_size, _ENDLESS, seed)

    def network(inputs: int) -> nn.Module:
        return MLP(inputs, dataset.dim, budget.width, budget.depth)

    if method == "vae":
        features = int(option)
        coder = Encoder(
            MLP(dataset.dim, 2 * features, budget.width, budget.depth), dataset.dim, pixels=bounded
        )
        variance = median / dataset.dim
        options = {"learn_variance": True, "bounded": bounded}
        vae = VAE(coder, MixtureDecoder(network(features), features, 0, variance, **options))
        return vae, _evidence(vae, seed), batches
    if method == "clusters":
        return _given_clusters(budget, dataset, int(option), seed)
    generator = MixtureDensityNetwork(
        network(budget.noise_dim), budget.noise_dim, median, bounded=bounded
    )
    return (
        generator,
        _of_samples(generator, loss_of(method, option, median, dataset.dim), seed),
        batches,
    )


def _given_clusters(
    budget: Budget, dataset: Dataset, number: int, seed: int
) -> tuple[DensityModel, StepLoss, Iterable[Tensor]]:
    """Return a network that is told the cluster, its loss, and batches of every cluster."""
    bounded, median = dataset.image_shape is not None, _median(dataset)
    network = MLP(budget.noise_dim + number, dataset.dim, budget.width, budget.depth)
    clusters = Clusters(number, dataset.dim, len(dataset.train))
    blocks = BlockDensityNetwork(
        network, budget.noise_dim, median, blocks=number, clusters=clusters, bounded=bounded
    )
    blocks.learn_blocks(dataset.train, seed=seed)
    own = blocks.blocks_of(dataset.train)
    variance = of_component(median if bounded else NARROW * median)
    batches = BlockStream(dataset.train, own, CLUSTER_ROWS, steps=_ENDLESS, seed=seed)
    return blocks, _of_blocks(blocks, variance, seed), batches


def _of_samples(generator: MixtureDensityNetwork, loss: Loss, seed: int) -> StepLoss:
    def of_samples(x: Tensor, step: int) -> Tensor:
        draws = stream(seed, "noise", step)
        y = generator.centers(generator.noise(len(x), draws))
        return loss(x.to(y), y, draws)

    return of_samples


def _of_blocks(blocks: BlockDensityNetwork, variance: float, seed: int) -> StepLoss:
    """Return the debiased norm of all clusters together."""
    objective = BlockObjective(DebiasedNuclearNorm(), blocks.share)

    def loss(x: Tensor, step: int) -> Tensor:
        drawn = blocks.compare(x, variance, x.shape[1], stream(seed, "noise", step))
        q = GaussianMixture(drawn.q.means, variance)
        value: Tensor = objective(drawn.p, q)
        return value

    return loss


def _evidence(vae: VAE, seed: int) -> StepLoss:
    objective = Likelihood()

    def loss(x: Tensor, step: int) -> Tensor:
        p, q, penalty = vae.compare(x, 1.0, 1, stream(seed, "noise", step))
        value: Tensor = objective(p, q).mean() + penalty
        return value

    return loss
