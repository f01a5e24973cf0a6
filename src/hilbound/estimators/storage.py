"""Estimators as files: safetensors for numbers, JSON for the rest, nothing executable.

One file holds both: safetensors keeps a dictionary of text beside the arrays, and the facts are
JSON in it. A file is written beside its target and moved there, so that it is whole or not there.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from hilbound.errors import DataError, InputError
from hilbound.training.files import parse_json, write_whole
from hilbound.training.packing import (
    DAMAGE,
    own_numbers,
    pack,
    read_tensors,
    to_bytes,
    unpack,
)

_KEY = "hilbound.estimator"  # one key, because the order of several is not kept
_VERSION = 1
T = TypeVar("T")


def write_estimator(
    path: str | os.PathLike[str],
    arrays: Mapping[str, Tensor | np.ndarray[Any, Any]],
    facts: Mapping[str, Any],
) -> None:
    """Write arrays and facts to one file, in one piece.

    Args:
        path: The file; its folder must be there. An older file of that name is replaced.
        arrays: Numbers by name, of any shape; read back as tensors of the same dtype.
        facts: What JSON can say: text, finite numbers, booleans, lists, dictionaries.

    Raises:
        InputError: If the folder is missing, or a fact is not for JSON.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_estimator(Path(folder) / "m.safetensors", {"a": np.arange(2)}, {"name": "m"})
    ...     read_estimator(Path(folder) / "m.safetensors")
    ({'a': tensor([0, 1])}, {'name': 'm'})
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise InputError(
            f"path {str(target)!r} names a file in a folder that is not there: "
            f"make {str(target.parent)!r} first"
        )
    if target.is_dir():
        raise InputError(f"path {str(target)!r} is a folder: give the name of a file")
    try:
        text = json.dumps({"version": _VERSION, "facts": dict(facts)}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"facts must hold text, finite numbers, booleans, lists and dictionaries, which JSON "
            f"can say, got something else: {error}"
        ) from None
    tensors = {name: own_numbers(a) for name, a in arrays.items()}
    write_whole(target, to_bytes(tensors, {_KEY: text}))


def read_estimator(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`write_estimator` wrote.

    Returns:
        The arrays as tensors, and the facts.

    Raises:
        DataError: If the file is missing, broken, or was written by something else.
    """
    source = Path(path)
    if not source.is_file():
        raise DataError(f"no estimator at {str(source)!r}: give a file that `save` wrote")
    try:
        arrays, metadata = read_tensors(source)
        return arrays, _read_facts(source, metadata)
    except DAMAGE as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{str(source)!r} is no whole estimator file ({error}): save the estimator again"
        ) from None


def _read_facts(source: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if _KEY not in metadata:
        raise DataError(
            f"{str(source)!r} holds arrays, but was not written by an estimator's `save`: "
            "give a file that was"
        )
    told = parse_json(metadata[_KEY])
    if told["version"] != _VERSION:
        raise DataError(
            f"{str(source)!r} has version {told['version']} of the file format, and this "
            f"hilbound reads version {_VERSION}: update hilbound, or save the estimator again"
        )
    return dict(told["facts"])


# ------------------------------------------------------------------ standardising estimators


def facts_of(estimator: Any) -> dict[str, Any]:
    """Return the facts that any estimator keeps: class, parameters and names of columns."""
    parameters = estimator.get_params()
    if not isinstance(parameters["random_state"], Integral | None):
        parameters["random_state"] = None  # a generator's state is no setting
    return {
        "class": type(estimator).__name__,
        "parameters": {
            k: v.item() if isinstance(v, np.generic) else v for k, v in parameters.items()
        },
        "names": getattr(estimator, "feature_names_in_", np.array([])).tolist(),
    }


def read_standardised(
    cls: type[T], path: str | os.PathLike[str]
) -> tuple[T, dict[str, Tensor], dict[str, Any]]:
    """Return an estimator that knows its columns and their scale, with the rest of its file.

    Args:
        cls: The class that the file must hold.
        path: What :func:`write_estimator` wrote, with the arrays ``location`` and ``scale`` and the
            facts of :func:`facts_of`.

    Raises:
        DataError: If the file is missing, broken, or holds something else.
    """
    arrays, facts = read_estimator(path)
    if facts.get("class") != cls.__name__:
        raise DataError(
            f"{str(path)!r} holds a {facts.get('class')}: load it with that class, not with "
            f"{cls.__name__}"
        )
    with restoring(path):
        estimator: Any = cls(**facts["parameters"])
        estimator.location_, estimator.scale_ = (arrays[k].numpy() for k in ("location", "scale"))
        for a in (estimator.location_, estimator.scale_):
            if a.shape != estimator.location_.shape or a.ndim != 1 or a.dtype != np.float64:
                raise ValueError(f"location or scale of shape {a.shape} and type {a.dtype}")
        estimator.n_features_in_ = len(estimator.location_)
        if facts["names"]:
            estimator.feature_names_in_ = np.array(facts["names"], dtype=object)
        return estimator, arrays, facts


def probe(estimator: Any) -> Any:
    """Return one row at the middle of the columns of an estimator that was read."""
    row = estimator.location_[None]
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        return row
    import pandas as pd

    return pd.DataFrame(row, columns=names)


# ------------------------------------------------------------------ states of dataclasses


def write_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a state of dataclasses, tensors, arrays, lists, texts and numbers to one file.

    Each dataclass becomes a JSON object that names its class; arrays and tensors leave a reference
    behind.

    Args:
        path: See :func:`write_estimator`.
        state: What to keep, by name.
    """
    tensors: dict[str, Tensor] = {}
    facts = pack(dict(state), tensors)
    write_estimator(path, tensors, facts)


def read_state(path: str | os.PathLike[str], classes: tuple[type, ...]) -> dict[str, Any]:
    """Read what :func:`write_state` wrote.

    Args:
        path: The file.
        classes: The dataclasses that it may hold.

    Raises:
        DataError: If the file is missing or damaged, or names another class.
    """
    tensors, facts = read_estimator(path)
    known = {c.__name__: c for c in classes}
    with restoring(path):
        return dict(unpack(facts, tensors, known))


@contextmanager
def restoring(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever a forged or damaged state makes of an estimator into a DataError.

    Raises:
        DataError: If anything but a DataError was raised inside the ``with`` block.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{str(path)!r} is damaged or from another version ({error}): fit and save the model "
            "again"
        ) from error
