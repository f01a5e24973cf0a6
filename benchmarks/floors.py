"""The parts that every method is made of, on one core: what no method of their kind can beat.

    python benchmarks/floors.py [--repeats 15]

For matrices of several sizes: LAPACK's singular value decomposition (the method to beat), its
symmetric eigen-decomposition in float32 and float64, its eigenvalues alone, and one product. For
sums over all pairs of 784 coordinates: nanoseconds of a pair in the product, the exponential, the
maximum and the sum. All parts take turns; medians go to ``benchmarks/results/floors.json``.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from turns import CORES, medians

from hilbound.training.machine import processor, versions

RESULT = Path(__file__).resolve().parent / "results" / "floors.json"
SIZES = (96, 128, 256, 512, 1024)
ROWS, DIM = 2048, 784


def decompositions(n: int, repeats: int) -> dict[str, float]:
    """Return the milliseconds of each part for a kernel of n points in ten dimensions."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 10, generator=generator)
    a = (-torch.cdist(x, x + 0.2 * torch.randn(n, 10, generator=generator)).square() / 20).exp()
    gram = a.mT @ a
    double = gram.double()
    parts = {
        "svd": lambda: torch.linalg.svd(a, full_matrices=False),
        "eigen-decomposition": lambda: torch.linalg.eigh(gram),
        "eigen-decomposition in float64": lambda: torch.linalg.eigh(double),
        "eigenvalues alone": lambda: torch.linalg.eigvalsh(gram),
        "product": lambda: a @ gram,
    }
    times = medians(parts, repeats, CORES)
    times["svd / eigen-decomposition"] = times["svd"] / times["eigen-decomposition"]
    times["svd / product"] = times["svd"] / times["product"]
    # Squaring, the change of basis, and the slope from two frames: no method of this kind has less.
    least = times["eigen-decomposition"] + 3 * times["product"]
    times["svd / (eigen-decomposition and three products)"] = times["svd"] / least
    return times


def passes(repeats: int) -> dict[str, float]:
    """Return the nanoseconds that a pair takes in each pass over a tile of pairs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, DIM, generator=generator)
    tile = -torch.rand(ROWS, ROWS, generator=generator)
    room = torch.empty_like(tile)
    parts = {
        "product": lambda: torch.mm(x, x.mT, out=room),
        "exponential": lambda: torch.exp(tile, out=room),
        "maximum": tile.amax,
        "sum": tile.sum,
    }
    return {name: 1e6 * ms / ROWS**2 for name, ms in medians(parts, repeats, CORES).items()}


def main() -> None:
    """Measure every part on one core."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--repeats", type=int, default=15)
    given = options.parse_args()
    torch.set_num_threads(1)
    content: dict[str, Any] = {
        "processor": processor(),
        "threads": 1,
        "repeats": given.repeats,
        "seed": 0,
        "versions": versions(),
        "load before": os.getloadavg()[0],
        "rows": {},
    }
    for n in SIZES:
        content["rows"][f"{n} x {n}"] = decompositions(n, given.repeats)
        print(n, json.dumps(content["rows"][f"{n} x {n}"]), flush=True)
    content["nanoseconds of a pair"] = passes(given.repeats)
    print(json.dumps(content["nanoseconds of a pair"]), flush=True)
    content["load after"] = os.getloadavg()[0]
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
