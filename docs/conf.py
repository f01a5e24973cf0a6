"""The site: `make docs` builds it into docs/_build/html, without a network.

MathJax comes from npm when the tools are installed and is copied into the site. Fonts are the
theme's own and the system's. Reference pages are written here from the list of public modules
below.
"""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS / "scripts"))

import reference_pages  # noqa: E402
import unmeasured  # noqa: E402

import hilbound  # noqa: E402
from hilbound.reports.playground import write_playground  # noqa: E402

project = "hilbound"
author = "The hilbound developers"
copyright = author  # noqa: A001 - Sphinx's name
version = release = hilbound.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = [
    "README.md",  # for readers of the repository; the site has index.md
    "_build",
    "_generated",
    "scripts",
    "gallery",
    "**/work*",
    "examples/*.[ipzmcj]*",
]
nitpicky = True
# Names of other packages have no pages here, and local type names are not objects.
nitpick_ignore_regex = [("py:.*", r"(?!hilbound\.).*")]
suppress_warnings = ["config.cache", "mystnb.unknown_mime_type"]

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
autoclass_content = "class"
napoleon_numpy_docstring = False
napoleon_use_ivar = False
python_use_unqualified_type_names = True

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "filename_pattern": "/plot_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "min_reported_time": 20,
    "image_srcset": ["2x"],
}

html_theme = "pydata_sphinx_theme"
html_context = {"default_mode": "auto"}
html_title = "hilbound"
html_static_path = ["_static", "_generated/static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "hilbound"},
    "navbar_end": ["theme-switcher"],
    "navbar_align": "left",
    # The theme's field shows "Search Ctrl+K" and calls itself "Search", which axe-core refuses.
    "navbar_persistent": ["search-button"],
    "header_links_before_dropdown": 8,
    "show_prev_next": False,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},  # the last pattern wins
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": []}
mathjax_path = "mathjax/tex-svg-full.js"
mathjax3_config = {"options": {"enableMenu": False}, "svg": {"fontCache": "global"}}


def _prepare() -> None:
    """Write what pages need and the repository does not keep."""
    static = DOCS / "_generated" / "static"
    write_playground(static / "playground.html")
    reference_pages.write(DOCS / "reference" / "api")
    packages = Path(os.environ.get("HILBOUND_DOCS_PACKAGES", DOCS.parent / ".venv" / "docs"))
    mathjax = packages / "node_modules" / "mathjax" / "es5" / "tex-svg-full.js"
    if not mathjax.is_file():
        raise SystemExit(f"MathJax is missing at {mathjax}: `make docs` fetches it from npm")
    (static / "mathjax").mkdir(exist_ok=True)
    shutil.copyfile(mathjax, static / "mathjax" / mathjax.name)


def _resolve(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Link a name to the page of its home. A name that has no page stays as text."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("hilbound"):
        return None
    home = reference_pages.home_of(target)
    if home is None:
        return None  # nothing has that name: Sphinx warns
    domain = env.get_domain("py")
    if home not in domain.objects:
        return contnode
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", home, node, contnode)


def _skip(*event: Any) -> bool | None:
    """Leave out fields of named tuples, which stand under "Attributes", and scikit-learn's own."""
    _, _, name, obj, *_ = event
    field = type(obj).__name__ == "_tuplegetter"
    inherited = re.fullmatch(r"set_\w+_request|get_metadata_routing", name)
    return True if field or inherited else None


def _read(app: Any, docname: str, source: list[str]) -> None:
    """Make links to experiments plain that nobody has run yet."""
    source[0] = unmeasured.without_dead_links(source[0], Path(app.env.doc2path(docname)))


def setup(app: Any) -> None:
    """Prepare first, because Sphinx then looks for pages."""
    _prepare()
    app.connect("source-read", _read)
    app.connect("autodoc-skip-member", _skip)
    app.connect("missing-reference", _resolve)
