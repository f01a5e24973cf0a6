"""Fitted models as a folder with numbers in safetensors and words in JSON: nothing executable.

Whatever an estimator has learned is built of a few dataclasses. Each becomes a JSON object that
names its class; arrays and tensors go to the safetensors file and leave a reference behind.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from hilbound.errors import DataError

WORDS, NUMBERS = "estimator.json", "estimator.safetensors"
_CLASS, _ARRAY, _TENSOR = "__class__", "__array__", "__tensor__"


def save_folder(path: str | Path, state: dict[str, Any]) -> None:
    """Write a state of dataclasses, tensors, arrays, lists, texts and numbers.

    Args:
        path: The folder; it is created if need be.
        state: What to keep, by name.
    """
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    words = json.dumps(_pack(state, tensors), indent=1, allow_nan=True)
    save_file(tensors, folder / NUMBERS)
    (folder / WORDS).write_text(words + "\n", encoding="utf-8")


def load_folder(path: str | Path, classes: tuple[type, ...]) -> dict[str, Any]:
    """Read a state back.

    Args:
        path: The folder.
        classes: The dataclasses that it may hold.

    Raises:
        DataError: If a file is missing or damaged, or names another class.
    """
    folder = Path(path)
    for name in (WORDS, NUMBERS):
        if not (folder / name).is_file():
            raise DataError(
                f"{folder} holds no {name}: path must name a folder that save(path) has written"
            )
    known = {c.__name__: c for c in classes}
    try:
        words = json.loads((folder / WORDS).read_text(encoding="utf-8"))
        tensors = load_file(folder / NUMBERS)
        state: dict[str, Any] = _unpack(words, tensors, known)
    except (
        json.JSONDecodeError,
        UnicodeDecodeError,
        SafetensorError,
        KeyError,
        TypeError,
    ) as error:
        raise DataError(
            f"{folder} is damaged or from another version ({error}): fit and save the model again"
        ) from error
    return state


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:  # noqa: ANN401 - JSON is of any shape
    if isinstance(value, Tensor | np.ndarray):
        key = f"{len(tensors):04d}"
        kind = _TENSOR if isinstance(value, Tensor) else _ARRAY
        tensors[key] = torch.as_tensor(value).detach().cpu().contiguous().clone()
        return {kind: key}
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {_CLASS: type(value).__name__, **_pack(fields, tensors)}
    if isinstance(value, dict):
        return {key: _pack(part, tensors) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(part, tensors) for part in value]
    return value.item() if isinstance(value, np.generic) else value


def _unpack(value: Any, tensors: dict[str, Tensor], known: dict[str, type]) -> Any:  # noqa: ANN401
    if isinstance(value, list):
        return [_unpack(part, tensors, known) for part in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _ARRAY in value:
        return tensors[value[_ARRAY]].numpy()
    parts = {key: _unpack(part, tensors, known) for key, part in value.items() if key != _CLASS}
    return known[value[_CLASS]](**parts) if _CLASS in value else parts
