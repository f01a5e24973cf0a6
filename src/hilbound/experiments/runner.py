"""Running an experiment: cells side by side, each kept as soon as it is measured.

Every cell is measured in one thread of torch, so that a result does not depend on how many cells
run at once. ``OUTPUT/work/CELL/row.json`` keeps what came out, with the settings that it came from:
the same command goes on where it was stopped, and measures anew what was asked otherwise.
"""

import importlib
import json
import logging
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hilbound.errors import InputError
from hilbound.experiments import get_experiment
from hilbound.experiments.base import Cell, Claim, Experiment, Row, Settings
from hilbound.experiments.pages import write_page
from hilbound.training.files import parse_json, read_text, write_whole
from hilbound.training.interrupts import interruptible
from hilbound.training.machine import processor, versions
from hilbound.training.quiet import one_thread

if TYPE_CHECKING:
    from rich.progress import Progress

RESULT = "result.json"
# Where the cells have their folders, by whether the form is quick: the names of cells are the same.
_WORK = ("work", "work-quick")
_ROW, _LOG = "row.json", "log.txt"
# Seconds between two looks at whether the user has asked to stop.
_LOOK = 0.2
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What an experiment found.

    Args:
        experiment: Its name.
        quick: Whether it was the quick form, which shows nothing about the claims.
        settings: What was the same for all cells.
        seeds: The seeds.
        rows: One for every cell.
        claims: What was claimed, and what came out.
        seconds: What the cells took together, one after the other.
        machine: Processor and cores.
        versions: Of Python and the libraries.
    """

    experiment: str
    quick: bool
    settings: dict[str, Any]
    seeds: list[int]
    rows: list[Row]
    claims: list[Claim]
    seconds: float
    machine: str
    versions: dict[str, str]


def default_folder(name: str, *, quick: bool = False) -> Path:
    """Return where an experiment goes without ``--output``.

    >>> default_folder("generation", quick=True).name
    'generation-quick'
    """
    return Path("runs", "experiments", f"{name}-quick" if quick else name)


def run_experiment(
    name: str,
    output: Path | str | None = None,
    *,
    quick: bool = False,
    seeds: int | None = None,
    workers: int | None = None,
    quiet: bool = False,
    reuse: bool = False,
) -> Result:
    """Run what is missing of an experiment; write its ``result.json``, figures and page.

    Args:
        name: Its name.
        output: The folder; that of :func:`default_folder` by default.
        quick: Whether only to show that everything works, in a few seconds.
        seeds: How many seeds, from 0; by default 3, or 1 if quick.
        workers: How many cells run at once; by default one for every core, or 1 if quick. With
            more than one, a script that calls this must do so under
            ``if __name__ == "__main__":``, as for any use of processes.
        quiet: Whether to leave out the progress bar.
        reuse: Whether to take over the rows of a ``result.json`` in the folder, where the settings
            that they depend on are the same, and to measure only what is missing. Pictures that
            need the folders of such rows are kept as they are.

    Raises:
        InputError: If the name is unknown, a number is below 1, the folder holds something else,
            or data are missing. Cells that were measured are kept.
        KeyboardInterrupt: If interrupted; the same call goes on.
    """
    experiment = get_experiment(name)
    path = default_folder(name, quick=quick) if output is None else Path(output)
    count = seeds if seeds is not None else (1 if quick else 3)
    workers = workers if workers is not None else (1 if quick else os.cpu_count() or 1)
    for argument, number in (("seeds", count), ("workers", workers)):
        if number < 1:
            raise InputError(f"{argument} must be 1 or more, got {number}")
    _refuse_foreign(path, name, quick=quick)
    settings = experiment.settings(quick=quick)
    numbers = list(range(count))
    stored = _Stored.read(experiment, settings, path) if reuse else _Stored()
    plan = _Plan(experiment, settings, numbers, path / _WORK[quick], stored.rows)
    with _progress(name, quiet=quiet) as bar, _Pool(workers) as pool:
        rows = _all_rows(plan, pool, bar)
    claims = list(experiment.claims(settings, rows))
    measured = any(row["cell"] not in stored.rows for row in rows)
    result = Result(
        experiment=name,
        quick=quick,
        settings=settings.model_dump(mode="json"),
        seeds=numbers,
        rows=rows,
        claims=[replace(claim, holds=None) for claim in claims] if quick else claims,
        seconds=sum(row["seconds"] for row in rows),
        machine=_joined([stored.machine, processor()] if measured else [stored.machine]),
        versions=_joined_versions(stored.versions, versions() if measured else {}),
    )
    _write_json(path / RESULT, asdict(result))
    write_page(experiment, settings, result, path, path / _WORK[quick])
    return result


def _refuse_foreign(path: Path, name: str, *, quick: bool) -> None:
    """Raise an InputError if the folder holds something else than this experiment, in this form."""
    if path.is_file():
        raise InputError(f"output {str(path)!r} is a file: name a folder")
    found = _read_json(path / RESULT)
    if found is None and path.is_dir() and any(p.name not in _WORK for p in path.iterdir()):
        raise InputError(
            f"output {str(path)!r} holds files that are no experiment's: name an empty or new "
            "folder"
        )
    if found is not None and (found.get("experiment"), found.get("quick")) != (name, quick):
        form = "quick" if found.get("quick") else "full"
        raise InputError(
            f"output {str(path)!r} holds the {form} result of {found.get('experiment')!r}: name "
            "another folder"
        )


@dataclass(frozen=True)
class _Plan:
    """What is to be measured, and where the cells have their folders."""

    experiment: Experiment[Any]
    settings: Settings
    seeds: Sequence[int]
    work: Path
    stored: Mapping[str, Row] = field(default_factory=dict)


@dataclass(frozen=True)
class _Stored:
    """What is taken over from a result: rows by the names of their cells, and where they are from.

    Args:
        rows: The rows that are still valid.
        machine: Processor and cores.
        versions: Of Python and the libraries.
    """

    rows: Mapping[str, Row] = field(default_factory=dict)
    machine: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, experiment: Experiment[Any], settings: Settings, path: Path) -> Self:
        """Read a result, and leave out the rows of other settings."""
        found = _read_json(path / RESULT)
        if found is None:
            return cls()
        try:
            before = type(settings).model_validate(found["settings"])
            rows = {row["cell"]: row for row in found["rows"]}
            kept = {
                name: row
                for name, row in rows.items()
                if experiment.identity(before, row) == experiment.identity(settings, row)
            }
            return cls(kept, str(found["machine"]), dict(found["versions"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{str(path / RESULT)!r} cannot be added to: {error}; leave out --reuse to measure "
                "everything anew"
            ) from None


def _joined(words: Sequence[str]) -> str:
    """Return different words with a semicolon between them.

    >>> _joined(["2 cores", "2 cores"]), _joined(["", "2 cores"]), _joined(["1", "2"])
    ('2 cores', '2 cores', '1; 2')
    """
    return "; ".join(dict.fromkeys(word for word in words if word))


def _joined_versions(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    return {n: _joined([before.get(n, ""), now.get(n, "")]) for n in {**before, **now}}


def _all_rows(plan: _Plan, pool: "_Pool", bar: "_Bar") -> list[Row]:
    """Ask for cells and measure them, until there are no more."""
    rows: dict[str, Row] = {}
    while True:
        missing: dict[str, Cell] = {}
        for cell in plan.experiment.cells(plan.settings, plan.seeds, list(rows.values())):
            if missing.setdefault(cell.name, cell) != cell:
                raise ValueError(f"two cells of {plan.experiment.name} are called {cell.name!r}")
        missing = {name: cell for name, cell in missing.items() if name not in rows}
        if not missing:
            return list(rows.values())
        bar.add(len(missing))
        found = _measured(plan, pool, bar, list(missing.values()))
        # In the order of the cells, whoever was the first to finish.
        rows |= {name: found[name] for name in missing}


def _measured(plan: _Plan, pool: "_Pool", bar: "_Bar", cells: Sequence[Cell]) -> dict[str, Row]:
    """Return the rows of some cells: those that are kept, and the others measured now."""
    rows: dict[str, Row] = {}
    waiting: list[Cell] = []
    for cell in cells:
        kept = plan.stored.get(cell.name) or _kept(plan, cell)
        if kept is None:
            waiting.append(cell)
        else:
            rows[cell.name] = kept
            bar.done(cell.name)
    for name, row in pool.measure(plan, waiting):
        rows[name] = row
        bar.done(name)
    return rows


class _Pool:
    """Processes that measure cells, or this very process if one is enough.

    Ctrl-C is noted, and obeyed between two looks at the processes. Raised while their futures are
    waited for, it could leave a lock behind for which the pool's own thread then waits for ever.
    """

    def __init__(self, workers: int) -> None:
        self.asked = threading.Event()
        self.listening = interruptible(self.asked) if workers > 1 else nullcontext()
        self.others = set(multiprocessing.active_children())
        # A process that was forked from one with threads may hang.
        context = multiprocessing.get_context("spawn")
        self.executor = (
            ProcessPoolExecutor(workers, context, initializer=_leave_interrupts)
            if workers > 1
            else None
        )

    def __enter__(self) -> Self:
        self.listening.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.executor is None:
            return
        try:
            if kind is KeyboardInterrupt:
                # Nobody waits minutes for a cell to end; those that are finished are kept.
                for child in set(multiprocessing.active_children()) - self.others:
                    child.terminate()
            self.executor.shutdown(wait=True, cancel_futures=True)
        finally:
            self.listening.__exit__(None, None, None)
        if kind is None and self.asked.is_set():
            raise KeyboardInterrupt

    def measure(self, plan: _Plan, cells: Sequence[Cell]) -> Iterator[tuple[str, Row]]:
        """Yield the rows of cells as they are finished."""
        name, settings, work = plan.experiment.name, plan.settings, plan.work
        if self.executor is None:
            for cell in cells:
                yield cell.name, measure_cell(name, settings, cell, work)
            return
        running: dict[Future[Row], str] = {
            self.executor.submit(measure_cell, name, settings, cell, work): cell.name
            for cell in cells
        }
        while running:
            done = wait(running, timeout=_LOOK, return_when=FIRST_COMPLETED).done
            if self.asked.is_set():
                raise KeyboardInterrupt
            for future in done:
                cell_name = running.pop(future)
                try:
                    yield cell_name, future.result()
                except BrokenProcessPool:
                    # An OSError, because it is the machine's and not the user's.
                    raise OSError(
                        f"a process that measured cells such as {cell_name!r} has died, likely for "
                        "lack of memory: try fewer --workers; what was measured is kept"
                    ) from None


def _leave_interrupts() -> None:
    """Ctrl-C reaches every process of a terminal; the first one decides for all."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def measure_cell(experiment: str, settings: Settings, cell: Cell, work: Path) -> Row:
    """Measure one cell in one thread, and keep its row.

    Args:
        experiment: Name of the experiment.
        settings: Its settings.
        cell: What to measure.
        work: The folder of the cells' folders.
    """
    folder = work / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    # Loading it takes seconds, which would be part of the time of the first training only.
    importlib.import_module("lightning")
    began = time.perf_counter()
    with one_thread(), _notices_to(folder / _LOG):
        measured = get_experiment(experiment).measure(settings, cell.options, folder)
    row = (
        {"cell": cell.name}
        | dict(cell.options)
        | measured
        | {"seconds": time.perf_counter() - began}
    )
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    kept = [name for name in files if name not in {_ROW, _LOG}]
    content = _identity(get_experiment(experiment), settings, cell) | {"files": kept, "row": row}
    # As it is read again: whoever resumes must find the very same rows.
    _write_json(folder / _ROW, content)
    return dict(_finite(row))


def _identity(experiment: Experiment[Any], settings: Settings, cell: Cell) -> dict[str, Any]:
    own = experiment.identity(settings, cell.options)
    return {"settings": dict(own), "options": dict(cell.options)}


def _kept(plan: _Plan, cell: Cell) -> Row | None:
    folder = plan.work / cell.name
    content = _read_json(folder / _ROW)
    if content is None or "row" not in content:
        return None
    wanted = json.loads(json.dumps(_identity(plan.experiment, plan.settings, cell)))
    same = {name: content.get(name) for name in wanted} == wanted
    # Pages and later cells read what a cell has left beside its row.
    whole = all((folder / name).exists() for name in content.get("files", []))
    return dict(content["row"]) if same and whole else None


@contextmanager
def _notices_to(path: Path) -> Iterator[None]:
    """Write the library's notices into a file for a while: they would tear up the bar."""
    logger = logging.getLogger("hilbound")
    handler = logging.FileHandler(path, mode="w", encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        handler.close()


class _Bar:
    """Cells done, of how many, and the time left."""

    def __init__(self, progress: "Progress | None", name: str) -> None:
        self.progress = progress
        self.total = 0
        self.task = None if progress is None else progress.add_task(name, total=None, cell="")

    def add(self, cells: int) -> None:
        self.total += cells
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, total=self.total)

    def done(self, cell: str) -> None:
        if self.progress is not None and self.task is not None:
            self.progress.update(self.task, advance=1, cell=cell)


@contextmanager
def _progress(name: str, *, quiet: bool) -> Iterator[_Bar]:
    if quiet:
        yield _Bar(None, name)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[cell]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Bar(progress, name)


def _finite(value: Any) -> Any:
    """Return the value with ``None`` for what JSON cannot hold: infinities and NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(_finite(content), indent=1, allow_nan=False) + "\n")


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = parse_json(read_text(path))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
