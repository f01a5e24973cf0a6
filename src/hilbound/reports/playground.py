"""The playground: one page on which people draw points and watch objectives at work.

The page is joined from the parts in ``templates/playground``: mathematics, simulation, drawing and
controls in plain JavaScript, and a style. The result is one file that fetches nothing. Its numbers
are those of :mod:`hilbound.functional`.
"""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

import hilbound
from hilbound.errors import InputError

#: The scripts that compute. They also run in a worker, and in tests without a page.
ENGINE = ("linear.js", "costs.js", "simulation.js")
#: The scripts that need a page.
FACE = ("drawing.js", "editing.js", "face.js")


def playground_page() -> str:
    """Return the playground as one HTML document that needs no other file.

    >>> playground_page().splitlines()[0]
    '<!doctype html>'
    """
    # Nothing is escaped: every part is this package's own text.
    environment = Environment(
        loader=PackageLoader("hilbound.reports", "templates/playground"),
        autoescape=False,  # noqa: S701
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html.j2").render(
        style=_joined(("style.css",)),
        engine=engine_source(),
        face=_joined(FACE),
        version=hilbound.__version__,
    )


def engine_source() -> str:
    """Return the JavaScript of the mathematics and the simulation, which needs no page.

    >>> "function nuclear(" in engine_source()
    True
    """
    return _joined(ENGINE)


def write_playground(path: Path) -> Path:
    """Write the playground to a file, and return its path.

    Args:
        path: An ``.html`` file. Missing folders are made.

    Raises:
        InputError: If the name does not end in ``.html``, or is that of a folder.
    """
    if path.suffix.lower() not in {".html", ".htm"} or path.is_dir():
        raise InputError(f"output must be the name of an .html file, got {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(playground_page(), encoding="utf-8")
    return path


def _joined(names: tuple[str, ...]) -> str:
    folder = Path(__file__).parent / "templates" / "playground"
    return "\n".join((folder / name).read_text(encoding="utf-8") for name in names)
