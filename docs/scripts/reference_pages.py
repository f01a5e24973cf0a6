"""Write one reference page for every public module, and the page that lists them.

The list below says what is public. Its sections are the rooms of
``docs/internals/architecture.md``. ``docs/conf.py`` calls :func:`write` when the site is built.
"""

import importlib
from pathlib import Path

#: What users import, by room.
PUBLIC: dict[str, tuple[str, ...]] = {
    "The table": ("functional", "bounds", "variance"),
    "Mixtures": ("mixture.base", "mixture.gaussian", "mixture.full", "mixture.inner"),
    "Objectives": (
        "objectives.base",
        "objectives.blocks",
        "objectives.marginal",
        "objectives.paired",
        "objectives.debiased",
        "objectives.joint",
    ),
    "Ground": ("config", "errors", "registry"),
    "Engine": (
        "engine.gram",
        "engine.inverse",
        "engine.seeding",
        "engine.pairs.sums",
        "engine.spectrum.norms",
        "engine.spectrum.plan",
        "engine.spectrum.svd",
        "engine.spectrum.low_rank",
        "engine.spectrum.certificate",
        "engine.univariate",
    ),
    "Data": ("datasets.base", "datasets.catalogue", "datasets.toys", "datasets.options"),
    "Models": (
        "models.base",
        "models.density",
        "models.encoder",
        "models.autoencoders",
        "models.latent",
        "models.feature_mixture",
        "models.importance",
        "models.networks",
        "models.build",
    ),
    "Training": ("training.fit", "training.loop", "training.plan", "training.runs"),
    "Evaluation": (
        "evaluation.calibration",
        "evaluation.comparison",
        "evaluation.evaluate",
        "evaluation.image_metrics",
        "evaluation.metrics",
        "evaluation.reconstruction",
    ),
    "Reports": (
        "reports.plots",
        "reports.density_plots",
        "reports.feature_plots",
        "reports.page",
        "reports.playground",
    ),
    "Experiments": ("experiments.comparison", "experiments.sweep"),
    "Estimators": ("estimators.density", "estimators.conditional", "estimators.autoencoder"),
}


def write(folder: Path) -> None:
    """Write the pages into a folder, each only if it changed, so that builds stay quick."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["# Modules", "", "One page for every public module, written from its docstrings.", ""]
    names, entries = [], []
    for room, modules in PUBLIC.items():
        lines += [f"## {room}", "", "| module | what it is for |", "|---|---|"]
        for module in modules:
            name = f"hilbound.{module}"
            names.append(name)
            entries.append(f"{module} <{name}>")
            lines.append(f"| [{name}]({name}.md) | {_purpose(name)} |")
            _write(folder / f"{name}.md", _page(name))
        lines.append("")
    for page in folder.glob("hilbound.*.md"):
        if page.stem not in names:
            page.unlink()  # of a module that is gone
    toctree = ["```{toctree}", ":hidden:", "", *entries, "```", ""]
    _write(folder / "modules.md", "\n".join(lines + toctree))


def _purpose(name: str) -> str:
    """Return the first sentence of a module's docstring."""
    doc = importlib.import_module(name).__doc__ or ""
    return " ".join(doc.strip().split("\n\n")[0].split())


def _page(name: str) -> str:
    return f"# {name}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```\n"


def _write(path: Path, content: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != content:
        path.write_text(content, encoding="utf-8")


def home_of(target: str) -> str | None:
    """Return the full name under which a page has an object, or ``None`` if there is none.

    Rooms offer names of their files: ``hilbound.GaussianMixture`` is at home in
    ``hilbound.mixture.gaussian``.

    >>> home_of("hilbound.GaussianMixture"), home_of("hilbound.GausianMixture")
    ('hilbound.mixture.gaussian.GaussianMixture', None)
    """
    parts = target.split(".")
    found: object = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 2):
        if hasattr(found, part):
            found = getattr(found, part)
            continue
        if part in getattr(found, "__annotations__", {}):
            return target
        try:
            found = importlib.import_module(".".join(parts[:i]))
        except ImportError:
            return None
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    return f"{module}.{name}" if module and name else target
