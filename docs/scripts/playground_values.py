"""The numbers that the playground's JavaScript must agree with: ``tests/data/playground.json``.

Every case has points, centres and a kernel variance, and for each objective the loss, its gradient
with respect to the centres, and the bound, as the Python functions compute them in float64.
Run ``python docs/scripts/playground_values.py`` after a change of a function.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hilbound import GaussianMixture
from hilbound.engine.spectrum.svd import effective_rank, singular_values
from hilbound.objectives import Likelihood, create_objective

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "data" / "playground.json"
OBJECTIVES = ("nuclear", "debiased", "scalar", "likelihood", "trace")
# Rows, centres, variance: wide kernels have a long tail, one case has more centres than rows.
CASES = ((12, 12, 0.05), (20, 12, 0.3), (9, 14, 0.02), (16, 16, 1.5), (2, 1, 0.2))


def values() -> list[dict[str, Any]]:
    """Return all cases with the expected numbers."""
    generator = torch.Generator().manual_seed(0)
    return [_case(n, m, v, generator) for n, m, v in CASES]


def _case(n: int, m: int, variance: float, generator: torch.Generator) -> dict[str, Any]:
    x, y, draws, grid = (_points(rows, generator) for rows in (n, m, 10, 3))
    overlaps = GaussianMixture(x, variance / 2).log_overlaps(GaussianMixture(y, variance / 2))
    spectrum = singular_values(overlaps.exp())
    density = GaussianMixture(y, variance).log_prob(
        torch.stack(torch.meshgrid(grid[:, 0], grid[:, 1], indexing="xy"), -1)
    )
    return {
        "variance": variance,
        "x": _list(x),
        "y": _list(y),
        "draws": _list(draws),
        "grid": {"xs": _list(grid[:, 0]), "ys": _list(grid[:, 1])},
        "density": _list(density.exp()),
        "values": _list(spectrum),
        "rank": float(effective_rank(spectrum)),
        "objectives": {
            name: _objective(name, x, y, variance, draws)
            for name in OBJECTIVES
            if not (name == "trace" and n != m) and not (name == "debiased" and m < 2)
        },
    }


def _objective(name: str, x: Tensor, y: Tensor, variance: float, draws: Tensor) -> dict[str, Any]:
    objective = create_objective(name)
    v = objective.component_variance(variance)
    centres = y.clone().requires_grad_()
    p, q = GaussianMixture(x, v), GaussianMixture(centres, v)
    loss = objective(p, q)
    (gradient,) = torch.autograd.grad(loss, centres)
    if isinstance(objective, Likelihood):
        log_cost, log_limit = q.log_prob(draws).mean(), p.log_prob(draws).mean()
    else:
        bound = objective.bound(p, q)
        log_cost, log_limit = bound.log_value, bound.log_limit
    return {
        "loss": float(loss.detach()),
        "gradient": _list(gradient),
        "log_cost": float(log_cost.detach()),
        "log_limit": float(log_limit.detach()),
    }


def _points(n: int, generator: torch.Generator) -> Tensor:
    points = 2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1
    return points.round(decimals=4)


def _list(numbers: Tensor) -> list[float]:
    return [float(number) for number in numbers.detach().flatten()]


if __name__ == "__main__":
    OUTPUT.write_text(json.dumps(values(), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {OUTPUT}")
