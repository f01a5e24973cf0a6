"""Callbacks of the training: the record of the bounds, the progress bar, and saving.

This module imports Lightning, so it is imported only when training starts.
"""

import contextlib
import csv
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import (
    Checkpoint,
    EarlyStopping,
    ModelCheckpoint,
    RichProgressBar,
)
from lightning.pytorch.plugins import CheckpointIO
from rich.console import Console
from torch import Tensor

from hilbound.bounds import Bound
from hilbound.errors import InputError
from hilbound.training.checkpoints import read_checkpoint, write_checkpoint
from hilbound.training.curves import BOUND_COLUMNS, format_bounds, read_bounds
from hilbound.training.durations import Forecast, in_words
from hilbound.training.files import write_whole
from hilbound.training.interrupts import listen
from hilbound.training.runs import Run


class CheckpointFiles(CheckpointIO):
    """Lightning's checkpoints as files without code, written whole."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint."""
        write_checkpoint(checkpoint, Path(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint."""
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint, if it is there."""
        Path(path).unlink(missing_ok=True)


def _is_kept(row: dict[str, Any], step: int, *, tracked: bool) -> bool:
    # A row of training or tracking is measured before its step, so a resumed run writes it again.
    # A row of a validation is measured after its step, so it is kept.
    after = row["split"] == "validation" and not tracked
    return bool(row["step"] < step or (row["step"] == step and after))


def spoilt_weights(step: int) -> FloatingPointError:
    """Return the error for a model whose weights, or centres, have become NaN or infinite.

    The user cannot repair such weights. A smaller learning rate may prevent them.
    """
    return FloatingPointError(
        f"the weights are no longer finite, or their centres overflow, at step {step}: lower "
        "--learning-rate, or raise --variance; run.json says which step was saved last"
    )


class BoundsRecord(L.Callback):
    """Keep cost, limit, gap and tightness in memory, and append them to ``bounds.csv``.

    Args:
        path: The file, or ``None`` to keep the rows in memory only. Rows after the step from which
            training starts are dropped, so a resumed run has a single curve.
        tracked: Whether the rows of both splits are measured before their step.

    Attributes:
        rows: The measured rows, each a mapping with the keys :data:`BOUND_COLUMNS`.
    """

    def __init__(self, path: Path | None, *, tracked: bool = False) -> None:
        self.path = path
        self.tracked = tracked
        self.rows: list[dict[str, Any]] = []
        self.started = False
        self._began = time.perf_counter()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep the rows before the step from which training continues."""
        self.started = True
        if not trainer.is_global_zero:
            return
        step, known = trainer.global_step, read_bounds(self.path) if self.path else []
        kept = [row for row in known if _is_kept(row, step, tracked=self.tracked)]
        self.rows = [{**row, "step": int(row["step"])} for row in kept]
        if self.path is not None:
            write_whole(self.path, format_bounds(self.rows))
        before = float(self.rows[-1]["seconds"]) if self.rows else 0.0
        self._began = time.perf_counter() - before

    def append(
        self,
        step: int,
        split: str,
        loss: Tensor,
        bound: Bound,
        variance: float,
        *,
        real: Bound | None = None,
    ) -> None:
        """Add one row. ``real`` is the bound of real rows in the place of the model's centres."""
        row = (
            step,
            split,
            float(loss),
            float(bound.log_value),
            float(bound.log_limit),
            float(bound.gap),
            float(bound.tightness),
            variance,
            time.perf_counter() - self._began,
            None if real is None else float(real.tightness),
        )
        self.rows.append(dict(zip(BOUND_COLUMNS, row, strict=True)))
        if self.path is not None:
            with self.path.open("a", newline="", encoding="utf-8") as lines:
                csv.writer(lines).writerow(row)

    def sync(self) -> None:
        """Bring the rows onto the disk. A checkpoint needs all rows before it."""
        if self.path is not None:
            with self.path.open("rb") as lines:
                os.fsync(lines.fileno())


class Interruption(L.Callback):
    """Obey Ctrl-C between two steps, never within one.

    After half an update, a resumed run would differ from an uninterrupted one.

    Args:
        asked: Set when the user has asked to stop.
    """

    def __init__(self, asked: threading.Event | None = None) -> None:
        self.asked = asked or threading.Event()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen to SIGTERM, in place of Lightning, whose handler would talk to other workers."""
        if threading.current_thread() is threading.main_thread():
            listen(self.asked)

    def on_train_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop if the user has asked for it."""
        asked = self.asked.is_set()
        if trainer.world_size > 1:
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            raise KeyboardInterrupt


class SafetyNet(Interruption, Checkpoint):
    """Leave a usable run folder, however the training ends.

    The checkpoint for ``--resume`` and the weights are written at every validation, at the end, and
    at an interruption. Lightning calls checkpoints after all other callbacks, so the file holds
    what they have seen at this very validation.

    Args:
        run: The run folder.
        bounds: The record, whose rows are brought onto the disk first.
        asked: Set when the user has asked to stop.
    """

    def __init__(
        self, run: Run, bounds: BoundsRecord, asked: threading.Event | None = None
    ) -> None:
        super().__init__(asked)
        self.run = run
        self.bounds = bounds

    def _save(self, trainer: L.Trainer, module: Any, status: str) -> None:
        module.remember()
        if trainer.is_global_zero:
            self.bounds.sync()
        # All devices must call this; only the first one writes.
        trainer.save_checkpoint(self.run.checkpoint)
        if not trainer.is_global_zero:
            return
        self.run.save_model(module.model)
        self.run.update(status=status, step=trainer.global_step)

    def on_save_checkpoint(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Forget an unfinished step. Lightning would count it twice and validate too early."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            counts.update(dict.fromkeys(("ready", "started", "processed"), counts["completed"]))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save between two stretches of training."""
        if trainer.state.fn == "fit":
            self._save(trainer, pl_module, "running")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the final state. What is left to do after the last step is not done yet."""
        self._save(trainer, pl_module, "running")

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Save the state at an interruption. After a failed step the last good state is kept."""
        # Lightning turns SIGTERM into an exit between two steps, too.
        if not isinstance(exception, KeyboardInterrupt | SystemExit):
            status = "failed"
        # A device that is interrupted within a step must not wait for the others to save.
        elif trainer.world_size == 1 or self.asked.is_set():
            self._save(trainer, pl_module, "interrupted")
            return
        else:
            status = "interrupted"
        if trainer.is_global_zero:
            # On a full disk, or in a folder that is gone, the first error says what happened.
            with contextlib.suppress(OSError, InputError):
                self.run.update(status=status)


class BestCheckpoint(ModelCheckpoint):
    """Keep the checkpoint of the best validation, and find it again if the folder was moved.

    Args:
        folder: Where the checkpoint goes.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "best", monitor="validation_loss")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of an interrupted run, with the present path of the run folder."""
        here = str(self.dirpath)
        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {name: _within(here, state_dict[name]) for name in paths}
        scores = {_within(here, path): s for path, s in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | moved | {"dirpath": here, "best_k_models": scores})


class Patience(EarlyStopping):
    """Stop after some validations without improvement, however often the run was interrupted."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop at once if the patience was at its end when the run was interrupted."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


def early_stopping(folder: Path, patience: int) -> list[L.Callback]:
    """Stop after ``patience`` validations without improvement. ``folder`` keeps the best one."""
    return [Patience("validation_loss", patience=patience), BestCheckpoint(folder)]


def _within(folder: str, path: str) -> str:
    return str(Path(folder) / Path(path).name) if path else path


class NonFiniteLoss(L.Callback):
    """Stop with a reason when the loss is no longer a number."""

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Look at the loss of this step."""
        loss = float(outputs["loss"].detach())
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss} at step {trainer.global_step}: lower --learning-rate, or "
                "raise --variance; the last good weights are in the run folder"
            )


def _shown(name: str) -> str:
    # What is minimised is the loss; the cost is what is maximised, and has a limit.
    return "loss" if name == "cost" else name


class Bar(RichProgressBar):
    """Lightning's bar with the loss and the tightness, in steps: a run knows no epochs."""

    def _get_train_description(self, current_epoch: int) -> str:
        return "training"

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the numbers that are shown at the end of the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        return {_shown(name): value for name, value in metrics.items() if name != "v_num"}


class Lines(L.Callback):
    """Plain lines in place of a bar, for a file or a pipe: one every few seconds.

    Args:
        every: Seconds between two lines.

    Attributes:
        forecast: Foresees the time that is left.
    """

    def __init__(self, every: float = 5.0) -> None:
        self.every = every
        self.forecast = Forecast(0)
        self._said = time.monotonic()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the clock."""
        self.forecast = Forecast(trainer.max_steps)
        self.forecast.rest(trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Say how far the training is, if it is time."""
        rest = self.forecast.rest(trainer.global_step)
        if time.monotonic() - self._said < self.every or not trainer.is_global_zero:
            return
        self._said = time.monotonic()
        shown = {
            _shown(name): float(value)
            for name, value in trainer.progress_bar_metrics.items()
            if isinstance(value, int | float)
        }
        figures = "".join(f", {name} {value:.4g}" for name, value in shown.items())
        line = f"step {trainer.global_step:,} of {trainer.max_steps:,}{figures}"
        # The last second needs no estimate.
        if rest is not None and rest >= 1:
            line += f", {self._most(trainer)}{in_words(rest)} to go"
        Console(stderr=True).print(line, highlight=False, soft_wrap=True)

    @staticmethod
    def _most(trainer: L.Trainer) -> str:
        patient = any(isinstance(one, EarlyStopping) for one in trainer.callbacks)  # type: ignore[attr-defined]  # Lightning's
        return "at most " if patient else "about "


def progress() -> L.Callback:
    """Return a bar where somebody looks on, and plain lines where a file is written."""
    console = Console(stderr=True)
    if console.is_terminal or console.is_jupyter:
        return Bar(leave=True, console_kwargs={"stderr": not console.is_jupyter})
    return Lines()
