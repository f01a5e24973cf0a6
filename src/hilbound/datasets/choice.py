"""Which columns of a table are used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hilbound.datasets.checks import enumerate_names
from hilbound.errors import DataError
from hilbound.registry import suggest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Choice:
    """Which columns of a table are used beside its targets.

    Attributes:
        targets: The names of the targets.
        columns: All that are used; every column there is if ``None``.
        drop: What is left out.
    """

    targets: Sequence[str] = ()
    columns: Sequence[str] | None = None
    drop: Sequence[str] = ()

    def of(self, frame: "pd.DataFrame") -> "pd.DataFrame":
        """Return the columns that are used, as far as they are there, and the targets.

        >>> import pandas as pd
        >>> table = pd.DataFrame({"id": [7], "a": [1], "y": [0]})
        >>> list(Choice(["y"], drop=["id"]).of(table)), list(Choice(["y"], ["id"]).of(table))
        (['a', 'y'], ['id', 'y'])
        """
        used = set(frame.columns if self.columns is None else self.columns) - set(self.drop)
        return frame[[name for name in frame.columns if name in used | set(self.targets)]]

    def given(self) -> list[str]:
        """Return the options that were given, as they stand on the command line.

        >>> Choice(drop=["id"]).given()
        ['--drop']
        """
        return ["--columns"] * (self.columns is not None) + ["--drop"] * bool(self.drop)

    def check(self, names: Sequence[str], source: str) -> None:
        """Refuse names that no column has.

        Args:
            names: The columns that are there.
            source: What to call the table in messages.

        Raises:
            DataError: Naming the first.
        """
        asked = {"": self.targets, "--columns: ": self.columns or (), "--drop: ": self.drop}
        for option, wanted in asked.items():
            for name in wanted:
                if name not in names:
                    raise DataError(
                        f"{option}{source} has no column {name!r}: {suggest(name, names)}its "
                        f"columns are {enumerate_names(names)}"
                    )
