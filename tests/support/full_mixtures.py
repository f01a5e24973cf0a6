"""Mixtures with full covariances for the tests."""

import torch

from hilbound import FullGaussianMixture


def random_full(seed, components, dim, *, batch=()):
    """A float64 mixture with weights and covariances far from diagonal."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    root = normal(*batch, components, dim, dim)
    covariance = root @ root.mT + 0.3 * torch.eye(dim, dtype=torch.float64)
    weights = 0.2 + normal(*batch, components).abs()
    return FullGaussianMixture(normal(*batch, components, dim), covariance, weights)
