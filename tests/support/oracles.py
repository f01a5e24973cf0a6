"""The mathematics once more: dense, in float64, from the formulas and not from the library.

Everything takes :class:`Dense` mixtures of numpy arrays; a pair of components is a loop. What is
shared with the library is the definition of its argument and nothing else.
"""

from dataclasses import dataclass

import mpmath
import numpy as np
import scipy.integrate
import scipy.optimize
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from hilbound.mixture import GaussianMixture


@dataclass(frozen=True)
class Dense:
    """A mixture with means (K, d), diagonal variances (K, d) and weights (K,) that sum to 1."""

    means: np.ndarray
    variances: np.ndarray
    weights: np.ndarray

    def __call__(self, points):
        """The density at points (n, d), by the textbook's formula."""
        density = np.zeros(len(points))
        for m, v, a in zip(self.means, self.variances, self.weights, strict=True):
            exponent = (-((points - m) ** 2) / (2 * v)).sum(-1)
            density += a * np.exp(exponent) / np.sqrt(2 * np.pi * v).prod()
        return density


def dense(means, variance, weights=None):
    """Make a :class:`Dense` of what :class:`GaussianMixture` takes, without a batch."""
    means = np.asarray(means, dtype=np.float64)
    variances = np.broadcast_to(np.asarray(variance, dtype=np.float64), means.shape)
    weights = np.ones(len(means)) if weights is None else np.asarray(weights, dtype=np.float64)
    return Dense(means, variances, weights / weights.sum())


def random_mixture(seed, components, dim, *, variance=0.5, weighted=True, spread=1.0, offset=0.0):
    """A float64 :class:`GaussianMixture`; ``variance`` may be a number or a shape to draw."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return 0.3 + torch.rand(*shape, generator=generator, dtype=torch.float64)

    means = torch.randn(components, dim, generator=generator, dtype=torch.float64)
    weights = uniform(components) if weighted else None
    if isinstance(variance, tuple):
        variance = uniform(*variance)
    return GaussianMixture(offset + spread * means, variance, weights)


def as_dense(q):
    """The arguments of a mixture without a batch, in float64."""
    return dense(
        q.means.detach().double().numpy(),
        q.component_variance.detach().double().numpy(),
        q.weights.detach().double().numpy(),
    )


def as_dtype(q, dtype):
    """The same mixture in another precision."""
    weights = q.weights.to(dtype)
    return GaussianMixture(q.means.to(dtype), q.component_variance.to(dtype), weights)


def as_torch(q):
    """The same distribution in torch's own words."""
    scale = q.component_variance.sqrt().expand(q.means.shape)
    return MixtureSameFamily(Categorical(probs=q.weights), Independent(Normal(q.means, scale), 1))


def log_product(m, v, n, w):
    """The logarithm of the integral of N(.-m; v) N(.-n; w)."""
    return -0.5 * ((m - n) ** 2 / (v + w) + np.log(2 * np.pi * (v + w))).sum()


def log_products(p, q):
    """The logarithms of the inner products of all pairs, (N, M)."""
    return np.array(
        [
            [log_product(m, v, n, w) for n, w in zip(q.means, q.variances, strict=True)]
            for m, v in zip(p.means, p.variances, strict=True)
        ]
    )


def log_inner(p, q):
    """The logarithm of <p, q>."""
    return logsumexp(log_products(p, q), b=np.outer(p.weights, q.weights))


def log_scalar_cost(p, q):
    """The logarithm of <p, q>^2 / <q, q>."""
    return 2 * log_inner(p, q) - log_inner(q, q)


def log_tightness(p, q):
    """The logarithm of <p, q>^2 / (<p, p> <q, q>)."""
    return log_scalar_cost(p, q) - log_inner(p, p)


def log_overlaps(p, q):
    """The logarithms of the normalised overlaps, (N, M): products over roots of both norms."""
    norms_p = [log_product(m, v, m, v) for m, v in zip(p.means, p.variances, strict=True)]
    norms_q = [log_product(m, v, m, v) for m, v in zip(q.means, q.variances, strict=True)]
    return log_products(p, q) - 0.5 * np.add.outer(norms_p, norms_q)


def cross_gram(p, q):
    """The matrix whose nuclear norm is the fidelity, (N, M)."""
    return np.sqrt(np.outer(p.weights, q.weights)) * np.exp(log_overlaps(p, q))


def fidelity(p, q):
    """The nuclear norm of the cross Gram matrix, by numpy's singular values."""
    return np.linalg.svd(cross_gram(p, q), compute_uv=False).sum()


def root(matrix):
    """The root of a positive semidefinite matrix.

    Not scipy's ``sqrtm``, which is for matrices that are not singular; these always are.
    """
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T


def operator_fidelity(p, q):
    """tr sqrt(sqrt(rho) sigma sqrt(rho)), where no cross Gram matrix is decomposed.

    The normalised components of both mixtures get coordinates in their joint span from the joint
    Gram matrix; rho and sigma are matrices there.
    """
    union = Dense(
        np.concatenate([p.means, q.means]),
        np.concatenate([p.variances, q.variances]),
        np.ones(len(p.means) + len(q.means)),
    )
    coordinates = root(np.exp(log_overlaps(union, union)))
    phi, psi = coordinates[:, : len(p.means)], coordinates[:, len(p.means) :]
    rho, sigma = (phi * p.weights) @ phi.T, (psi * q.weights) @ psi.T
    return np.trace(root(root(rho) @ sigma @ root(rho)))


def best_pairing(p, q):
    """The largest trace of the cross Gram matrix over all permutations of its columns."""
    gram = cross_gram(p, q)
    rows, columns = scipy.optimize.linear_sum_assignment(gram, maximize=True)
    return gram[rows, columns].sum()


def quadrature(p, q, limit=12.0):
    """The integral of p q in one or two dimensions, by scipy."""
    if p.means.shape[1] == 1:
        value, _ = scipy.integrate.quad(
            lambda t: (p(np.array([[t]])) * q(np.array([[t]]))).item(),
            -limit,
            limit,
            epsabs=1e-13,
            limit=200,
        )
        return value
    axis = np.linspace(-limit, limit, 401)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1)
    values = (p(grid.reshape(-1, 2)) * q(grid.reshape(-1, 2))).reshape(401, 401)
    return scipy.integrate.trapezoid(scipy.integrate.trapezoid(values, axis), axis)


def precise_log_product(m, v, n, w, digits=60):
    """:func:`log_product` in 60 digits, as an mpmath number."""
    with mpmath.workdps(digits):
        total = mpmath.mpf(0)
        for numbers in zip(m, v, n, w, strict=True):
            x, v_x, y, v_y = (mpmath.mpf(float(number)) for number in numbers)
            total -= (x - y) ** 2 / (v_x + v_y) + mpmath.log(2 * mpmath.pi * (v_x + v_y))
        return total / 2


def precise_log_overlap(m, v, n, w, digits=60):
    """The logarithm of one normalised overlap in 60 digits, as an mpmath number."""
    with mpmath.workdps(digits):
        return (
            precise_log_product(m, v, n, w)
            - precise_log_product(m, v, m, v) / 2
            - precise_log_product(n, w, n, w) / 2
        )


def gaussian_divergence(m, v, n, w):
    """The Kullback-Leibler divergence of N(m; v) from N(n; w), diagonal."""
    m, v, n, w = (np.asarray(a, dtype=np.float64) for a in (m, v, n, w))
    return 0.5 * float((v / w + (m - n) ** 2 / w - 1 + np.log(w / v)).sum())


# ------------------------------------------------------------------ projections


def unit_gram(p, q):
    """The overlaps of all pairs of components, weights left out, (N, M)."""
    return np.exp(log_overlaps(p, q))


def log_projections(p, q):
    """The logarithms of <p, q_j / |q_j|>, (M,)."""
    norms = np.array([log_product(m, v, m, v) for m, v in zip(q.means, q.variances, strict=True)])
    return logsumexp(log_products(p, q), b=p.weights[:, None], axis=0) - 0.5 * norms


def log_vector_cost(p, q):
    """The logarithm of the squared norm of p's projection on the span of q, by least squares."""
    log_k = log_projections(p, q)
    k = np.exp(log_k - log_k.max())
    weights, *_ = np.linalg.lstsq(unit_gram(q, q), k)
    return 2 * log_k.max() + np.log(k @ weights)


def schur_cost(p, q):
    """The mean over p's components of their squared projections, by the pseudo-inverse."""
    k = unit_gram(q, p)
    return (p.weights * (k * (np.linalg.pinv(unit_gram(q, q)) @ k)).sum(0)).sum()


def precise_projections(p, q, digits=60):
    """The vector-matrix cost (its logarithm) and the Schur cost of distinct centres, in 60 digits.

    Unlike float64 it needs no line between directions and noise.
    """
    with mpmath.workdps(digits):
        pairs = [list(zip(a.means, a.variances, strict=True)) for a in (p, q)]

        def exponentials(one, other):
            logs = [[precise_log_product(*a, *b) for b in other] for a in one]
            return mpmath.matrix([[mpmath.exp(x) for x in row] for row in logs])

        cross, own = exponentials(pairs[1], pairs[0]), exponentials(pairs[1], pairs[1])
        norms = [mpmath.exp(precise_log_product(*a, *a)) for a in pairs[0]]
        a = [mpmath.mpf(float(weight)) for weight in p.weights]
        solution = own**-1 * cross
        form = cross.T * solution
        n = range(len(a))
        vector = mpmath.fsum(a[i] * form[i, j] * a[j] for i in n for j in n)
        schur = mpmath.fsum(a[i] * form[i, i] / norms[i] for i in n)
        return float(mpmath.log(vector)), float(schur)


# ------------------------------------------------------------------ spectra


def trace_overlap(p, q):
    """The trace of the cross Gram matrix."""
    return np.trace(cross_gram(p, q))


def schatten_overlap(p, q, power):
    """The sum of the singular values to a power."""
    return (np.linalg.svd(cross_gram(p, q), compute_uv=False) ** power).sum()


def distance_nuclear_norm(x, y):
    """The nuclear norm of the squared distances over the root of their number."""
    distances = cdist(x, y, "sqeuclidean")
    return np.linalg.svd(distances, compute_uv=False).sum() / np.sqrt(distances.size)


# ------------------------------------------------------------------ conditions


def log_conditional(ps, qs):
    """The logarithms of the conditional cost and its limit, of lists of mixtures."""
    cross, own, data = (
        np.mean([np.exp(log_inner(a, b)) for a, b in pairs])
        for pairs in (zip(ps, qs, strict=True), zip(qs, qs, strict=True), zip(ps, ps, strict=True))
    )
    return np.log(cross**2 / own), np.log(data)
