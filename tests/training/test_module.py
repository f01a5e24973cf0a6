"""One step of training: which mixtures are compared, and at which variance."""

import pytest
import torch

from hilbound.config import RunConfig
from hilbound.training.callbacks import BoundsRecord
from hilbound.training.module import DensityModule
from hilbound.training.plan import plan_training
from support.tiny_runs import TINY, train

pytest_plugins = ["support.fixtures_runs"]


def module(tmp_path, **options):
    config = RunConfig.create(**{"data": "checkerboard", **TINY, **options})
    return DensityModule(plan_training(config), BoundsRecord(tmp_path / "bounds.csv"))


@pytest.mark.parametrize(("objective", "share"), [("nuclear", 0.5), ("likelihood", 1.0)])
def test_the_kernels_variance_is_shared_by_the_smoothed_sides(tmp_path, objective, share):
    made = module(tmp_path, objective=objective, variance=0.6)
    p, q, _ = made._compare(torch.zeros(5, 2), "noise", 0)
    assert float(q.component_variance) == pytest.approx(0.6 * share)
    assert float(p.component_variance) == pytest.approx(0.6 * share)
    assert torch.equal(p.means, torch.zeros(5, 2))
    assert q.components == 32


def test_the_noise_is_a_function_of_the_seed_the_purpose_and_the_step(tmp_path):
    made = module(tmp_path)

    def centers(*stream, of=made):
        return of._compare(torch.zeros(5, 2), *stream).q.means

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
    original = DensityModule._compare

    def look(self, batch, purpose, index):
        compared = original(self, batch, purpose, index)
        variances = (float(m.component_variance) for m in compared[:2])
        seen.append((purpose, *variances))
        return compared

    monkeypatch.setattr(DensityModule, "_compare", look)
    train(tmp_path / "run", variance="8:2", steps=5, validate_every=2)
    steps = [pair for purpose, *pair in seen if purpose == "noise"]
    expected = [4 * 4 ** (-k / 4) for k in range(5)]
    assert [p for p, _ in steps] == pytest.approx(expected)
    assert [q for _, q in steps] == pytest.approx(expected)
    # Held-out rows and samples are smoothed alike, too.
    assert all(p == pytest.approx(q) for _, p, q in seen)


ENCODER = {"model": "encoder-mixture-decoder", "centers": 3, "eval_centers": 5}


@pytest.mark.parametrize(
    ("options", "training", "evaluation"),
    [
        ({}, 32, 32),
        ({"centers": 7}, 7, 7),
        ({"centers": 7, "eval_centers": 9}, 7, 9),
        ({"objective": "trace"}, 5, 5),
        (ENCODER, 3, 5),
        (ENCODER | {"eval_centers": None}, 3, 3),
        (ENCODER | {"objective": "likelihood"}, 3, 5),
    ],
    ids=str,
)
def test_the_number_of_centres(tmp_path, options, training, evaluation):
    made = module(tmp_path, **options)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    for mode, expected in ((True, training), (False, evaluation)):
        made.train(mode)
        assert made._compare(x, "noise", 0).q.components == expected


@pytest.mark.parametrize("model", ["autoencoder", "vae"])
def test_models_of_one_centre_for_each_row(tmp_path, model):
    made = module(tmp_path, model=model, batch_size=9, noise_dim=16)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    p, q, penalty = made._compare(x, "noise", 0)
    assert p.means.numel() == q.means.numel() == x.numel()
    assert (float(penalty.detach()) > 0) == (model == "vae")
    assert made._loss(made._compare(x, "noise", 0)).shape == ()


def test_weights_that_are_no_longer_finite_are_told_with_the_step(tmp_path):
    made = module(tmp_path, **ENCODER)
    with torch.no_grad():
        next(made.model.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(
        FloatingPointError, match=r"no longer finite, or .* at step 0: lower --learning"
    ):
        made._compare(torch.zeros(5, 2), "noise", 0)
