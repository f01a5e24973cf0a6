"""The report of several runs: their curves in one picture, tables, samples side by side, options.

What the tables say is computed by :mod:`hilbound.evaluation.comparison`, and drawn by
:mod:`hilbound.reports.comparison`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from hilbound.datasets import Dataset
from hilbound.errors import InputError
from hilbound.evaluation.comparison import MEASURED, Group, RunComparison, write_mean
from hilbound.evaluation.telling import Tell, silent
from hilbound.reports.comparison import (
    bounds_table,
    curves_figure,
    heading,
    in_words,
    intervals_figure,
    label,
    settings_table,
    spread_figure,
)
from hilbound.reports.glossary import comparison_glossary
from hilbound.reports.page import Fact, Figure, Page, Section, Table, render, words_of
from hilbound.reports.sample_sections import held_out_picture, sample_picture
from hilbound.training.files import write_whole
from hilbound.training.machine import versions
from hilbound.training.runs import Run

_MOST_PICTURES = 12


def write_comparison(
    comparisons: Sequence[RunComparison], output: Path, *, tell: Tell = silent
) -> Path:
    """Write the page of several runs into one file, and return its path.

    Args:
        comparisons: What :func:`hilbound.evaluation.comparison.compare` returned.
        output: The file.
        tell: Called with a few words before each part of the work.

    Raises:
        InputError: If the file cannot be written.
    """
    page = render(comparison_page(comparisons, tell=tell))
    try:
        return write_whole(output, page)
    except OSError as error:
        raise InputError(
            f"{str(output)!r} cannot be written: {error.strerror}. Name another place (--output)"
        ) from None


def comparison_page(comparisons: Sequence[RunComparison], *, tell: Tell = silent) -> Page:
    """Return the page of several runs."""
    sections: list[Section] = []
    for number, comparison in enumerate(comparisons, 1):
        tell("drawing")
        prefix = f"{number}. {comparison.data.name}: " if len(comparisons) > 1 else ""
        sections += _sections(comparison, prefix)
    members = [member for comparison in comparisons for member in comparison.members]
    facts = (
        *_best(comparisons),
        Fact("Runs", str(len(members))),
        Fact("Settings", str(sum(len(one.groups) for one in comparisons))),
        Fact("Seeds", str(len({member.seed for member in members}))),
    )
    glossary = comparison_glossary(words_of(sections, facts))
    return Page(
        title=f"{len(members)} runs compared",
        lead=_lead(comparisons),
        facts=facts,
        sections=(*sections, glossary),
        footer="Made by " + ", ".join(f"{k} {v}" for k, v in versions().items()) + ".",
    )


def _lead(comparisons: Sequence[RunComparison]) -> str:
    names = ", ".join(dict.fromkeys(f"“{one.data.name}”" for one in comparisons))
    text = (
        f"Runs on {names}. Runs whose options differ only in the seed share a row: it has "
        "the mean over their seeds and, behind ±, the standard deviation. A dash stands for what "
        "was not measured."
    )
    if len(comparisons) > 1:
        text += f"\n\n{apart(comparisons)}"
    return text


def apart(comparisons: Sequence[RunComparison]) -> str:
    """Return a sentence on why runs are in several tables."""
    return (
        f"These runs make {len(comparisons)} tables. Their data differ, or they were measured on "
        "different rows, so values of different tables cannot be compared."
    )


def _best(comparisons: Sequence[RunComparison]) -> Iterator[Fact]:
    """Return the highest coverage, or log score, of each comparison that has several settings."""
    for comparison in comparisons:
        for name, title in (("coverage", "Best coverage"), ("log_score", "Best log score")):
            found = [group for group in comparison.groups if group.values(name)]
            if len(found) > 1:
                best = max(found, key=lambda g: sum(g.values(name)) / len(g.values(name)))
                mean, _, deviation = write_mean(name, best.values(name)).partition(" ± ")
                note = label(best.setting) + (f"; ± {deviation} over seeds" if deviation else "")
                where = f", {comparison.data.name}" if len(comparisons) > 1 else ""
                yield Fact(f"{title}{where}", mean, note)


def _sections(comparison: RunComparison, prefix: str) -> Iterator[Section]:
    yield _results(comparison, f"{prefix}Results")
    bounds = bounds_table(comparison)
    curves = curves_figure(comparison)
    if bounds is not None or curves is not None:
        figures = () if curves is None else (curves,)
        yield Section(f"{prefix}Bounds", "", figures, () if bounds is None else (bounds,))
    pictures = tuple(_pictures(comparison))
    if pictures:
        yield Section(f"{prefix}Samples", _samples_text(comparison), pictures)
    yield _options(comparison, f"{prefix}Options")


def _results(comparison: RunComparison, title: str) -> Section:
    columns = comparison.columns(MEASURED)
    text = f"Measured on {comparison.measured}." if comparison.measured else ""
    notes = [f"{member.name}: {member.note}." for member in comparison.members if member.note]
    text = "\n\n".join([text, *notes])
    if not columns:
        return Section(title, text or "No run was measured: run 'hilbound evaluate' first.")
    table = results_table(comparison, columns)
    caption = "Each point is a run, the bar is the mean over seeds."
    drawn = (spread_figure(comparison.groups, caption), intervals_figure(comparison))
    return Section(title, text, tuple(one for one in drawn if one is not None), (table,))


def results_table(comparison: RunComparison, columns: Sequence[str]) -> Table:
    """Return the table of what was measured, with what stands in the place of the model.

    Args:
        comparison: The runs.
        columns: What to show, by the names of :data:`~hilbound.evaluation.comparison.MEASURED`.
    """
    caption = "Means over seeds ± standard deviations."
    floors = comparison.floors()
    if "real data" in floors:
        caption += " “Real data”: training rows in the place of the samples."
    elif floors:
        caption += " Last rows: predictions that know the training targets and no other column."
    return settings_table(comparison.groups, comparison.telling, columns, caption, floors=floors)


def _samples_text(comparison: RunComparison) -> str:
    text = "One run of each setting, its samples beside the data."
    if len(comparison.groups) > _MOST_PICTURES:
        text += f" The first {_MOST_PICTURES} settings are drawn."
    return text


def _pictures(comparison: RunComparison) -> Iterator[Figure]:
    runs = [
        (group, run)
        for group in comparison.groups[:_MOST_PICTURES]
        if (run := _drawable(group)) is not None
    ]
    if not runs:
        return
    dataset = _dataset(runs[0][1])
    if dataset is not None and (uri := held_out_picture(dataset)) is not None:
        yield Figure(uri, "held-out images", "Held-out images.")
    for group, run in runs:
        try:
            uri = sample_picture(run, _dataset(run))
        except InputError:
            # Weights that are damaged or no numbers draw nothing, and the others still can.
            continue
        if uri is not None:
            told = label(group.setting)
            caption = f"{told[0].upper()}{told[1:]}, seed {run.config.seed}."
            yield Figure(uri, f"samples of {told}", caption)


def _drawable(group: Group) -> Run | None:
    """Return the first run of a group that has weights."""
    for member in group.members:
        if member.run is not None and (member.run.path / "model.safetensors").is_file():
            return member.run
    return None


def _dataset(run: Run) -> Dataset | None:
    """Return the data of a run, or ``None`` if they are gone."""
    try:
        return run.dataset
    except InputError:
        return None


def _options(comparison: RunComparison, title: str) -> Section:
    groups = comparison.groups
    folders = [
        (label(group.setting), str(m.seed), m.name) for group in groups for m in group.members
    ]
    runs = Table(("Setting", "Seed", "Run"), tuple(folders), "Runs")
    if not comparison.differing:
        return Section(title, "All options but the seed are equal.", (), (runs,))
    settings = [group.members[0].settings for group in groups]
    rows = tuple(
        (heading(name), *(in_words(one.get(name)) for one in settings))
        for name in comparison.differing
    )
    headings = ("Option", *(label(group.setting) for group in groups))
    table = Table(headings, rows, "Options that differ. All others are equal.")
    return Section(title, "", (), (table, runs))
