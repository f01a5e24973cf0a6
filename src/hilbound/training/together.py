"""One comparison of two whole mixtures, whose parts several workers made.

This is the one place in training that knows of workers. Each has its share of a batch, in the
order of the whole; :class:`hilbound.engine.gather.Team` says which. All draw the noise of the whole
batch and use their own rows, so that the batch is the one that a single process would compute.
"""

import os
import sys

import torch
from torch import Tensor

from hilbound.engine.gather import Team, working_in
from hilbound.engine.seeding import Part
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.models.base import Comparison, DensityModel, MixturePart
from hilbound.models.blocks import BlockDensityNetwork
from hilbound.models.classes import with_encoder
from hilbound.objectives import BlockObjective, Objective
from hilbound.training.batches import Batch


def compare_together(
    model: DensityModel,
    batch: Batch,
    variance: float,
    centers: int,
    generator: torch.Generator,
    *,
    workers: Team,
    rows: int,
) -> Comparison:
    """Return both mixtures of the whole batch on every worker, live in this worker's part.

    The loss must be multiplied by the number of workers, and gradients be averaged over them. See
    :mod:`hilbound.engine.gather`.

    Args:
        model: The model.
        batch: This worker's rows of the batch with shape ``(n, d)``, any one row if it has none; or
            all rows of all blocks, with shape ``(C, n, d)``.
        variance: Variance of a component of the data's mixture.
        centers: Number of centres: for each row if every row has its own, for each block if there
            are blocks, otherwise in all.
        generator: Draws the noise of the whole batch.
        workers: The team.
        rows: How many rows the whole batch has.

    Returns:
        The comparison. If there are blocks, it is one of this worker's blocks, :class:`OwnBlocks`.
    """
    if workers.alone:
        return model.compare(batch.x, variance, centers, generator, batch.labels)
    if isinstance(model, BlockDensityNetwork):
        return _compare_blocks(model, batch.x, variance, centers, generator, workers=workers)
    of_rows = with_encoder(model) is not None
    own_rows, own_centers = workers.share(rows), workers.share(centers)
    # A worker without rows, or without centres, computes one that does not count.
    made = own_rows if of_rows else own_centers
    source = Part(generator, made or range(1), rows if of_rows else centers)
    count = centers if of_rows else max(1, len(own_centers))
    with working_in(workers, filled=not made):
        compared = model.compare(batch.x, variance, count, source, batch.labels)
    p = _whole(compared.p, len(own_rows), workers)
    q = _whole(compared.q, len(made), workers, learned=model.head.variance_head is not None)
    share = compared.penalty * len(own_rows) / rows
    penalty = workers.gather(share[None]).sum()
    return Comparison(p, q, penalty if made else penalty + _nothing(compared.q))


def _nothing(q: GaussianMixture) -> Tensor:
    """Return zero, in which all weights of the model have a part.

    Without any share in the loss they would have no gradient, and the others would wait.
    """
    nothing = 0 * (q.means.sum() + q.component_variance.sum())
    return nothing + 0 * q.log_mass.sum() if isinstance(q, MixturePart) else nothing


# ------------------------------------------------------------------ block by block


class OwnBlocks(Comparison):
    """A comparison of this worker's blocks of a batch.

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
        size, nothing = len(self.own), 0 if self.own else _nothing(self.q)
        p = _whole(self.p, size, self.workers)
        q = _whole(self.q, size, self.workers, learned=self.learned)
        return Comparison(p, q, self.penalty + nothing)


def _compare_blocks(
    model: BlockDensityNetwork,
    x: Tensor,
    variance: float,
    centers: int,
    generator: torch.Generator,
    *,
    workers: Team,
) -> OwnBlocks:
    own = workers.share(model.blocks)
    with working_in(workers, filled=not own):
        source = Part(generator, own or range(1), model.blocks)
        found = OwnBlocks(*model.compare(x, variance, centers, source))
    found.workers, found.own = workers, own
    found.learned = model.variance_head is not None
    return found


def loss_together(objective: Objective, compared: Comparison) -> Tensor:
    """Return the loss of the whole batch, of which a worker may have compared its blocks only.

    Where it is a sum over blocks, every worker computes its own terms, and one number travels.
    Otherwise the blocks are gathered. An objective with one value for each row is averaged over
    the rows.

    Args:
        objective: The objective.
        compared: What :func:`compare_together` has returned.
    """
    if isinstance(compared, OwnBlocks) and isinstance(objective, BlockObjective):
        if objective.is_sum:
            own = objective.loss_of(compared.p, compared.q, compared.own or range(1))
            counts = own[None] if compared.own else 0 * own[None]
            return compared.workers.gather(counts).sum() + compared.penalty
        compared = compared.whole()
    loss: Tensor = objective(compared.p, compared.q).mean() + compared.penalty
    return loss


def _whole(
    part: GaussianMixture, size: int, workers: Team, *, learned: bool = False
) -> GaussianMixture:
    """Return the mixture, or the mixtures, of which every worker has a part.

    Args:
        part: Of one mixture some components, or of a batch of mixtures some of them.
        size: How many of them count; the first ones.
        workers: The team.
        learned: Whether every component has a variance of its own.
    """
    variance = part.component_variance
    if learned:
        variance = variance.expand(*part.means.shape[:-1], variance.shape[-1])
        variance = workers.gather(variance[:size])
    log_weights = None
    if not part.equal_weights:
        own = part.log_weights
        if isinstance(part, MixturePart) and not part.batch_shape:
            own = own + part.log_mass
        log_weights = workers.gather(own[:size])
    means = workers.gather(part.means[:size])
    return GaussianMixture(means, variance, log_weights=log_weights)


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
