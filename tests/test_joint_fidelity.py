"""Fidelity given something, against the dense joint Gram matrix in float64 and its limits."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hilbound import functional as F
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture

DOUBLE = torch.float64


def points(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def weights(seed, *shape):
    return 0.2 + torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def root_gram(x, v, a, y, w, b):
    """The weighted overlaps, from the formula and entry by entry, differentiable."""
    rows = []
    for i in range(len(x)):
        row = []
        for j in range(len(y)):
            constant = (4 * v[i] * w[j] / (v[i] + w[j]) ** 2).pow(0.25).prod()
            exponent = ((x[i] - y[j]) ** 2 / (2 * (v[i] + w[j]))).sum()
            row.append((a[i] * b[j]).sqrt() * constant * torch.exp(-exponent))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def value_and_gradients(function, *inputs):
    leaves = [t.clone().requires_grad_() for t in inputs]
    value = function(*leaves)
    return value.detach(), torch.autograd.grad(value, leaves)


def assert_equal(one, other):
    assert torch.allclose(one[0], other[0], rtol=1e-10, atol=1e-10)
    for a, b in zip(one[1], other[1], strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("power", [1.0, 0.7])
def test_joint_fidelity_is_that_of_the_dense_joint_gram_matrix(power):
    x, y, m, z = points(0, 5, 3), points(1, 5, 2), points(2, 4, 3), points(3, 4, 2)
    a, b = weights(4, 5), weights(5, 4)
    a, b = a / a.sum(), b / b.sum()
    v, vy = (0.7, 0.4), torch.tensor([0.3, 0.9], dtype=DOUBLE)

    def dense(x, y, m, z, a, b):
        one, other = (torch.cat(pair, -1) for pair in ((x, y), (m, z)))
        variances = [torch.cat([torch.full((3,), s, dtype=DOUBLE), vy]) for s in v]
        matrix = root_gram(
            one,
            variances[0].expand(5, 5),
            a / a.sum(),
            other,
            variances[1].expand(4, 5),
            b / b.sum(),
        )
        return torch.linalg.svdvals(matrix).pow(power).sum()

    def ours(x, y, m, z, a, b):
        p, q = GaussianMixture(x, v[0], a), GaussianMixture(m, v[1], b)
        return F.joint_fidelity(p, y, q, z, vy, power=power)

    assert_equal(*(value_and_gradients(f, x, y, m, z, a, b) for f in (ours, dense)))


@pytest.mark.parametrize("power", [1.0, 0.7])
def test_block_fidelity_is_that_of_the_dense_joint_gram_matrix(power):
    x, m, sizes, counts = points(0, 3, 4, 2), points(1, 3, 5, 2), (4, 2, 3), (5, 4, 1)
    pi, rho = (torch.tensor(s, dtype=DOUBLE) for s in ([0.5, 0.2, 0.3], [0.1, 0.6, 0.3]))
    a, b = torch.zeros(3, 4, dtype=DOUBLE), torch.zeros(3, 5, dtype=DOUBLE)
    for c in range(3):
        a[c, : sizes[c]], b[c, : counts[c]] = weights(c, sizes[c]), weights(c + 9, counts[c])

    def dense(x, m):
        """One matrix of all rows and all centres, in which blocks do not overlap."""
        rows = [(c, i) for c in range(3) for i in range(sizes[c])]
        columns = [(c, j) for c in range(3) for j in range(counts[c])]
        matrix = torch.zeros(len(rows), len(columns), dtype=DOUBLE)
        for r, (c, i) in enumerate(rows):
            for s, (e, j) in enumerate(columns):
                if c == e:
                    mass = pi[c] * a[c, i] / a[c].sum() * rho[c] * b[c, j] / b[c].sum()
                    overlap = torch.exp(-((x[c, i] - m[c, j]) ** 2).sum() / (4 * 0.6))
                    matrix[r, s] = mass.sqrt() * overlap
        # Blocks that are not square have singular values of zero, whose powers have no slope.
        values = torch.linalg.svdvals(matrix)
        return values[values > 1e-9].pow(power).sum()

    def ours(x, m):
        p, q = GaussianMixture(x, 0.6, a), GaussianMixture(m, 0.6, b)
        return F.block_fidelity(p, q, 7 * pi, 3 * rho, power=power)

    assert_equal(*(value_and_gradients(f, x, m) for f in (ours, dense)))


def blocks(seed, sizes, variance=0.6):
    """Rows with their block's number, and the same rows as padded blocks with shares."""
    x, c = (
        points(seed, sum(sizes), 2),
        torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
    )
    padded, a = (
        torch.zeros(len(sizes), max(sizes), 2, dtype=DOUBLE),
        torch.zeros(len(sizes), max(sizes), dtype=DOUBLE),
    )
    for k, size in enumerate(sizes):
        padded[k, :size], a[k, :size] = x[c == k], 1.0
    shares = torch.tensor(sizes, dtype=DOUBLE)
    return (
        GaussianMixture(x, variance),
        c.to(DOUBLE).unsqueeze(-1),
        GaussianMixture(padded, variance, a),
        shares / shares.sum(),
    )


def test_with_a_narrow_kernel_of_the_features_joint_fidelity_is_that_of_blocks():
    p, y, in_blocks, pi = blocks(0, (4, 2, 3))
    q, z, of_model, rho = blocks(1, (2, 5, 1))
    joint = F.joint_fidelity(p, y, q, z, 1e-4)
    assert float(joint) == pytest.approx(float(F.block_fidelity(in_blocks, of_model, pi, rho)))
    debiased = F.debiased_fidelity(
        p.join(y, 1e-4), p.join(y, 1e-4), q.join(z, 1e-4), q.join(z, 1e-4), 0.3
    )
    of_blocks = F.debiased_block_fidelity(
        in_blocks, in_blocks, of_model, of_model, 0.3, shares=pi, model_shares=rho
    )
    assert float(debiased) == pytest.approx(float(of_blocks), rel=1e-10)


def test_with_a_wide_kernel_of_the_features_joint_fidelity_is_that_of_the_marginals():
    p, y, *_ = blocks(0, (4, 2, 3))
    q, z, *_ = blocks(1, (2, 5, 1))
    assert float(F.joint_fidelity(p, y, q, z, 1e12)) == pytest.approx(float(F.fidelity(p, q)))


def test_without_its_own_term_the_debiased_blocks_differ_by_a_constant_of_the_data():
    _, _, p, pi = blocks(0, (4, 2, 3))
    _, _, q, rho = blocks(1, (4, 4, 2))
    whole = F.debiased_block_fidelity(p, p, q, q, 0.5, shares=pi, model_shares=rho)
    part = F.debiased_block_fidelity(p, None, q, q, 0.5, shares=pi, model_shares=rho)
    assert float(whole - part) == pytest.approx(0.5, rel=1e-12)


@given(st.integers(0, 2**16), st.integers(1, 6), st.integers(1, 6), st.floats(-4, 4))
def test_the_limit_is_never_passed_and_reached_by_the_same_pairs_in_any_order(seed, n, m, size):
    scale = 10.0**size
    x, y, v = scale * points(seed, n, 2), points(seed + 1, n, 1), scale**2
    p, q = GaussianMixture(x, v), GaussianMixture(scale * points(seed + 2, m, 2), 0.5 * v)
    z = points(seed + 3, m, 1)
    value = float(F.joint_fidelity(p, y, q, z, 0.2))
    assert 0 <= value <= 1 + 1e-12
    # A further factor in every entry cannot help beyond the marginals: both sides are joined.
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    same = F.joint_fidelity(p, y, p.select(order), y[order], 0.2)
    assert float(same) == pytest.approx(1, abs=1e-12)


@given(st.integers(0, 2**16), st.integers(1, 4), st.integers(1, 5))
def test_the_limit_of_blocks_is_never_passed_and_reached_by_the_same_blocks(seed, blocks, n):
    p = GaussianMixture(points(seed, blocks, n, 2), 0.5, weights(seed, blocks, n))
    q = GaussianMixture(points(seed + 1, blocks, n + 1, 2), 0.3)
    pi, rho = weights(seed + 2, blocks), weights(seed + 3, blocks)
    assert 0 <= float(F.block_fidelity(p, q, pi, rho)) <= 1 + 1e-12
    assert float(F.block_fidelity(p, p, pi)) == pytest.approx(1, abs=1e-12)
    # Other shares of the same blocks are told apart, by the fidelity of the shares.
    shares = (pi / pi.sum() * (rho / rho.sum())).sqrt().sum()
    assert float(F.block_fidelity(p, p, pi, rho)) == pytest.approx(float(shares), abs=1e-12)


@given(st.integers(0, 2**16), st.integers(1, 3), st.integers(1, 5), st.floats(0.01, 30))
def test_certificates_of_blocks_and_pairs_hold(seed, blocks, n, variance):
    x, y = points(seed, blocks, n, 2), points(seed + 1, blocks, n + 1, 2)
    pi, rho = weights(seed + 2, blocks), weights(seed + 3, blocks)

    def both(dtype):
        p, q = GaussianMixture(x.to(dtype), variance), GaussianMixture(y.to(dtype), 0.7 * variance)
        joint = F.certified_fidelity(p.join(x[..., :1], 0.3), q.join(y[..., :1], 0.3))
        return *joint, *F.certified_block_fidelity(p, q, pi.to(dtype), rho.to(dtype))

    value, error, of_blocks, error_of_blocks = both(DOUBLE)
    for k in range(blocks):
        p, q = GaussianMixture(x[k], variance), GaussianMixture(y[k], 0.7 * variance)
        matrix = p.join(x[k, :, :1], 0.3).log_overlaps(q.join(y[k, :, :1], 0.3)).exp()
        exact = np.linalg.svd(matrix.numpy(), compute_uv=False).sum()
        assert abs(float(value[k]) - exact) <= float(error[k]) + 1e-15
    exact = float(
        F.block_fidelity(
            *(GaussianMixture(a, v) for a, v in ((x, variance), (y, 0.7 * variance))), pi, rho
        )
    )
    assert abs(float(of_blocks) - exact) <= float(error_of_blocks) <= 1e-11


def test_a_centre_counts_only_where_its_feature_is():
    x, y = points(0, 6, 2), torch.arange(6.0, dtype=DOUBLE).unsqueeze(-1)
    p = GaussianMixture(x, 0.5)
    swapped = F.joint_fidelity(p, y, p, y.flip(0), 0.01)
    expected = np.exp(-torch.cdist(x, x.flip(0)).diagonal().square().numpy() / 2).mean()
    assert float(swapped) == pytest.approx(expected, rel=1e-9)
    assert float(F.fidelity(p, p)) == pytest.approx(1)


def test_batches_of_joint_mixtures_are_loops():
    x, y, m, z = points(0, 3, 4, 2), points(1, 3, 4, 1), points(2, 3, 5, 2), points(3, 3, 5, 1)
    batch = F.joint_fidelity(GaussianMixture(x, 0.5), y, GaussianMixture(m, 0.4), z, 0.3)
    for k in range(3):
        p, q = GaussianMixture(x[k], 0.5), GaussianMixture(m[k], 0.4)
        assert float(batch[k]) == pytest.approx(float(F.joint_fidelity(p, y[k], q, z[k], 0.3)))


def test_a_joint_mixture_has_the_density_of_its_parts():
    q = GaussianMixture(points(0, 3, 2), weights(1, 3, 1), weights(2, 3))
    y = points(3, 3, 1)
    joint = q.join(y, 0.3)
    at = points(4, 7, 3)
    parts = [
        torch.distributions.Normal(joint.means[k], joint.component_variance[k].sqrt())
        for k in range(3)
    ]
    density = sum(q.weights[k] * parts[k].log_prob(at).sum(-1).exp() for k in range(3))
    assert torch.allclose(joint.log_prob(at).exp(), density, rtol=1e-12)
    assert torch.equal(joint.marginal([0, 1]).means, q.means)
    assert torch.equal(joint.marginal([2]).means, y)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda p, y: F.joint_fidelity(p, y[:2], p, y, 0.1), "one point for each component"),
        (lambda p, y: F.joint_fidelity(p, y, p, y, -0.1), "variance must be positive"),
        (lambda p, y: F.joint_fidelity(y, y, p, y, 0.1), "p must be a GaussianMixture"),
        (lambda p, _: F.block_fidelity(p, p), "one mixture for each block"),
        (
            lambda p, _: F.block_fidelity(p.expand((2,)), p.expand((2,)), torch.ones(3)),
            "one number for each of the 2 blocks",
        ),
        (
            lambda p, _: F.block_fidelity(p.expand((2,)), p.expand((2,)), torch.zeros(2)),
            "not all zero",
        ),
        (
            lambda p, _: F.block_fidelity(
                p.expand((2,)), p.expand((2,)), None, torch.tensor([-1.0, 2.0])
            ),
            "model_shares must be",
        ),
    ],
)
def test_wrong_input_is_named(call, says):
    with pytest.raises(InputError, match=says):
        call(GaussianMixture(points(0, 4, 2), 0.5), points(1, 4, 1))
