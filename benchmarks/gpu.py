"""What a GPU makes of the engine: one call, every row, one JSON file.

    PYTHONPATH=src python benchmarks/gpu.py [gpu.json]

Rows: nuclear norms by products against ``torch.linalg.svd``; sums over all pairs against plain sums
that ``torch.compile`` has fused; the shares of a training step; and every cost in float32 on the
GPU against float64 on the processor. Methods take turns; medians are kept. It needs no data.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hilbound import functional as F
from hilbound.engine.spectrum.polynomial import polynomial_slope
from hilbound.mixture import GaussianMixture

RESULT = Path(__file__).resolve().parent / "results" / "gpu.json"
EPS = torch.finfo(torch.float32).eps


def medians(methods: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return median milliseconds of functions that take turns; the first round warms up."""
    taken: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(repeats + 1):
        for name, method in methods.items():
            torch.cuda.synchronize()
            began = time.perf_counter()
            method()
            torch.cuda.synchronize()
            if number:
                taken[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in taken.items()}


def kernel(n: int) -> Tensor:
    """Return the Gaussian kernel between a cloud and a perturbed copy, in float64."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 24, generator=generator, dtype=torch.float64)
    y = x + 0.3 * torch.randn(n, 24, generator=generator, dtype=torch.float64)
    return (-torch.cdist(x.cuda(), y.cuda()).square() / 24).exp()


def by_svd(a: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nuclear norm and the polar factor as anyone would."""
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    return s.sum(), u @ vh


def nuclear_norm(n: int, repeats: int) -> dict[str, Any]:
    """Value and gradient by products, against the SVD, with the errors of both."""
    exact = kernel(n)
    a = exact.float()
    methods: dict[str, Callable[[], Any]] = {
        "svd": lambda: by_svd(a),
        "products": lambda: polynomial_slope(a, 1.0, EPS),
    }
    row: dict[str, Any] = {"milliseconds": medians(methods, repeats)}
    row["svd / products"] = row["milliseconds"]["svd"] / row["milliseconds"]["products"]
    value, polar = by_svd(exact)
    for name, method in methods.items():
        found, slope = method()
        row[f"{name}, error of the value"] = float(abs(found - value) / value)
        row[f"{name}, error of the gradient"] = float((slope - polar).norm() / n**0.5)
    return row


def _plain(x: Tensor, y: Tensor, v: float) -> Tensor:
    squared = x.square().sum(-1, keepdim=True) + y.square().sum(-1) - 2 * x @ y.T
    return (-squared.clamp_min(0) / (2 * v)).flatten().logsumexp(0)


def pair_sums(n: int, d: int) -> dict[str, Any]:
    """The log of an inner product with its gradient, against plain sums, compiled and not."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator).cuda()
    y = torch.randn(n, d, generator=generator).cuda().requires_grad_()
    p, v = GaussianMixture(x, d / 2), float(d)
    compiled = torch.compile(_plain)

    def ours() -> None:
        (-p.log_inner(GaussianMixture(y, d / 2))).backward()

    def plain(function: Callable[[Tensor, Tensor, float], Tensor]) -> None:
        function(x, y, v).backward()

    methods: dict[str, Callable[[], object]] = {
        "hilbound": ours,
        "plain": lambda: plain(_plain),
        "compiled": lambda: plain(compiled),
    }
    row: dict[str, Any] = {"milliseconds": medians(methods, 9)}
    row["compiled / hilbound"] = row["milliseconds"]["compiled"] / row["milliseconds"]["hilbound"]
    row["peak MiB"] = {}
    for name, method in methods.items():
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        method()
        row["peak MiB"][name] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return row


def training_step(n: int, d: int) -> dict[str, Any]:
    """The shares of a step: the network alone, with the Gram matrix, with the nuclear norm."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(
        nn.Linear(16, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, d)
    ).cuda()
    x = torch.rand(n, d, generator=generator).cuda()
    noise = torch.randn(n, 16, generator=generator).cuda()
    p = GaussianMixture(x, d / 32)

    def step(loss: Callable[[Tensor], Tensor]) -> None:
        network.zero_grad()
        loss(network(noise)).backward()

    methods: dict[str, Callable[[], object]] = {
        "network": lambda: step(lambda c: c.square().mean()),
        "network and Gram": lambda: step(
            lambda c: p.log_overlaps(GaussianMixture(c, d / 32)).exp().mean()
        ),
        "network and nuclear norm": lambda: step(
            lambda c: -F.fidelity(p, GaussianMixture(c, d / 32))
        ),
    }
    return {"milliseconds": medians(methods, 9)}


COSTS: dict[str, Callable[[GaussianMixture, GaussianMixture], Tensor]] = {
    "fidelity": F.fidelity,
    "log_scalar_cost": F.log_scalar_cost,
    "cauchy_schwarz_divergence": F.cauchy_schwarz_divergence,
    "log_vector_cost": F.log_vector_cost,
    "schur_cost": F.schur_cost,
    "trace_overlap": F.trace_overlap,
    "schatten_overlap": lambda p, q: F.schatten_overlap(p, q, 0.85),
    "negative_log_likelihood": lambda p, q: F.negative_log_likelihood(p.means, q),
}


def agreement(n: int, d: int) -> dict[str, Any]:
    """Values and gradients in float32 on the GPU against float64 on the processor."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = x + 0.3 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    row: dict[str, Any] = {}
    for name, cost in COSTS.items():
        found = []
        for device, dtype in (("cpu", torch.float64), ("cuda", torch.float32)):
            centers = y.to(device, dtype, copy=True).requires_grad_()
            p, q = (GaussianMixture(m, d / 4) for m in (x.to(device, dtype), centers))
            value = cost(p, q)
            value.backward()
            found.append((value.detach().double().cpu(), centers.grad.double().cpu()))
        (exact, slope), (value, gradient) = found
        row[name] = {
            "error of the value": float(abs(value - exact) / abs(exact).clamp_min(1e-12)),
            "error of the gradient": float((gradient - slope).norm() / slope.norm()),
        }
    return row


def rows() -> dict[str, Callable[[], dict[str, Any]]]:
    """Name everything that is measured, the quick rows first."""
    return {
        "agreement, 512 points, d = 16": lambda: agreement(512, 16),
        "agreement, 300 points, d = 784": lambda: agreement(300, 784),
        "pair sums, 10,000 x 10,000, d = 784": lambda: pair_sums(10_000, 784),
        "pair sums, 30,000 x 30,000, d = 64": lambda: pair_sums(30_000, 64),
        "training step, 1,024 images": lambda: training_step(1024, 784),
        "training step, 4,096 images": lambda: training_step(4096, 784),
        "nuclear norm, n = 1,024": lambda: nuclear_norm(1024, 9),
        "nuclear norm, n = 4,096": lambda: nuclear_norm(4096, 3),
        "nuclear norm, n = 8,192": lambda: nuclear_norm(8192, 1),
    }


def main() -> None:
    """Measure every row; a row that fails says why, and the others go on."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULT
    head = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "seed": 0,
    }
    found: dict[str, Any] = {}
    for name, measure in rows().items():
        try:
            found[name] = measure()
        except (RuntimeError, ValueError) as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
        print(name, json.dumps(found[name]), flush=True)
        target.write_text(json.dumps({**head, "rows": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
