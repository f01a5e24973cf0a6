"""The report of a table's target: what is predicted, how far to trust it, and by which columns."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hilbound.config import TableConfig
from hilbound.evaluation import calibration
from hilbound.evaluation.calibration import Floats
from hilbound.evaluation.table_metrics import (
    SIDES,
    TABLE_METRICS,
    format_value,
    rows_for_importance,
)
from hilbound.mixture import GaussianMixture
from hilbound.reports import density_plots as plots
from hilbound.reports import lettering
from hilbound.reports.drawing import canvas
from hilbound.reports.glossary import targets_glossary
from hilbound.reports.hover import curve_figure
from hilbound.reports.page import Fact, Figure, Page, Section, Table, figure_uri, render

_SHOWN_DENSITIES = 7
_SHOWN_INTERVALS = 200
_GRID = 400
_BANDS = (0.5, 0.9)


@dataclass(frozen=True)
class TableResult:
    """Everything that the report shows.

    Args:
        config: The options of the run.
        facts: What ``run.json`` holds.
        measured: What ``metrics.json`` holds.
        q: Predictions for the test rows, with batch shape ``(n,)``.
        y: Their targets with shape ``(n, d)``.
    """

    config: TableConfig
    facts: Mapping[str, Any]
    measured: Mapping[str, Any]
    q: GaussianMixture
    y: Floats


def table_page(result: TableResult) -> str:
    """Return the report as one HTML document."""
    targets = result.config.target
    sections: list[Section] = []
    for i, target in enumerate(targets):
        prefix = f"{target}: " if len(targets) > 1 else ""
        q, y = result.q.marginal([i]), result.y[:, i]
        sections += [_predictions(q, y, target, prefix), _trust(q, y, prefix)]
    if result.measured["importance"]:
        sections.append(_importance(result))
    sections += [_metrics(result), _configuration(result), targets_glossary()]
    page = Page(
        title=f"{result.facts['data']['name']}, {' and '.join(targets)}",
        lead=_lead(result),
        facts=_facts(result),
        sections=tuple(sections),
        footer="Made by "
        + ", ".join(f"{name} {number}" for name, number in result.facts["versions"].items())
        + ".",
    )
    return render(page)


def _lead(result: TableResult) -> str:
    data = result.facts["data"]
    names = " and ".join(f"“{target}”" for target in result.config.target)
    n = len(data["columns"])
    return (
        f"The density of {names} given the {n} other column{'s' if n > 1 else ''} of "
        f"{data['name']}: for every row not one number, but how likely each value is. The model "
        f"was fitted on {data['train']:,} rows and is judged here by {data['test']:,} test rows, "
        "drawn at random, that it has never seen."
    )


def _facts(result: TableResult) -> tuple[Fact, ...]:
    measured, data = result.measured, result.facts["data"]
    score = measured["log_score"]
    facts = [
        Fact(
            "Log score",
            f"{score['model']:.3f} ± {measured['log_score_error']:.2g}",
            f"higher is better; without the other columns {score['histogram']:.3f}",
        )
    ]
    for target, metrics in measured["targets"].items():
        prefix = f"{target}: " if len(measured["targets"]) > 1 else ""
        for name in ("rmse", "crps", "coverage_0.9"):
            entry = metrics[name]
            note = f"without the other columns {format_value(name, entry['histogram'])}"
            if name == "coverage_0.9":
                note = f"of the values are inside, {_margin(0.9, measured['rows'])}"
            title = TABLE_METRICS[name].title
            title = "90 % intervals" if name == "coverage_0.9" else title
            facts.append(Fact(prefix + title, format_value(name, entry["model"]), note))
    facts.append(Fact("Rows", f"{data['rows']:,}", f"{data['train']:,} to fit, the rest to test"))
    facts.append(Fact("Time to fit", f"{result.facts['seconds']:.0f} s"))
    return tuple(facts)


def _margin(level: float, n: int) -> str:
    from scipy.stats import binom

    low, high = (100 * float(binom.ppf(p, n, level)) / n for p in (0.025, 0.975))
    return f"where {low:.0f} to {high:.0f} % is within chance"


def _predictions(q: GaussianMixture, y: Floats, target: str, prefix: str) -> Section:
    median = _quantile(q, 0.5)
    order = np.argsort(median, kind="stable")
    figure, ax = canvas(5.6, 3.8)
    few = _evenly(order, _SHOWN_INTERVALS)
    some = _rows(q, few)
    bands = {c: (_quantile(some, 0.5 - c / 2), _quantile(some, 0.5 + c / 2)) for c in _BANDS}
    plots.plot_intervals(ax, median[few], bands, y[few], name=target)
    intervals = Figure(
        figure_uri(figure),
        "intervals of the test rows in the order of their medians, with the values that came",
        f"What is predicted for {'every test row' if len(few) == len(y) else f'{len(few)} rows'}: "
        "one row at each place, from the lowest prediction on the left to the highest.",
    )
    figure, ax = canvas(5.6, 3.8)
    shown = _evenly(order, _SHOWN_DENSITIES)
    part = _rows(q, shown)
    grid = _grid(part, y[shown])
    densities = part.log_prob(torch.from_numpy(grid)[:, None, None]).exp().numpy().T
    plots.plot_fan(ax, grid, densities, y[shown], name=target)
    fan = Figure(
        figure_uri(figure),
        "predicted densities of some test rows with the values that came",
        "Whole densities of a few test rows, from the lowest prediction to the highest, all drawn "
        "to the same height. A wide hill is an uncertain prediction; two hills are two answers.",
    )
    title = f"{prefix}predictions" if prefix else "Predictions"
    return Section(title, lettering.key([target], "target"), (intervals, fan))


def _trust(q: GaussianMixture, y: Floats, prefix: str) -> Section:
    pit = calibration.pit_values(q, y[:, None])
    levels = np.linspace(0.01, 0.99, 99)
    shares = calibration.coverage(pit, levels.tolist())[:, 0]
    figure, ax = canvas()
    plots.plot_coverage(ax, levels, shares, len(y))
    coverage = curve_figure(
        figure,
        "share of values inside their intervals against the intervals' probability",
        "90 % of the values should lie in their 90 % intervals, and so for every level. Below the "
        "diagonal the intervals are too narrow, above it too wide.",
    )
    figure, ax = canvas()
    plots.plot_pit(ax, pit[:, 0])
    histogram = Figure(
        figure_uri(figure),
        "histogram of the predicted probabilities of values lower than what came",
        "The predicted probability of a value below the one that came (PIT). Flat is right. A "
        "valley says too narrow, a hill too wide, a slope too low or too high.",
    )
    figure, ax = canvas()
    plots.plot_spread(ax, q.variance.sqrt().numpy()[:, 0], y - q.mean.numpy()[:, 0])
    spread = Figure(
        figure_uri(figure),
        "errors of the mean against predicted standard deviations",
        "Does the model know where it is uncertain? Groups of rows on the dashed line err as much "
        "as they were predicted to; bars are two standard errors.",
    )
    title = f"{prefix}can it be trusted?" if prefix else "Can it be trusted?"
    return Section(title, "", (coverage, histogram, spread))


def _importance(result: TableResult) -> Section:
    found = result.measured["importance"]
    shown = found[: plots.MOST_COLUMNS]
    figure, ax = canvas(5.6, 0.9 + 0.3 * max(3, len(shown)))
    plots.plot_importance(ax, *([one[key] for one in shown] for key in ("name", "drop", "error")))
    rest = len(found) - len(shown)
    n = rows_for_importance(result.measured["rows"])
    caption = (
        f"By how much the mean log score of {n:,} test rows falls when a column's values are "
        "shuffled among the rows; bars are two standard errors. A column that says the same as "
        "another loses little."
    )
    caption += f" {rest} columns that matter less are not drawn." if rest else ""
    picture = Figure(figure_uri(figure), "nats lost by shuffling each column", caption)
    letters = lettering.key([one["name"] for one in shown])
    return Section("Which columns matter", letters, (picture,))


def _metrics(result: TableResult) -> Section:
    rows = result.measured["rows"]
    tables = []
    for target, metrics in result.measured["targets"].items():
        cells = tuple(
            (
                TABLE_METRICS[name].title,
                *(format_value(name, entry[side]) for side in SIDES),
                TABLE_METRICS[name].better,
                TABLE_METRICS[name].meaning,
            )
            for name, entry in metrics.items()
        )
        columns = ("Metric", "Model", "Histogram", "One Gaussian", "Better", "Meaning")
        tables.append(Table(columns, cells, f"“{target}” on {rows:,} test rows"))
    text = (
        "The model is compared with two predictions that know the training targets and no other "
        "column: a smoothed histogram and one Gaussian. What the model gains over them is what "
        "the columns tell about the target. CRPS and RMSE are in the target's units; log "
        "scores are comparable only for the same target in the same units."
    )
    for name, count in result.measured["unseen"].items():
        text += f"\n\n{count:,} texts of “{name}” are in no training row and count as missing."
    return Section("Metrics", text, (), tuple(tables))


def _configuration(result: TableResult) -> Section:
    data = result.facts["data"]
    options = [
        (name.replace("_", "-"), "–" if value in (None, []) else _listed(value))
        for name, value in result.config.model_dump(mode="json").items()
        if name != "kind"
    ]
    texts = set(data["texts"])
    columns = [(name, "texts" if name in texts else "numbers") for name in data["columns"]]
    text = (
        f"{data['missing']:,} cells of the columns are missing. "
        "To repeat the run: hilbound fit --config config.yaml. To predict new rows: hilbound "
        "predict RUN new.csv -o predictions.csv."
    )
    tables = (
        Table(("Option", "Value"), tuple(options), "Options"),
        Table(("Column", "Holds"), tuple(columns), "Columns that the prediction is made from"),
    )
    return Section("Configuration", text, (), tables)


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _evenly(order: "np.ndarray[tuple[int], np.dtype[np.intp]]", most: int) -> Any:
    """Return at most so many row numbers, evenly spaced in an order, first and last with them."""
    return order[np.unique(np.linspace(0, len(order) - 1, most).round().astype(int))]


def _rows(q: GaussianMixture, rows: Any) -> GaussianMixture:
    v = q.component_variance.expand_as(q.means)
    return GaussianMixture(q.means[rows], v[rows], q.weights[rows], validate_args=False)


def _quantile(q: GaussianMixture, level: float) -> Floats:
    return np.asarray(q.icdf(torch.tensor(level)).squeeze(-1).numpy(), dtype=np.float64)


def _grid(q: GaussianMixture, y: Floats) -> Floats:
    """Return values of the target over which densities are drawn, with shape ``(g,)``."""
    low = min(float(_quantile(q, 0.003).min()), float(y.min()))
    high = max(float(_quantile(q, 0.997).max()), float(y.max()))
    margin = 0.03 * (high - low)
    return np.linspace(low - margin, high + margin, _GRID)
