"""Trees of numbers and tensors as one file of safetensors and JSON, which holds no code.

Checkpoints and estimators are such trees: dictionaries, lists, texts, numbers, dataclasses, arrays
and tensors. The tensors are those of a safetensors file. The rest is JSON in its metadata, with
references to the tensors. The file is exact to the last bit.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from hilbound.training.files import parse_json

_CLASS, _ARRAY, _TENSOR, _FLOAT = "__class__", "__array__", "__tensor__", "__float__"
_TUPLE, _ITEMS = "__tuple__", "__items__"

#: What reading or unpacking a file of a stranger may raise.
DAMAGE = (
    *(SafetensorError, OSError, ValueError, TypeError, LookupError, AttributeError),
    *(RecursionError, MemoryError, RuntimeError, OverflowError),
)


def own_numbers(a: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """Return numbers of their own: safetensors refuses tensors that share memory."""
    if isinstance(a, Tensor):
        return a.detach().cpu().clone(memory_format=torch.contiguous_format)
    return torch.from_numpy(np.array(a, order="C"))


def to_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of a safetensors file."""
    content: bytes = save(
        {k: own_numbers(t) for k, t in tensors.items()}, None if metadata is None else {**metadata}
    )
    return content


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    The format compares its header with the bytes that are there, before it makes any tensor.

    Raises:
        FileNotFoundError: If there is none.
        Exception: One of :data:`DAMAGE` if it is damaged.
    """
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors of a safetensors file. Only its header is read."""
    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in list(file.keys())}


def pack_tree(tree: Any, key: str) -> bytes:
    """Return the content of a file that holds a tree.

    Args:
        tree: The tree. What is neither a container, a tensor nor an array must be JSON's.
        key: The name of its text in the metadata.

    Raises:
        TypeError: If it holds something else.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(pack(tree, tensors), allow_nan=False)
    return to_bytes(tensors, {key: text})


def unpack_tree(path: Path, key: str) -> Any:
    """Return the tree in a file that :func:`pack_tree` made.

    Raises:
        FileNotFoundError: If there is none.
        Exception: One of :data:`DAMAGE` if it is damaged.
    """
    tensors, metadata = read_tensors(path)
    return unpack(parse_json(metadata[key]), tensors, {})


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return what JSON can say of a value, and put its tensors and arrays into ``tensors``."""
    if isinstance(value, Tensor | np.ndarray):
        key = f"{len(tensors):04d}"
        tensors[key] = own_numbers(value)
        return {_TENSOR if isinstance(value, Tensor) else _ARRAY: key}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {_CLASS: type(value).__name__, **pack(fields, tensors)}
    if isinstance(value, dict):
        if all(isinstance(name, str) for name in value):
            return {name: pack(part, tensors) for name, part in value.items()}
        # The optimiser's state has numbers for names.
        return {_ITEMS: [[name, pack(part, tensors)] for name, part in value.items()]}
    if isinstance(value, list | tuple):
        parts = [pack(part, tensors) for part in value]
        return {_TUPLE: parts} if isinstance(value, tuple) else parts
    value = value.item() if isinstance(value, np.generic) else value
    # JSON has no word for them.
    return {_FLOAT: str(value)} if isinstance(value, float) and not math.isfinite(value) else value


def unpack(value: Any, tensors: Mapping[str, Tensor], known: Mapping[str, type]) -> Any:
    """Return the value that :func:`pack` was given.

    Args:
        value: What JSON said.
        tensors: The tensors by name.
        known: The dataclasses that it may hold, by name.
    """
    if isinstance(value, list):
        return [unpack(part, tensors, known) for part in value]
    if not isinstance(value, dict):
        return value
    for mark, make in _MAKERS.items():
        if mark in value:
            return make(value[mark], tensors, known)
    parts = {key: unpack(part, tensors, known) for key, part in value.items() if key != _CLASS}
    return known[value[_CLASS]](**parts) if _CLASS in value else parts


_MAKERS: dict[str, Callable[..., Any]] = {
    _TENSOR: lambda key, tensors, _: tensors[key],
    _ARRAY: lambda key, tensors, _: tensors[key].numpy(),
    _FLOAT: lambda text, *_: float(text),
    _TUPLE: lambda parts, *tree: tuple(unpack(list(parts), *tree)),
    _ITEMS: lambda pairs, *tree: {name: unpack(part, *tree) for name, part in pairs},
}
