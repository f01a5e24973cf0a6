"""The report of a sweep: a figure, a table of means over seeds, and what failed."""

from pathlib import Path
from typing import Any, Protocol

from hilbound.evaluation.comparison import Group, write_mean
from hilbound.reports.comparison import label, settings_table, spread_figure
from hilbound.reports.page import Fact, Page, Section, Table, render
from hilbound.training.files import write_whole
from hilbound.training.machine import processor, versions

_SHOWN = ("coverage", "precision", "recall", "frechet_distance", "bound_tightness", "seconds")


class SweepLike(Protocol):
    """What a report needs of a sweep."""

    path: Path
    varied: tuple[str, ...]

    def groups(self) -> list[Group]:
        """Return every setting with the trainings of its seeds."""

    def best(self) -> dict[str, Any] | None:
        """Return the setting with the highest mean coverage of validation rows."""


def write_sweep_report(sweep: Any) -> Path:
    """Write ``report.html`` into the folder of a sweep, and return its path."""
    return write_whole(sweep.path / "report.html", render(sweep_page(sweep)))


def sweep_page(sweep: SweepLike) -> Page:
    """Return the page of a sweep."""
    best, groups = sweep.best(), sweep.groups()
    members = [(group, member) for group in groups for member in group.members]
    failed = [(group, member) for group, member in members if member.note]
    facts = [
        Fact("Settings", str(len(groups))),
        Fact("Trainings", str(len(members)), f"{len(failed)} failed" if failed else ""),
    ]
    if best is not None:
        values = next(group for group in groups if group.setting == best).values("coverage")
        mean = write_mean("coverage", values).partition(" ±")[0]
        facts.insert(0, Fact("Best coverage", mean, label(best)))
    picture = spread_figure(
        groups, "Each point is a training, the bar is the mean over seeds. Validation rows."
    )
    figures = () if picture is None else (picture,)
    sections = [Section("Results", _LEAD, figures, (table_of(sweep),))]
    if failed:
        lines = [(label(group.setting), str(one.seed), one.note) for group, one in failed]
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


def table_of(sweep: SweepLike) -> Table:
    """Return the table of all settings."""
    best, groups = sweep.best(), sweep.groups()
    place = [group.setting for group in groups].index(best) if best is not None else None
    return settings_table(groups, sweep.varied, _SHOWN, "Settings", highlight=place)
