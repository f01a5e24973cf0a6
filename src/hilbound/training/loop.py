"""Training: from a configuration to a run folder.

:func:`fit` checks everything first (the data, the names, the folder), and only then writes.
Lightning does the loop. It takes seconds to import, so it is imported when training starts and
never before. For further devices it starts this very program again, once for each; such a helper
finds the run folder already there, takes part in the training, and ends with it.
"""

import os
import pickle
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hilbound.config import RunConfig
from hilbound.errors import InputError
from hilbound.training.batches import Batches, BatchStream
from hilbound.training.plan import TrainingPlan
from hilbound.training.quiet import quiet_lightning
from hilbound.training.runs import Run

if TYPE_CHECKING:
    from lightning import Callback, Trainer
    from lightning.pytorch.loggers import Logger

    from hilbound.training.callbacks import BoundsRecord


def is_helper() -> bool:
    """Whether Lightning has started this process for a further device."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds; nothing executable is unpickled."""
    try:
        with warnings.catch_warnings():
            # A plain pickle is of another protocol, and refused below.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(
            f"{str(path)!r} is missing: the run stopped before the first checkpoint; fit again "
            "with --overwrite"
        ) from None
    # What torch's reader of archives and pickles raises, by where the damage is.
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        pickle.UnpicklingError,
    ):
        raise _damaged(path) from None
    if not isinstance(content, dict) or not {"global_step", "state_dict"} <= set(content):
        raise _damaged(path)
    return content


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{str(path)!r} is no checkpoint of this run: it was damaged or replaced; fit again with "
        "--overwrite"
    )


class Loop:
    """Lightning's loop around a plan; an unusable device is refused before anything is written."""

    def __init__(self, run: Run, prepared: TrainingPlan, *, quiet: bool) -> None:
        # Lightning takes three seconds to import.
        from hilbound.training.module import DensityModule

        self.run = run
        self.plan = prepared
        self.asked = threading.Event()
        with quiet_lightning():
            self.trainer, bounds = _trainer(run, prepared, self.asked, quiet=quiet)
            self.module = DensityModule(prepared, bounds)

    def check(self, checkpoint: dict[str, Any]) -> None:
        """Raise an InputError if a checkpoint is that of another model."""
        found, own = checkpoint["state_dict"], self.module.state_dict()
        if {k: v.shape for k, v in found.items()} != {k: v.shape for k, v in own.items()}:
            raise _damaged(self.run.checkpoint)

    def train(self, first: int | None = None) -> None:
        """Run the loop, from step ``first`` of the run's checkpoint if it is given."""
        with quiet_lightning(), _interruptible(self.asked):
            try:
                self.trainer.fit(
                    self.module,
                    train_dataloaders=self._batches(first or 0),
                    val_dataloaders=self._validation(),
                    ckpt_path=None if first is None else self.run.checkpoint,
                    weights_only=True,
                )
            except SystemExit:
                # Lightning turns Ctrl-C into an exit of the whole process, which is ours to decide.
                raise KeyboardInterrupt from None
        if not self.trainer.is_global_zero:
            raise SystemExit(0)
        if self.plan.config.patience is not None:
            self._keep_best()
        if self.asked.is_set():
            raise KeyboardInterrupt

    def _batches(self, first: int) -> BatchStream:
        config = self.plan.config
        return BatchStream(
            self.plan.dataset.train,
            config.batch_size,
            config.steps,
            config.seed,
            first,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )

    def _validation(self) -> Batches:
        rows = self.plan.dataset.validation
        size = min(self.plan.config.batch_size, len(rows))
        # Batches of unequal size would compare costs of unequal bias, so the remainder is left out.
        # A list would be taken for several loaders.
        return Batches(rows[: len(rows) // size * size].split(size))

    def _keep_best(self) -> None:
        """After early stopping, the weights of the best validation are the run's."""
        best = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        if best:
            checkpoint = read_checkpoint(Path(best))
            self.check(checkpoint)
            self.module.load_state_dict(checkpoint["state_dict"])
            self.run.save_model(self.module.model)
            self.run.update(kept_step=int(checkpoint["global_step"]))


def _trainer(
    run: Run, prepared: TrainingPlan, asked: threading.Event, *, quiet: bool
) -> "tuple[Trainer, BoundsRecord]":
    from lightning.pytorch.loggers import TensorBoardLogger

    from hilbound.training import callbacks, diagnosis, tracking

    config = prepared.config
    tracked = prepared.objective.tracked
    bounds = callbacks.BoundsRecord(run.path / "bounds.csv", tracked=tracked)
    safety = callbacks.SafetyNet(run, asked)
    own: list[Callback] = [bounds, callbacks.NonFiniteLoss(), safety]
    own.append(diagnosis.Diagnosis(prepared, run))
    if tracked:
        own.append(tracking.ConditionalTracker(prepared, bounds))
    if config.patience is not None:
        own += callbacks.early_stopping(run.path / "checkpoints", config.patience)
    if not quiet:
        own.append(callbacks.Bar(leave=True))
    logger = (
        TensorBoardLogger(run.path, name="", version="tensorboard") if config.tensorboard else False
    )
    return _lightning_trainer(config, own, logger, quiet=quiet), bounds


def _lightning_trainer(
    config: RunConfig, callbacks: "list[Callback]", logger: "Logger | bool", *, quiet: bool
) -> "Trainer":
    """Build Lightning's trainer, and refuse what the machine hasn't got."""
    import lightning as L
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    wish = f"accelerator {config.accelerator!r}, devices {config.devices!r}, precision "
    wish += repr(config.precision)
    try:
        trainer = L.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            precision=config.precision,
            max_steps=config.steps,
            max_epochs=-1,
            val_check_interval=min(config.validate_every, config.steps),
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=10,
            enable_progress_bar=not quiet,
            enable_model_summary=False,
            enable_checkpointing=config.patience is not None,
            use_distributed_sampler=False,
            callbacks=callbacks,
            logger=logger,
        )
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{wish} cannot be used here: {error}") from None
    if trainer.precision != config.precision:
        raise InputError(f"{wish} cannot be used here: on a CPU, use 'bf16-mixed' or '32-true'")
    return trainer


@contextmanager
def _interruptible(asked: threading.Event) -> Iterator[None]:
    """Let Ctrl-C ask for a stop between two steps; a second one stops at once.

    Afterwards the handler is as it was: Lightning would leave it switched off.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before == signal.SIG_IGN:
        yield
        return

    def ask(*_: object) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
