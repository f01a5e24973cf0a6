"""Every reader of files that may come from strangers, by name.

``READERS`` maps a name to a function of a path. Whatever lies there, it returns, or raises one of
the library's own errors. Nothing else may come out.
"""

import contextlib
import json
from importlib.util import find_spec
from pathlib import Path

from hilbound.config import RunConfig, TableConfig, read_yaml
from hilbound.datasets.celeba import load_celeba
from hilbound.datasets.cifar import load_cifar10
from hilbound.datasets.folders import load_folder
from hilbound.datasets.mixed import read_mixed
from hilbound.datasets.mnist import read_idx
from hilbound.datasets.options import PLAIN
from hilbound.datasets.pixels import read_picture
from hilbound.datasets.tables import load_table
from hilbound.errors import InputError
from hilbound.estimators.autoencoder import MixtureAutoencoder
from hilbound.estimators.conditional import ConditionalDensityEstimator
from hilbound.estimators.density import MixtureDensityEstimator
from hilbound.estimators.table_run import TableRun
from hilbound.experiments.comparison import compare_runs
from hilbound.reports.comparison import bounds_table
from hilbound.reports.comparison_report import results_table
from hilbound.training.checkpoints import read_checkpoint
from hilbound.training.runs import Run


def _config(path: Path) -> None:
    options = read_yaml(path)
    kind = TableConfig if options.get("kind") == "table" else RunConfig
    kind.create(**options)


def _run(path: Path) -> None:
    """Open a run and read all that evaluation and reports read of it."""
    run = Run.open(path)
    run.read_json("run.json")
    run.read_bounds()
    run.read_snapshots()
    with contextlib.suppress(InputError):
        run.read_json("metrics.json")
    if run.checkpoint.exists():
        read_checkpoint(run.checkpoint)
    _compare(path)
    run.model.sample(2)
    run.to_user_units(run.model.sample(2))


def _compare(path: Path) -> None:
    """Compare a run with nothing, which reads its metrics, and make the table."""
    for comparison in compare_runs([path]):
        json.dumps(comparison.plain())
        results_table(comparison, comparison.columns())
        bounds_table(comparison)


def _table_run(path: Path) -> None:
    run = TableRun.open(path)
    run.read_json("run.json")
    _compare(path)
    run.model  # noqa: B018 - reading it is the point


READERS = {
    "table": load_table,
    "mixed": read_mixed,
    "idx": read_idx,
    "cifar": lambda path: load_cifar10(root=path, seed=0, samples=None),
    "celeba": lambda path: load_celeba(root=path, seed=0, samples=None),
    "picture": lambda path: read_picture(path, PLAIN),
    "folder": load_folder,
    "config": _config,
    "run": _run,
    "table run": _table_run,
    "checkpoint": read_checkpoint,
    "density": MixtureDensityEstimator.load,
    "coder": MixtureAutoencoder.load,
    "conditional": ConditionalDensityEstimator.load,
}

HAS_PARQUET = find_spec("pyarrow") is not None
