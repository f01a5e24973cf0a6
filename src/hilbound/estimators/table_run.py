"""The run folder of a table with a target: what ``hilbound fit TABLE --target COLUMN`` leaves.

========================  ====================================================================
``config.yaml``           every option; ``hilbound fit --config`` repeats the run from it
``run.json``              versions, seconds and facts about the data
``model.safetensors``     the estimator, as its ``save`` writes it
``metrics.json``          what was measured on the test rows
``report.html``           the report
========================  ====================================================================

The model is fitted on the training rows, and is not fitted again on all rows. So what is measured
on the test rows holds for the model that predicts.
"""

import json
import logging
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from hilbound.config import TableConfig, read_yaml
from hilbound.datasets.catalogue import whole_path
from hilbound.datasets.choice import Choice
from hilbound.datasets.delimited import Header, TextFormat
from hilbound.datasets.incoming import Incoming, beside, called, is_incoming, store
from hilbound.datasets.mixed import read_mixed, suffix_of
from hilbound.errors import InputError
from hilbound.estimators.conditional import ConditionalDensityEstimator
from hilbound.estimators.frames import Floats
from hilbound.estimators.table_data import (
    Examples,
    Unknown,
    count_unseen,
    held_rows,
    match_columns,
    read_examples,
    split_examples,
    texts_of,
)
from hilbound.evaluation.calibration import log_scores
from hilbound.evaluation.comparison import MODEL, Data, Member, sides
from hilbound.evaluation.table_metrics import (
    BASELINES,
    measure_importance,
    measure_table,
    rows_for_importance,
)
from hilbound.mixture import GaussianMixture
from hilbound.training.facts import read_entries
from hilbound.training.files import own_file, write_whole
from hilbound.training.machine import versions
from hilbound.training.runs import clear, refuse_occupied

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

Split = Literal["test", "train"]

_ENTRIES = {
    "run.json": {"data", "seconds", "versions"},
    "metrics.json": {"rows", "log_score", "targets", "unseen", "importance"},
}


@dataclass(frozen=True)
class TableRun:
    """A run folder of a table with its configuration.

    Args:
        path: The folder.
        config: The options of the run.
    """

    path: Path
    config: TableConfig

    @classmethod
    def fit(
        cls, path: Path | None, config: TableConfig, *, overwrite: bool = False, quiet: bool = False
    ) -> "TableRun":
        """Fit a model on the training rows of a table, and write its run folder.

        Args:
            path: The folder; that of :func:`default_output` by default.
            config: The options.
            overwrite: Whether a run that is already there may be replaced.
            quiet: Whether to leave out the progress bar.

        Raises:
            InputError: If the table or the folder cannot be used. Nothing is written then.
        """
        path = default_output(config) if path is None else path
        refuse_occupied(path, overwrite=overwrite)
        _check_writable(path)
        if not is_incoming(config.data):
            return cls(path, config)._fit(Incoming(Path(config.data), config.data), quiet=quiet)
        with tempfile.TemporaryDirectory() as scratch:
            incoming = store(config.data, Path(scratch))
            with called(incoming):
                return cls(path, config)._fit(incoming, quiet=quiet, keep=True)

    def _fit(self, table: Incoming, *, quiet: bool, keep: bool = False) -> "TableRun":
        """Fit a model and write the folder.

        Args:
            table: The table.
            quiet: Whether to leave out the progress bar.
            keep: Whether the folder gets the table, which is no file of the user.
        """
        run = self.with_data(table.path)
        examples = run._read(known=False)
        train, test = run._split(examples)
        model, facts = run._model_of(train, examples, table.name, quiet=quiet)
        if keep:
            run = self.with_data(self.path / table.path.name)
        run._write(model, facts, table.path if keep else None)
        vars(run).update(model=model, splits={"train": train, "test": test})
        return run

    def _model_of(
        self, train: Examples, examples: Examples, name: str, *, quiet: bool
    ) -> tuple[ConditionalDensityEstimator, dict[str, Any]]:
        """Return a model of the training rows, and the facts about all rows."""
        config = self.config
        began = time.perf_counter()
        model = ConditionalDensityEstimator(
            effort=config.effort,
            max_epochs=config.max_epochs,
            random_state=config.seed,
            verbose=0 if quiet else 1,
        ).fit(train.table, train.y)
        seconds = time.perf_counter() - began
        return model, _facts(config, examples, model, name, seconds)

    @classmethod
    def open(cls, path: Path | str) -> "TableRun":
        """Open a run folder that exists.

        Raises:
            InputError: If the path is no run folder of a table.
        """
        path = Path(path)
        file = path / "config.yaml"
        if not file.is_file():
            reason = "holds no config.yaml" if path.is_dir() else "does not exist"
            raise InputError(
                f"run {str(path)!r} {reason}: give the folder that 'hilbound fit TABLE --target "
                "COLUMN' wrote"
            )
        options = read_yaml(file)
        if options.get("kind") != "table":
            raise InputError(
                f"run {str(path)!r} predicts no target: it was trained on {options.get('data')}, "
                f"draw from it with 'hilbound sample {path}'; to predict a column of a table, "
                "'hilbound fit TABLE --target COLUMN' first"
            )
        config = TableConfig.create(**options)
        return cls(path, config.model_copy(update={"data": beside(path, config.data)}))

    def with_data(self, data: Path | str | None) -> "TableRun":
        """Return the run with its table at another place, where it was moved to.

        Args:
            data: The place, or ``None`` if it is the old one.
        """
        if data is None:
            return self
        moved = {"data": whole_path(data)}
        return replace(self, config=self.config.model_copy(update=moved))

    @property
    def choice(self) -> Choice:
        """The columns that the run uses."""
        return Choice(self.config.target, self.config.columns, self.config.drop)

    def _form(self, *, known: bool) -> TextFormat:
        """How the table is written; what was doubtful is told at the start of a run alone."""
        c = self.config
        header: Header = "guess" if known and c.header is None else c.header
        return TextFormat(header, c.delimiter, c.decimal)

    def _read(self, *, known: bool = True) -> Examples:
        path = Path(self.config.data).expanduser()

        def choose(frame: "pd.DataFrame") -> "pd.DataFrame":
            self.choice.check(list(frame.columns), str(path))
            return self.choice.of(frame)

        frame = choose(read_mixed(path, self._form(known=known), used=choose))
        return read_examples(frame, self.config.target, str(path))

    def _split(self, examples: Examples) -> tuple[Examples, Examples]:
        c = self.config
        return split_examples(examples, c.target, c.test_fraction, c.seed, c.data)

    def _write(
        self, model: ConditionalDensityEstimator, facts: dict[str, Any], kept: Path | None
    ) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            clear(self.path, Path(self.config.data))
            if kept is not None:
                shutil.copyfile(kept, self.config.data)
            model.save(self.path / "model.safetensors")
            self.write_json("run.json", facts)
            # What makes the folder a run comes last.
            self.write_text("config.yaml", self.config.to_yaml())
        except OSError as error:
            raise InputError(
                f"output {str(self.path)!r} cannot be written: {error.strerror}"
            ) from None

    @cached_property
    def model(self) -> ConditionalDensityEstimator:
        """The fitted model, loaded once."""
        return ConditionalDensityEstimator.load(own_file(self.path, "model.safetensors"))

    @cached_property
    def splits(self) -> dict[Split, Examples]:
        """The training and the test rows, read once from the table.

        Raises:
            InputError: If the table is gone, or is not what it was.
        """
        if not Path(self.config.data).expanduser().exists():
            raise InputError(
                f"the table of run {str(self.path)!r}, {self.config.data}, is not there any more, "
                "and its test rows are needed: say where it is now by --data"
            )
        examples = self._read()
        if fingerprint(examples) != self.read_json("run.json")["data"]["fingerprint"]:
            raise InputError(
                f"the table of run {str(self.path)!r} ({self.config.data}) has changed since: test "
                "rows can't be told from training rows; restore it, or fit anew"
            )
        train, test = self._split(examples)
        return {"train": train, "test": test}

    def predict(
        self, frame: "pd.DataFrame", source: str, unknown: Unknown = "error"
    ) -> GaussianMixture:
        """Return densities in the targets' units, with batch shape ``(n,)``.

        Args:
            frame: Rows with the columns of the training, in any order; targets and what the run
                leaves out may be there.
            source: What to call them in messages.
            unknown: Whether a text never seen is an error, or counts as missing.

        Raises:
            InputError: If the columns cannot be used.
        """
        return self.model.predict_distribution(self.match(frame, source, unknown))

    def match(
        self, frame: "pd.DataFrame", source: str, unknown: Unknown = "error"
    ) -> "pd.DataFrame":
        """Return the columns that the model was fitted on, in its order; see :meth:`predict`."""
        used = self.choice.of(frame)
        return match_columns(self.model, used, self.config.target, source, unknown)

    def read_new(self, path: Path, form: TextFormat | None = None) -> "pd.DataFrame":
        """Read a table of new rows, in which columns of texts are texts.

        Args:
            path: The file.
            form: What is known of a file of text.
        """
        return read_mixed(path, form, texts=texts_of(self.model).keys(), used=self.choice.of)

    def evaluate(self, split: Split = "test") -> dict[str, Any]:
        """Measure the model, and write ``metrics.json`` for the test rows.

        A text that no training row has counts as missing; ``unseen`` says how many there are.

        Args:
            split: Which rows to measure on; on those of the training a model looks too good.
        """
        examples = self.splits[split]
        q = self.predict(examples.table, self.config.data, "missing")
        measured = measure_table(q, examples.y, self.splits["train"].y, self.config.target)
        measured = {
            "split": split,
            **measured,
            "unseen": count_unseen(self.model, examples.table),
            "importance": self._importance(examples),
        }
        if split == "test":
            self._keep(measured)
        return measured

    def _keep(self, measured: dict[str, Any]) -> None:
        """Write what was measured; where that cannot be, it is still worth to be seen."""
        try:
            self.write_json("metrics.json", measured)
        except OSError as error:
            log.warning("metrics.json of run %s cannot be written: %s", self.path, error.strerror)

    def _importance(self, examples: Examples) -> list[dict[str, Any]]:
        n = rows_for_importance(len(examples.y))
        few = examples.take(np.linspace(0, len(examples.y) - 1, n).astype(np.int64))
        names = [str(name) for name in self.model.feature_names_in_]

        def score(name: str, order: NDArray[np.int64]) -> Floats:
            table = few.table.assign(**{name: few.table[name].iloc[order].to_numpy()})
            return log_scores(self.predict(table, self.config.data, "missing"), few.y)

        return measure_importance(score, names, n, self.config.seed)

    def read_json(self, name: str) -> dict[str, Any]:
        """Read ``run.json`` or ``metrics.json``.

        Raises:
            InputError: If the file is missing or damaged.
        """
        return read_entries(self.path, name, _ENTRIES[name])

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write ``run.json`` or ``metrics.json`` in one piece."""
        self.write_text(name, json.dumps(content, indent=2, allow_nan=False) + "\n")

    def write_text(self, name: str, content: str) -> Path:
        """Write a text file in one piece and return its path."""
        return write_whole(self.path / name, content)


def default_output(config: TableConfig) -> Path:
    """Return where a run goes without ``--output``: ``runs/TABLE-TARGET-SEED``.

    >>> default_output(TableConfig(data="houses.csv.gz", target="price per m²")).name
    'houses-price-per-m²-0'
    """
    name = "data" if is_incoming(config.data) else Path(config.data).name
    stem = name[: len(name) - len(suffix_of(Path(name)))]
    words = ["".join(c if c.isalnum() else "-" for c in target) for target in config.target]
    return Path("runs") / "-".join([stem, *words, str(config.seed)])


def fingerprint(examples: Examples) -> str:
    """Return a short hash of all rows, by which a run knows its table."""
    import hashlib

    from pandas.util import hash_pandas_object

    rows = hash_pandas_object(examples.table, index=False).to_numpy().tobytes()
    names = "\n".join(examples.table.columns).encode()
    return hashlib.blake2b(names + rows + examples.y.tobytes(), digest_size=8).hexdigest()


def _facts(
    config: TableConfig,
    examples: Examples,
    model: ConditionalDensityEstimator,
    name: str,
    seconds: float,
) -> dict[str, Any]:
    table, held = examples.table, held_rows(len(examples.y), config.test_fraction)
    return {
        "status": "finished",
        "data": {
            "name": name,
            "fingerprint": fingerprint(examples),
            "rows": len(examples.y),
            "train": len(examples.y) - held,
            "test": held,
            "columns": list(table.columns),
            "texts": list(texts_of(model)),
            "missing": int(table.isna().to_numpy().sum()),
        },
        "seconds": round(seconds, 1),
        "versions": versions(),
    }


def _check_writable(path: Path) -> None:
    """Refuse a folder that could not be made, before a model is fitted for it."""
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = "no folder" if not there.is_dir() else "not yours to write"
        raise InputError(
            f"output {str(path)!r} cannot be written: {str(there)!r} is {reason}; choose another "
            "folder with --output"
        )


def member_of_table(run: TableRun, name: str | None = None) -> Member:
    """Return what a run folder tells of a run on a table's target, for a comparison.

    Args:
        run: The run.
        name: What to call it; by default its path.

    Raises:
        InputError: If a file of the run is damaged.
    """
    config, facts = run.config, run.read_json("run.json")
    measured = run.read_json("metrics.json") if (run.path / "metrics.json").exists() else {}
    try:
        told, entries = facts["data"], _entries(measured, config.target)
        floors = {title: sides(entries, side) for side, title in BASELINES.items()}
        return Member(
            name=str(run.path) if name is None else name,
            seed=config.seed,
            settings=config.model_dump(mode="json", exclude={"kind", "seed", "data", "target"}),
            data=Data(
                name=f"{told['name']}, {' and '.join(config.target)}",
                place=str(Path(config.data).expanduser().absolute()),
                fingerprint=str(told["fingerprint"]),
                key=json.dumps([config.columns, config.drop]),
                shape=json.dumps([told["rows"], config.target, config.test_fraction]),
            ),
            values=sides(entries, MODEL) | {"seconds": float(facts["seconds"])},
            floors={side: found for side, found in floors.items() if found},
            measured=f"{measured['rows']:,} test rows" if measured else "",
            note="" if measured else "not measured",
        )
    # A stranger may have written them.
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"run.json or metrics.json of run {str(run.path)!r} is damaged ({error}): run "
            "'hilbound evaluate' again, or leave the run out"
        ) from None


def _entries(measured: dict[str, Any], targets: list[str]) -> dict[str, Any]:
    """Return every metric of the targets with its sides."""
    if not measured:
        return {}
    if len(targets) == 1:
        found: dict[str, Any] = dict(measured["targets"][targets[0]])
        return found
    own = {
        f"{target}/{name}": entry
        for target in targets
        for name, entry in measured["targets"][target].items()
    }
    return {"log_score": measured["log_score"], **own}
