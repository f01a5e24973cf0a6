"""What happens around a training step: the record of the bounds, the bar, the safety net.

This module imports Lightning and is itself imported only when training starts.
"""

import csv
import math
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor

from hilbound.bounds import Bound
from hilbound.runs import BOUND_COLUMNS, Run


class BoundsRecord(L.Callback):
    """Append cost, limit, gap and tightness to ``bounds.csv`` as they come.

    Args:
        path: The file; rows after the step that training starts from are dropped, so that a resumed
            run leaves one curve.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._began = time.perf_counter()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:  # noqa: ARG002
        """Keep the rows up to the step that training goes on from."""
        rows = []
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as lines:
                rows = [r for r in csv.DictReader(lines) if int(r["step"]) <= trainer.global_step]
        with self.path.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, BOUND_COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        before = float(rows[-1]["seconds"]) if rows else 0.0
        self._began = time.perf_counter() - before

    def append(self, step: int, split: str, loss: Tensor, bound: Bound, variance: float) -> None:
        """Write one row."""
        row = (
            step, split, float(loss), float(bound.log_value), float(bound.log_limit),
            float(bound.gap), float(bound.tightness), variance, time.perf_counter() - self._began,
        )  # fmt: skip
        with self.path.open("a", newline="", encoding="utf-8") as lines:
            csv.writer(lines).writerow(row)


class SafetyNet(L.Callback):
    """Leave a usable run folder whatever ends the training.

    The checkpoint for ``--resume`` and the weights are written at every validation, at the end, and
    when an interruption or an error comes.

    Args:
        run: The run folder.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def _save(self, trainer: L.Trainer, module: Any, status: str) -> None:  # noqa: ANN401
        if not trainer.is_global_zero:
            return
        beside = self.run.checkpoint.with_suffix(".partial")
        trainer.save_checkpoint(beside)
        beside.replace(self.run.checkpoint)
        self.run.save_model(module.model)
        self.run.update(status=status, step=trainer.global_step)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save between two stretches of training."""
        if trainer.state.fn == "fit":
            self._save(trainer, pl_module, "running")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save what was reached."""
        self._save(trainer, pl_module, "finished")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Save what an interruption has left; a failed step is not saved over a good one."""
        if isinstance(exception, KeyboardInterrupt):
            self._save(trainer, pl_module, "interrupted")
        else:
            self.run.update(status="failed")


class NonFiniteLoss(L.Callback):
    """Stop with a reason when the loss is no longer a number."""

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,  # noqa: ARG002 - Lightning's signature
        outputs: Any,  # noqa: ANN401 - Lightning's own
        batch: Any,  # noqa: ANN401, ARG002 - Lightning's own
        batch_idx: int,  # noqa: ARG002
    ) -> None:
        """Look at the loss of this step."""
        loss = float(outputs["loss"].detach())
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss} at step {trainer.global_step}: lower --learning-rate, or "
                "raise --variance; the last good weights are in the run folder"
            )


class Bar(RichProgressBar):
    """Lightning's bar with the cost and the tightness, in steps: a run knows no epochs."""

    def _get_train_description(self, current_epoch: int) -> str:  # noqa: ARG002
        return "training"

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return what stands at the end of the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}
