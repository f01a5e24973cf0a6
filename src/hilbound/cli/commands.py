"""The command line: ``hilbound fit``, ``sample``, ``predict``, ``evaluate``, ``report``, ...

Exit codes: 0 for success, 2 for wrong use (the message says what to correct), 1 for a failure or an
interruption. Heavy modules are imported only when a command needs them, so ``--help`` is quick.
"""

import logging
import os
import signal
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.logging import RichHandler
from rich.table import Table

import hilbound
from hilbound.cli.base import (
    TABLES,
    DecimalMark,
    Delimiter,
    Moved,
    OwnHeader,
    Quiet,
    RunPath,
    app,
    err,
    fail,
    out,
)
from hilbound.cli.comparing import compare, report
from hilbound.cli.fitting import fit
from hilbound.cli.scoring import score
from hilbound.cli.stages import Stages
from hilbound.cli.sweeping import sweep
from hilbound.config import is_table_run
from hilbound.errors import InputError
from hilbound.training.quiet import notices

# Help lists commands in this order.
app.command()(fit)
app.command()(sweep)


@app.command()
def sample(
    run: RunPath,
    n: Annotated[int, typer.Option("-n", "--number", help="How many samples.", min=1)] = 64,
    *,
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
    class_: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Class to draw, of a run with --condition classes: its name or number.",
        ),
    ] = None,
    cluster: Annotated[
        int | None,
        typer.Option("--cluster", help="Cluster to draw, of a run with --condition clusters=N."),
    ] = None,
) -> None:
    """Draw samples from a trained RUN into a picture, an array or a table."""
    from hilbound.reports.samples import default_samples, write_samples

    opened = hilbound.Run.open(run)
    label = _label(opened, class_, cluster)
    rows = opened.sample(n, seed=seed, source=source, label=label)
    path = write_samples(opened, rows, output or default_samples(opened))
    out.print(f"{n} samples: {path}", soft_wrap=True)


def _label(run: "hilbound.Run", class_: str | None, cluster: int | None) -> int | str | None:
    """Return the class or cluster to draw. The flag must fit the condition of the run."""
    of_run = {None: None, "classes": "class"}.get(run.config.condition, "cluster")
    for kind, label in (("class", class_), ("cluster", cluster)):
        if label is None or kind == of_run:
            continue
        has = f"condition {run.config.condition!r}: use --{of_run}" if of_run else "no condition"
        wanted = {"class": "classes", "cluster": "clusters=32"}[kind]
        raise InputError(
            f"--{kind} {label} is for a run with --condition {wanted}, and run {str(run.path)!r} "
            f"has {has}{', or leave it out' if of_run else ': leave it out'}"
        )
    if cluster is None:
        return class_
    clusters = run.config.clusters or 0
    if not 0 <= cluster < clusters:
        raise InputError(
            f"--cluster must lie between 0 and {clusters - 1}, the clusters of run "
            f"{str(run.path)!r}, got {cluster}"
        )
    return cluster


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
            rich_help_panel=TABLES,
        ),
    ] = None,
    data: Moved = None,
) -> None:
    """Measure a trained RUN against held-out data, and compare it with real data or baselines."""
    if is_table_run(run):
        from hilbound.cli import tables

        if samples is not None:
            raise InputError("--samples is for runs that draw samples: leave it out here")
        with Stages("evaluating"):
            of_table = tables.evaluate(run, split or "test", data)
        tables.print_metrics(of_table, out)
        return
    if split is not None:
        raise InputError("--split is for runs on a table's target: leave it out")
    from hilbound.cli.printing import print_metrics
    from hilbound.evaluation.evaluate import evaluate as measure

    with Stages("evaluating") as tell:
        measured = measure(hilbound.Run.open(run).with_data(data), samples, tell=tell)
    print_metrics(measured, out, err)


app.command()(report)
app.command()(compare)


@app.command()
def predict(
    run: RunPath,
    table: Annotated[
        Path, typer.Argument(metavar="TABLE", help="New rows: .csv, .csv.gz, .tsv or .parquet.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .csv, .csv.gz or .parquet file.")
    ] = Path("predictions.csv"),
    *,
    quantiles: Annotated[
        str, typer.Option(help="Probabilities between 0 and 1, with commas between them.")
    ] = "0.05,0.5,0.95",
    unknown: Annotated[
        Literal["error", "missing"],
        typer.Option(help="Refuse texts that RUN has never seen, or count them as missing."),
    ] = "error",
    header: OwnHeader = None,
    delimiter: Delimiter = None,
    decimal: DecimalMark = None,
) -> None:
    """Predict the target of a table's RUN for new rows: mean, deviation, quantiles, log density."""
    from hilbound.cli import tables
    from hilbound.datasets.delimited import TextFormat

    form = TextFormat(header, delimiter, decimal)
    n, path = tables.predict(run, table, output, quantiles=quantiles, unknown=unknown, form=form)
    out.print(f"{n:,} predictions: {path}", soft_wrap=True)


app.command()(score)


@app.command(name="list")
def list_() -> None:
    """List the data sets, objectives, models, networks and experiments, with one line each."""
    from hilbound.datasets import DATASETS
    from hilbound.experiments import EXPERIMENTS
    from hilbound.models.build import MODELS
    from hilbound.models.networks import NETWORKS
    from hilbound.objectives import OBJECTIVES

    for title, registry in (
        ("Data sets (or a table, an array or a folder of images)", DATASETS),
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
def export(
    run: RunPath,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A .onnx or .pt2 file; for huggingface a new folder."),
    ],
    form: Annotated[
        Literal["onnx", "torch", "huggingface"],
        typer.Option(
            "--format",
            help="ONNX, a program of torch.export, or a folder with weights and model card.",
        ),
    ] = "onnx",
    part: Annotated[
        Literal["sampler", "encoder", "decoder", "density"] | None,
        typer.Option(help="What to export. (default: what the model is made for)"),
    ] = None,
) -> None:
    """Write a trained RUN as a file for other programs, and compare it with the model."""
    from hilbound.export import export_run, save_pretrained

    if form == "huggingface":
        if part is not None:
            raise InputError("--part is for single files, a folder holds the whole model")
        out.print(f"model: {save_pretrained(run, output)}", soft_wrap=True)
        return
    with err.status("exporting"):
        made = export_run(run, output, form, part)
    equal = "bit for bit" if form == "torch" else f"within {made.difference:.0e}"
    out.print(
        f"{made.part}: {', '.join(made.inputs)} -> {', '.join(made.outputs)}, equal to the model "
        f"{equal}",
        highlight=False,
        soft_wrap=True,
    )
    out.print(f"file: {made.path}", soft_wrap=True)


@app.command()
def playground(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The page. (default: a file in the user's cache)"),
    ] = None,
    *,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page, or only write it.")
    ] = True,
) -> None:
    """Open a page on which you draw points and watch objectives find them."""
    import webbrowser

    from platformdirs import user_cache_path

    from hilbound.reports.playground import write_playground

    path = write_playground(output or user_cache_path("hilbound") / "playground.html").resolve()
    if browser and not webbrowser.open(path.as_uri()):
        err.print("no browser was found: open the file yourself", highlight=False)
    out.print(f"playground: {path}", soft_wrap=True)


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
    reuse: Annotated[
        bool,
        typer.Option(
            "--reuse", help="Keep the rows of OUTPUT's result.json, and measure what is missing."
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Rerun an experiment of the paper, and write result.json, figures and a page on its claims."""
    from hilbound.experiments.runner import default_folder, run_experiment

    folder = default_folder(name, quick=quick) if output is None else output
    try:
        with notices(quiet=quiet):
            result = run_experiment(
                name,
                folder,
                quick=quick,
                seeds=seeds,
                workers=workers,
                quiet=quiet,
                reuse=reuse,
            )
    except KeyboardInterrupt:
        fail("interrupted", "measurements are kept: run the same command to continue", 1)
    if not quiet:
        seeded = f"{len(result.seeds)} seed{'s' if len(result.seeds) > 1 else ''}"
        table = Table("claimed", "came out", "holds", title=f"{name}, {seeded}")
        for claim in result.claims:
            holds = {True: "yes", False: "no", None: "?"}[claim.holds]
            table.add_row(claim.claim, claim.outcome, holds)
        out.print(table)
        out.print(f"page: {folder / 'README.md'}", soft_wrap=True)


def main() -> None:
    """Run the command line. Notices go to stderr."""
    # Threads that spin while they wait for each other collapse beside other work (docs/engine.md).
    # The linear algebra reads this when torch is loaded, which is later.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    handler = RichHandler(console=err, show_time=False, show_path=False)
    # Clusters send SIGTERM before they end a job: it is obeyed as Ctrl-C is.
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    app()
