"""The run folder: what a run leaves behind, and how it is read again.

========================= ====================================================================
``config.yaml``           every option; ``hilbound fit --config`` repeats the run from it, unless it
                          was lengthened (``lengthened`` in ``run.json``)
``run.json``              status, versions, the resolved variance and facts about the data
``model.safetensors``     the weights
``bounds.csv``            cost, limit, gap and tightness while training
``snapshots.safetensors`` samples at some steps, if the data are points of the plane
``metrics.json``          what ``hilbound evaluate`` measured
``report.html``           what ``hilbound report`` drew
``checkpoints/``          for ``--resume``
``tensorboard/``          TensorBoard logs
``data.csv``, ...         the data, if they came as an array, a data frame or on standard input
========================= ====================================================================

:mod:`hilbound.training.files` writes every file whole, so an interruption at any moment leaves a
folder that opens. Nothing in a run folder is believed or executed: a stranger may have made it.
Sizes are compared with the files before anything is made, and links out of it are not followed.
"""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

import hilbound
from hilbound import datasets
from hilbound.config import RunConfig, is_table_run, read_yaml
from hilbound.datasets import Dataset, Standardization
from hilbound.datasets.incoming import beside
from hilbound.datasets.new_rows import as_rows
from hilbound.datasets.options import class_numbers
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.models.base import DensityModel, refuse_label
from hilbound.models.build import build_model, model_shapes
from hilbound.models.feature_mixture import with_components_of
from hilbound.models.importance import LogDensity
from hilbound.objectives import create_objective
from hilbound.registry import suggest
from hilbound.training.curves import SNAPSHOTS, read_bounds, read_snapshots
from hilbound.training.facts import data_shape, read_facts, remedy
from hilbound.training.files import (
    PARTIAL,
    own_file,
    remove,
    write_whole,
)
from hilbound.training.lock import LOCK
from hilbound.training.machine import versions
from hilbound.training.memory import refuse_too_many
from hilbound.training.packing import DAMAGE, read_tensors, shapes_of, to_bytes
from hilbound.training.scoring import estimate_log_densities, in_user_units
from hilbound.variance import VarianceSchedule

log = logging.getLogger(__name__)

_OWN = (
    "config.yaml",
    "run.json",
    "model.safetensors",
    "metrics.json",
    "bounds.csv",
    SNAPSHOTS,
    "report.html",
    "checkpoints",
    "tensorboard",
)


# Samples that show whether weights are of use.
_PROBED = 64


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
            clear(path, Path(config.data))
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
        config = RunConfig.create(**read_yaml(path / "config.yaml"))
        return cls(path, config.model_copy(update={"data": beside(path, config.data)}))

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
        return read_facts(self.path, name)

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
                    "class_names": dataset.class_names,
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
            raise InputError(f"run {str(self.path)!r} has no weights: {remedy(file.name)}")
        return load_weights(self.config, self.read_json("run.json"), file)

    def to_user_units(self, x: torch.Tensor) -> torch.Tensor:
        """Undo the standardisation of rows with shape ``(n, d)``, and round whole numbers."""
        data = self.read_json("run.json")["data"]
        x = self._unscaled(x, data)
        # Older runs do not know of whole numbers.
        whole = data.get("whole", [])
        return x if not whole else x.index_copy(1, torch.tensor(whole), x[:, whole].round())

    def _unscaled(self, x: torch.Tensor, data: dict[str, Any]) -> torch.Tensor:
        scaling = self._scaling(data)
        return x if scaling is None else scaling.inverse(x)

    @staticmethod
    def _scaling(data: dict[str, Any]) -> Standardization | None:
        if data["offset"] is None:
            return None
        numbers = (torch.tensor(data[name], dtype=torch.float64) for name in ("offset", "scale"))
        return Standardization(*numbers)

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        source: Literal["centers", "density"] = "centers",
        label: int | str | None = None,
    ) -> torch.Tensor:
        """Draw samples with shape ``(n, d)`` in the original units of the data.

        Args:
            n: How many.
            seed: Seed of the draw. The same seed gives the same samples.
            source: ``"centers"`` for what the network generates, ``"density"`` for draws from the
                mixture, which adds the noise of the components' variance.
            label: The class or cluster to draw from, for a run with a condition: its number, or
                the name of a class. By default one is drawn for each sample, as often as in the
                training rows.

        Raises:
            InputError: If ``n`` is not positive or too large for the memory, ``source`` is unknown,
                the run has no condition or no such class or cluster, or the samples are not finite.
        """
        if n < 1:
            raise InputError(f"n must be at least 1, got {n}")
        refuse_too_many(n, self.config, self.read_json("run.json")["data"]["dim"])
        model, generator = self.model, stream(seed, "sample")
        number = self.number_of(label) if isinstance(label, str) else label
        if source == "centers":
            rows = model.sample(n, generator, number)
        elif source == "density":
            with torch.no_grad():
                rows = model.draw(n, generator, number).sample((n,), generator=generator)
        else:
            raise InputError(f"source must be 'centers' or 'density', got {source!r}")
        bad = int((~rows.isfinite()).any(-1).sum())
        if bad:
            raise InputError(
                f"run {str(self.path)!r} draws NaN or infinite values ({bad} of {n} samples): its "
                "training failed. Fit again with a lower --learning-rate"
            )
        return self.to_user_units(rows)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names of the classes in the order of their numbers, or ``None`` if they have none."""
        # Older runs do not know them.
        names = self.read_json("run.json")["data"].get("class_names")
        return None if names is None else tuple(names)

    def number_of(self, label: str) -> int:
        """Return the number of a class, or of a cluster, as a user may type it.

        Args:
            label: The name of a class. A number does, too, unless names are numbers themselves.

        Raises:
            InputError: If there is no such class, or classes have no names and this is no number,
                or the run has no condition.
        """
        if self.config.condition is None:
            refuse_label(label)
        names = self.class_names if self.config.condition == "classes" else None
        if names is None and label.isdecimal():
            return int(label)
        numbers = class_numbers(names or ())
        if label not in numbers:
            known = f"known: {', '.join(names)}" if names else "give its number, from 0"
            kind = "class" if self.config.condition == "classes" else "cluster"
            raise InputError(
                f"{kind} {label!r}: run {str(self.path)!r} has no such {kind}: "
                f"{suggest(label, names or ())}{known}"
            )
        return numbers[label]

    def log_density(
        self, x: Any, *, draws: int | None = None, seed: int = 0, source: str = "x"
    ) -> LogDensity:
        r"""Estimate the log density of rows in the original units of the data.

        .. math:: \log q(x) = \log q_z\big(z(x)\big) - \sum_j \log \sigma_j,

        where z standardises the columns and :math:`\sigma_j` are their deviations. The density
        :math:`q_z` of the model is an integral over its noise, which
        :func:`~hilbound.training.scoring.estimate_log_densities` estimates.

        Args:
            x: Rows with shape ``(n, d)``: a tensor, an array, a list, or a data frame, whose
                columns are found by their names.
            draws: Number of centres that are drawn; for a latent mixture, of draws for each row.
                More of them make the error smaller.
            seed: Seed of the draws.
            source: What to call the rows in messages.

        Returns:
            Log densities in nats, their standard errors, and how many draws matter for each, with
            shape ``(n,)`` in float64. They are NaN where a row has a missing value.

        Raises:
            InputError: If the rows do not have the columns of the data, or the model has no density
                that can be computed.
        """
        data = self.read_json("run.json")["data"]
        images = data["image_shape"] is not None
        rows = as_rows(x, data["columns"], data["dim"], images=images, source=source)
        scaling = self._scaling(data)
        log_volume = 0.0
        if scaling is not None:
            rows, log_volume = scaling.forward(rows), float(scaling.scale.log().sum())
        known = rows.isfinite().all(-1)
        parts = [rows.new_full((len(rows),), torch.nan) for _ in LogDensity._fields]
        if known.any():
            # A training that failed is reported from here, with the run's name.
            self.sample(_PROBED)
            found = estimate_log_densities(self.model, rows[known], draws, stream(seed, "density"))
            for part, values in zip(parts, found, strict=True):
                part[known] = values
        return in_user_units(LogDensity(*parts), log_volume)

    def log_prob(self, x: Any, *, draws: int | None = None, seed: int = 0) -> torch.Tensor:
        """Return the log densities of rows with shape ``(n,)``. See :meth:`log_density`."""
        return self.log_density(x, draws=draws, seed=seed).value

    def evaluate(
        self, samples: int | None = None, split: Literal["validation", "test"] = "test"
    ) -> dict[str, Any]:
        """Measure the run against held-out data; see :func:`hilbound.evaluate`."""
        # Evaluation stands above the runs. The face of the package knows both.
        return hilbound.evaluate(self, samples, split)

    def read_snapshots(self) -> dict[int, torch.Tensor]:
        """Return samples of the plane with shape ``(n, 2)`` at some steps, in the user's units.

        There are none after the step whose weights were kept.
        """
        facts = self.read_json("run.json")
        if facts["data"]["dim"] != 2:
            return {}
        kept = facts.get("kept_step")
        last = kept if isinstance(kept, int) else math.inf
        found = read_snapshots(self.path)
        return {step: self.to_user_units(x) for step, x in found.items() if step <= last}

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
    setting = config, data_shape(facts["data"]), facts["variance"]["component_start"]
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


def clear(path: Path, data: Path) -> None:
    """Remove what an earlier run left in its folder.

    Args:
        path: The folder.
        data: The data of the new run, which may be those that the earlier one kept.
    """
    remove_partials(path)
    for file in [*(path / name for name in _OWN), *path.glob("data.*")]:
        if file.absolute() != data:
            remove(file)


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
