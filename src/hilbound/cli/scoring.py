"""The command ``hilbound score``: the log density of every new row, in the user's units."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer

import hilbound
from hilbound.cli.base import (
    TABLES,
    DecimalMark,
    Delimiter,
    OwnHeader,
    RunPath,
    err,
    out,
)
from hilbound.cli.stages import Stages
from hilbound.config import is_table_run
from hilbound.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from hilbound.datasets.delimited import TextFormat

# With fewer draws that matter, neither a density nor its error bar is to be trusted.
_FEW = 10


class Scored(NamedTuple):
    """A table with log densities beside its rows.

    Args:
        frame: The table.
        rough: How many rows have a density that rests on few draws.
    """

    frame: "pd.DataFrame"
    rough: int = 0


def score(
    run: RunPath,
    rows: Annotated[
        Path,
        typer.Argument(
            metavar="ROWS", help="New rows: .csv, .csv.gz, .tsv, .parquet, .npy or .npz."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A .csv, .csv.gz or .parquet file.")
    ] = Path("scores.csv"),
    *,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Centres that the density is computed from, or draws for each row of a "
            "latent-mixture. (default: 10000, or 200)",
            min=2,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the draws. (default: 0)", min=0)] = None,
    unknown: Annotated[
        Literal["error", "missing"] | None,
        typer.Option(
            help="Refuse texts that RUN has never seen, or count them as missing. (default: error)",
            rich_help_panel=TABLES,
        ),
    ] = None,
    header: OwnHeader = None,
    delimiter: Delimiter = None,
    decimal: DecimalMark = None,
) -> None:
    """Write the log density of new ROWS under a RUN, in nats and in the units of the rows.

    A run on a table's target gives log p(target | other columns).
    """
    # Imported here because pandas and scikit-learn take a second.
    from hilbound.datasets.delimited import TextFormat
    from hilbound.estimators.table_output import check_output, write_table

    check_output(output)
    if output.exists() and rows.exists() and output.samefile(rows):
        raise InputError(f"output {str(output)!r} is the file of rows: choose another file")
    form = TextFormat(header, delimiter, decimal)
    with Stages("scoring"):
        if is_table_run(run):
            _refuse({"--draws": draws, "--seed": seed}, "a run on a table's target draws nothing")
            found = _of_target(run, rows, form, unknown or "error")
        else:
            _refuse({"--unknown": unknown}, "it is for runs on a table's target")
            found = _of_rows(run, rows, form, draws, seed or 0)
        path = write_table(found.frame, output)
    _tell(found, path)


def _refuse(options: dict[str, object], reason: str) -> None:
    for flag, value in options.items():
        if value is not None:
            raise InputError(f"{flag} {value}: {reason}, leave it out")


def _of_target(
    run: Path, rows: Path, form: "TextFormat", unknown: Literal["error", "missing"]
) -> Scored:
    from hilbound.estimators.table_output import log_density_table
    from hilbound.estimators.table_run import TableRun

    opened = TableRun.open(run)
    return Scored(log_density_table(opened, opened.read_new(rows, form), str(rows), unknown))


def _of_rows(run: Path, rows: Path, form: "TextFormat", draws: int | None, seed: int) -> Scored:
    import pandas as pd

    from hilbound.datasets.new_rows import read_new
    from hilbound.estimators.table_output import add_columns

    opened = hilbound.Run.open(run)
    given = read_new(rows, form)
    found = opened.log_density(given, draws=draws, seed=seed, source=str(rows))
    columns = {
        "log_density": found.value.numpy(),
        "log_density_error": found.standard_error.numpy(),
    }
    # Arrays have no names, and are not repeated.
    beside = given if isinstance(given, pd.DataFrame) else pd.DataFrame(index=range(len(given)))
    return Scored(
        add_columns(beside, columns, str(rows)), int((found.effective_draws < _FEW).sum())
    )


def _tell(scored: Scored, path: Path) -> None:
    values = scored.frame["log_density"]
    known = values.dropna()
    if len(known) < len(values):
        lacking = len(values) - len(known)
        err.print(
            f"{lacking:,} row{'s' if lacking > 1 else ''} with missing values: no density, the "
            "cell is left empty",
            highlight=False,
        )
    if scored.rough:
        err.print(
            f"{scored.rough:,} of {len(values):,} densities rest on fewer than {_FEW} draws and "
            "are rough: take more (--draws)",
            highlight=False,
        )
    if len(known):
        error = known.std(ddof=0) / math.sqrt(len(known))
        out.print(
            f"mean log density of {len(known):,} rows: {known.mean():.6g} ± {error:.2g} nats "
            "(standard error)",
            highlight=False,
        )
    out.print(f"scores: {path}", soft_wrap=True, highlight=False, markup=False)
