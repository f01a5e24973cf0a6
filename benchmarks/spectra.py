"""Nuclear norms over a zoo of 30 spectra: never slower than LAPACK?

    python benchmarks/spectra.py [--threads 2 --repeats 7 --size 1024]

Value and gradient in float32, as a training step needs them: `nuclear_norm` against
`torch.linalg.svd` and one product. Both take turns, and medians over rounds are kept. Errors are
those of the gradient over the directions that float32 resolves (above 1e-5 of the largest), taken
against a float64 decomposition: root mean square per direction. Rows go to
``benchmarks/results/spectra.json`` at once.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from turns import medians

from hilbound.engine.spectrum.eigen import eigen_slope
from hilbound.engine.spectrum.norms import nuclear_norm
from hilbound.training.machine import processor, versions

RESULT = Path(__file__).resolve().parent / "results" / "spectra.json"
EPS = torch.finfo(torch.float32).eps


def levels(n: int, *parts: tuple[float, float]) -> Tensor:
    """Return n values in steps: each part is a share of n and a value. The last fills the rest."""
    values = torch.full((n,), parts[-1][1], dtype=torch.float64)
    start = 0
    for share, value in parts[:-1]:
        end = start + max(1, int(share * n))
        values[start:end] = value
        start = end
    return values


def with_values(values: Tensor, generator: torch.Generator) -> Tensor:
    """Return a matrix with these singular values and random directions."""
    n = len(values)
    u, v = (torch.linalg.qr(normal(n, n, generator)).Q for _ in range(2))
    matrix: Tensor = (u * values) @ v.mT
    return matrix


def normal(n: int, m: int, generator: torch.Generator) -> Tensor:
    """Return standard normal numbers in float64."""
    return torch.randn(n, m, generator=generator, dtype=torch.float64)


def kernel(x: Tensor, y: Tensor, variance: float) -> Tensor:
    """Return the Gaussian kernel of two sets of points."""
    values: Tensor = (-torch.cdist(x, y).square() / (2 * variance)).exp() / len(x)
    return values


def spectra(n: int) -> Iterator[tuple[str, Tensor]]:
    """Return names and singular values that are given."""
    ramp = torch.arange(n, dtype=torch.float64) / (n - 1)
    yield "flat: all equal", torch.ones(n, dtype=torch.float64)
    yield "flat: uniform, 1 to 0.1", 1 - 0.9 * ramp
    yield "flat: uniform, 1 to 0", 1 - ramp
    for end in (1, 2, 3, 4, 6, 8, 12):
        yield f"geometric: 1 to 1e-{end}", 10 ** (-end * ramp)
    for power in (0.5, 1, 2, 4):
        yield f"power law: rank to the -{power}", (1 + torch.arange(n).double()) ** -power
    yield "stepped: 1, 1e-2, 1e-4", levels(n, (1 / 3, 1), (1 / 3, 1e-2), (0, 1e-4))
    yield "stepped: 10 at 1, then 1e-3", levels(n, (10 / n, 1), (0, 1e-3))
    yield "stepped: a fifth at 1, then 1e-3", levels(n, (1 / 5, 1), (0, 1e-3))
    yield "stepped: a tenth at 1, then 1e-5", levels(n, (1 / 10, 1), (0, 1e-5))
    yield "one at 1, then 1e-3", levels(n, (0, 1), (0, 1e-3))
    yield "one at 1, then 1e-5", levels(n, (0, 1), (0, 1e-5))
    yield "clustered: 8, 4, 2, 1", levels(n, (1 / 4, 8), (1 / 4, 4), (1 / 4, 2), (0, 1))
    yield "rank: 30 % of the size", levels(n, (0.3, 1), (0, 0))


def matrices(n: int) -> Iterator[tuple[str, Tensor]]:
    """Return names and matrices in float64."""
    generator = torch.Generator().manual_seed(0)
    for name, values in spectra(n):
        yield name, with_values(values, generator)
    yield "noise: normal", normal(n, n, generator)
    yield "noise: uniform", torch.rand(n, n, generator=generator, dtype=torch.float64)
    x = 0.35 * normal(n, 784, generator)
    copy = x + 0.2 * normal(n, 784, generator)
    yield "kernel: 784 dimensions, variance 50", kernel(x, copy, 50)
    yield "kernel: 784 dimensions, variance 10", kernel(x, copy, 10)
    z = normal(n, 2, generator)
    yield "kernel: plane, variance 1", kernel(z, z + 0.1 * normal(n, 2, generator), 1)
    yield (
        "kernel: 10 dimensions",
        kernel(normal(n, 10, generator), normal(n, 10, generator), 2),
    )
    yield "first steps: centres in a heap", kernel(x, 0.05 * normal(n, 784, generator), 50)
    sheet = torch.tanh(normal(n, 16, generator) @ (0.1 * normal(16, 784, generator)))
    yield "first steps: centres on a sheet", kernel(x, sheet, 50)


def by_svd(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nuclear norm and the polar factor as anyone would."""
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    return s.sum(), u @ vh


def ours(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return the norm and its gradient by the library."""
    leaf = a.detach().requires_grad_()
    value = nuclear_norm(leaf)
    (slope,) = torch.autograd.grad(value, leaf)
    return value.detach(), slope


def measure(exact: Tensor, repeats: int) -> dict[str, Any]:
    """Return times and errors for one matrix."""
    a = exact.float()
    u, s, vh = torch.linalg.svd(exact, full_matrices=False)
    kept = s > 1e-5 * s[0]

    def error(slope: Tensor) -> float:
        inner = u[:, kept].mT @ slope.double() @ vh[kept].mT
        eye = torch.eye(len(inner), dtype=inner.dtype)
        return float((inner - eye).square().sum(1).mean().sqrt())

    times = medians({"svd": lambda: by_svd(a), "ours": lambda: ours(a)}, repeats)
    (value, slope), (_, of_svd) = ours(a), by_svd(a)
    return {
        "milliseconds": times,
        "svd / ours": times["svd"] / times["ours"],
        "refused by the eigen method": eigen_slope(a, 1.0, EPS) is None,
        "largest, median, least": [float(s[i] / s[0]) for i in (0, len(s) // 2, -1)],
        "error of the value": abs(float(value) - float(s.sum())) / float(s.sum()),
        "error of the gradient": error(slope),
        "error of the gradient, svd": error(of_svd),
    }


def main() -> None:
    """Measure every spectrum and keep its row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--size", type=int, default=1024)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: dict[str, dict[str, Any]] = {}
    for name, exact in matrices(options.size):
        rows[name] = measure(exact, options.repeats)
        print(name, json.dumps(rows[name]), flush=True)
        content = {
            "processor": processor(),
            "threads": options.threads,
            "size": options.size,
            "versions": versions(),
            "rows": rows,
        }
        RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    ratios = sorted(row["svd / ours"] for row in rows.values())
    print(f"{len(rows)} spectra, ratio from {ratios[0]:.2f} to {ratios[-1]:.2f}")


if __name__ == "__main__":
    main()
