"""What an experiment is: cells that are measured one by one, and what their rows say.

A **cell** is one measurement with a name, such as one training with one seed. Cells know nothing of
each other. So they run side by side, and need not be repeated after an interruption. Some choices
depend on earlier cells, such as the best variance of a sweep. So :meth:`Experiment.cells` is called
again with the rows so far, until it has nothing to add.
"""

import statistics
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from hilbound.reports.page import Table

if TYPE_CHECKING:
    from matplotlib import figure

    from hilbound.training.runs import Run

#: What was measured in one cell, with the options of the cell: plain numbers, texts and lists.
Row = dict[str, Any]


class Settings(BaseModel):
    """What stays the same over all cells of an experiment; frozen, and part of the result."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Args:
        name: What it is called, unlike every other cell; also the name of a folder.
        options: What sets it apart from the other cells: plain numbers, texts and lists.

    >>> Cell.of(objective="nuclear", variance=0.1, seed=0)
    Cell(name='nuclear-0.1-0', options={'objective': 'nuclear', 'variance': 0.1, 'seed': 0})
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, **options: Any) -> "Cell":
        """Return a cell that is called by the values of its options."""
        values = (f"{v:g}" if isinstance(v, float) else str(v) for v in options.values())
        return cls("-".join(values).replace("/", "_").replace(" ", "_"), options)


@dataclass(frozen=True)
class Claim:
    """What was claimed, and what came out.

    Args:
        claim: The claim in one sentence.
        outcome: What was measured, with its figures.
        holds: Whether the claim holds, or ``None`` where these data cannot tell.
        reason: The likely reason of a failure, and how it was tested.
        theorem: Whether it is proved. Its outcome then says whether the program keeps to it, and
            tells nothing about the world, so the page lists it apart.
    """

    claim: str
    outcome: str
    holds: bool | None
    reason: str = ""
    theorem: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure for the page.

    Args:
        name: The file's name, without its ending.
        figure: The figure, or ``None`` to keep the file that is there (:func:`drawn_from`).
        alt: What it shows, for readers who cannot see it.
        caption: The text below it.
    """

    name: str
    figure: "figure.Figure | None"
    alt: str
    caption: str


S = TypeVar("S", bound=Settings)


class Experiment(ABC, Generic[S]):
    """One experiment; a module has one, called ``EXPERIMENT``.

    Attributes:
        name: The name on the command line.
        title: The heading of its page.
        question: What is asked, in a paragraph or more, in Markdown.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    question: ClassVar[str]

    @abstractmethod
    def settings(self, *, quick: bool) -> S:
        """Return the settings of the full run, or those that only show that everything runs."""

    @abstractmethod
    def cells(
        self,
        settings: S,
        seeds: Sequence[int],
        rows: Sequence[Row],
    ) -> Iterable[Cell]:
        """Return the cells that can be named by now; those that are done may be among them.

        Args:
            settings: What :meth:`settings` returned.
            seeds: The seeds of the run.
            rows: What was measured so far, in the order of the cells.
        """

    @abstractmethod
    def measure(self, settings: S, options: Mapping[str, Any], folder: Path) -> Row:
        """Measure one cell.

        Args:
            settings: What :meth:`settings` returned.
            options: Those of the cell.
            folder: An own folder, for what should outlive the measurement.

        Returns:
            What was measured; the options of the cell are added.
        """

    def identity(self, settings: S, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the settings that the row of a cell depends on; by default, all of them.

        A kept row is used again as long as these are the same. What only decides which cells there
        are can be left out, so that a run can be added to.

        Args:
            settings: What :meth:`settings` returned.
            options: Those of the cell.
        """
        del options
        return settings.model_dump(mode="json")

    @abstractmethod
    def claims(self, settings: S, rows: Sequence[Row]) -> Sequence[Claim]:
        """Return what was claimed and what came out."""

    @abstractmethod
    def tables(self, settings: S, rows: Sequence[Row]) -> Sequence[Table]:
        """Return the tables of the page."""

    @abstractmethod
    def pictures(
        self,
        settings: S,
        rows: Sequence[Row],
        work: Path,
    ) -> Iterator[Picture]:
        """Draw the figures of the page; ``work`` holds the folders of the cells."""

    def notes(self, settings: S, rows: Sequence[Row]) -> str:
        """Return what else a reader should know, in Markdown."""
        return ""


def drawn_from(folders: Iterable[Path], picture: "Callable[[], Picture]", kept: Picture) -> Picture:
    """Return a picture that needs the folders of cells, or the one to keep where they are gone.

    Rows that are taken from a result have no folders any more.

    Args:
        folders: What must be there.
        picture: Draws it.
        kept: The same picture without its figure.
    """
    return picture() if all(folder.exists() for folder in folders) else kept


def select(rows: Iterable[Row], **options: Any) -> list[Row]:
    """Return the rows whose entries have these values.

    >>> select([{"seed": 0, "k": 1}, {"seed": 1, "k": 1}], seed=1)
    [{'seed': 1, 'k': 1}]
    """
    return [row for row in rows if all(row.get(name) == v for name, v in options.items())]


def values_of(
    rows: Iterable[Row],
    name: str,
    **options: Any,
) -> list[float]:
    """Return one measured number of all rows with these options, where there is one.

    >>> values_of([{"seed": 0, "x": 1.5}, {"seed": 1, "x": None}], "x")
    [1.5]
    """
    return [float(row[name]) for row in select(rows, **options) if row.get(name) is not None]


def mean_of(
    rows: Iterable[Row],
    name: str,
    **options: Any,
) -> float:
    """Return the mean of :func:`values_of`.

    >>> mean_of([{"seed": 0, "x": 1.0}, {"seed": 1, "x": 2.0}], "x")
    1.5
    """
    return statistics.mean(values_of(rows, name, **options))


def beyond(ahead: Sequence[float], behind: Sequence[float]) -> bool | None:
    """Return whether values of one side are above those of another in every seed and by more.

    ``True`` if all of the first are above all of the second. ``False`` if their mean is not above.
    ``None``, not shown, if the mean is above but the two overlap.

    >>> beyond([3.0, 4.0], [1.0, 2.0]), beyond([1.0], [2.0]), beyond([1.0, 4.0], [2.0, 2.5])
    (True, False, None)
    """
    if statistics.mean(ahead) <= statistics.mean(behind):
        return False
    return True if min(ahead) > max(behind) else None


def together(verdicts: Sequence[bool | None]) -> bool | None:
    """Return whether several things hold at once: not if one fails, and not shown if one is not.

    >>> together([True, True]), together([True, None]), together([None, False])
    (True, None, False)
    """
    if False in verdicts:
        return False
    return None if None in verdicts else True


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return ``mean ± standard deviation`` over the seeds, a dash where there are none.

    >>> spread([1.0, 2.0], 1), spread([1.0], 1), spread([])
    ('1.5 ± 0.7', '1.0', '–')
    """
    if not values:
        return "–"
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def train(folder: Path, **options: Any) -> "Run":
    """Train a model into ``folder/run``, without bar, notices or TensorBoard logs."""
    from hilbound.training.fit import fit

    return fit(folder / "run", overwrite=True, quiet=True, **{"tensorboard": False} | options)
