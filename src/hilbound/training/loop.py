"""The loop: a plan in, trained weights out, in memory or in a run folder.

Lightning runs the loop. Its import takes seconds, so it is imported only when training starts.
For every further device Lightning starts this program again; ``torchrun`` starts all of them. A
helper process leaves the run folder to the first one, takes part in the training, and exits when
the training ends. All share every batch (:mod:`hilbound.training.together`).
"""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hilbound.config import RunConfig
from hilbound.errors import InputError
from hilbound.models.base import DensityModel
from hilbound.models.blocks import BlockDensityNetwork
from hilbound.training.batches import (
    Batches,
    BatchStream,
    BlockStream,
    LabelledStream,
    SliceStream,
)
from hilbound.training.checkpoints import damaged_checkpoint, read_checkpoint
from hilbound.training.interrupts import interruptible
from hilbound.training.plan import TrainingPlan
from hilbound.training.quiet import quiet_lightning
from hilbound.training.runs import Run
from hilbound.training.together import launched_devices, require_a_program

if TYPE_CHECKING:
    from lightning import Callback, Trainer
    from lightning.pytorch.loggers import Logger
    from lightning.pytorch.strategies import Strategy

# How long workers wait for one that does not answer. A dead one is noticed at once.
_PATIENCE = timedelta(minutes=10)
# What the libraries say of a worker that is gone.
_LOST = ("gloo", "nccl", "connection", "timed out", "timeout")
# So many workers may be tried on any machine.
_FEW_WORKERS = 4


def batches_of(plan: TrainingPlan, split: str, *, steps: int, **options: int) -> BatchStream:
    """Return batches of the rows of a split as the model takes them.

    Args:
        plan: The training.
        split: ``"train"`` or ``"validation"``.
        steps: Number of batches.
        **options: Further arguments of :class:`~hilbound.training.batches.BatchStream`.
    """
    config, model = plan.config, plan.model
    rows, labels = plan.dataset.split(split)
    size = config.batch_size if split == "train" else min(config.batch_size, len(rows))
    options |= {"batch_size": size, "steps": steps}
    options |= {"seed": config.seed}
    if isinstance(model, BlockDensityNetwork):
        options["batch_size"] = plan.rows_per_block
        blocks = model.blocks_of(rows.to(model.share.device), labels).cpu()
        return BlockStream(rows, blocks, **options)
    if config.slices is not None:
        sharing = plan.sharing_rows(split)
        options["batch_size"] = config.slices * min(config.rows_per_slice, sharing.most)
        return SliceStream(sharing, slices=config.slices, **options)
    if config.condition is not None and labels is not None:
        return LabelledStream(rows, labels, **options)
    return BatchStream(rows, **options)


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
        from hilbound.training import callbacks, diagnosis, snapshots, tracking

        own: list[Callback] = [self.bounds, callbacks.NonFiniteLoss()]
        if self.run is None:
            own.append(callbacks.Interruption(self.asked))
        if diagnose:
            own.append(diagnosis.Diagnosis(self.plan, self.run))
        if self.plan.objective.tracked:
            own.append(tracking.ConditionalTracker(self.plan, self.bounds, self.run))
        if self.plan.config.patience is not None:
            own += callbacks.early_stopping(self._checkpoints, self.plan.config.patience)
        if self.run is not None and self.plan.dataset.dim == 2:
            own.append(snapshots.Snapshots(self.plan, self.run))
        if self.run is not None:
            # The last: what it saves is what all others have seen.
            own.append(callbacks.SafetyNet(self.run, self.bounds, self.asked))
        if not quiet:
            own.append(callbacks.progress())
        return own

    def _logger(self) -> "Logger | bool":
        if self.run is None or not self.plan.config.tensorboard:
            return False
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(self.run.path, name="", version="tensorboard")

    def take(self, checkpoint: dict[str, Any], path: Path) -> None:
        """Load the state of a checkpoint. The clusters in it decide which rows a batch has.

        Raises:
            InputError: If it belongs to another model.
        """
        # A model may make room for what it finds, so only loading shows whether all fits.
        try:
            self.module.load_state_dict(checkpoint["state_dict"])
        except RuntimeError:
            raise damaged_checkpoint(path) from None
        learned = {p.shape for p in self.module.parameters()} | {torch.Size()}
        if not _tensor_shapes(checkpoint["optimizer_states"]) <= learned:
            raise damaged_checkpoint(path)

    def train(self, checkpoint: Path | None = None, first: int = 0) -> None:
        """Run the loop, from step ``first`` of a checkpoint if it is given."""
        with quiet_lightning(), interruptible(self.asked):
            try:
                self.trainer.fit(
                    self.module,
                    train_dataloaders=self._batches(first),
                    val_dataloaders=self._validation(),
                    ckpt_path=checkpoint,
                    weights_only=True,
                )
            except Exception as error:
                told = self._explained(error, checkpoint)
                if told is error:
                    raise
                raise told from error
            except SystemExit:
                # Lightning exits the whole process on Ctrl-C. That decision is hilbound's.
                raise KeyboardInterrupt from None
        if not self.trainer.is_global_zero:
            raise SystemExit(0)
        best = getattr(self.trainer.checkpoint_callback, "best_model_path", "")
        if self.run is None:
            self.module.remember()
        self.finish(Path(best) if best else None)
        if self.asked.is_set():
            raise KeyboardInterrupt

    def finish(self, best: Path | None) -> None:
        """Do what is left after the last step, and then say that the run is finished.

        The best weights are kept, if there was patience, and some models have a second stage. A run
        that is killed meanwhile does it when it is resumed.

        Args:
            best: The checkpoint of the best validation, if there is one.
        """
        self.keep_best(best)
        try:
            if self.module.model.stages > 1:
                with nullcontext() if self._quiet else second_stage():
                    self.module.conclude()
        except KeyboardInterrupt:
            if self.run is not None:
                self.run.update(status="interrupted")
            raise
        if self.run is not None:
            if self.module.model.stages > 1:
                self.run.save_model(self.module.model)
            self.run.update(status="finished")

    def _explained(self, error: Exception, checkpoint: Path | None) -> Exception:
        """Return the error that says what happened, which may be the same one."""
        if isinstance(error, InputError | OSError):
            return error
        if checkpoint is not None and not self.bounds.started:
            # What cannot be restored was not written by this training.
            return damaged_checkpoint(checkpoint)
        if self.trainer.world_size > 1 and any(word in str(error).lower() for word in _LOST):
            return ConnectionError(
                f"the workers have lost each other: one has died or hangs ({error}). The last "
                "good checkpoint is in the run folder: go on with --resume"
            )
        return error

    def _batches(self, first: int) -> BatchStream:
        config = self.plan.config
        return batches_of(
            self.plan,
            "train",
            steps=config.steps,
            first=first,
        )

    def _validation(self) -> Batches:
        plan = self.plan
        rows = len(plan.dataset.validation)
        size = min(plan.config.batch_size, rows)
        # The bias of the cost depends on the batch size, so the smaller last batch is left out.
        # Lightning would take a plain list for several loaders.
        if plan.config.condition is None and plan.config.slices is None:
            return Batches(plan.dataset.validation[: rows // size * size].split(size))
        return Batches(list(batches_of(plan, "validation", steps=rows // size)))

    def keep_best(self, file: Path | None) -> None:
        """After early stopping, keep the weights of the best validation, if there is one."""
        if self.plan.config.patience is None or file is None or not file.is_file():
            return
        checkpoint = read_checkpoint(file)
        self.take(checkpoint, file)
        # What sampling needs belongs to these weights.
        self.module.remember()
        if self.run is not None:
            self.run.save_model(self.module.model)
            self.run.update(kept_step=int(checkpoint["global_step"]))


def _tensor_shapes(tree: Any) -> set[torch.Size]:
    """Return the shapes of all tensors in a tree of dictionaries and lists."""
    if isinstance(tree, torch.Tensor):
        return {tree.shape}
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return set().union(*map(_tensor_shapes, parts))


def _lightning_trainer(
    config: RunConfig, callbacks: "list[Callback]", logger: "Logger | bool"
) -> "Trainer":
    """Build Lightning's trainer. Refuse devices and precisions that this machine lacks."""
    import lightning as L
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.callbacks import Checkpoint, ProgressBar

    from hilbound.training.callbacks import CheckpointFiles

    devices, machines = launched_devices(config.devices)
    wish = f"accelerator {config.accelerator!r}, devices {config.devices!r}, precision "
    wish += repr(config.precision)
    try:
        trainer = L.Trainer(
            accelerator=config.accelerator,
            devices=devices,
            num_nodes=machines,
            strategy=_strategy(config.accelerator, devices, machines),
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
            enable_checkpointing=any(isinstance(one, Checkpoint) for one in callbacks),
            plugins=[CheckpointFiles()],
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


def _strategy(accelerator: str, devices: str, machines: int) -> "Strategy | str":
    """Return how workers are joined, or ``"auto"`` if there is only one."""
    import lightning as L
    from lightning.pytorch.strategies import DDPStrategy

    world = L.Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=machines,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).world_size
    if world == 1:
        return "auto"
    most = 2 * (os.cpu_count() or 1)
    if accelerator == "cpu" and world > machines * max(most, _FEW_WORKERS):
        raise ValueError(f"more than {most} workers would only wait for each other here")
    require_a_program()
    # All workers compute the same running averages. Sending them would be the most of the traffic.
    # The option has two names: an older one, and one of newer versions of torch.
    names = signature(torch.nn.parallel.DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    without: dict[str, Any] = {name: False}
    return DDPStrategy(timeout=_PATIENCE, **without)


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
