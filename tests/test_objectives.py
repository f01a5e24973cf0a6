"""The modules: a loss to minimise, its limit, and the table that the command line reads."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hilbound import functional as F
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.objectives import (
    OBJECTIVES,
    ConditionalScalarCost,
    DebiasedNuclearNorm,
    DistanceNuclearNorm,
    JointNuclearNorm,
    Likelihood,
    MeanSquaredError,
    NuclearNorm,
    Objective,
    ScalarCost,
    Schatten,
    SchurCost,
    Trace,
    VectorCost,
    create_objective,
)
from support import oracles
from support.oracles import as_dense, as_dtype, random_mixture
from support.strategies import mixtures

NAMES = sorted(OBJECTIVES)
# One takes a mixture for every input: test_paired_objectives.
ALONE = [name for name in NAMES if name != "conditional"]
# They solve a system, and give what they solved it in.
IN_FLOAT64 = {"vector", "schur"}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_names_of_the_table():
    assert dict(OBJECTIVES) == {
        "nuclear": NuclearNorm,
        "scalar": ScalarCost,
        "vector": VectorCost,
        "schur": SchurCost,
        "trace": Trace,
        "schatten": Schatten,
        "debiased": DebiasedNuclearNorm,
        "distance": DistanceNuclearNorm,
        "likelihood": Likelihood,
        "conditional": ConditionalScalarCost,
        "mse": MeanSquaredError,
        "joint-nuclear": JointNuclearNorm,
    }
    assert all(OBJECTIVES.describe(name) for name in NAMES)


def test_the_base_is_not_an_objective(generator):
    p = random_mixture(0, 3, 2)
    with pytest.raises(NotImplementedError):
        Objective()(p, p)
    with pytest.raises(NotImplementedError):
        Objective().bound(p, p, generator)


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (3,)])
def test_every_objective_gives_a_loss_and_a_bound(name, dtype, batch):
    objective = OBJECTIVES[name]()
    assert isinstance(objective, nn.Module)
    p, q = (as_dtype(random_mixture(i, 5, 3), dtype).expand(batch) for i in range(2))
    loss, bound = objective(p, q), objective.bound(p, q, seeded(0))
    assert loss.dtype == (torch.float64 if name in IN_FLOAT64 else dtype)
    assert loss.shape == bound.gap.shape == batch
    assert torch.isfinite(loss).all()
    assert torch.isfinite(bound.gap).all()


def data_and_collapse():
    p = random_mixture(0, 200, 2, spread=4.0, weighted=False)
    return p, GaussianMixture(p.mean.expand(200, 2), 0.5)


@pytest.mark.parametrize("name", [name for name in ALONE if name != "distance"])
def test_every_loss_prefers_the_data_to_a_collapse_and_the_bound_agrees(name):
    objective = OBJECTIVES[name]()
    p, collapsed = data_and_collapse()
    assert float(objective(p, p)) < float(objective(p, collapsed)) - 0.1
    same, worse = (objective.bound(p, q, seeded(1)) for q in (p, collapsed))
    if name != "schatten":  # whose limit is that of a flat spectrum, and not of the data
        assert float(same.gap) == pytest.approx(0, abs=1e-10)
    assert float(worse.gap) > float(same.gap) + 0.1
    assert float(same.gap) > -1e-10


def test_without_the_gaussian_collapse_is_preferred():
    """What the ablation is for: distances alone ask for the mean, and the bound says so."""
    objective = DistanceNuclearNorm()
    p, collapsed = data_and_collapse()
    assert float(objective(p, collapsed)) < float(objective(p, p)) - 0.1
    same, better = (objective.bound(p, q) for q in (p, collapsed))
    assert 0 < float(better.gap) < float(same.gap) - 0.1


@pytest.mark.parametrize("name", [name for name in ALONE if name != "likelihood"])
@given(pair=mixtures(same_size=True, sizes=(st.integers(2, 6), st.just(0))))
def test_no_cost_passes_its_limit(name, pair):
    """The numbers themselves obey; the likelihood does in expectation only."""
    p, q = pair
    bound = OBJECTIVES[name]().bound(p, q)
    assert float(bound.gap) >= -1e-7


@pytest.mark.parametrize("name", ALONE)
def test_every_loss_has_a_gradient(name):
    # As many of both: some of them pair them.
    p, q = random_mixture(0, 5, 3), random_mixture(1, 5, 3)
    y = q.means.clone().requires_grad_()
    OBJECTIVES[name]()(p, GaussianMixture(y, 0.5)).backward()
    assert torch.isfinite(y.grad).all()
    assert y.grad.abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_kernels_share_their_variance_as_the_objective_says(name):
    objective = OBJECTIVES[name]()
    assert objective.component_variance(3.0) * objective.smoothed == 3.0
    assert objective.smoothed == (1 if name == "likelihood" else 2)
    assert isinstance(objective.cost_name, str)


def test_readable_costs():
    assert NuclearNorm.readable(math.log(0.5)) == pytest.approx(0.5)
    assert ScalarCost.readable(-1234.5) == -1234.5
    assert Likelihood.readable(-2.0) == -2.0


def test_losses_are_minus_the_costs():
    p, q = random_mixture(0, 6, 3), random_mixture(1, 6, 3)
    a, b = as_dense(p), as_dense(q)
    losses = {
        NuclearNorm(): -oracles.fidelity(a, b),
        ScalarCost(): -oracles.log_scalar_cost(a, b),
        ScalarCost(reference=True): -oracles.log_tightness(a, b),
        VectorCost(): -oracles.log_vector_cost(a, b),
        SchurCost(): -oracles.schur_cost(a, b),
        Trace(): -oracles.trace_overlap(a, b),
        Schatten(): -oracles.schatten_overlap(a, b, 0.85),
        Schatten(power=0.3): -oracles.schatten_overlap(a, b, 0.3),
        DistanceNuclearNorm(): oracles.distance_nuclear_norm(p.means, q.means),
    }
    for objective, loss in losses.items():
        assert float(objective(p, q)) == pytest.approx(loss, rel=1e-9), objective


def test_bounds_of_closed_form():
    p, q = random_mixture(0, 5, 3, weighted=False), random_mixture(1, 5, 3)
    a, b = as_dense(p), as_dense(q)
    norm, variance = oracles.log_inner(a, a), p.means.numpy().var(0).sum()
    distance = oracles.distance_nuclear_norm(p.means, q.means)
    bounds = {
        NuclearNorm(): (math.log(oracles.fidelity(a, b)), 0.0),
        DebiasedNuclearNorm(): (math.log(oracles.fidelity(a, b)), 0.0),
        ScalarCost(): (oracles.log_scalar_cost(a, b), norm),
        ScalarCost(momentum=0.9): (oracles.log_scalar_cost(a, b), norm),
        VectorCost(): (oracles.log_vector_cost(a, b), norm),
        SchurCost(): (math.log(oracles.schur_cost(a, b)), 0.0),
        Trace(): (math.log(oracles.trace_overlap(a, b)), 0.0),
        Schatten(): (math.log(oracles.schatten_overlap(a, b, 0.85)), 0.15 * math.log(5)),
        DistanceNuclearNorm(): (-math.log(distance), -math.log(variance)),
    }
    for objective, (value, limit) in bounds.items():
        bound = objective.bound(p, q)
        assert float(bound.log_value) == pytest.approx(value, rel=1e-9), objective
        assert float(bound.log_limit) == pytest.approx(limit, rel=1e-9), objective


@pytest.mark.parametrize(("n", "m"), [(6, 4), (4, 6)])
def test_the_limit_of_a_schatten_power_is_that_of_the_smaller_side(n, m):
    p, q = random_mixture(0, n, 3), random_mixture(1, m, 3)
    limit = Schatten(power=0.6).bound(p, q).log_limit
    assert float(limit) == pytest.approx(0.4 * math.log(4))


# ------------------------------------------------------------------ without the bias


@pytest.mark.parametrize(("n", "m"), [(6, 8), (7, 5), (2, 3)])
@pytest.mark.parametrize("weight", [0.5, 0.35])
def test_the_debiased_loss_is_that_of_halves(n, m, weight):
    """Of an odd number one is left out."""
    p, q = random_mixture(0, n, 3, variance=(n, 1)), random_mixture(1, m, 3)
    h, k = n // 2, m // 2
    x, x_copy, y, y_copy = (
        as_dense(a.select(part))
        for a, part in (
            (p, slice(0, h)),
            (p, slice(h, 2 * h)),
            (q, slice(0, k)),
            (q, slice(k, 2 * k)),
        )
    )
    fidelity = oracles.fidelity
    model = weight * fidelity(y, y_copy) - 0.5 * (fidelity(x, y) + fidelity(x, y_copy))
    assert float(DebiasedNuclearNorm(weight)(p, q)) == pytest.approx(model, rel=1e-9)
    whole = model + 0.5 * fidelity(x, x_copy)
    assert float(DebiasedNuclearNorm(weight, reference=True)(p, q)) == pytest.approx(whole)


def test_the_debiased_loss_needs_two_of_each():
    p, one = random_mixture(0, 4, 2), random_mixture(1, 1, 2)
    for pair in ((p, one), (one, p)):
        with pytest.raises(InputError, match="needs at least 2 components"):
            DebiasedNuclearNorm()(*pair)


def moves(p, q, **options):
    """Return the weight after one training step."""
    objective = DebiasedNuclearNorm(calibrate=True, **options)
    objective(p, q)
    return float(objective.weight)


def test_calibration_pays_a_model_that_is_too_alike_for_diversity_and_a_noisy_one_less():
    p = random_mixture(0, 40, 3)
    alike = GaussianMixture(0.1 * p.means, 0.5)
    noisy = GaussianMixture(3 * p.means, 0.5)
    assert moves(p, alike) > 0.5
    assert moves(p, noisy) < 0.5


def test_calibration_takes_the_step_of_its_equation():
    p, q = random_mixture(0, 12, 3), random_mixture(1, 10, 3)
    own, data = (
        oracles.fidelity(*(as_dense(m.select(part)) for part in parts))
        for m, parts in (
            (q, (slice(0, 5), slice(5, 10))),
            (p, (slice(0, 6), slice(6, 12))),
        )
    )
    assert moves(p, q) == pytest.approx(0.5 + 0.1 * (own / data - 1), rel=1e-9)
    assert moves(p, q, weight=0.2) == pytest.approx(0.2 + 0.1 * (own / data - 1), rel=1e-9)


def test_the_weight_moves_in_training_only_and_stays_in_its_range():
    p = random_mixture(0, 8, 3)
    far = GaussianMixture(100 * torch.randn(8, 3, dtype=torch.float64), 0.5)
    plain = DebiasedNuclearNorm()
    plain(p, far)
    assert float(plain.weight) == 0.5
    measured = DebiasedNuclearNorm(calibrate=True).eval()
    measured(p, far)
    assert float(measured.weight) == 0.5
    lowest = DebiasedNuclearNorm(0.01, calibrate=True)
    lowest(p, far)
    assert float(lowest.weight) == 0
    apart = DebiasedNuclearNorm(calibrate=True)
    apart(GaussianMixture(far.means, 1e-3), p)
    assert float(apart.weight) == 0.5, "where the data's batches do not overlap, nothing moves it"


def test_the_weight_is_saved_with_the_state():
    p, q = random_mixture(0, 12, 3), random_mixture(1, 10, 3)
    objective = DebiasedNuclearNorm(calibrate=True)
    for _ in range(7):
        objective(p, q)
    copy = DebiasedNuclearNorm(calibrate=True)
    copy.load_state_dict(objective.state_dict())
    for _ in range(4):
        assert torch.equal(objective(p, q), copy(p, q))
    assert torch.equal(objective.weight, copy.weight)
    assert float(objective.weight) != 0.5


@pytest.mark.parametrize("kind", [ScalarCost, DebiasedNuclearNorm])
def test_the_datas_own_term_moves_the_loss_and_not_the_gradient(kind):
    p, q = random_mixture(0, 6, 3), random_mixture(1, 6, 3)
    losses, gradients = [], []
    for reference in (False, True):
        y = q.means.clone().requires_grad_()
        loss = kind(reference=reference)(p, GaussianMixture(y, 0.5))
        gradients.append(torch.autograd.grad(loss, y)[0])
        losses.append(float(loss.detach()))
    assert abs(losses[0] - losses[1]) > 0.1
    assert torch.allclose(*gradients, rtol=1e-10, atol=1e-13)


def test_the_scalar_loss_with_reference_is_zero_at_the_data():
    p = random_mixture(0, 6, 3)
    assert float(ScalarCost(reference=True)(p, p)) == pytest.approx(0, abs=1e-12)


# ------------------------------------------------------------------ options


@pytest.mark.parametrize("name", ["nuclear", "schatten", "vector", "schur"])
def test_drop_reaches_every_gradient(name):
    p, q = random_mixture(0, 5, 3), random_mixture(1, 5, 3, spread=0.3)
    gradients = []
    for options in ({}, {"drop": 0.2}):
        y = q.means.clone().requires_grad_()
        loss = create_objective(name, **options)(p, GaussianMixture(y, 0.5))
        gradients.append(torch.autograd.grad(loss, y)[0])
    assert float((gradients[0] - gradients[1]).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nucleer", {}, "unknown objective 'nucleer': did you mean 'nuclear'"),
        ("schatten", {"pwer": 0.5}, "'schatten' has no option 'pwer': did you mean 'power'"),
        ("nuclear", {"power": 0.5}, "'nuclear' has no option 'power': known: drop"),
        ("trace", {"power": 0.5}, "'trace' has no option 'power': known: none"),
        ("likelihood", {"drop": 0.5}, "'likelihood' has no option 'drop': known: none"),
        ("schatten", {"power": 0.0}, r"power must lie in \(0, 1\], got 0.0"),
        ("schatten", {"power": 1.5}, r"power must lie in \(0, 1\], got 1.5"),
        ("schatten", {"power": math.nan}, r"power must lie in \(0, 1\], got nan"),
        ("scalar", {"momentum": 0.0}, r"momentum must lie in \(0, 1\).*got 0.0"),
        ("scalar", {"momentum": 1.0}, r"momentum must lie in \(0, 1\).*got 1.0"),
        ("scalar", {"momentum": -0.1}, r"momentum must lie in \(0, 1\).*got -0.1"),
        ("scalar", {"momentum": math.nan}, r"momentum must lie in \(0, 1\).*got nan"),
        (
            "scalar",
            {"momentum": 0.9, "reference": True},
            "combined with reference, got 0.9",
        ),
        ("debiased", {"weight": -0.1}, "weight must be 0 or more, got -0.1: 0.5 is unbiased"),
        ("debiased", {"weight": math.inf}, "weight must be 0 or more, got inf"),
        ("debiased", {"weight": math.nan}, "weight must be 0 or more, got nan"),
        (
            "debiased",
            {"weight": 1.5, "calibrate": True},
            "0 or more and at most 1, to be calibrated",
        ),
        ("nuclear", {"drop": -1.0}, r"drop must lie in \[0, 1\], got -1.0"),
        ("schatten", {"drop": 2.0}, r"drop must lie in \[0, 1\], got 2.0"),
        ("vector", {"drop": 1.0}, r"drop must lie in \[0, 1\), got 1.0"),
        ("schur", {"drop": math.nan}, r"drop must lie in \[0, 1\), got nan"),
    ],
)
def test_wrong_names_and_options_are_refused_before_anything_is_computed(name, options, words):
    with pytest.raises(InputError, match=words):
        create_objective(name, **options)


def test_options_are_what_the_classes_take():
    assert create_objective("schatten", power=0.3, drop=1e-3).power == 0.3
    assert create_objective("debiased", weight=0.35, reference=True).weight == 0.35
    assert create_objective("scalar", momentum=0.9).momentum == 0.9
    for name in NAMES:
        assert type(create_objective(name)) is OBJECTIVES[name]


def test_two_objectives_pair_their_centres_and_one_is_tracked():
    assert [name for name in NAMES if OBJECTIVES[name].paired] == ["mse", "trace"]
    assert [name for name in NAMES if OBJECTIVES[name].tracked] == ["conditional"]
    with pytest.raises(InputError, match="they are paired one to one"):
        Trace()(random_mixture(0, 5, 3), random_mixture(1, 4, 3))


def test_drop_reaches_the_gradient():
    p, q = random_mixture(0, 5, 3), random_mixture(1, 5, 3)
    gradients = []
    for drop in (None, 1.0):
        y = q.means.clone().requires_grad_()
        objective = NuclearNorm(drop=drop)
        objective(p, GaussianMixture(y, 0.5)).backward()
        gradients.append(y.grad.abs().max())
    assert gradients[0] > 1e-3
    assert gradients[1] == 0


def test_the_likelihood_is_that_of_the_points_by_their_weights():
    means, weights = random_mixture(0, 3, 2).means, torch.tensor([1.0, 2.0, 0.0]).double()
    q = random_mixture(1, 4, 2)
    p = GaussianMixture(means, 0.5, weights)
    repeated = means[[0, 1, 1]]
    expected = F.negative_log_likelihood(repeated, q)
    assert float(Likelihood()(p, q)) == pytest.approx(float(expected))
    blurred = GaussianMixture(means, 50.0, weights)
    assert float(Likelihood()(blurred, q)) == float(Likelihood()(p, q))


def test_the_gap_of_the_likelihood_estimates_the_divergence():
    n, m = torch.tensor([[1.0, 0.0, -0.5]]), torch.zeros(1, 3)
    v, w = 0.5, 1.2
    p = GaussianMixture(n.expand(1000, 40, 3), v)
    q = GaussianMixture(m.expand(1000, 1, 3), w)
    gap = Likelihood().bound(p, q, seeded(0)).gap.mean()
    expected = oracles.gaussian_divergence(n, v, m, w)
    # The log ratio of both densities has a standard deviation below 1.5, and its mean of 40 000
    # draws one below 0.0075; four of those.
    assert float(gap) == pytest.approx(expected, abs=0.03)
    assert expected > 0.5


def test_the_bound_of_the_likelihood_is_a_function_of_the_generator():
    p, q = random_mixture(0, 5, 3), random_mixture(1, 4, 3)
    first, again, other = (Likelihood().bound(p, q, seeded(i)) for i in (0, 0, 1))
    assert torch.equal(first.log_value, again.log_value)
    assert torch.equal(first.log_limit, again.log_limit)
    assert not torch.equal(first.log_value, other.log_value)
