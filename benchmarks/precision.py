"""How exact the costs are: float32 and float64 against 60 digits.

    python benchmarks/precision.py

Small sets of points, so that everything can be computed once more in mpmath from the formulas:
squared distances in whole numbers, kernels, logarithms and singular values in 60 digits. Errors go
to ``benchmarks/results/precision.json`` with the machine and the versions, and as a page of tables
to ``docs/results/precision.md``.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mpmath as mp
import numpy as np
import torch
from torch import Tensor

from hilbound import GaussianMixture, median_variance
from hilbound import functional as F
from hilbound.bounds import marginal_bound
from hilbound.training.machine import processor, versions

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "precision.json"
PAGE = ROOT / "docs" / "results" / "precision.md"
DIMENSIONS = (1, 2, 50, 784, 3072, 12288)
FACTORS = (0.1, 1, 10)
OFFSETS = (0, 1000)
POINTS, CENTRES, CONDITIONS = 12, 8, 4
POWER = 0.85
SEEDS = 5
DIGITS = 60
# Errors of these are absolute: logarithms of a ratio, or differences of costs, that may be near 0.
ABSOLUTE = {"gap of the bound", "debiased"}
SHIFT = 100  # bits: no float32 number in use is finer than this


def draw(dim: int, offset: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return points and centres, each centre beside a point, exact in float32."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(POINTS, dim, generator=generator)
    y = x[:CENTRES] + 0.3 * torch.randn(CENTRES, dim, generator=generator)
    return x + offset, y + offset


def measured(x: Tensor, y: Tensor, variance: float) -> dict[str, Tensor]:
    """Return every cost by the library, in the precision of the points."""
    p, q = GaussianMixture(x, variance / 2), GaussianMixture(y, variance / 2)
    p_half, p_copy = GaussianMixture(x[::2], variance / 2), GaussianMixture(x[1::2], variance / 2)
    q_half, q_copy = GaussianMixture(y[::2], variance / 2), GaussianMixture(y[1::2], variance / 2)
    groups = [GaussianMixture(a.reshape(CONDITIONS, -1, a.shape[-1]), variance / 2) for a in (x, y)]
    return {
        "nuclear": F.fidelity(p, q),
        "scalar": F.log_scalar_cost(p, q),
        "gap of the bound": marginal_bound(p, q).gap,
        "vector": F.log_vector_cost(p, q),
        "schur": F.schur_cost(p, q),
        "trace": F.trace_overlap(GaussianMixture(x[:CENTRES], variance / 2), q),
        "schatten": F.schatten_overlap(p, q, POWER),
        "debiased": F.debiased_fidelity(p_half, p_copy, q_half, q_copy),
        "likelihood": F.negative_log_likelihood(x, GaussianMixture(y, variance)),
        "distance": F.distance_nuclear_norm(x, y),
        "conditional": F.conditional_log_scalar_cost(*groups),
    }


INTRODUCTION = f"""# How exact the costs are

    python benchmarks/precision.py

makes every number on this page, in seconds, and keeps them in
[precision.json](../../benchmarks/results/precision.json).

The points are {POINTS} normal points and {CENTRES} centres beside them, in {SEEDS} draws. They are
measured as they are, and with 1,000 added to every coordinate. The kernel variance is
{", ".join(map(str, FACTORS))} times the median heuristic. The true value is computed in {DIGITS}
digits, from the same points, which float32 holds exactly. A cell is the worst of all draws and of
all settings that its table does not name.

An error is divided by the value. Where the library returns a logarithm (scalar, vector,
likelihood, conditional), it is the error of that logarithm. Two errors are absolute, because the
values may be near zero: that of the gap, in nats (the relative error of the tightness), and that
of the debiased cost. Schatten has power {POWER}.
"""


Matrix = np.ndarray[Any, np.dtype[np.object_]]


def distances(x: Tensor, y: Tensor) -> Matrix:
    """Return exact squared distances (N, M): differences and squares of whole numbers."""
    whole = np.vectorize(lambda value: int(float(value) * 2.0**SHIFT), otypes=[object])
    rows, columns = whole(x.numpy()), whole(y.numpy())
    squares = [[((row - column) ** 2).sum() for column in columns] for row in rows]
    return np.vectorize(lambda s: mp.mpf(int(s)) / mp.mpf(2) ** (2 * SHIFT), otypes=[object])(
        np.array(squares, dtype=object)
    )


def singular_values(matrix: Matrix) -> list[mp.mpf]:
    """Return the singular values of a matrix over the root of its number of entries."""
    scaled = mp.matrix(matrix.tolist()) / mp.sqrt(matrix.size)
    return list(mp.svd_r(scaled, compute_uv=False))


def exact(squared: dict[str, Matrix], dim: int, variance: float) -> dict[str, mp.mpf]:
    """Return every cost from the formulas, where all components have half of the variance."""
    v = mp.mpf(variance)
    pp, pq, qq = (
        np.vectorize(mp.exp, otypes=[object])(-squared[s] / (2 * v)) for s in ("pp", "pq", "qq")
    )
    constant = -dim * mp.log(2 * mp.pi * v) / 2
    norm = lambda matrix: sum(singular_values(matrix))  # noqa: E731 - a name for the formula
    log_pp, log_pq, log_qq = (mp.log(k.mean()) for k in (pp, pq, qq))
    inverse = np.array((mp.matrix(qq.tolist()) ** -1).tolist(), dtype=object)
    inverse = inverse.reshape(CENTRES, CENTRES)
    k = pq.mean(0)
    blocks = (CONDITIONS, POINTS // CONDITIONS, CONDITIONS, CENTRES // CONDITIONS)
    own = (CONDITIONS, CENTRES // CONDITIONS) * 2
    b = range(CONDITIONS)
    cross_b = pq.reshape(blocks).mean((1, 3))[b, b].mean()
    own_b = qq.reshape(own).mean((1, 3))[b, b].mean()
    self_terms = norm(pp[::2, 1::2]) + norm(qq[::2, 1::2])
    return {
        "nuclear": norm(pq),
        "scalar": 2 * log_pq - log_qq + constant,
        "gap of the bound": log_pp + log_qq - 2 * log_pq,
        "vector": mp.log(k @ inverse @ k) + constant,
        "schur": (pq @ inverse * pq).sum(1).mean(),
        "trace": pq[:CENTRES].diagonal().mean(),
        "schatten": sum(s**POWER for s in singular_values(pq)),
        "debiased": (self_terms - norm(pq[::2, ::2]) - norm(pq[::2, 1::2])) / 2,
        "likelihood": -(sum(map(mp.log, pq.mean(1))) / POINTS + constant),
        "distance": norm(squared["pq"]),
        "conditional": 2 * mp.log(cross_b) - mp.log(own_b) + constant,
    }


def error(name: str, value: Tensor, truth: mp.mpf) -> float:
    """Return the error of a value, relative except for :data:`ABSOLUTE`."""
    apart = abs(mp.mpf(float(value)) - truth)
    return float(mp.nstr(apart if name in ABSOLUTE else apart / abs(truth), 3))


def settings() -> Iterator[tuple[Tensor, Tensor, dict[str, Any]]]:
    """Yield points, centres and what they are."""
    for dim in DIMENSIONS:
        for offset in OFFSETS:
            for seed in range(SEEDS):
                x, y = draw(dim, offset, seed)
                yield x, y, {"dim": dim, "offset": offset, "seed": seed}


def measurements() -> Iterator[dict[str, Any]]:
    """Yield the errors of every setting and precision."""
    for x, y, setting in settings():
        squared = {"pp": distances(x, x), "pq": distances(x, y), "qq": distances(y, y)}
        for factor in FACTORS:
            # Twice a float32 number, so that both precisions get the same one.
            variance = 2 * float(torch.tensor(factor * median_variance(x) / 2))
            truth = exact(squared, setting["dim"], variance)
            for dtype in (torch.float32, torch.float64):
                costs = measured(x.to(dtype), y.to(dtype), variance)
                yield {
                    **setting,
                    "factor": factor,
                    "dtype": str(dtype).removeprefix("torch."),
                    "values": {name: float(mp.nstr(value, 6)) for name, value in truth.items()},
                    "errors": {name: error(name, costs[name], truth[name]) for name in truth},
                }


def worst(rows: list[dict[str, Any]], name: str, **where: object) -> float:
    """Return the largest error of a cost over the settings that are meant."""
    return max(row["errors"][name] for row in rows if all(row[key] == where[key] for key in where))


def resolution(rows: list[dict[str, Any]]) -> list[str]:
    """Say what a relative error means where a logarithm is large."""
    largest = max(abs(row["values"]["scalar"]) for row in rows)
    spacing = float(np.spacing(np.float32(largest)))
    return [
        f"Logarithms grow with the dimension: the largest here is {largest:,.0f}, and float32",
        f"numbers of that size are {spacing:.1g} apart. So a float32 scalar cost with a small",
        "relative error has no digits to spare for a difference: take the gap from",
        "`objective.bound(p, q)`, which subtracts where the digits still are.",
        "",
        "The vector and Schur costs invert the Gram matrix of the centres, which is singular to",
        "rounding where centres lie close together: in one dimension, or under a wide kernel.",
        "Directions that rounding has destroyed are left out, so the value is too small.",
    ]


def table(
    rows: list[dict[str, Any]], head: str, columns: dict[str, dict[str, object]]
) -> Iterator[str]:
    """Yield the lines of a table with a row for each cost."""
    yield f"| {head} | " + " | ".join(columns) + " |"
    yield "|---|" + "---:|" * len(columns)
    for name in rows[0]["errors"]:
        label = f"{name} (absolute)" if name in ABSOLUTE else name
        cells = (f"{worst(rows, name, **where):.0e}" for where in columns.values())
        yield f"| {label} | " + " | ".join(cells) + " |"
    yield ""


def page(rows: list[dict[str, Any]], machine: str, libraries: dict[str, str]) -> str:
    """Return the page of tables."""
    lines = [INTRODUCTION, *resolution(rows), ""]
    by_dim: Callable[..., dict[str, dict[str, object]]] = lambda **where: {  # noqa: E731
        f"d = {dim}": {"dim": dim, **where} for dim in DIMENSIONS
    }
    for dtype in ("float32", "float64"):
        for offset in OFFSETS:
            lines += [f"## {dtype}, offset {offset:,}", ""]
            lines += table(rows, "cost", by_dim(dtype=dtype, offset=offset))
    lines += ["## By the variance", ""]
    lines += table(
        rows,
        "cost",
        {
            f"{dtype}, {factor} × median": {"dtype": dtype, "factor": factor}
            for dtype in ("float32", "float64")
            for factor in FACTORS
        },
    )
    lines.append(f"{machine}; " + ", ".join(f"{k} {v}" for k, v in libraries.items()) + ".")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the results and the page."""
    began = time.perf_counter()
    with mp.workdps(DIGITS):
        rows = list(measurements())
    libraries = {**versions(), "mpmath": mp.__version__}
    content = {
        "processor": processor(),
        "versions": libraries,
        "digits": DIGITS,
        "threads": torch.get_num_threads(),
        "measurements": rows,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(content) + "\n", encoding="utf-8")
    PAGE.write_text(page(rows, processor(), libraries), encoding="utf-8")
    print(f"{PAGE} in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
