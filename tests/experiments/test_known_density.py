"""The known density: exact tightness against quadrature, draws against simulation, verdicts."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from hilbound.experiments.known_density import (
    CHOOSING_SEED,
    COSTS,
    EXPERIMENT,
    KnownSettings,
    draw,
    entropy,
    exact_tightness,
    of_draws,
    points_of,
)
from support.strategies import normal

SETTINGS = KnownSettings(centers=(1, 5))


def test_the_exact_tightness_is_that_of_a_grid():
    """Both densities on a fine grid of x, at three y."""
    y = torch.tensor([[-0.7], [0.1], [0.9]]).double()
    centers = 0.5 * normal(0, 3, 4, 2)
    side = np.linspace(-3, 3, 241)
    grid = np.stack(np.meshgrid(side, side), -1)
    area = (side[1] - side[0]) ** 2
    sums = np.zeros(3)
    wide = SETTINGS.spread + SETTINGS.variance
    for means, own in zip(points_of(y).numpy(), centers.numpy(), strict=True):
        p = np.mean([multivariate_normal(m, wide).pdf(grid) for m in means], 0)
        q = np.mean([multivariate_normal(c, SETTINGS.variance).pdf(grid) for c in own], 0)
        sums += area * np.array([(p * q).sum(), (q * q).sum(), (p * p).sum()])
    expected = sums[0] ** 2 / (sums[1] * sums[2])
    assert exact_tightness(SETTINGS, y, centers) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("k", [1, 4])
def test_draws_reach_what_the_closed_form_says(k):
    y = 2 * torch.rand(20_000, 1, generator=torch.Generator().manual_seed(0)).double() - 1
    several = y.repeat_interleave(k, 0)
    side = torch.randint(2, (len(several),), generator=torch.Generator().manual_seed(1))
    x = points_of(several)[torch.arange(len(several)), side]
    x = x + SETTINGS.spread**0.5 * normal(2, len(several), 2)
    found = exact_tightness(SETTINGS, y, x.view(len(y), k, 2))
    assert found == pytest.approx(of_draws(SETTINGS, k), rel=0.02)


def test_the_entropy_is_that_of_draws():
    x, y = draw(SETTINGS, 20_000, torch.Generator().manual_seed(0))
    distances = (x.unsqueeze(1) - points_of(y)).square().sum(-1).double()
    logs = -distances / (2 * SETTINGS.spread) - math.log(2 * math.pi * SETTINGS.spread)
    mean = (torch.logsumexp(logs, 1) - math.log(2)).mean()
    assert float(mean) == pytest.approx(-entropy(SETTINGS), abs=0.03)


def row(cost, k, seed, **values):
    good = {"cost": 0.95 if k > 1 else 0.45, "between": 0.8, "likelihood": 0.4}[cost]
    density = {"cost": 0.9, "between": 0.95, "likelihood": 0.8}[cost]
    extra = {"noisy_tightness": 0.3, "own_nats": -1.0} if cost == "likelihood" else {}
    measured = {"tightness": good, "density": density, "nats": -0.6}
    options = {"cost": cost, "centers": k, "variance": 0.05, "seed": seed}
    return options | measured | extra | values


def rows_with(change=lambda _: {}):
    rows = [row("likelihood", 5, CHOOSING_SEED)]
    for seed in range(2):
        rows += [
            row(c, k, seed) for k in SETTINGS.centers for c in COSTS if k > 1 or c != "between"
        ]
    return [own | change(own) for own in rows]


def verdicts(rows):
    return [claim.holds for claim in EXPERIMENT.claims(SETTINGS, rows)]


def test_all_hold_on_good_rows():
    assert verdicts(rows_with()) == [True] * 6
    assert [c.theorem for c in EXPERIMENT.claims(SETTINGS, rows_with())] == [False] * 5 + [True]


@pytest.mark.parametrize(
    ("place", "key", "change"),
    [
        (0, ("cost", 1), {"tightness": 0.2}),
        (1, ("cost", 5), {"tightness": 0.89}),
        (2, ("between", 5), {"density": 0.85}),
        (3, ("likelihood", 5), {"noisy_tightness": 0.96}),
        (4, ("cost", 5), {"nats": -0.7}),
        (5, ("between", 5), {"tightness": 1.001}),
    ],
)
def test_each_claim_fails_by_its_own_number(place, key, change):
    rows = rows_with(lambda r: change if (r["cost"], r["centers"]) == key else {})
    found = verdicts(rows)
    assert found[place] is False
    # A cost below the likelihood or below draws may fail two.
    assert sum(holds is not True for holds in found) <= 2


def test_trainings_wait_for_the_likelihoods_variance():
    first = list(EXPERIMENT.cells(SETTINGS, [0], []))
    assert {c.options["seed"] for c in first} == {CHOOSING_SEED}
    tried = [dict(c.options) | {"own_nats": -c.options["variance"]} for c in first]
    after = list(EXPERIMENT.cells(SETTINGS, [0], tried))[len(first) :]
    own = {c.options["variance"] for c in after if c.options["cost"] == "likelihood"}
    assert own == {min(SETTINGS.likelihood_variances)}
    assert not [c for c in after if (c.options["cost"], c.options["centers"]) == ("between", 1)]
