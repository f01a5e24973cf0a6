"""The conditional bound: a dense oracle, the limit, the certified cut, blocks and memory."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hilbound import bounds
from hilbound import functional as F
from hilbound.bounds import Bound, conditional_bound
from hilbound.engine import blocks
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from support import oracles
from support.conditional import case, check, log_weights, oracle
from support.strategies import normal

TABLE = json.loads((Path(__file__).parent / "data" / "reference.json").read_text())["conditional"]


# ------------------------------------------------------------------ the oracle


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_the_table(dtype, tolerance):
    x, features, points, centers = (
        torch.tensor(TABLE[name], dtype=dtype)
        for name in ("x", "features", "feature_points", "centers")
    )
    q = GaussianMixture(centers, TABLE["variance_q"])
    variances = {name: TABLE[name] for name in ("variance_p", "variance_y")}
    bound = conditional_bound(x, features, points, q, **variances)
    expected = TABLE["expected"]["log_cost"], TABLE["expected"]["log_limit"]
    assert expected == pytest.approx((-4.872871195310461, -2.1412847130029116), rel=1e-15)
    check(bound, expected, tolerance)
    assert bound.log_value.dtype == bound.log_limit.dtype == torch.float64
    assert bound.log_value.shape == bound.log_limit.shape == ()
    assert bound.error == 0


def test_the_oracle_is_that_of_lists_of_mixtures():
    x, features, points, q = case(0)
    log_w = log_weights(features.numpy(), points.numpy(), 0.3)
    ps = [oracles.dense(x, 0.4, np.exp(w)) for w in log_w]
    qs = [oracles.dense(m, 0.5, b) for m, b in zip(q.means, q.weights, strict=True)]
    expected = oracles.log_conditional(ps, qs)
    assert oracle(x, features, points, q, variance_p=0.4, variance_y=0.3) == pytest.approx(expected)


@pytest.mark.parametrize("d", [1, 3, 3072])
@pytest.mark.parametrize("f", [1, 2, 20])
@pytest.mark.parametrize("variance_y", [1e-3, 0.3, 1e3])
def test_values_are_those_of_the_oracle(d, f, variance_y):
    arguments = case(d + f, d=d, f=f)
    variances = {"variance_p": 0.4, "variance_y": variance_y}
    check(conditional_bound(*arguments, **variances), oracle(*arguments, **variances))


SHAPES = [(), (3, 1), (1, 2), (3, 2), (7, 1, 1), (7, 3, 1), (7, 1, 2), (7, 3, 2), (1, 3, 1)]


@pytest.mark.parametrize("tile", [1, 50, 2**21])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_variance_of_the_model(monkeypatch, shape, tile):
    monkeypatch.setattr(blocks, "_TILE_NUMBERS", tile)
    x, features, points, q = case(0)
    q = GaussianMixture(
        q.means, 0.3 + normal(5, 42)[: math.prod(shape)].view(shape).abs(), q.weights
    )
    bound = conditional_bound(x, features, points, q, variance_p=0.4, variance_y=0.3)
    ps = [
        oracles.dense(x, 0.4, np.exp(w)) for w in log_weights(features.numpy(), points.numpy(), 0.3)
    ]
    v = q.component_variance.expand(q.means.shape)
    parts = zip(q.means, v, q.weights, strict=True)
    check(bound, oracles.log_conditional(ps, [oracles.dense(*part) for part in parts]))


# ------------------------------------------------------------------ the limit


def data_given(x, features, points, variance_p, variance_y):
    """The data's own mixtures, as a model."""
    distances = (points.unsqueeze(1) - features).square().sum(-1)
    weights = torch.softmax(-distances / (2 * variance_y), -1)
    return GaussianMixture(x.expand(len(points), *x.shape), variance_p, weights)


def test_no_cost_of_two_thousand_passes_its_limit():
    random = np.random.default_rng(0)
    gaps = np.empty(2000)
    for seed in range(len(gaps)):
        n, m, k, d, f = (int(a) for a in random.integers(1, [7, 7, 4, 4, 3]))
        variance_p, variance, variance_y = (float(a) for a in 10 ** random.uniform(-1, 1, 3))
        x, features, points, q = case(seed, n, m, k, d, f, variance=variance)
        if seed % 5 == 0:
            q = data_given(x, features, points, variance_p, variance_y * random.uniform(0.9, 1.1))
        bound = conditional_bound(
            x, features, points, q, variance_p=variance_p, variance_y=variance_y
        )
        gaps[seed] = bound.gap
    assert gaps.min() >= -1e-12
    # Near equality as well as far from it.
    assert (gaps < 1e-3).sum() > 100
    assert (gaps > 1).sum() > 100


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("f", [1, 2])
@pytest.mark.parametrize("variance_y", [1e-3, 0.1, 10.0])
def test_the_limit_is_reached_where_the_model_is_the_data(variance_y, f):
    x, features, points, _ = case(0, n=40, m=30, f=f)
    q = data_given(x, features, points, 0.5, variance_y)
    bound = conditional_bound(x, features, points, q, variance_p=0.5, variance_y=variance_y)
    assert float(bound.gap) == pytest.approx(0, abs=1e-11)
    turned = data_given(x.flip(0), features, points, 0.5, variance_y)
    other = conditional_bound(x, features, points, turned, variance_p=0.5, variance_y=variance_y)
    assert float(other.gap) > 1e-3


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("variance", [0.5, 2.0])
def test_one_center_for_each_datum_is_the_trace(variance):
    """With features far apart the weights are one-hot, and a datum meets its own center only."""
    x, d = normal(0, 20, 3), 3
    features = torch.arange(20.0, dtype=torch.float64).unsqueeze(-1)
    centers = x + 0.3 * normal(1, 20, 3)
    q = GaussianMixture(centers.unsqueeze(1), variance)
    bound = conditional_bound(x, features, features, q, variance_p=0.5, variance_y=1e-3)
    trace = F.trace_overlap(GaussianMixture(x, 0.5), GaussianMixture(centers, variance))
    assert float(bound.gap) == pytest.approx(-2 * math.log(trace), rel=1e-12)
    assert float(bound.log_limit) == pytest.approx(-d / 2 * math.log(4 * math.pi * 0.5), rel=1e-12)
    assert 0 < bound.error < 1e-100


# ------------------------------------------------------------------ precision and gradients


@pytest.mark.parametrize("variance", [1e-2, 5.0])
def test_digits_of_images_in_float32(variance):
    """Where the float32 product would not do, it is formed in float64."""
    x, features, points, q = case(0, n=60, m=40, d=784)
    x = (10 + 0.1 * x).float()
    near = data_given(x[:40].double(), features[:40], points, variance, 0.1)
    means = near.means[:, :5].float() + 0.3 * math.sqrt(variance / 784) * normal(5, 40, 5, 784)
    results = []
    for dtype in (torch.float32, torch.float64):
        q = GaussianMixture(means.float().to(dtype), variance)
        parts = (a.float().to(dtype) for a in (x, features, points))
        results.append(conditional_bound(*parts, q, variance_p=variance, variance_y=0.1))
    assert float(results[0].gap) == pytest.approx(float(results[1].gap), rel=1e-4)
    assert float(results[1].gap) > 1e-2


def test_precisions_may_differ():
    x, features, points, q = case(0)
    expected = oracle(x, features, points, q, variance_p=0.5, variance_y=0.1)
    variances = {"variance_p": 0.5, "variance_y": 0.1}
    single = oracles.as_dtype(q, torch.float32)
    check(conditional_bound(x, features.float(), points, single, **variances), expected, 1e-5)
    check(conditional_bound(x.bfloat16(), features, points, q, **variances), expected, 0.1)
    check(conditional_bound(x.float(), features, points, q, **variances), expected, 1e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_gradients(monkeypatch, whole):
    if not whole:
        monkeypatch.setattr(bounds, "_BLOCK_WORK", 0)
        monkeypatch.setattr(blocks, "_BLOCK_NUMBERS", 5)
        monkeypatch.setattr(blocks, "_TILE_NUMBERS", 8)
    x, features, points, q = case(0, n=4, m=3, k=2)
    variance = torch.full((3, 2, 1), 0.5, dtype=torch.float64)
    leaves = [a.clone().requires_grad_() for a in (x, features, points, q.means, variance)]

    def both(x, features, points, means, variance):
        model = GaussianMixture(means, variance, q.weights)
        bound = conditional_bound(x, features, points, model, variance_p=0.5, variance_y=0.2)
        return bound.log_value, bound.log_limit

    assert torch.autograd.gradcheck(both, leaves)


def test_a_graph_is_built_only_where_it_is_needed():
    x, features, points, q = case(0)
    variances = {"variance_p": 0.5, "variance_y": 0.2}
    bound = conditional_bound(x, features, points, q, **variances)
    assert not bound.log_value.requires_grad
    assert not bound.log_limit.requires_grad
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)

    def decode(some):
        return GaussianMixture(scale * some.unsqueeze(-1).expand(len(some), 3, 2), 0.5)

    bound = conditional_bound(x, features, points, decode, **variances)
    assert bound.log_value.requires_grad
    assert not bound.log_limit.requires_grad
    assert float(torch.autograd.grad(bound.log_value, scale)[0]) != 0
    with torch.no_grad():
        assert not conditional_bound(x, features, points, decode, **variances).gap.requires_grad


# ------------------------------------------------------------------ text and wrong input


def test_text():
    value, limit = torch.tensor(-2.0), torch.tensor(-1.0)
    assert str(Bound(value, limit, 3e-12)) == "36.8 % of the limit, gap 1, error at most 3e-12"
    assert str(Bound(value, limit)) == "36.8 % of the limit, gap 1"


X, Y, POINTS, Q = case(0)
ONE = GaussianMixture(torch.zeros(3, 2, dtype=torch.float64), 0.5)
WRONG = {
    r"x must have at least 1 row, got 0": {"x": X[:0]},
    r"x must hold floating-point.*torch.int64": {"x": X.long()},
    r"features must have shape.*\(9,\)": {"features": Y[:, 0]},
    r"features must have shape.*\(9, 0\)": {"features": Y[:, :0]},
    r"feature_points must have at least 1 row, got 0": {"feature_points": POINTS[:0]},
    r"x must be finite": {"x": X / 0},
    r"features must be finite": {"features": Y / 0},
    r"feature_points must be finite": {"feature_points": POINTS * math.nan},
    r"x and features must have the same number of rows.*9 and 8": {"features": Y[:8]},
    r"feature_points must have 1 columns.*got 2": {"feature_points": POINTS.expand(-1, 2)},
    r"variance_p must be positive and finite, got 0": {"variance_p": 0.0},
    r"variance_p must be positive and finite, got nan": {"variance_p": math.nan},
    r"variance_y must be positive and finite, got -1": {"variance_y": -1.0},
    r"variance_y must be positive and finite, got inf": {"variance_y": math.inf},
    r"tail must be between 0 and 1, got 0": {"tail": 0.0},
    r"tail must be between 0 and 1, got 1": {"tail": 1},
    r"tail must be between 0 and 1, got nan": {"tail": math.nan},
    r"q_at_points must have batch shape \(7,\).*got \(\)": {"q_at_points": ONE},
    r"q_at_points must have batch shape \(7,\).*got \(6,\)": {"q_at_points": ONE.expand((6,))},
    r"q_at_points has 2 coordinates, but x has 3": {"x": normal(0, 9, 3)},
    r"q_at_points must be a GaussianMixture.*got Tensor": {"q_at_points": Q.means},
    r"q_at_points must map.*\(b, 1\).*2 coord.*b = 1 it returned Tensor": {
        "q_at_points": lambda some: some
    },
    r"q_at_points must map.*it returned batch shape \(\) and 2": {"q_at_points": lambda _: ONE},
    r"q_at_points must map.*it returned batch shape \(1,\) and 1": {
        "q_at_points": lambda some: GaussianMixture(some.unsqueeze(1), 0.5)
    },
    r"q_at_points must map.*b = 7 it returned batch shape \(1,\)": {
        "q_at_points": lambda _: ONE.expand((1,))
    },
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_input(message):
    right = {
        "x": X,
        "features": Y,
        "feature_points": POINTS,
        "q_at_points": Q,
        "variance_p": 0.5,
        "variance_y": 0.1,
    }
    conditional_bound(**right)
    with pytest.raises(InputError, match=message):
        conditional_bound(**(right | WRONG[message]))
