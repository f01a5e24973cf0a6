"""The objective of blocks against the dense Gram matrix of all points with their block."""

import math

import pytest
import torch

from hilbound import functional as F
from hilbound.bounds import Bound
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.objectives import OBJECTIVES, BlockObjective, create_objective

BLOCKS, ROWS, CENTERS, DIM, VARIANCE = 3, 6, 4, 2, 0.4
SHARE = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
SUMS = ("nuclear", "schatten", "debiased", "trace", "schur", "vector", "scalar")


def points(rows, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BLOCKS, rows, DIM, generator=generator, dtype=torch.float64)


def dense_gram(x, y):
    """Overlaps of all points, zero between blocks, with the roots of the weights. From formulas."""
    rows, columns = x.shape[1], y.shape[1]
    gram = torch.zeros(BLOCKS * rows, BLOCKS * columns, dtype=torch.float64)
    for c in range(BLOCKS):
        distances = (x[c][:, None] - y[c][None]).square().sum(-1)
        block = (-distances / (4 * VARIANCE)).exp() * SHARE[c] / math.sqrt(rows * columns)
        gram[c * rows : (c + 1) * rows, c * columns : (c + 1) * columns] = block
    return gram


def dense_loss(name, x, y):
    """The loss of the whole Gram matrix, by torch's own decomposition and its own gradients."""
    if name == "nuclear":
        return -torch.linalg.svdvals(dense_gram(x, y)).sum()
    if name == "schatten":
        return -(torch.linalg.svdvals(dense_gram(x, y)) ** 0.85).sum()
    half, own = x.shape[1] // 2, y.shape[1] // 2
    data, first, second = x[:, :half], y[:, :own], y[:, own:]

    def fidelity(a, b):
        return torch.linalg.svdvals(dense_gram(a, b)).sum()

    return 0.5 * (fidelity(first, second) - fidelity(data, first) - fidelity(data, second))


@pytest.mark.parametrize("name", ["nuclear", "schatten", "debiased"])
def test_values_and_gradients_are_those_of_the_dense_joint_gram_matrix(name):
    x, y = points(ROWS, 0), points(CENTERS, 1).requires_grad_()
    objective = BlockObjective(create_objective(name), SHARE)
    loss = objective(GaussianMixture(x, VARIANCE), GaussianMixture(y, VARIANCE))
    (slope,) = torch.autograd.grad(loss, y)
    expected = dense_loss(name, x, y)
    (expected_slope,) = torch.autograd.grad(expected, y)
    assert loss.shape == ()
    assert float((loss - expected).detach().abs()) < 1e-10
    assert float((slope - expected_slope).abs().max()) < 1e-10


def joint(x):
    """One mixture of all points. A coordinate of its own tells blocks apart, by very far."""
    rows = x.shape[1]
    block = 100 * torch.arange(BLOCKS, dtype=x.dtype)[:, None, None].expand(-1, rows, 1)
    weights = (SHARE[:, None] / rows).expand(-1, rows)
    return GaussianMixture(torch.cat([x, block], -1).flatten(0, 1), VARIANCE, weights.flatten())


@pytest.mark.parametrize("name", [name for name in SUMS if name != "debiased"])
def test_loss_and_bound_are_those_of_a_mixture_whose_blocks_lie_far_apart(name):
    rows = CENTERS if name == "trace" else ROWS
    x, y = points(rows, 2), points(CENTERS, 3)
    plain = create_objective(name)
    blocks = BlockObjective(plain, SHARE)
    p, q = GaussianMixture(x, VARIANCE), GaussianMixture(y, VARIANCE)
    # The further coordinate has a normalising constant of its own, in costs that have units.
    unit = 0.5 * math.log(4 * math.pi * VARIANCE) if plain.logarithmic else 0.0
    found, whole = blocks.bound(p, q), plain.bound(joint(x), joint(y))
    assert float(blocks(p, q)) == pytest.approx(float(plain(joint(x), joint(y))) - unit, abs=1e-9)
    assert float(found.log_value) == pytest.approx(float(whole.log_value) + unit, abs=1e-9)
    if name != "schatten":  # where the limit of blocks is the tighter one
        assert float(found.log_limit) == pytest.approx(float(whole.log_limit) + unit, abs=1e-9)
    else:
        assert float(found.log_limit) < float(whole.log_limit)


def test_the_likelihood_is_the_mean_over_blocks():
    x, y = points(ROWS, 4), points(CENTERS, 5)
    loss = BlockObjective(create_objective("likelihood"), SHARE)(
        GaussianMixture(x, VARIANCE), GaussianMixture(y, VARIANCE)
    )
    means = torch.stack(
        [GaussianMixture(y[c], VARIANCE).log_prob(x[c]).mean() for c in range(BLOCKS)]
    )
    assert float(loss) == pytest.approx(-float(SHARE @ means), abs=1e-12)


@pytest.mark.parametrize("name", [*SUMS, "likelihood"])
@pytest.mark.parametrize("seed", range(5))
def test_no_cost_exceeds_its_limit(name, seed):
    x, y = points(CENTERS, seed), points(CENTERS, seed + 50)
    bound = BlockObjective(create_objective(name), SHARE).bound(
        GaussianMixture(x, VARIANCE),
        GaussianMixture(y, VARIANCE),
        torch.Generator().manual_seed(seed),
    )
    assert isinstance(bound, Bound)
    # The likelihood's limit holds in expectation only.
    assert float(bound.gap) > (-math.inf if name == "likelihood" else -1e-12)


@pytest.mark.parametrize("name", ["nuclear", "debiased", "schur", "vector", "scalar", "trace"])
def test_the_limit_is_reached_by_the_data_themselves(name):
    p = GaussianMixture(points(ROWS, 6), VARIANCE)
    bound = BlockObjective(create_objective(name), SHARE).bound(p, p)
    assert float(bound.gap) == pytest.approx(0, abs=1e-9)


def test_only_points_of_the_same_block_count():
    x = points(ROWS, 7)
    objective = BlockObjective(create_objective("nuclear"), torch.full((BLOCKS,), 1 / BLOCKS))
    p = GaussianMixture(x, VARIANCE)
    permuted = GaussianMixture(x[:, torch.randperm(ROWS)], VARIANCE)
    exchanged = GaussianMixture(x.roll(1, 0), VARIANCE)
    assert float(objective(p, permuted)) == pytest.approx(-1, abs=1e-6)
    assert float(objective(p, exchanged)) > -0.9


def test_one_block_is_the_objective_itself():
    x, y = points(ROWS, 8)[:1], points(ROWS, 9)[:1]
    p, q = GaussianMixture(x, VARIANCE), GaussianMixture(y, VARIANCE)
    blocks = BlockObjective(create_objective("nuclear"), torch.ones(1))
    assert float(blocks(p, q)) == pytest.approx(-float(F.fidelity(p, q)), abs=1e-12)


def test_the_data_as_the_model_has_no_debiased_loss():
    x = points(ROWS, 10)
    x = torch.cat([x, x], 1)
    objective = create_objective("debiased", reference=True)
    p = GaussianMixture(x, VARIANCE)
    assert float(BlockObjective(objective, SHARE)(p, p)) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["distance", "conditional", "mse"])
def test_objectives_without_a_meaning_for_blocks_are_refused(name):
    with pytest.raises(InputError, match=r"has no meaning for blocks: .* are nuclear, scalar"):
        BlockObjective(create_objective(name), SHARE)


def test_every_objective_is_one_or_the_other():
    with_meaning = {name for name in OBJECTIVES if OBJECTIVES[name].block_power is not None}
    assert with_meaning == {*SUMS, "likelihood"}


def test_wrong_shares_and_mixtures_are_refused():
    nuclear = create_objective("nuclear")
    for share in (torch.tensor([0.5, 0.6]), torch.tensor([1.0, 0.0]), torch.ones(1, 1)):
        with pytest.raises(InputError, match="share must hold a positive probability"):
            BlockObjective(nuclear, share)
    p = GaussianMixture(points(ROWS, 0), VARIANCE)
    for q in (p.select(slice(0, 2)), GaussianMixture(points(ROWS, 0)[0], VARIANCE)):
        if q.batch_shape == p.batch_shape:
            continue
        with pytest.raises(InputError, match=r"must have batch shape \(3,\), a mixture for each"):
            BlockObjective(nuclear, SHARE)(p, q)
    with pytest.raises(InputError, match="momentum is for a mixture without blocks"):
        BlockObjective(create_objective("scalar", momentum=0.9), SHARE)
