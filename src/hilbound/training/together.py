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
from hilbound.models.autoencoders import FeatureModel
from hilbound.models.base import Comparison, DensityModel, MixturePart


def compare_together(
    model: DensityModel,
    x: Tensor,
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
        x: This worker's rows of the batch with shape ``(n, d)``; any one row if it has none.
        variance: Variance of a component of the data's mixture.
        centers: Number of centres: for each row if every row has its own, otherwise in all.
        generator: Draws the noise of the whole batch.
        workers: The team.
        rows: How many rows the whole batch has.
    """
    of_rows = isinstance(model, FeatureModel)
    own_rows, own_centers = workers.share(rows), workers.share(centers)
    # A worker without rows, or without centres, computes one that does not count.
    made = own_rows if of_rows else own_centers
    source = Part(generator, made or range(1), rows if of_rows else centers)
    count = centers if of_rows else max(1, len(own_centers))
    with working_in(workers, filled=not made):
        compared = model.compare(x, variance, count, source)
    p = _whole(compared.p, len(own_rows), workers)
    own = compared.q
    q = _whole(own, len(made), workers, learned=model.head.variance_head is not None)
    share = compared.penalty * len(own_rows) / rows
    penalty = workers.gather(share[None]).sum()
    if not made:
        # Without any share in the loss its weights would have no gradient, and others would wait.
        penalty = penalty + 0 * (own.means.sum() + own.component_variance.sum())
        if isinstance(own, MixturePart):
            penalty = penalty + 0 * own.log_mass.sum()
    return Comparison(p, q, penalty)


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
