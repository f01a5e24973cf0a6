"""Training: from a configuration to a run folder.

:func:`fit` first checks everything (the data, the names, the folder). Only then does it write.
The loop itself is in :mod:`hilbound.training.loop`.
"""

import logging
import shutil
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from hilbound.config import RunConfig
from hilbound.datasets.catalogue import whole_path
from hilbound.datasets.incoming import STDIN, Incoming, is_incoming, store
from hilbound.datasets.mixed import suffix_of
from hilbound.errors import InputError
from hilbound.training.lock import locked
from hilbound.training.loop import Loop, is_helper, read_checkpoint
from hilbound.training.plan import plan_training
from hilbound.training.runs import Run, expand, fingerprint, refuse_occupied

log = logging.getLogger(__name__)


def default_output(config: RunConfig) -> Path:
    """Return where a run goes without ``--output``.

    It is ``runs/DATA-OBJECTIVE-SEED``. A model other than the default is named before the
    objective.

    >>> default_output(RunConfig(data="moons")).name, default_output(
    ...     RunConfig(data="digits", model="vae")).name
    ('moons-nuclear-0', 'digits-vae-likelihood-0')
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
    **options: Any,
) -> Run:
    """Train a model and leave a run folder.

    Args:
        output: The run folder; that of :func:`default_output` by default. Without ``data`` it is
            the data: ``fit("moons")``.
        overwrite: Whether a run that is already there may be replaced.
        quiet: Whether to leave out the progress bar.
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
    with tempfile.TemporaryDirectory() as scratch:
        incoming = None
        if is_incoming(options.get("data")):
            incoming = _take(options, Path(scratch))
        return _fit(output, options, incoming, overwrite=overwrite, quiet=quiet)


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
    *,
    overwrite: bool,
    quiet: bool,
) -> Run:
    given = RunConfig.create(**options)
    config = _from_anywhere(given)
    path = output_folder(output, options)
    if not is_helper():
        refuse_occupied(path, overwrite=overwrite)
    prepared = plan_training(config)
    if incoming is not None:
        own = str((path / incoming.path.name).absolute())
        config = config.model_copy(update={"data": own})
    run = Run(path, config)
    loop = Loop(run, prepared, quiet=quiet)
    with _alone(path):
        if not is_helper():
            Run.create(path, config, overwrite=overwrite)
            if incoming is not None:
                shutil.copyfile(incoming.path, config.data)
            name = given.data if incoming is None else incoming.name
            run.describe(
                replace(prepared.dataset, name=name),
                prepared.schedule,
                prepared.component_variance(0),
            )
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
) -> Run:
    """Go on with a run that was interrupted, or train a finished one for longer.

    Args:
        path: The run folder.
        steps: The total number of steps, if it is to change.
        data: Where the data are now, if they were moved.
        quiet: Whether to leave out the progress bar.

    Raises:
        InputError: If the folder holds no run or no checkpoint, or its data have changed.
    """
    run = Run.open(path).with_data(data)
    before = run.config.steps
    if steps is not None:
        run = replace(run, config=RunConfig.create(**run.config.model_dump() | {"steps": steps}))
    facts = run.read_json("run.json")
    checkpoint = read_checkpoint(run.checkpoint)
    if checkpoint["global_step"] >= run.config.steps:
        raise InputError(
            f"run {str(run.path)!r} has done all its {checkpoint['global_step']} steps: give a "
            "larger --steps"
        )
    run.find_data()
    prepared = plan_training(run.config, resumed=True)
    if fingerprint(prepared.dataset) != facts["data"]["fingerprint"]:
        raise InputError(
            f"the data of run {str(run.path)!r} ({run.config.data}) have changed since it started: "
            "restore them, or fit anew"
        )
    loop = Loop(run, prepared, quiet=quiet)
    loop.check(checkpoint, run.checkpoint)
    with _alone(run.path):
        if not is_helper():
            run.write_text("config.yaml", run.config.to_yaml())
            _note_length(run, before, checkpoint["global_step"])
            run.forget_results()
        loop.train(run.checkpoint, checkpoint["global_step"])
    run.keep(prepared.dataset)
    return run


def _note_length(run: Run, before: int, done: int) -> None:
    """Note in ``run.json`` that a run got another number of steps on its way.

    Learning rate and schedules follow the number of steps, so that one training of as many is
    another run.
    """
    if run.config.steps != before:
        known = run.read_json("run.json").get("lengthened", [])
        run.update(lengthened=[*known, {"at": done, "from": before, "to": run.config.steps}])
