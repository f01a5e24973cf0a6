"""A real browser and a JavaScript engine; tests skip with a reason where they are absent."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / ".venv" / "browser" / "node_modules" / "axe-core" / "axe.min.js"
HOW = "`make browser` installs it"
# Findings of these weights are faults; minor ones are advice.
SERIOUS = {"serious", "critical"}


def chromium() -> str:
    """Return the path of Debian's Chromium, or of the one that HILBOUND_CHROMIUM names."""
    found = shutil.which(os.environ.get("HILBOUND_CHROMIUM") or "chromium")
    if found is None:
        pytest.skip(f"no chromium on this machine: {HOW}")
    return found


@contextmanager
def browser() -> Iterator[Any]:
    """Yield a browser that Playwright drives."""
    api = pytest.importorskip("playwright.sync_api", reason=f"no Playwright: {HOW}")
    with api.sync_playwright() as playwright:
        # Tests may run as root in a container, where Chromium's own sandbox cannot start.
        opened = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield opened
        finally:
            opened.close()


class Visit:
    """One page, with everything that went wrong on it.

    Args:
        opened: A browser.
        address: The address of the page.
        width: The width of the window, in pixels.
        options: Further options of the browser's context.
    """

    def __init__(self, opened: Any, address: str, width: int = 1280, **options: Any) -> None:
        self.context = opened.new_context(viewport={"width": width, "height": 860}, **options)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)

    def _hear(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.errors.append(message.text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def wait_until(self, expression: str, seconds: float = 20) -> None:
        """Wait until a JavaScript expression is true. Playwright's own way needs eval."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, f"after {seconds} s still not: {expression}"
            self.page.wait_for_timeout(30)

    def requests_elsewhere(self) -> list[str]:
        """Return the requests that left the machine."""
        return [url for url in self.requests if not url.startswith(("file:", "data:", "blob:"))]

    def overflow(self) -> float:
        """Return by how many pixels the page is wider than its window."""
        return float(
            self.page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
        )

    def faults(self) -> list[str]:
        """Return what axe-core finds serious."""
        if not AXE.is_file():
            pytest.skip(f"no axe-core: {HOW}")
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run()")["violations"]
        return [
            f"{fault['id']}: {fault['help']}: {node['html'][:160]}"
            for fault in found
            if fault["impact"] in SERIOUS
            for node in fault["nodes"]
        ]


def run_javascript(source: str) -> Any:
    """Return the value of an expression after some scripts, by Node or else by Chromium."""
    node = shutil.which("node")
    if node is not None:
        program = f"process.stdout.write(JSON.stringify((() => {{ {source} }})()))"
        done = subprocess.run(  # noqa: S603
            [node, "-"], input=program, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)
    with browser() as opened, Visit(opened, "about:blank") as visit:
        return json.loads(visit.page.evaluate(f"JSON.stringify((() => {{ {source} }})())"))
