"""Runs with a condition: they learn, go on bit for bit, draw one block, refuse what cannot be."""

import html
import math

import numpy as np
import pytest
import torch

import hilbound
from hilbound.config import RunConfig
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.evaluation.evaluate import evaluate
from hilbound.mixture import GaussianMixture
from hilbound.models.autoencoders import EncoderMixtureDecoder
from hilbound.models.blocks import BlockDensityNetwork
from hilbound.models.build import DataShape, build_model
from hilbound.models.classes import ClassConditional
from hilbound.objectives import BlockObjective, create_objective
from hilbound.reports.run_report import write_report
from hilbound.training.batches import BlockStream
from hilbound.training.memory import least_memory
from hilbound.training.plan import plan_training
from hilbound.training.runs import Run
from support.tiny_runs import ask, flags, same_weights, train, weights
from support.trainings import curve, press_ctrl_c, stop_at, validation

pytest_plugins = ["support.fixtures_runs"]

CLUSTERS, CLASSES = {"condition": "clusters=3"}, {"condition": "classes"}
PLAIN = {"noise_dim": 16}
KINDS = {
    "clusters": CLUSTERS,
    "classes": CLASSES,
    "decoder": CLASSES
    | {"model": "encoder-mixture-decoder", "features": 1, "centers": 3, "bound_every": 4},
    "autoencoder": CLASSES | PLAIN | {"model": "autoencoder", "variance_y": 0.05},
    "vae": CLASSES | PLAIN | {"model": "vae"},
}
BY_BLOCKS = sorted(BlockDensityNetwork.objectives)


def write_groups(path, n=240, classes=3):
    """Points of the plane in groups, whose numbers are their labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % classes
    x = rng.normal(size=(n, 2)) + 3 * np.stack([labels, labels % 2], 1)
    np.savez(path, x=x, y=labels)
    return path


@pytest.fixture
def groups(tmp_path):
    return write_groups(tmp_path / "groups.npz")


@pytest.mark.parametrize(
    ("objective", "condition"),
    [*((name, "clusters=3") for name in BY_BLOCKS), ("nuclear", "classes")],
)
def test_every_objective_learns_within_its_limit(tmp_path, groups, objective, condition):
    run = train(tmp_path / "run", data=groups, steps=24, objective=objective, condition=condition)
    rows = validation(run)
    assert rows[-1]["loss"] < rows[0]["loss"] - 1e-4
    for row in run.read_bounds():
        # The likelihood's limit holds in expectation only.
        assert row["gap"] > (-math.inf if objective == "likelihood" else -1e-5)
        assert all(math.isfinite(row[key]) for key in ("loss", "gap", "tightness"))
    assert run.sample(5).isfinite().all()


@pytest.mark.parametrize(("kind", "step"), [*((kind, 5) for kind in KINDS), ("clusters", 3)])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, groups, monkeypatch, kind, step):
    whole = train(tmp_path / "whole", data=groups, **KINDS[kind])
    stop_at(monkeypatch, step, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", data=groups, **KINDS[kind])
    assert Run.open(tmp_path / "part").sample(3, label=2).isfinite().all()
    resumed = hilbound.resume(tmp_path / "part", quiet=True)
    assert same_weights(resumed, whole)
    assert curve(resumed) == curve(whole)


def test_a_resumed_run_keeps_its_clusters(tmp_path, groups, monkeypatch):
    """They are read from the checkpoint: another version of scikit-learn may find others."""
    whole = train(tmp_path / "whole", data=groups, **CLUSTERS)
    stop_at(monkeypatch, 5, press_ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "part", data=groups, **CLUSTERS)

    def refuse(*_):
        raise AssertionError("the clusters of a resumed run are searched anew")

    monkeypatch.setattr("hilbound.models.blocks.Clusters.fit", refuse)
    assert same_weights(hilbound.resume(tmp_path / "part", quiet=True), whole)


def test_clusters_are_stored_as_numbers_and_read_without_the_data(tmp_path, groups):
    run = train(tmp_path / "run", data=groups, **CLUSTERS)
    stored = weights(run)
    assert {"clusters.offset", "clusters.directions", "clusters.centers", "share"} <= set(stored)
    assert float(stored["share"].sum()) == pytest.approx(1, abs=1e-6)
    groups.unlink()
    opened = Run.open(run.path)
    assert torch.equal(opened.sample(7, seed=3, label=1), run.sample(7, seed=3, label=1))
    x = torch.randn(9, 2)
    assert torch.equal(opened.model.blocks_of(x), run.model.blocks_of(x))


def test_validation_and_test_rows_do_not_move_the_clusters(groups):
    made = plan_training(RunConfig(data=str(groups), width=8, batch_size=30, **CLUSTERS))
    changed = hilbound.datasets.Dataset(
        "groups",
        made.dataset.train,
        made.dataset.validation[:9] + torch.randn(9, 2),
        made.dataset.test + 5,
        made.dataset.train_labels,
        made.dataset.validation_labels[:9],
        made.dataset.test_labels,
    )
    other = plan_training(made.config, dataset=changed)
    for name in ("share", "clusters.centers"):
        assert torch.equal(made.model.state_dict()[name], other.model.state_dict()[name])


def test_lightning_does_the_loop_that_one_would_write(tmp_path, groups):
    """Batches of blocks, mixtures with batch shape (C,), one function: without Lightning."""
    run = train(tmp_path / "run", data=groups, objective="debiased", **CLUSTERS)
    config = run.config
    made = plan_training(config)
    model, x = made.model, made.dataset.train
    objective = BlockObjective(create_objective("debiased"), model.share)
    variance = made.data_variance(0)
    betas = (config.beta1, config.beta2)
    # Fused, as in a training, to have the same bits.
    adam = torch.optim.Adam(model.parameters(), config.learning_rate, betas, fused=True)
    cosine = torch.optim.lr_scheduler.LambdaLR(
        adam, lambda step: 0.5 * (1 + math.cos(math.pi * step / config.steps))
    )
    rows = config.batch_size // 3
    batches = BlockStream(x, model.blocks_of(x), rows, steps=config.steps, seed=config.seed)
    for step, batch in enumerate(batches):
        noise = model.normal(3, rows, 2, generator=stream(config.seed, "noise", step, 0))
        loss = objective(GaussianMixture(batch, variance), model(noise))
        adam.zero_grad()
        loss.backward()
        adam.step()
        cosine.step()
    found, expected = weights(run), model.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@torch.no_grad()
def test_a_class_conditional_bound_is_that_of_rows_of_one_class():
    """Against sums over rows, features and centres in float64, written out."""
    torch.manual_seed(0)
    config = RunConfig(data="x", model="encoder-mixture-decoder", width=8, depth=1, **CLASSES)
    model = build_model(config, DataShape(3, None, 50, 4), 0.3).double()
    assert isinstance(model, ClassConditional)
    assert isinstance(model.model, EncoderMixtureDecoder)
    x, labels = torch.randn(30, 3).double(), torch.arange(30) % 4
    v, v_y = 0.6, model.model.variance_y
    bound = model.bound(x, v, generator=stream(0, "t"), labels=labels)
    draws = stream(0, "t")
    y = model.model.features_of(x)
    at = model.model.perturb(y, draws)
    noise = model.decoder.noise(10, generator=draws)
    cross, own, norm = 0.0, 0.0, 0.0
    for m in range(30):
        same = labels == labels[m]
        w = (-(at[m] - y).square().sum(-1) / (2 * v_y)).masked_fill(~same, -math.inf).softmax(0)
        with model.evaluating(), model.decoder.told(labels[m]):
            q = model.decoder(at[m], noise)
        p = GaussianMixture(x, v, w)
        cross += float(p.log_inner(q).exp()) / 30
        own += float(q.log_norm().exp()) / 30
        norm += float(p.log_norm().exp()) / 30
    assert float(bound.log_value) == pytest.approx(2 * math.log(cross) - math.log(own), abs=1e-8)
    assert float(bound.log_limit) == pytest.approx(math.log(norm), abs=1e-8)


@pytest.mark.parametrize("kind", ["clusters", "decoder"])
def test_such_runs_are_measured_reported_and_drawn_from(tmp_path, groups, kind):
    run = train(tmp_path / "run", data=groups, **KINDS[kind])
    measured = evaluate(run)
    condition = measured["condition"]
    assert condition["blocks"] == 3
    assert condition["kind"] == ("clusters" if kind == "clusters" else "classes")
    assert 0 <= condition.get("agreement", {}).get("model", 0) <= 1
    assert ("reconstruction" in measured) == (kind == "decoder")
    assert ("conditional_bound" in measured) == (kind == "decoder")
    page = write_report(run).read_text(encoding="utf-8")
    one = "cluster" if kind == "clusters" else "class"
    name = "number" if kind == "clusters" else "name"
    assert f"samples of each {one} with its {name}" in page
    output = tmp_path / "drawn.csv"
    result = ask("sample", run.path, f"--{one}", 1, "-n", 6, "-o", output)
    assert result.exit_code == 0, result.stderr
    assert np.loadtxt(output, delimiter=",", skiprows=1).shape == (6, 2)
    density = run.sample(6, label=0, source="density")
    assert density.shape == (6, 2)
    if kind == "decoder":
        result = ask("reconstruct", run.path, "-n", 3, "-o", tmp_path / "r.npz")
        assert result.exit_code == 0, result.stderr


def test_agreement_counts_samples_in_the_block_they_were_drawn_for(tmp_path, groups):
    run = train(tmp_path / "run", data=groups, **CLUSTERS)
    model = run.model
    with torch.no_grad():  # centres of cluster c at its own middle
        clusters = model.clusters
        middles = clusters.centers @ clusters.directions.T + clusters.offset
        for layer in list(model.network)[:-1]:
            if hasattr(layer, "weight"):
                layer.weight.zero_()
                layer.bias.zero_()
        model.network[0].weight[:3, 2:] = 20 * torch.eye(3)
        model.network[-1].weight.zero_()
        model.network[-1].bias.zero_()
        model.network[-1].weight[:, :3] = middles.T / 20
    assert evaluate(run)["condition"]["agreement"] == {"model": 1.0}


def test_images_have_a_row_of_samples_for_each_class(tmp_path):
    run = train(tmp_path / "run", data="digits", samples=200, batch_size=60, **CLASSES)
    shares = evaluate(run)["condition"]["agreement"]
    assert 0 < shares["real"] <= 1  # as the classifier sees held-out rows
    page = write_report(run).read_text(encoding="utf-8")
    assert "a row of samples for each class" in page
    assert "hilbound sample RUN --class 0" in page


# ------------------------------------------------------------------ wrong input


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("labels", "condition: must be classes, or clusters=32"),
        ("clusters", "condition: must be classes, or clusters=32"),
        ("clusters=many", "condition: must be classes, or clusters=32"),
        ("clusters=-3", "condition: must be classes, or clusters=32"),
        ("classes=3", "condition: must be classes, or clusters=32"),
        ("clusters=1", "condition: must have at least 2 clusters"),
    ],
)
def test_unknown_conditions_are_refused(condition, message):
    with pytest.raises(InputError, match=message):
        RunConfig.create(data="moons", condition=condition)


def test_clusters_are_refused_for_models_with_features():
    with pytest.raises(InputError, match="'clusters=4' is for model 'mixture-density-network'"):
        RunConfig.create(data="moons", model="vae", condition="clusters=4")


def test_labels_that_the_data_do_not_have_are_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(100, 2)))
    for model in ("mixture-density-network", "vae"):
        with pytest.raises(InputError, match=r"condition 'classes' needs labels, and .* has none"):
            train(tmp_path / "run", data=path, model=model, noise_dim=16, **CLASSES)
    assert not (tmp_path / "run").exists()


def test_a_class_without_rows_in_a_split_is_refused():
    made = plan_training(RunConfig(data="moons", width=8, samples=100))
    data = made.dataset
    for split in ("train", "validation"):
        labels = {f"{split}_labels": torch.full_like(data.split(split)[1], 1)}
        broken = hilbound.datasets.Dataset(
            "moons",
            data.train,
            data.validation,
            data.test,
            **{
                "train_labels": data.train_labels,
                "validation_labels": data.validation_labels,
                "test_labels": data.test_labels,
            }
            | labels,
        )
        for model in ("mixture-density-network", "autoencoder"):
            config = RunConfig(data="moons", model=model, batch_size=20, **CLASSES)
            with pytest.raises(InputError, match=f"has no {split} rows of class 0"):
                plan_training(config, dataset=broken)


def test_more_clusters_than_rows_are_refused(tmp_path, groups):
    with pytest.raises(InputError, match="more clusters than the 192 training rows"):
        train(tmp_path / "run", data=groups, batch_size=400, condition="clusters=193")
    with pytest.raises(InputError, match="without any of the 24 validation rows"):
        train(tmp_path / "run", data=groups, batch_size=200, condition="clusters=100")


def test_batches_with_fewer_rows_than_blocks_are_refused(tmp_path, groups):
    with pytest.raises(InputError, match="batch_size 7 is less than 1 for each of the 8 blocks"):
        train(
            tmp_path / "run",
            data=groups,
            batch_size=7,
            condition="clusters=8",
            objective="nuclear",
        )
    with pytest.raises(InputError, match="centers 4 is less than 1 for each of the 8 blocks"):
        train(
            tmp_path / "run",
            data=groups,
            centers=4,
            condition="clusters=8",
            objective="nuclear",
        )
    with pytest.raises(InputError, match="batch_size 12 is less than 2 for each of the 8 blocks"):
        train(
            tmp_path / "run",
            data=groups,
            batch_size=12,
            condition="clusters=8",
            objective="debiased",
        )


def test_objectives_without_a_meaning_for_blocks_are_refused(tmp_path, groups):
    with pytest.raises(InputError, match="DistanceNuclearNorm has no meaning for blocks"):
        train(tmp_path / "run", data=groups, objective="distance", **CLASSES)
    with pytest.raises(InputError, match="momentum is for a mixture without blocks"):
        train(
            tmp_path / "run",
            data=groups,
            objective="scalar",
            objective_options={"momentum": 0.9},
            **CLASSES,
        )
    assert not (tmp_path / "run").exists()


def test_what_outgrows_the_memory_is_refused(monkeypatch, groups):
    monkeypatch.setattr("hilbound.training.memory.machine_memory", lambda: 10**9)
    big = RunConfig(data=str(groups), centers=10**7, batch_size=30, **CLUSTERS)
    with pytest.raises(InputError, match=r"need at least .* lower --batch-size, --centers"):
        plan_training(big)
    # The Gram matrices of blocks are smaller than that of all rows.
    options = {"data": "x", "objective": "schatten", "batch_size": 8000, "width": 1, "depth": 0}
    config = RunConfig(**options)
    assert least_memory(config, 1, 40) < least_memory(config, 1) / 20


def test_samples_of_blocks_that_are_not_there_are_refused(tmp_path, groups):
    by_class = train(tmp_path / "classes", data=groups, **CLASSES)
    clusters = train(tmp_path / "clusters", data=groups, **CLUSTERS)
    plain = train(tmp_path / "plain", data=groups)
    for run, words, message in [
        (by_class, ["--class", 3], "has no such class: known: 0, 1, 2"),
        (by_class, ["--class", -1], "class '-1': run"),
        (by_class, ["--cluster", 0], "has condition 'classes': use --class"),
        (clusters, ["--class", 0], "has condition 'clusters=3': use --cluster"),
        (clusters, ["--cluster", 3], "--cluster must lie between 0 and 2, the clusters of run"),
        (clusters, ["--cluster", -1], "got -1"),
        (plain, ["--class", 0], "has no condition: leave it out"),
        (plain, ["--cluster", 0], "has no condition: leave it out"),
    ]:
        result = ask("sample", run.path, *words)
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())
    for label in (1, "setosa"):
        with pytest.raises(InputError, match=f"label {label!r} is for a model with a condition"):
            plain.sample(3, label=label)


def test_the_command_line_takes_a_condition(tmp_path, groups):
    run = tmp_path / "run"
    result = ask("fit", groups, "-o", run, "--quiet", "--no-report", *flags(condition="clusters=3"))
    assert result.exit_code == 0, result.stderr
    assert Run.open(run).config.clusters == 3


def write_kinds(path, names, n=240):
    """A table of the same groups with their names in a column."""
    rng, lines = np.random.default_rng(0), ["x,y,kind"]
    for i in range(n):
        x, y = rng.normal(size=2) + 6 * (i % len(names))
        lines.append(f"{x},{y},{names[i % len(names)]}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_class_is_called_by_its_name(tmp_path):
    table = write_kinds(tmp_path / "iris.csv", ["virginica", "setosa", "big one"])
    run = train(tmp_path / "run", data=table, label_column="kind", **CLASSES)
    assert run.class_names == ("big one", "setosa", "virginica")
    for name, number in (("setosa", 1), ("big one", 0), ("2", 2)):
        assert torch.equal(run.sample(5, label=name), run.sample(5, label=number))
    output = tmp_path / "drawn.csv"
    assert ask("sample", run.path, "--class", "setosa", "-n", 5, "-o", output).exit_code == 0
    drawn = np.loadtxt(output, delimiter=",", skiprows=1)
    np.testing.assert_allclose(drawn, run.sample(5, label=1), rtol=1e-4)
    with pytest.raises(
        InputError, match=r"class 'setose': .* did you mean 'setosa'. known: big one"
    ):
        run.sample(5, label="setose")
    evaluate(run)
    page = write_report(run).read_text(encoding="utf-8")
    assert "hilbound sample RUN --class 'big one'" in html.unescape(page)
    assert "samples of each class with its name" in page


def test_a_report_keeps_the_names_of_a_run_whose_table_has_lost_a_class(tmp_path):
    table = write_kinds(tmp_path / "iris.csv", ["setosa", "versicolor", "virginica"])
    run = train(tmp_path / "run", data=table, label_column="kind", **CLASSES)
    evaluate(run)
    write_kinds(table, ["setosa", "versicolor"])
    page = write_report(Run.open(run.path)).read_text(encoding="utf-8")
    assert "one of 3 classes" in page


def test_a_number_is_the_name_of_a_class_where_names_are_numbers(tmp_path):
    """Classes 1 and 2 of a table: --class 1 is the first one, and there is no class 0."""
    table = write_kinds(tmp_path / "table.csv", [1, 2])
    run = train(tmp_path / "run", data=table, label_column="kind", **CLASSES)
    assert torch.equal(run.sample(5, label="1"), run.sample(5, label=0))
    with pytest.raises(InputError, match=r"class '0': run .* has no such class: known: 1, 2"):
        run.sample(5, label="0")


def test_classes_without_names_are_called_by_their_numbers(tmp_path, groups):
    """As those of a toy, and of a run from before classes had names."""
    run = train(tmp_path / "run", data=groups, **CLASSES)
    facts = run.read_json("run.json")
    del facts["data"]["class_names"]
    run.write_json("run.json", facts)
    assert run.class_names is None
    assert torch.equal(run.sample(5, label="2"), run.sample(5, label=2))
    with pytest.raises(InputError, match=r"class 'two': .* give its number, from 0"):
        run.sample(5, label="two")
    with pytest.raises(InputError, match="label must lie between 0 and 2, got 3"):
        run.sample(5, label="3")


def test_a_class_without_rows_is_named(tmp_path):
    table = write_kinds(tmp_path / "table.csv", ["ant", "bee"])
    with table.open("a", encoding="utf-8") as file:
        file.write("3,4,zebra\n")
    with pytest.raises(InputError, match=r"has no (train|validation) rows of class zebra: give"):
        train(tmp_path / "run", data=table, label_column="kind", **CLASSES)
