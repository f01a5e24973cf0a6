"""Certificates of low rank, joint and block fidelities against singular values in 40 digits.

    python benchmarks/certificates.py [--cases 10000]

Every case draws two mixtures in float64: 1 to 6 components in 1 to 3 coordinates, weights,
variances from 0.01 to 100, some points twice or nearly twice. Low rank has up to 12 components and
a tolerance from 0.1 to 1e-9. A certificate bounds the error of the decomposition, so the float64
matrix of overlaps is taken as it is, and mpmath decomposes it. A certificate is violated if the
value is farther away than it says. The result is ``benchmarks/results/certificates.json``.
"""

import argparse
import json
import time
from pathlib import Path

import mpmath
import torch
from torch import Tensor

from hilbound import functional as F
from hilbound.mixture import GaussianMixture
from hilbound.training.machine import processor, versions

RESULT = Path(__file__).resolve().parent / "results" / "certificates.json"


def mixture(
    generator: torch.Generator, blocks: int, dim: int, most: int = 6
) -> tuple[GaussianMixture, Tensor]:
    """Return random blocks of at most ``most`` components, and a feature for each component."""

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    n = int(torch.randint(1, most + 1, (), generator=generator))
    means = 6 * draw(blocks, n, dim)
    if n > 1 and float(draw()) < 0.3:
        means[:, 1] = means[:, 0] + 10 ** (-16 * float(draw())) * (float(draw()) < 0.5)
    variance = 10 ** (4 * float(draw()) - 2)
    return GaussianMixture(means, variance, 0.01 + draw(blocks, n)), 3 * draw(blocks, n, 1)


def exact(p: GaussianMixture, q: GaussianMixture) -> list[mpmath.mpf]:
    """Return the nuclear norm of each block's matrix."""
    matrices = p.log_overlaps(q).exp()
    matrices = matrices.reshape(-1, *matrices.shape[-2:]).tolist()
    return [mpmath.fsum(mpmath.svd_r(mpmath.matrix(a), compute_uv=False)) for a in matrices]


def case(seed: int) -> dict[str, list[tuple[float, float]]]:
    """Return errors and certificates of random joint fidelities, one of blocks, one of low rank."""
    generator = torch.Generator().manual_seed(seed)
    dim, blocks = (int(torch.randint(1, 4, (), generator=generator)) for _ in range(2))
    (p, y), (q, z) = (mixture(generator, blocks, dim) for _ in range(2))
    variance_y = float(10 ** (4 * torch.rand((), generator=generator).double() - 2))
    joint = p.join(y, variance_y), q.join(z, variance_y)
    pairs = F.certified_fidelity(*joint)
    rows = zip(pairs.value.tolist(), exact(*joint), pairs.error.tolist(), strict=True)
    pi, rho = 0.01 + torch.rand(2, blocks, generator=generator, dtype=torch.float64)
    whole = F.certified_block_fidelity(p, q, pi, rho)
    roots = [mpmath.sqrt(mpmath.mpf(a) * b) for a, b in zip(pi.tolist(), rho.tolist(), strict=True)]
    total = mpmath.sqrt(mpmath.fsum(pi.tolist()) * mpmath.fsum(rho.tolist()))
    true = mpmath.fsum(r * e for r, e in zip(roots, exact(p, q), strict=True)) / total
    (a, _), (b, _) = (mixture(generator, 1, dim, 12) for _ in range(2))
    a, b = (GaussianMixture(m.means[0], m.component_variance[0], m.weights[0]) for m in (a, b))
    tolerance = float(10 ** (-1 - 8 * torch.rand((), generator=generator).double()))
    low = F.certified_fidelity(a, b, tol=tolerance)
    (low_true,) = exact(a, b)
    return {
        "low rank": [(float(abs(float(low.value) - low_true)), float(low.error))],
        "joint": [(float(abs(value - e)), error) for value, e, error in rows],
        "blocks": [(float(abs(float(whole.value) - true)), float(whole.error))],
    }


def main() -> None:
    """Run all cases and keep how often and how closely certificates hold."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--cases", type=int, default=10_000)
    cases = options.parse_args().cases
    mpmath.mp.dps = 40
    began = time.perf_counter()
    found: dict[str, list[tuple[float, float]]] = {"low rank": [], "joint": [], "blocks": []}
    for seed in range(cases):
        for name, pairs in case(seed).items():
            found[name] += pairs
    content = {
        "processor": processor(),
        "versions": versions(),
        "seeds": [0, cases - 1],
        "seconds": round(time.perf_counter() - began, 1),
        "rows": {
            name: {
                "cases": len(pairs),
                "violated": sum(miss > error for miss, error in pairs),
                "largest error": max(miss for miss, _ in pairs),
                "largest certificate": max(error for _, error in pairs),
                "largest share of a certificate": max(miss / error for miss, error in pairs),
            }
            for name, pairs in found.items()
        },
    }
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(content["rows"], indent=2))


if __name__ == "__main__":
    main()
