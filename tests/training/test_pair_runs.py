"""Trainings on pairs of a row and its features: what is compared, and by which scale."""

import pytest
import torch
from torch import nn

import hilbound
from hilbound import functional as F
from hilbound.config import RunConfig
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.models.autoencoders import EncoderMixtureDecoder, MixtureDecoder
from hilbound.models.classes import ClassConditional, ClassDecoder
from hilbound.models.encoder import Encoder
from hilbound.objectives import JointNuclearNorm
from hilbound.training.memory import least_memory
from hilbound.training.plan import plan_training
from hilbound.variance import joint_feature_variance
from support.tiny_runs import ask, flags, same_weights, train, weights, write_points

PAIRS = {
    "model": "encoder-mixture-decoder",
    "objective": "joint-nuclear",
    "features": 1,
    "centers": 2,
}


def model(frozen=False, decoder=MixtureDecoder, features=1, **options):
    torch.manual_seed(0)
    encoder = Encoder(nn.Linear(3, 1), 3, standardized=1)
    made = EncoderMixtureDecoder(
        encoder,
        decoder(nn.Linear(features + 2, 3), 1, 2, variance=0.5, **options),
        variance_y=0.01,
    )
    if frozen:
        made.freeze_encoder()
    return made.double()


def rows(n=6):
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_pairs_are_rows_and_centres_beside_the_features_they_belong_to():
    made, x = model(), rows()
    p, q, (around, each) = made.compare_pairs(x, 0.5, 4, 0.3, generator=stream(0, "pairs"))
    draws = stream(0, "pairs")
    features = made.encode(x)
    # The running averages moved with the call before: its features are not those of this one.
    made = model()
    features = made.encode(x)
    own, of_centres = made.perturb(features, draws), made.perturb(features, draws)
    centres = made.decode(of_centres, 4, draws)
    assert torch.equal(p.means, torch.cat([x, own], -1))
    assert torch.equal(q.means[:, :3], centres.means.flatten(0, 1))
    assert torch.equal(q.means[:, 3], of_centres.squeeze(-1).repeat_interleave(4))
    assert p.component_variance.flatten().tolist() == [0.5, 0.5, 0.5, 0.3]
    assert torch.equal(each.means, centres.means)
    assert torch.equal(around.means.squeeze(1), x)
    # The loss sees the fidelity of pairs.
    expected = F.joint_fidelity(
        GaussianMixture(x, 0.5),
        own,
        GaussianMixture(centres.means.flatten(0, 1), 0.5),
        of_centres.repeat_interleave(4, 0),
        0.3,
    )
    assert (-JointNuclearNorm()(p, q)).item() == pytest.approx(expected.item(), rel=1e-12)


def test_an_encoder_is_trained_by_its_own_term_and_a_frozen_one_by_none():
    x, objective = rows(), JointNuclearNorm(encoder_weight=0.5)
    compared = model().compare_pairs(x, 0.5, 4, 0.3, generator=stream(0, "pairs"))
    around, each = compared.each
    unit = GaussianMixture(x[:1], 0.5).log_norm()
    expected = 0.5 * (unit - F.conditional_log_scalar_cost(around, each))
    assert objective.encoder_loss(around, each).item() == pytest.approx(expected.item())
    assert not JointNuclearNorm(encoder_weight=0.0).encoder_loss(around, each).any()
    assert model(frozen=True).compare_pairs(x, 0.5, 4, 0.3).each is None


def test_features_beside_rows_have_no_gradient():
    """Else an encoder that makes all features alike would look best."""
    made = model()
    p, q, _ = made.compare_pairs(rows(), 0.5, 4, 0.3, generator=stream(0, "pairs"))
    assert not p.means.requires_grad
    gradient = torch.autograd.grad(q.means[:, 3:].sum(), list(made.parameters()), allow_unused=True)
    assert all(g is None or not g.any() for g in gradient)


def test_rows_and_centres_of_other_classes_do_not_meet():
    inner = model(decoder=ClassDecoder, features=3, classes=2)
    made, x, labels = ClassConditional(inner), rows(), torch.tensor([0, 1, 0, 1, 0, 1])
    p, q, _ = made.compare_pairs(x, 0.5, 2, 0.3, labels=labels)
    q = GaussianMixture(q.means.detach(), q.component_variance)
    k = p.log_overlaps(q).exp()
    others = labels.unsqueeze(-1) != labels.repeat_interleave(2)
    assert float(k[others].max()) < 1e-40
    assert float(k[~others].min()) > 0
    by_class = [
        float(F.fidelity(p.select(labels == c), q.select(labels.repeat_interleave(2) == c)))
        for c in (0, 1)
    ]
    assert float(F.fidelity(p, q)) == pytest.approx(sum(by_class) / 2)


def test_the_variance_in_the_features_shares_a_row_with_as_many_as_the_rule_says():
    y = torch.randn(400_000, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for features, batch in ((1, 512), (3, 300)):
        v = joint_feature_variance(features, batch)
        square = (y[:, 0, :features] - y[:, 1, :features]).square().sum(-1)
        shared = batch * (-square / (4 * v)).exp()
        assert float(shared.mean()) == pytest.approx(36, abs=5 * float(shared.std()) / 632)
    v = joint_feature_variance(2, 20)
    assert 20 * v / (v + 1) == pytest.approx(10)


def test_the_variance_in_the_features_is_recorded_and_said(tmp_path):
    run = train(tmp_path / "run", **PAIRS)
    by_rule = joint_feature_variance(1, 32)
    assert run.read_json("run.json")["feature_variance"] == pytest.approx(by_rule)
    data = str(write_points(tmp_path / "points.npy"))
    out = tmp_path / "told"
    options = flags(**PAIRS, objective_options="feature_variance=0.2")
    result = ask("fit", data, *options, "-o", str(out), "--no-report")
    assert "variance of a component in the features: 0.2\n" in result.output
    assert hilbound.Run.open(out).read_json("run.json")["feature_variance"] == 0.2


def test_a_frozen_encoder_stays_and_the_decoder_learns(tmp_path):
    first = train(tmp_path / "first", **PAIRS)
    run = train(tmp_path / "run", **PAIRS, encoder=str(first.path), steps=20)
    before, after = weights(first), weights(run)
    encoder = [name for name in before if name.startswith("encoder.")]
    assert encoder
    assert all(torch.equal(before[name], after[name]) for name in encoder)
    cost = [row["log_value"] for row in run.read_bounds() if row["split"] == "validation"]
    assert cost[-1] > cost[0]
    assert all(row["gap"] >= -1e-6 for row in run.read_bounds())
    again = train(tmp_path / "again", **PAIRS, encoder=str(first.path), steps=20)
    assert same_weights(run, again)


def test_defaults_of_pairs_do_not_overrule_the_user():
    config = RunConfig.create(
        data="moons", model="encoder-mixture-decoder", objective="joint-nuclear"
    )
    assert (config.centers, config.batch_size, config.variance) == (1, 512, "median")
    own = RunConfig.create(data="moons", **PAIRS | {"batch_size": 64, "variance": 2.0})
    assert (own.centers, own.batch_size, own.variance) == (2, 64, 2.0)
    assert RunConfig.create(data="moons", model="autoencoder", objective="joint-nuclear")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "mixture-density-network"}, "'joint-nuclear' cannot train model"),
        ({"learn_variance": True}, "one variance for all centres"),
        ({"objective_options": {"power": 1.2}}, r"power must lie in \(0, 1\]"),
        ({"objective_options": {"weight": -1}}, "weight must be 0 or more"),
        ({"objective_options": {"feature_variance": 0}}, "feature_variance must be positive"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, says):
    data = write_points(tmp_path / "points.npy")
    options = PAIRS | options
    if options["model"] == "mixture-density-network":
        options = {"model": options["model"], "objective": "joint-nuclear"}
    with pytest.raises(InputError, match=says):
        plan_training(RunConfig.create(data=data, **options))


def test_pairs_beyond_memory_are_refused_before_anything_is_made(monkeypatch):
    config = RunConfig(data="moons", **PAIRS | {"batch_size": 100, "centers": 50, "width": 10})
    # The matrix of 100 rows and 5,000 centres, and its gradient.
    assert least_memory(config, 2) >= 4 * 2 * 100 * 5000
    monkeypatch.setattr("hilbound.training.memory.machine_memory", lambda: 4 * 2 * 100 * 5000)
    monkeypatch.setattr("hilbound.training.plan.build_model", lambda *_: pytest.fail("was built"))
    with pytest.raises(InputError, match=r"lower --batch-size, --centers or --width"):
        plan_training(config)


def test_a_class_conditional_model_learns_from_pairs(tmp_path):
    options = PAIRS | {"data": "digits", "samples": 200, "condition": "classes", "steps": 8}
    run = train(tmp_path / "run", **options)
    assert run.model.sample(3, label=2).shape == (3, 64)
    assert all(row["gap"] >= -1e-6 for row in run.read_bounds())
