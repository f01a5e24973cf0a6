"""The facts of a run, ``run.json`` and ``metrics.json``: looked at closely when they are read.

A stranger may have written them. What contradicts itself is damage, and is never believed.
"""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from hilbound.errors import InputError
from hilbound.models.build import DataShape
from hilbound.training.files import own_file, parse_json, read_text

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


def read_facts(folder: Path, name: str) -> dict[str, Any]:
    """Read ``run.json`` or ``metrics.json`` of a run folder.

    Raises:
        InputError: If the file is missing or damaged.
    """
    content = read_entries(folder, name, _ENTRIES[name])
    wrong = _lacking(content) if name == "run.json" else None
    if wrong is not None:
        raise InputError(f"{str(folder / name)!r} is damaged ({wrong} is wrong): {remedy(name)}")
    return content


def read_entries(folder: Path, name: str, wanted: Collection[str]) -> dict[str, Any]:
    """Read a JSON file of a run folder that holds at least the entries that are wanted.

    Raises:
        InputError: If the file is missing or damaged.
    """
    file = own_file(folder, name)
    try:
        content = parse_json(read_text(file))
    except OSError:
        raise InputError(f"run {str(folder)!r} has no {name}: {remedy(name)}") from None
    except ValueError as error:
        raise InputError(f"{str(file)!r} is damaged ({error}): {remedy(name)}") from None
    lacking = set(wanted) - set(content if isinstance(content, dict) else ())
    if lacking:
        raise InputError(
            f"{str(file)!r} is damaged (no {', '.join(sorted(lacking))}): {remedy(name)}"
        )
    return dict(content)


def remedy(name: str) -> str:
    """Return what to do about a file of a run folder that is missing or damaged."""
    return {
        "metrics.json": "run 'hilbound evaluate' first",
        "model.safetensors": "training stopped before the first weights were written",
    }.get(name, "the folder was damaged; fit again")


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
    # Older runs do not know the names of their classes.
    for name, kind, count in (
        ("columns", str, dim),
        ("offset", float | int, dim),
        ("scale", float | int, dim),
        ("class_names", str, data.get("classes")),
    ):
        values = data.get(name)
        if values is not None and not (
            isinstance(values, list)
            and len(values) == count
            and all(isinstance(v, kind) for v in values)
        ):
            return f"data.{name}"
    return "data.scale" if (data["offset"] is None) != (data["scale"] is None) else None


def data_shape(data: dict[str, Any]) -> DataShape:
    """Return the shape of the data from their entry in ``run.json``."""
    shape = data["image_shape"]
    image_shape = None if shape is None else (shape[0], shape[1], shape[2])
    # Runs of older versions do not know their classes, and have no condition.
    return DataShape(data["dim"], image_shape, data["train"], data.get("classes"))
