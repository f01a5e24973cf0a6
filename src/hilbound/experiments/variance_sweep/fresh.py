"""Data on which no rule was chosen: two new toys, two tables and small images of CIFAR-10."""

import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilbound import datasets
from hilbound.datasets import Dataset
from hilbound.errors import InputError

#: Points of a new toy, of which the splits are taken.
POINTS = 12_000
Points = NDArray[np.float64]


def spirals(draw: np.random.Generator) -> Points:
    """Return points of two spiral arms that turn around each other, shape ``(n, 2)``."""
    turn = 3 * np.pi * np.sqrt(draw.random(POINTS))
    arm = draw.integers(0, 2, POINTS) * np.pi
    points = np.stack([turn * np.cos(turn + arm), turn * np.sin(turn + arm)], 1) / 3
    return points + 0.1 * draw.standard_normal(points.shape)


def funnel(draw: np.random.Generator) -> Points:
    """Return points whose second coordinate is as wide as the first one says, shape ``(n, 2)``."""
    first = 1.5 * draw.standard_normal(POINTS)
    return np.stack([first, np.exp(first / 2) * draw.standard_normal(POINTS)], 1)


TOYS: Mapping[str, Callable[[np.random.Generator], Points]] = {
    "spirals": spirals,
    "funnel": funnel,
}
TABLES = ("concrete",)
IMAGES: Mapping[str, Mapping[str, Any]] = {
    "cifar10": {"image_size": 16, "grayscale": True, "samples": 8000}
}


def is_fresh(data: str) -> bool:
    """Whether data are among those of this module."""
    return data in TOYS or data in TABLES or data in IMAGES


def is_there(data: str) -> bool:
    """Whether the files that data need are there."""
    root = os.environ.get("HILBOUND_DATA")
    if data in IMAGES:
        return _loads(data, root)
    return data in TOYS or (root is not None and _table(data).is_file())


@cache
def _loads(data: str, root: str | None) -> bool:
    try:
        datasets.load(data, root=root, samples=10)
    except InputError:
        return False
    return True


def _table(data: str) -> Path:
    return Path(os.environ.get("HILBOUND_DATA", ".")) / "uci" / f"{data}.npz"


def options_of(data: str, folder: Path, seed: int) -> dict[str, Any]:
    """Return how a training names the data; toys and tables are written into a folder.

    Args:
        data: The name.
        folder: Where a file may be written.
        seed: Seed of the points of a toy.
    """
    if data in IMAGES:
        return {"data": data, **IMAGES[data]}
    if data in TOYS:
        rows = TOYS[data](np.random.default_rng(seed))
    else:
        with np.load(_table(data)) as table:
            rows = table["features"].astype(np.float64)
    file = folder / f"{data}.npy"
    np.save(file, rows)
    return {"data": str(file)}


def load(options: Mapping[str, Any], seed: int) -> Dataset:
    """Load the data that :func:`options_of` has named."""
    options = dict(options)
    return datasets.load(options.pop("data"), seed=seed, **options)
