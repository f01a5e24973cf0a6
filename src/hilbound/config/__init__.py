"""The configuration of a run: every option once, for the command line, YAML files and Python.

It imports neither torch nor Lightning, so ``hilbound --help`` is quick.
"""

from hilbound.config.reading import read_yaml
from hilbound.config.runs import (
    FEWEST_CLUSTERS,
    HELD_OUT,
    MODEL_DEFAULTS,
    ONE_CENTRE,
    RunConfig,
    Switches,
)
from hilbound.config.tables import TableConfig, is_table_run

__all__ = [
    "FEWEST_CLUSTERS",
    "HELD_OUT",
    "MODEL_DEFAULTS",
    "ONE_CENTRE",
    "RunConfig",
    "Switches",
    "TableConfig",
    "is_table_run",
    "read_yaml",
]
