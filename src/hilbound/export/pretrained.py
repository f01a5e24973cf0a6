"""Models as folders in the layout of the Hugging Face Hub. Nothing is sent anywhere.

=====================  =========================================================================
``config.json``        what the model is and what it was trained on, without paths
``model.safetensors``  the weights, as in the run folder
``README.md``          the model card: data, bound, metrics beside their floors, command, licence
=====================  =========================================================================
"""

import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

import hilbound
from hilbound.config import RunConfig, is_table_run
from hilbound.errors import InputError
from hilbound.estimators.conditional import ConditionalDensityEstimator
from hilbound.estimators.table_run import TableRun
from hilbound.evaluation.quality import METRICS, format_metric
from hilbound.evaluation.table_metrics import TABLE_METRICS, format_value
from hilbound.export.parts import Units
from hilbound.models.base import DensityModel
from hilbound.training.files import write_whole
from hilbound.training.runs import Run, load_weights

_FILES = ("config.json", "model.safetensors", "README.md")
_VERSION = 1


@dataclass(frozen=True)
class Pretrained:
    """A model that was read from a folder.

    Args:
        model: The model in evaluation mode: a :class:`~hilbound.models.DensityModel`, or the
            estimator of a table.
        config: The content of ``config.json``.
    """

    model: DensityModel | ConditionalDensityEstimator
    config: dict[str, Any]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw ``n`` rows in the user's units, with shape ``(n, d)``.

        Raises:
            InputError: If the model predicts a target: its ``sample`` needs rows.
        """
        if isinstance(self.model, ConditionalDensityEstimator):
            raise InputError(
                "this model predicts a target, so its samples need rows: use model.sample(X)"
            )
        data, model = self.config["data"], cast("DensityModel", self.model)
        units = Units(data["offset"], data["scale"], model.head.variance)
        return units.outside(model.sample(n, generator))


def save_pretrained(run: Path | str, folder: Path | str, licence: str = "apache-2.0") -> Path:
    """Write a run as a folder with configuration, weights and model card.

    Args:
        run: A run folder, of a density or of a table.
        folder: The new folder. Files of an earlier call are replaced, other files are refused.
        licence: The licence of the weights, as the card states it.

    Returns:
        The folder.

    Raises:
        InputError: If the run cannot be used, or the folder holds other files.
    """
    run, folder = Path(run), Path(folder)
    config, card = _of_table(run, licence) if is_table_run(run) else _of_run(run, licence)
    if folder.is_file() or (
        folder.is_dir() and any(file.name not in _FILES for file in folder.iterdir())
    ):
        raise InputError(f"folder {str(folder)!r} holds other files: name a new one")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / "model.safetensors", folder / "model.safetensors")
    write_whole(folder / "config.json", json.dumps(config, indent=2, allow_nan=False) + "\n")
    write_whole(folder / "README.md", card)
    return folder


def from_pretrained(folder: Path | str) -> Pretrained:
    """Read a model from a folder that :func:`save_pretrained` wrote. No data are needed.

    Raises:
        InputError: If the folder holds no such model.
    """
    file = Path(folder) / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        kind, version = config["kind"], config["hilbound_format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{str(folder)!r} holds no model: give a folder that save_pretrained wrote"
        ) from None
    if version != _VERSION:
        raise InputError(f"{str(file)!r} has format {version}, this hilbound reads {_VERSION}")
    weights = Path(folder) / "model.safetensors"
    if kind == "table":
        return Pretrained(ConditionalDensityEstimator.load(weights), config)
    options = RunConfig.create(**config["options"])
    return Pretrained(load_weights(options, config, weights), config)


def _of_run(path: Path, licence: str) -> tuple[dict[str, Any], str]:
    run = Run.open(path)
    facts = run.read_json("run.json")
    options = run.config.model_dump(mode="json", exclude_none=True)
    # Others have the data elsewhere: a path would only tell where they were.
    name = Path(str(facts["data"]["name"])).name
    options["data"], data = name, {**facts["data"], "name": name}
    config = {
        "library_name": "hilbound",
        "model_type": run.config.model,
        "kind": "density",
        "hilbound_format": _VERSION,
        "hilbound_version": hilbound.__version__,
        "options": options,
        "data": data,
        "variance": facts["variance"],
    }
    measured = run.read_json("metrics.json") if (path / "metrics.json").is_file() else None
    lines = _bound_lines(run) + _metric_lines(measured)
    return config, _card(path.name, config, lines, licence, "density-estimation")


def _of_table(path: Path, licence: str) -> tuple[dict[str, Any], str]:
    run = TableRun.open(path)
    facts = run.read_json("run.json")
    options = run.config.model_dump(mode="json", exclude_none=True)
    options["data"] = Path(options["data"]).name
    config = {
        "library_name": "hilbound",
        "model_type": "conditional-density",
        "kind": "table",
        "hilbound_format": _VERSION,
        "hilbound_version": hilbound.__version__,
        "options": options,
        "data": facts["data"],
    }
    lines = [
        "## Bound",
        "",
        "A table's target is predicted by likelihood, which has no tracked bound.",
        "",
    ]
    if (path / "metrics.json").is_file():
        lines += _table_lines(run.read_json("metrics.json"))
    return config, _card(path.name, config, lines, licence, "tabular-regression")


def _bound_lines(run: Run) -> list[str]:
    rows = run.read_bounds()
    lines = ["## Bound", ""]
    if not rows:
        return [*lines, "No bound was tracked.", ""]
    last = rows[-1]
    lines += ["| step | rows | log cost | log limit | tightness |", "|--:|---|--:|--:|--:|"]
    for row in (r for r in rows if r["step"] == last["step"]):
        lines.append(
            f"| {row['step']:.0f} | {row['split']} | {row['log_value']:.4f} | "
            f"{row['log_limit']:.4f} | {row['tightness']:.4f} |"
        )
    return [*lines, ""]


def _metric_lines(measured: dict[str, Any] | None) -> list[str]:
    lines = ["## Metrics", ""]
    if measured is None:
        return [*lines, "Not measured: `hilbound evaluate RUN` does it.", ""]
    text = (
        f"{measured['samples']:,} samples against as many rows of the {measured['split']} split. "
        "The floor is what real training rows reach in their place."
    )
    lines += [
        text,
        "",
        "| metric | model | floor | better |",
        "|---|--:|--:|---|",
    ]
    for name, entry in measured["metrics"].items():
        info = METRICS[name]
        model, real = (format_metric(name, entry[key]) for key in ("model", "real"))
        lines.append(f"| {info.title} | {model} | {real} | {info.better} |")
    return [*lines, ""]


def _table_lines(measured: dict[str, Any]) -> list[str]:
    lines = ["## Metrics", "", f"On {measured['rows']:,} held-out rows.", ""]
    lines += [
        "The floor is one Gaussian with the mean and the variance of the training rows.",
        "",
        "| target | metric | model | floor |",
        "|---|---|--:|--:|",
    ]
    for target, entries in measured["targets"].items():
        for name, value in entries.items():
            model, floor = (format_value(name, value[side]) for side in ("model", "gaussian"))
            lines.append(f"| {target} | {TABLE_METRICS[name].title} | {model} | {floor} |")
    return [*lines, ""]


def _card(name: str, config: dict[str, Any], lines: list[str], licence: str, task: str) -> str:
    data, options = config["data"], config["options"]
    words = [f"--{k.replace('_', '-')} {_word(v)}" for k, v in options.items() if k in _TOLD]
    rows = (
        f"`{options['data']}`, {data['train']:,} training rows. Fingerprint of the rows: "
        f"`{data['fingerprint']}`."
    )
    return "\n".join(
        [
            "---",
            "library_name: hilbound",
            f"license: {licence}",
            f"pipeline_tag: {task}",
            "tags: [density-estimation, gaussian-mixture]",
            "---",
            "",
            f"# {name}",
            "",
            f"A {config['model_type']} trained with hilbound {config['hilbound_version']}.",
            "",
            "## Data",
            "",
            rows,
            "",
            *lines,
            "## Use",
            "",
            "```python",
            "from hilbound.export import from_pretrained",
            "",
            'model = from_pretrained("this/folder").model',
            "```",
            "",
            "## Made by",
            "",
            "```",
            " ".join([f"hilbound fit {shlex.quote(str(options['data']))}", *words]),
            "```",
            "",
            "`config.json` has every option.",
            "",
        ]
    )


# The options that say what was trained; the rest have their defaults more often than not.
_TOLD = (
    "target",
    "model",
    "objective",
    "variance",
    "steps",
    "batch_size",
    "features",
    "centers",
    "seed",
    "effort",
)


def _word(value: Any) -> str:
    """Return a value as it stands on a command line."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return shlex.quote(text)
