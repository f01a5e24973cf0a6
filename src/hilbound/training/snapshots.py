"""Samples at some steps of a training in the plane, of which the report makes an animation.

Every snapshot is drawn from the same noise, so that points move and do not jump. The snapshots are
part of the checkpoint: a run that is interrupted and resumed ends with the same ones. They are few
and small: at most 16, of :data:`POINTS` points each.

This module imports Lightning, so it is imported only when training starts.
"""

from collections.abc import Iterable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from hilbound.engine.seeding import stream
from hilbound.training.curves import MOST_SNAPSHOTS, SNAPSHOTS, unpack_snapshots
from hilbound.training.files import write_whole
from hilbound.training.packing import to_bytes
from hilbound.training.plan import TrainingPlan
from hilbound.training.runs import Run

#: Samples in each snapshot.
POINTS = 400


def snapshot_steps(steps: int) -> list[int]:
    """Return the steps at which samples are kept: closer together where the training begins.

    >>> snapshot_steps(3), snapshot_steps(2000)[:4], len(snapshot_steps(2000))
    ([0, 1, 2, 3], [0, 9, 36, 80], 16)
    """
    last = MOST_SNAPSHOTS - 1
    return sorted({round(steps * (i / last) ** 2) for i in range(MOST_SNAPSHOTS)})


class Snapshots(L.Callback):
    """Keep samples while a model of points in the plane is trained.

    Args:
        plan: The training.
        run: The run folder.
    """

    def __init__(self, plan: TrainingPlan, run: Run) -> None:
        self.plan = plan
        self.run = run
        self.frames: dict[int, Tensor] = {}
        self._wanted = set(snapshot_steps(plan.config.steps))

    def state_dict(self) -> dict[str, Any]:
        """Return the snapshots for a checkpoint."""
        return _packed(self.frames)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the snapshots of a checkpoint. Those that a longer training has no room for go."""
        known = unpack_snapshots(state_dict)
        reached = [step for step in self._wanted if known and step <= max(known)]
        near = {_nearest(known, step) for step in reached}
        self.frames = {step: known[step] for step in sorted(near)}

    def _take(self, trainer: L.Trainer, module: Any) -> None:
        step = trainer.global_step
        if step in self.frames:
            return
        # What sampling needs, of a model with an encoder.
        module.remember()
        if not trainer.is_global_zero:
            return
        with module.model.evaluating():
            noise = stream(self.plan.config.seed, "snapshots", device=module.device)
            points = module.model.sample(POINTS, noise).float().cpu()
        if points.isfinite().all():
            self.frames[step] = points

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep what the untrained model draws."""
        if trainer.global_step in self._wanted:
            self._take(trainer, pl_module)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Keep samples, if it is a step for them."""
        if trainer.global_step in self._wanted:
            self._take(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write the snapshots into the run folder, for the report."""
        if trainer.is_global_zero and self.frames:
            write_whole(self.run.path / SNAPSHOTS, to_bytes(_packed(self.frames)))


def _nearest(steps: Iterable[int], step: int) -> int:
    return min(steps, key=lambda one: abs(one - step))


def _packed(frames: dict[int, Tensor]) -> dict[str, Tensor]:
    return {
        "steps": torch.tensor(list(frames), dtype=torch.int64),
        "points": torch.stack([*frames.values()]) if frames else torch.zeros(0, POINTS, 2),
    }
