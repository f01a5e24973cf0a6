"""The application itself: exit codes, consoles, and what commands share."""

from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

import hilbound
from hilbound.errors import InputError


class _Commands(TyperGroup):
    """Turns errors into exit codes. Expected errors are shown without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            fail("error", str(error), 2)
        except BrokenPipeError:
            raise
        except (FloatingPointError, OSError) as error:
            fail("failed", str(error), 1)
        except KeyboardInterrupt:
            fail("interrupted", "nothing more was written", 1)


def fail(kind: str, message: str, code: int) -> NoReturn:
    """Say what went wrong, and end with an exit code."""
    from rich.markup import escape

    err.print(f"[bold red]{kind}:[/] {escape(message)}", soft_wrap=True, highlight=False)
    raise typer.Exit(code) from None


app = typer.Typer(
    cls=_Commands,
    help="Train density models on contrastive entropy bounds, and see how tight each bound is.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

#: The panel of what belongs to tables with a target.
TABLES = "Tables with a target"
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that 'fit' wrote.")]
Moved = Annotated[
    str | None,
    typer.Option("--data", metavar="PATH", help="Where the run's data are now, if moved."),
]
OwnHeader = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header",
        help="Whether the first line of a text file names the columns. (default: detected)",
        show_default=False,
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        help="What separates the fields of a text file: a character, tab, or blank. (default: "
        "detected)"
    ),
]
DecimalMark = Annotated[
    Literal[".", ","] | None,
    typer.Option("--decimal", help="The decimal mark of a text file. (default: detected)"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no notices.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        out.print(hilbound.__version__)
        raise typer.Exit


@app.callback()
def _common(
    # Its callback runs first, so --version needs no command.
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Print the version and stop.",
        ),
    ] = False,
) -> None:
    pass
