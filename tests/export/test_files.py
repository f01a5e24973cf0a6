"""Exported files compute what the model computes, in another program and at any batch."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import hilbound
from hilbound.config import TableConfig
from hilbound.errors import InputError
from hilbound.estimators import ConditionalDensityEstimator
from hilbound.estimators.table_run import TableRun
from hilbound.export import export_run
from hilbound.export.files import part_of
from hilbound.export.tables import columns_as_numbers, density_part
from hilbound.training.runs import Run
from support.tiny_runs import TINY, ask, train, write_table


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run of every kind: a network on a table with units, an encoder, and a plain decoder."""
    folder = tmp_path_factory.mktemp("runs")
    table = write_table(folder / "table.csv")
    few = {name: value for name, value in TINY.items() if name != "noise_dim"}
    learned = {"learn_weights": True, "learn_variance": True}
    encoder = {"model": "encoder-mixture-decoder", "features": 1, "centers": 3}
    latent = {**encoder, "model": "latent-mixture", "objective": "conditional"}
    return {
        "network": train(folder / "network", data=table, objective="scalar", **learned),
        "encoder": train(folder / "encoder", data=table, **encoder),
        "latent": train(folder / "latent", **latent),
        "vae": hilbound.fit(folder / "vae", data=table, model="vae", features=1, quiet=True, **few),
    }


def onnx_outputs(path, *inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    fed = dict(zip(names, (np.asarray(value) for value in inputs), strict=True))
    return dict(
        zip([one.name for one in session.get_outputs()], session.run(None, fed), strict=True)
    )


def test_a_sampler_draws_the_models_samples_in_the_users_units(runs, tmp_path):
    run = Run.open(runs["network"].path)
    made = export_run(run.path, tmp_path / "sampler.onnx")
    assert (made.part, made.inputs) == ("sampler", ("noise",))
    assert made.outputs == ("centers", "weights", "variance")
    assert made.difference < 1e-6
    noise = torch.randn(11, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        q = run.model(noise)
    got = onnx_outputs(made.path, noise)
    scale = torch.tensor(run.read_json("run.json")["data"]["scale"])
    # Beside its spread: a year has a large mean, and its digits must not be lost.
    apart = (torch.tensor(got["centers"]) - run.to_user_units(q.means)) / scale
    assert apart.abs().max() < 1e-5
    assert np.allclose(got["weights"], q.weights, rtol=1e-5)
    assert np.allclose(got["variance"], q.component_variance * scale.square(), rtol=1e-4)


def test_encoder_and_decoder_are_those_of_the_model(runs, tmp_path):
    run = Run.open(runs["encoder"].path)
    model, data = run.model, run.dataset
    x = data.test[:5]
    noise = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(1))
    encoder = export_run(run.path, tmp_path / "encoder.pt2", "torch", "encoder")
    decoder = export_run(run.path, tmp_path / "decoder.onnx", "onnx", "decoder")
    with torch.no_grad():
        features = model.encode(x)
        q = model.decoder(features, noise)
        got = torch.export.load(encoder.path).module()(run.to_user_units(x).double())
    assert torch.allclose(got, features, atol=1e-5)
    scale = torch.tensor(run.read_json("run.json")["data"]["scale"])
    centers = torch.tensor(onnx_outputs(decoder.path, features, noise)["centers"])
    assert ((centers - run.to_user_units(q.means)) / scale).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["encoder", "vae", "latent"])
def test_a_sampler_of_features_decodes_remembered_rows(runs, kind):
    run = Run.open(runs[kind].path)
    part = part_of(run.path, "sampler")
    rows, *noises = part.example(6)
    density = run.model.feature_density()
    if kind == "latent":
        factor = torch.linalg.cholesky(density.component_covariance)[rows]
        spread = (factor @ noises[0].to(factor).unsqueeze(-1)).squeeze(-1)
        features = (density.means[rows] + spread).to(noises[0])
    else:
        features = density.means[rows] + density.component_variance.sqrt() * noises[0]
    noise = noises[1].unsqueeze(1) if len(noises) > 1 else noises[0].new_zeros(6, 1, 0)
    with torch.no_grad():
        got = dict(zip(part.outputs, part.module(rows, *noises), strict=True))
        q = run.model.decoder(features, noise)
    scale = torch.tensor(run.read_json("run.json")["data"]["scale"] or 1.0)
    expected = run.to_user_units(q.means.squeeze(1))
    assert ((got["centers"] - expected) / scale).abs().max() < 1e-5
    # A decoder that learns variances gives them, too.
    assert ("variance" in got) == (run.model.head.variance_head is not None)
    if "variance" in got:
        variance = q.component_variance.squeeze(1)
        assert torch.allclose(got["variance"] / scale.square(), variance.double(), rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "part", "suffix"),
    [
        ("network", "sampler", ".pt2"),
        ("encoder", "encoder", ".onnx"),
        ("latent", "sampler", ".onnx"),
        ("latent", "decoder", ".pt2"),
        ("vae", "sampler", ".onnx"),
    ],
)
def test_a_file_repeats_the_part_at_any_batch(runs, tmp_path, kind, part, suffix):
    path = tmp_path / f"part{suffix}"
    export_run(runs[kind].path, path, "torch" if suffix == ".pt2" else "onnx", part)
    original = part_of(runs[kind].path, part)
    for n in (1, 7, 20):
        inputs = original.example(n, seed=40 + n)
        with torch.no_grad():
            expected = original.module(*inputs)
            if suffix == ".pt2":
                got = torch.export.load(path).module()(*inputs)
                got = got if isinstance(got, tuple) else (got,)
            else:
                got = [torch.from_numpy(o) for o in onnx_outputs(path, *inputs).values()]
        expected = expected if isinstance(expected, tuple) else (expected,)
        for one, other in zip(got, expected, strict=True):
            if suffix == ".pt2":
                assert torch.equal(one, other)
            else:
                size = other.abs().max().clamp(min=1)
                assert (one - other).abs().max() <= 1e-6 * size


@pytest.fixture(scope="module")
def fitted():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "number": rng.normal(size=150),
            "gaps": np.where(rng.random(150) < 0.2, np.nan, rng.normal(3, 2, 150)),
            "text": rng.choice(["u", "v", "w"], 150),
        }
    )
    y = np.stack([table.number + 2 * (table.text == "u"), rng.normal(100, 9, 150)], 1)
    model = ConditionalDensityEstimator(max_epochs=10, n_folds=2, random_state=0).fit(table, y)
    return model, table, y


def test_the_density_of_a_table_is_that_of_the_estimator(fitted):
    model, table, y = fitted
    part = density_part(model)
    weights, means, variance, log_density = part.module(
        columns_as_numbers(model, table), torch.tensor(y)
    )
    q = model.predict_distribution(table)
    assert torch.allclose(weights, q.weights, rtol=1e-9)
    assert torch.allclose(means, q.means, rtol=1e-9)
    assert torch.allclose(variance, q.component_variance, rtol=1e-9)
    assert np.allclose(log_density, model.score_samples(table, y), atol=1e-9)
    assert json.loads(part.notes["categories"]) == {
        "'text'": sorted("uvw", key=lambda text: (-(table.text == text).sum(), text))
    }


def test_unknown_texts_and_gaps_are_nan(fitted):
    model, table, _ = fitted
    model.handle_unknown = "missing"
    numbers = columns_as_numbers(model, table.head(3))
    assert numbers.dtype == torch.float64
    assert numbers[:, 1].isnan().tolist() == table.gaps.head(3).isna().tolist()


def test_a_table_run_is_exported(tmp_path):
    table = write_table(tmp_path / "table.csv", n=80)
    config = TableConfig.create(data=str(table), target="weight", max_epochs=5)
    run = TableRun.fit(tmp_path / "run", config, quiet=True)
    result = ask("export", run.path, "-o", tmp_path / "density.onnx")
    assert result.exit_code == 0, result.output
    assert "density: x, y -> weights, means, variance, log_density" in result.stdout
    frame = pd.read_csv(table).head(1)
    x = columns_as_numbers(run.model, frame.drop(columns="weight"))
    got = onnx_outputs(tmp_path / "density.onnx", x, frame[["weight"]].to_numpy())
    expected = run.model.score_samples(frame.drop(columns="weight"), frame["weight"])
    assert np.allclose(got["log_density"], expected, atol=1e-6)


def test_a_file_that_differs_is_not_kept(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("hilbound.export.files.TOLERANCE", -1.0)
    with pytest.raises(FloatingPointError, match="differs from the model's by"):
        export_run(runs["network"].path, tmp_path / "sampler.onnx")
    result = ask("export", runs["network"].path, "-o", tmp_path / "sampler.onnx")
    assert result.exit_code == 1
    assert "use --format torch" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("output", "options", "words"),
    [
        ("a.onnx", {"format": "torch"}, r"must end in \.pt2"),
        ("a.onnx", {"format": "keras"}, "format must be 'onnx' or 'torch', got 'keras'"),
        ("a.onnx", {"part": "encoder"}, "this run has no part 'encoder': it has sampler"),
        ("none/a.onnx", {}, "must be a file in a folder that is there"),
    ],
)
def test_wrong_use_is_refused(runs, tmp_path, output, options, words):
    with pytest.raises(InputError, match=words):
        export_run(runs["network"].path, tmp_path / output, **options)


def test_the_missing_extra_is_named(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnx" else 1)
    with pytest.raises(InputError, match=r"needs onnx: pip install 'hilbound\[export\]'"):
        export_run(runs["network"].path, tmp_path / "a.onnx")
