"""Conditional bounds of small problems: cases, and the bound with all pairs."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, logsumexp

from hilbound.mixture import GaussianMixture
from support.strategies import normal


def log_weights(features, points, variance_y):
    return log_softmax(-cdist(points, features, "sqeuclidean") / (2 * variance_y), axis=1)


def log_kernel(x, y, variance):
    return -0.5 * (
        cdist(x, y, "sqeuclidean") / variance + x.shape[1] * np.log(2 * np.pi * variance)
    )


def oracle(x, features, points, q, *, variance_p, variance_y):
    """The logarithms of cost and limit with all pairs, for a q with one variance."""
    x, features, points, means = (
        a.detach().double().numpy() for a in (x, features, points, q.means)
    )
    v = float(q.component_variance.detach())
    log_w, log_b = log_weights(features, points, variance_y), q.log_weights.detach().numpy()
    n, (m, k, d) = len(x), means.shape
    cross = log_kernel(x, means.reshape(-1, d), variance_p + v).reshape(n, m, k).swapaxes(0, 1)
    apart = ((means[:, :, None] - means[:, None]) ** 2).sum(-1)
    log_pq = logsumexp(log_w[:, :, None] + log_b[:, None] + cross, axis=(1, 2))
    log_qq = logsumexp(log_b[:, :, None] + log_b[:, None] - apart / (4 * v), axis=(1, 2))
    own = log_kernel(x, x, 2 * variance_p)
    log_pp = logsumexp(log_w[:, :, None] + log_w[:, None] + own, axis=(1, 2))
    log_qq -= 0.5 * d * np.log(4 * np.pi * v)
    pq, qq, pp = (logsumexp(a) - math.log(m) for a in (log_pq, log_qq, log_pp))
    return 2 * pq - qq, pp


def case(seed, n=9, m=7, k=3, d=2, f=1, *, noise=0.1, variance=0.5):
    """Data around a curve over their features, feature points with noise, and a model of some."""
    features, x = normal(seed, n, f), normal(seed + 1, n, d)
    x = x + 2 * features.sum(-1, keepdim=True)
    draw = torch.Generator().manual_seed(seed)
    points = features[torch.randint(n, (m,), generator=draw)] + noise**0.5 * normal(seed + 2, m, f)
    means = 2 * points.sum(-1)[:, None, None] + normal(seed + 3, m, k, d)
    weights = 0.1 + torch.rand(m, k, generator=draw, dtype=torch.float64)
    q = GaussianMixture(means, variance, weights, validate_args=False)
    return x, features, points, q


def check(bound, expected, tolerance=1e-10):
    assert float(bound.log_value) == pytest.approx(expected[0], abs=tolerance, rel=tolerance)
    assert float(bound.log_limit) == pytest.approx(expected[1], abs=tolerance, rel=tolerance)
