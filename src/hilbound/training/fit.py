"""Training: from a configuration to a run folder.

:func:`fit` first checks everything (the data, the names, the folder). Only then does it write.
The loop itself is in :mod:`hilbound.training.loop`.
"""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from hilbound.config import RunConfig
from hilbound.errors import InputError
from hilbound.training.loop import Loop, is_helper, read_checkpoint
from hilbound.training.plan import plan_training
from hilbound.training.runs import Run, fingerprint, refuse_occupied

log = logging.getLogger(__name__)


def default_output(config: RunConfig) -> Path:
    """Return where a run goes without ``--output``.

    It is ``runs/DATA-OBJECTIVE-SEED``. A model other than the default is named before the
    objective.

    >>> default_output(RunConfig(data="moons")).name, default_output(
    ...     RunConfig(data="digits", model="vae")).name
    ('moons-nuclear-0', 'digits-vae-likelihood-0')
    """
    model = "" if config.model == RunConfig.model_fields["model"].default else f"{config.model}-"
    return Path("runs") / f"{Path(config.data).stem}-{model}{config.objective}-{config.seed}"


def fit(
    output: Path | str | None = None,
    *,
    overwrite: bool = False,
    quiet: bool = False,
    **options: Any,
) -> Run:
    """Train a model and leave a run folder.

    Args:
        output: The run folder, by default the one that :func:`default_output` returns.
        overwrite: Whether a run that is already there may be replaced.
        quiet: Whether to leave out the progress bar.
        **options: The fields of :class:`hilbound.config.RunConfig`. Only ``data`` is required.

    Returns:
        The run.

    Raises:
        InputError: If an option, the data or the folder cannot be used. Nothing is written then.
        KeyboardInterrupt: If the user interrupts the training. The state is saved, and
            :func:`resume` continues from it.
    """
    config = RunConfig.create(**options)
    path = Path(output) if output is not None else default_output(config)
    if not is_helper():
        refuse_occupied(path, overwrite=overwrite)
    prepared = plan_training(config)
    run = Run(path, config)
    loop = Loop(run, prepared, quiet=quiet)
    if not is_helper():
        Run.create(path, config, overwrite=overwrite)
        run.describe(prepared.dataset, prepared.schedule, prepared.component_variance(0))
    loop.train()
    run.keep(prepared.dataset)
    return run


def resume(path: Path | str, *, steps: int | None = None, quiet: bool = False) -> Run:
    """Continue a run that was interrupted, or train a finished one for longer.

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
    checkpoint = read_checkpoint(run.checkpoint)
    if checkpoint["global_step"] >= run.config.steps:
        raise InputError(
            f"run {str(run.path)!r} has done all its {checkpoint['global_step']} steps: give a "
            "larger --steps"
        )
    prepared = plan_training(run.config, resumed=True)
    if fingerprint(prepared.dataset) != facts["data"]["fingerprint"]:
        raise InputError(
            f"the data of run {str(run.path)!r} ({run.config.data}) have changed since it started: "
            "restore them, or fit anew"
        )
    loop = Loop(run, prepared, quiet=quiet)
    loop.check(checkpoint, run.checkpoint)
    if not is_helper():
        run.write_text("config.yaml", run.config.to_yaml())
        run.forget_results()
    loop.train(run.checkpoint, checkpoint["global_step"])
    run.keep(prepared.dataset)
    return run
