"""Nuclear norms, value and gradient: time and error of every method against the SVD.

    python benchmarks/nuclear_norm.py [--threads 2 --repeats 9 --only square]

Methods are timed in turn within each round, so that noise of the machine meets all of them alike;
medians over rounds are kept. Matrices are Gaussian kernels between images of MNIST and a perturbed
copy (variance 50, near the median), points are two Gaussian clouds in the plane. Errors are taken
against float64. Every finished row is written to ``benchmarks/results/nuclear_norm.json`` at once,
and rows that are there from the same machine, versions and threads are not measured again.
"""

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hilbound import functional as F
from hilbound.datasets import load
from hilbound.engine.spectrum.eigen import eigen_slope
from hilbound.engine.spectrum.low_rank import _factorise
from hilbound.engine.spectrum.norms import nuclear_norm
from hilbound.engine.spectrum.polynomial import polynomial_slope, quintics
from hilbound.functional import _points, fidelity_plan
from hilbound.mixture import GaussianMixture
from hilbound.training.machine import processor, versions

RESULT = Path(__file__).resolve().parent / "results" / "nuclear_norm.json"
EPS = torch.finfo(torch.float32).eps
VARIANCE = 50.0
# Of the clouds in the plane: near the median of their squared distances, and a fifth of it.
CLOUD_VARIANCES = (1.4, 0.3)


class Results:
    """Rows by name, kept in a file."""

    def __init__(self, repeats: int) -> None:
        self.head = {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "versions": versions(),
        }
        if torch.cuda.is_available():
            self.head["device"] = torch.cuda.get_device_name()
        self.repeats = repeats
        self.rows: dict[str, dict[str, Any]] = {}
        if RESULT.exists():
            stored = json.loads(RESULT.read_text(encoding="utf-8"))
            rows = stored.pop("rows")
            if stored == self.head:
                self.rows = rows

    def add(self, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure and keep a row, unless it is there."""
        if name not in self.rows:
            self.rows[name] = measure()
            RESULT.parent.mkdir(exist_ok=True)
            content = {**self.head, "rows": self.rows}
            RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(name, json.dumps(self.rows[name]), flush=True)

    def medians(self, methods: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Return the median milliseconds of functions that take turns."""
        seconds: dict[str, list[float]] = {name: [] for name in methods}
        for number in range(self.repeats + 1):
            for name, method in methods.items():
                began = time.perf_counter()
                method()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - began)
        return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def images(n: int, m: int, perturbation: float) -> tuple[Tensor, Tensor]:
    """Return images of MNIST and a perturbed copy of the first m of them."""
    data, generator = load("mnist").train, torch.Generator().manual_seed(0)
    x = data[torch.randperm(len(data), generator=generator)[:n]]
    return x, x[:m] + perturbation * torch.randn(m, x.shape[1], generator=generator)


def by_svd(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nuclear norm and the polar factor as anyone would."""
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    return s.sum(), u @ vh


def three_products(a: Tensor) -> None:
    """The floor of any method: a Gram matrix and two changes of basis."""
    for _ in range(3):
        a.mT @ a if a.shape[0] == a.shape[1] else a @ (a.mT @ a)


def to_centres(slope: Tensor, kernel: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient to the centres y, in float64."""
    pull = slope.double() * kernel
    return (pull.mT @ x.double() - pull.sum(0).unsqueeze(-1) * y.double()) / VARIANCE


def dense(results: Results, n: int, m: int, perturbation: float) -> dict[str, Any]:
    """Measure the methods for matrices."""
    x, y = images(n, m, perturbation)
    exact = (-torch.cdist(x.double(), y.double()).square() / (2 * VARIANCE)).exp()
    a = exact.float()
    methods = {
        "svd": lambda: by_svd(a),
        "eigen": lambda: eigen_slope(a, 1.0, EPS),
        "three products": lambda: three_products(a),
    }
    row: dict[str, Any] = {"milliseconds": results.medians(methods)}
    u, s, vh = torch.linalg.svd(exact, full_matrices=False)
    gradient = to_centres(u @ vh, exact, x, y)
    row["spectrum"] = [float(s[i]) for i in (0, 1, len(s) // 2, -1)]
    for name in ("svd", "eigen"):
        value, slope = methods[name]()
        error = (to_centres(slope, exact, x, y) - gradient).norm() / gradient.norm()
        row[f"{name}, error of the value"] = float(abs(value - s.sum()) / s.sum())
        row[f"{name}, error of the gradient to the centres"] = float(error)
    row["svd / eigen"] = row["milliseconds"]["svd"] / row["milliseconds"]["eigen"]
    return row


def clouds(n: int, variance: float) -> tuple[GaussianMixture, GaussianMixture]:
    """Return mixtures around two clouds in the plane whose kernel has the given variance."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 2, generator=generator)
    y = (0.8 * torch.randn(n, 2, generator=generator) + 0.2).requires_grad_()
    return GaussianMixture(x, variance / 2), GaussianMixture(y, variance / 2)


def factored_step(n: int, variance: float, tol: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return value, certificate and gradient of the fidelity of two clouds."""
    p, q = clouds(n, variance)
    value, certificate = F.certified_fidelity(p, q, tol=tol)
    value.backward()
    return value.detach(), certificate, q.means.grad


def plane(
    results: Results, n: int, variance: float, tols: tuple[float | None, ...]
) -> dict[str, Any]:
    """Measure factors of low rank against the SVD of the matrix, with errors."""
    p, q = clouds(n, variance)
    a = p.log_overlaps(q).exp().detach()
    methods: dict[str, Callable[[], object]] = {"svd": lambda: by_svd(a)}
    for tol in tols:
        methods[f"tolerance {tol}"] = lambda tol=tol: factored_step(n, variance, tol)
    row: dict[str, Any] = {"milliseconds": results.medians(methods)}
    doubles = [GaussianMixture(part.means.detach().double(), variance / 2) for part in (p, q)]
    leaf = doubles[1].means.requires_grad_()
    exact = nuclear_norm(doubles[0].log_overlaps(doubles[1]).exp())
    exact.backward()
    for tol in tols:
        value, certificate, gradient = factored_step(n, variance, tol)
        row[f"tolerance {tol}"] = {
            "plan": str(fidelity_plan(p, q, tol)),
            "error": float(abs(value - exact.detach())),
            "certificate": float(certificate),
            "error of the gradient": float((gradient - leaf.grad).norm() / leaf.grad.norm()),
            "svd / factors": row["milliseconds"]["svd"] / row["milliseconds"][f"tolerance {tol}"],
        }
    return row


def large(n: int, variance: float, tol: float) -> dict[str, Any]:
    """Measure sets that no matrix holds, in a process of their own for its memory."""
    command = [sys.executable, __file__, "--threads", str(torch.get_num_threads())]
    command += ["--alone", str(n), str(variance), str(tol)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    row: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return row


def alone(n: int, variance: float, tol: float) -> None:
    """Print what one large pair of sets takes."""
    factored_step(1000, variance, tol)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    value, certificate, _ = factored_step(n, variance, tol)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    p, q = clouds(n, variance)
    with torch.no_grad():
        factor = _factorise(_points(p, q), tol, 4096)
    print(
        json.dumps(
            {
                "seconds": seconds,
                "peak, MB": peak / 1024,
                "start, MB": before / 1024,
                "value": float(value),
                "certificate": float(certificate),
                "rank": len(factor.x) if factor else None,
            }
        )
    )


def on_gpu(results: Results, n: int) -> dict[str, Any]:
    """Measure the iteration of matrix products where a GPU is."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 24, generator=generator)
    y = x + 0.3 * torch.randn(n, 24, generator=generator)
    exact = (-torch.cdist(x.double(), y.double()).square() / 24).exp().cuda()
    a = exact.float()
    iterations = len(quintics(EPS))
    methods = {
        "svd": lambda: by_svd(a),
        "polynomial": lambda: polynomial_slope(a, 1.0, EPS),
        "float32 products of the iteration": lambda: [a @ a for _ in range(3 * iterations + 2)],
    }
    row: dict[str, Any] = {"milliseconds": results.medians(methods)}
    u, s, vh = torch.linalg.svd(exact)
    for name in ("svd", "polynomial"):
        value, slope = methods[name]()
        row[f"{name}, error of the value"] = float(abs(value - s.sum()) / s.sum())
        row[f"{name}, error of the gradient"] = float((slope - u @ vh).norm() / n**0.5)
    return row


def rows(results: Results) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Name everything that is measured."""
    for n, e in itertools.product((256, 384, 512, 1024, 2048), (0.1, 0.3)):
        yield f"square {n}, perturbed by {e}", partial(dense, results, n, n, e)
    for m in (256, 512):
        yield f"rectangle 2048 x {m}", partial(dense, results, 2048, m, 0.3)
    tols = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, None)
    for n, v in itertools.product((512, 1024, 2048), CLOUD_VARIANCES):
        yield f"plane {n}, variance {v}", partial(plane, results, n, v, tols)
    for n, v in itertools.product((10_000, 30_000, 100_000), CLOUD_VARIANCES):
        yield f"large {n}, variance {v}", partial(large, n, v, 1e-4)
    for n in (1024, 4096, 8192) if torch.cuda.is_available() else ():
        yield f"gpu {n}", partial(on_gpu, results, n)


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", default="", help="rows whose name begins with this")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.alone:
        alone(int(given.alone[0]), float(given.alone[1]), float(given.alone[2]))
        return
    results = Results(given.repeats)
    for name, measure in rows(results):
        if name.startswith(given.only):
            results.add(name, measure)


if __name__ == "__main__":
    main()
