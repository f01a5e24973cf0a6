r"""Does a fidelity prefer blurred rows? A mini-batch, all of the data, and the divergence.

    HILBOUND_DATA=path/to/data python benchmarks/blur.py [--seeds 3]

A mini-batch underestimates the fidelity, and the more so the more the rows differ. So means of ten
neighbours may score better than real rows, and a model that is trained on it blurs. Three costs are
measured on held-out rows of MNIST and on such means:

- *batch*: the fidelity with a batch of as many training rows;
- *all rows*: the operator of all training rows, its root taken once, against the batch,

  .. math:: F = \| \rho^{1/2} \Psi / \sqrt M \|_*,

  by r landmarks drawn at random (Nyström): features :math:`\psi(x) = L^{-1} k_Z(x)` with
  :math:`K_{ZZ} = L L^\top`;
- *debiased*: the divergence of two batches of each side, where less is better.

The kernel is that of the median heuristic. Rows go to ``benchmarks/results/blur.json``.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hilbound import datasets
from hilbound import functional as F
from hilbound.engine.gram import squared_distances
from hilbound.mixture import GaussianMixture
from hilbound.training.machine import processor, versions
from hilbound.variance import median_variance, of_component

RESULT = Path(__file__).resolve().parent / "results" / "blur.json"
ROWS, NEIGHBOURS = 20_000, 10
LANDMARKS, BATCHES = (1000, 2000), (512, 2048)


class AllRows:
    """The fidelity with the operator of all rows, by landmarks.

    Args:
        rows: All rows with shape ``(N, d)``, in float64.
        landmarks: Some of them with shape ``(r, d)``.
        variance: Variance of the kernel.
    """

    def __init__(self, rows: Tensor, landmarks: Tensor, variance: float) -> None:
        self.landmarks, self.variance = landmarks, variance
        gram = self._kernel(landmarks)
        ridge = 1e-8 * torch.eye(len(gram), dtype=gram.dtype)
        self.root = torch.linalg.cholesky(gram + ridge)
        psi = self.features(rows)
        values, vectors = torch.linalg.eigh(psi @ psi.mT / len(rows))
        self.of_data = vectors * values.clamp_min(0).sqrt() @ vectors.mT
        self.kept = float(values.sum())

    def _kernel(self, x: Tensor) -> Tensor:
        return (-squared_distances(self.landmarks, x) / (2 * self.variance)).exp()

    def features(self, x: Tensor) -> Tensor:
        """Return the features ``(r, n)`` of rows ``(n, d)``."""
        return torch.linalg.solve_triangular(self.root, self._kernel(x), upper=False)

    def fidelity(self, x: Tensor) -> float:
        """Return the fidelity of all rows and of a batch ``(M, d)``."""
        psi = self.features(x) / len(x) ** 0.5
        return float(torch.linalg.svdvals(self.of_data @ psi).sum())


def draw(rows: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return n of the rows."""
    return rows[torch.randperm(len(rows), generator=generator)[:n]]


def blurred(rows: Tensor, train: Tensor) -> Tensor:
    """Return, for each row, the mean of the training rows that are nearest to it."""
    nearest = squared_distances(rows, train).topk(NEIGHBOURS, largest=False).indices
    return train[nearest].mean(1)


def measure(seed: int) -> list[dict[str, Any]]:
    """Return the costs of real and of blurred rows, for every size."""
    data, generator = datasets.load("mnist"), torch.Generator().manual_seed(seed)
    train = draw(data.train, ROWS, generator)
    held_out = data.validation
    variance = median_variance(train[:4000])
    component = of_component(variance, 2)

    def mixture(x: Tensor) -> GaussianMixture:
        return GaussianMixture(x, component)

    rows = []
    operators = {
        r: AllRows(train.double(), draw(train, r, generator).double(), variance) for r in LANDMARKS
    }
    for size in BATCHES:
        real, other = draw(held_out, 2 * size, generator).split(size)
        p = mixture(draw(train, size, generator))
        sides = {
            "real": (real, other),
            "blurred": (blurred(real, train), blurred(other, train)),
        }
        for name, (x, copy) in sides.items():
            q, second = mixture(x), mixture(copy)
            row = {"seed": seed, "batch": size, "rows": name}
            row["minibatch"] = float(F.fidelity(p, q))
            row["debiased"] = float(F.debiased_fidelity(p, None, q, second, 0.5))
            for r, operator in operators.items():
                row[f"all_rows_{r}"] = operator.fidelity(x.double())
                row[f"kept_{r}"] = operator.kept
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    began = time.process_time()
    rows = [row for seed in range(parser.parse_args().seeds) for row in measure(seed)]
    for size in BATCHES:
        for cost in ("minibatch", *(f"all_rows_{r}" for r in LANDMARKS), "debiased"):
            means = {
                side: statistics.mean(
                    row[cost] for row in rows if (row["batch"], row["rows"]) == (size, side)
                )
                for side in ("real", "blurred")
            }
            print(f"{size} rows, {cost}: real {means['real']:.3f}, blurred {means['blurred']:.3f}")
    facts = {"processor": processor(), "versions": versions(), "threads": torch.get_num_threads()}
    facts["core_seconds"] = time.process_time() - began
    RESULT.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
