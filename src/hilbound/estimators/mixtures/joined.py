"""Components of several parts as one public mixture."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hilbound.engine.expectation.components import Components
from hilbound.mixture import FullGaussianMixture, GaussianMixture


def as_mixture(parts: Sequence[Components]) -> GaussianMixture | FullGaussianMixture:
    """Return all parts as one mixture, full if any of them is."""
    means = torch.cat([c.means for c in parts])
    weights = torch.cat([c.log_weights for c in parts]).softmax(0)
    if any(c.full for c in parts):
        spread = torch.cat([_covariances(c) for c in parts])
        return FullGaussianMixture(means, (spread + spread.mT) / 2, weights)
    spread = torch.cat([c.spread.expand_as(c.means) for c in parts])
    return GaussianMixture(means, spread, weights)


def _covariances(c: Components) -> Tensor:
    matrices = c.spread if c.full else torch.diag_embed(c.spread)
    return matrices.expand(*c.means.shape, c.means.shape[1])
