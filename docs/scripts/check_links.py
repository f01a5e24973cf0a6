"""Check a built site: every internal link leads somewhere, and nothing is loaded from elsewhere.

    python docs/scripts/check_links.py docs/_build/html

Links to other sites are allowed in text. Scripts, styles, pictures and fonts must be the site's
own.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}
# Links that only tell where something is.
TELLS = {"canonical", "license", "author", "search", "next", "prev", "index"}


class Page(HTMLParser):
    """The anchors of a page, its links, and what it loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Read one tag."""
        found = dict(attrs)
        self.anchors |= {found[name] or "" for name in ("id", "name") if name in found}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"] or "")
        told = set((found.get("rel") or "").split()) & TELLS
        address = found.get(LOADS.get(tag, ""))
        if address and not told:
            self.loads.append(address)


def faults(root: Path) -> list[str]:
    """Return what is wrong with the site in a folder."""
    # The theme copies a template of its own, which is no page.
    files = [file for file in sorted(root.rglob("*.html")) if file.name != "webpack-macros.html"]
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in files}
    found = []
    for file, page in pages.items():
        where = file.relative_to(root)
        found += [f"{where} loads {url}" for url in page.loads if _is_elsewhere(url)]
        own = [url for url in page.links + page.loads if not _is_elsewhere(url)]
        found += [f"{where}: {url} {why}" for url in own if (why := _broken(file, url, pages))]
    for sheet in sorted(root.rglob("*.css")):
        text = sheet.read_text(encoding="utf-8")
        urls = re.findall(
            r"url\(\s*['\"]?(https?://[^)'\"]+)|@import\s+['\"](https?://[^'\"]+)", text
        )
        found += [f"{sheet.relative_to(root)} loads {a or b}" for a, b in urls]
    return found


def _is_elsewhere(url: str) -> bool:
    return urlsplit(url).scheme in {"http", "https"} or url.startswith("//")


def _broken(file: Path, url: str, pages: dict[Path, Page]) -> str | None:
    parts = urlsplit(url)
    if parts.scheme or url == "#":
        return None
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return "leads to no file"
    if parts.fragment and target in pages and target.suffix == ".html":
        # The playground reads settings from its fragment.
        known = pages[target].anchors | {""}
        if unquote(parts.fragment) not in known and "=" not in parts.fragment:
            return "leads to no such place"
    return None


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]).resolve())
    print("\n".join(wrong) or "every link leads somewhere, and nothing is loaded from elsewhere")
    sys.exit(bool(wrong))
