"""The metrics against dense textbook versions in numpy, closed forms and scipy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import wasserstein_distance
from torchmetrics.image.fid import _compute_fid

from hilbound.errors import InputError
from hilbound.evaluation import metrics
from hilbound.evaluation.metrics import (
    ClassCoverage,
    class_histogram,
    frechet_distance,
    precision_recall_density_coverage,
    sliced_wasserstein,
    squared_mmd,
    vendi_score,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(n, d, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=generator(seed), dtype=dtype)


def dense_prdc(real, fake, k):
    """The authors' prdc package, transcribed: the k+1 smallest distances include the point."""
    real, fake = real.double().numpy(), fake.double().numpy()
    radius_real = np.sort(cdist(real, real), axis=1)[:, k]
    radius_fake = np.sort(cdist(fake, fake), axis=1)[:, k]
    cross = cdist(real, fake)
    return (
        (cross < radius_real[:, None]).any(axis=0).mean(),
        (cross < radius_fake[None, :]).any(axis=1).mean(),
        (cross < radius_real[:, None]).sum(axis=0).mean() / k,
        (cross.min(axis=1) < radius_real).mean(),
    )


def as_tuple(prdc):
    return prdc.precision, prdc.recall, prdc.density, prdc.coverage


@pytest.mark.parametrize("block", [7, 2**22])
@pytest.mark.parametrize(("n", "m", "d", "k"), [(60, 41, 2, 1), (50, 80, 5, 5), (33, 33, 30, 3)])
def test_prdc_is_that_of_the_authors_package(monkeypatch, block, n, m, d, k):
    monkeypatch.setattr(metrics, "_BLOCK_ELEMENTS", block)
    real, fake = normal(n, d), 0.8 * normal(m, d, seed=1) + 0.3
    ours = precision_recall_density_coverage(real, fake, k)
    assert as_tuple(ours) == pytest.approx(dense_prdc(real, fake, k), abs=1e-12)
    assert 0 < ours.precision < 1 or d == 30


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([torch.float32, torch.float64]))
def test_prdc_of_a_set_with_itself_is_one(seed, k, dtype):
    x = normal(12, 3, seed, dtype)
    # An open ball to the k-th neighbour holds its centre and k - 1 others.
    assert as_tuple(precision_recall_density_coverage(x, x, k)) == (1.0, 1.0, 1.0, 1.0)


def test_prdc_swaps_precision_and_recall_with_its_arguments():
    x, y = normal(40, 4), 1.5 * normal(50, 4, seed=1)
    there, back = (precision_recall_density_coverage(*pair, k=3) for pair in ((x, y), (y, x)))
    assert there.precision == back.recall
    assert there.recall == back.precision


def test_prdc_sees_separation_and_mode_dropping():
    modes = torch.cat([normal(50, 2), normal(50, 2, seed=1) + 100])
    far = precision_recall_density_coverage(modes, modes + 1e4)
    assert as_tuple(far) == (0.0, 0.0, 0.0, 0.0)
    dropped = precision_recall_density_coverage(modes, modes[:50] + 1e-9)
    assert dropped.precision == 1.0
    assert dropped.recall == 0.5
    assert dropped.coverage == 0.5


def test_prdc_survives_exact_duplicates():
    real = torch.tensor([[0.1, 0.7]] * 8 + [[5.3, 0.2]] * 8)
    ours = precision_recall_density_coverage(real, real, k=3)
    assert (ours.precision, ours.recall, ours.coverage) == (1.0, 1.0, 1.0)
    assert ours.density == pytest.approx(8 / 3)
    collapsed = precision_recall_density_coverage(normal(30, 2), torch.zeros(9, 2).double(), k=3)
    assert collapsed.precision == 1.0
    assert collapsed.recall == 0.0


@pytest.mark.parametrize(("n", "m", "d"), [(200, 300, 6), (40, 30, 20)])
def test_frechet_distance_is_that_of_torchmetrics(n, m, d):
    x = normal(n, d) @ normal(d, d, seed=2)
    y = normal(m, d, seed=1) @ normal(d, d, seed=3) + 1
    oracle = _compute_fid(x.mean(0), torch.cov(x.T), y.mean(0), torch.cov(y.T))
    assert frechet_distance(x, y) == pytest.approx(float(oracle), rel=1e-9)
    assert frechet_distance(y, x) == pytest.approx(frechet_distance(x, y), rel=1e-9)


def test_frechet_distance_of_translated_and_scaled_rows_in_closed_form():
    x = normal(50, 4)
    shift = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    mean, trace = x.mean(0), torch.cov(x.T).trace()
    # The covariance becomes 9 S, whose root commutes with that of S: (3 - 1)^2 tr S remains.
    expected = (2 * mean + shift).square().sum() + 4 * trace
    assert frechet_distance(x, 3 * x + shift) == pytest.approx(float(expected), rel=1e-12)
    assert 0 <= frechet_distance(x, x) < 1e-12


def test_frechet_distance_of_singular_covariances():
    line = torch.linspace(-1, 1, 21, dtype=torch.float64)
    zero = torch.zeros_like(line)
    across, along = torch.stack([line, zero], 1), torch.stack([zero, line], 1)
    # Orthogonal supports share nothing: both traces remain.
    assert frechet_distance(across, along) == pytest.approx(2 * float(line.var()), rel=1e-12)
    assert frechet_distance(across[:3], torch.zeros(2, 2)) == pytest.approx(
        float(line[:3].var() + line[:3].mean() ** 2), rel=1e-12
    )
    few, many = normal(5, 30), normal(6, 30, seed=1)  # fewer rows than columns
    left, right = torch.cov(few.T).numpy(), torch.cov(many.T).numpy()
    values, vectors = np.linalg.eigh(left)
    root = vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ right @ root), 0, None)).sum()
    means = float((few.mean(0) - many.mean(0)).square().sum())
    oracle = means + np.trace(left) + np.trace(right) - 2 * cross
    assert frechet_distance(few, many) == pytest.approx(oracle, rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(40, 5), (5, 40), (12, 12)])
def test_vendi_score_is_that_of_the_dense_kernel(n, d):
    x = normal(n, d)
    unit = (x / x.norm(dim=1, keepdim=True)).numpy()
    values = np.linalg.eigvalsh(unit @ unit.T / n)
    values = values[values > 1e-15]
    oracle = math.exp(-(values * np.log(values)).sum())
    assert vendi_score(x) == pytest.approx(oracle, rel=1e-9)
    cosine = torch.nn.functional.cosine_similarity
    dense = vendi_score(x, lambda a, b: cosine(a[:, None], b[None], dim=2))
    assert dense == pytest.approx(oracle, rel=1e-9)


@given(st.integers(1, 6), st.integers(2, 5))
def test_vendi_score_counts_orthogonal_groups(groups, copies):
    assert vendi_score(torch.eye(groups).repeat(copies, 1)) == pytest.approx(groups, rel=1e-6)


def test_vendi_score_with_a_kernel():
    x = torch.tensor([[0.0], [0.0], [100.0], [200.0]])
    score = vendi_score(x, lambda a, b: torch.exp(-torch.cdist(a, b)))
    assert score == pytest.approx(2 ** (0.5 * 1 + 2 * 0.25 * 2), rel=1e-9)  # shares 1/2, 1/4, 1/4
    with pytest.raises(InputError, match="diagonal"):
        vendi_score(x, lambda a, b: 2 * torch.exp(-torch.cdist(a, b)))
    with pytest.raises(InputError, match=r"\(n, n\)"):
        vendi_score(x, lambda a, b: a[:2] @ b.T)
    with pytest.raises(InputError, match="zeros"):
        vendi_score(x)


@pytest.mark.parametrize(("n", "m"), [(30, 30), (30, 20), (7, 45)])
def test_sliced_wasserstein_in_one_dimension(n, m):
    x, y = normal(n, 1), 2 * normal(m, 1, seed=1) - 1
    # Repeating rows keeps the distribution and makes the sizes equal.
    paired = np.sort(np.repeat(x.numpy(), m)) - np.sort(np.repeat(y.numpy(), n))
    ours = sliced_wasserstein(x, y, generator=generator())
    assert ours == pytest.approx(math.sqrt(np.mean(paired**2)), rel=1e-12)
    assert ours >= wasserstein_distance(x.flatten().numpy(), y.flatten().numpy())
    # Where the optimal plan moves everything equally far, orders one and two agree.
    moved = x.flatten().numpy() + 3
    order_one = wasserstein_distance(x.flatten().numpy(), moved)
    assert sliced_wasserstein(x, x + 3, generator=generator()) == pytest.approx(order_one)


def test_sliced_wasserstein_of_a_translation():
    shift = torch.tensor([1.0, 2.0, -2.0], dtype=torch.float64)
    x = normal(50, 3)
    ours = sliced_wasserstein(x, x + shift, projections=20_000, generator=generator())
    # The mean of (shift . direction)^2 over the sphere is |shift|^2 / d = 3.
    assert ours == pytest.approx(math.sqrt(3), rel=0.02)
    twice = x[:20].repeat_interleave(2, dim=0)
    assert sliced_wasserstein(x[:20], twice, generator=generator()) == pytest.approx(0, abs=1e-12)


def test_sliced_wasserstein_repeats_with_its_generator():
    x, y = normal(20, 3), normal(25, 3, seed=1)
    before = torch.get_rng_state()
    first, again, other = (sliced_wasserstein(x, y, 8, generator=generator(s)) for s in (5, 5, 6))
    assert first == again != other
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("block", [9, 2**22])
def test_squared_mmd_is_the_u_statistic(monkeypatch, block):
    monkeypatch.setattr(metrics, "_BLOCK_ELEMENTS", block)
    x, y, variance = normal(13, 3), normal(9, 3, seed=1) + 0.5, 1.7

    def kernel(a, b):
        return np.exp(-cdist(a.numpy(), b.numpy(), "sqeuclidean") / (2 * variance))

    off = [(kernel(z, z).sum() - len(z)) / (len(z) * (len(z) - 1)) for z in (x, y)]
    oracle = sum(off) - 2 * kernel(x, y).mean()
    assert squared_mmd(x, y, variance) == pytest.approx(oracle, rel=1e-10)
    assert squared_mmd(x.float(), y.float(), variance) == pytest.approx(oracle, rel=1e-5)


def test_squared_mmd_is_unbiased():
    draws = torch.tensor(
        [squared_mmd(normal(8, 1, s), normal(8, 1, s + 999), 1.0) for s in range(400)]
    )
    assert draws.min() < 0 < draws.max()
    assert abs(draws.mean()) < 4 * draws.std() / math.sqrt(len(draws))
    # Between N(0, 1) and N(a, 1), kernel variance 1: 2 (1 - exp(-a^2 / 6)) / sqrt(3).
    far = squared_mmd(normal(1500, 1), normal(1500, 1, seed=1) + 2, 1.0)
    assert far == pytest.approx(2 * (1 - math.exp(-4 / 6)) / math.sqrt(3), abs=0.05)


def test_class_histogram():
    even = class_histogram(torch.arange(10).repeat(3), classes=10)
    assert even.hit == 10
    assert even.entropy == pytest.approx(1)
    assert class_histogram(torch.full((5,), 3), classes=10) == ClassCoverage(hit=1, entropy=0.0)
    skewed = class_histogram(torch.tensor([0, 0, 0, 2]), classes=3)
    assert skewed.hit == 2
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / math.log(3)
    assert skewed.entropy == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("predictions", "classes", "message"),
    [
        (torch.tensor([0, 3]), 3, "from 0 to 3"),
        (torch.tensor([-1, 0]), 3, "from -1 to 0"),
        (torch.tensor([0.0, 1.0]), 3, "integers"),
        (torch.zeros(2, 2, dtype=torch.int64), 3, "vector"),
        (torch.zeros(0, dtype=torch.int64), 3, "non-empty"),
        (torch.tensor([0]), 1, "classes is 1"),
    ],
)
def test_class_histogram_refuses(predictions, classes, message):
    with pytest.raises(InputError, match=message):
        class_histogram(predictions, classes)


PAIRS = {
    "real, fake": [precision_recall_density_coverage, frechet_distance],
    "x, y": [
        lambda x, y: sliced_wasserstein(x, y, generator=generator()),
        lambda x, y: squared_mmd(x, y, variance=1.0),
    ],
}


@pytest.mark.parametrize(
    ("names", "metric"), [(names.split(", "), f) for names, fs in PAIRS.items() for f in fs]
)
def test_every_metric_refuses_what_it_cannot_measure(names, metric):
    first, second = names
    good = normal(8, 3)
    broken = good.clone()
    broken[0, 0] = math.nan
    with pytest.raises(InputError, match=rf"^{first} .*shape"):
        metric(good[0], good)
    with pytest.raises(InputError, match=rf"^{second} .*int64"):
        metric(good, good.long())
    with pytest.raises(InputError, match=rf"^{first} .*1 of 8 rows hold NaN"):
        metric(broken, good)
    with pytest.raises(InputError, match=rf"^{second} must have at least [26] rows, got 1"):
        metric(good, good[:1])
    with pytest.raises(InputError, match=rf"^{second} has 2 columns"):
        metric(good, good[:, :2])
    assert isinstance(metric(good.requires_grad_(), good), float | metrics.PRDC)


def test_settings_are_checked():
    x = normal(5, 2)
    with pytest.raises(InputError, match="at least 6"):
        precision_recall_density_coverage(x, x, k=5)
    with pytest.raises(InputError, match="k is 0"):
        precision_recall_density_coverage(x, x, k=0)
    with pytest.raises(InputError, match="projections is 0"):
        sliced_wasserstein(x, x, projections=0, generator=generator())
    for variance in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="variance is"):
            squared_mmd(x, x, variance)
    with pytest.raises(InputError, match="x must have at least 2 rows, got 1"):
        vendi_score(x[:1])
