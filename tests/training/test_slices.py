"""Trainings by slices: a feature, and rows that share it, against the model at that feature."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import hilbound
from hilbound import datasets
from hilbound.config import RunConfig
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.models.autoencoders import EncoderMixtureDecoder, MixtureDecoder
from hilbound.models.encoder import Encoder
from hilbound.objectives import BlockObjective, DebiasedNuclearNorm, NuclearNorm, ScalarCost
from hilbound.reports.run_report import write_report
from hilbound.training.batches import SharingRows, SliceStream
from hilbound.training.loop import batches_of
from hilbound.training.memory import least_memory
from hilbound.training.plan import plan_training
from hilbound.training.runs import Run
from support.tiny_runs import TINY, ask, flags, same_weights, train, weights, write_points
from support.trainings import curve, press_ctrl_c, stop_at

ENCODER = {"model": "autoencoder", "features": 1, "variance_y": 0.1, "noise_dim": 16}
SLICES = {
    "model": "encoder-mixture-decoder",
    "features": 1,
    "slices": 4,
    "batch_size": 32,
    "bound_every": 5,
    "learning_rate": 5e-3,
}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A run whose encoder is taken over."""
    return str(train(tmp_path_factory.mktemp("encoder") / "run", **ENCODER).path)


def draws(features, n, steps, *, slices=1, variance_y=0.3, first=0):
    """The numbers of the rows in each slice, and the features of the slices."""
    made = SliceStream(
        SharingRows(torch.arange(len(features)).unsqueeze(-1), features, variance_y),
        slices=slices,
        batch_size=slices * n,
        steps=steps,
        seed=0,
        first=first,
    )
    batches = list(made)
    return torch.stack([b.x.squeeze(-1) for b in batches]), torch.stack(
        [b.features for b in batches]
    )


# ------------------------------------------------------------------ which rows a slice has


def test_a_row_is_drawn_as_often_as_its_weight_says():
    features = torch.tensor([[-1.0], [0.0], [0.2], [1.5]])
    chosen, y = draws(features, 1, 500, slices=40)
    chosen, y = chosen.flatten(), y.reshape(-1, 1)
    # The expected share of every row, at the features that were drawn.
    exponents = -((y.double() - features.double().T) ** 2) / (2 * 0.3)
    expected = np.exp(exponents.numpy())
    expected /= expected.sum(1, keepdims=True)
    found = torch.nn.functional.one_hot(chosen, 4).double().numpy()
    error = np.sqrt((expected * (1 - expected)).sum(0)) / len(chosen)
    assert np.all(np.abs(found.mean(0) - expected.mean(0)) < 4 * error)
    # Also near one feature alone.
    near = (y.flatten() - 0.1).abs() < 0.1
    gap = found[near].mean(0) - expected[near].mean(0)
    assert np.all(np.abs(gap) < 4 * np.sqrt(expected[near].max(0) / int(near.sum())))


def test_features_of_slices_are_those_of_random_rows_with_their_noise():
    features = torch.tensor([[-10.0], [0.0], [10.0]])
    _, y = draws(features, 1, 400, slices=30)
    noise = y.flatten() - 10 * (y.flatten() / 10).round()
    shares = (y.flatten() / 10).round().long().add(1).bincount(minlength=3) / 12_000
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.02)
    assert float(noise.var()) == pytest.approx(0.3, rel=0.06)
    assert float(noise.mean()) == pytest.approx(0, abs=0.02)


def test_a_slice_has_no_row_twice_and_may_have_all():
    features = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    for n in (5, 9):
        chosen, _ = draws(features, n, 20, slices=3)
        assert chosen.shape == (20, 3, n)
        assert all(len(set(one.tolist())) == n for one in chosen.flatten(0, 1))


def test_slices_go_on_where_another_stream_stopped():
    features = torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    chosen, y = draws(features, 4, 6, slices=3)
    late, late_y = draws(features, 4, 6, slices=3, first=2)
    assert torch.equal(chosen[2:], late)
    assert torch.equal(y[2:], late_y)
    assert not torch.equal(chosen[0], chosen[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_rows_of_another_class_never_share_a_feature():
    features, labels = torch.zeros(9, 1), torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2])
    sharing = SharingRows(torch.arange(9).unsqueeze(-1), features, 0.3, labels)
    assert sharing.most == 1
    assert SharingRows(sharing.rows, features, 0.3).most == 9
    weights_of = sharing.log_weights(torch.zeros(3, 1), torch.tensor([0, 1, 2])).softmax(-1)
    expected = [[1 / 5] * 5 + [0] * 4, [0] * 5 + [1 / 3] * 3 + [0], [0] * 8 + [1]]
    torch.testing.assert_close(weights_of, torch.tensor(expected))
    kept = labels < 2
    sharing = SharingRows(sharing.rows[kept], features[kept], 0.3, labels[kept])
    made = SliceStream(sharing, slices=40, batch_size=120, steps=5, seed=0)
    seen = []
    for batch in made:
        assert batch.x.shape == (40, 3, 1)
        assert torch.equal(labels[batch.x.squeeze(-1)], batch.labels.unsqueeze(-1).expand(40, 3))
        seen += batch.labels.tolist()
    # A slice has the class of a random row.
    assert np.mean(seen) == pytest.approx(3 / 8, abs=0.1)


# ------------------------------------------------------------------ what is compared


def model():
    torch.manual_seed(0)
    made = EncoderMixtureDecoder(
        Encoder(nn.Linear(3, 1), 3, standardized=1),
        MixtureDecoder(nn.Linear(1 + 2, 3), 1, 2, variance=0.5),
        variance_y=0.01,
    )
    made.freeze_encoder()
    return made.double()


def test_all_centres_of_a_slice_have_its_feature():
    made = model()
    x, y = torch.randn(4, 6, 3).double(), torch.randn(4, 1).double()
    p, q, penalty = made.compare_slices(x, y, 0.7, 5, stream(0, "slices"))
    noise = made.decoder.noise(4, 5, generator=stream(0, "slices"))
    inputs = torch.cat([y.unsqueeze(1).expand(4, 5, 1), noise], -1)
    assert torch.equal(p.means, x)
    torch.testing.assert_close(q.means, made.decoder.network(inputs), rtol=1e-12, atol=0)
    assert p.component_variance.item() == 0.7
    assert penalty == 0
    for wrong in (x[0], x[:3]):
        with pytest.raises(InputError, match=r"shapes \(S, n, d\) and \(S, F\)"):
            made.compare_slices(wrong, y, 0.7, 5)


def gram(a, b, variance):
    """Normalised overlaps of components of equal variance, in numpy."""
    square = ((a[:, None] - b[None]) ** 2).sum(-1)
    return np.exp(-square / (4 * variance))


def nuclear(a, b, variance):
    return np.linalg.svd(gram(a, b, variance), compute_uv=False).sum() / np.sqrt(len(a) * len(b))


def test_losses_of_slices_are_means_of_dense_ones():
    made = model()
    x, y = torch.randn(4, 6, 3).double(), torch.randn(4, 1).double()
    with torch.no_grad():
        p, q, _ = made.compare_slices(x, y, 0.5, 6, stream(0, "slices"))
    share = torch.full((4,), 0.25).double()
    plain = [nuclear(a, b, 0.5) for a, b in zip(x.numpy(), q.means.numpy(), strict=True)]
    found = BlockObjective(NuclearNorm(), share)(p, q)
    assert found.item() == pytest.approx(-np.mean(plain), rel=1e-9)
    halves = []
    for a, b in zip(x.numpy(), q.means.numpy(), strict=True):
        to_data = nuclear(a[:3], b[:3], 0.5) + nuclear(a[:3], b[3:], 0.5)
        halves.append(0.4 * nuclear(b[:3], b[3:], 0.5) - 0.5 * to_data)
    found = BlockObjective(DebiasedNuclearNorm(0.4), share)(p, q)
    assert found.item() == pytest.approx(np.mean(halves), rel=1e-9)
    bound = BlockObjective(NuclearNorm(), share).bound(p, q)
    assert float(bound.log_limit) == pytest.approx(0, abs=1e-12)
    assert float(bound.tightness) == pytest.approx(np.mean(plain), rel=1e-9)


@pytest.mark.parametrize("objective", [NuclearNorm(), ScalarCost(), DebiasedNuclearNorm(0.4)])
def test_gradients_of_slices(objective):
    made = model()
    x, y = torch.randn(3, 4, 3).double(), torch.randn(3, 1).double()
    loss = BlockObjective(objective, torch.full((3,), 1 / 3).double())

    def of(weight):
        q = torch.func.functional_call(
            made.decoder,
            {"network.weight": weight},
            (y, made.decoder.noise(3, 4, generator=stream(0, "slices"))),
        )
        p = made.compare_slices(x, y, 0.5, 4, stream(0, "slices")).p
        return loss(p, q)

    weight = made.decoder.network.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(of, (weight,), atol=1e-7)


# ------------------------------------------------------------------ runs


@pytest.mark.parametrize("objective", ["debiased", "nuclear", "schatten", "scalar", "likelihood"])
def test_a_decoder_learns_from_slices(tmp_path, encoder, objective):
    options = SLICES | {"encoder": encoder, "objective": objective, "steps": 20}
    run = train(tmp_path / "run", **options)
    losses = [row["loss"] for row in run.read_bounds() if row["split"] == "validation"]
    assert losses[-1] < losses[0] - 1e-3
    if objective != "likelihood":  # its limit holds in expectation only
        assert all(row["gap"] >= -1e-6 for row in run.read_bounds())
    taken, first = weights(run), weights(Run.open(encoder))
    names = [name for name in first if name.startswith("encoder.")]
    assert names
    assert all(torch.equal(taken[name], first[name]) for name in names)
    assert run.model.reconstruct(run.dataset.test[:5], 3).shape == (5, 3, 2)
    assert torch.equal(run.sample(7, seed=3), Run.open(run.path).sample(7, seed=3))


def test_slices_given_a_class(tmp_path, monkeypatch):
    shared = {"data": "digits", "condition": "classes"}
    first = train(tmp_path / "encoder", **ENCODER, **shared)
    options = SLICES | shared | {"encoder": str(first.path)}
    whole = train(tmp_path / "whole", **options)
    held_out = [row for row in whole.read_bounds() if row["split"] == "validation"]
    assert all(0 < row["tightness"] <= 1 and 0 < row["real_tightness"] <= 1 for row in held_out)
    assert all(row["gap"] >= -1e-6 for row in whole.read_bounds())
    assert whole.sample(3, label=7).shape == (3, 64)
    stop_at(monkeypatch, 5, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", **options)
    assert same_weights(hilbound.resume(tmp_path / "part", quiet=True), whole)


def test_slices_of_the_smallest_class_are_large_enough():
    shared = {"data": "digits", "condition": "classes", "encoder": "none"}
    config = RunConfig.create(**TINY | SLICES | shared | {"batch_size": 800})
    says = r"slices of 200 rows, and the smallest class has 1\d\d training rows: lower batch_size"
    with pytest.raises(InputError, match=says):
        plan_training(config)
    digits = datasets.load("digits")
    few = replace(
        digits,
        validation=digits.validation[:30],
        validation_labels=digits.validation_labels[:30],
    )
    says = r"at least 4 rows, and the smallest class has [1-3] validation rows: give more data"
    with pytest.raises(InputError, match=says):
        plan_training(RunConfig.create(**TINY | SLICES | shared), dataset=few)


def test_the_curve_has_what_as_many_real_rows_reach(tmp_path, encoder):
    options = SLICES | {"encoder": encoder, "objective": "nuclear"}
    run = train(tmp_path / "run", **options)
    rows = run.read_bounds()
    assert all(row["real_tightness"] is None for row in rows if row["split"] == "train")
    held_out = [row for row in rows if row["split"] == "validation"]
    made = plan_training(run.config)
    batch = next(iter(batches_of(made, "validation", steps=1)))
    train_rows = made.dataset.train
    weights_of = made.model.features_of(train_rows).detach()
    for row in held_out:
        draws = stream(run.config.seed, "real rows", int(row["step"]))
        real = SharingRows(train_rows, weights_of, made.model.variance_y)
        found = real.draw(batch.features, 8, draws).double().numpy()
        variance = row["variance"] / 2
        expected = [
            nuclear(a, b, variance) for a, b in zip(batch.x.double().numpy(), found, strict=True)
        ]
        assert row["real_tightness"] == pytest.approx(np.mean(expected), rel=1e-4)
    # No held-out row is among them.
    assert not {tuple(r) for r in batch.x.flatten(0, 1).tolist()} & set(
        map(tuple, train_rows.tolist())
    )
    report = tmp_path / "report.html"
    write_report(run, report)
    assert "validation, real rows" in report.read_text(encoding="utf-8")


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch, encoder):
    options = SLICES | {"encoder": encoder, "learn_weights": True}
    whole = train(tmp_path / "whole", **options)
    stop_at(monkeypatch, 5, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", **options)
    # The run of the encoder is no longer needed: the checkpoint has its weights.
    monkeypatch.setattr("hilbound.training.plan.take_encoder", lambda *_: pytest.fail("was read"))
    resumed = hilbound.resume(tmp_path / "part", quiet=True)
    assert same_weights(resumed, whole)
    assert curve(resumed) == curve(whole)


def test_lightning_does_the_loop_that_one_would_write(tmp_path, encoder):
    run = train(tmp_path / "run", **SLICES, encoder=encoder, decay=False)
    config = run.config
    made = plan_training(config)
    inner, variance = made.model, made.objective.objective.component_variance(made.schedule.start)
    learning = [p for p in inner.parameters() if p.requires_grad]
    betas = (config.beta1, config.beta2)
    adam = torch.optim.Adam(learning, config.learning_rate, betas, fused=True)
    rows = made.dataset.train
    batches = SliceStream(
        SharingRows(rows, inner.features_of(rows).detach(), inner.variance_y),
        slices=4,
        batch_size=32,
        steps=config.steps,
        seed=config.seed,
    )
    for step, (x, _, y) in enumerate(batches):
        q = inner.decode(y, 8, stream(config.seed, "noise", step, 0))
        p = hilbound.GaussianMixture(x, variance)
        loss = made.objective.objective(p, q).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    inner.remember(rows)
    for name, tensor in inner.state_dict().items():
        torch.testing.assert_close(weights(run)[name], tensor, rtol=1e-5, atol=1e-6)


def test_held_out_slices_have_held_out_rows(tmp_path, encoder):
    data = write_points(tmp_path / "points.npy")
    made = plan_training(RunConfig.create(data=str(data), **TINY | SLICES, encoder=encoder))
    batches = list(batches_of(made, "validation", steps=2))
    held_out = {tuple(row) for row in made.dataset.validation.tolist()}
    for batch in batches:
        assert batch.x.shape[:2] == (4, 8)
        assert {tuple(row) for row in batch.x.flatten(0, 1).tolist()} <= held_out


def test_defaults_of_slices_do_not_overrule_the_user():
    shared = {"data": "moons", "model": "encoder-mixture-decoder", "slices": 16, "encoder": "e"}
    config = RunConfig.create(**shared)
    assert (config.objective, config.batch_size, config.centers) == ("debiased", 4096, None)
    assert config.rows_per_slice == 256
    own = RunConfig.create(**shared, objective="nuclear", batch_size=64, centers=3)
    assert (own.objective, own.rows_per_slice, own.centers) == ("nuclear", 4, 3)


def test_slices_that_few_rows_share_are_named(tmp_path, caplog):
    options = {**ENCODER, "variance_y": 1e-6}
    narrow = train(tmp_path / "narrow", **options)
    data = write_points(tmp_path / "points.npy")
    config = RunConfig.create(
        data=str(data), **TINY | SLICES, encoder=str(narrow.path), variance_y=1e-6
    )
    caplog.clear()
    plan_training(config)
    assert "a feature is shared by about 1 of" in caplog.text
    assert "a slice has 8 rows" in caplog.text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "mixture-density-network"}, "slices has no effect for model 'mixture-density"),
        ({"model": "autoencoder"}, "use encoder-mixture-decoder"),
        ({"model": "latent-mixture"}, "use encoder-mixture-decoder"),
        ({"encoder": None}, "slices 4 needs features that stay as they are: name the run"),
        ({"condition": "clusters=3"}, "use condition 'classes', or leave it out"),
        ({"slices": 0}, "slices"),
        ({"objective": "conditional"}, "'conditional' cannot compare slices: use 'debiased' or"),
        ({"objective": "joint-nuclear"}, "'joint-nuclear' cannot compare slices"),
        (
            {"objective": "scalar", "objective_options": {"momentum": 0.9}},
            "momentum is for a mixture without blocks",
        ),
        ({"batch_size": 12}, "leaves 3 rows for each of 4 slices, and a slice needs at least 4"),
        ({"batch_size": 100_000}, "makes slices of 25000 rows, and there are"),
    ],
)
def test_wrong_options_are_named(tmp_path, encoder, options, says):
    data = write_points(tmp_path / "points.npy")
    kept = {k: v for k, v in (SLICES | {"encoder": encoder} | options).items() if v is not None}
    if kept["model"] != "encoder-mixture-decoder":
        del kept["encoder"], kept["features"]
    with pytest.raises(InputError, match=says):
        plan_training(RunConfig.create(data=str(data), **kept))


def test_slices_beyond_memory_are_refused(monkeypatch):
    options = SLICES | {"slices": 10, "batch_size": 2000, "encoder": "e", "width": 8, "depth": 1}
    config = RunConfig.create(data="moons", **options)
    # Ten matrices of 200 by 200, and their gradients; 2,000 centres.
    grams = 2 * 10 * 200 * 200
    assert 4 * grams < least_memory(config, 2) < 2 * 4 * grams
    monkeypatch.setattr("hilbound.training.memory.machine_memory", lambda: 4 * grams)
    with pytest.raises(InputError, match="lower --batch-size"):
        plan_training(config)


def test_the_command_line_takes_slices_and_the_report_tells_of_them(tmp_path, encoder):
    data, out = str(write_points(tmp_path / "points.npy")), tmp_path / "run"
    result = ask("fit", data, *flags(**SLICES, encoder=encoder), "-o", str(out))
    assert result.exit_code == 0, result.output
    assert Run.open(out).config.slices == 4
    report = (out / "report.html").read_text(encoding="utf-8")
    assert "by slices of 8 rows that share a feature." in report
