"""The command ``hilbound sweep``: train every combination of some options, and compare them."""

import functools
from pathlib import Path
from typing import Annotated, Any

import typer

from hilbound.cli.base import Quiet, err, fail, out
from hilbound.cli.options import WHOLE, with_run_options
from hilbound.errors import InputError
from hilbound.training.quiet import notices

_SHOWN = frozenset({"Coverage", "Precision", "Recall", "Fréchet distance"})


@functools.partial(with_run_options, listed=True)
def sweep(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Name of a data set, a file, or a folder.")
    ],
    *,
    seeds: Annotated[int, typer.Option(help="How many seeds for each combination.", min=1)] = 1,
    workers: Annotated[int, typer.Option(help="Trainings at a time.", min=1)] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address of a Ray cluster whose machines share the folder, or 'local'. Needs "
            "hilbound[ray].",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder. (default: runs/sweeps/DATA)")
    ] = None,
    quiet: Quiet = False,
    **options: Any,
) -> None:
    """Train on DATA with every combination of options, such as --objective nuclear,scalar."""
    grid, shared = split_options(options)
    folder = Path("runs", "sweeps", Path(data).stem) if output is None else output
    from hilbound.experiments.sweep import plan_cells
    from hilbound.experiments.sweep import sweep as run_sweep

    total = len(plan_cells(grid, seeds, {"data": data, **shared}))
    ended = []

    def say(name: str) -> None:
        ended.append(name)
        if not quiet:
            err.print(f"{len(ended)} of {total}: {name}", highlight=False, markup=False)

    try:
        with notices(quiet=quiet):
            found = run_sweep(
                folder,
                grid,
                seeds=seeds,
                workers=workers,
                ray=ray,
                quiet=quiet,
                done=say,
                data=data,
                tensorboard=False,
                **shared,
            )
    except KeyboardInterrupt:
        fail("interrupted", "what was done is kept: run the same command to go on", 1)
    if not quiet:
        _print(found)
        out.print(f"report: {found.path / 'report.html'}", soft_wrap=True)


def split_options(options: dict[str, Any]) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Return the options with several values, and the others.

    Raises:
        InputError: If a value is empty.

    >>> split_options({"variance": "median,2*median", "steps": "5", "width": None})
    ({'variance': ['median', '2*median']}, {'steps': '5'})
    """
    grid: dict[str, list[str]] = {}
    shared: dict[str, Any] = {}
    for name, value in options.items():
        if value is None or value == []:
            continue
        if not isinstance(value, str) or name in WHOLE or "," not in value:
            shared[name] = value
            continue
        grid[name] = [part.strip() for part in value.split(",")]
        if not all(grid[name]) or len(set(grid[name])) < len(grid[name]):
            flag = name.replace("_", "-")
            raise InputError(
                f"--{flag} must be different values with commas between them, got {value!r}"
            )
    return grid, shared


def _print(found: Any) -> None:
    from hilbound.cli.printing import print_table
    from hilbound.reports.sweep_report import table_of

    page = table_of(found)
    first = max(1, len(found.varied))
    # The report has the others; a terminal is narrow.
    shown = [i for i, name in enumerate(page.columns) if i < first or name in _SHOWN]
    caption = "means over seeds, measured against validation rows"
    print_table(page, out, caption=caption, fixed=first, shown=shown)
