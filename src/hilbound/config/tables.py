"""The configuration of a run on a table's target."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from hilbound.config.reading import Options, flags, read_yaml
from hilbound.config.runs import MOST_STEPS, RunConfig, Switches
from hilbound.errors import InputError


class TableConfig(Options):
    """Everything that decides what a run on a table's target computes.

    >>> TableConfig.create(data="houses.csv", target="price").target
    ['price']
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)

    kind: Literal["table"] = "table"
    data: str
    target: list[str] = Field(min_length=1)
    columns: list[str] | None = Field(None, min_length=1)
    drop: list[str] = Field(default_factory=list)
    header: bool | None = None
    delimiter: str | None = None
    decimal: Literal[".", ","] | None = None
    effort: Literal["default", "high"] = "default"
    seed: int = Field(0, ge=0, lt=2**32)
    test_fraction: float = Field(0.2, gt=0, lt=1)
    max_epochs: int | None = Field(None, ge=1, le=MOST_STEPS)

    @field_validator("target", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return value if isinstance(value, list | tuple) else [value]

    @field_validator("target")
    @classmethod
    def _different(cls, value: list[str]) -> list[str]:
        if len(set(value)) < len(value):
            raise ValueError("each column can be a target only once")
        return value

    @model_validator(mode="after")
    def _keep_targets(self) -> Self:
        dropped = [name for name in self.target if name in self.drop]
        if dropped:
            raise ValueError(f"drop names {dropped[0]!r}, which is a target: leave it out of drop")
        return self

    @classmethod
    def create(cls, **options: Any) -> Self:
        """Build a configuration; what is wrong is said in one line for each option.

        Raises:
            InputError: If an option is unknown, missing, out of range, or one of other trainings.

        >>> TableConfig.create(data="houses.csv", target="price", steps=3)
        Traceback (most recent call last):
            ...
        hilbound.errors.InputError: --steps does not go with --target: a table takes --columns, \
--drop, --header, --delimiter, --decimal, --effort, --seed, --test-fraction, --max-epochs
        """
        foreign = [n for n in options if n in RunConfig.model_fields and n not in cls.model_fields]
        if foreign:
            own = [name for name in cls.model_fields if name not in {"kind", "data", "target"}]
            raise InputError(
                f"{flags(foreign)} {'do' if len(foreign) > 1 else 'does'} not go with --target: "
                f"a table takes {flags(own)}"
            )
        return cls.checked(options, also=tuple(Switches.model_fields))


def is_table_run(path: Path) -> bool:
    """Whether a folder is a run on a table's target, by its ``config.yaml``."""
    try:
        return read_yaml(path / "config.yaml").get("kind") == "table"
    except InputError:
        return False
