"""A sweep: the same data with every combination of some options, each over several seeds.

Every combination is a run folder below ``OUTPUT/runs``. The same call goes on where it was stopped:
combinations that are measured are kept, and a training that was interrupted goes on from its
checkpoint. Samples are measured against *validation* rows, because a sweep chooses options, and
test rows are for what was chosen.

joblib runs the combinations side by side, in processes of this machine. With the extra
``hilbound[ray]`` they run on the machines of a Ray cluster that share the folder.
"""

import itertools
import json
import logging
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hilbound.config import RunConfig
from hilbound.errors import InputError
from hilbound.evaluation.comparison import Group, Member
from hilbound.training.files import parse_json, read_text, write_whole
from hilbound.training.quiet import notices, one_thread

log = logging.getLogger(__name__)

_RUNS, _ROW, _RESULT = "runs", "row.json", "sweep.json"
_OWN = {_RUNS, _RESULT, "sweep.csv", "report.html"}


@dataclass(frozen=True)
class Cell:
    """One training of a sweep.

    Args:
        name: Its folder.
        setting: The options that differ within the sweep.
        options: All options that were given, with the seed.
    """

    name: str
    setting: dict[str, Any]
    options: dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    Args:
        path: Its folder.
        varied: The options that differ.
        rows: One for each training, with ``setting``, ``seed``, ``seconds``, ``failure`` and
            ``metrics``.
    """

    path: Path
    varied: tuple[str, ...]
    rows: list[dict[str, Any]]

    def groups(self) -> list[Group]:
        """Return every setting with the trainings of its seeds, in the order of the sweep."""
        found: dict[str, list[Member]] = {}
        for row in self.rows:
            key = json.dumps(row["setting"], sort_keys=True)
            found.setdefault(key, []).append(_member(row))
        return [Group(members[0].settings, tuple(members)) for members in found.values()]

    def best(self) -> dict[str, Any] | None:
        """Return the setting whose mean coverage of validation rows is highest, if any is known."""
        means = [
            (statistics.fmean(values), -number, group.setting)
            for number, group in enumerate(self.groups())
            if (values := group.values("coverage")) and len(values) == len(group.members)
        ]
        return dict(max(means, key=lambda one: one[:2])[2]) if means else None


def _member(row: Mapping[str, Any]) -> Member:
    """Return a training of a sweep as it is compared with others."""
    found = {
        **row["metrics"],
        "bound_tightness": row.get("tightness"),
        "seconds": row.get("seconds"),
    }
    values = {name: value for name, value in found.items() if value is not None}
    note = row["failure"] or ""
    return Member(row.get("cell", ""), row["seed"], row["setting"], values=values, note=note)


def sweep(
    output: Path | str,
    grid: Mapping[str, Sequence[Any]],
    *,
    seeds: int = 1,
    workers: int = 1,
    ray: str | None = None,
    quiet: bool = False,
    done: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> Sweep:
    """Train and measure every combination of options, and write a table and a report.

    Args:
        output: The folder. A sweep of the same options that is there goes on.
        grid: Options of :class:`hilbound.config.RunConfig` and the values to try.
        seeds: How many seeds, from 0.
        workers: How many trainings run at once.
        ray: The address of a Ray cluster, or ``"local"`` for one that lives as long as the sweep.
            Its machines must share the folder.
        quiet: Whether to leave out notices.
        done: Called with the name of each training that has ended.
        **options: Options that all trainings share.

    Returns:
        What was found. ``sweep.json``, ``sweep.csv`` and ``report.html`` are in the folder.

    Raises:
        InputError: If an option cannot be used, or the folder holds something else.
        KeyboardInterrupt: If interrupted; the same call goes on.
    """
    from hilbound.reports.sweep_report import write_sweep_report

    path = Path(output).expanduser()
    if min(seeds, workers) < 1:
        raise InputError(f"seeds and workers must be 1 or more, got {seeds} and {workers}")
    _refuse_foreign(path)
    cells = plan_cells(grid, seeds, options)
    rows = _all_rows(path / _RUNS, cells, workers, ray, quiet=quiet, done=done)
    found = Sweep(path, tuple(grid), rows)
    content = {"varied": list(found.varied), "rows": rows, "best": found.best()}
    write_whole(path / _RESULT, json.dumps(content, indent=1, allow_nan=False) + "\n")
    write_whole(path / "sweep.csv", _csv(found))
    write_sweep_report(found)
    return found


def plan_cells(
    grid: Mapping[str, Sequence[Any]], seeds: int, options: Mapping[str, Any]
) -> list[Cell]:
    """Return all trainings of a sweep, each checked.

    Raises:
        InputError: If an option is unknown, comes twice, or cannot be used.

    >>> cells = plan_cells({"objective": ["nuclear", "scalar"]}, 2, {"data": "moons"})
    >>> [cell.name for cell in cells]
    ['nuclear-0', 'nuclear-1', 'scalar-0', 'scalar-1']
    """
    twice = sorted(set(grid) & set(options)) + [name for name in ("seed",) if name in grid]
    if twice:
        raise InputError(f"{', '.join(twice)}: give an option either as one value or as several")
    cells = []
    for values in itertools.product(*grid.values()):
        setting = dict(zip(grid, values, strict=True))
        for seed in range(seeds):
            own = {**options, **setting, "seed": seed}
            RunConfig.create(**own)
            cells.append(Cell(_name(values, seed), setting, own))
    names = [cell.name for cell in cells]
    if len(set(names)) < len(names):
        # Values such as 1:2 and 1/2 look alike in a name.
        cells = [
            Cell(f"{number}-{cell.name}", cell.setting, cell.options)
            for number, cell in enumerate(cells)
        ]
    return cells


def _name(values: Iterable[Any], seed: int) -> str:
    words = [re.sub(r"[^\w.]+", "-", str(value)).strip("-.") or "value" for value in values]
    return "-".join([*words, str(seed)])


def _refuse_foreign(path: Path) -> None:
    if path.is_file():
        raise InputError(f"output {str(path)!r} is a file: name a folder")
    if path.is_dir() and any(
        p.name not in _OWN and not p.name.startswith(".") for p in path.iterdir()
    ):
        raise InputError(
            f"output {str(path)!r} holds files that are no sweep's: name an empty or new folder"
        )


def _all_rows(
    folder: Path,
    cells: Sequence[Cell],
    workers: int,
    ray: str | None,
    *,
    quiet: bool,
    done: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Measure what is missing, and return the rows of all cells in their order."""
    from joblib import Parallel, delayed

    rows = {cell.name: row for cell in cells if (row := _kept(folder, cell)) is not None}
    for name in rows:
        done(name)
    missing = [cell for cell in cells if cell.name not in rows]
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [delayed(measure_cell)(folder, cell, quiet=quiet) for cell in missing]
    if not tasks:
        return [rows[cell.name] for cell in cells]
    if ray is None:
        # With one worker joblib works in this very process.
        found = Parallel(n_jobs=workers, return_as="generator_unordered")(tasks)
    else:
        found = _on_ray(tasks, workers, ray)
    for name, row in found:
        rows[name] = row
        done(name)
    return [rows[cell.name] for cell in cells]


def _on_ray(tasks: Sequence[Any], workers: int, address: str) -> Iterable[Any]:
    """Run joblib's tasks on a Ray cluster."""
    if find_spec("ray") is None:
        raise InputError("a sweep over several machines needs Ray: pip install 'hilbound[ray]'")
    import ray
    from joblib import Parallel, parallel_config
    from ray.util.joblib import register_ray

    ours = not ray.is_initialized()
    if ours:
        local = address == "local"
        ray.init(
            address=None if local else address,
            num_cpus=workers if local else None,
            include_dashboard=False if local else None,
            logging_level=logging.ERROR,
        )
    try:
        register_ray()
        with parallel_config("ray"):
            return list(Parallel(n_jobs=workers)(tasks))
    finally:
        if ours:
            ray.shutdown()


def measure_cell(folder: Path, cell: Cell, *, quiet: bool) -> tuple[str, dict[str, Any]]:
    """Train one combination, or go on with it, and keep what came out."""
    # One worker runs in the caller's own process, so what is silenced is restored.
    with notices(quiet=quiet):
        return _measured(folder, cell)


def _measured(folder: Path, cell: Cell) -> tuple[str, dict[str, Any]]:
    from hilbound.evaluation.evaluate import FEWEST_ROWS, evaluate

    row: dict[str, Any] = {
        "cell": cell.name,
        "setting": cell.setting,
        "seed": cell.options["seed"],
        "failure": None,
        "metrics": {},
    }
    with one_thread():
        try:
            run = _trained(folder / cell.name, cell.options)
        except FloatingPointError as error:
            # Some combinations of a grid may be no good. That is a result.
            row["failure"] = str(error)
        else:
            bounds = [one for one in run.read_bounds() if one["split"] == "validation"]
            row["tightness"] = bounds[-1]["tightness"] if bounds else None
            row["seconds"] = run.read_bounds()[-1]["seconds"]
            if min(len(run.dataset.validation), len(run.dataset.train)) >= FEWEST_ROWS:
                measured = evaluate(run, split="validation")["metrics"]
                row["metrics"] = {name: entry["model"] for name, entry in measured.items()}
    content = {"options": cell.options, "row": row}
    write_whole(folder / cell.name / _ROW, json.dumps(content, indent=1) + "\n")
    return cell.name, row


def _trained(path: Path, options: Mapping[str, Any]) -> Any:
    """Return the finished run of these options: trained, gone on with, or found."""
    from hilbound.training.fit import fit, resume
    from hilbound.training.runs import Run

    config = RunConfig.create(**options)
    try:
        run = Run.open(path)
        known = run.config.model_copy(update={"data": config.data})
    except InputError:
        return fit(path, quiet=True, **options)
    if known != config.model_copy(update={"data": config.data}):
        return fit(path, quiet=True, overwrite=True, **options)
    status = run.read_json("run.json")["status"] if (path / "run.json").exists() else "running"
    if status == "failed":
        return fit(path, quiet=True, overwrite=True, **options)
    return run if status == "finished" else resume(path, quiet=True)


def _kept(folder: Path, cell: Cell) -> dict[str, Any] | None:
    """Return the row of a cell that was measured with these options."""
    try:
        content = parse_json(read_text(folder / cell.name / _ROW))
    except (OSError, ValueError):
        return None
    wanted = json.loads(json.dumps(cell.options))
    if not isinstance(content, dict) or content.get("options") != wanted:
        return None
    row: dict[str, Any] = content["row"]
    return row


def _csv(found: Sweep) -> str:
    """Return a table of all trainings, in which no spreadsheet finds a formula."""
    import pandas as pd

    from hilbound.estimators.table_output import harmless

    frame = pd.DataFrame(
        [
            {
                **row["setting"],
                "seed": row["seed"],
                **row["metrics"],
                "bound_tightness": row.get("tightness"),
                "seconds": row.get("seconds"),
                "failure": row["failure"],
            }
            for row in found.rows
        ]
    )
    text: str = harmless(frame).to_csv(index=False)
    return text
