"""A callback that looks for failures while a run trains, and reports them in words.

:mod:`hilbound.training.failures` defines the failures and the tests for them.
"""

import logging
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from typing import Any

import lightning as L
import torch
from torch import Tensor

from hilbound.config import ONE_CENTRE, RunConfig
from hilbound.engine.seeding import stream
from hilbound.models.base import DensityModel
from hilbound.training.failures import (
    Finding,
    collapse,
    far_from_data,
    memorisation,
    variance_too_large,
    variance_too_small,
)
from hilbound.training.plan import TrainingPlan
from hilbound.training.runs import Run

log = logging.getLogger(__name__)

# The most rows that are judged, the most rows of a Gram matrix (decomposed at every validation),
# and the most numbers in the training rows that are searched for neighbours. With these limits the
# diagnosis takes about 1 % of the time.
_ROWS, _GRAM_ROWS, _NUMBERS = 512, 256, 2**23
# A model is judged only after this share of the steps, and after at least this many steps.
_EARLIEST, _FEWEST_STEPS = 0.25, 100
# If diversity grows by this factor from one validation to the next, the model is still spreading.
_GROWING = 1.1
# Objectives that compare one mixture with the whole batch, and weight its rows by their overlaps.
_BY_OVERLAP = frozenset({"nuclear", "schatten", "debiased", "schur", "vector", "scalar", "trace"})
# Models that make centres from noise alone.
_FROM_NOISE = frozenset({"mixture-density-network", "vae"})


def _one_centre(config: RunConfig) -> bool:
    """Whether every row has a centre of its own, so that no variance can blur the data."""
    paired = config.model == "latent-mixture" and config.objective in ONE_CENTRE
    return paired or config.model == "autoencoder"


class Diagnosis(L.Callback):
    """Report every failure of a run once, and record it in ``run.json``.

    Which failures are looked for depends on the model and the objective:

    ===========================  ==================================================================
    ``variance-too-large``       all models except those of one centre for every row,
                                 ``autoencoder`` and most ``latent-mixture``; all objectives
                                 except ``distance``
    ``variance-too-small``       of ``mixture-density-network``, by objectives whose gradient is
                                 weighted by overlaps: all but ``distance`` and ``likelihood``
    ``collapse``                 of models that make centres from noise alone,
    ``memorisation``,            ``mixture-density-network`` and ``vae``
    ``far-from-data``
    ===========================  ===========================================================
    Two models are exempt from some tests. An ``encoder-mixture-decoder`` makes its centres from
    training rows, so they may lie near them;
    :class:`hilbound.training.tracking.ConditionalTracker` reports a collapse of these centres. An
    ``autoencoder`` has one centre for every row, so no variance can blur its data.

    The callback draws from a random stream of its own, so the weights are the same without it.

    Args:
        plan: The training.
        run: Where the findings are written, or ``None`` to log them only.
    """

    def __init__(self, plan: TrainingPlan, run: Run | None) -> None:
        self.plan = plan
        self.run = run
        self._told: list[dict[str, Any]] = []
        self._seen = -1
        self._rank: float | None = None
        self._distance: float | None = None
        rows = plan.dataset.train
        order = torch.randperm(len(rows), generator=stream(plan.config.seed, "diagnosis", "rows"))
        self._rows = rows[order[: min(_ROWS, plan.config.batch_size)]]
        most = max(_ROWS, _NUMBERS // rows.shape[-1])
        self._train, self._held_out = rows[order[:most]], plan.dataset.validation[:most]

    def state_dict(self) -> dict[str, Any]:
        """Return what the last look saw, which the next one is compared with."""
        return {"seen": self._seen, "rank": self._rank, "distance": self._distance}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what was seen before an interruption."""
        self._seen, self._rank = state_dict["seen"], state_dict["rank"]
        self._distance = state_dict["distance"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read which findings an interrupted run has reported already."""
        if self.run is not None and trainer.is_global_zero:
            self._told = list(self.run.read_json("run.json").get("findings", []))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look between two stretches of training."""
        if trainer.state.fn == "fit":
            self._look(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look once more at the final weights."""
        self._look(trainer, pl_module)
        self._conclude(trainer, pl_module)

    def _conclude(self, trainer: L.Trainer, module: Any) -> None:
        """Tell of samples that have not come near the data, however short the run was."""
        if trainer.is_global_zero and self.plan.config.model in _FROM_NOISE:
            far = self._far(self._sample(module.model))
            if far is not None:
                self._tell(far, trainer.global_step)

    def _look(self, trainer: L.Trainer, module: Any) -> None:
        step = trainer.global_step
        if not trainer.is_global_zero or step == self._seen:
            return
        self._seen = step
        for finding in self._findings(module.model, step):
            self._tell(finding, step)

    def _tell(self, finding: Finding, step: int) -> None:
        """Say it, unless that was done."""
        if self._is_told(finding.name):
            return
        log.warning("%s", finding.message)
        self._told.append({"step": step, **asdict(finding)})
        if self.run is not None:
            self.run.note(step, asdict(finding))

    def _is_told(self, name: str) -> bool:
        return any(one["name"] == name for one in self._told)

    def _findings(self, model: DensityModel, step: int) -> Iterator[Finding]:
        if self._kernel is not None:
            yield self._kernel
        config = self.plan.config
        late = step >= max(_EARLIEST * config.steps, _FEWEST_STEPS)
        if late and config.model in _FROM_NOISE:
            samples = self._sample(model)
            # Other callbacks handle weights that are not finite.
            if bool(samples.isfinite().all()):
                yield from self._of_the_model(samples)

    def _far(self, samples: Tensor) -> Finding | None:
        # Weights that are no longer finite are the business of others.
        return far_from_data(self._train, samples) if bool(samples.isfinite().all()) else None

    @cached_property
    def _kernel(self) -> Finding | None:
        """The finding about the variance, if any. It is the same at every validation."""
        config, variance = self.plan.config, self.plan.schedule.end
        if _one_centre(config) or config.objective == "distance":
            return None
        found = variance_too_large(self._rows, variance)
        if found is None and config.objective in _BY_OVERLAP:
            found = variance_too_small(self._rows, variance)
        return found

    def _of_the_model(self, samples: Tensor) -> Iterator[Finding]:
        far = self._far(samples)
        before, self._distance = self._distance, None if far is None else far.figures["distance"]
        if far is not None:
            # Many a model starts somewhere else and comes nearer: of that nothing is said yet.
            if before is not None and far.figures["distance"] > before / _GROWING:
                yield far
            # What is far from all data is no copy of them, and its diversity is its least fault.
            return
        # With a variance that is no good a collapse is its consequence, and told with it.
        if self._kernel is None and not self._is_told("collapse"):
            rows, variance = self._rows[:_GRAM_ROWS], self.plan.schedule.end
            found = collapse(rows, samples, variance, self.plan.config.objective)
            before, self._rank = self._rank, None if found is None else found.figures["model_rank"]
            # Many models start from one place and then spread. Only a collapse that lasts counts.
            if found is not None and before and found.figures["model_rank"] < _GROWING * before:
                yield found
        if not self._is_told("memorisation"):
            found = memorisation(self._train, self._held_out, samples)
            if found is not None:
                yield found

    def _sample(self, model: DensityModel) -> Tensor:
        device = next(model.parameters()).device
        generator = stream(self.plan.config.seed, "diagnosis", "samples", device=device)
        with model.evaluating(), torch.no_grad():
            return model.sample(_ROWS, generator).cpu()
