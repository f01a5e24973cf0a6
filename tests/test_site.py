"""The site: pages fit together, and the built start page works in a browser without network."""

import json
import re
from pathlib import Path

import pytest

from hilbound.experiments import get_experiment
from support.browser import Visit, browser

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BUILT = DOCS / "_build" / "html" / "index.html"
SECTIONS = ("start", "guide", "theory", "reference", "results", "internals")
GALLERY = sorted((DOCS / "gallery").glob("plot_*.py"))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_has_a_page_that_leads_on(section):
    page = (DOCS / section / "index.md").read_text(encoding="utf-8")
    assert page.startswith("# ")
    assert "```{toctree}" in page


def test_every_page_is_in_a_section():
    """What no table of contents lists, nobody finds."""
    listed = set()
    for index in DOCS.rglob("index.md"):
        block = re.findall(
            r"```\{toctree\}\n(.*?)```", index.read_text(encoding="utf-8"), re.DOTALL
        )
        for line in "\n".join(block).split("\n"):
            if line and not line.startswith(":"):
                place = re.sub(r".*<(.+)>", r"\1", line)
                listed |= {p.resolve() for p in index.parent.glob(f"{place}.md")}
    unlisted = {p.resolve() for p in DOCS.glob("*.md")} | {
        p.resolve() for s in SECTIONS for p in (DOCS / s).glob("*.md")
    }
    assert {p.name for p in unlisted - listed} - {"index.md", "README.md"} == set()


def test_readers_of_the_repository_find_every_page():
    """GitHub shows README.md beside the files of a folder."""
    text = (DOCS / "README.md").read_text(encoding="utf-8")
    linked = {(DOCS / link).resolve() for link in re.findall(r"\]\(([^)]+)\)", text)}
    pages = {*DOCS.glob("*.md"), *(p for s in SECTIONS for p in (DOCS / s).glob("*.md"))}
    assert {p.name for p in pages if p.resolve() not in linked} - {"index.md", "README.md"} == set()


def test_the_gallery_has_a_title():
    """The gallery is read as reStructuredText, in which a Markdown heading is no title."""
    (header,) = (DOCS / "gallery").glob("README*")
    assert header.suffix == ".rst"
    assert header.read_text(encoding="utf-8").startswith("Gallery\n=======\n")


def test_the_gallery_has_short_lessons_with_titles():
    assert len(GALLERY) >= 15
    for script in GALLERY:
        text = script.read_text(encoding="utf-8")
        assert re.match(r'r?"""\n[^\n]+\n=+\n\n', text), script.name
        assert len(text.splitlines()) < 90, script.name
        assert "plt." in text, script.name


def test_public_modules_of_the_reference_exist(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "scripts"))
    import reference_pages

    for modules in reference_pages.PUBLIC.values():
        for module in modules:
            path = ROOT / "src" / "hilbound" / Path(*module.split("."))
            assert path.with_suffix(".py").is_file() or path.is_dir(), module


def test_pages_of_modules_that_are_gone_go_too(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(DOCS / "scripts"))
    import reference_pages

    monkeypatch.setattr(reference_pages, "PUBLIC", {"Ground": ("errors",)})
    (tmp_path / "hilbound.gone.md").touch()
    reference_pages.write(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"hilbound.errors.md", "modules.md"}


@pytest.fixture(scope="module")
def start_page():
    if not BUILT.is_file():
        pytest.skip("the site is not built: `make docs` builds it and runs these tests")
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("width", [390, 1280])
def test_the_start_page_works_without_network(start_page, width):
    with Visit(start_page, BUILT.as_uri(), width=width) as visit:
        visit.page.wait_for_load_state("networkidle")
        assert visit.errors == []
        assert visit.requests_elsewhere() == []
        assert visit.overflow() <= 0


PLACES = ("theory/bounds", "examples/index", "reference/api/hilbound.functional", "guide/compare")


@pytest.mark.parametrize("place", PLACES)
def test_every_kind_of_page_has_a_title_and_fits_a_phone(start_page, place):
    with Visit(start_page, (BUILT.parent / f"{place}.html").as_uri(), width=390) as visit:
        assert visit.errors == []
        assert visit.requests_elsewhere() == []
        assert visit.overflow() <= 0
        assert "no title" not in visit.page.title() + visit.page.locator("nav").first.inner_text()
        assert visit.page.locator("h1").first.evaluate("(h) => h.scrollWidth - h.clientWidth") <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_start_page_is_accessible(start_page, scheme):
    with Visit(start_page, BUILT.as_uri(), color_scheme=scheme, bypass_csp=True) as visit:
        visit.page.wait_for_load_state("networkidle")
        assert visit.faults() == []


@pytest.mark.usefixtures("start_page")
def test_links_of_the_built_site_lead_somewhere(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "scripts"))
    import check_links

    assert check_links.faults(BUILT.parent.resolve()) == []


def _anchors(page: Path) -> set[str]:
    """Return the places of a page that a link can name: its headings, as GitHub writes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    plain = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", one.strip().lower()).replace(" ", "-") for one in plain}


@pytest.fixture
def unmeasured(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / "scripts"))
    import unmeasured

    return unmeasured


def test_links_to_experiments_that_were_not_run_are_plain_on_the_site(unmeasured, monkeypatch):
    monkeypatch.setattr(unmeasured, "EXPERIMENT_PAGES", DOCS / "nowhere")
    page = DOCS / "results" / "index.md"
    link = "[peers](../nowhere/peers/README.md#a), [a](mnist.md), [b](../nowhere/x/README.md)"
    assert unmeasured.without_dead_links(link, page) == (
        "peers (not measured yet), [a](mnist.md), [b](../nowhere/x/README.md)"
    )


def test_no_picture_of_the_pages_is_large():
    pictures = [
        p for p in DOCS.rglob("*.*") if p.suffix in {".png", ".gif", ".svg", ".jpg", ".webp"}
    ]
    kept = [p for p in pictures if not {"_build", "_generated", "examples"} & set(p.parts)]
    assert kept
    assert [p.name for p in kept if p.stat().st_size > 300_000] == []


KEPT = sorted(page.parent.name for page in DOCS.glob("experiments/*/README.md"))


@pytest.mark.parametrize("name", KEPT)
def test_the_page_of_an_experiment_asks_what_the_experiment_asks(name):
    folder, experiment = DOCS / "experiments" / name, get_experiment(name)
    kept = json.loads((folder / "result.json").read_text(encoding="utf-8"))["settings"]
    if kept != json.loads(experiment.settings(quick=False).model_dump_json()):
        pytest.skip(f"the figures are of other settings: hilbound experiment {name} renews them")
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {experiment.title}\n\n{experiment.question.strip()}\n\n")


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
WRITTEN = [p for p in PAGES if not {"_build", "_generated", "api", "examples"} & set(p.parts)]


@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_of_a_page_lead_somewhere_in_the_repository(page, unmeasured):
    """Pages are read in the repository as well as on the site."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, place = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if unmeasured.is_unmeasured(target):
            continue
        if not target.exists() or (
            place and target.suffix == ".md" and place not in _anchors(target)
        ):
            broken.append(link)
    assert broken == []
