"""The loop: a plan in, trained weights out, in memory or in a run folder.

Lightning runs the loop. Its import takes seconds, so it is imported only when training starts.
For every further device Lightning starts this program again. Such a helper process finds the run
folder already there, takes part in the training, and exits when the training ends.
"""

import os
import pickle
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hilbound.config import RunConfig
from hilbound.errors import InputError
from hilbound.models.base import DensityModel
from hilbound.training.batches import Batches, BatchStream
from hilbound.training.plan import TrainingPlan
from hilbound.training.quiet import quiet_lightning
from hilbound.training.runs import Run

if TYPE_CHECKING:
    from lightning import Callback, Trainer
    from lightning.pytorch.loggers import Logger


def is_helper() -> bool:
    """Whether Lightning has started this process for a further device."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint. Nothing executable is unpickled."""
    try:
        with warnings.catch_warnings():
            # torch warns about a plain pickle here; it is refused below.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(
            f"{str(path)!r} is missing: the run stopped before the first checkpoint; fit again "
            "with --overwrite"
        ) from None
    # torch raises any of these on a damaged file. Which one depends on where the damage is.
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
    kinds = {"global_step": int, "state_dict": dict, "optimizer_states": list, "loops": dict}
    if not isinstance(content, dict) or not all(
        isinstance(content.get(name), kind) for name, kind in kinds.items()
    ):
        raise _damaged(path)
    if content["global_step"] < 0 or not content["optimizer_states"]:
        raise _damaged(path)
    return content


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{str(path)!r} is no checkpoint of this run: it was damaged or replaced; fit again with "
        "--overwrite"
    )


@dataclass(frozen=True)
class Trained:
    """The result of a training in memory.

    Args:
        model: The trained model, in evaluation mode.
        plan: The plan it was trained with.
        bounds: Cost, limit, gap and tightness while it trained, as in ``bounds.csv``.
    """

    model: DensityModel
    plan: TrainingPlan
    bounds: list[dict[str, Any]]


def train(plan: TrainingPlan, *, diagnose: bool = False, quiet: bool = True) -> Trained:
    """Train in memory and write no files.

    Args:
        plan: What to train. :func:`hilbound.training.plan.plan_training` makes the plan; it also
            takes data in memory.
        diagnose: Whether to look for signs of failure. They are logged as warnings.
        quiet: Whether to leave out the progress bar.

    Returns:
        The model and its bounds. The weights are those that :func:`hilbound.fit` would write.

    Raises:
        FloatingPointError: If the weights or the loss stop being finite.
        KeyboardInterrupt: If the user interrupts the training.

    >>> from hilbound.config import RunConfig
    >>> from hilbound.training.plan import plan_training
    >>> config = RunConfig(data="moons", steps=2, batch_size=16, width=8)
    >>> trained = train(plan_training(config))
    >>> trained.model.sample(3).shape, trained.bounds[0]["step"]
    (torch.Size([3, 2]), 0)
    """
    # Early stopping needs a file for its best weights.
    with tempfile.TemporaryDirectory() as scratch:
        loop = Loop(None, plan, scratch=Path(scratch), diagnose=diagnose, quiet=quiet)
        loop.train()
    return Trained(plan.model.cpu().eval(), plan, loop.bounds.rows)


class Loop:
    """Lightning's loop around a plan. An unusable device is refused before anything is written.

    Args:
        run: The run folder, or ``None`` to train in memory.
        plan: What to train.
        scratch: A folder for checkpoints where there is no run folder.
        diagnose: Whether to look for signs of failure.
        quiet: Whether to leave out the progress bar.
    """

    def __init__(
        self,
        run: Run | None,
        plan: TrainingPlan,
        *,
        scratch: Path = Path(),
        diagnose: bool = True,
        quiet: bool,
    ) -> None:
        # Imported here because Lightning takes three seconds to import.
        from hilbound.training.callbacks import BoundsRecord
        from hilbound.training.module import DensityModule

        self.run = run
        self.plan = plan
        self.asked = threading.Event()
        self._quiet = quiet
        self.bounds = BoundsRecord(
            None if run is None else run.path / "bounds.csv", tracked=plan.objective.tracked
        )
        self._checkpoints = scratch if run is None else run.path / "checkpoints"
        with quiet_lightning():
            callbacks = self._callbacks(diagnose=diagnose, quiet=quiet)
            self.trainer = _lightning_trainer(plan.config, callbacks, self._logger())
            self.module = DensityModule(plan, self.bounds)

    def _callbacks(self, *, diagnose: bool, quiet: bool) -> "list[Callback]":
        from hilbound.training import callbacks, diagnosis, tracking

        own: list[Callback] = [self.bounds, callbacks.NonFiniteLoss()]
        own.append(
            callbacks.Interruption(self.asked)
            if self.run is None
            else callbacks.SafetyNet(self.run, self.asked)
        )
        if diagnose:
            own.append(diagnosis.Diagnosis(self.plan, self.run))
        if self.plan.objective.tracked:
            own.append(tracking.ConditionalTracker(self.plan, self.bounds, self.run))
        if self.plan.config.patience is not None:
            own += callbacks.early_stopping(self._checkpoints, self.plan.config.patience)
        if not quiet:
            own.append(callbacks.progress())
        return own

    def _logger(self) -> "Logger | bool":
        if self.run is None or not self.plan.config.tensorboard:
            return False
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(self.run.path, name="", version="tensorboard")

    def check(self, checkpoint: dict[str, Any], path: Path) -> None:
        """Raise an InputError if a checkpoint belongs to another model. Its state is loaded."""
        # A model may make room for what it finds, so only loading shows whether all fits.
        try:
            self.module.load_state_dict(checkpoint["state_dict"])
        except RuntimeError:
            raise _damaged(path) from None

    def train(self, checkpoint: Path | None = None, first: int = 0) -> None:
        """Run the loop, from step ``first`` of a checkpoint if it is given."""
        with quiet_lightning(), _interruptible(self.asked):
            try:
                self.trainer.fit(
                    self.module,
                    train_dataloaders=self._batches(first),
                    val_dataloaders=self._validation(),
                    ckpt_path=checkpoint,
                    weights_only=True,
                )
            except SystemExit:
                # Lightning exits the whole process on Ctrl-C. That decision is hilbound's.
                raise KeyboardInterrupt from None
        if not self.trainer.is_global_zero:
            raise SystemExit(0)
        best = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        self.keep_best(Path(best) if best else None)
        if self.run is None:
            self.module.remember()
        self.conclude()
        if self.asked.is_set():
            raise KeyboardInterrupt

    def conclude(self) -> None:
        """Do what is left once the weights are trained: the second stage of some models."""
        if self.module.model.stages == 1:
            return
        try:
            with nullcontext() if self._quiet else second_stage():
                self.module.conclude()
        except KeyboardInterrupt:
            if self.run is not None:
                self.run.update(status="interrupted")
            raise
        if self.run is not None:
            self.run.save_model(self.module.model)
            self.run.update(status="finished")

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
        # The bias of the cost depends on the batch size, so the smaller last batch is left out.
        # Lightning would take a plain list for several loaders.
        return Batches(rows[: len(rows) // size * size].split(size))

    def keep_best(self, file: Path | None) -> None:
        """After early stopping, keep the weights of the best validation, if there is one."""
        if self.plan.config.patience is None or file is None or not file.is_file():
            return
        checkpoint = read_checkpoint(file)
        self.check(checkpoint, file)
        if self.run is not None:
            self.run.save_model(self.module.model)
            self.run.update(kept_step=int(checkpoint["global_step"]))


def _lightning_trainer(
    config: RunConfig, callbacks: "list[Callback]", logger: "Logger | bool"
) -> "Trainer":
    """Build Lightning's trainer. Refuse devices and precisions that this machine lacks."""
    import lightning as L
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.callbacks import ProgressBar

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
            # Ours, if any, is among the callbacks.
            enable_progress_bar=any(isinstance(one, ProgressBar) for one in callbacks),
            enable_model_summary=False,
            enable_checkpointing=config.patience is not None,
            use_distributed_sampler=False,
            callbacks=callbacks,
            logger=logger,
        )
    # What is missing for a device is a package, to Lightning.
    except (MisconfigurationException, ValueError, TypeError, RuntimeError, ImportError) as error:
        raise InputError(f"{wish} cannot be used here: {error}") from None
    if trainer.precision != config.precision:
        raise InputError(f"{wish} cannot be used here: on a CPU, use 'bf16-mixed' or '32-true'")
    return trainer


@contextmanager
def second_stage() -> Iterator[None]:
    """Say on stderr that the second stage of a model is at work, inside a ``with`` block."""
    from rich.console import Console

    console, what = Console(stderr=True), "fitting the density of the features"
    if not console.is_terminal:
        console.print(what, highlight=False, soft_wrap=True)
        yield
        return
    with console.status(what):
        yield


@contextmanager
def _interruptible(asked: threading.Event) -> Iterator[None]:
    """Let Ctrl-C ask for a stop between two steps; a second one stops at once.

    Afterwards the former handler is restored. Lightning alone would leave it switched off.
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
