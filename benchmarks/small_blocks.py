"""Nuclear norms of batches of small matrices, value and gradient: threads over matrices or in them.

    python benchmarks/small_blocks.py [--threads 2 --repeats 7]

``torch.linalg.svd`` decomposes one matrix after another with all threads; the library gives each
thread matrices of its own. Both are timed in turn, in wall time. The median of the ratio within a
pair is kept, with the smallest and the largest, and the time of processors, because a thread that
waits for another one keeps its core busy. Matrices are Gaussian kernels
between images of MNIST and other images (variance 50) or perturbed copies of them, and between
points in the plane (variance 2). Errors are taken
against float64. The result is ``benchmarks/results/small_blocks.json``.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hilbound.datasets import load
from hilbound.engine.spectrum.norms import schatten_power
from hilbound.training.machine import processor, versions

RESULT = Path(__file__).resolve().parent / "results" / "small_blocks.json"
VARIANCE = 50.0
SIZES = ((32, 128), (64, 96), (10, 256))
CASES = (
    ("other images", 1.0),
    ("copies", 1.0),
    ("points in the plane", 1.0),
    ("other images", 0.85),
)


def kernels(blocks: int, n: int, kind: str) -> Tensor:
    """Return kernels ``(blocks, n, n)`` in float64 between images and other ones, or copies."""
    generator = torch.Generator().manual_seed(0)
    if kind == "points in the plane":
        x, y = torch.randn(2, blocks, n, 2, generator=generator, dtype=torch.float64)
        return (-torch.cdist(x, y).square() / 4).exp()
    data = load("mnist").train
    rows = data[torch.randperm(len(data), generator=generator)[: 2 * blocks * n]].double()
    x, other = rows.reshape(2, blocks, n, -1)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    y = other if kind == "other images" else x + 0.2 * noise
    return (-torch.cdist(x, y).square() / (2 * VARIANCE)).exp()


def one_by_one(a: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Return sums and gradients as anyone would."""
    results = []
    for matrix in a:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        results.append((s.pow(power).sum(), (u * (power * s.pow(power - 1))) @ vh))
    return torch.stack([v for v, _ in results]), torch.stack([g for _, g in results])


def library(a: Tensor, power: float) -> tuple[Tensor, Tensor]:
    """Return the same from the library."""
    a = a.clone().requires_grad_()
    value = schatten_power(a, power)
    return value.detach(), torch.autograd.grad(value.sum(), a)[0]


def paired(methods: dict[str, Callable[[], object]], repeats: int) -> dict[str, Any]:
    """Time two functions in turn."""
    wall: dict[str, list[float]] = {name: [] for name in methods}
    cores: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(repeats + 1):
        for name, method in methods.items():
            began, used = time.perf_counter(), time.process_time()
            method()
            if number:  # the first round warms up
                wall[name].append(time.perf_counter() - began)
                cores[name].append(time.process_time() - used)
    first, second = methods
    ratios = sorted(a / b for a, b in zip(wall[first], wall[second], strict=True))
    return {
        "milliseconds": {k: round(1e3 * statistics.median(v), 1) for k, v in wall.items()},
        "core milliseconds": {k: round(1e3 * statistics.median(v), 1) for k, v in cores.items()},
        "times as fast": round(statistics.median(ratios), 2),
        "least and most": [round(ratios[0], 2), round(ratios[-1], 2)],
    }


def errors(result: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Return the largest relative errors of values and of gradients."""
    (value, slope), (true_value, true_slope) = result, exact
    gradient = (slope.double() - true_slope).norm(dim=(-2, -1)) / true_slope.norm(dim=(-2, -1))
    relative = (value.double() / true_value - 1).abs()
    return {"value": float(relative.max()), "gradient": float(gradient.max())}


def row(a: Tensor, power: float, repeats: int) -> dict[str, Any]:
    """Measure one batch in float32 and the errors of both methods."""
    single, exact = a.float(), one_by_one(a, power)
    methods = {
        "one after another": lambda: one_by_one(single, power),
        "library": lambda: library(single, power),
    }
    result = paired(methods, repeats)
    result["errors"] = {name: errors(method(), exact) for name, method in methods.items()}
    result["float64 errors"] = errors(library(a, power), exact)
    return result


def main() -> None:
    """Measure every size, spectrum and power."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--threads", type=int, default=torch.get_num_threads())
    options.add_argument("--repeats", type=int, default=7)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    content: dict[str, Any] = {
        "processor": processor(),
        "threads": given.threads,
        "repeats": given.repeats,
        "seed": 0,
        "versions": versions(),
        "load before": os.getloadavg()[0],
        "rows": {},
    }
    for blocks, n in SIZES:
        for kind, power in CASES:
            name = f"{blocks} x {n} x {n}, {kind}, power {power:g}"
            content["rows"][name] = row(kernels(blocks, n, kind), power, given.repeats)
            print(name, json.dumps(content["rows"][name]), flush=True)
    content["load after"] = os.getloadavg()[0]
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
