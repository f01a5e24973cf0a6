"""Several runs beside each other: which can be compared, and their means over seeds.

Two runs can be compared if they have the same data and were measured alike. Such runs form a
:class:`RunComparison`. Some of its runs differ only in the seed. They form a
:class:`Group`, which has a mean and a standard deviation of every value. A run that lacks a value
does not count in the mean. If all runs of a group lack it, the group has none.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hilbound.config import MODEL_DEFAULTS
from hilbound.datasets.catalogue import whole_path
from hilbound.errors import InputError
from hilbound.evaluation.quality import METRICS, RECONSTRUCTION, format_metric, percent
from hilbound.evaluation.table_metrics import TABLE_METRICS, format_value
from hilbound.objectives import OBJECTIVES
from hilbound.training.runs import Run

#: Options that decide which rows a run has, besides the seed and the place of the data.
_DATA_OPTIONS = (
    "samples",
    "validation_fraction",
    "test_fraction",
    "scale",
    "columns",
    "drop",
    "missing",
    "label_column",
    "image_size",
    "crop",
    "grayscale",
    "classes",
)
#: Options on which no result depends.
_IDLE = ("kind", "seed", "data", "tensorboard")
#: What tells two settings apart in few words, most telling first.
_TELLING = ("model", "objective", "objective_options", "variance", "condition", "effort")
MODEL = "model"


@dataclass(frozen=True)
class Column:
    """What a table shows of every run.

    Args:
        title: Its heading.
        write: Turns a value into text.
    """

    title: str
    write: Callable[[float], str]


#: Values of samples and reconstructions, and of predictions for a target.
MEASURED: Mapping[str, Column] = {
    **{name: Column(i.title, partial(format_metric, name)) for name, i in METRICS.items()},
    "log_likelihood": Column("Log-likelihood", "{:.4g}".format),
    **{name: Column(i.title, partial(format_metric, name)) for name, i in RECONSTRUCTION.items()},
    **{name: Column(i.title, partial(format_value, name)) for name, i in TABLE_METRICS.items()},
}
#: Values of the bound, and of the training.
OF_BOUND: Mapping[str, Column] = {
    "cost": Column("Cost", "{:.4g}".format),
    "limit": Column("Limit", "{:.4g}".format),
    "bound_tightness": Column("Tightness of the bound", percent),
    "held_out_tightness": Column("Tightness, held-out rows", percent),
    "real_tightness": Column("Real data", percent),
    "point_tightness": Column("One point", percent),
    "steps": Column("Steps", "{:,.0f}".format),
    "seconds": Column("Seconds", "{:.1f}".format),
}
COLUMNS: Mapping[str, Column] = {**MEASURED, **OF_BOUND}


@dataclass(frozen=True)
class Data:
    """What is known of the data of a run.

    Args:
        name: What they are called.
        place: Their name or their whole path.
        fingerprint: A hash of the rows.
        key: What the fingerprint depends on, such as the seed of the split. Two runs with the same
            key have the same data only if their fingerprints are equal.
        shape: What is equal for the same data, whatever the key, such as numbers of rows.
        options: Options that decide which rows are used.
    """

    name: str = ""
    place: str = ""
    fingerprint: str = ""
    key: str = ""
    shape: str = ""
    options: str = ""


@dataclass(frozen=True)
class Member:
    """One run of a comparison.

    Args:
        name: The folder, as it was given.
        seed: Its seed.
        settings: Its options, without the seed and the data.
        data: Its data.
        values: What was measured, by the names of :data:`COLUMNS`. If there are several targets,
            the name of the target and a slash come first.
        floors: The same for what stands in the place of the model, such as
            ``"real data"``.
        measured: What it was measured on, or the empty string.
        rows: Its ``bounds.csv``; nothing if it was trained on a likelihood without a limit.
        note: What a reader should know, such as that the training failed.
        run: The run itself, if it can draw samples.
    """

    name: str
    seed: int
    settings: Mapping[str, Any]
    data: Data = field(default_factory=Data)
    values: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    measured: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    note: str = ""
    run: Run | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Group:
    """Runs that differ only in the seed.

    Args:
        setting: The options that tell it from other groups.
        members: Its runs.
    """

    setting: Mapping[str, Any]
    members: tuple[Member, ...]

    def values(self, name: str) -> list[float]:
        """Return a value of all runs that have it."""
        return [member.values[name] for member in self.members if name in member.values]


@dataclass(frozen=True)
class RunComparison:
    """Groups of runs with the same data, measured alike.

    Args:
        groups: The groups, in the order of their first runs.
        telling: The options that tell the groups apart, as few as suffice.
        differing: All options that differ.
    """

    groups: tuple[Group, ...]
    telling: tuple[str, ...]
    differing: tuple[str, ...]

    @property
    def members(self) -> tuple[Member, ...]:
        """All runs."""
        return tuple(member for group in self.groups for member in group.members)

    @property
    def data(self) -> Data:
        """The data that all runs share."""
        return self.members[0].data

    @property
    def measured(self) -> str:
        """What was measured on, or the empty string if nothing was measured."""
        return next((m.measured for m in self.members if m.measured), "")

    def columns(self, among: Iterable[str] = COLUMNS) -> tuple[str, ...]:
        """Return the values that any run has, in the order of :data:`COLUMNS`.

        Args:
            among: The names to choose from.
        """
        order = {name: place for place, name in enumerate(COLUMNS)}
        found = dict.fromkeys(name for m in self.members for name in m.values)
        # The values of the first target come first.
        targets = list(dict.fromkeys(name.rpartition("/")[0] for name in found))
        chosen = {name for name in found if name.rpartition("/")[2] in set(among)}
        return tuple(
            sorted(
                chosen,
                key=lambda n: (targets.index(n.rpartition("/")[0]), order[n.rpartition("/")[2]]),
            )
        )

    def floors(self) -> dict[str, dict[str, list[float]]]:
        """Return the values of what stands in the place of the model, one for each seed."""
        found: dict[str, dict[str, list[float]]] = {}
        seen = set()
        for member in self.members:
            if not member.floors or member.seed in seen:
                continue
            seen.add(member.seed)
            for side, values in member.floors.items():
                for name, value in values.items():
                    found.setdefault(side, {}).setdefault(name, []).append(value)
        return found

    def plain(self) -> dict[str, Any]:
        """Return what JSON can say."""
        return {
            "data": self.data.name,
            "measured_on": self.measured or None,
            "differing": list(self.differing),
            "groups": [self._plain_group(group) for group in self.groups],
            "floors": {
                side: {name: _summary(values) for name, values in found.items()}
                for side, found in self.floors().items()
            },
        }

    def _plain_group(self, group: Group) -> dict[str, Any]:
        own = group.members[0].settings
        return {
            "setting": dict(group.setting),
            "options": {name: own.get(name) for name in self.differing},
            "runs": [m.name for m in group.members],
            "seeds": [m.seed for m in group.members],
            "notes": [m.note for m in group.members if m.note],
            "values": {
                name: _summary(values) if (values := group.values(name)) else None
                for name in self.columns()
            },
        }


def title_of(name: str) -> str:
    """Return the heading of a value.

    >>> title_of("coverage"), title_of("price/rmse")
    ('Coverage', 'price: RMSE')
    """
    target, _, metric = name.rpartition("/")
    title = COLUMNS[metric].title
    return f"{target}: {title}" if target else title


def write_mean(name: str, values: Sequence[float]) -> str:
    """Return the mean of values, and their standard deviation if they differ, as tables show it.

    >>> write_mean("coverage", [0.5, 0.7]), write_mean("coverage", [0.5]), write_mean("cost", [])
    ('0.600 ± 0.141', '0.500', '–')
    >>> write_mean("bound_tightness", [0.5, 0.6])
    '55.0 ± 7.1 %'
    """
    if not values:
        return "–"
    write = COLUMNS[name.rpartition("/")[2]].write
    mean = write(statistics.fmean(values))
    # One unit for both: 73.8 ± 4.6 %.
    mean = mean.removesuffix(" %") if len(set(values)) > 1 else mean
    return mean if len(set(values)) == 1 else f"{mean} ± {write(statistics.stdev(values))}"


def _summary(values: Sequence[float]) -> dict[str, Any]:
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "deviation": deviation, "values": list(values)}


# ------------------------------------------------------------------ what belongs together


def compare(members: Iterable[Member]) -> list[RunComparison]:
    """Return comparisons: runs on different data, or measured on different rows, stand apart.

    Args:
        members: The runs.

    >>> a, b = (Member(f"run-{s}", s, {"objective": "nuclear"}) for s in (0, 1))
    >>> (comparison,) = compare([a, b])
    >>> [len(group.members) for group in comparison.groups]
    [2]
    """
    parts: list[list[Member]] = []
    for member in members:
        part = next((p for p in parts if _belongs(member, p)), None)
        if part is None:
            parts.append([member])
        else:
            part.append(member)
    return [_grouped(part) for part in parts]


def _belongs(member: Member, part: Sequence[Member]) -> bool:
    return any(_same_data(member, other) for other in part) and not any(
        _contradict(member, other) for other in part
    )


def _same_data(a: Member, b: Member) -> bool:
    if a.data.fingerprint == b.data.fingerprint:
        return True
    return (a.data.place, a.data.options) == (b.data.place, b.data.options)


def _contradict(a: Member, b: Member) -> bool:
    """Whether two runs cannot be compared: other rows, or measured on others."""
    changed = a.data.key == b.data.key and a.data.fingerprint != b.data.fingerprint
    measured = a.measured and b.measured and a.measured != b.measured
    return changed or a.data.shape != b.data.shape or bool(measured)


def _grouped(members: Sequence[Member]) -> RunComparison:
    groups: list[list[Member]] = []
    for member in members:
        for group in groups:
            # The same seed twice would look like a deviation of zero.
            repeated = any(member.seed == other.seed for other in group)
            if group[0].settings == member.settings and not repeated:
                group.append(member)
                break
        else:
            groups.append([member])
    settings = [group[0].settings for group in groups]
    differing = _differing(settings)
    telling = _fewest(settings, differing)
    # The same options and seed twice are told apart by the folders alone.
    apart = len(_kinds(settings, telling)) == len(settings)
    made = []
    for group in groups:
        setting = {name: group[0].settings.get(name) for name in telling}
        made.append(Group(setting if apart else setting | {"run": group[0].name}, tuple(group)))
    return RunComparison(tuple(made), telling if apart else (*telling, "run"), differing)


def _differing(settings: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    names = dict.fromkeys(name for one in settings for name in one)
    return tuple(n for n in names if any(one.get(n) != settings[0].get(n) for one in settings))


def _fewest(settings: Sequence[Mapping[str, Any]], differing: Sequence[str]) -> tuple[str, ...]:
    """Return a few options that tell the settings apart, if any do."""
    order = [n for n in _TELLING if n in differing] + [n for n in differing if n not in _TELLING]
    chosen: list[str] = []
    for name in order:
        if len(_kinds(settings, (*chosen, name))) > len(_kinds(settings, chosen)):
            chosen.append(name)
    return tuple(chosen)


def _kinds(settings: Sequence[Mapping[str, Any]], names: Sequence[str]) -> set[str]:
    return {json.dumps([one.get(name) for name in names]) for one in settings}


# ------------------------------------------------------------------ what is read of a run


def member_of(run: Run, name: str | None = None) -> Member:
    """Return what a run folder tells of a run that draws samples.

    Nothing is measured here: what ``metrics.json`` lacks is absent.

    Args:
        run: The run.
        name: What to call it; by default its path.

    Raises:
        InputError: If a file of the run is damaged.
    """
    facts = run.read_json("run.json")
    there = (run.path / "metrics.json").exists()
    measured = run.read_json("metrics.json") if there else {}
    rows, config = run.read_bounds(), run.config
    options = config.model_dump(mode="json")
    try:
        entries = _entries(measured)
        real = sides(entries, "real")
        return Member(
            name=str(run.path) if name is None else name,
            seed=config.seed,
            settings={n: value for n, value in options.items() if n not in _IDLE},
            data=_data(run, facts["data"], options),
            values=sides(entries, MODEL) | _of_bound(run, rows, measured),
            floors={"real data": real} if real else {},
            measured=f"{measured['samples']:,} {measured['split']} rows" if measured else "",
            rows=() if _is_unbounded(run) else rows,
            note=_note(facts, measured=bool(measured)),
            run=run,
        )
    # A stranger may have written them.
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"run.json, metrics.json or bounds.csv of run {str(run.path)!r} is damaged ({error}): "
            "run 'hilbound evaluate' again, or leave the run out"
        ) from None


def _data(run: Run, told: Mapping[str, Any], options: Mapping[str, Any]) -> Data:
    shape = ("dim", "image_shape", "columns", "train", "validation", "test")
    return Data(
        name=Path(str(told.get("name", options["data"]))).name,
        place=whole_path(options["data"]),
        fingerprint=str(told["fingerprint"]),
        key=f"seed {run.config.seed}",
        shape=json.dumps([told.get(part) for part in shape]),
        options=json.dumps([options[option] for option in _DATA_OPTIONS]),
    )


def _entries(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Return every metric with its sides."""
    entries = dict(measured.get("metrics", {}))
    entries |= measured.get("reconstruction", {}).get("metrics", {})
    likelihood = measured.get("latent", {}).get("log_likelihood")
    if likelihood is not None:
        entries["log_likelihood"] = {"model": likelihood["mean"]}
    return entries


def sides(entries: Mapping[str, Mapping[str, Any]], side: str) -> dict[str, float]:
    """Return the known values of one side, such as ``"model"``, of metrics.

    >>> sides({"coverage": {"model": 0.9, "real": None}}, "real")
    {}
    """
    found = {name: entry.get(side) for name, entry in entries.items()}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float)
        and math.isfinite(value)
        and name.rpartition("/")[2] in COLUMNS
    }


def _is_unbounded(run: Run) -> bool:
    """Whether a run was trained on the likelihood of rows given features, which has no limit."""
    return run.config.objective == "likelihood" and run.config.model in MODEL_DEFAULTS


def _of_bound(
    run: Run, rows: Sequence[Mapping[str, Any]], measured: Mapping[str, Any]
) -> dict[str, float]:
    """Return the last cost and limit of held-out rows, and what was measured of the bound."""
    held_out = [row for row in rows if row["split"] == "validation"] or rows
    found: dict[str, Any] = {}
    if held_out:
        last, objective = held_out[-1], OBJECTIVES[run.config.objective]
        found |= {"steps": rows[-1]["step"], "seconds": rows[-1]["seconds"]}
        if _is_unbounded(run):
            found["cost"] = -last["loss"]
        else:
            found |= {
                "cost": objective.readable(last["log_value"]),
                "limit": objective.readable(last["log_limit"]),
                "bound_tightness": last["tightness"],
            }
    bound = measured.get("conditional_bound") or measured.get("batch_bound") or {}
    found |= {
        "held_out_tightness": bound.get("tightness"),
        "real_tightness": bound.get("real_tightness"),
        "point_tightness": bound.get("point_tightness"),
    }
    return {
        name: float(value)
        for name, value in found.items()
        if value is not None and math.isfinite(value)
    }


def _note(facts: Mapping[str, Any], *, measured: bool) -> str:
    status = facts["status"]
    notes = [] if status == "finished" else [f"{status} at step {facts['step']:,}"]
    return ", ".join([*notes, *([] if measured else ["not measured"])])
