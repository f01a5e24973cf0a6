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
``data.csv``, ...         the data, if they came as an array, a data frame or on standard input
========================  ====================================================================

A file is written under a temporary name and then renamed, so an interruption never leaves half a
file. Nothing executable is unpickled from a run folder.
"""

import csv
import json
import logging
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

import hilbound
from hilbound import datasets
from hilbound.config import RunConfig, is_table_run, read_yaml
from hilbound.datasets import Dataset, Standardization
from hilbound.datasets.incoming import as_rows, beside
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.models.base import DensityModel
from hilbound.models.build import DataShape, build_model
from hilbound.objectives import create_objective
from hilbound.training.lock import LOCK
from hilbound.training.machine import versions
from hilbound.training.memory import refuse_too_many
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
            (path / "checkpoints").mkdir(parents=True, exist_ok=True)
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
        return self.path / "checkpoints" / "last.ckpt"

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

    def describe(self, dataset: Dataset, schedule: VarianceSchedule, component: float) -> None:
        """Write ``run.json`` at the start: versions, data and the resolved variance."""
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
                    "component_start": component,
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
            _remove(self.path / name)

    def save_model(self, model: DensityModel) -> None:
        """Write the weights as safetensors, in one piece."""
        target = self.path / "model.safetensors"
        beside = target.with_suffix(".partial")
        state = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
        try:
            beside.write_bytes(save(state))
            beside.replace(target)
        except OSError:
            beside.unlink(missing_ok=True)
            raise

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
        """The variance of a component at the end of the training."""
        objective = create_objective(self.config.objective)
        return objective.component_variance(self.read_json("run.json")["variance"]["end"])

    def keep(self, dataset: Dataset) -> None:
        """Use a data set that is already in memory as the data of this run."""
        vars(self)["dataset"] = dataset

    def load_model(self) -> DensityModel:
        """Build the model and load its weights.

        Raises:
            InputError: If the weights are missing or damaged, or belong to another model.
        """
        facts = self.read_json("run.json")
        model = build_model(
            self.config, _data_shape(facts["data"]), facts["variance"]["component_start"]
        )
        file = self.path / "model.safetensors"
        try:
            state = load_file(file)
            # The precision of the run: all its tensors share it.
            model.to(_precision(state)).load_state_dict(state)
        except FileNotFoundError:
            raise InputError(
                f"run {str(self.path)!r} has no weights: {_remedy(file.name)}"
            ) from None
        except (SafetensorError, OSError, TypeError, RuntimeError) as error:
            raise InputError(
                f"{str(file)!r} does not hold the weights of this run's model: {error}"
            ) from None
        return model.eval()

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
        return self._scaling(data).inverse(x)

    @staticmethod
    def _scaling(data: dict[str, Any]) -> Standardization:
        numbers = (torch.tensor(data[name], dtype=torch.float64) for name in ("offset", "scale"))
        return Standardization(*numbers)

    def sample(
        self, n: int, *, seed: int = 0, source: Literal["centers", "density"] = "centers"
    ) -> torch.Tensor:
        """Draw samples with shape ``(n, d)`` in the original units of the data.

        Args:
            n: How many.
            seed: Seed of the draw. The same seed gives the same samples.
            source: ``"centers"`` for what the network generates, ``"density"`` for draws from the
                mixture, which adds the noise of the components' variance.

        Raises:
            InputError: If ``n`` is not positive or too large for the memory, ``source`` is unknown,
                or the weights are spoilt.
        """
        if n < 1:
            raise InputError(f"n must be at least 1, got {n}")
        refuse_too_many(n, self.config, self.read_json("run.json")["data"]["dim"])
        model, generator = self.model, stream(seed, "sample")
        if source == "centers":
            rows = model.sample(n, generator)
        elif source == "density":
            with torch.no_grad():
                rows = model.draw(n, generator).sample((n,), generator=generator)
        else:
            raise InputError(f"source must be 'centers' or 'density', got {source!r}")
        bad = int((~rows.isfinite()).any(-1).sum())
        if bad:
            raise InputError(
                f"run {str(self.path)!r} draws NaN or infinite values ({bad} of {n} samples): its "
                "weights are spoilt. Fit again with a lower --learning-rate"
            )
        return self.to_user_units(rows)

    def log_prob(self, x: Any, *, centers: int = 10_000, seed: int = 0) -> torch.Tensor:
        r"""Return the log density of rows in the original units of the data.

        The model's density is that of a mixture of fresh centres,

        .. math:: \log q(x) = \log \frac1K \sum_k N(z(x) - m_k; v) - \sum_j \log \sigma_j,

        where z standardises the columns and :math:`\sigma_j` are their deviations.

        Args:
            x: Rows with shape ``(n, d)``: a tensor, an array, a list, or a data frame, whose
                columns are found by their names.
            centers: The number K of centres. More of them change the density less from seed to
                seed.
            seed: Seed of the centres.

        Returns:
            Log densities with shape ``(n,)``, float64; NaN where a row has a missing value.

        Raises:
            InputError: If the rows do not have the columns of the data.
        """
        data = self.read_json("run.json")["data"]
        rows = as_rows(x, data["columns"], data["dim"])
        if data["image_shape"] is None and data["offset"] is not None:
            scaling = self._scaling(data)
            rows = scaling.forward(rows)
            jacobian = float(scaling.scale.log().sum())
        else:
            jacobian = 0.0
        with torch.no_grad():
            drawn = self.model.draw(centers, stream(seed, "density"))
            # In float64: a density is a number to report.
            v, log_weights = drawn.component_variance.double(), drawn.log_weights.double()
            q = GaussianMixture(drawn.means.double(), v, log_weights=log_weights)
            known = rows.isfinite().all(-1)
            found = rows.new_full((len(rows),), torch.nan)
            found[known] = q.log_prob(rows[known]) - jacobian
        return found

    def evaluate(
        self, samples: int | None = None, split: Literal["validation", "test"] = "test"
    ) -> dict[str, Any]:
        """Measure the run against held-out data; see :func:`hilbound.evaluate`."""
        # Evaluation stands above the runs. The face of the package knows both.
        return hilbound.evaluate(self, samples, split)

    def read_bounds(self) -> list[dict[str, Any]]:
        """Return the rows of ``bounds.csv``, numbers as floats."""
        return read_bounds(self.path / "bounds.csv")


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


def _precision(state: dict[str, torch.Tensor]) -> torch.dtype:
    """Return the precision of a run's weights, which all its tensors share.

    Raises:
        TypeError: If there are none, or they are no floating-point numbers.
    """
    first = next(iter(state.values()), None)
    if first is None or not first.is_floating_point():
        kind = "nothing" if first is None else first.dtype
        raise TypeError(f"floating-point numbers are needed, got {kind}")
    return first.dtype


def _lacking(content: dict[str, Any]) -> str | None:
    """Return what is wrong within a ``run.json``, or ``None``."""
    for name, kinds in _WITHIN.items():
        block = content[name]
        if not isinstance(block, dict):
            return name
        for key, kind in kinds.items():
            if not isinstance(block.get(key), kind) or isinstance(block.get(key), bool):
                return f"{name}.{key}"
    return None


def _data_shape(data: dict[str, Any]) -> DataShape:
    """Return the shape of the data from their entry in ``run.json``."""
    shape = data["image_shape"]
    image_shape = None if shape is None else (shape[0], shape[1], shape[2])
    return DataShape(data["dim"], image_shape, data["train"])


def read_bounds(file: Path) -> list[dict[str, Any]]:
    """Return the rows of a ``bounds.csv``, numbers as floats. Without a file there are no rows.

    Raises:
        InputError: If the file is damaged.
    """
    if not file.exists():
        return []
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            return [
                {k: row[k] if k == "split" else float(row[k]) for k in BOUND_COLUMNS}
                for row in csv.DictReader(lines)
            ]
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        raise InputError(
            f"{str(file)!r} is damaged: remove the lines that are not complete, or the file"
        ) from None


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
    elif path.is_dir() and any(file.name != LOCK for file in path.iterdir()):
        raise InputError(
            f"output {str(path)!r} holds files that are no run of hilbound: choose another folder"
        )


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
    file = folder / name
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
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


def clear(path: Path, data: Path) -> None:
    """Remove what an earlier run left in its folder.

    Args:
        path: The folder.
        data: The data of the new run, which may be those that the earlier one kept.
    """
    for file in [*(path / name for name in _OWN), *path.glob("data.*")]:
        if file.absolute() != data:
            _remove(file)


def fingerprint(dataset: Dataset) -> str:
    """Return a short hash of the training rows. A resumed run recognises its data by it."""
    import hashlib

    rows = dataset.train.contiguous().numpy().tobytes()
    return hashlib.blake2b(rows, digest_size=8).hexdigest()


def write_whole(target: Path, content: str) -> Path:
    """Write the whole file or nothing. If writing fails, the former file is still there."""
    beside = target.with_name(target.name + ".partial")
    try:
        beside.write_text(content, encoding="utf-8")
        beside.replace(target)
    except OSError:
        # A full disk needs no half files.
        beside.unlink(missing_ok=True)
        raise
    return target


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remedy(name: str) -> str:
    return {
        "metrics.json": "run 'hilbound evaluate' first",
        "model.safetensors": "training stopped before the first weights were written",
    }.get(name, "the folder was damaged; fit again")
