"""One comparison of two whole mixtures, whose parts several workers made.

This is the one place in training that knows of workers. Each has its share of a batch, in the
order of the whole; :class:`hilbound.engine.gather.Team` says which. All draw the noise of the whole
batch and use their own rows, so that the batch is the one that a single process would compute.
"""

import math
import os
import sys
from typing import NamedTuple

import torch
from torch import Tensor

from hilbound.engine.gather import Team, working_in
from hilbound.engine.seeding import Part
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.models.autoencoders import FeatureModel
from hilbound.models.base import Comparison, DensityModel, MixturePart, PairComparison
from hilbound.models.blocks import BlockDensityNetwork
from hilbound.models.classes import ClassConditional, telling, with_encoder
from hilbound.objectives import BlockObjective, Objective
from hilbound.training.batches import Batch


class Shared(NamedTuple):
    """A batch that workers share, as one of them sees it.

    Args:
        batch: All rows of the batch with shape ``(B, d)``, or of all blocks or slices with shape
            ``(C, n, d)``.
        variance: Variance of a component of the data's mixture.
        centers: Number of centres: for each row if every row has its own, for each block or slice
            if there are any, otherwise in all.
        generator: Draws the noise of the whole batch.
        workers: The team.
    """

    batch: Batch
    variance: float
    centers: int
    generator: torch.Generator
    workers: Team

    @property
    def own(self) -> range:
        """Which rows of the batch this worker computes."""
        return self.workers.share(len(self.batch.x))

    @property
    def part(self) -> Batch:
        """The rows that this worker computes; one that does not count if it has none."""
        chosen = self.own or range(1)
        return self.batch.part(slice(chosen.start, chosen.stop))


def compare_together(model: DensityModel, shared: Shared) -> Comparison:
    """Return both mixtures of the whole batch on every worker, live in this worker's part.

    The loss must be multiplied by the number of workers, and gradients be averaged over them. See
    :mod:`hilbound.engine.gather`.

    Args:
        model: The model.
        shared: The batch.

    Returns:
        The comparison. If there are blocks, it is one of this worker's blocks, :class:`OwnBlocks`.
    """
    batch, variance, centers, generator, workers = shared
    if batch.features is not None:
        return _compare_slices(model, shared)
    if workers.alone:
        return model.compare(batch.x, variance, centers, generator, batch.labels)
    if isinstance(model, BlockDensityNetwork):
        return _compare_blocks(model, shared)
    of_rows = with_encoder(model) is not None
    # A worker without rows, or without centres, computes one that does not count.
    made = shared.own if of_rows else workers.share(centers)
    rows = len(batch.x)
    source = Part(generator, made or range(1), rows if of_rows else centers)
    count = centers if of_rows else max(1, len(made))
    part = shared.part
    with working_in(workers, filled=not made):
        compared = model.compare(part.x, variance, count, source, part.labels)
    # All know the rows: their mixture need not travel.
    around = compared.p
    means = batch.x.to(around.means).reshape(rows, *around.means.shape[1:])
    p = GaussianMixture(means, around.component_variance)
    q = _whole(compared.q, len(made), workers, learned=model.head.variance_head is not None)
    share = compared.penalty * len(shared.own) / rows
    return Comparison(p, q, workers.gather(share[None]).sum())


def compare_pairs_together(
    model: DensityModel, shared: Shared, feature_variance: float
) -> PairComparison:
    """Return both mixtures over pairs of a row and its features, of the whole batch.

    Args:
        model: A model with an encoder.
        shared: The batch.
        feature_variance: Variance of a component in the features.
    """
    if not isinstance(model, FeatureModel | ClassConditional):
        raise TypeError(f"{type(model).__name__} has no features")  # the plan refuses it
    batch, variance, centers, generator, workers = shared
    own, part = shared.own, shared.part
    source = generator if workers.alone else Part(generator, own or range(1), len(batch.x))
    with working_in(workers, filled=not own):
        compared = model.compare_pairs(
            part.x, variance, centers, feature_variance, generator=source, labels=part.labels
        )
    if workers.alone:
        return compared
    learned, size = model.head.variance_head is not None, len(own)
    # Weights of a part sum to one; each row has the same share of the whole.
    mass = math.log(max(1, size))
    return PairComparison(
        _whole(compared.p, size, workers),
        _whole(compared.q, size * centers, workers, learned=learned, log_mass=mass),
        compared.each
        and (
            _whole(compared.each[0], size, workers),
            _whole(compared.each[1], size, workers, learned=learned),
        ),
    )


# ------------------------------------------------------------------ block by block


class OwnBlocks(Comparison):
    """A comparison of this worker's blocks, or slices, of a batch.

    Attributes:
        workers: The team.
        own: Which blocks; none if it has none, and compares one that does not count.
        learned: Whether every component has a variance of its own.
    """

    workers: Team
    own: range
    learned: bool

    def whole(self) -> Comparison:
        """Return the comparison of all blocks. All workers must call this."""
        p = _whole(self.p, len(self.own), self.workers)
        q = _whole(self.q, len(self.own), self.workers, learned=self.learned)
        return Comparison(p, q, self.penalty)


def _compare_blocks(model: BlockDensityNetwork, shared: Shared) -> OwnBlocks:
    workers = shared.workers
    own = workers.share(model.blocks)
    source = Part(shared.generator, own or range(1), model.blocks)
    with working_in(workers, filled=not own):
        found = model.compare(shared.batch.x, shared.variance, shared.centers, source)
    return _owned(found, model, shared, own)


def _compare_slices(model: DensityModel, shared: Shared) -> OwnBlocks:
    inner, own = with_encoder(model), shared.own
    part, slices = shared.part, len(shared.batch.x)
    if inner is None or part.features is None:
        raise TypeError(f"{type(model).__name__} has no features")  # the plan refuses it
    source = Part(shared.generator, own or range(1), slices)
    with working_in(shared.workers, filled=not own), telling(model, part.labels):
        found = inner.compare_slices(part.x, part.features, shared.variance, shared.centers, source)
    return _owned(found, model, shared, own)


def _owned(found: Comparison, model: DensityModel, shared: Shared, own: range) -> OwnBlocks:
    blocks = OwnBlocks(*found)
    blocks.workers, blocks.own = shared.workers, own
    blocks.learned = model.head.variance_head is not None
    return blocks


def loss_together(
    objective: Objective, compared: Comparison | PairComparison, workers: Team
) -> Tensor:
    """Return the loss of the whole batch. This worker may have compared only its own blocks.

    Where it is a sum over blocks, every worker computes its own terms, and one number travels.
    Otherwise the blocks are gathered, and all workers compute the loss. But a large matrix is
    decomposed by one of them, which sends the others the gradient. An objective with one value for
    each row is averaged over the rows.

    Args:
        objective: The objective.
        compared: What :func:`compare_together` has returned.
        workers: The team.
    """
    if isinstance(compared, OwnBlocks) and isinstance(objective, BlockObjective):
        if objective.is_sum:
            own = objective.loss_of(compared.p, compared.q, compared.own or range(1))
            counts = own[None] if compared.own else 0 * own[None]
            return workers.gather(counts).sum() + compared.penalty
        compared = compared.whole()
    with working_in(workers):
        loss: Tensor = objective(compared.p, compared.q).mean() + compared.penalty
    return loss


def _whole(
    part: GaussianMixture,
    size: int,
    workers: Team,
    *,
    learned: bool = False,
    log_mass: float | None = None,
) -> GaussianMixture:
    """Return the whole mixture, or all mixtures, from the parts of all workers.

    Args:
        part: Some components of one mixture, or some mixtures of a batch.
        size: How many of them count. The first ones do.
        workers: The team.
        learned: Whether every component has a variance of its own.
        log_mass: Logarithm of what the weights were divided by, if it is not with the part.
    """
    variance = part.component_variance
    if learned:
        variance = variance.expand(*part.means.shape[:-1], variance.shape[-1])
        variance = workers.gather(variance[:size])
    log_weights = None
    if not part.equal_weights:
        own = part.log_weights
        if not part.batch_shape:
            own = own + (part.log_mass if isinstance(part, MixturePart) else log_mass or 0)
        log_weights = workers.gather(own[:size])
    means = workers.gather(part.means[:size])
    if not size:
        # Without any share in the loss its weights would have no gradient, and others would wait.
        means = means + _nothing(part)
    return GaussianMixture(means, variance, log_weights=log_weights)


def _nothing(q: GaussianMixture) -> Tensor:
    """Return zero, in which all weights of the model have a part."""
    nothing = 0 * (q.means.sum() + q.component_variance.sum())
    if q.equal_weights:
        return nothing
    # Weights of zero have a logarithm that no zero tames.
    weights = q.log_mass.sum() if isinstance(q, MixturePart) else q.weights.sum()
    return nothing + 0 * weights


# ------------------------------------------------------------------ how workers are started


def is_launched() -> bool:
    """Whether ``torchrun`` has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_helper() -> bool:
    """Whether this process was started to help another one, which writes the run folder."""
    return os.environ.get("RANK" if is_launched() else "LOCAL_RANK", "0") != "0"


def launched_devices(wished: str) -> tuple[str, int]:
    """Return the devices of this machine and the number of machines.

    Args:
        wished: What the options say.

    Raises:
        InputError: If ``torchrun`` has started another number of workers.
    """
    if not is_launched():
        return wished, 1
    here, everywhere = (int(os.environ[f"{name}WORLD_SIZE"]) for name in ("LOCAL_", ""))
    if wished not in {"1", "auto", str(here)}:
        raise InputError(
            f"devices {wished!r}, and torchrun has started {here} workers here: leave devices out"
        )
    return str(here), everywhere // here


def require_a_program() -> None:
    """Refuse several devices where this program cannot be started once for each.

    Raises:
        InputError: In a notebook, and with ``python -c``.
    """
    shell = hasattr(sys, "ps1") or "IPython" in sys.modules
    if not is_launched() and not is_helper() and (shell or not os.path.isfile(sys.argv[0])):  # noqa: PTH113 - argv may be anything
        raise InputError(
            "several devices need a program that can be started once for each, and a notebook or "
            "'python -c' is none: write it into a file, or use 'hilbound fit ... --devices 2' or "
            "torchrun in a terminal"
        )
