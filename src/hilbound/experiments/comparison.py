"""Compare run folders: of models that draw samples, and of tables with a target."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hilbound.config import is_table_run
from hilbound.errors import InputError
from hilbound.estimators.table_run import TableRun, member_of_table
from hilbound.evaluation.comparison import Member, RunComparison, compare, member_of
from hilbound.training.runs import Run, expand


def compare_runs(
    paths: Sequence[Path | str], *, data: Path | str | None = None
) -> list[RunComparison]:
    """Read run folders, and return which of them can be compared, with their means over seeds.

    Nothing is trained or measured. What a run lacks is absent, and ``hilbound evaluate`` adds it.

    Args:
        paths: The folders, each once.
        data: Where the data of all runs are now, if they were moved.

    Raises:
        InputError: If there is no folder, one comes twice, is no run, or is damaged.
    """
    if not paths:
        raise InputError("paths is empty: name at least one run folder")
    folders = [expand(path) for path in paths]
    counts = Counter(folder.resolve() for folder in folders)
    twice = [folder for folder in folders if counts[folder.resolve()] > 1]
    if twice:
        raise InputError(f"run {str(twice[0])!r} comes twice: name each run once")
    short = len({folder.resolve().name for folder in folders}) == len(folders)
    return compare(
        _read(folder, folder.resolve().name if short else str(folder), data) for folder in folders
    )


def _read(folder: Path, name: str, data: Path | str | None) -> Member:
    if not is_table_run(folder):
        return member_of(Run.open(folder).with_data(data), name)
    if data is not None:
        raise InputError(f"--data is for runs that draw samples, and {str(folder)!r} does not")
    return member_of_table(TableRun.open(folder), name)
