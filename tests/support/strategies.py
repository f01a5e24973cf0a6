"""What hypothesis draws: seeds, sizes, and pairs of mixtures in one space."""

import torch
from hypothesis import strategies as st

from hilbound.mixture import GaussianMixture
from support.oracles import random_mixture

SIZES = st.integers(1, 6)
DIMS = st.sampled_from([1, 2, 5])
SEEDS = st.integers(0, 10_000)
KINDS = ["one", "component", "diagonal", "full"]


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def variance_of(kind, n, d):
    """What ``random_mixture`` takes for one of the KINDS."""
    return {"one": 0.5, "component": (n, 1), "diagonal": (1, d), "full": (n, d)}[kind]


@st.composite
def mixtures(draw, sizes=(SIZES, SIZES), spreads=(0.1, 1.0, 4.0), same_size=False):
    """A pair of mixtures of one space, with any shapes of variance, weighted or not."""
    d = draw(DIMS)
    n, m = (draw(size) for size in sizes)
    return tuple(
        random_mixture(
            draw(SEEDS),
            k,
            d,
            variance=variance_of(draw(st.sampled_from(KINDS)), k, d),
            weighted=draw(st.booleans()),
            spread=draw(st.sampled_from(spreads)),
        )
        for k in (n, n if same_size else m)
    )


def reweighted(q, weights):
    """The same components with other weights."""
    return GaussianMixture(q.means, q.component_variance, weights)


def union(p, q, share=0.5):
    """The components of both, with ``share`` of the weight on those of p."""
    v = [m.component_variance.expand(m.means.shape) for m in (p, q)]
    weights = torch.cat([share * p.weights, (1 - share) * q.weights])
    return GaussianMixture(torch.cat([p.means, q.means]), torch.cat(v), weights)
