"""The command line: ``hilbound fit``, ``sample``, ``predict``, ``evaluate``, ``report``, ...

Exit codes: 0 for success, 2 for wrong use (the message says what to correct), 1 for a failure or an
interruption. Heavy modules are imported only when a command needs them, so ``--help`` is quick.
"""

import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from typer.core import TyperGroup

import hilbound
from hilbound.cli.options import with_run_options
from hilbound.config import Switches, is_table_run, read_yaml
from hilbound.errors import InputError


class _Commands(TyperGroup):
    """Turns errors into exit codes. Expected errors are shown without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            _fail("error", str(error), 2)
        except BrokenPipeError:
            raise
        except (FloatingPointError, OSError) as error:
            _fail("failed", str(error), 1)
        except KeyboardInterrupt:
            _fail("interrupted", "nothing more was written", 1)


def _fail(kind: str, message: str, code: int) -> NoReturn:
    from rich.markup import escape

    err.print(f"[bold red]{kind}:[/] {escape(message)}", soft_wrap=True, highlight=False)
    raise typer.Exit(code) from None


app = typer.Typer(
    cls=_Commands,
    help="Train density models on contrastive entropy bounds, and see how tight each bound is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

_TABLES = "Tables with a target"
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that 'fit' wrote.")]
Moved = Annotated[
    str | None,
    typer.Option("--data", metavar="PATH", help="Where the run's data are now, if moved."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no notices.")]


@app.command()
@with_run_options
def fit(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="Name of a data set, a .npy, .npz or .csv file, or a folder of images; with "
            "--target a table as .csv, .csv.gz, .tsv or .parquet.",
        ),
    ] = None,
    *,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Column of a table to predict, with its whole density; may come several times.",
            rich_help_panel=_TABLES,
        ),
    ] = None,
    effort: Annotated[
        Literal["default", "high"] | None,
        typer.Option(
            help="One kind of model, or a weighted mixture of several, which takes some ten times "
            "as long. (default: default)",
            rich_help_panel=_TABLES,
        ),
    ] = None,
    max_epochs: Annotated[
        int | None,
        typer.Option(
            help="Most passes over the rows. (default: by their number)",
            min=1,
            rich_help_panel=_TABLES,
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
    try:
        with _notices(quiet=quiet):
            if resume is not None:
                run = fit.resume(resume, steps=given.get("steps"), data=moved, quiet=quiet)
            else:
                run = fit.fit(
                    output or switches.output,
                    overwrite=overwrite,
                    quiet=quiet,
                    **settings,
                )
    except KeyboardInterrupt:
        _fail("interrupted", _what_is_left(path), 1)
    if report:
        _finish(run, quiet=quiet)
    elif not quiet:
        out.print(f"run: {run.path}", soft_wrap=True, highlight=False, markup=False)


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
    return f"no step was done, and nothing is saved in {path}: fit again with --overwrite"


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
        with _notices(quiet=quiet):
            run = tables.fit(settings, output, overwrite=overwrite, quiet=quiet)
    except KeyboardInterrupt:
        _fail("interrupted", "nothing was written", 1)
    status = err.status("evaluating") if not quiet else nullcontext()
    with status:
        tables.finish(run, out, report=report, quiet=quiet)


def _refuse_of_tables(settings: dict[str, Any]) -> None:
    """Options of tables mean nothing to other trainings."""
    for name in ("effort", "max_epochs"):
        if name in settings:
            raise InputError(
                f"--{name.replace('_', '-')} goes with --target: name the column of the table "
                "that is to be predicted, or leave it out"
            )


@contextmanager
def _notices(*, quiet: bool) -> Iterator[None]:
    """If ``quiet``, leave out the library's notices inside a ``with`` block."""
    logger = logging.getLogger("hilbound")
    before = logger.level
    logger.setLevel(logging.ERROR if quiet else before)
    try:
        yield
    finally:
        logger.setLevel(before)


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
    status = err.status("evaluating and writing the report") if not quiet else nullcontext()
    # What is to be said about the data was said before the training.
    try:
        with status, _notices(quiet=True):
            if can_measure(run.dataset):
                measured = measure(run)
            path = write_report(run)
    except KeyboardInterrupt:
        command = f"hilbound report {shlex.quote(str(run.path))}"
        _fail("interrupted", f"the run is trained and saved: go on with '{command}'", 1)
    if not quiet:
        if measured is None:
            err.print(f"no metrics: fewer than {FEWEST_ROWS} held-out rows", highlight=False)
        else:
            print_metrics(measured, out, err)
        out.print(f"report: {path}", soft_wrap=True)


@app.command()
def sample(
    run: RunPath,
    n: Annotated[int, typer.Option("-n", "--number", help="How many samples.", min=1)] = 64,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="A .png, .npz, .npy or .csv file. (default: samples.png of images and points of "
            "the plane, samples.csv of tables)",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw.", min=0)] = 0,
    source: Annotated[
        Literal["centers", "density"],
        typer.Option(
            "--from", help="The network's centres, or draws from the mixture around them."
        ),
    ] = "centers",
) -> None:
    """Draw samples from a trained RUN into a picture, an array or a table."""
    from hilbound.evaluation.sampling import draw
    from hilbound.reports.samples import default_samples, write_samples

    opened = hilbound.Run.open(run)
    rows = draw(opened, n, seed=seed, source=source)
    path = write_samples(opened, rows, output or default_samples(opened))
    out.print(f"{n} samples: {path}", soft_wrap=True)


@app.command()
def reconstruct(
    run: RunPath,
    n: Annotated[int, typer.Option("-n", "--inputs", help="How many inputs.", min=1)] = 8,
    reconstructions: Annotated[
        int, typer.Option(help="How many reconstructions of each.", min=1)
    ] = 10,
    *,
    split: Annotated[
        Literal["test", "validation", "train"], typer.Option(help="Rows to take inputs from.")
    ] = "test",
    output: Annotated[Path, typer.Option("--output", "-o", help="A .png or .npz file.")] = Path(
        "reconstructions.png"
    ),
    seed: Annotated[int, typer.Option(help="Seed of the draws.", min=0)] = 0,
) -> None:
    """Reconstruct some inputs with a trained RUN that has an encoder, each many times."""
    from hilbound.evaluation.reconstruction import reconstruct as make
    from hilbound.reports import reconstructions as files

    opened = hilbound.Run.open(run)
    files.check_output(opened, output)
    result = make(opened, n, reconstructions, split=split, seed=seed)
    path = files.write_reconstructions(opened, result, output)
    out.print(f"{reconstructions} reconstructions of {n} inputs: {path}", soft_wrap=True)


@app.command()
def evaluate(
    run: RunPath,
    samples: Annotated[
        int | None,
        typer.Option(help="Samples to compare. (default: the held-out rows, at most 10,000)"),
    ] = None,
    split: Annotated[
        Literal["test", "train"] | None,
        typer.Option(
            help="Rows of a table with a target to measure on. (default: test)",
            rich_help_panel=_TABLES,
        ),
    ] = None,
    data: Moved = None,
) -> None:
    """Measure a trained RUN against held-out data, and compare it with real data or baselines."""
    if is_table_run(run):
        from hilbound.cli import tables

        if samples is not None or data is not None:
            raise InputError(
                "--samples is for runs that draw samples, and so is --data: leave them out here"
            )
        with err.status("evaluating"):
            of_table = tables.evaluate(run, split or "test")
        tables.print_metrics(of_table, out)
        return
    if split is not None:
        raise InputError("--split is for runs on a table's target: leave it out")
    from hilbound.cli.printing import print_metrics
    from hilbound.evaluation.evaluate import evaluate as measure

    with err.status("evaluating"):
        measured = measure(hilbound.Run.open(run).with_data(data), samples)
    print_metrics(measured, out, err)


@app.command()
def report(
    run: RunPath,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page. (default: report.html in the run folder)"),
    ] = None,
    *,
    data: Moved = None,
) -> None:
    """Write RUN's report.html: pictures, metrics and options on one page."""
    from hilbound.cli import tables
    from hilbound.reports.run_report import write_report

    of_table = is_table_run(run)
    if of_table and (output is not None or data is not None):
        raise InputError("--output and --data are for runs that draw samples: leave them out")
    with err.status("writing the report"):
        if of_table:
            path = tables.report(run)
        else:
            path = write_report(hilbound.Run.open(run).with_data(data), output)
    out.print(f"report: {path}", soft_wrap=True)


@app.command()
def predict(
    run: RunPath,
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="New rows: .csv, .csv.gz, .tsv or .parquet.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .csv, .csv.gz or .parquet file.")
    ] = Path("predictions.csv"),
    quantiles: Annotated[
        str, typer.Option(help="Probabilities between 0 and 1, with commas between them.")
    ] = "0.05,0.5,0.95",
    unknown: Annotated[
        Literal["error", "missing"],
        typer.Option(help="Refuse texts that RUN has never seen, or count them as missing."),
    ] = "error",
) -> None:
    """Predict the target of a table's RUN for new rows: mean, deviation, quantiles, log density."""
    from hilbound.cli import tables

    n, path = tables.predict(run, table, output, quantiles, unknown)
    out.print(f"{n:,} predictions: {path}", soft_wrap=True)


@app.command(name="list")
def list_() -> None:
    """List the data sets, objectives, models, networks and experiments, with one line each."""
    from hilbound.datasets import DATASETS
    from hilbound.experiments import EXPERIMENTS
    from hilbound.models.build import MODELS
    from hilbound.models.networks import NETWORKS
    from hilbound.objectives import OBJECTIVES

    for title, registry in (
        ("Data sets (or a .npy, .npz or .csv file, or a folder of images)", DATASETS),
        ("Objectives", OBJECTIVES),
        ("Models", MODELS),
        ("Networks", NETWORKS),
        ("Experiments", EXPERIMENTS),
    ):
        table = Table(
            title=title, title_justify="left", box=None, show_header=False, padding=(0, 2)
        )
        table.add_column(no_wrap=True)
        table.add_column()
        for name in registry:
            table.add_row(name, registry.describe(name))
        out.print(table)
        out.print()


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the report goes.")] = Path(
        "hilbound-demo"
    ),
    quiet: Quiet = False,
) -> None:
    """Train three objectives on two small data sets, and compare them in one table and report."""
    from hilbound.cli.demo import run_demo

    run_demo(output, out, quiet=quiet)


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="Name of an experiment ('hilbound list' has all).")],
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only check that it runs, in a few seconds.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(help="How many seeds. (default: 3, or 1 with --quick)", min=1)
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder. (default: runs/experiments/NAME)")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Measurements at a time. (default: as many as cores)", min=1),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Rerun an experiment of the paper, and write result.json, figures and a page on its claims."""
    from hilbound.experiments.runner import default_folder, run_experiment

    folder = default_folder(name, quick=quick) if output is None else output
    try:
        with _notices(quiet=quiet):
            result = run_experiment(
                name, folder, quick=quick, seeds=seeds, workers=workers, quiet=quiet
            )
    except KeyboardInterrupt:
        _fail("interrupted", "measurements are kept: run the same command to continue", 1)
    if not quiet:
        seeded = f"{len(result.seeds)} seed{'s' if len(result.seeds) > 1 else ''}"
        table = Table("claimed", "came out", "holds", title=f"{name}, {seeded}")
        for claim in result.claims:
            holds = {True: "yes", False: "no", None: "?"}[claim.holds]
            table.add_row(claim.claim, claim.outcome, holds)
        out.print(table)
        out.print(f"page: {folder / 'README.md'}", soft_wrap=True)


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(hilbound.__version__)
        raise typer.Exit


@app.callback()
def _common(
    # Its callback runs first, so --version needs no command.
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Print the version and stop.",
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. Notices go to stderr."""
    handler = RichHandler(console=err, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    app()
