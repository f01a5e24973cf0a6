"""What any configuration is read by: YAML files, lists of names, and words for what is wrong."""

import csv
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from hilbound.errors import InputError
from hilbound.registry import suggest


class Options(BaseModel):
    """What all configurations share: how they are checked, and how they are written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("columns", "drop", mode="before", check_fields=False)
    @classmethod
    def _parted(cls, value: Any) -> Any:
        return names_of(value)

    @classmethod
    def checked(cls, options: dict[str, Any], also: Sequence[str] = ()) -> Self:
        """Build it; what is wrong is said in one line for each option.

        Args:
            options: The options.
            also: Options that are known elsewhere, for a hint at what was meant.

        Raises:
            InputError: If an option is unknown, missing or out of range.
        """
        try:
            return cls(**options)
        except ValidationError as error:
            raise InputError(sentences(error, (*cls.model_fields, *also))) from None

    def to_yaml(self) -> str:
        """Return the configuration as YAML, with all options."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


# Options are a page of text, of lists and mappings at most.
_MOST_YAML, _DEEPEST_YAML = 1 << 18, 20
# That of libyaml is ten times as fast, where the package has it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _load(text: str) -> Any:
    """Read YAML without aliases, of which a few lines can ask for gigabytes, and without depth."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("aliases such as *name are not read: write values out")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST_YAML:
            raise RecursionError
    return yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader


def read_yaml(path: Path) -> dict[str, Any]:
    """Read options from a YAML file. ``batch-size`` and ``batch_size`` are the same option.

    Raises:
        InputError: If the file is missing, is not YAML, or is not a mapping of options.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"config {str(path)!r} cannot be read: it is no regular file")
        if found.st_size > _MOST_YAML:
            raise InputError(
                f"config {str(path)!r} has {found.st_size:,} bytes, and options take no more than "
                f"{_MOST_YAML:,}: give a file of options"
            )
        content = _load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"config {str(path)!r} cannot be read: {error}") from None
    except RecursionError:
        raise InputError(
            f"config {str(path)!r} is nested too deeply: options are 'name: value', a line each"
        ) from None
    # Scalars that look like dates or numbers and are none raise a ValueError.
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"config {str(path)!r} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise InputError(
            f"config {str(path)!r} must hold options such as 'objective: nuclear', "
            f"got {type(content).__name__}"
        )
    return {str(key).replace("-", "_"): value for key, value in content.items()}


def names_of(value: Any) -> Any:
    """Part ``"a,b"``, the form on the command line; a name that holds a comma stands in quotes."""
    if not isinstance(value, str):
        return value
    try:
        names = next(csv.reader([value], skipinitialspace=True))
    except csv.Error as error:  # pydantic takes a ValueError for a refusal, and no other error
        raise ValueError(f"must be names with commas between them ({error})") from None
    return [name.strip() for name in names or [""]]


def flags(names: list[str]) -> str:
    """Return options as they are spelled on the command line, with commas between them."""
    return ", ".join("--" + name.replace("_", "-") for name in names)


def sentences(error: ValidationError, known: Sequence[str]) -> str:
    """Return one line for each option. pydantic has one for each type that the option may have.

    Args:
        error: What pydantic found.
        known: All options, for a hint at what was meant.
    """
    lines: dict[str, str] = {}
    for one in error.errors():
        # For an option with several types, the location ends in the name of a type.
        name = ".".join(map(str, one["loc"][:-1] or one["loc"])) or "configuration"
        lines.setdefault(name, _sentence(name, one, known))
    return "\n".join(lines.values())


def _sentence(name: str, error: Any, known: Sequence[str]) -> str:
    if error["type"] == "extra_forbidden":
        hint = suggest(name, known) or f"known: {', '.join(known)}"
        return f"unknown option {name!r}: {hint}".rstrip()
    if error["type"] == "missing":
        return f"{name} is missing: name a data set or a file (hilbound list shows the names)"
    if not error["loc"]:  # an error of several options together, which the message names
        return str(error["msg"].removeprefix("Value error, "))
    message = error["msg"].removeprefix("Value error, ").lower()
    return f"{name}: {message}, got {error['input']!r}"
