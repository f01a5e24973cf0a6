"""The command ``hilbound fit``: train on data, or fit a table with a target."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import hilbound
from hilbound.cli.base import TABLES, Moved, Quiet, err, fail, out
from hilbound.cli.options import with_run_options
from hilbound.cli.stages import Stages
from hilbound.config import Switches, read_yaml
from hilbound.errors import InputError
from hilbound.training.durations import in_words
from hilbound.training.quiet import notices

if TYPE_CHECKING:
    from hilbound.training.plan import TrainingPlan

# Of a few seconds nobody needs a warning.
_WORTH_SAYING = 10


@with_run_options
def fit(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="Name of a data set, a table (.csv, .csv.gz, .tsv or .parquet), an array (.npy or "
            ".npz) or a folder of images.",
        ),
    ] = None,
    *,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of a table to predict, with its whole density; may come several times.",
            rich_help_panel=TABLES,
        ),
    ] = None,
    effort: Annotated[
        Literal["default", "high"] | None,
        typer.Option(
            help="One kind of model, or a weighted mixture of several, which takes some ten times "
            "as long. (default: default)",
            rich_help_panel=TABLES,
        ),
    ] = None,
    max_epochs: Annotated[
        int | None,
        typer.Option(
            help="Most passes over the rows. (default: by their number)",
            min=1,
            rich_help_panel=TABLES,
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with any of these options. Flags override it.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Run folder. (default: runs/DATA[-MODEL]-OBJECTIVE-SEED)"
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing run.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Continue an interrupted run.")
    ] = None,
    moved: Moved = None,
    report: Annotated[
        bool | None,
        typer.Option(
            "--report/--no-report",
            help="Evaluate and write report.html at the end. (default: on)",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Train a model on DATA and leave a run folder with its weights, bounds, metrics and report."""
    tabular = {"target": target or None, "effort": effort, "max_epochs": max_epochs}
    given = {name: value for name, value in (options | tabular).items() if value is not None}
    if resume is not None:
        _refuse_beside_resume(data, config, output, given, overwrite=overwrite)
    _refuse_moved_without_a_run(resume, moved)
    settings = read_yaml(config) if config is not None else {}
    switches = Switches.take(settings)
    quiet = quiet or switches.quiet
    overwrite = overwrite or switches.overwrite
    report = switches.report if report is None else report
    settings |= given | ({} if data is None else {"data": data})
    if "target" in settings:
        _fit_table(
            settings, output or switches.output, overwrite=overwrite, report=report, quiet=quiet
        )
        return
    _refuse_of_tables(settings)
    from hilbound.training import fit

    path = resume or fit.output_folder(output or switches.output, settings)
    if not quiet:
        err.print(f"run: {path}", soft_wrap=True, highlight=False, markup=False)
    planned = _foresee if report and not quiet else None
    try:
        with notices(quiet=quiet):
            if resume is not None:
                run = fit.resume(
                    resume, steps=given.get("steps"), data=moved, quiet=quiet, planned=planned
                )
            else:
                run = fit.fit(
                    output or switches.output,
                    overwrite=overwrite,
                    quiet=quiet,
                    planned=planned,
                    **settings,
                )
    except KeyboardInterrupt:
        fail("interrupted", _what_is_left(path), 1)
    _conclude(run, report=report, quiet=quiet)


def _foresee(plan: "TrainingPlan") -> None:
    """Say how long the evaluation will take, if it is worth saying."""
    from hilbound.evaluation.foresight import foresee_seconds

    seconds = foresee_seconds(plan.dataset, plan.config.seed)
    if seconds >= _WORTH_SAYING:
        err.print(
            f"evaluation after the training: about {in_words(seconds)} (--no-report leaves it out)",
            highlight=False,
        )


def _conclude(run: "hilbound.Run", *, report: bool, quiet: bool) -> None:
    """Say what a training chose, and measure it or say where it is."""
    if not quiet:
        _say_feature_variance(run)
    if report:
        _finish(run, quiet=quiet)
    elif not quiet:
        out.print(f"run: {run.path}", soft_wrap=True, highlight=False, markup=False)


def _say_feature_variance(run: "hilbound.Run") -> None:
    """Print the variance in the features that a rule or the user gave to an objective of pairs."""
    found = run.read_json("run.json").get("feature_variance")
    if found is not None:
        given = run.config.objective_options.get("feature_variance") is not None
        err.print(
            f"variance of a component in the features: {found:.3g}{'' if given else ', by rule'}",
            highlight=False,
        )


def _what_is_left(path: Path) -> str:
    """Return what an interruption has left in a run folder, and how to go on."""
    command = f"--resume {shlex.quote(str(path))}"
    try:
        run = hilbound.Run.open(path)
        status = run.read_json("run.json")["status"]
    except InputError:
        return f"nothing was trained, and {path} holds no run: fit again"
    if status == "interrupted" and run.checkpoint.is_file():
        return f"what was reached is saved in {path}: go on with 'hilbound fit {command}'"
    if run.checkpoint.is_file():
        return f"nothing was trained since; {path} holds what it held before"
    return f"no step was saved yet in {path}: begin again with 'hilbound fit {command}'"


def _fit_table(
    settings: dict[str, Any],
    output: Path | None,
    *,
    overwrite: bool,
    report: bool,
    quiet: bool,
) -> None:
    from hilbound.cli import tables

    try:
        with notices(quiet=quiet):
            run = tables.fit(settings, output, overwrite=overwrite, quiet=quiet)
    except KeyboardInterrupt:
        fail("interrupted", "nothing was written", 1)
    with Stages("evaluating", quiet=quiet):
        tables.finish(run, out, report=report, quiet=quiet)


def _refuse_of_tables(settings: dict[str, Any]) -> None:
    """Options of tables mean nothing to other trainings."""
    for name in ("effort", "max_epochs"):
        if name in settings:
            raise InputError(
                f"--{name.replace('_', '-')} goes with --target: name the column of the table "
                "that is to be predicted, or leave it out"
            )


def _refuse_moved_without_a_run(resume: Path | None, moved: str | None) -> None:
    if resume is None and moved is not None:
        raise InputError("--data is for --resume: to start a run, name its data without it")


def _refuse_beside_resume(
    data: str | None,
    config: Path | None,
    output: Path | None,
    given: dict[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Refuse other options beside --resume, because a resumed run keeps its options."""
    others = [name for name in given if name != "steps"]
    if data is not None or config is not None or output is not None or overwrite or others:
        raise InputError(
            "--resume takes all options from the run folder; it can be combined only with --steps, "
            "--data and --quiet"
        )


def _finish(run: "hilbound.Run", *, quiet: bool) -> None:
    from hilbound.cli.printing import print_metrics
    from hilbound.evaluation.evaluate import FEWEST_ROWS, can_measure
    from hilbound.evaluation.evaluate import evaluate as measure
    from hilbound.reports.run_report import write_report

    measured = None
    # What is to be said about the data was said before the training.
    try:
        with Stages("evaluating", quiet=quiet) as tell, notices(quiet=True):
            if can_measure(run.dataset):
                measured = measure(run, tell=tell)
            path = write_report(run, tell=tell)
    except KeyboardInterrupt:
        command = f"hilbound report {shlex.quote(str(run.path))}"
        fail("interrupted", f"the run is trained and saved: go on with '{command}'", 1)
    if not quiet:
        if measured is None:
            err.print(f"no metrics: fewer than {FEWEST_ROWS} held-out rows", highlight=False)
        else:
            print_metrics(measured, out, err)
        out.print(f"report: {path}", soft_wrap=True)
