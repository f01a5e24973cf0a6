"""One step of training: which mixtures are compared, and at which variance."""

import pytest
import torch

from hilbound.callbacks import BoundsRecord
from hilbound.config import RunConfig
from hilbound.module import DensityModule
from hilbound.training import plan
from tiny_runs import TINY, train

pytest_plugins = ["fixtures_runs"]


def module(tmp_path, **options):
    config = RunConfig.create(**{"data": "checkerboard", **TINY, **options})
    return DensityModule(plan(config), BoundsRecord(tmp_path / "bounds.csv"))


@pytest.mark.parametrize(("objective", "share"), [("nuclear", 0.5), ("likelihood", 1.0)])
def test_the_kernels_variance_is_shared_by_the_smoothed_sides(tmp_path, objective, share):
    made = module(tmp_path, objective=objective, variance=0.6)
    p, q = made._mixtures(torch.zeros(5, 2), "noise", 0)
    assert float(q.component_variance) == pytest.approx(0.6 * share)
    assert float(p.component_variance) == pytest.approx(0.6 * share)
    assert torch.equal(p.means, torch.zeros(5, 2))
    assert q.components == 32


def test_the_noise_is_a_function_of_the_seed_the_purpose_and_the_step(tmp_path):
    made = module(tmp_path)

    def centers(*stream, of=made):
        return of._mixtures(torch.zeros(5, 2), *stream)[1].means

    assert torch.equal(centers("noise", 3), centers("noise", 3))
    assert not torch.equal(centers("noise", 3), centers("noise", 4))
    assert not torch.equal(centers("noise", 3), centers("validation", 3))
    assert torch.equal(centers("noise", 3), centers("noise", 3, of=module(tmp_path)))


@pytest.mark.parametrize(("decay", "rates"), [(True, [1, 0.5, 0]), (False, [1, 1, 1])])
def test_the_learning_rate_follows_the_cosine(tmp_path, decay, rates):
    made = module(tmp_path, decay=decay, steps=10, learning_rate=0.1)
    chosen = made.configure_optimizers()
    adam = chosen["optimizer"] if decay else chosen
    seen = []
    for _ in range(11):
        seen.append(adam.param_groups[0]["lr"])
        adam.step()
        if decay:
            chosen["lr_scheduler"]["scheduler"].step()
    assert [seen[0], seen[5], seen[10]] == pytest.approx([0.1 * rate for rate in rates])
    assert adam.param_groups[0]["betas"] == (0.5, 0.9)


def test_a_schedule_reaches_the_models_side_in_every_step(tmp_path, monkeypatch):
    seen = []
    original = DensityModule._mixtures

    def look(self, batch, purpose, index):
        p, q = original(self, batch, purpose, index)
        seen.append((purpose, float(p.component_variance), float(q.component_variance)))
        return p, q

    monkeypatch.setattr(DensityModule, "_mixtures", look)
    train(tmp_path / "run", variance="8:2", steps=5, validate_every=2)
    steps = [pair for purpose, *pair in seen if purpose == "noise"]
    expected = [4 * 4 ** (-k / 4) for k in range(5)]
    assert [p for p, _ in steps] == pytest.approx(expected)
    assert [q for _, q in steps] == pytest.approx(expected)
    # Held-out rows and samples are smoothed alike, too.
    assert all(p == pytest.approx(q) for _, p, q in seen)
