"""Streamed sums over pairs against dense sums in float64, for values and gradients."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hilbound.engine import gram
from hilbound.engine.pairs import loops, operators
from hilbound.engine.pairs.sums import log_inner, log_norm, log_row_sums, mean_log_row_sum
from hilbound.engine.pairs.tiles import Side
from hilbound.mixture import GaussianMixture
from support.strategies import normal

KINDS = ["one", "component", "diagonal", "full"]
NAMES = ["inner", "norm", "rows", "mean"]


# ------------------------------------------------------------------ the oracle


def dense_exponents(p, q, unit):
    """log a_i + log b_j + log <p_i, q_j>, from the formula, by the differences of all points."""
    x, v, a = p
    y, w, b = q
    total = (v.unsqueeze(-2) + w.unsqueeze(-3)).expand(*x.shape[:-1], *y.shape[-2:])
    squares = (x.unsqueeze(-2) - y.unsqueeze(-3)).square() / total
    log_k = -0.5 * (squares + (total / unit).log()).sum(-1)
    return a.unsqueeze(-1) + b.unsqueeze(-2) + log_k


def dense(name, p, q, unit):
    if name == "inner":
        return dense_exponents(p, q, unit).flatten(-2).logsumexp(-1)
    if name == "norm":
        return dense_exponents(q, q, unit).flatten(-2).logsumexp(-1)
    rows = dense_exponents((p[0], p[1], torch.zeros_like(p[2])), q, unit).logsumexp(-1)
    return rows if name == "rows" else rows.mean(-1)


def streamed(name, p, q, unit):
    p, q = Side(*p), Side(*q)
    if name == "inner":
        return log_inner(p, q, unit=unit)
    if name == "norm":
        return log_norm(q, unit=unit)
    function = log_row_sums if name == "rows" else mean_log_row_sum
    return function(p.means, p.variance, q, unit=unit)


def side(seed, n, d, kind, *, batch=(), dtype=torch.float64, zeros=0, spread=1.0):
    """Means, variances in 0.3 to 1.3 and log weights, of which some are those of a zero."""
    draw = torch.Generator().manual_seed(seed)
    shape = {"one": (1, 1), "diagonal": (1, d), "component": (n, 1), "full": (n, d)}[kind]
    v = 0.3 + torch.rand(batch + shape, generator=draw, dtype=torch.float64)
    weights = torch.rand(*batch, n, generator=draw, dtype=torch.float64) + 0.01
    weights[..., :zeros] = 0
    weights = weights / weights.sum(-1, keepdim=True)
    means = spread * normal(seed + 100, *batch, n, d)
    return [t.to(dtype) for t in (means, v, weights.log())]


def both(function, name, p, q, unit=0.7, dtype=torch.float64):
    """The value and the gradients to all six tensors of a weighted sum of the values."""
    leaves = [t.to(dtype).clone().requires_grad_() for t in (*p, *q)]
    value = function(name, leaves[:3], leaves[3:], unit)
    pull = torch.arange(1, value.numel() + 1).reshape(value.shape).to(value) / value.numel()
    gradients = torch.autograd.grad((value * pull).sum(), leaves, allow_unused=True)
    return value.detach(), [
        torch.zeros_like(t) if g is None else g for g, t in zip(gradients, leaves, strict=True)
    ]


def assert_agree(name, p, q, rtol=1e-10, atol=1e-12, dtype=torch.float64):
    expected, slopes = both(dense, name, p, q)
    value, found = both(streamed, name, p, q, dtype=dtype)
    assert value.dtype == dtype
    assert torch.allclose(value.double(), expected, rtol=rtol, atol=atol)
    for g, e in zip(found, slopes, strict=True):
        assert torch.allclose(g.double(), e, rtol=rtol, atol=atol + rtol * float(e.abs().max()))


# ------------------------------------------------------------------ values and gradients


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("v", "w"), [*product(KINDS, KINDS)])
@pytest.mark.parametrize("pairs", [2**24, 100])
def test_values_and_gradients_are_those_of_the_dense_sums(monkeypatch, name, v, w, pairs):
    monkeypatch.setattr(gram, "_BLOCK_PAIRS", pairs)
    assert_agree(name, side(0, 11, 3, v), side(1, 17, 3, w))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 9), (9, 1), (5, 40), (40, 5)])
@pytest.mark.parametrize("d", [1, 20])
def test_any_number_of_points(monkeypatch, name, kind, n, m, d):
    monkeypatch.setattr(gram, "_BLOCK_PAIRS", 64)
    assert_agree(name, side(0, n, d, kind), side(1, m, d, "component"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("batch", [(3,), (2, 3)])
@pytest.mark.parametrize("pairs", [2**24, 4 * 60, 40])
def test_batches_are_summed_one_by_one(monkeypatch, name, kind, batch, pairs):
    monkeypatch.setattr(gram, "_BLOCK_PAIRS", pairs)
    p, q = side(0, 5, 2, kind, batch=batch), side(1, 6, 2, "one", batch=batch)
    # Members of a batch whose sums have nothing of their size in common.
    q[0] = q[0] + torch.linspace(0, 40, math.prod(batch)).double().reshape(*batch, 1, 1)
    assert_agree(name, p, q)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["one", "component"])
@pytest.mark.parametrize("zeros", [1, 8])
@pytest.mark.parametrize("pairs", [2**24, 16])
def test_weights_of_zero_take_no_part(monkeypatch, name, kind, zeros, pairs):
    monkeypatch.setattr(gram, "_BLOCK_PAIRS", pairs)
    p, q = side(0, 9, 2, kind, zeros=zeros), side(1, 9, 2, kind, zeros=zeros)
    rest = [[t[zeros:] if len(t) > 1 else t for t in s] for s in (p, q)]
    value, slopes = both(streamed, name, p, q)
    # The rows are values of their own, whatever their weights.
    expected = dense(name, rest[0] if name in {"inner", "norm"} else p, rest[1], 0.7)
    assert torch.allclose(value, expected, rtol=1e-12)
    assert all(torch.isfinite(s).all() for s in slopes)
    for means, v, logs in (slopes[3:], slopes[:3] if name == "inner" else slopes[3:]):
        assert not means[:zeros].any()
        assert not logs[:zeros].any()
        assert len(v) == 1 or not v[:zeros].any()


def test_a_weight_of_zero_on_the_only_near_component_does_not_hide_the_far_one():
    q = Side(torch.tensor([[0.0], [1e3]]), torch.full((1, 1), 0.5), torch.tensor([-math.inf, 0.0]))
    x, v = torch.zeros(1, 1), torch.full((1, 1), 0.5)
    expected = -0.5e6
    unit = 1.0
    assert float(log_row_sums(x, v, q, unit=unit)) == pytest.approx(expected, rel=1e-6)
    p = Side(x, v, torch.zeros(1))
    assert float(log_inner(p, q, unit=unit)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("distance", [30.0, 1e3, 1e5])
@pytest.mark.parametrize("pairs", [2**24, 16])
def test_sums_that_underflow(monkeypatch, name, kind, distance, pairs):
    """Clusters at growing distances: the largest exponent comes late, and early, and is -1e10."""
    monkeypatch.setattr(gram, "_BLOCK_PAIRS", pairs)
    p, q = side(0, 12, 2, "one"), side(1, 10, 2, kind)
    steps = torch.linspace(3, 1, 10).double().unsqueeze(-1)
    for far in (distance * steps, distance * steps.flip(0)):
        assert_agree(name, p, [q[0] + far, *q[1:]], rtol=1e-8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("d", [2, 784])
@pytest.mark.parametrize("offset", [0.0, 1e2])
def test_float32_keeps_five_digits(monkeypatch, name, kind, d, offset):
    monkeypatch.setattr(gram, "_BLOCK_PAIRS", 400)
    p, q = (side(i, 30, d, kind, dtype=torch.float32, spread=d**-0.5) for i in range(2))
    for s in (p, q):
        s[0] = s[0] + offset
    wide = [[t.double() for t in s] for s in (p, q)]
    # The exponents may be wrong by 1e-5, and the logarithm of the volume by its own digits.
    expected, slopes = both(dense, name, *wide)
    value, found = both(streamed, name, p, q, dtype=torch.float32)
    assert torch.allclose(value.double(), expected, rtol=2e-7 * 3, atol=2e-5)
    # With a variance for every pair, exponents hold logarithms of d / 2 ratios, each 1e-7 off.
    rel = 2e-5 if kind != "component" else 1e-7 * (200 + d)
    for g, e in zip(found, slopes, strict=True):
        assert torch.allclose(g.double(), e, rtol=rel, atol=rel * float(e.abs().max()))


def test_float32_points_are_multiplied_in_float64_where_the_exponent_needs_it():
    x = 1e3 * normal(0, 20, 3, dtype=torch.float32)
    y = x + 1e-2 * normal(1, 20, 3, dtype=torch.float32)
    v, a = torch.full((1, 1), 1e-3), torch.full((20,), -math.log(20))
    p, q = [x, v, a], [y, v, a]
    wide = [[t.double() for t in s] for s in (p, q)]
    expected, slopes = both(dense, "inner", *wide)
    value, found = both(streamed, "inner", p, q, dtype=torch.float32)
    assert float(value) == pytest.approx(float(expected), rel=1e-6)
    assert torch.allclose(found[3].double(), slopes[3], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_component_is_at_no_distance_from_itself(kind):
    """Points farther apart than anything: the norm is that of their own products alone."""
    d = 3
    x, v, a = side(0, 8, d, kind, dtype=torch.float32)
    x = 1e3 * x
    own = a.double() * 2 - 0.5 * (4 * math.pi * v.double()).log().expand(len(v), d).sum(-1)
    assert float(log_norm(Side(x, v, a))) == pytest.approx(float(own.logsumexp(0)), rel=1e-6)


@given(seed=st.integers(0, 1000), n=st.integers(1, 9), m=st.integers(1, 9), d=st.integers(1, 4))
def test_the_sums_of_two_orders_agree(seed, n, m, d):
    p, q = Side(*side(seed, n, d, "component")), Side(*side(seed + 1, m, d, "one"))
    assert torch.allclose(log_inner(p, q), log_inner(q, p), rtol=1e-12)
    rows = log_row_sums(p.means, p.variance, q)
    assert torch.allclose((rows + p.log_weights).logsumexp(-1), log_inner(p, q), rtol=1e-12)
    assert torch.allclose(log_norm(p), log_inner(p, p), rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("v", "w"), [("one", "one"), ("one", "component"), ("component", "one")])
def test_any_of_the_gradients_alone_is_the_same(name, v, w):
    p, q = side(0, 6, 2, v), side(1, 7, 2, w)
    _, together = both(streamed, name, p, q)
    for k in range(6):
        leaves = [t.clone() for t in (*p, *q)]
        leaves[k].requires_grad_()
        value = streamed(name, leaves[:3], leaves[3:], 0.7)
        if not value.requires_grad:
            assert not together[k].any()
            continue
        pull = torch.arange(1, value.numel() + 1).reshape(value.shape).to(value) / value.numel()
        (alone,) = torch.autograd.grad(value, leaves[k], pull)
        assert torch.allclose(alone, together[k], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("v", "w"), [("one", "component"), ("component", "component")])
def test_second_derivatives_are_those_of_finite_differences(name, v, w):
    leaves = [t.requires_grad_() for t in (*side(0, 3, 2, v), *side(1, 2, 2, w))]

    def value(*leaves):
        return streamed(name, leaves[:3], leaves[3:], 0.7)

    used = {"inner": leaves, "norm": leaves[3:], "rows": leaves[:2] + leaves[3:]}
    used["mean"] = used["rows"]
    for leaf in leaves:
        leaf.requires_grad_(any(leaf is u for u in used[name]))
    assert torch.autograd.gradcheck(value, leaves)
    assert torch.autograd.gradgradcheck(value, leaves)


def test_the_mean_density_is_that_of_the_points():
    x = normal(0, 9, 3)
    for batch in ((), (2,), (2, 3)):
        means, v, logs = side(1, 5, 3, "component", batch=batch)
        q = GaussianMixture(means, v, logs.exp())
        points = x.reshape(9, *(1,) * len(batch), 3)
        assert torch.allclose(q.mean_log_prob(x), q.log_prob(points).mean(0), rtol=1e-12)


# ------------------------------------------------------------------ what it takes


class Ledger(TorchDispatchMode):
    """Counts the bytes of all that lives at once, and the operations of the products."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak, self.operations = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if "bmm" in str(function):
            self.operations += 2 * result.numel() * args[0].shape[-1]
        for t in tree_leaves(result):
            if isinstance(t, torch.Tensor):
                storage = t.untyped_storage()
                self.alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.alive = {k: s for k, s in self.alive.items() if not s[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result


N, M, D = 1500, 1100, 12
DENSE = 4 * N * M  # bytes
LINEAR = 4 * (N + M) * (D + 4)


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(gram, "_BLOCK_PAIRS", 2**14)
    return (
        Side(*(t.float() for t in side(i, n, D, "one", batch=(1,)))) for i, n in enumerate((N, M))
    )


@pytest.mark.parametrize(("to_p", "to_q", "gemms"), [(0, 0, 1), (0, 1, 2), (1, 0, 2), (1, 1, 3)])
def test_a_sum_takes_linear_memory_and_a_product_for_each_gradient(large, to_p, to_q, gemms):
    p, q = large
    with Ledger() as ledger:
        loops.log_total(p, q, 1.0, bool(to_p), bool(to_q))
    assert ledger.operations == gemms * 2 * N * M * (D + 4)
    # Tiles are 16 KiB here: what remains are both sides and their sums, some of them in float64.
    assert ledger.peak < 6 * LINEAR < DENSE / 4


def test_a_norm_takes_half_the_products(large):
    p, _ = large
    for wanted, gemms in ((False, 1), (True, 3)):
        with Ledger() as ledger:
            loops.log_self_total(p, 1.0, wanted)
        half = gemms * N * N * (D + 4)
        # Tiles on the diagonal, one in 24 of a row here, are not halved.
        assert half < ledger.operations < 1.1 * half
        assert ledger.peak < 10 * LINEAR < DENSE / 2


@pytest.mark.parametrize(("to_p", "to_q", "gemms"), [(0, 0, 1), (0, 1, 2), (1, 1, 3)])
def test_rows_take_linear_memory_and_a_product_for_each_gradient(large, to_p, to_q, gemms):
    p, q = large
    pull = torch.ones(1, N)
    with Ledger() as ledger:
        loops.log_row_totals(p, q, 1.0, bool(to_p), bool(to_q), pull=pull)
    assert ledger.operations == gemms * 2 * N * M * (D + 4)
    assert ledger.peak < 8 * LINEAR < DENSE / 3


def test_the_ledger_sees_a_dense_matrix(large):
    p, q = large
    with Ledger() as ledger:
        torch.bmm(p.means, q.means.mT)
    assert ledger.peak >= DENSE
    assert ledger.operations == 2 * N * M * D


def test_nothing_is_formed_for_a_gradient_that_nobody_asks_for(monkeypatch):
    asked = []
    real = loops.log_total
    monkeypatch.setattr(operators, "log_total", lambda *a: asked.append(a[-2:]) or real(*a))
    p, q = (Side(*side(i, 5, 2, "one")) for i in range(2))
    y = q.means.clone().requires_grad_()
    log_inner(p, q)
    log_inner(p, q._replace(means=y))
    log_inner(q._replace(means=y), p)
    with torch.no_grad():
        log_inner(p, q._replace(means=y))
    assert asked == [(False, False), (False, True), (True, False), (False, False)]


@pytest.mark.parametrize("name", NAMES)
def test_one_and_two_threads_agree(monkeypatch, name):
    monkeypatch.setattr(gram, "_BLOCK_PAIRS", 2**16)
    p, q = (side(i, 700, 20, "one", dtype=torch.float32, spread=0.3) for i in range(2))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(both(streamed, name, p, q, dtype=torch.float32))
    finally:
        torch.set_num_threads(before)
    (value, slopes), (other, others) = results
    assert torch.allclose(value, other, rtol=1e-6)
    for g, e in zip(slopes, others, strict=True):
        assert torch.allclose(g, e, rtol=1e-5, atol=1e-5 * float(e.abs().max()))


@pytest.mark.parametrize("name", ["_inner", "_norm", "_mean", "_rows"])
def test_torch_finds_nothing_wrong_with_an_operator(name):
    tensors = [
        t.unsqueeze(0).requires_grad_() for t in (*side(0, 4, 2, "one"), *side(1, 3, 2, "one"))
    ]
    given = {"_inner": tensors, "_norm": tensors[:3]}.get(name, tensors[:2] + tensors[3:])
    operator = getattr(operators, name)
    needs = [name != "_rows"] * len(given)
    torch.library.opcheck(operator, (given, 1.0, needs))
