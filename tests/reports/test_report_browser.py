"""A run's report in a real browser: no error, no request, no overflow, no serious fault."""

import pytest

from hilbound.evaluation.evaluate import evaluate
from hilbound.reports.run_report import write_report
from support.browser import Visit
from support.tiny_runs import train


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    run = train(tmp_path_factory.mktemp("report") / "run")
    evaluate(run)
    return write_report(run).as_uri()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    run = train(tmp_path_factory.mktemp("images") / "run", data="digits")
    return write_report(run).as_uri()


def test_a_curve_tells_its_values_under_the_pointer(opened, address):
    with Visit(opened, address) as visit:
        mark = visit.page.locator(".curves").first.locator("i").first
        assert not mark.locator("b").is_visible()
        mark.hover()
        assert mark.locator("b").is_visible()
        assert " at " in mark.locator("b").inner_text()


def test_no_mark_covers_another(opened, address):
    """Curves coincide where a run is evaluated on few rows, and each must tell its values."""
    covered = """() => [...document.querySelectorAll(".curves i")].filter((mark) => {
      mark.scrollIntoView({ block: "center" });
      const box = mark.getBoundingClientRect();
      return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2) !== mark;
    }).length"""
    for width in (390, 1280):
        with Visit(opened, address, width=width) as visit:
            assert visit.page.locator(".curves i").count() > 10
            assert visit.page.evaluate(covered) == 0


def test_samples_can_be_drawn_again(opened, images):
    with Visit(opened, images, bypass_csp=True) as visit:
        draws = visit.page.locator(".draws").first
        shown = "img:visible"
        first = draws.locator(shown).get_attribute("src")
        draws.get_by_text("2", exact=True).click()
        assert draws.locator(shown).count() == 1
        assert draws.locator(shown).get_attribute("src") != first
        assert visit.overflow() <= 0
        assert visit.faults() == []


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_a_report_fits_and_fetches_nothing(opened, address, width):
    with Visit(opened, address, width=width) as visit:
        assert visit.errors == []
        assert visit.requests_elsewhere() == []
        assert visit.overflow() <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_is_accessible(opened, address, scheme):
    with Visit(opened, address, color_scheme=scheme, bypass_csp=True) as visit:
        assert visit.faults() == []


@pytest.mark.parametrize("width", [390, 1280])
def test_the_glossary_can_be_read_without_scrolling_sideways(opened, address, width):
    hidden = """() => {
      const box = [...document.querySelectorAll("section")].pop().querySelector("table");
      return box.scrollWidth - box.parentElement.clientWidth;
    }"""
    with Visit(opened, address, width=width) as visit:
        assert visit.page.evaluate(hidden) <= 1
