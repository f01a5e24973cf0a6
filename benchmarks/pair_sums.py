"""Pair sums against the bare matrix products they cannot do without, and against other libraries.

    python benchmarks/pair_sums.py [--threads 2 --rounds 5 --only scalar_cost memory --again]

Every part is stored as soon as it is measured, in ``benchmarks/results/pair_sums.json``; a part
that is there is not measured again unless ``--again`` says so. What is compared takes turns in one
process, so that noise of the machine meets all alike: medians of the seconds, and of the ratios
turn by turn. geomloss and pykeops are compared where they are installed. The data are those of
MNIST where ``HILBOUND_DATA`` names them, and uniform noise of the same shape elsewhere.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from hilbound import functional as F
from hilbound.bounds import marginal_bound
from hilbound.engine import gram
from hilbound.engine.inverse import inverse_form
from hilbound.mixture import GaussianMixture
from hilbound.training.machine import processor, versions

RESULT = Path(__file__).resolve().parent / "results" / "pair_sums.json"
OTHERS = ("geomloss", "pykeops")
Row = dict[str, object]
Timed = dict[str, Callable[[], object]]


# ------------------------------------------------------------------ how it is measured


def take_turns(functions: Timed, rounds: int, against: str) -> Row:
    """Return median seconds, and median ratios to one of the functions within the same round."""
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - began)
    base = seconds[against]
    return {
        "seconds": {name: statistics.median(s) for name, s in seconds.items()},
        f"ratio to {against}": {
            name: statistics.median([a / b for a, b in zip(s, base, strict=True)])
            for name, s in seconds.items()
        },
        "rounds": rounds,
    }


def points(n: int, d: int) -> tuple[Tensor, Tensor, float]:
    """Return n points, as many centres near them, and half their median squared distance."""
    generator = torch.Generator().manual_seed(0)
    if d == 784 and os.environ.get("HILBOUND_DATA"):
        from hilbound.datasets import load

        dataset = load("mnist")
        x = torch.cat([dataset.train, dataset.validation])[:n].flatten(1).float()
    else:
        x = torch.rand(n, d, generator=generator)
    y = x + 0.1 * torch.randn(x.shape, generator=generator)
    some = gram.squared_distances(x[:1000], x[:1000])
    return x, y.requires_grad_(), float(some.median()) / 2


def three_products(x: Tensor, y: Tensor) -> Callable[[], object]:
    """Return x y', P y and P' x with bare products of the whole shape, written to one place."""
    x, y = x.detach(), y.detach()
    p = torch.empty(len(x), len(y))
    to_x, to_y = torch.empty_like(x), torch.empty_like(y)

    def run() -> None:
        torch.mm(x, y.mT, out=p)
        torch.mm(p, y, out=to_x)
        torch.mm(p.mT, x, out=to_y)

    return run


def with_gradient(leaf: Tensor, loss: Callable[[], Tensor]) -> Callable[[], object]:
    """Return a function that computes the loss and its gradient to the leaf."""

    def run() -> None:
        leaf.grad = None
        loss().backward()

    return run


def plain_scalar_cost(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    """The scalar cost by log-sum-exp over blocks that the backward pass computes again."""

    def plain(a: GaussianMixture, b: GaussianMixture) -> Tensor:
        rows = gram.log_row_sums(
            a.means, a.component_variance, b.means, b.component_variance, b.log_weights
        )
        return torch.logsumexp(rows + a.log_weights, -1)

    return 2 * plain(p, q) - plain(q, q)


def others(x: Tensor, y: Tensor, variance: float, backends: tuple[str, ...]) -> Timed:
    """Return the kernel losses of geomloss; each also sums over the pairs of x with itself."""
    if any(importlib.util.find_spec(name) is None for name in OTHERS):
        return {}
    from geomloss import SamplesLoss

    return {
        f"geomloss, {backend}": with_gradient(
            y,
            lambda b=backend: SamplesLoss("gaussian", blur=(2 * variance) ** 0.5, backend=b)(x, y),
        )
        for backend in backends
    }


def keops(x: Tensor, y: Tensor, variance: float) -> Timed:
    """Return the scalar cost as sums of pykeops."""
    if importlib.util.find_spec("pykeops") is None:
        return {}
    from pykeops.torch import LazyTensor

    def log_sum(a: Tensor, b: Tensor) -> Tensor:
        squares = ((LazyTensor(a[:, None]) - LazyTensor(b[None])) ** 2).sum(-1)
        return (-squares / (4 * variance)).logsumexp(1).logsumexp(0)

    def cost() -> Tensor:
        return (2 * log_sum(x, y) - log_sum(y, y)).sum()

    return {"pykeops": with_gradient(y, cost)}


# ------------------------------------------------------------------ what is measured


def costs_of(n: int, d: int, backends: tuple[str, ...], rounds: int, *, plain: bool) -> Row:
    """Value and gradient of the costs of n points and n centres."""
    x, y, variance = points(n, d)
    p = GaussianMixture(x, variance)

    def q() -> GaussianMixture:  # a new one for every step, as in training
        return GaussianMixture(y, variance)

    functions: Timed = {
        "three products": three_products(x, y),
        "scalar cost": with_gradient(y, lambda: F.log_scalar_cost(p, q())),
        "<p, q>": with_gradient(y, lambda: p.log_inner(q())),
        "<q, q>": with_gradient(y, lambda: q().renyi_entropy()),
        "likelihood": with_gradient(y, lambda: F.negative_log_likelihood(x, q())),
        **others(x, y, variance, backends),
    }
    if plain:
        functions["scalar cost, recomputed"] = with_gradient(y, lambda: plain_scalar_cost(p, q()))
    if "online" in backends:
        functions |= keops(x, y, variance)
    shape = {"points": n, "centres": n, "coordinates": d, "variance": variance}
    return {**shape, **take_turns(functions, rounds, "three products")}


def scalar_cost(rounds: int) -> Row:
    """10,000 points of 784 coordinates; pykeops, minutes a step there, comes with fewer points."""
    return costs_of(10_000, 784, ("tensorized",), rounds, plain=True)


def scalar_cost_of_few(rounds: int) -> Row:
    """1,000 points of 784 coordinates, for the libraries that take a pair at a time."""
    return costs_of(1_000, 784, ("tensorized", "online"), rounds, plain=True)


def scalar_cost_of_the_plane(rounds: int) -> Row:
    """10,000 points of the plane, where no product is to be saved."""
    return costs_of(10_000, 2, ("tensorized", "online"), rounds, plain=True)


def memory(rounds: int) -> Row:
    """The growth of the resident memory over the inputs, in a process of its own."""
    del rounds
    call = [sys.executable, __file__, "--memory-of"]
    return {
        f"MB above the inputs, {name}": float(
            subprocess.run([*call, name], capture_output=True, check=True, text=True).stdout
        )
        for name in ("scalar cost", "likelihood")
    }


def memory_of(name: str) -> float:
    """Return the growth of this process's largest resident size, in MB."""

    def step(x: Tensor, y: Tensor, variance: float) -> None:
        q = GaussianMixture(y, variance)
        p = GaussianMixture(x, variance)
        cost = F.log_scalar_cost(p, q) if name == "scalar cost" else F.negative_log_likelihood(x, q)
        cost.backward()

    x, y, variance = points(10_000, 784)
    # Once on a few points, so that what libraries hold for themselves is there before.
    step(x[:300].clone(), y[:300].detach().clone().requires_grad_(), variance)
    before = _resident()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the largest size
    step(x, y, variance)
    return _resident("VmHWM") - before


def _resident(field: str = "VmRSS") -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    lines = status.read_text(encoding="ascii").splitlines()
    return float(next(line for line in lines if line.startswith(field)).split()[1]) / 1e3


def full_bound(rounds: int) -> Row:
    """One bound of all of MNIST: two self products at half the work and one cross product."""
    x, y, variance = points(60_000, 784)
    y = y.detach()
    a, b = x[:2048], y[:2048]
    tile = torch.empty(len(a), len(b))
    tiles = len(x) * len(y) / tile.numel()
    count = max(1, round(2 * tiles / 50))
    p, q = GaussianMixture(x, variance), GaussianMixture(y, variance)
    found = []

    def products() -> None:
        # The floor: as many operations in bare products of tiles; one in 50, then scaled.
        for _ in range(count):
            torch.mm(a, b.mT, out=tile)

    def bound() -> None:
        with torch.no_grad():
            found.append(marginal_bound(p, q))

    products()
    turns = (products, bound, products)
    seconds: dict[str, list[float]] = {"products": [], "bound": []}
    for _ in range(max(1, rounds // 5)):
        for turn in turns:  # the floor before and after, since a bound takes minutes
            began = time.perf_counter()
            turn()
            seconds[turn.__name__].append(time.perf_counter() - began)
    scale = 2 * tiles / count
    floor, ours = (
        scale * statistics.median(seconds["products"]),
        statistics.median(seconds["bound"]),
    )
    return {
        "points": len(x),
        "centres": len(y),
        "coordinates": x.shape[1],
        "variance": variance,
        "seconds": {"products": floor, "bound": ours},
        "ratio to products": ours / floor,
        "tightness": float(found[0].tightness),
    }


def torch_form(g: Tensor, k: Tensor) -> Tensor:
    """The inverse form as torch differentiates it: through the factor."""
    return (k * torch.cholesky_solve(k, torch.linalg.cholesky(g))).sum(-2)


def eigen_form(g: Tensor, k: Tensor) -> Tensor:
    """The inverse form from the eigenvectors above the line, with the gradient by a solution."""
    with torch.no_grad():
        values, basis = torch.linalg.eigh(g)
        kept = values > len(g) * torch.finfo(g.dtype).eps * values[-1]
        inverse = values.where(kept, 1).reciprocal().where(kept, 0).unsqueeze(-1)
        w = basis @ (inverse * (basis.mT @ k))
    return (w * (2 * k - g @ w)).sum(-2)


def inverse_forms(rounds: int) -> Row:
    """Value and gradient of k' G^-1 k for one vector (vector cost) and for M of them (Schur)."""
    rows: Row = {}
    for m in (1000, 2000, 4000):
        generator = torch.Generator().manual_seed(0)
        # A Gram matrix of far and near points: its least eigenvalue is well above the line.
        x = torch.randn(m, 10, generator=generator, dtype=torch.float64)
        g = gram.log_overlaps(x, torch.ones(1, 1), x, torch.ones(1, 1)).exp().requires_grad_()
        for columns in (1, m):
            k = (
                g.detach() @ torch.randn(m, columns, generator=generator).double()
            ).requires_grad_()
            functions: Timed = {
                name: with_gradient(g, lambda f=f, g=g, k=k: f(g, k).sum())
                for name, f in (
                    ("ours", inverse_form),
                    ("torch, through the factor", torch_form),
                    ("eigenvectors", eigen_form),
                )
            }
            rows[f"M = {m}, {columns} vectors"] = take_turns(
                functions, max(1, rounds if m < 4000 else rounds // 2), "ours"
            )
    return rows


PARTS: dict[str, Callable[[int], Row]] = {
    part.__name__: part
    for part in (
        scalar_cost_of_few,
        scalar_cost_of_the_plane,
        scalar_cost,
        memory,
        inverse_forms,
        full_bound,
    )
}


def installed() -> dict[str, str]:
    """Return the versions of the other libraries."""
    return {
        name: version(name) if importlib.util.find_spec(name) else "not installed"
        for name in OTHERS
    }


def main() -> None:
    """Measure the parts that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.memory_of:
        print(memory_of(given.memory_of))
        return
    content = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    for name in given.only:
        if name in content and not given.again:
            continue
        circumstances = {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "versions": versions() | installed(),
            "data": "MNIST" if os.environ.get("HILBOUND_DATA") else "noise",
        }
        content[name] = PARTS[name](given.rounds) | circumstances
        print(name, json.dumps(content[name], indent=2))
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
