"""The page of an experiment: what was claimed, what came out, whether it holds.

Markdown, as ``README.md`` in the folder of the result, so that a repository's web view shows it.
Every figure on it is computed from the rows; nothing is written by hand, so a page and its
``result.json`` cannot disagree.
"""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from hilbound.experiments.base import Claim, Experiment, Picture, S
from hilbound.reports.page import Table

if TYPE_CHECKING:
    from hilbound.experiments.runner import Result

_VERDICT = {True: "holds", False: "**fails**", None: "not shown"}


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
            "> This was the quick form: tiny networks, few steps. It shows that the road works; "
            "its figures say nothing about the claims."
        )
    parts.append(_claims(result.claims))
    for picture in experiment.pictures(settings, result.rows, work):
        _save(picture, path / f"{picture.name}.png")
        parts.append(f"![{picture.alt}]({picture.name}.png)\n\n*{picture.caption}*")
    parts += [markdown_table(table) for table in experiment.tables(settings, result.rows)]
    parts += [experiment.notes(settings, result.rows).strip(), _settings(result), _origin(result)]
    page = path / "README.md"
    page.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return page


def _save(picture: Picture, path: Path) -> None:
    """Write a picture in 256 colours: results are kept in a repository, and few need more."""
    buffer = BytesIO()
    picture.figure.savefig(buffer, format="png", dpi=130)
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
    lines = [
        "## What was claimed, and what came out",
        "",
        "| claimed | came out | |",
        "|---|---|---|",
    ]
    lines += [_line((c.claim, c.outcome, _VERDICT[c.holds])) for c in claims]
    reasons = [f"*{c.claim}* {c.reason}" for c in claims if c.reason and not c.holds]
    return "\n".join(lines) + "".join(f"\n\n{reason}" for reason in reasons)


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
