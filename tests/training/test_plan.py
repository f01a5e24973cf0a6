"""What is checked and built before a training starts, and encoders that are taken over."""

import logging
import shutil

import pytest
import torch

import hilbound
from hilbound.config import RunConfig
from hilbound.datasets import Dataset
from hilbound.errors import InputError
from hilbound.models.build import MODELS, DataShape, build_model
from hilbound.objectives import OBJECTIVES
from hilbound.training.memory import least_memory, machine_memory
from hilbound.training.plan import load_dataset, plan_training, take_encoder
from hilbound.training.runs import Run
from support.strategies import normal
from support.tiny_runs import TINY, ask, same_weights, train, weights, write_points, write_table

pytest_plugins = ["support.fixtures_runs"]

EMD = {"model": "encoder-mixture-decoder", "features": 1, "centers": 3}


def planned(tmp_path, **options):
    data = options.pop("data", None) or write_points(tmp_path / "points.npy")
    return plan_training(RunConfig.create(data=data, **{**TINY, **options}))


def refusal(tmp_path, **options):
    with pytest.raises(InputError) as caught:
        planned(tmp_path, **options)
    return str(caught.value)


# ------------------------------------------------------------------ models and objectives


#: Of pairs of a row and its features, or of all centres of a batch.
OF_FEATURES = ("joint-nuclear", "nuclear", "scalar")


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_an_objective_trains_the_models_that_name_it(tmp_path, model, objective):
    options = {"model": model, "objective": objective}
    if model not in ("mixture-density-network", EMD["model"]):
        options["noise_dim"] = 16
    trains = {
        "mixture-density-network": set(OBJECTIVES) - {"conditional", "mse", "joint-nuclear"},
        "encoder-mixture-decoder": {"conditional", "likelihood", *OF_FEATURES},
        "autoencoder": {"trace", "mse", *OF_FEATURES},
        "latent-mixture": {"trace", "mse", "conditional", "joint-nuclear"},
        "vae": {"likelihood"},
    }[model]
    if objective in trains:
        made = planned(tmp_path, **options)
        assert made.model.objectives[0] in trains
        assert type(made.objective) is OBJECTIVES[objective]
        return
    message = refusal(tmp_path, **options)
    assert message.startswith(f"objective {objective!r} cannot train model {model!r}: it is ")
    assert {word for word in OBJECTIVES if repr(word) in message.partition(": ")[2]} == trains


def test_the_models_variance_is_the_objectives_share(tmp_path):
    for model, objective, share in (
        (EMD["model"], "conditional", 0.5),
        (EMD["model"], "likelihood", 1.0),
        ("mixture-density-network", "nuclear", 0.5),
    ):
        made = planned(tmp_path, model=model, objective=objective, variance=0.6)
        assert float(made.model.head.variance) == pytest.approx(0.6 * share)


def test_features_beyond_the_data_are_refused(tmp_path):
    assert "between 1 and the 2 coordinates" in refusal(tmp_path, **EMD | {"features": 3})
    assert planned(tmp_path, **EMD | {"features": 2}).model.decoder.feature_dim == 2


def test_a_conv_needs_images_at_either_end(tmp_path):
    assert "network 'conv' is for images" in refusal(tmp_path, **EMD, network="conv")


def test_a_learned_variance_and_a_schedule_exclude_each_other(tmp_path):
    message = refusal(tmp_path, model="vae", noise_dim=16, variance="2:1")
    assert "'2:1' is a schedule, and learn_variance learns it" in message
    assert planned(tmp_path, model="vae", noise_dim=16, variance="2:1", learn_variance=False)


@pytest.mark.parametrize("model", ["autoencoder", "vae", EMD["model"]])
def test_a_batch_beyond_the_data_is_cut_and_told(tmp_path, caplog, model):
    caplog.set_level(logging.WARNING)
    points = write_points(tmp_path / "points.npy", 50)
    options = {} if model == EMD["model"] else {"noise_dim": 16}
    made = planned(tmp_path, data=points, model=model, batch_size=200, **options)
    assert made.config.batch_size == len(made.dataset.train) == 40
    assert "batch_size 200 is more than the 40 training rows" in caplog.text
    if model == EMD["model"]:
        assert made.model.centers == made.config.centers == 10


def test_a_run_in_double_precision_is_one_from_the_start(tmp_path):
    model = planned(tmp_path, **EMD, precision="64-true").model
    assert {t.dtype for t in model.state_dict().values()} == {torch.float64}


def test_the_dataset_is_that_of_the_configuration(tmp_path):
    table = write_table(tmp_path / "table.csv")
    config = RunConfig.create(data=table, test_fraction=0.2, validation_fraction=0.3)
    dataset = load_dataset(config)
    assert [len(rows) for rows in (dataset.train, dataset.validation, dataset.test)] == [
        100,
        60,
        40,
    ]


# ------------------------------------------------------------------ encoders of other runs


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run whose encoder others take over."""
    return train(tmp_path_factory.mktemp("source") / "run", **EMD)


def encoders(run):
    return {k: v for k, v in weights(run).items() if k.startswith("encoder.")}


@pytest.mark.parametrize("options", [{"centers": 5, "variance_y": 0.1}, {"learn_weights": True}])
def test_an_encoder_is_taken_over_and_kept_to_the_last_bit(tmp_path, source, options):
    run = train(tmp_path / "run", data=source.config.data, **EMD | options, encoder=source.path)
    taken, own = encoders(source), encoders(run)
    assert len(taken) >= 6
    assert taken.keys() == own.keys()
    assert all(torch.equal(taken[name], own[name]) for name in taken)
    # The decoder learns all the same, from the start of its own.
    first = build_model(
        run.config, DataShape(2, None, run.read_json("run.json")["data"]["train"]), 1.0
    ).state_dict()
    moved = [k for k, v in weights(run).items() if not torch.equal(v, first[k])]
    assert any(name.startswith("decoder.network") for name in moved)
    x = normal(0, 9, 2).float()
    features = [Run.open(r.path).load_model().eval().encode(x) for r in (source, run)]
    assert torch.equal(*features)


def test_a_resumed_run_keeps_it_too(tmp_path, source):
    """Even where the other run is gone: the checkpoint holds its encoder."""
    other = shutil.copytree(source.path, tmp_path / "other")
    options = {"data": source.config.data, "decay": False, **EMD}
    train(tmp_path / "part", **options, encoder=other, steps=4)
    options["encoder"] = source.path
    shutil.rmtree(other)
    longer = hilbound.resume(tmp_path / "part", steps=8, quiet=True)
    assert same_weights(longer, train(tmp_path / "whole", **options))
    assert all(torch.equal(v, encoders(source)[k]) for k, v in encoders(longer).items())


def test_doubles_are_taken_over_as_doubles(tmp_path, source):
    data = source.config.data
    double = train(tmp_path / "double", data=data, **EMD, precision="64-true", steps=2)
    run = train(
        tmp_path / "run", data=data, **EMD, precision="64-true", steps=2, encoder=double.path
    )
    assert all(torch.equal(v, encoders(double)[k]) for k, v in encoders(run).items())


def test_an_encoder_of_a_noisy_autoencoder_serves(tmp_path, source):
    options = {"features": 1, "variance_y": 0.001, "noise_dim": 16, "steps": 2}
    data = source.config.data
    plain = train(tmp_path / "plain", data=data, model="autoencoder", **options)
    made = planned(tmp_path, data=data, **EMD, encoder=plain.path)
    own = made.model.encoder.state_dict()
    assert all(torch.equal(v, own[k.removeprefix("encoder.")]) for k, v in encoders(plain).items())


def test_an_encoder_that_was_never_standardised_is_refused(tmp_path, source):
    """Its features would be others in this model, with the same weights."""
    options = {"data": source.config.data, "noise_dim": 16, "steps": 2, "features": 1}
    plain = train(tmp_path / "plain", model="autoencoder", **options)
    vae = train(tmp_path / "vae", model="vae", **options)
    words = refusal(tmp_path, data=source.config.data, **EMD | {"features": 1}, encoder=plain.path)
    assert "is of another shape than this model's" in words
    # A VAE's two outputs, a mean and a variance, are not two features.
    for features in (2, 1):
        words = refusal(
            tmp_path, data=source.config.data, **EMD | {"features": features}, encoder=vae.path
        )
        assert "only a VAE's encoder makes means and variances" in words
    # Among their own kind they serve.
    assert planned(tmp_path, **options | {"model": "vae", "encoder": vae.path})


@pytest.mark.parametrize("options", [{"width": 9}, {"depth": 2}, {"features": 2}])
def test_an_encoder_of_another_shape_is_refused_with_the_remedy(tmp_path, source, options):
    message = refusal(tmp_path, **EMD | options, encoder=source.path)
    assert f"encoder {str(source.path)!r} is of another shape than this model's" in message
    remedy = "--network mlp --encoder-width 8 --encoder-depth 1 --features 1"
    assert f"its --model encoder-mixture-decoder {remedy}" in message


def test_a_decoder_of_another_shape_takes_the_encoder(tmp_path, source):
    options = EMD | {"width": 12, "depth": 2, "encoder_width": 8, "encoder_depth": 1}
    run = train(tmp_path / "run", data=source.config.data, **options, encoder=source.path, steps=2)
    assert all(torch.equal(v, encoders(source)[k]) for k, v in encoders(run).items())
    assert run.model.decoder.network[0].out_features == 12
    assert torch.equal(run.sample(3, seed=1), Run.open(run.path).sample(3, seed=1))


def test_an_encoder_of_other_data_is_refused(tmp_path, source):
    table = write_table(tmp_path / "table.csv")
    message = refusal(tmp_path, data=table, **EMD, encoder=source.path)
    assert "use data of as many coordinates" in message


def test_what_holds_no_encoder_is_refused(tmp_path, source):
    missing = refusal(tmp_path, **EMD, encoder=tmp_path / "nowhere")
    assert "does not exist: give the folder that 'hilbound fit' wrote" in missing
    (tmp_path / "empty").mkdir()
    assert "holds no config.yaml" in refusal(tmp_path, **EMD, encoder=tmp_path / "empty")
    network = train(tmp_path / "network", steps=1)
    message = refusal(tmp_path, **EMD, encoder=network.path)
    assert "is the run of a mixture-density-network, which has no encoder" in message
    assert "give a run of an encoder-mixture-decoder" in message
    with pytest.raises(InputError, match="encoder"):
        take_encoder(network.load_model(), source.path)


def test_a_wrong_encoder_is_told_before_anything_is_written(tmp_path):
    points = write_points(tmp_path / "points.npy")
    result = ask(
        "fit",
        points,
        "--model",
        EMD["model"],
        "--encoder",
        tmp_path / "nowhere",
        "-o",
        tmp_path / "run",
        "-q",
    )
    assert (result.exit_code, result.stdout) == (2, "")
    assert "does not exist" in " ".join(result.stderr.split())
    assert not (tmp_path / "run").exists()


# ------------------------------------------------------------------ words before data


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variance": "0.5*medain"}, "did you mean 'median'"),
        ({"variance": "-1"}, "variance must be a positive number"),
        ({"variance": "0"}, "variance must be positive and finite, got '0'"),
        ({"variance": "median:1e999"}, "variance must be positive and finite"),
        ({"model": "mixture-density-netwrok"}, "unknown model.*did you mean"),
        ({"network": "mpl"}, "unknown.*'mpl'.*did you mean 'mlp'"),
        ({"objective": "nucler"}, "unknown objective.*did you mean 'nuclear'"),
    ],
)
def test_words_are_refused_before_data_are_read(monkeypatch, options, words):
    monkeypatch.setattr("hilbound.datasets.load", None)
    with pytest.raises(InputError, match=words):
        plan_training(RunConfig(data="moons", **options))


def test_an_objective_that_halves_batches_needs_two_rows_to_validate():
    rows = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    few = Dataset("few", train=rows[:6], validation=rows[6:7], test=rows[7:])
    config = RunConfig(data="few", objective="debiased", batch_size=4)
    with pytest.raises(InputError, match=r"needs at least 2 validation rows, 'few' has 1: give"):
        plan_training(config, dataset=few)
    assert plan_training(config.model_copy(update={"objective": "nuclear"}), dataset=few)


@pytest.mark.parametrize(
    ("batch", "centers", "expected"), [(200, None, 200), (50_000, None, 512), (50_000, 3000, 3000)]
)
def test_centres_do_not_follow_a_batch_that_no_data_fill(tmp_path, batch, centers, expected):
    points = write_points(tmp_path / "points.npy", 50)
    config = RunConfig(data=str(points), batch_size=batch, centers=centers, width=8)
    assert plan_training(config).config.centers == expected


def test_what_cannot_fit_into_memory_is_refused_before_training(monkeypatch):
    monkeypatch.setattr("hilbound.training.memory.machine_memory", lambda: 2**20)
    config = RunConfig(data="moons", batch_size=1000, width=512, accelerator="cpu")
    with pytest.raises(InputError, match=r"batch_size 1000 .* GiB.*lower --batch-size"):
        plan_training(config)
    assert plan_training(config.model_copy(update={"batch_size": 16}))


def test_the_estimate_of_memory_is_a_lower_bound_of_the_matrices():
    config = RunConfig(data="moons", batch_size=100, centers=10, objective="schatten", depth=0)
    # A Gram matrix and its gradient, rows and centres with theirs, of float32.
    assert least_memory(config, 3) == 4 * (2 * 100 * 10 + 2 * 10 * 3 + 2 * 100 * 3)
    # The default objective has matrices of halves, or a low rank where coordinates are few.
    halves = config.model_copy(update={"objective": "debiased"})
    assert least_memory(halves, 3) == 4 * (2 * 10 * 3 + 2 * 100 * 3)
    assert least_memory(halves, 5) == 4 * (2 * 10 * 5 + 2 * 100 * 5 + 2 * 50 * 5)
    assert machine_memory() > 2**20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_variance": 0.1}, "min_variance 0.1 bounds learned variances"),
        ({"validation_fraction": 0.2}, "--validation-fraction 0.2 is for files and"),
        ({"scale": "none"}, "--scale none is for tables"),
        ({"header": True}, "--header is for CSV files"),
        ({"variance": 1e300}, r"variance 1e\+300 is .* cannot compute with: give one between"),
        ({"variance": "1e-300"}, "cannot compute with"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        plan_training(RunConfig(data="moons", **options))


def test_a_run_that_has_such_options_still_opens():
    assert plan_training(RunConfig(data="moons", scale="none", width=8), resumed=True)
