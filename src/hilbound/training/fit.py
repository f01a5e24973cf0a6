"""Training: from a configuration to a run folder.

:func:`fit` first checks everything (the data, the names, the folder). Only then does it write.
The loop itself is in :mod:`hilbound.training.loop`.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from hilbound.config import RunConfig
from hilbound.datasets.catalogue import whole_path
from hilbound.datasets.incoming import STDIN, Incoming, called, is_incoming, store
from hilbound.datasets.mixed import suffix_of
from hilbound.errors import InputError
from hilbound.training.checkpoints import read_checkpoint
from hilbound.training.lock import locked
from hilbound.training.loop import Loop
from hilbound.training.plan import TrainingPlan, plan_training
from hilbound.training.runs import Run, expand, fingerprint, refuse_occupied, remove_partials
from hilbound.training.together import is_helper

log = logging.getLogger(__name__)

#: What is called with the plan before the first step.
Planned: TypeAlias = Callable[[TrainingPlan], None]


@dataclass(frozen=True)
class _How:
    """How to train a run; see :func:`fit`."""

    overwrite: bool
    quiet: bool
    planned: Planned | None

    def tell(self, prepared: TrainingPlan) -> None:
        if self.planned is not None and not is_helper():
            self.planned(prepared)


def default_output(config: RunConfig) -> Path:
    """Return where a run goes without ``--output``.

    It is ``runs/DATA-OBJECTIVE-SEED``. A model other than the default is named before the
    objective.

    >>> default_output(RunConfig(data="moons")).name, default_output(
    ...     RunConfig(data="digits", model="vae")).name
    ('moons-debiased-0', 'digits-vae-likelihood-0')
    """
    name = "data" if config.data == STDIN else Path(config.data).name
    stem = name[: len(name) - len(suffix_of(Path(name)))]
    model = "" if config.model == RunConfig.model_fields["model"].default else f"{config.model}-"
    return Path("runs") / f"{stem}-{model}{config.objective}-{config.seed}"


def output_folder(output: Path | str | None, options: dict[str, Any]) -> Path:
    """Return the folder that :func:`fit` would write to.

    Raises:
        InputError: If an option is unknown, missing or out of range.
    """
    config = RunConfig.create(**options)
    return expand(output) if output is not None else default_output(config)


def fit(
    output: Any = None,
    *,
    overwrite: bool = False,
    quiet: bool = False,
    planned: Planned | None = None,
    **options: Any,
) -> Run:
    """Train a model and leave a run folder.

    Args:
        output: The run folder; that of :func:`default_output` by default. Without ``data`` it is
            the data: ``fit("moons")``.
        overwrite: Whether a run that is already there may be replaced.
        quiet: Whether to leave out the progress bar.
        planned: Called with the plan, when everything is checked and before the first step.
        **options: The fields of :class:`hilbound.config.RunConfig`. Only ``data`` is required. It
            may also be an array with shape ``(n, d)``, a data frame, or ``"-"`` for standard input;
            then the run folder keeps the data.

    Returns:
        The run.

    Raises:
        InputError: If an option, the data or the folder cannot be used. Nothing is written then.
        KeyboardInterrupt: If the user interrupts the training. The state is saved, and
            :func:`resume` continues from it.
    """
    if "data" not in options and output is not None:
        # Everyone's first line is fit("moons").
        options["data"], output = output, None
    how = _How(overwrite, quiet, planned)
    if not is_incoming(options.get("data")):
        return _fit(output, options, None, how)
    with tempfile.TemporaryDirectory() as scratch:
        incoming = _take(options, Path(scratch))
        with called(incoming):
            return _fit(output, options, incoming, how)


def _take(options: dict[str, Any], scratch: Path) -> Incoming:
    """Make a file of data that are none, and let the options name it."""
    piped = isinstance(options["data"], str)
    if piped and str(options.get("devices", 1)) != "1":
        raise InputError(
            "data '-' comes on standard input once, and every device needs it: save it to a file"
        )
    incoming = store(options["data"], scratch)
    options["data"] = str(incoming.path)
    if incoming.named:
        options.setdefault("header", True)
    return incoming


def _fit(
    output: Path | str | None,
    options: dict[str, Any],
    incoming: Incoming | None,
    how: "_How",
) -> Run:
    given = RunConfig.create(**options)
    config = _from_anywhere(given)
    path = output_folder(output, options)
    if not is_helper():
        refuse_occupied(path, overwrite=how.overwrite)
    name = given.data if incoming is None else incoming.name
    return _from_start(Run(path, config), name, incoming, how)


def _from_start(run: Run, name: str, incoming: Incoming | None, how: "_How") -> Run:
    """Train a run from its first step.

    Args:
        run: The run.
        name: What the user called its data.
        incoming: The file that its data became, if they were none; the run folder gets a copy.
        how: How to train it.
    """
    prepared = plan_training(run.config)
    if incoming is not None:
        own = str((run.path / incoming.path.name).absolute())
        run = replace(run, config=run.config.model_copy(update={"data": own}))
    loop = Loop(run, prepared, quiet=how.quiet)
    with _alone(run.path):
        _begin(run, prepared, name, incoming, overwrite=how.overwrite)
        how.tell(prepared)
        loop.train()
    run.keep(prepared.dataset)
    return run


def _alone(path: Path) -> AbstractContextManager[None]:
    """Keep other trainings out of a folder; those that help this one belong to it."""
    return nullcontext() if is_helper() else locked(path)


def _from_anywhere(config: RunConfig) -> RunConfig:
    """Return the configuration with whole paths, so that it means the same in every folder."""
    encoder = None if config.encoder is None else str(expand(config.encoder).absolute())
    return config.model_copy(update={"data": whole_path(config.data), "encoder": encoder})


def resume(
    path: Path | str,
    *,
    steps: int | None = None,
    data: Path | str | None = None,
    quiet: bool = False,
    planned: Planned | None = None,
) -> Run:
    """Go on with a run that was interrupted, or train a finished one for longer.

    Args:
        path: The run folder.
        steps: The total number of steps, if it is to change.
        data: Where the data are now, if they were moved.
        quiet: Whether to leave out the progress bar.
        planned: See :func:`fit`.

    Raises:
        InputError: If the folder holds no run or no checkpoint, or its data have changed.
    """
    run = Run.open(path).with_data(data)
    before = run.config.steps
    if steps is not None:
        run = replace(run, config=RunConfig.create(**run.config.model_dump() | {"steps": steps}))
    if _never_saved(run):
        run.find_data()
        how = _How(overwrite=True, quiet=quiet, planned=planned)
        return _from_start(run, _name_of_data(run), None, how)
    facts = run.read_json("run.json")
    checkpoint = read_checkpoint(run.checkpoint)
    done = checkpoint["global_step"] >= run.config.steps
    if done and facts["status"] == "finished":
        raise _all_done(run, checkpoint["global_step"])
    run.find_data()
    prepared = plan_training(run.config, resumed=True)
    if fingerprint(prepared.dataset) != facts["data"]["fingerprint"]:
        raise InputError(
            f"the data of run {str(run.path)!r} ({run.config.data}) have changed since it started: "
            "restore them, or fit anew"
        )
    loop = Loop(run, prepared, quiet=quiet)
    loop.take(checkpoint, run.checkpoint)
    with _alone(run.path):
        _How(overwrite=True, quiet=quiet, planned=planned).tell(prepared)
        _go_on(run, loop, before, checkpoint["global_step"])
    run.keep(prepared.dataset)
    return run


def _go_on(run: Run, loop: Loop, before: int, step: int) -> None:
    """Train from a step on, or do what is left after the last one.

    Args:
        run: The run, with its number of steps.
        loop: What trains it.
        before: The number of steps that it had before.
        step: The step that its checkpoint has reached.
    """
    if not is_helper():
        remove_partials(run.path)
        run.write_text("config.yaml", run.config.to_yaml())
        _note_length(run, before, step)
        run.forget_results()
    if step < run.config.steps:
        loop.train(run.checkpoint, step)
        return
    loop.module.remember()
    run.save_model(loop.module.model)
    loop.finish(run.best_checkpoint)


def _all_done(run: Run, steps: int) -> InputError:
    return InputError(
        f"run {str(run.path)!r} has done all its {steps} steps: give a larger --steps"
    )


def _never_saved(run: Run) -> bool:
    """Whether a run was killed before its first checkpoint. Then nothing of it is lost."""
    if run.checkpoint.exists():
        return False
    if not (run.path / "run.json").exists():
        return True
    return bool(run.read_json("run.json")["step"] == 0)


def _name_of_data(run: Run) -> str:
    """Return what the user called the data of a run that was killed before its first checkpoint."""
    if not (run.path / "run.json").exists():
        return run.config.data
    return str(run.read_json("run.json")["data"].get("name", run.config.data))


def _begin(
    run: Run, prepared: TrainingPlan, name: str, incoming: Incoming | None, *, overwrite: bool
) -> None:
    """Write what a run folder holds before its first step; see :func:`_from_start`."""
    if not is_helper():
        Run.create(run.path, run.config, overwrite=overwrite)
        if incoming is not None:
            shutil.copyfile(incoming.path, run.config.data)
        run.describe(
            replace(prepared.dataset, name=name),
            prepared.schedule,
            prepared.model_variance(0),
            prepared.data_variance(run.config.steps),
        )
        if prepared.objective.pairs:
            run.update(feature_variance=prepared.feature_variance)


def _note_length(run: Run, before: int, done: int) -> None:
    """Note in ``run.json`` that a run got another number of steps on its way.

    Learning rate and schedules follow the number of steps, so that one training of as many is
    another run.
    """
    if run.config.steps != before:
        known = run.read_json("run.json").get("lengthened", [])
        run.update(lengthened=[*known, {"at": done, "from": before, "to": run.config.steps}])
