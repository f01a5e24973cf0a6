"""Models with an encoder from a table to a run folder: they learn, repeat themselves, go on."""

import math

import pytest
import torch

import hilbound
from hilbound.config import RunConfig
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.evaluation.evaluate import evaluate
from hilbound.training.batches import BatchStream
from hilbound.training.fit import default_output
from hilbound.training.plan import plan_training
from hilbound.training.runs import Run
from support.strategies import normal
from support.tiny_runs import same_weights, train, weights, write_table
from support.trainings import curve, press_ctrl_c, stop_at

pytest_plugins = ["support.fixtures_runs"]

# The models of one centre take no noise: theirs is the default.
PLAIN = {"noise_dim": 16}
EMD = {"model": "encoder-mixture-decoder", "features": 1, "centers": 3, "bound_every": 5}
KINDS = {
    "conditional": EMD,
    "likelihood": EMD
    | {"objective": "likelihood", "learn_variance": True, "variance": "median/dim"},
    "heads": EMD | {"learn_weights": True, "learn_variance": True},
    "autoencoder": PLAIN | {"model": "autoencoder"},
    "noisy": PLAIN | {"model": "autoencoder", "variance_y": 0.01, "objective": "mse"},
    "vae": PLAIN | {"model": "vae"},
    "pairs": EMD | {"objective": "joint-nuclear", "centers": 2},
    "debiased pairs": EMD
    | {
        "objective": "joint-nuclear",
        "centers": 1,
        "objective_options": {"weight": 0.35, "power": 0.9, "feature_variance": 0.1},
    },
    "marginal": EMD | {"objective": "nuclear", "centers": 2, "learn_weights": True},
    "scalar": PLAIN | {"model": "autoencoder", "objective": "scalar", "variance_y": 0.01},
    "apart": EMD | {"objective": "scalar", "variance_data": "0.2*median", "variance_model": 0.5},
    "pairs of an autoencoder": PLAIN | {"model": "autoencoder", "objective": "joint-nuclear"},
}


def validation_losses(run):
    return [row["loss"] for row in run.read_bounds() if row["split"] == "validation"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_model_learns(tmp_path, kind):
    run = train(tmp_path / "run", steps=20, **KINDS[kind])
    losses = validation_losses(run)
    assert losses[-1] < losses[0] - 1e-3
    for row in run.read_bounds():
        # The likelihood's limit holds in expectation only.
        in_expectation = run.config.objective == "likelihood"
        assert row["gap"] > (-math.inf if in_expectation else -1e-6)
        assert all(math.isfinite(row[key]) for key in ("loss", "gap", "tightness"))
    for source in ("centers", "density"):
        samples = run.sample(7, source=source)
        assert samples.shape == (7, 2)
        assert samples.isfinite().all()
    # What a folder holds is the model: another process draws the same.
    assert torch.equal(run.sample(7, seed=3), Run.open(run.path).sample(7, seed=3))


@pytest.mark.parametrize("kind", ["heads", "noisy", "vae", "pairs", "debiased pairs"])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch, kind):
    whole = train(tmp_path / "whole", **KINDS[kind])
    stop_at(monkeypatch, 5, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", **KINDS[kind])
    # What an interruption leaves can be sampled from.
    assert Run.open(tmp_path / "part").sample(3).isfinite().all()
    resumed = hilbound.resume(tmp_path / "part", quiet=True)
    assert same_weights(resumed, whole)
    assert curve(resumed) == curve(whole)


def by_hand(config):
    """The same training as a loop of ten lines, without Lightning."""
    made = plan_training(config)
    model, variance = made.model, made.objective.component_variance(made.schedule.start)
    betas = (config.beta1, config.beta2)
    adam = torch.optim.Adam(model.parameters(), config.learning_rate, betas, fused=True)
    for step, x in enumerate(BatchStream(made.dataset.train, 32, config.steps, config.seed)):
        draws = stream(config.seed, "noise", step, 0)
        p, q, penalty = model.compare(x, variance, model.centers, draws)
        loss = made.objective(p, q).mean() + penalty
        adam.zero_grad()
        loss.backward()
        adam.step()
    model.remember(made.dataset.train)
    return model.state_dict()


@pytest.mark.parametrize("kind", ["conditional", "autoencoder", "vae"])
def test_lightning_does_the_loop_that_one_would_write(tmp_path, kind):
    run = train(tmp_path / "run", **KINDS[kind], decay=False)
    expected = by_hand(run.config)
    assert weights(run).keys() == expected.keys()
    for name, tensor in weights(run).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)


def test_the_evidence_lower_bound_is_what_is_recorded(tmp_path):
    run = train(tmp_path / "run", **KINDS["vae"], learning_rate=1e-12, decay=False)
    made = plan_training(run.config)
    rows = made.dataset.validation[:32]
    draws = stream(0, "validation", 0, 0)
    p, q, penalty = made.model.compare(rows, made.schedule.start, 1, draws)
    expected = (made.objective(p, q).mean() + penalty).item()
    assert validation_losses(run) == pytest.approx([expected] * 2, rel=1e-5)
    # The recorded cost is the bound at draws from the data's mixture, divergence included.
    row = next(row for row in run.read_bounds() if row["split"] == "validation")
    assert row["gap"] == pytest.approx(row["log_limit"] - row["log_value"], abs=1e-6)
    assert row["log_value"] + float(penalty.detach()) == pytest.approx(
        float(q.log_prob(p.sample((1,), generator=stream(0, "bound", 4, 0))).mean().detach()),
        rel=1e-5,
    )


def test_a_vae_learns_its_variance_from_the_share_of_a_coordinate(tmp_path):
    table = write_table(tmp_path / "table.csv")
    run = train(tmp_path / "run", data=table, **KINDS["vae"], steps=20)
    whole = RunConfig.create(**run.config.model_dump() | {"variance": "median"})
    start = run.read_json("run.json")["variance"]["start"]
    assert start == pytest.approx(plan_training(whole).schedule.start / 3)
    model = run.load_model()
    learned = model.reconstruct(torch.zeros(4, 3), 1)
    assert learned.shape == (4, 1, 3)
    variance = model(torch.zeros(4, 3)).component_variance.detach()
    assert float((variance - start).abs().max()) > 1e-4


@pytest.mark.parametrize("kind", ["conditional", "vae"])
def test_images_of_any_network(tmp_path, kind):
    options = KINDS[kind] | {"data": "digits", "network": "conv", "samples": 60}
    run = (
        train(tmp_path / "run", **options, features=3)
        if kind == "vae"
        else train(tmp_path / "run", **options)
    )
    samples = run.sample(5)
    assert samples.shape == (5, 64)
    assert 0 <= samples.min() <= samples.max() <= 1
    with pytest.raises(InputError, match="pixels must lie in"):
        run.load_model().encode(torch.full((2, 64), 16.0))


@pytest.mark.parametrize("kind", ["conditional", "autoencoder", "vae"])
def test_samples_can_be_measured(tmp_path, kind):
    table = write_table(tmp_path / "table.csv")
    run = train(tmp_path / "run", data=table, **KINDS[kind])
    assert 0 < evaluate(run)["metrics"]["tightness"]["model"] <= 1


def test_patience_keeps_the_best_weights_and_its_features(tmp_path):
    """A huge learning rate spoils what the first steps learned."""
    options = EMD | {
        "learning_rate": 0.5,
        "decay": False,
        "steps": 40,
        "validate_every": 1,
        "patience": 3,
    }
    run = train(tmp_path / "run", **options)
    kept = run.read_json("run.json")["kept_step"]
    assert kept < run.read_json("run.json")["step"] < 40
    model = run.load_model().eval()
    rows = plan_training(run.config).dataset.train
    torch.testing.assert_close(
        model.training_features, model.features_of(rows).detach(), rtol=1e-4, atol=1e-4
    )


def test_a_run_of_another_model_is_refused(tmp_path):
    run = train(tmp_path / "run", steps=2, **EMD)
    text = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(text.replace("features: 1", "features: 2"))
    with pytest.raises(InputError, match=r"model\.safetensors"):
        Run.open(run.path).load_model()


def test_runs_of_models_have_folders_of_their_own():
    names = {
        default_output(RunConfig(data="moons", model=model)).name
        for model in ("mixture-density-network", "encoder-mixture-decoder", "autoencoder", "vae")
    }
    assert names == {
        "moons-debiased-0",
        "moons-encoder-mixture-decoder-conditional-0",
        "moons-autoencoder-trace-0",
        "moons-vae-likelihood-0",
    }


def test_more_rows_than_are_remembered(tmp_path, monkeypatch):
    for module in ("models.build", "training.module"):
        monkeypatch.setattr(f"hilbound.{module}.REMEMBERED_ROWS", 50)
    run = train(tmp_path / "run", steps=2, **EMD)
    model, rows = run.load_model().eval(), plan_training(run.config).dataset.train
    assert model.training_features.shape == (50, 1)
    features = model.features_of(rows).detach()
    nearest = (model.training_features - features.T).abs().min(1).values
    assert nearest.max() < 1e-5
    # Not the first ones: rows may come sorted.
    assert not torch.allclose(model.training_features, features[:50], atol=1e-5)
    assert model.training_features.unique().numel() == 50


def test_a_model_of_python_is_that_of_the_folder(tmp_path):
    run = train(tmp_path / "run", steps=2, **EMD)
    model, x = run.load_model(), normal(0, 4, 2).float()
    assert not model.training
    q = model(x, torch.Generator().manual_seed(0))
    assert (q.batch_shape, q.components) == ((4,), 3)
    assert all(torch.equal(v, weights(run)[k]) for k, v in model.state_dict().items())
