"""The report of a sweep: a figure, a table of means over seeds, and what failed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hilbound.evaluation.quality import METRICS, format_metric
from hilbound.reports.drawing import PALETTE, canvas, tidy
from hilbound.reports.page import Fact, Figure, Page, Section, Table, figure_uri, render
from hilbound.training.files import write_whole
from hilbound.training.machine import processor, versions

_SHOWN = ("coverage", "precision", "recall", "frechet_distance")
_PLOTTED = ("coverage", "frechet_distance")


class SweepLike(Protocol):
    """What a report needs of a sweep."""

    path: Path
    varied: tuple[str, ...]
    rows: list[dict[str, Any]]

    def by_setting(self) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Return every setting with the rows of its seeds."""

    def best(self) -> dict[str, Any] | None:
        """Return the setting with the highest mean coverage of validation rows."""


def write_sweep_report(sweep: Any) -> Path:
    """Write ``report.html`` into the folder of a sweep, and return its path."""
    return write_whole(sweep.path / "report.html", render(sweep_page(sweep)))


def sweep_page(sweep: SweepLike) -> Page:
    """Return the page of a sweep."""
    best, groups = sweep.best(), sweep.by_setting()
    failed = [row for row in sweep.rows if row["failure"]]
    facts = [
        Fact("Settings", str(len(groups))),
        Fact("Trainings", str(len(sweep.rows)), f"{len(failed)} failed" if failed else ""),
    ]
    if best is not None:
        rows = next(rows for setting, rows in groups if setting == best)
        coverage = format_metric("coverage", float(np.mean(_values(rows, "coverage"))))
        facts.insert(0, Fact("Best coverage", coverage, label(best)))
    sections = [
        Section("Results", _LEAD, (_figure(groups),) if best else (), (table_of(sweep),)),
    ]
    if failed:
        lines = [(label(row["setting"]), str(row["seed"]), row["failure"]) for row in failed]
        table = Table(("Setting", "Seed", "Reason"), tuple(lines), "Trainings that failed")
        sections.append(Section("Failures", "", (), (table,)))
    return Page(
        "Sweep over " + " and ".join(sweep.varied or ("seeds",)),
        "Every combination was trained with each seed and measured against validation rows.",
        tuple(facts),
        tuple(sections),
        f"{processor()}; " + ", ".join(f"{k} {v}" for k, v in versions().items()) + ".",
    )


_LEAD = (
    "Means over seeds, with the standard deviation where there are several. All values are of "
    "validation rows: choose by them, and measure what was chosen on test rows with "
    "'hilbound evaluate'."
)


def label(setting: Mapping[str, Any]) -> str:
    """Return a setting in words.

    >>> label({"objective": "nuclear", "variance": "median"})
    'objective nuclear, variance median'
    """
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in setting.items()) or "–"


def table_of(sweep: SweepLike) -> Table:
    """Return the table of all settings."""
    groups = sweep.by_setting()
    headings = (*(name.replace("_", " ") for name in sweep.varied), "seeds")
    titles = (*(METRICS[name].title for name in _SHOWN), "Tightness of the bound", "Seconds")
    best = sweep.best()
    highlight = [setting for setting, _ in groups].index(best) if best is not None else None
    cells = []
    for setting, rows in groups:
        own = [str(setting[name]) for name in sweep.varied]
        values = [_mean(name, _values(rows, name)) for name in _SHOWN]
        tightness = [row["tightness"] for row in rows if row.get("tightness") is not None]
        seconds = [row["seconds"] for row in rows if row.get("seconds") is not None]
        whole = f"{float(np.mean(seconds)):.1f}" if seconds else "–"
        cells.append((*own, str(len(rows)), *values, _mean("coverage", tightness), whole))
    return Table((*headings, *titles), tuple(cells), "Settings", highlight)


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [row["metrics"][name] for row in rows if row["metrics"].get(name) is not None]


def _mean(name: str, values: Sequence[float]) -> str:
    if not values:
        return "–"
    mean = format_metric(name, float(np.mean(values)))
    if len(values) == 1:
        return mean
    return f"{mean} ± {format_metric(name, float(np.std(values, ddof=1)))}"


def _figure(groups: Sequence[tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]) -> Figure:
    """Return a picture with a line for each setting: its seeds as points, their mean as a bar."""
    figure, ax = canvas(7.6, 1.0 + 0.32 * len(groups))
    figure.delaxes(ax)
    axes = figure.subplots(1, len(_PLOTTED), sharey=True)
    for axis, name in zip(axes, _PLOTTED, strict=True):
        for place, (_, rows) in enumerate(groups):
            values = _values(rows, name)
            if values:
                axis.plot(values, [place] * len(values), "o", color=PALETTE[0], alpha=0.6, ms=4)
                axis.plot([float(np.mean(values))], [place], "|", color=PALETTE[1], ms=16, mew=2)
        axis.set_xlabel(METRICS[name].title)
        tidy(axis)
    axes[0].set_yticks(range(len(groups)))
    # A setting is the user's text, and a $ in it is no formula.
    axes[0].set_yticklabels([label(setting) for setting, _ in groups], parse_math=False)
    axes[0].invert_yaxis()
    caption = "Each point is a training, the bar is the mean over seeds. Validation rows."
    return Figure(figure_uri(figure), "metrics of every setting", caption)
