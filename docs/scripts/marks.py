"""How the experiments put their tables into pages that are otherwise written by hand."""

from pathlib import Path


def fill(page: Path, mark: str, text: str) -> None:
    """Replace what stands between ``<!-- MARK: begin -->`` and ``<!-- MARK: end -->`` of a page.

    Raises:
        ValueError: If the page does not have both, in this order.
    """
    begin, end = f"<!-- {mark}: begin -->\n", f"<!-- {mark}: end -->"
    before, first, rest = page.read_text(encoding="utf-8").partition(begin)
    _, second, after = rest.partition(end)
    if not (first and second):
        raise ValueError(f"{page} has no {begin.strip()} with {end} after it")
    page.write_text(f"{before}{begin}{text}{end}{after}", encoding="utf-8")
