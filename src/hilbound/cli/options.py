"""Options of a command, one for every field of the configuration of a run."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from hilbound.config import MODEL_DEFAULTS, RunConfig, TableConfig

# Names with commas between them.
_LISTED = {"columns": str, "drop": str}
#: Options that a sweep does not vary: their values may hold commas.
WHOLE = frozenset(
    {"objective_options", "classes", "label_column", "delimiter", "decimal", *_LISTED}
)


def with_run_options(command: Callable[..., None], *, listed: bool = False) -> Callable[..., None]:
    """Give a command every field of RunConfig as an option. Unset options are None.

    Args:
        command: The command.
        listed: Whether an option may be several values, with commas between them. Then the seed
            is left out.
    """
    own = inspect.signature(command)
    parameters = [p for p in own.parameters.values() if p.kind is not p.VAR_KEYWORD]
    for name, field in RunConfig.model_fields.items():
        if name in own.parameters or (listed and name == "seed"):
            continue
        extra = field.json_schema_extra
        panel = str(extra["panel"]) if isinstance(extra, dict) else None
        flag = "--" + name.replace("_", "-")
        kind: Any = field.annotation
        # These are numbers or mappings in YAML, but text on a command line.
        kind = str if name.startswith("variance") and name != "variance_y" else kind
        kind = {"objective_options": list[str], **_LISTED}.get(name, kind)
        if listed and name not in WHOLE and kind not in {bool, bool | None}:
            kind = str
        default = _default(name, field.default)
        option = typer.Option(
            f"{flag}/--no-{flag[2:]}" if kind in {bool, bool | None} else flag,
            help=field.description
            if default is None
            else f"{field.description} (default: {default})",
            rich_help_panel=panel,
            show_default=False,
        )
        annotation = Annotated[kind | None, option]
        parameters.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation
            )
        )
    command.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]  # read by Typer
    command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return command


def _default(name: str, default: object) -> str | None:
    """Return the default as the help shows it, with the defaults of individual models."""
    if default in (None, {}, []):
        return None
    models: dict[str, list[str]] = {}
    for model, own in MODEL_DEFAULTS.items():
        if own.get(name, default) != default:
            models.setdefault(_in_words(own[name]), []).append(model)
    for value, names in models.items():
        if len(names) == len(MODEL_DEFAULTS):
            models[value] = ["models with an encoder"]
    others = [f"{value} for {' and '.join(names)}" for value, names in models.items()]
    of_tables = TableConfig.model_fields.get(name)
    if of_tables is not None and of_tables.default != default:
        others.append(f"{_in_words(of_tables.default)} with --target")
    return "; ".join([_in_words(default), *others])


def _in_words(value: object) -> str:
    if value is None:
        return "chosen by the data"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
