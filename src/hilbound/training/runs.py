"""The run folder: what a run leaves behind, and how it is read again.

========================  ====================================================================
``config.yaml``           every option; ``hilbound fit --config`` repeats the run from it, unless it
                          was lengthened (``lengthened`` in ``run.json``)
``run.json``              status, versions, the resolved variance and facts about the data
``model.safetensors``     the weights
``bounds.csv``            cost, limit, gap and tightness while training
``metrics.json``          what ``hilbound evaluate`` measured
``report.html``           what ``hilbound report`` drew
``checkpoints/``          for ``--resume``
``tensorboard/``          TensorBoard logs
========================  ====================================================================

:mod:`hilbound.training.files` writes every file whole, so an interruption at any moment leaves a
folder that opens. Nothing in a run folder is believed or executed: a stranger may have made it.
Sizes are compared with the files before anything is made, and links out of it are not followed.
"""

import csv
import io
import json
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from hilbound import datasets
from hilbound.config import RunConfig, is_table_run, read_yaml
from hilbound.datasets import Dataset, Standardization
from hilbound.errors import InputError
from hilbound.models.base import DensityModel
from hilbound.models.build import DataShape, build_model, model_shapes
from hilbound.models.feature_mixture import with_components_of
from hilbound.objectives import create_objective
from hilbound.training.files import (
    PARTIAL,
    own_file,
    parse_json,
    read_text,
    remove,
    write_whole,
)
from hilbound.training.lock import LOCK
from hilbound.training.machine import versions
from hilbound.training.packing import DAMAGE, read_tensors, shapes_of, to_bytes
from hilbound.variance import VarianceSchedule

log = logging.getLogger(__name__)

BOUND_COLUMNS = (
    "step",
    "split",
    "loss",
    "log_value",
    "log_limit",
    "gap",
    "tightness",
    "variance",
    "seconds",
    "real_tightness",
)
_OWN = (
    "config.yaml",
    "run.json",
    "model.safetensors",
    "metrics.json",
    "bounds.csv",
    "report.html",
    "checkpoints",
    "tensorboard",
)

_ENTRIES = {
    "run.json": {"status", "step", "data", "variance", "versions"},
    "metrics.json": {"split", "samples", "features", "metrics"},
}

_LIST: Any = list | None
_WITHIN: dict[str, dict[str, Any]] = {
    "data": {
        "fingerprint": str,
        "dim": int,
        "image_shape": _LIST,
        "columns": _LIST,
        "train": int,
        "offset": _LIST,
        "scale": _LIST,
    },
    "variance": {"start": float | int, "end": float | int, "component_start": float | int},
}


@dataclass(frozen=True)
class Run:
    """A run folder with its configuration.

    Args:
        path: The folder.
        config: The options of the run.
    """

    path: Path
    config: RunConfig

    @classmethod
    def create(cls, path: Path, config: RunConfig, *, overwrite: bool = False) -> "Run":
        """Start a run folder.

        Raises:
            InputError: If the folder holds a run and ``overwrite`` is false, holds other files, or
                cannot be written.
        """
        refuse_occupied(path, overwrite=overwrite)
        try:
            path.mkdir(parents=True, exist_ok=True)
            clear(path)
            (path / "checkpoints").mkdir()
            write_whole(path / "config.yaml", config.to_yaml())
        except OSError as error:
            raise InputError(f"output {str(path)!r} cannot be written: {error.strerror}") from None
        return cls(path, config)

    @classmethod
    def open(cls, path: Path | str) -> "Run":
        """Open a run folder that exists.

        Raises:
            InputError: If the path is not a run folder, or its configuration cannot be used.
        """
        path = expand(path)
        if not (path / "config.yaml").is_file():
            reason = "holds no config.yaml" if path.is_dir() else "does not exist"
            raise InputError(
                f"run {str(path)!r} {reason}: give the folder that 'hilbound fit' wrote"
            )
        for name in _OWN:
            own_file(path, name)
        if is_table_run(path):
            raise InputError(
                f"run {str(path)!r} predicts a table's target, it draws no samples and goes on "
                f"with no training: use 'hilbound predict {path} TABLE', 'hilbound evaluate "
                f"{path}' or 'hilbound report {path}'"
            )
        return cls(path, RunConfig.create(**read_yaml(path / "config.yaml")))

    def with_data(self, data: Path | str | None) -> "Run":
        """Return the run with its data at another place, where they were moved to.

        Args:
            data: The place, or ``None`` if it is the old one.
        """
        if data is None:
            return self
        place = datasets.catalogue.whole_path(data)
        return Run(self.path, self.config.model_copy(update={"data": place}))

    def find_data(self) -> None:
        """Raise an InputError if the run's data are not where they were.

        Runs of older versions hold the path as it was typed, relative to the folder of that day.
        """
        data = self.config.data
        path = Path(datasets.catalogue.whole_path(data))
        if data not in datasets.DATASETS and not path.exists():
            raise InputError(
                f"the data of run {str(self.path)!r} are gone: {path} does not exist. Say where "
                "they are now by --data"
            )

    @property
    def checkpoint(self) -> Path:
        """The checkpoint from which ``--resume`` continues."""
        return own_file(self.path, "checkpoints/last.ckpt")

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint of the best validation, if training may stop early."""
        return self.path / "checkpoints" / "best.ckpt"

    def read_json(self, name: str) -> dict[str, Any]:
        """Read ``run.json`` or ``metrics.json``.

        Raises:
            InputError: If the file is missing or damaged.
        """
        content = read_entries(self.path, name, _ENTRIES[name])
        wrong = _lacking(content) if name == "run.json" else None
        if wrong is not None:
            file = self.path / name
            raise InputError(f"{str(file)!r} is damaged ({wrong} is wrong): {_remedy(name)}")
        return content

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write ``run.json`` or ``metrics.json`` in one piece."""
        write_whole(self.path / name, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_text(self, name: str, content: str) -> Path:
        """Write a text file in one piece and return its path."""
        return write_whole(self.path / name, content)

    def describe(
        self, dataset: Dataset, schedule: VarianceSchedule, model_start: float, data_end: float
    ) -> None:
        """Write ``run.json`` at the start: versions, data and the resolved variances."""
        scaling = dataset.standardization
        self.write_json(
            "run.json",
            {
                "status": "running",
                "step": 0,
                "data": {
                    "name": dataset.name,
                    "fingerprint": fingerprint(dataset),
                    "dim": dataset.dim,
                    "image_shape": dataset.image_shape,
                    "classes": dataset.classes,
                    "columns": dataset.columns,
                    "whole": dataset.whole,
                    "train": len(dataset.train),
                    "validation": len(dataset.validation),
                    "test": len(dataset.test),
                    "offset": None if scaling is None else scaling.offset.tolist(),
                    "scale": None if scaling is None else scaling.scale.tolist(),
                },
                "variance": {
                    "start": schedule.start,
                    "end": schedule.end,
                    "component_start": model_start,
                    "data_end": data_end,
                },
                "versions": versions(),
            },
        )

    def update(self, **facts: Any) -> None:
        """Change entries of ``run.json``."""
        self.write_json("run.json", self.read_json("run.json") | facts)

    def note(self, step: int, finding: dict[str, Any]) -> None:
        """Add a finding to ``run.json``, unless one of its name stands there."""
        known = self.read_json("run.json").get("findings", [])
        if all(one["name"] != finding["name"] for one in known):
            self.update(findings=[*known, {"step": step, **finding}])

    def forget_results(self) -> None:
        """Remove the metrics and the report, because the weights are about to change."""
        for name in ("metrics.json", "report.html"):
            remove(self.path / name)

    def save_model(self, model: DensityModel) -> None:
        """Write the weights as safetensors, in one piece."""
        write_whole(self.path / "model.safetensors", to_bytes(model.state_dict()))

    @cached_property
    def dataset(self) -> Dataset:
        """The data of the run, loaded once, for evaluation and reports.

        If the training rows have changed since the training, a warning says so.

        Raises:
            InputError: If the data are gone, or can no longer be compared with the run's samples.
        """
        data = self.read_json("run.json")["data"]
        self.find_data()
        dataset = load_dataset(self.config, known=True)
        shape = None if data["image_shape"] is None else tuple(data["image_shape"])
        if (dataset.dim, dataset.image_shape) != (data["dim"], shape):
            raise InputError(
                f"the data of run {str(self.path)!r} ({self.config.data}) now have {dataset.dim} "
                f"coordinates, and had {data['dim']} when it was trained: restore them, or fit anew"
            )
        if fingerprint(dataset) != data["fingerprint"]:
            log.warning("the data of run %s (%s) have changed since", self.path, self.config.data)
        return dataset

    @cached_property
    def model(self) -> DensityModel:
        """The trained model in evaluation mode, loaded once. See :meth:`load_model`."""
        return self.load_model()

    @property
    def component_variance(self) -> float:
        """The variance of a component of the data at the end of the training."""
        variance = self.read_json("run.json")["variance"]
        objective = create_objective(self.config.objective)
        # Older runs have the same for both sides.
        own: float = variance.get("data_end", objective.component_variance(variance["end"]))
        return own

    def keep(self, dataset: Dataset) -> None:
        """Use a data set that is already in memory as the data of this run."""
        vars(self)["dataset"] = dataset

    def load_model(self) -> DensityModel:
        """Build the model and load its weights.

        Raises:
            InputError: If the weights are missing or damaged, or belong to another model.
        """
        file = own_file(self.path, "model.safetensors")
        if not file.is_file():
            raise InputError(f"run {str(self.path)!r} has no weights: {_remedy(file.name)}")
        return load_weights(self.config, self.read_json("run.json"), file)

    def to_user_units(self, x: torch.Tensor) -> torch.Tensor:
        """Undo the standardisation of rows with shape ``(n, d)``, and round whole numbers."""
        data = self.read_json("run.json")["data"]
        x = self._unscaled(x, data)
        # Older runs do not know of whole numbers.
        whole = data.get("whole", [])
        return x if not whole else x.index_copy(1, torch.tensor(whole), x[:, whole].round())

    def _unscaled(self, x: torch.Tensor, data: dict[str, Any]) -> torch.Tensor:
        if data["offset"] is None:
            return x
        offset, scale = (
            torch.tensor(data[name], dtype=torch.float64) for name in ("offset", "scale")
        )
        return Standardization(offset, scale).inverse(x)

    def read_bounds(self) -> list[dict[str, Any]]:
        """Return the rows of ``bounds.csv``, numbers as floats."""
        return read_bounds(own_file(self.path, "bounds.csv"))


def load_weights(config: RunConfig, facts: dict[str, Any], file: Path) -> DensityModel:
    """Build the model of a configuration and load its weights, in evaluation mode.

    Args:
        config: The options.
        facts: The facts about the data and the variance, as ``run.json`` holds them.
        file: The weights.

    Raises:
        InputError: If the file is missing or damaged, or belongs to another model.
    """
    setting = config, _data_shape(facts["data"]), facts["variance"]["component_start"]
    try:
        found = shapes_of(file)
        wanted = with_components_of(model_shapes(*setting), found)
        if wanted != found:
            raise TypeError(_difference(wanted, found))
        state, _ = read_tensors(file)
        model = build_model(*setting)
        # The precision of the run: all its tensors share it.
        model.to(_precision(state)).load_state_dict(state)
    except DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{str(file)!r} does not hold the weights of this run's model: {error}"
        ) from None
    return model.eval()


def load_dataset(config: RunConfig, *, known: bool = False) -> Dataset:
    """Load the data set that a configuration names.

    Args:
        config: The options.
        known: Whether a run has these data already: what was doubtful in them was told at its
            start, and is not asked again.
    """
    return datasets.load(
        config.data,
        seed=config.seed,
        samples=config.samples,
        validation_fraction=config.validation_fraction,
        test_fraction=config.test_fraction,
        scale=config.scale,
        header="guess" if known and config.header is None else config.header,
        delimiter=config.delimiter,
        decimal=config.decimal,
        columns=config.columns,
        drop=config.drop,
        missing=config.missing,
        label_column=config.label_column,
        image_size=config.image_size,
        crop=config.crop,
        grayscale=config.grayscale,
        classes=config.classes,
    )


def _difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return where two sets of shapes differ first."""
    for name in (*wanted, *found):
        if wanted.get(name) != found.get(name):
            sides = (str(one.get(name, "missing")) for one in (found, wanted))
            return "{!r} is {} there, and {} in the model".format(name, *sides)
    return "nothing differs"


def _precision(state: dict[str, torch.Tensor]) -> torch.dtype:
    """Return the precision of a run's weights, which all its tensors share.

    Raises:
        TypeError: If there are none, or they are no floating-point numbers.
    """
    # Numbers of rows are whole numbers.
    kinds = {tensor.dtype for tensor in state.values()}
    floating = {kind for kind in kinds if kind.is_floating_point}
    if not floating:
        raise TypeError(f"floating-point numbers are needed, got {kinds or 'nothing'}")
    return max(floating, key=lambda kind: kind.itemsize)


def _lacking(content: dict[str, Any]) -> str | None:
    """Return what is wrong within a ``run.json``, or ``None``."""
    for name, kinds in _WITHIN.items():
        block = content[name]
        if not isinstance(block, dict):
            return name
        for key, kind in kinds.items():
            value = block.get(key)
            if key not in block or not isinstance(value, kind) or isinstance(value, bool):
                return f"{name}.{key}"
    if not isinstance(content["step"], int) or isinstance(content["step"], bool):
        return "step"
    if not isinstance(content.get("findings", []), list):
        return "findings"
    return _impossible(content["data"])


def _impossible(data: dict[str, Any]) -> str | None:
    """Return which fact about the data contradicts the others, or ``None``."""
    dim, shape = data["dim"], data["image_shape"]
    if dim < 1 or data["train"] < 1:
        return "data.dim" if dim < 1 else "data.train"
    sides = [] if shape is None else [n for n in shape if type(n) is int and n > 0]
    if shape is not None and (len(sides) != 3 or len(shape) != 3 or math.prod(sides) != dim):
        return "data.image_shape"
    for name, kind in (("columns", str), ("offset", float | int), ("scale", float | int)):
        values = data[name]
        if values is not None and (
            len(values) != dim or not all(isinstance(v, kind) for v in values)
        ):
            return f"data.{name}"
    return "data.scale" if (data["offset"] is None) != (data["scale"] is None) else None


def _data_shape(data: dict[str, Any]) -> DataShape:
    """Return the shape of the data from their entry in ``run.json``."""
    shape = data["image_shape"]
    image_shape = None if shape is None else (shape[0], shape[1], shape[2])
    # Runs of older versions do not know their classes, and have no condition.
    return DataShape(data["dim"], image_shape, data["train"], data.get("classes"))


def read_bounds(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a ``bounds.csv``, numbers as floats. Without a file there are no rows.

    The tightness of real rows is ``None`` where it was not measured.

    Raises:
        InputError: If the file is damaged.
    """
    if not file.exists():
        return []
    try:
        text = read_text(file)
        # A process that is killed may leave half a line; the rest of it is lost.
        whole = text[: text.rfind("\n") + 1]
        return [
            {k: _read_cell(k, row) for k in BOUND_COLUMNS}
            for row in csv.DictReader(io.StringIO(whole, newline=""))
        ]
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        raise InputError(
            f"{str(file)!r} is damaged: remove the lines that are not complete, or the file"
        ) from None


def format_bounds(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of a ``bounds.csv`` with these rows."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, BOUND_COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _read_cell(name: str, row: dict[str, str]) -> str | float | None:
    if name == "split":
        return row[name]
    # Files of earlier versions do not have this column, and runs without an encoder leave it empty.
    if name == "real_tightness" and not row.get(name):
        return None
    return float(row[name])


def expand(path: Path | str) -> Path:
    """Return a path with ``~`` as the home folder, as a shell would have it.

    Raises:
        InputError: If there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(
            f"{str(path)!r} begins with the home folder of a user that is not known here: write "
            "the whole path"
        ) from None


def refuse_occupied(path: Path, *, overwrite: bool) -> None:
    """Raise an InputError if a new run must not be written to ``path``."""
    if "::" in str(path):
        # The writer of checkpoints takes it for a chain of addresses.
        raise InputError(
            f"output {str(path)!r} holds '::', which checkpoints cannot be written to: choose "
            "another name (--output)"
        )
    if path.exists() and not path.is_dir():
        raise InputError(f"output {str(path)!r} is a file: give a folder")
    of_table = is_table_run(path)
    if of_table or _is_run(path):
        if not overwrite:
            go_on = "" if of_table else f"go on with it (--resume {path}), "
            raise InputError(
                f"output {str(path)!r} already holds a run: choose another folder, {go_on}"
                "or replace it (--overwrite)"
            )
    elif path.is_dir() and not all(map(_is_left_over, path.iterdir())):
        raise InputError(
            f"output {str(path)!r} holds files that are no run of hilbound: choose another folder"
        )


def _is_left_over(file: Path) -> bool:
    """Whether a file is what a training leaves that was killed before it had begun."""
    if file.name == "checkpoints" and file.is_dir():
        return not any(file.iterdir())
    return file.name == LOCK or (file.name.startswith(".") and file.name.endswith(PARTIAL))


def _is_run(path: Path) -> bool:
    """Whether a folder is a hilbound run. A ``config.yaml`` alone may come from another program."""
    try:
        Run.open(path)
    except InputError:
        return False
    return True


def read_entries(folder: Path, name: str, wanted: Collection[str]) -> dict[str, Any]:
    """Read a JSON file of a run folder that holds at least the entries that are wanted.

    Raises:
        InputError: If the file is missing or damaged.
    """
    file = own_file(folder, name)
    try:
        content = parse_json(read_text(file))
    except OSError:
        raise InputError(f"run {str(folder)!r} has no {name}: {_remedy(name)}") from None
    except ValueError as error:
        raise InputError(f"{str(file)!r} is damaged ({error}): {_remedy(name)}") from None
    lacking = set(wanted) - set(content if isinstance(content, dict) else ())
    if lacking:
        raise InputError(
            f"{str(file)!r} is damaged (no {', '.join(sorted(lacking))}): {_remedy(name)}"
        )
    return dict(content)


def clear(path: Path) -> None:
    """Remove what an earlier run left in its folder."""
    remove_partials(path)
    for name in _OWN:
        remove(path / name)


def remove_partials(path: Path) -> None:
    """Remove files that are not whole, which a process has left that was killed."""
    for folder in (path, path / "checkpoints"):
        for left in folder.glob(f".*{PARTIAL}"):
            remove(left)


def fingerprint(dataset: Dataset) -> str:
    """Return a short hash of the training rows. A resumed run recognises its data by it."""
    import hashlib

    rows = dataset.train.contiguous().numpy().tobytes()
    return hashlib.blake2b(rows, digest_size=8).hexdigest()


def _remedy(name: str) -> str:
    return {
        "metrics.json": "run 'hilbound evaluate' first",
        "model.safetensors": "training stopped before the first weights were written",
    }.get(name, "the folder was damaged; fit again")
