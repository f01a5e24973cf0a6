"""The commands that look at several runs: ``hilbound compare`` and ``hilbound report``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hilbound.cli.base import Moved, err, out
from hilbound.cli.stages import Stages
from hilbound.config import is_table_run

if TYPE_CHECKING:
    from hilbound.evaluation.comparison import RunComparison

#: What a terminal has room for; the report and --json have everything.
_SHOWN = (
    "coverage",
    "precision",
    "recall",
    "frechet_distance",
    "error_of_best",
    "log_likelihood",
    "log_score",
    "crps",
    "rmse",
    "coverage_0.9",
)
_OF_BOUND = ("cost", "limit", "held_out_tightness", "real_tightness", "point_tightness")
RunPaths = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Run folders that 'fit' wrote.")
]


def compare(
    runs: RunPaths,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print everything as JSON, for other programs.")
    ] = False,
) -> None:
    """Print a table of several RUNs, with means over seeds, limits, and what real data reach."""
    from hilbound.experiments.comparison import compare_runs

    comparisons = compare_runs(runs)
    if as_json:
        content = {"comparisons": [comparison.plain() for comparison in comparisons]}
        typer.echo(json.dumps(content, indent=1, allow_nan=False))
        return
    from hilbound.reports.comparison_report import apart

    if len(comparisons) > 1:
        err.print(apart(comparisons), highlight=False, soft_wrap=True)
    for comparison in comparisons:
        _print(comparison)


def _print(comparison: "RunComparison") -> None:
    from hilbound.cli.printing import print_table
    from hilbound.reports.comparison import bounds_table
    from hilbound.reports.comparison_report import results_table

    fixed = max(1, len(comparison.telling))
    measured = f", {comparison.measured}" if comparison.measured else ""
    columns = comparison.columns(_SHOWN)
    if columns:
        results = results_table(comparison, columns)
        print_table(results, out, title=f"{comparison.data.name}{measured}", fixed=fixed)
    reached = "held_out_tightness"
    if not any(reached in member.values for member in comparison.members):
        reached = "bound_tightness"
    bounds = bounds_table(comparison, (*_OF_BOUND, reached))
    if bounds is not None:
        title = f"{comparison.data.name}, bounds at the end of the training"
        print_table(bounds, out, title=title, fixed=fixed)
    for member in comparison.members:
        if member.note:
            line = f"{member.name}: {member.note}"
            err.print(line, highlight=False, markup=False, soft_wrap=True)


def report(
    runs: RunPaths,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The page. (default: report.html in the run folder; of several runs "
            "comparison.html)",
        ),
    ] = None,
    *,
    data: Moved = None,
) -> None:
    """Write a page of pictures, metrics and options: of one RUN, or of several compared."""
    with Stages("writing the report") as tell:
        if len(runs) == 1:
            path = _report_one(runs[0], output, data, tell)
        else:
            path = _report_several(runs, output or Path("comparison.html"), data, tell)
    out.print(f"report: {path}", soft_wrap=True)


def _report_one(run: Path, output: Path | None, data: str | None, tell: Stages) -> Path:
    import hilbound
    from hilbound.cli import tables
    from hilbound.reports.run_report import write_report

    if is_table_run(run):
        return tables.report(run, data, output)
    return write_report(hilbound.Run.open(run).with_data(data), output, tell=tell)


def _report_several(runs: Sequence[Path], output: Path, data: str | None, tell: Stages) -> Path:
    from hilbound.experiments.comparison import compare_runs
    from hilbound.reports.comparison_report import write_comparison

    return write_comparison(compare_runs(runs, data=data), output, tell=tell)
