"""What the command line does with tables that have a target: fit, predict, evaluate, report."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hilbound.config import TableConfig
from hilbound.datasets.delimited import TextFormat
from hilbound.errors import InputError
from hilbound.estimators.table_data import Unknown
from hilbound.estimators.table_output import check_output, prediction_table, write_table
from hilbound.estimators.table_run import Split, TableRun
from hilbound.evaluation.table_metrics import BASELINES, SIDES, TABLE_METRICS, format_value
from hilbound.training.files import write_whole


def fit(settings: dict[str, Any], output: Path | None, *, overwrite: bool, quiet: bool) -> TableRun:
    """Fit a model on a table's training rows and write its run folder.

    Raises:
        InputError: If an option, the table or the folder cannot be used.
    """
    config = TableConfig.create(**settings)
    return TableRun.fit(output, config, overwrite=overwrite, quiet=quiet)


def finish(run: TableRun, out: Console, *, report: bool, quiet: bool) -> None:
    """Measure a new run, write its report if wanted, and say where things are."""
    measured = run.evaluate()
    path = _write_report(run, measured) if report else run.path
    if quiet:
        return
    print_metrics(measured, out)
    data = run.read_json("run.json")["data"]
    out.print(
        f"fitted on {data['train']:,} rows, measured on the {data['test']:,} others; "
        f"columns: {_columns(data)}",
        highlight=False,
    )
    out.print(f"{'report' if report else 'run'}: {path}", soft_wrap=True)


def _columns(data: dict[str, Any]) -> str:
    texts, n = len(data["texts"]), len(data["columns"])
    return f"{n - texts} of numbers, {texts} of texts" if texts else f"{n} of numbers"


def evaluate(path: Path, split: Split, data: str | None) -> dict[str, Any]:
    """Measure a run; see :meth:`TableRun.evaluate`."""
    return TableRun.open(path).with_data(data).evaluate(split)


def report(path: Path, data: str | None, output: Path | None) -> Path:
    """Write a run's report, measuring it first if it was not yet."""
    run = TableRun.open(path).with_data(data)
    measured = (path / "metrics.json").exists()
    found = run.read_json("metrics.json") if measured else run.evaluate()
    return _write_report(run, found, output)


def _write_report(run: TableRun, measured: dict[str, Any], output: Path | None = None) -> Path:
    from hilbound.reports.table_report import TableResult, table_page

    test = run.splits["test"]
    q = run.predict(test.table, run.config.data, "missing")
    facts = run.read_json("run.json")
    page = table_page(TableResult(run.config, facts, measured, q, test.y))
    target = output or run.path / "report.html"
    try:
        return write_whole(target, page)
    except OSError as error:
        raise InputError(
            f"{str(target)!r} cannot be written: {error.strerror}. Name another place (--output)"
        ) from None


def predict(
    path: Path, table: Path, output: Path, *, quantiles: str, unknown: Unknown, form: TextFormat
) -> tuple[int, Path]:
    """Predict new rows into a file, and return their number and its path.

    Raises:
        InputError: If the run, the table, a quantile or the output cannot be used.
    """
    levels = _levels(quantiles)
    check_output(output)
    if output.exists() and table.exists() and output.samefile(table):
        raise InputError(f"output {str(output)!r} is the table itself: choose another file")
    run = TableRun.open(path)
    frame = run.read_new(table, form)
    result = prediction_table(run, frame, str(table), levels, unknown)
    return len(result), write_table(result, output)


def _levels(text: str) -> list[float]:
    try:
        levels = [float(part) for part in text.split(",")]
    except ValueError:
        levels = []
    if not levels or not all(0 < level < 1 for level in levels) or len(set(levels)) < len(levels):
        raise InputError(
            f"--quantiles must be different probabilities between 0 and 1 with commas between "
            f"them, such as 0.05,0.5,0.95, got {text!r}"
        )
    return sorted(levels)


def print_metrics(measured: dict[str, Any], out: Console) -> None:
    """Print what was measured, a table for each target."""
    from rich.markup import escape

    rows = f"{measured['rows']:,} {'test' if measured['split'] == 'test' else 'training'} rows"
    for target, metrics in measured["targets"].items():
        table = Table(title=f"{escape(target)}, {rows}")
        table.add_column("metric")
        for heading in ("model", *BASELINES.values(), "better"):
            table.add_column(heading, justify="right")
        for name, entry in metrics.items():
            info = TABLE_METRICS[name]
            values = (format_value(name, entry[side]) for side in SIDES)
            table.add_row(info.title, *values, info.better)
        out.print(table)
    for name, count in measured["unseen"].items():
        out.print(
            f"{count:,} texts of {name!r} are in no training row and count as missing",
            highlight=False,
            markup=False,
        )
    together = measured["log_score"]
    line = f"log score {together['model']:.4g} ± {measured['log_score_error']:.2g} (standard error)"
    if len(measured["targets"]) > 1:
        line = f"all targets together: {line}, histograms {together['histogram']:.4g}"
    out.print(line, highlight=False)
