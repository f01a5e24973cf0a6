"""The demonstration: three objectives on two embedded data sets, one table, one report.

Networks are small and steps are few, so it takes about a minute. It shows how
hilbound is used, not the best result of each objective.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from hilbound.datasets import Dataset
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.evaluation.evaluate import evaluate
from hilbound.evaluation.quality import METRICS, format_metric
from hilbound.objectives import OBJECTIVES
from hilbound.reports import plots
from hilbound.reports.drawing import canvas
from hilbound.reports.hover import curve_figure
from hilbound.reports.page import Fact, Figure, Page, Section, Table, figure_uri, render
from hilbound.reports.run_report import variance_text
from hilbound.training.fit import fit
from hilbound.training.machine import versions
from hilbound.training.quiet import one_thread
from hilbound.training.runs import Run

_OBJECTIVES = ("nuclear", "scalar", "likelihood")
_COLUMNS = ("coverage", "recall", "frechet_distance", "tightness")
#: The likelihood needs a narrower kernel than the Hilbert-space costs. Images need a wider one than
#: points in the plane.
_SETTINGS: dict[str, dict[str, Any]] = {
    "moons": {"steps": 400, "batch_size": 256, "width": 128, "depth": 3, "noise_dim": 2},
    "digits": {"steps": 500, "batch_size": 256, "width": 256, "noise_dim": 16},
}
_VARIANCES: dict[tuple[str, str], str] = {
    ("moons", "nuclear"): "0.05*median",
    ("moons", "scalar"): "0.05*median",
    ("moons", "likelihood"): "0.005*median",
    ("digits", "nuclear"): "median",
    ("digits", "scalar"): "0.4*median",
    ("digits", "likelihood"): "0.02*median",
}


@dataclass(frozen=True)
class Result:
    """One run of the demonstration.

    Args:
        run: Its folder.
        metrics: Its metrics, each with the model's and the real data's value.
        seconds: How long the training took.
    """

    run: Run
    metrics: dict[str, dict[str, float]]
    seconds: float


def run_demo(output: Path, console: Console, *, quiet: bool = False) -> Path:
    """Train, measure, print the table and write the report.

    Args:
        output: The folder for the report and the six runs. Earlier runs in it are replaced.
        console: Where the table goes.
        quiet: Whether to leave out the progress bars.

    Returns:
        The path of the report.

    Raises:
        InputError: If the folder cannot be written or holds other files.
    """
    _refuse_foreign(output)
    results: list[Result] = []
    with one_thread():
        for data, settings in _SETTINGS.items():
            for objective in _OBJECTIVES:
                if not quiet:
                    console.print(f"[bold]{data}[/], {objective}")
                results.append(_one(output, data, objective, settings, quiet=quiet))
    console.print(_terminal_table(results))
    path = output / "report.html"
    path.write_text(render(_page(results)), encoding="utf-8")
    console.print(f"report: {path}", soft_wrap=True)
    return path


def _refuse_foreign(output: Path) -> None:
    own = {"report.html", *(f"{d}-{o}" for d in _SETTINGS for o in _OBJECTIVES)}
    if output.is_file() or (
        output.is_dir() and any(entry.name not in own for entry in output.iterdir())
    ):
        raise InputError(
            f"output {str(output)!r} holds files that are not the demonstration's: "
            "choose another folder with --output"
        )


def _one(
    output: Path, data: str, objective: str, settings: dict[str, Any], *, quiet: bool
) -> Result:
    began = time.perf_counter()
    run = fit(
        output / f"{data}-{objective}",
        overwrite=True,
        quiet=quiet,
        data=data,
        objective=objective,
        variance=_VARIANCES[data, objective],
        learning_rate=5e-3,
        tensorboard=False,
        **settings,
    )
    seconds = time.perf_counter() - began
    return Result(run, evaluate(run)["metrics"], seconds)


def _cells(result: Result) -> list[str]:
    values = [format_metric(name, result.metrics[name]["model"]) for name in _COLUMNS]
    return [*values, f"{result.seconds:.1f}"]


def _real_cells(result: Result) -> list[str]:
    return [format_metric(name, result.metrics[name]["real"]) for name in _COLUMNS] + ["–"]


def _by_data(results: list[Result]) -> dict[str, list[Result]]:
    return {data: [r for r in results if r.run.config.data == data] for data in _SETTINGS}


def _terminal_table(results: list[Result]) -> RichTable:
    table = RichTable(title="Samples against held-out data", caption=_CAPTION)
    for heading in ("data", "objective"):
        table.add_column(heading, no_wrap=True)
    for name in (*_COLUMNS, "seconds"):
        title = METRICS[name].title if name in METRICS else name.capitalize()
        table.add_column(title, justify="right")
    for data, rows in _by_data(results).items():
        for result in rows:
            table.add_row(data, result.run.config.objective, *_cells(result))
        table.add_row(data, "[dim]real data[/]", *_real_cells(rows[0]), end_section=True)
    return table


_CAPTION = (
    "real data: training rows in place of the samples. Squared cosine: <p,q>^2 / (<p,p><q,q>) at "
    "the median variance, 1 only at q = p."
)


def _page(results: list[Result]) -> Page:
    sections = [_section(data, rows) for data, rows in _by_data(results).items()]
    seconds = sum(result.seconds for result in results)
    best = {
        data: max(rows, key=lambda result: result.metrics["coverage"]["model"])
        for data, rows in _by_data(results).items()
    }
    facts = [
        Fact(
            f"Best coverage, {data}",
            format_metric("coverage", r.metrics["coverage"]["model"]),
            f"{r.run.config.objective}; real data {r.metrics['coverage']['real']:.3f}",
        )
        for data, r in best.items()
    ]
    facts += [Fact("Trainings", str(len(results))), Fact("Training time", f"{seconds:.0f} s")]
    return Page(
        "hilbound, a demonstration",
        "Two data sets, three objectives, the same network and the same number of steps. Every "
        "objective compares the data's Gaussian mixture with the model's. Every objective has a "
        "limit that it cannot pass, so a run can report the share of the limit that it reaches.",
        tuple(facts),
        tuple(sections),
        "Made by " + ", ".join(f"{name} {number}" for name, number in versions().items()) + ".",
    )


def _section(data: str, results: list[Result]) -> Section:
    dataset = results[0].run.dataset
    figures = [_samples_figure(dataset, result) for result in results]
    figure, ax = canvas()
    curves = {}
    for result in results:
        rows = [row for row in result.run.read_bounds() if row["split"] == "train"]
        curves[result.run.config.objective] = (
            [row["step"] for row in rows],
            [row["tightness"] for row in rows],
        )
    plots.plot_tightness(ax, curves)
    caption = (
        "The bound of each objective during training. The tightness of the likelihood is exp(-KL), "
        "which stays near zero for every model in many dimensions."
    )
    figures.append(curve_figure(figure, f"tightness of the bounds on {data}", caption))
    headings = ("Objective", *(METRICS[name].title for name in _COLUMNS), "Seconds")
    cells = [(result.run.config.objective, *_cells(result)) for result in results]
    cells.append(("real data", *_real_cells(results[0])))
    table = Table(headings, tuple(cells), _CAPTION)
    return Section(data.capitalize(), "", tuple(figures), (table,))


def _samples_figure(dataset: Dataset, result: Result) -> Figure:
    objective = result.run.config.objective
    model = result.run.model
    fake = model.sample(500, stream(0, "demo")).to(dataset.test)
    figure, ax = canvas(4.4, 4.2)
    if dataset.image_shape is None:
        plots.plot_points(ax, dataset.test[:500], fake, dataset.log_density)
        alt = f"held-out points and samples, objective {objective}"
    else:
        plots.plot_images(ax, fake[:64].reshape(-1, *dataset.image_shape), columns=8)
        alt = f"64 samples, objective {objective}"
    caption = (
        f"{objective.capitalize()}, kernel variance {variance_text(result.run)}: "
        f"{OBJECTIVES.describe(objective)}."
    )
    return Figure(figure_uri(figure, "png"), alt, caption)
