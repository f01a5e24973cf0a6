"""Training: from a configuration to a run folder.

:func:`fit` checks everything first (the data, the names, the folder), and only then writes.
Lightning does the loop. It takes seconds to import, so it is imported when training starts and
never before.
"""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hilbound import datasets
from hilbound.batches import Batches, BatchStream
from hilbound.config import RunConfig
from hilbound.datasets import Dataset
from hilbound.errors import InputError
from hilbound.models import MixtureDensityNetwork, build_model
from hilbound.objectives import OBJECTIVES, Objective
from hilbound.quiet import quiet_lightning
from hilbound.runs import Run, fingerprint, refuse_occupied
from hilbound.seeding import stream
from hilbound.variance import VarianceSchedule, parse_variance

if TYPE_CHECKING:
    from lightning import Trainer

    from hilbound.module import DensityModule

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """Everything a training needs, checked and built, before anything is written.

    Args:
        config: The options.
        dataset: The data.
        objective: The objective.
        schedule: The variance of the kernel over the run.
        model: The model at its start.
    """

    config: RunConfig
    dataset: Dataset
    objective: Objective
    schedule: VarianceSchedule
    model: MixtureDensityNetwork


def load_dataset(config: RunConfig) -> Dataset:
    """Load the data set that a configuration names."""
    return datasets.load(
        config.data,
        seed=config.seed,
        samples=config.samples,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        scale=config.scale,
        label_column=config.label_column,
    )


def plan(config: RunConfig) -> Plan:
    """Check a configuration against its data and build what training needs.

    Raises:
        InputError: If a name is unknown, the data cannot be used, or options contradict each other.
    """
    objective = OBJECTIVES[config.objective]()
    dataset = load_dataset(config)
    schedule = parse_variance(config.variance, dataset.train, stream(config.seed, "median"))
    if config.learn_variance and not schedule.constant:
        raise InputError(
            f"variance {config.variance!r} is a schedule, and learn_variance learns it: use one"
        )
    if config.batch_size > len(dataset.train):
        log.warning(
            "batch_size %d is more than the %d training rows: every row is used in every step, "
            "%d rows at a time",
            config.batch_size, len(dataset.train), len(dataset.train),
        )  # fmt: skip
        config = config.model_copy(
            update={
                "batch_size": len(dataset.train),
                "centers": config.centers or config.batch_size,
            }
        )
    component = objective.component_variance(schedule.start)
    model = build_model(config, dataset.dim, dataset.image_shape, component)
    return Plan(config, dataset, objective, schedule, model)


def default_output(config: RunConfig) -> Path:
    """Return ``runs/DATA-OBJECTIVE-SEED``, where a run goes without ``--output``."""
    return Path("runs") / f"{Path(config.data).stem}-{config.objective}-{config.seed}"


def fit(
    output: Path | str | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = False,
    **options: Any,  # noqa: ANN401 - the fields of RunConfig
) -> Run:
    """Train a model and leave a run folder.

    Args:
        output: The run folder; ``runs/DATA-OBJECTIVE-SEED`` by default.
        overwrite: Whether a run that is already there may be replaced.
        quiet: Whether to leave out the progress bar.
        **options: The fields of :class:`hilbound.config.RunConfig`, ``data`` above all.

    Returns:
        The run.

    Raises:
        InputError: If an option, the data or the folder cannot be used. Nothing is written then.
        KeyboardInterrupt: If interrupted. What was reached is saved; :func:`resume` goes on.
    """
    config = RunConfig.create(**options)
    path = Path(output) if output is not None else default_output(config)
    refuse_occupied(path, overwrite=overwrite)
    prepared = plan(config)
    run = Run.create(path, config, overwrite=overwrite)
    component = prepared.objective.component_variance(prepared.schedule.start)
    run.describe(prepared.dataset, prepared.schedule, component)
    _train(run, prepared, quiet=quiet, resumed=False)
    return run


def resume(path: Path | str, *, steps: int | None = None, quiet: bool = False) -> Run:
    """Go on with a run that was interrupted, or train a finished one for longer.

    Args:
        path: The run folder.
        steps: The total number of steps, if it is to change.
        quiet: Whether to leave out the progress bar.

    Raises:
        InputError: If the folder holds no run or no checkpoint, or its data have changed.
    """
    run = Run.open(path)
    if steps is not None:
        run = replace(run, config=RunConfig.create(**run.config.model_dump() | {"steps": steps}))
    facts = run.read_json("run.json")
    if not run.checkpoint.exists():
        raise InputError(
            f"run {str(run.path)!r} has no checkpoint: it stopped before the first one; fit again "
            "with --overwrite"
        )
    if facts["step"] >= run.config.steps:
        raise InputError(
            f"run {str(run.path)!r} has done all its {facts['step']} steps: give a larger --steps"
        )
    prepared = plan(run.config)
    if fingerprint(prepared.dataset) != facts["data"]["fingerprint"]:
        raise InputError(
            f"the data of run {str(run.path)!r} ({run.config.data}) have changed since it started: "
            "restore them, or fit anew"
        )
    run.write_text("config.yaml", run.config.to_yaml())
    _train(run, prepared, quiet=quiet, resumed=True)
    return run


def _train(run: Run, prepared: Plan, *, quiet: bool, resumed: bool) -> None:
    """Run Lightning's loop, from the run's checkpoint if ``resumed``."""
    # Lightning takes three seconds to import.
    from hilbound.module import DensityModule  # noqa: PLC0415

    config, dataset = prepared.config, prepared.dataset
    first = int(run.read_json("run.json")["step"]) if resumed else 0
    batches = BatchStream(dataset.train, config.batch_size, config.steps, config.seed, first)
    size = min(config.batch_size, len(dataset.validation))
    # Batches of unequal size would compare costs of unequal bias, so the remainder is left out.
    validation = dataset.validation[: len(dataset.validation) // size * size].split(size)
    with quiet_lightning(), _interruptible() as interrupted:
        trainer, bounds = _trainer(run, config, quiet=quiet)
        module = DensityModule(prepared, bounds)
        try:
            trainer.fit(
                module,
                train_dataloaders=batches,
                # A list would be taken for several loaders.
                val_dataloaders=Batches(validation),
                ckpt_path=run.checkpoint if resumed else None,
                weights_only=True,
            )
        except SystemExit:
            # Lightning turns Ctrl-C into an exit of the whole process, which is ours to decide.
            interrupted.set()
    if interrupted.is_set():
        raise KeyboardInterrupt
    if config.patience is not None:
        _keep_best(run, module, trainer)


def _trainer(run: Run, config: RunConfig, *, quiet: bool) -> "tuple[Trainer, Any]":
    import lightning as L  # noqa: PLC0415
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint  # noqa: PLC0415
    from lightning.pytorch.loggers import TensorBoardLogger  # noqa: PLC0415

    from hilbound.callbacks import Bar, BoundsRecord, NonFiniteLoss, SafetyNet  # noqa: PLC0415

    bounds = BoundsRecord(run.path / "bounds.csv")
    callbacks: list[L.Callback] = [bounds, NonFiniteLoss(), SafetyNet(run)]
    if config.patience is not None:
        best = ModelCheckpoint(run.path / "checkpoints", "best", monitor="validation_loss")
        callbacks += [EarlyStopping("validation_loss", patience=config.patience), best]
    if not quiet:
        callbacks.append(Bar(leave=True))
    logger = (
        TensorBoardLogger(run.path, name="", version="tensorboard") if config.tensorboard else False
    )
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
    return trainer, bounds


def _keep_best(run: Run, module: "DensityModule", trainer: "Trainer") -> None:
    """After early stopping, the weights of the best validation are the run's."""
    best = getattr(trainer.checkpoint_callback, "best_model_path", "")
    if best:
        state = torch.load(best, weights_only=True)
        module.load_state_dict(state["state_dict"])
        run.save_model(module.model)
        run.update(kept_step=int(state["global_step"]))


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Put back the handler of Ctrl-C, which Lightning leaves switched off."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)
        sys.stderr.flush()
