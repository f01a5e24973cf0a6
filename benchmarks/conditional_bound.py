"""What the conditional bound of all of MNIST takes: seconds, memory, and its certified error.

    HILBOUND_DATA=path/to/data python benchmarks/conditional_bound.py [--centers 1 30]

The encoder is the first principal component, scaled to [-1, 1]; the decoder answers a feature with
K training images of similar features, drawn a little towards their mean, and makes them block by
block. Memory is the highest resident set while the bound is computed, less that before: the images
are not counted. On a subset the same is computed densely in float64, from the formulas. Everything
is stored, with the machine and the versions, in ``benchmarks/results/conditional_bound.json``.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from hilbound.bounds import conditional_bound
from hilbound.datasets import load
from hilbound.engine.blocks import blocks
from hilbound.engine.seeding import stream
from hilbound.mixture import GaussianMixture
from hilbound.training.machine import processor, versions

RESULT = Path(__file__).resolve().parent / "results" / "conditional_bound.json"


@dataclass(frozen=True)
class Case:
    """A data set with its features and feature points, and what decodes them."""

    x: Tensor
    features: Tensor
    points: Tensor
    centers: int
    variance: float
    variance_y: float

    @cached_property
    def by_feature(self) -> tuple[Tensor, Tensor]:
        """The features in rising order, and whose they are."""
        return tuple(self.features.squeeze(-1).sort())

    def decode(self, points: Tensor) -> GaussianMixture:
        """Return images whose features are next to the points, every third of 3K of them."""
        features, order = self.by_feature
        near = torch.searchsorted(features, points.squeeze(-1).contiguous())
        offsets = 3 * (torch.arange(self.centers) - self.centers // 2)
        images = self.x[order[(near.unsqueeze(-1) + offsets).clamp(0, len(order) - 1)]]
        return GaussianMixture(0.9 * images + 0.1 * images.mean(1, keepdim=True), self.variance)

    def bound(self) -> dict[str, float]:
        """Return the bound and what it took."""
        forget_the_highest_memory()
        before, began = memory("VmRSS"), time.perf_counter()
        bound = conditional_bound(
            self.x,
            self.features,
            self.points,
            self.decode,
            variance_p=self.variance,
            variance_y=self.variance_y,
        )
        return {
            "seconds": time.perf_counter() - began,
            "mib_above_inputs": memory("VmHWM") - before,
            "log_cost": float(bound.log_value),
            "log_limit": float(bound.log_limit),
            "gap": float(bound.gap),
            "error": bound.error,
        }

    def active_share(self) -> float:
        """Return the mean share of the data that matters to a feature point, alone."""
        some = self.points[:: max(1, len(self.points) // 200)].double()
        alone = blocks(self.features.double(), some, self.variance_y, 1e-12, lambda b, _: b**2)
        return sum(len(block.active) for block in alone) / len(some) / len(self.x)

    def dense(self) -> tuple[float, float]:
        """Return the logarithms of the cost and the limit, with all pairs, in float64."""
        x, y, points, v = (
            self.x.double(),
            self.features.double(),
            self.points.double(),
            self.variance,
        )
        d, q = x.shape[-1], self.decode(self.points)
        w = (-torch.cdist(points, y).square() / (2 * self.variance_y)).softmax(-1)
        own = (w @ (-torch.cdist(x, x).square() / (4 * v)).exp() * w).sum(-1)
        parts = [
            -torch.cdist(q.means[:, k].double(), x).square() / (4 * v) + w.log()
            for k in range(self.centers)
        ]
        cross = torch.stack([part.logsumexp(-1) for part in parts]).logsumexp(0)
        means = q.means.double()
        model = torch.stack([(-torch.cdist(m, m).square() / (4 * v)).exp().mean() for m in means])
        m, constant = math.log(len(points)), -0.5 * d * math.log(4 * math.pi * v)
        log_pq = cross.logsumexp(0) - m - math.log(self.centers)
        return (
            float(2 * log_pq - model.mean().log()) + constant,
            float(own.mean().log()) + constant,
        )


def memory(which: str) -> float:
    """Return a resident set of this process in MiB: "VmRSS" now, "VmHWM" the highest (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith(which))
    return int(line.split()[1]) / 2**10


def forget_the_highest_memory() -> None:
    """Set the highest resident set to that of now (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def case(rows: int, centers: int, variance: float, variance_y: float) -> Case:
    """Make features of the images, and feature points with their noise."""
    dataset = load("mnist")
    x = torch.cat([dataset.train, dataset.validation])[:rows]
    centred = x - x.mean(0)
    _, directions = torch.linalg.eigh(centred.T @ centred)
    features = centred @ directions[:, -1:]
    features = 2 * (features - features.min()) / (features.max() - features.min()) - 1
    noise = torch.randn(features.shape, generator=stream(0, "noise"))
    chosen = torch.randint(len(x), (len(x),), generator=stream(0, "points"))
    points = features[chosen] + math.sqrt(variance_y) * noise
    return Case(x, features, points, centers, variance, variance_y)


def measure(given: argparse.Namespace, centers: int) -> dict[str, object]:
    """Measure one number of centres, and compare a subset with the dense computation."""
    whole = case(given.rows, centers, given.variance, given.variance_y)
    result: dict[str, object] = {"centers": centers, "active_share": whole.active_share()}
    result |= whole.bound()
    subset = case(given.subset, centers, given.variance, given.variance_y)
    sparse, (cost, limit) = subset.bound(), subset.dense()
    result["subset"] = {
        "rows": given.subset,
        "dense": {"log_cost": cost, "log_limit": limit},
        "difference_of_log_cost": sparse["log_cost"] - cost,
        "difference_of_log_limit": sparse["log_limit"] - limit,
        "certified_error": sparse["error"],
    }
    return result


def main() -> None:
    """Measure every number of centres and store what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--centers", type=int, nargs="+", default=[1, 30])
    parser.add_argument("--variance", type=float, default=5.0, help="of data and of centres")
    parser.add_argument("--variance-y", type=float, default=1.3e-5, help="of the features' noise")
    parser.add_argument("--subset", type=int, default=2_000, help="rows of the dense computation")
    parser.add_argument("--output", type=Path, default=RESULT)
    given = parser.parse_args()
    results = []
    for centers in given.centers:
        results.append(measure(given, centers))
        print(json.dumps(results[-1], indent=2), flush=True)
    content = {
        "data": "mnist",
        "rows": given.rows,
        "variance": given.variance,
        "variance_y": given.variance_y,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "results": results,
    }
    given.output.parent.mkdir(exist_ok=True)
    given.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
