"""Links to experiments whose result is not kept yet.

An experiment's code comes first, and pages may point to it before anyone has run it. On the site
such a link is plain text, which says that the result is to come.
"""

import re
from pathlib import Path

from hilbound.experiments import EXPERIMENTS

EXPERIMENT_PAGES = Path(__file__).resolve().parents[1] / "experiments"
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def is_unmeasured(page: Path) -> bool:
    """Whether a page is that of an experiment which exists, but was not run yet."""
    page = page.resolve()
    known = page.parent.parent == EXPERIMENT_PAGES and page.parent.name in EXPERIMENTS
    return known and not page.parent.exists()


def without_dead_links(text: str, page: Path) -> str:
    """Return the text of a page in which links to experiments that were not run are plain.

    >>> without_dead_links("see [MNIST](mnist.md)", Path("docs/results/index.md"))
    'see [MNIST](mnist.md)'
    """

    def plain(link: re.Match[str]) -> str:
        if not is_unmeasured(page.parent / link[2]):
            return link[0]
        return f"{link[1]} (not measured yet)"

    return _LINK.sub(plain, text)
