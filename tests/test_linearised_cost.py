"""The scalar cost linearised around running averages: its gradient, its averages, its state."""

import copy
import math

import numpy as np
import pytest
import torch

from hilbound import functional as F
from hilbound.mixture import GaussianMixture
from hilbound.objectives import ScalarCost
from support import oracles
from support.oracles import as_dense, as_dtype, random_mixture


def batches(count, d=3, dtype=torch.float64):
    """Pairs of mixtures as training would bring them, one after the other."""
    return [
        tuple(as_dtype(random_mixture(2 * i + k, 6, d), dtype) for k in range(2))
        for i in range(count)
    ]


def sums(p, q):
    """a = <p, q> and s = <q, q>, by loops."""
    a, b = as_dense(p), as_dense(q)
    return math.exp(oracles.log_inner(a, b)), math.exp(oracles.log_inner(b, b))


def gradient(loss, p, q):
    y = q.means.clone().requires_grad_()
    return torch.autograd.grad(loss(p, GaussianMixture(y, 0.5, q.weights)), y)[0]


def test_the_first_gradient_is_half_of_that_of_the_logarithm():
    r"""At :math:`\hat a = a`, :math:`\hat s = s` it is :math:`ds / 2s - da / a`.

    And :math:`-\log(a^2/s)` has :math:`ds / s - 2 da / a`.
    """
    p, q = batches(1)[0]
    ours = gradient(ScalarCost(momentum=0.9), p, q)
    whole = gradient(lambda p, q: -F.log_scalar_cost(p, q), p, q)
    assert whole.abs().max() > 1e-3
    assert torch.allclose(ours, whole / 2, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("momentum", [0.1, 0.9, 0.999])
def test_losses_and_averages_are_those_of_numpy(momentum):
    objective = ScalarCost(momentum=momentum)
    past = None
    for p, q in batches(6):
        loss = objective(p, q)
        now = np.array(sums(p, q))
        past = now if past is None else momentum * past + (1 - momentum) * now
        a, s = now / past
        assert float(loss) == pytest.approx(s / 2 - a, rel=1e-11)
        averages = [float(objective.log_cross.exp()), float(objective.log_own.exp())]
        assert averages == pytest.approx(list(past), rel=1e-11)


def test_the_gradient_is_linear_in_both_sums():
    """Of batch after batch it is ds / 2s' - da / a', with the averages as numbers."""
    objective = ScalarCost(momentum=0.8)
    several = batches(4)
    for p, q in several[:-1]:
        objective(p, q)
    p, q = several[-1]
    ours = gradient(objective, p, q)
    a, s = objective.log_cross.exp(), objective.log_own.exp()
    of_a = gradient(lambda p, q: p.log_inner(q).exp(), p, q)
    of_s = gradient(lambda _, q: q.log_norm().exp(), p, q)
    assert torch.allclose(ours, of_s / (2 * s) - of_a / a, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("d", [1, 50, 3000])
def test_the_loss_does_not_know_the_dimension(d):
    """Coordinates in which nothing happens change every sum by one factor, which cancels."""
    plain, padded = ScalarCost(momentum=0.9), ScalarCost(momentum=0.9)
    for p, q in batches(4):
        wide = [
            GaussianMixture(torch.cat([m.means, torch.zeros(6, d).double()], -1), 0.5, m.weights)
            for m in (p, q)
        ]
        assert float(padded(*wide)) == pytest.approx(float(plain(p, q)), rel=1e-9)


def test_the_first_loss_is_one_half_in_float32_and_a_thousand_dimensions():
    for p, q in batches(3, d=1000, dtype=torch.float32):
        assert float(ScalarCost(momentum=0.9)(p, q)) == -0.5


def test_in_evaluation_mode_it_is_the_ratio_and_the_averages_stay():
    """Losses around moving averages could not be compared, and no run be stopped by them."""
    objective = ScalarCost(momentum=0.9)
    (p, q), other, *_ = batches(2)
    objective.eval()
    # Before the first batch, too.
    assert float(objective(p, q)) == pytest.approx(
        -oracles.log_scalar_cost(as_dense(p), as_dense(q))
    )
    assert objective.log_cross.isnan()
    objective.train()
    objective(p, q)
    before = copy.deepcopy(objective.state_dict())
    objective.eval()
    expected = -oracles.log_scalar_cost(*map(as_dense, other))
    assert float(objective(*other)) == pytest.approx(expected, rel=1e-12)
    assert objective.state_dict() == before
    objective.train()
    objective(*other)
    assert objective.state_dict() != before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_state_is_kept_to_the_last_bit(dtype, tmp_path):
    several = batches(6, d=784, dtype=dtype)
    whole, part = ScalarCost(momentum=0.9), ScalarCost(momentum=0.9)
    for p, q in several[:3]:
        whole(p, q)
        part(p, q)
    torch.save(part.state_dict(), tmp_path / "state")
    fresh = ScalarCost(momentum=0.9)
    fresh.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    for p, q in several[3:]:
        assert torch.equal(fresh(p, q), whole(p, q))
    assert torch.equal(fresh.log_cross, whole.log_cross)
    assert torch.equal(fresh.log_own, whole.log_own)


def test_every_mixture_of_a_batch_has_averages_of_its_own():
    together = ScalarCost(momentum=0.7)
    alone = [ScalarCost(momentum=0.7) for _ in range(3)]
    for step in range(3):
        pairs = [batches(9)[3 * step + i] for i in range(3)]
        p, q = (
            GaussianMixture(
                torch.stack([pair[k].means for pair in pairs]),
                0.5,
                torch.stack([pair[k].weights for pair in pairs]),
            )
            for k in range(2)
        )
        losses = torch.stack([one(*pair) for one, pair in zip(alone, pairs, strict=True)])
        assert torch.allclose(together(p, q), losses, rtol=1e-11)


def test_ascent_finds_the_points(generator):
    """With averages of nine tenths of the past it still climbs to where the ratio is largest."""
    p = GaussianMixture(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), 0.25)
    y = torch.randn(3, 2, generator=generator).add(0.7).requires_grad_()
    objective, adam = ScalarCost(momentum=0.9), torch.optim.Adam([y], lr=0.05)
    for _ in range(300):
        adam.zero_grad()
        objective(p, GaussianMixture(y, 0.25)).backward()
        adam.step()
    assert F.cauchy_schwarz_divergence(p, GaussianMixture(y.detach(), 0.25)) < 5e-4
