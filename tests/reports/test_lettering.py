"""Names of any script stand in pictures, or the page says what stands there in their place."""

from types import SimpleNamespace

import pytest
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

from hilbound.reports import lettering
from hilbound.reports.drawing import canvas
from hilbound.reports.page import figure_uri


@pytest.fixture
def fonts(monkeypatch):
    """Let only some families be installed, for one test."""

    def only(*names):
        kept = [entry for entry in fontManager.ttflist if entry.name in names]
        monkeypatch.setattr(lettering, "fontManager", SimpleNamespace(ttflist=kept))
        lettering._family.cache_clear()

    yield only
    lettering._family.cache_clear()


def drawn(setter, name):
    """Draw a name, which warns of every letter that is missing; warnings are errors here."""
    figure, ax = canvas()
    lettering.name_axes((getattr(ax, setter), name))
    figure_uri(figure)
    return ax


def test_letters_that_no_font_has_become_a_number_and_the_page_says_which(fonts):
    fonts("DejaVu Sans", "Last Resort High-Efficiency")
    names = ["height", "身長", "$x_{$", "몸무게"]
    labels, families = lettering.names_in_pictures(names)
    assert labels == ["height", "column 2", "$x_{$", "column 4"]
    assert families == ["DejaVu Sans"]
    assert lettering.key(names).endswith(
        "In the pictures column 2 is “身長”, column 4 is “몸무게”."
    )
    assert lettering.key(["身長"], "target").endswith("target is “身長”.")
    assert lettering.key(["größe", "ύψος", "рост"]) == ""
    assert drawn("set_xlabel", "身長").get_xlabel() == "column 1"


def test_another_font_that_has_the_letters_is_taken(fonts):
    fonts("DejaVu Sans", "STIXGeneral")
    own = {e.name: e.fname for e in fontManager.ttflist}
    missing = set(get_font(own["STIXGeneral"]).get_charmap())
    missing -= set(get_font(findfont(FontProperties())).get_charmap())
    letter = chr(min(c for c in missing if chr(c).isprintable() and not chr(c).isspace()))
    labels, families = lettering.names_in_pictures(["plain", letter])
    assert labels == ["plain", letter]
    assert families == ["DejaVu Sans", "STIXGeneral"]
    assert lettering.key([letter]) == ""
    assert drawn("set_ylabel", letter).get_ylabel() == letter


def test_a_preferred_font_comes_before_others(monkeypatch):
    letters = {"a": frozenset(map(ord, "a")), "b": frozenset(map(ord, "字")), "c": {ord("字")}}
    fake = [SimpleNamespace(name=n, fname=f) for n, f in (("Aardvark", "c"), ("Noto Sans", "b"))]
    monkeypatch.setattr(lettering, "fontManager", SimpleNamespace(ttflist=fake))
    monkeypatch.setattr(lettering, "findfont", lambda _: "a")
    monkeypatch.setattr(lettering, "_letters", letters.__getitem__)
    monkeypatch.setattr(lettering, "_own_font", lambda: "DejaVu Sans")
    lettering._family.cache_clear()
    assert lettering._family(frozenset("字")) == "Noto Sans"
    lettering._family.cache_clear()
