"""Whole steps under torch.compile: one graph, or a break that is named here with its reason."""

import pytest
import torch

from hilbound import functional as F
from hilbound.bounds import marginal_bound
from hilbound.engine import gram
from hilbound.mixture import GaussianMixture

pytestmark = pytest.mark.usefixtures("compiler")

COSTS = {
    "scalar cost": F.log_scalar_cost,
    "likelihood": lambda p, q: F.negative_log_likelihood(p.means, q),
    "fidelity": F.fidelity,
    "fidelity's logarithm": F.log_fidelity,
    "Schatten overlap": lambda p, q: F.schatten_overlap(p, q, 0.7),
    "debiased": lambda p, q: F.fidelity(p, q) - 0.35 * F.fidelity(q, q),
    "Cauchy-Schwarz": F.cauchy_schwarz_divergence,
    "marginal bound": lambda p, q: marginal_bound(p, q).tightness,
}


def points(seed, n, dim=3, *, away=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, dim, generator=generator, dtype=torch.float64) + away


def value_and_slope(function, start, dtype):
    y = start.to(dtype).requires_grad_()
    value = function(y)
    value.backward()
    return value.detach().double(), y.grad.double()


@pytest.mark.parametrize("name", COSTS)
def test_a_step_is_one_graph(name):
    x, start = points(0, 40), points(1, 30)

    def loss(y):
        p, q = (GaussianMixture(m, 0.5, validate_args=False) for m in (x, y))
        return COSTS[name](p, q)

    plain = value_and_slope(loss, start, torch.float64)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for expected, found in zip(plain, value_and_slope(compiled, start, torch.float64), strict=True):
        assert torch.allclose(expected, found, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("variance", ["shared", "of every component", "of every coordinate"])
def test_a_fidelity_compiles_with_every_kind_of_variance(variance):
    x, start = points(0, 12), points(1, 10)
    shape = {"shared": (), "of every component": (10, 1), "of every coordinate": (10, 3)}[variance]
    v = torch.linspace(0.5, 1.5, max(1, torch.Size(shape).numel()), dtype=torch.float64)

    def loss(y):
        p = GaussianMixture(x, 0.5, validate_args=False)
        return F.fidelity(p, GaussianMixture(y, v.reshape(shape), validate_args=False))

    plain = value_and_slope(loss, start, torch.float64)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for expected, found in zip(plain, value_and_slope(compiled, start, torch.float64), strict=True):
        assert torch.allclose(expected, found, rtol=1e-10, atol=1e-14)


def test_a_compiled_step_chooses_its_precision_by_the_points():
    # At this distance from the origin, float32 products would lose every digit of the kernel.
    x, start = points(0, 40, away=1e4).float(), points(1, 30, away=1e4)

    def loss(y):
        p, q = (GaussianMixture(m, 1e-3, validate_args=False) for m in (x, y))
        return F.log_fidelity(p, q)

    exact = F.log_fidelity(
        GaussianMixture(x.double(), 1e-3), GaussianMixture(start.float().double(), 1e-3)
    )
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    value, _ = value_and_slope(compiled, start, torch.float32)
    assert float(value) == pytest.approx(float(exact), rel=1e-5)


@pytest.mark.parametrize("same", [True, False])
def test_torch_finds_nothing_wrong_with_the_operator_of_distances(same):
    x = points(0, 5).requires_grad_()
    y = x if same else points(1, 4).requires_grad_()
    resolution = torch.tensor(1e-6, dtype=torch.float64)
    torch.library.opcheck(gram._distances_operator, (x, y, resolution, same))


#: What stays out of one graph, and why.
BREAKS = {
    "values are checked, so they are read": lambda y: F.log_scalar_cost(
        GaussianMixture(y, 0.5, validate_args=True), GaussianMixture(y, 0.5, validate_args=True)
    ),
    "the rank is found from the numbers": lambda y: F.fidelity(
        GaussianMixture(y, 0.5, validate_args=False),
        GaussianMixture(y + 1, 0.5, validate_args=False),
        tol=1e-3,
    ),
}


# torch's compiler makes an object that torch's own class warns of.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("reason", BREAKS)
def test_what_breaks_the_graph_is_known_and_computes_the_same(reason):
    start = points(0, 30, 2)
    with pytest.raises(torch._dynamo.exc.TorchDynamoException):
        torch.compile(BREAKS[reason], fullgraph=True, backend="aot_eager")(start)
    compiled = torch.compile(BREAKS[reason], backend="aot_eager")
    assert torch.allclose(compiled(start), BREAKS[reason](start))
