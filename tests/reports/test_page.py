import base64
import re
from dataclasses import FrozenInstanceError, replace
from html.parser import HTMLParser

import matplotlib as mpl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure as Canvas
from PIL import Image

from hilbound.errors import InputError
from hilbound.reports.page import Fact, Figure, Page, Section, Table, figure_uri, render

VOID = {"meta", "img", "br", "hr", "link", "input"}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


class Document(HTMLParser):
    """The elements of a page with their attributes and text; unbalanced tags are an error."""

    def __init__(self, html):
        super().__init__()
        self.open, self.elements, self.text = [], [], {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len(dict(attrs))
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, len(self.elements) - 1))

    def handle_startendtag(self, tag, attrs):
        raise AssertionError(f"<{tag}/> is XML, not HTML: {attrs}")

    def handle_endtag(self, tag):
        assert self.open
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for _, i in self.open:
            self.text[i] = self.text.get(i, "") + data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]

    def texts(self, tag):
        return [
            self.text.get(i, "").strip() for i, (name, _) in enumerate(self.elements) if name == tag
        ]


def a_page(word="moons"):
    table = Table(
        (word, "Model", "better"),
        (("Precision", "0.95", word), ("Recall", "–", word)),
        f"Metrics of {word}",
        highlight=1,
    )
    figure = Figure(PIXEL, f"Curve of {word}", f"A caption on {word}")
    sections = (
        Section(f"Bound {word}", f"One {word}.\n\nTwo {word}.", (figure, figure)),
        Section("Metrics", "", (figure,), (table, table)),
        Section(word, word),
    )
    facts = (Fact(word, "97 %", word), Fact("Variance", word))
    return Page(word, f"Lead: {word}", facts, sections, f"Made of {word}")


def test_the_page_is_balanced_html_with_a_language_and_a_viewport():
    html = render(a_page())
    document = Document(html)
    assert html.startswith("<!doctype html>\n")
    assert document.all("html") == [{"lang": "en"}]
    metas = {
        meta.get("name"): meta["content"] for meta in document.all("meta") if "content" in meta
    }
    assert metas["viewport"] == "width=device-width, initial-scale=1"
    assert document.all("meta")[0] == {"charset": "utf-8"}
    assert document.texts("title") == ["moons"]
    ids = [attrs["id"] for _, attrs in document.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    pointers = [a["aria-labelledby"] for _, a in document.elements if "aria-labelledby" in a]
    pointers += [a["href"].removeprefix("#") for a in document.all("a")]
    assert set(pointers) <= set(ids)


def test_everything_on_the_page_is_shown_in_order():
    document = Document(render(a_page()))
    assert document.texts("h1") == ["moons"]
    assert document.texts("h2") == ["Bound moons", "Metrics", "moons"]
    assert document.texts("p") == [
        "Lead: moons",
        "One moons.",
        "Two moons.",
        "moons",
        "Made of moons",
    ]
    assert document.texts("dt") == ["moons", "Variance"]
    assert document.texts("dd") == ["97 %", "moons", "moons"]
    levels = [int(tag[1]) for tag, _ in document.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels == [1, 2, 2, 2]


def test_tables_have_headings_with_scope_aligned_numbers_and_a_marked_row():
    document = Document(render(a_page()))
    heads = document.all("th")
    assert [head["scope"] for head in heads] == 2 * (["col"] * 3 + ["row"] * 2)
    assert document.texts("th")[:5] == ["moons", "Model", "better", "Precision", "Recall"]
    assert document.texts("td")[:4] == ["0.95", "moons", "–", "moons"]
    assert [cell.get("class") for cell in document.all("td")[:4]] == ["number", None] * 2
    assert [row.get("class") for row in document.all("tr")[:3]] == [None, None, "highlight"]


def test_every_figure_has_its_picture_alternative_text_and_caption():
    document = Document(render(a_page()))
    assert document.all("img") == [{"src": PIXEL, "alt": "Curve of moons"}] * 3
    assert document.texts("figcaption").count("A caption on moons") == 3


def test_the_page_needs_nothing_but_itself():
    html = render(a_page())
    document = Document(html)
    assert not re.search(r"https?://|//[a-z]|@import|url\(", html)
    tags = {tag for tag, _ in document.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for _, attrs in document.elements:
        assert attrs.get("src", "data:").startswith("data:")
        assert attrs.get("href", "#").startswith("#")
        assert not any(name.startswith("on") for name in attrs)
    policy = next(m["content"] for m in document.all("meta") if m.get("http-equiv"))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@pytest.mark.parametrize(
    "word",
    ["<script>alert(1)</script>", '" onload="x', "</title></style><b>", "a & b &lt; {{ 7 }}"],
)
def test_what_users_type_stays_text(word):
    plain, hostile = Document(render(a_page())), Document(render(a_page(word)))
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]
    assert [sorted(a) for _, a in hostile.elements] == [sorted(a) for _, a in plain.elements]
    assert hostile.texts("title") == hostile.texts("h1") == [word]
    assert hostile.texts("th")[0] == word
    assert hostile.all("img")[0]["alt"] == f"Curve of {word}"


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), min_size=1))
def test_any_text_comes_back_from_the_page(word):
    document = Document(render(a_page(word)))
    assert document.texts("dt")[0] == word
    assert document.texts("h2")[2] == word


def test_an_empty_page_has_no_empty_furniture():
    tags = {tag for tag, _ in Document(render(Page("t", "", (), (), ""))).elements}
    assert not tags & {"dl", "nav", "section", "footer", "figure", "p"}


def test_light_and_dark_print_and_phones_are_thought_of():
    style = Document(render(a_page())).texts("style")[0]
    assert style.count("{") == style.count("}")
    used, known = set(re.findall(r"var\((--[\w-]+)\)", style)), re.findall(r"(--[\w-]+):", style)
    # Each colour has a value for light, for dark and for paper. The number of frames is none.
    used.discard("--frames")
    assert {name: known.count(name) for name in used} == dict.fromkeys(used, 3)
    assert "@media (prefers-color-scheme: dark)" in style
    assert "@media print" in style
    assert "overflow-x: auto" in style
    classes = {
        c for _, a in Document(render(a_page())).elements for c in a.get("class", "").split()
    }
    assert set(re.findall(r"\.([a-z]+)(?=[ ,:.>{])", style)) >= classes - {"plain"}


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [
        (["0.95", "1,234.5", "-3"], True),
        (["97.3 %", "–"], True),
        (["−1.2e-05", "0.91 ± 0.02"], True),
        (["", "–"], False),
        (["2 moons", "1"], False),
        (["higher"], False),
    ],
)
def test_columns_of_numbers_are_known(cells, numeric):
    assert Table(("x",), tuple((cell,) for cell in cells), "").numeric == (numeric,)


def line_chart():
    figure = Canvas(figsize=(2, 1))
    figure.add_subplot().plot([0, 1], [0, 1])
    return figure


def payload(uri):
    return base64.b64decode(uri.split(",", 1)[1], validate=True)


def test_svg_uris_are_vectors_on_white_without_date_or_network():
    uri = figure_uri(line_chart())
    assert uri.startswith("data:image/svg+xml;base64,")
    svg = payload(uri).decode()
    assert "<svg" in svg
    assert "fill: #ffffff" in svg
    assert "<dc:date>" not in svg
    assert "Matplotlib" not in svg
    assert "<text" not in svg  # letters are outlines: no font is needed


def test_png_uris_hold_pictures_at_the_resolution_asked_for(tmp_path):
    sizes = []
    for dpi in (50, 200):
        path = tmp_path / f"{dpi}.png"
        path.write_bytes(payload(figure_uri(line_chart(), "png", dpi=dpi)))
        with Image.open(path) as image:
            sizes.append(image.size)
            assert image.getpixel((0, 0)) == (255, 255, 255, 255)
            assert "Software" not in image.info
    assert sizes[1][0] == pytest.approx(4 * sizes[0][0], rel=0.03)


@pytest.mark.parametrize("medium", ["svg", "png"])
def test_equal_figures_give_equal_uris_and_no_setting_changes(medium):
    before = mpl.rcParams.copy()
    assert figure_uri(line_chart(), medium) == figure_uri(line_chart(), medium)
    assert mpl.rcParams.copy() == before


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: figure_uri(Canvas(), "pdf"), "format"),
        (lambda: Figure("https://example.org/x.png", "x", ""), "uri"),
        (lambda: Figure("x.png", "x", ""), "uri"),
        (lambda: Figure(PIXEL, "  ", ""), "alt"),
        (lambda: Table(("a", "b"), (("1", "2"), ("3",)), ""), r"rows\[1\]"),
        (lambda: Table(("a",), (("1",),), "", highlight=1), "highlight"),
        (lambda: Table(("a",), (("1",),), "", highlight=-1), "highlight"),
    ],
)
def test_what_would_break_a_page_is_refused_by_name(make, name):
    with pytest.raises(InputError, match=f"^{name} "):
        make()


def test_pages_are_values():
    page = a_page()
    assert page == a_page()
    assert replace(page, title="x").title == "x"
    with pytest.raises(FrozenInstanceError):
        page.title = "y"


def test_a_table_of_many_columns_names_every_cell_for_a_narrow_screen():
    table = Table(("Metric", "Model", "Real", "Better"), (("recall", "0.9", "1.0", "higher"),), "Q")
    narrow = Table(("Option", "Value"), (("steps", "3"),), "Options")
    html = render(Page("t", "l", (), (Section("s", "", (), (table, narrow)),), ""))
    assert html.count('class="stacked"') == 1
    for label, cell in (("Model", "0.9"), ("Real", "1.0"), ("Better", "higher")):
        assert re.search(rf'<td role="cell" data-label="{label}"[^>]*>{cell}</td>', html)
    assert '<td role="cell" class="number">3</td>' in html
    # A block is no table to a screen reader unless it is called one.
    assert html.count('role="row"') == 4
