"""The peers: their losses against other implementations, the loop, and how rows are judged."""

import sys

import pytest
import torch
from scipy.stats import wasserstein_distance

from hilbound.errors import InputError
from hilbound.evaluation import metrics
from hilbound.experiments.peers import page
from hilbound.experiments.peers.costs import KERNELS, loss_of
from hilbound.experiments.peers.experiment import EXPERIMENT
from hilbound.experiments.peers.settings import METHODS, OURS, PEERS, Budget, PeersSettings
from hilbound.experiments.peers.training import trained
from hilbound.experiments.shared.sample_quality import images
from hilbound.functional import fidelity
from hilbound.mixture import GaussianMixture
from support.strategies import normal

DRAWS = torch.Generator().manual_seed(0)
X, Y = normal(0, 30, 2), 0.5 + normal(1, 30, 2)


def loss(method, option=0.5, x=X, y=Y):
    return loss_of(method, option, 2.0, x.shape[-1])(x, y, DRAWS)


# ------------------------------------------------------------------ the losses


def test_the_nuclear_norm_is_that_of_the_kernel_between_points_and_centres():
    # A kernel of half the median's 2, so components of a half.
    expected = fidelity(GaussianMixture(X, 0.5), GaussianMixture(Y, 0.5))
    assert float(loss("nuclear")) == pytest.approx(-float(expected))


def test_the_energy_distance_is_that_of_pairs_one_by_one():
    n = len(X)
    cross = sum(float((x - y).norm()) for x in X for y in Y) / n**2
    own = sum(float((a - b).norm()) for i, a in enumerate(Y) for j, b in enumerate(Y) if i != j)
    assert float(loss("energy")) == pytest.approx(2 * cross - own / (n * (n - 1)))


def test_the_discrepancy_is_the_sum_of_that_of_each_kernel():
    expected = 0.0
    for share in KERNELS:
        # The library's own has the data's term, too: it is the same for all samples.
        v = 0.5 * share * 2.0
        k = torch.exp(-torch.cdist(X, X).square() / (2 * v))
        n = len(X)
        data = (k.sum() - n) / (n * (n - 1))
        expected += metrics.squared_mmd(X, Y, v) - float(data)
    assert float(loss("mmd")) == pytest.approx(expected, abs=1e-9)


def test_the_sliced_distance_in_one_dimension_is_the_wasserstein_distance():
    x, y = torch.zeros(50, 1), torch.full((50, 1), 3.0)
    assert float(loss("sliced", 7, x, y)) == pytest.approx(9.0)
    one = normal(0, 200, 1)
    squared = float(loss("sliced", 3, one, one.sort(0).values + 1))
    assert squared == pytest.approx(1.0)
    # Of a shift both distances are the shift.
    assert wasserstein_distance(one.squeeze(1), one.squeeze(1) + 1) == pytest.approx(1.0)


def test_the_likelihood_is_that_of_a_mixture_around_samples():
    expected = -GaussianMixture(Y, 0.5 * 2.0 / 2).log_prob(X).mean()
    assert float(loss("likelihood")) == pytest.approx(float(expected))


def test_the_sinkhorn_divergence_is_zero_at_the_data_and_half_a_squared_shift():
    pytest.importorskip("geomloss", reason="an extra: pip install 'hilbound[bench]'")
    assert float(loss("sinkhorn", 0.05, X, X)) == pytest.approx(0, abs=1e-6)
    shifted = X + torch.tensor([3.0, 4.0])
    assert float(loss("sinkhorn", 0.05, X, shifted)) == pytest.approx(12.5, rel=1e-3)


def test_without_geomloss_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "geomloss", None)
    with pytest.raises(InputError, match=r"needs geomloss.*hilbound\[bench\]"):
        loss("sinkhorn")


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("vae", "sinkhorn", "clusters")])
def test_each_loss_pulls_samples_to_the_data(method):
    y = (X + 0.7).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(method, 16 if method == "sliced" else 1.0, X, y), y)
    # Descent moves the samples back along the shift.
    assert float(gradient.sum()) > 0


def test_an_unknown_method_is_refused():
    with pytest.raises(InputError, match="method must be a generator's"):
        loss("vae")


# ------------------------------------------------------------------ the loop

BUDGET = Budget(
    seconds=1,
    width=16,
    depth=1,
    noise_dim=2,
    batch_size=64,
    learning_rate=5e-3,
    samples=100,
)


@pytest.mark.parametrize(("method", "option"), [("energy", 1.0), ("vae", 1.0), ("clusters", 3.0)])
def test_a_training_ends_with_its_time(method, option):
    found = trained(BUDGET, images("moons"), method, option, seconds=0.2, seed=0)
    assert found.steps >= (method != "clusters")
    # Finding clusters is a part of it, and may take longer.
    assert 0.2 <= found.seconds < 4
    assert found.model.sample(5).shape == (5, 2)


def test_all_start_from_the_same_weights():
    def first(method):
        model = trained(BUDGET, images("moons"), method, 0.1, seconds=1e-9, seed=3).model
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(first("nuclear"), first("sliced"))


# ------------------------------------------------------------------ which cells, which verdicts

SETTINGS = PeersSettings(
    budgets={"moons": BUDGET}, options={"moons": PeersSettings().options["moons"]}
)


def row(method, purpose, option=1.0, seed=0, coverage=0.5, recall=0.5):
    # Against validation rows the debiased norm is the best of ours, whatever the test rows say.
    return {
        "validation_score": 1.5 if method == "debiased" else 1.2,
        "data": "moons",
        "method": method,
        "purpose": purpose,
        "option": option,
        "seed": seed,
        "coverage": coverage,
        "recall": recall,
        "precision": 0.9,
        "frechet_distance": 1.0,
        "novelty": 1.0,
        "steps": 100,
        "training_seconds": 1.0,
    }


def finals(**scores):
    """Choices, and final rows with a coverage for every method."""
    rows = [row("nuclear", "choice", coverage=0.6), row("debiased", "choice", coverage=0.7)]
    rows += [row("real", "floor", 0.0)]
    for method in METHODS:
        for seed in range(2):
            coverage = scores.get(method, 0.4) + 0.002 * seed
            rows.append(row(method, "final", seed=seed, coverage=coverage))
    return rows


def test_final_trainings_wait_for_the_choice_and_take_its_option():
    first = [cell.options for cell in EXPERIMENT.cells(SETTINGS, [0, 1], [])]
    assert [o["purpose"] for o in first] == ["floor"] + ["choice"] * 3 * len(METHODS)
    tried = [dict(o) | row(o["method"], "choice") | dict(o) for o in first[1:4]]
    tried[1]["coverage"] = 0.8
    after = [cell.options for cell in EXPERIMENT.cells(SETTINGS, [0, 1], tried)]
    final = [o for o in after if o["purpose"] == "final"]
    assert {(o["method"], o["option"], o["seed"]) for o in final} == {
        ("nuclear", 0.1, 0),
        ("nuclear", 0.1, 1),
    }


def test_ours_is_the_one_that_validation_rows_prefer_whatever_test_rows_say():
    rows = finals(nuclear=0.99, clusters=0.99, debiased=0.6)
    assert page.best_of_ours(rows, "moons") == "debiased"
    (claim,) = page.claims(SETTINGS, rows)
    assert claim.holds is True
    assert "debiased 1.10 ± 0.00" in claim.outcome


def test_a_peer_that_wins_is_named_with_its_figures():
    (claim,) = page.claims(SETTINGS, finals(debiased=0.6, sinkhorn=0.7))
    assert claim.holds is False
    assert claim.reason.startswith("sinkhorn is ahead: coverage 0.701, recall 0.500")
    assert "after 100 steps. Beside it debiased: coverage 0.601" in claim.reason
    assert claim.outcome.endswith("ahead of energy, mmd, sliced, likelihood, vae")


def test_a_data_set_that_was_not_finished_is_left_out():
    rows = [r for r in finals() if (r["method"], r["purpose"]) != ("vae", "final")]
    assert page.measured(SETTINGS, rows) == []
    assert page.claims(SETTINGS, rows) == []


def test_every_method_has_three_candidates_on_every_data_set():
    settings = PeersSettings()
    assert set(settings.options) == set(settings.budgets)
    for options in settings.options.values():
        assert {method: len(values) for method, values in options.items()} == dict.fromkeys(
            (*OURS, *PEERS), 3
        )


def test_a_row_depends_on_the_budget_of_its_data_alone():
    other = SETTINGS.model_copy(update={"budgets": {"moons": BUDGET, "digits": BUDGET}})
    options = {"data": "moons"}
    assert EXPERIMENT.identity(SETTINGS, options) == EXPERIMENT.identity(other, options)
    shorter = SETTINGS.model_copy(
        update={"budgets": {"moons": BUDGET.model_copy(update={"seconds": 2})}}
    )
    assert EXPERIMENT.identity(SETTINGS, options) != EXPERIMENT.identity(shorter, options)
