"""What the tests of runs share: small tables and trainings, and a way to ask the command line."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import hilbound
from hilbound import cli

TINY = {
    "batch_size": 32,
    "width": 8,
    "depth": 1,
    "noise_dim": 2,
    "steps": 8,
    "validate_every": 4,
    "learning_rate": 5e-3,
    "tensorboard": False,
}
COLUMNS = ("height", "weight", "year, in AD")


def write_table(path: Path, n: int = 200, seed: int = 0) -> Path:
    """Write a CSV file of three columns, of which the last needs more digits than float32 has."""
    x = np.random.default_rng(seed).normal(size=(n, 3)) * [10, 2, 1e-3] + [180, 70, 20_240]
    header = 'height,weight,"year, in AD"'
    np.savetxt(path, x, fmt="%.9f", delimiter=",", header=header, comments="")
    return path


def write_points(path: Path, n: int = 400) -> Path:
    """Write a few unlabelled points of the plane: toys hold out thousands, which takes its time."""
    np.save(path, np.random.default_rng(0).normal(size=(n, 2)) ** 3)
    return path


def train(output: Path, **options) -> hilbound.Run:
    """Train a tiny model, by default on a few points of the plane beside the run folder."""
    if "data" not in options:
        options["data"] = write_points(output.parent / "points.npy")
    return hilbound.fit(output, quiet=True, **{**TINY, **options})


def weights(run: hilbound.Run) -> dict[str, torch.Tensor]:
    return load_file(run.path / "model.safetensors")


def same_weights(one: hilbound.Run, other: hilbound.Run) -> bool:
    """Whether two runs ended with the same weights, to the last bit."""
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def flags(**options) -> list[str]:
    """The options of TINY, changed by ``options``, as they stand on a command line."""
    words = []
    for name, value in {**TINY, **options}.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return words


def ask(*arguments: object):
    """Run a command of hilbound in this process; the result has exit_code, stdout and stderr."""
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


class Bomb:
    """An object whose unpickling leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)
