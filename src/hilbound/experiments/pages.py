"""The page of an experiment: what was claimed, what came out, whether it holds.

Markdown, as ``README.md`` in the folder of the result, so that a repository's web view shows it.
Every figure on it is computed from the rows; nothing is written by hand, so a page and its
``result.json`` cannot disagree.
"""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from hilbound.experiments.base import Claim, Experiment, S
from hilbound.reports.page import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hilbound.experiments.runner import Result

_VERDICT: dict[bool | None, str] = {True: "holds", False: "**fails**", None: "not shown"}
_CHECK: dict[bool | None, str] = {True: "as proved", False: "**broken**", None: "not checked"}


def write_page(
    experiment: Experiment[S], settings: S, result: "Result", path: Path, work: Path
) -> Path:
    """Write ``README.md`` and its pictures into the folder of the result.

    Args:
        experiment: The experiment.
        settings: Its settings.
        result: What it found.
        path: The folder.
        work: The folder of the cells' folders.
    """
    parts = [f"# {experiment.title}", experiment.question.strip()]
    if result.quick:
        parts.append(
            "> This was the quick form: tiny networks, few steps. It shows that everything runs; "
            "its figures say nothing about the claims."
        )
    parts.append(_claims(result.claims))
    for picture in experiment.pictures(settings, result.rows, work):
        file = path / f"{picture.name}.png"
        if picture.figure is not None:
            _save(picture.figure, file)
        elif not file.exists():
            continue
        parts.append(f"![{picture.alt}]({picture.name}.png)\n\n*{picture.caption}*")
    parts += [markdown_table(table) for table in experiment.tables(settings, result.rows)]
    parts += [experiment.notes(settings, result.rows).strip(), _settings(result), _origin(result)]
    page = path / "README.md"
    page.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return page


def _save(figure: "Figure", path: Path) -> None:
    """Write a picture in 256 colours: results are kept in a repository, and few need more."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(256).save(path, optimize=True)


def markdown_table(table: Table) -> str:
    """Return a table as Markdown, its caption above, numbers to the right.

    >>> print(markdown_table(Table(("cost", "recall"), (("nuclear", "0.71"),), "Quality")))
    **Quality**
    <BLANKLINE>
    | cost | recall |
    |---|--:|
    | nuclear | 0.71 |
    """
    rule = "|" + "|".join("--:" if numeric else "---" for numeric in table.numeric) + "|"
    rows = []
    for i, cells in enumerate(table.rows):
        marked = [f"**{c}**" if i == table.highlight and c else c for c in cells]
        rows.append(_line(marked))
    return "\n".join([f"**{table.caption}**", "", _line(table.columns), rule, *rows])


def _line(cells: tuple[str, ...] | list[str]) -> str:
    # A bar inside a cell would begin another one.
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _claims(claims: list[Claim]) -> str:
    """Return the findings, and apart from them what is proved and was only checked."""
    findings = [claim for claim in claims if not claim.theorem]
    theorems = [claim for claim in claims if claim.theorem]
    parts = []
    if findings:
        parts.append("## What was claimed, and what came out\n\n" + _verdicts(findings, _VERDICT))
    reasons = [f"*{c.claim}* {c.reason}" for c in claims if c.reason and not c.holds]
    parts += reasons
    if theorems:
        parts.append(
            "## What is proved, and was checked\n\nThese are theorems, or hold by construction. "
            "They are no findings: that they come out says that the program is right.\n\n"
            + _verdicts(theorems, _CHECK)
        )
    return "\n\n".join(parts)


def _verdicts(claims: list[Claim], words: dict[bool | None, str]) -> str:
    lines = ["| claimed | came out | |", "|---|---|---|"]
    return "\n".join(lines + [_line((c.claim, c.outcome, words[c.holds])) for c in claims])


def _settings(result: "Result") -> str:
    rows = tuple((name, f"`{value}`") for name, value in result.settings.items())
    return "## Settings\n\n" + markdown_table(Table(("setting", "value"), rows, "The same for all"))


def _origin(result: "Result") -> str:
    quick = " --quick" if result.quick else ""
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return (
        "## Where the figures come from\n\n"
        f"`hilbound experiment {result.experiment}{quick} --seeds {len(result.seeds)}` wrote this "
        "page, its pictures and [`result.json`](result.json), which has every number with its "
        f"seed. {len(result.rows)} cells, {result.seconds / 60:.0f} minutes of one process in all; "
        f"seeds {', '.join(map(str, result.seeds))}. {result.machine}; {versions}."
    )
