"""One HTML page that holds everything it shows.

A page is data: a title, a lead, a few facts and sections of text, figures and tables.
:func:`render` turns it into a single file that works from a disk, an e-mail or a web server, today
and in ten years. Pictures are data URIs, the style is inline, and there is no script. A content
security policy forbids the browser to fetch anything. Every text is escaped, so a column called
``<script>`` stays a column.
"""

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING, Literal

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined

from hilbound.errors import InputError

if TYPE_CHECKING:
    from matplotlib import figure

NUMBER = re.compile(r"[-−+±≈<>≤≥]?\s?\d[\d\s.,eE+\-−±/()×]*\s?%?")
EMPTY = ("", "-", "–", "—", "nan", "inf", "-inf")
#: The white border around the content of a picture, in inches.
PAD_INCHES = 0.06
MEDIA = {"svg": "image/svg+xml", "png": "image/png"}


@dataclass(frozen=True)
class Mark:
    """A text that appears when the pointer is on a place of a picture.

    Args:
        left: The place, as a share of the picture's width.
        top: The place, as a share of its height, from above.
        text: What appears.
    """

    left: float
    top: float
    text: str


@dataclass(frozen=True)
class Figure:
    """A picture inside the page.

    Args:
        uri: The picture as a data URI, as :func:`figure_uri` makes it.
        alt: What the picture shows, for readers who cannot see it.
        caption: The text below it.
        marks: Texts that appear under the pointer.
        others: Further pictures of the same size, such as other draws of samples. Readers choose
            which one is shown.
        frames: How many pictures of one size stand side by side in it, to be shown one after the
            other.
        aspect: Width of a frame by its height, if there are several.

    Raises:
        InputError: If the picture lies outside the page or has no alternative text.
    """

    uri: str
    alt: str
    caption: str
    marks: tuple[Mark, ...] = ()
    others: tuple[str, ...] = ()
    frames: int = 1
    aspect: float = 1.0

    def __post_init__(self) -> None:
        for uri in (self.uri, *self.others):
            if not uri.startswith("data:image/"):
                raise InputError(
                    f"uri must be a data URI that starts with 'data:image/', not {uri[:40]!r}: "
                    "make one with figure_uri"
                )
        if not self.alt.strip():
            raise InputError("alt must say in words what the figure shows; it is empty")


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Args:
        columns: Headings of the columns.
        rows: The cells, formatted; each row is as long as ``columns``.
        caption: The text above the table.
        highlight: The index of a row to emphasise, or ``None``.

    Raises:
        InputError: If a row has the wrong length, or ``highlight`` is not the index of a row.

    >>> Table(("Metric", "Model"), (("coverage", "0.93"), ("rank", "–")), "Quality").numeric
    (False, True)
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    highlight: int | None = None

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise InputError(
                    f"rows[{i}] has {len(row)} cells, but columns has {len(self.columns)}"
                )
        if self.highlight is not None and not 0 <= self.highlight < len(self.rows):
            raise InputError(
                f"highlight must be None or from 0 to {len(self.rows) - 1}, not {self.highlight}"
            )

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Whether each column holds numbers, which are aligned to the right."""
        return tuple(_is_numeric([row[i] for row in self.rows]) for i in range(len(self.columns)))


@dataclass(frozen=True)
class Section:
    """A heading with text, figures and tables. Blank lines in the text separate paragraphs."""

    title: str
    text: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Fact:
    """A number with a tile of its own: its name, its value and a note in small print."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Page:
    """Everything on a page, from top to bottom.

    Args:
        title: The heading and the name of the browser's tab.
        lead: One or more paragraphs on what the page shows. Blank lines separate paragraphs.
        facts: Tiles below the lead.
        sections: The body.
        footer: Small print at the end.
    """

    title: str
    lead: str
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...]
    footer: str


def figure_uri(
    fig: "figure.Figure",
    format: Literal["svg", "png"] = "svg",  # noqa: A002 - matplotlib's own name for it
    *,
    dpi: float = 200,
) -> str:
    """Return a matplotlib figure as a data URI. The same figure always gives the same string.

    Args:
        fig: Any figure. :func:`hilbound.reports.drawing.canvas` makes one without pyplot.
        format: ``"svg"`` for lines and text, ``"png"`` for images.
        dpi: Dots per inch of a PNG, and of the rasterised parts of an SVG.

    Raises:
        InputError: If ``format`` is neither.

    >>> from matplotlib.figure import Figure
    >>> figure_uri(Figure())[:26]
    'data:image/svg+xml;base64,'
    """
    if format not in MEDIA:
        raise InputError(f"format must be 'svg' or 'png', not {format!r}")
    # No date, version or random identifier, so that equal runs give equal files.
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[format]
    stream = BytesIO()
    with mpl.rc_context({"svg.hashsalt": "hilbound", "svg.fonttype": "path"}):
        fig.savefig(
            stream,
            format=format,
            dpi=dpi,
            metadata=metadata,
            facecolor="white",
            bbox_inches="tight",
            pad_inches=PAD_INCHES,
        )
    return f"data:{MEDIA[format]};base64,{b64encode(stream.getvalue()).decode('ascii')}"


def render(page: Page) -> str:
    """Return the page as one HTML document that needs no other file.

    >>> html = render(Page("moons", "A run.", (Fact("tightness", "97 %"),), (), "hilbound"))
    >>> html.splitlines()[0], "97 %" in html
    ('<!doctype html>', True)
    """
    return _environment().get_template("page.html.j2").render(page=page)


def words_of(sections: Iterable[Section], facts: Iterable[Fact]) -> str:
    """Return all words of a page, of which a glossary explains some."""
    parts = [f"{fact.label} {fact.note} {fact.value}" for fact in facts]
    for section in sections:
        parts += [section.title, section.text, *(figure.caption for figure in section.figures)]
        for table in section.tables:
            parts += [table.caption, *table.columns, *(cell for row in table.rows for cell in row)]
    return " ".join(parts)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hilbound.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["paragraphs"] = _paragraphs
    return environment


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def _is_numeric(cells: list[str]) -> bool:
    filled = [cell.strip() for cell in cells if cell.strip().lower() not in EMPTY]
    return bool(filled) and all(NUMBER.fullmatch(cell) for cell in filled)
