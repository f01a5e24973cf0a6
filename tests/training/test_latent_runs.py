"""Latent mixtures from a table to a run folder: two stages, both of which can be interrupted."""

import pytest
import torch

import hilbound
from hilbound.errors import InputError
from hilbound.evaluation.evaluate import evaluate
from hilbound.models.feature_mixture import FeatureMixture
from hilbound.reports.run_report import write_report
from hilbound.training.loop import train as train_in_memory
from hilbound.training.plan import plan_training
from hilbound.training.runs import Run
from support.tiny_runs import ask, flags, same_weights, train, weights
from support.trainings import curve, press_ctrl_c, stop_at

pytest_plugins = ["support.fixtures_runs"]

LATENT = {"model": "latent-mixture", "noise_dim": 16}
KINDS = {
    "trace": LATENT,
    "mse": LATENT | {"objective": "mse", "features": 1, "components": 3},
    "conditional": LATENT | {"objective": "conditional", "noise_dim": 2, "centers": 3},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole") / "run", **LATENT)


@pytest.mark.parametrize("kind", KINDS)
def test_every_objective_learns_and_leaves_a_model_that_draws(tmp_path, kind):
    run = train(tmp_path / "run", steps=20, **KINDS[kind])
    losses = [row["loss"] for row in run.read_bounds() if row["split"] == "validation"]
    assert losses[-1] < losses[0] - 1e-3
    assert all(row["gap"] > -1e-6 for row in run.read_bounds())
    assert run.read_json("run.json")["status"] == "finished"
    for source in ("centers", "density"):
        samples = run.sample(7, source=source)
        assert samples.shape == (7, 2)
        assert samples.isfinite().all()
    assert torch.equal(run.sample(7, seed=3), Run.open(run.path).sample(7, seed=3))


def test_the_density_is_fitted_to_all_training_rows(whole):
    model, data = Run.open(whole.path).load_model(), whole.dataset
    again = Run.open(whole.path).load_model()
    again.conclude(data.train, data.validation, whole.config.seed)
    assert torch.equal(again.density.means, model.density.means)
    assert torch.equal(again.output_variance, model.output_variance)
    y = model.features_of(data.train)
    torch.testing.assert_close(model.feature_density().mean, y.mean(0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("step", [0, 5])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch, whole, step):
    stop_at(monkeypatch, step, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", data=whole.config.data, **LATENT)
    # What an interruption leaves can be sampled from.
    assert Run.open(tmp_path / "part").sample(3).isfinite().all()
    resumed = hilbound.resume(tmp_path / "part", quiet=True)
    assert same_weights(resumed, whole)
    assert curve(resumed) == curve(whole)


@pytest.mark.parametrize("how", [KeyboardInterrupt, MemoryError])
def test_a_run_that_stopped_in_its_second_stage_does_that_again(tmp_path, monkeypatch, whole, how):
    def stop(*_, **__):
        raise how

    with monkeypatch.context() as patched:
        patched.setattr(FeatureMixture, "fit", stop)
        with pytest.raises(how):
            train(tmp_path / "part", data=whole.config.data, **LATENT)
    part = Run.open(tmp_path / "part")
    status = "interrupted" if how is KeyboardInterrupt else "running"
    assert part.read_json("run.json")["status"] == status
    assert part.sample(3).isfinite().all()
    resumed = hilbound.resume(tmp_path / "part", quiet=True)
    assert same_weights(resumed, whole)
    assert curve(resumed) == curve(whole)
    with pytest.raises(InputError, match="has done all its 8 steps"):
        hilbound.resume(tmp_path / "part", quiet=True)


def test_a_run_trained_for_longer_is_one_of_as_many_steps(tmp_path, whole):
    options = LATENT | {"decay": False, "variance": 0.6, "data": whole.config.data}
    train(tmp_path / "part", steps=4, **options)
    longer = hilbound.resume(tmp_path / "part", steps=8, quiet=True)
    assert same_weights(longer, train(tmp_path / "whole", steps=8, **options))


def test_early_stopping_fits_the_density_of_the_best_weights(tmp_path, whole):
    run = train(
        tmp_path / "run", data=whole.config.data, steps=40, patience=1, learning_rate=0.5, **LATENT
    )
    assert run.read_json("run.json")["kept_step"] < 40
    model = run.load_model()
    y = model.features_of(run.dataset.train)
    torch.testing.assert_close(model.feature_density().mean, y.mean(0), atol=1e-3, rtol=0)


def test_a_training_in_memory_ends_with_the_same_weights(whole):
    trained = train_in_memory(plan_training(whole.config))
    for name, tensor in trained.model.state_dict().items():
        assert torch.equal(tensor, weights(whole)[name])


def test_what_is_measured_and_reported(tmp_path, whole):
    content = evaluate(whole)
    block = content["latent"]
    assert block["components"] == len(weights(whole)["density.means"])
    bound = block["feature_bound"]
    assert 0 < bound["tightness"] < 1
    assert 0 < bound["real_tightness"] < 1
    assert bound["gap"] == pytest.approx(bound["log_limit"] - bound["log_value"])
    found = block["log_likelihood"]
    assert found["variance"] == pytest.approx(float(weights(whole)["output_variance"]))
    assert 0 < found["error_of_draws"] < found["standard_error"]
    assert 0 < content["conditional_bound"]["tightness"] <= 1
    page = write_report(whole, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Density of the features" in page
    assert f"mixture of {block['components']} Gaussians" in page
    assert "A latent mixture trained on" in page


def test_the_command_line_fits_samples_and_resumes(tmp_path, whole):
    folder = tmp_path / "run"
    options = {k: v for k, v in LATENT.items() if k != "noise_dim"}
    words = [w for w in flags(**options) if w != "--noise-dim"]
    words.remove("2")
    result = ask("fit", whole.config.data, *words, "--output", folder)
    assert result.exit_code == 0, result.stderr
    assert "fitting the density of the features" in result.stderr
    assert "log-likelihood of" in result.stdout
    assert same_weights(Run.open(folder), whole)
    result = ask("sample", folder, "-n", 5, "-o", tmp_path / "s.csv")
    assert result.exit_code == 0, result.stderr
    assert len((tmp_path / "s.csv").read_text(encoding="utf-8").split()) == 6


def test_every_class_has_a_density_and_samples_of_its_own(tmp_path):
    options = {"data": "digits", "condition": "classes", "samples": 300, "steps": 200, "width": 64}
    run = train(tmp_path / "run", **LATENT | options | {"features": 4})
    model = Run.open(run.path).load_model()
    assert model.model.density.classes == 10
    rows, labels = run.dataset.split("train")
    means = torch.stack([rows[labels == c].mean(0) for c in range(10)])
    right = [
        int(torch.cdist(run.sample(40, label=c).mean(0, keepdim=True), means).argmin()) == c
        for c in range(10)
    ]
    assert sum(right) >= 9
    inner = model.model
    with inner.decoder.told(torch.tensor(3)):
        y = inner.density.draw(6, 3, torch.Generator().manual_seed(1))
        y = inner.encode(inner.decode(y, 1).means.squeeze(1))
        expected = inner.decode(y, 1).means.squeeze(1).detach()
    assert torch.equal(model.sample(6, torch.Generator().manual_seed(1), label=3), expected)
    assert run.sample(12).isfinite().all()
    assert "latent" not in evaluate(run, samples=100)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "nuclear"}, "objective 'nuclear' cannot train model 'latent-mixture'"),
        ({"components": 10_000}, "components must be at most the .* training rows, got 10000"),
        ({"centers": 5}, "centers has no effect for objective 'trace'"),
        ({"noise_dim": 2}, "noise_dim has no effect for objective 'trace'"),
        ({"learn_weights": True}, "learn_weights has no effect for objective 'trace'"),
        ({"objective": "mse", "learn_variance": True}, "learn_variance has no effect"),
        ({"features": 3}, "features must lie between 1 and the 2 coordinates"),
        ({"model": "autoencoder", "components": 5}, "components has no effect for model 'autoenc"),
        ({"condition": "clusters=4"}, "condition 'clusters=4' is for model 'mixture-density"),
        ({"condition": "classes"}, "condition 'classes' needs labels"),
        ({"components": 0}, "components: input should be greater than or equal to 1"),
    ],
)
def test_options_without_meaning_are_refused(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        train(tmp_path / "run", **LATENT | options)
    assert not (tmp_path / "run").exists()


def test_features_are_as_many_as_coordinates(whole):
    assert whole.load_model().decoder.feature_dim == 2
    assert hilbound.config.RunConfig(data="mnist", model="latent-mixture").features is None
