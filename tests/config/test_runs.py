"""The options of a run: their limits, their messages, their YAML."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hilbound.config import MODEL_DEFAULTS, RunConfig, Switches, read_yaml
from hilbound.errors import InputError


def refusal(**options) -> str:
    with pytest.raises(InputError) as caught:
        RunConfig.create(**options)
    return str(caught.value)


def test_every_option_has_a_description_and_a_panel_for_the_help():
    for name, field in RunConfig.model_fields.items():
        assert field.description, name
        panels = {"Data", "Files of tables", "Images", "Model", "Objective", "Training"}
        assert field.json_schema_extra["panel"] in panels


def test_the_data_set_is_all_that_must_be_named():
    assert RunConfig.create(data="moons").objective == "debiased"
    assert "data is missing" in refusal(objective="nuclear")


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("batch_sise", "batch_size"), ("objectiv", "objective"), ("outputs", "output")],
)
def test_an_unknown_option_is_answered_with_the_nearest(wrong, meant):
    assert f"unknown option {wrong!r}: did you mean {meant!r}?" in refusal(
        data="moons", **{wrong: 1}
    )


def test_an_option_like_no_other_is_answered_with_all():
    message = refusal(data="moons", zzz=1)
    assert "unknown option 'zzz'" in message
    assert all(name in message for name in RunConfig.model_fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 1),
        ("batch_size", "many"),
        ("steps", 0),
        ("steps", 1.5),
        ("learning_rate", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", float("inf")),
        ("learning_rate", float("nan")),
        ("validation_fraction", 1.0),
        ("test_fraction", 0.0),
        ("min_variance", 0),
        ("beta1", 1),
        ("beta2", -0.1),
        ("seed", -1),
        ("seed", 2**32),
        ("samples", 1),
        ("centers", 0),
        ("eval_centers", 0),
        ("bound_every", 0),
        ("bound_rows", 1),
        ("features", 0),
        ("variance_y", 0),
        ("variance_y", -0.1),
        ("variance_y", float("nan")),
        ("patience", 0),
        ("validate_every", 0),
        ("width", 0),
        ("depth", -1),
        ("noise_dim", 0),
        ("precision", "8-bit"),
        ("scale", "whiten"),
        ("decay", "perhaps"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_came(name, value):
    message = refusal(data="moons", **{name: value})
    assert message.startswith(f"{name}: ")
    assert repr(value) in message
    assert "\n" not in message


def test_every_mistake_is_said_at_once():
    lines = refusal(data="moons", steps=0, seed=-1, colour="red").splitlines()
    assert [line.split()[0] for line in lines] == ["steps:", "seed:", "unknown"]


def test_a_configuration_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        RunConfig(data="moons").steps = 3


def test_a_path_and_a_number_are_taken_as_text_where_text_is_meant():
    config = RunConfig.create(data=Path("a") / "b.csv", devices=2, label_column=4)
    assert (config.data, config.devices, config.label_column) == ("a/b.csv", "2", "4")


@given(
    data=st.sampled_from(["moons", "25-grid", "my table.csv", "Tabelle für 2.csv"]),
    learning_rate=st.floats(1e-12, 1e3),
    variance=st.one_of(st.floats(1e-12, 1e12), st.sampled_from(["median", "2*median:0.1", "1e-3"])),
    samples=st.one_of(st.none(), st.integers(2, 10**9)),
    decay=st.booleans(),
    label_column=st.one_of(
        st.none(), st.text(st.characters(codec="utf-8", exclude_categories=["C"]))
    ),
    objective_options=st.dictionaries(
        st.sampled_from(["power", "drop", "weight"]), st.one_of(st.booleans(), st.floats(0, 1))
    ),
)
def test_yaml_repeats_a_configuration_exactly(tmp_path_factory, **options):
    config = RunConfig.create(**options)
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert RunConfig.create(**read_yaml(path)) == config
    assert set(yaml.safe_load(config.to_yaml())) == set(RunConfig.model_fields)


def test_yaml_takes_the_spelling_of_the_command_line(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text("data: moons\nbatch-size: 64\nlearning_rate: 1e-3\ndevices: 2\n")
    config = RunConfig.create(**read_yaml(path))
    assert (config.batch_size, config.learning_rate, config.devices) == (64, 1e-3, "2")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"data: [moons", "is not YAML"),
        (b"- moons", "must hold options"),
        (b"", "must hold options"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"!!python/object/apply:os.mkdir [x]", "is not YAML"),
    ],
)
def test_a_file_that_holds_no_options_is_refused(tmp_path, content, words):
    path = tmp_path / "options.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)


def test_switches_are_taken_out_of_the_settings():
    settings = {"data": "moons", "output": "runs/x", "quiet": True}
    assert Switches.take(settings) == Switches(output=Path("runs/x"), quiet=True)
    assert settings == {"data": "moons"}
    with pytest.raises(InputError, match=r"overwrite: .*got 'perhaps'"):
        Switches.take({"overwrite": "perhaps"})


# --- options of the objective -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "options"),
    [
        (["power=0.7"], {"power": 0.7}),
        (["power=7e-1", "drop=1e-3"], {"power": 0.7, "drop": 0.001}),
        (["power=1"], {"power": 1.0}),
        ([" power = 0.7 "], {"power": 0.7}),
        (["reference=true", "weight=0.35"], {"reference": True, "weight": 0.35}),
        (["reference=no"], {"reference": False}),
        (["some-option=2"], {"some_option": 2.0}),
        (["power=0.7", "power=0.8"], {"power": 0.8}),
        ([], {}),
    ],
)
def test_pairs_are_a_mapping(pairs, options):
    config = RunConfig.create(data="moons", objective_options=pairs)
    assert config.objective_options == options
    assert config == RunConfig.create(data="moons", objective_options=options)
    kinds = {name: type(value) for name, value in config.objective_options.items()}
    assert kinds == {name: type(value) for name, value in options.items()}


@pytest.mark.parametrize("bad", ["power", "=0.7", "power=", "", " =1", "power= "])
def test_what_is_no_pair_is_refused(bad):
    message = refusal(data="moons", objective_options=["drop=0.1", bad])
    assert message == f"objective_options: must be written as name=value, got {['drop=0.1', bad]!r}"


@pytest.mark.parametrize("bad", ["much", "nan", "inf", "-.inf", "[1]", "{", "0.7,", "None", "0,7"])
def test_an_option_that_is_no_number_is_refused_by_its_name(bad):
    message = refusal(data="moons", objective_options=[f"power={bad}", "drop=0.1"])
    assert message.startswith("objective_options.power: input should be a ")
    assert message.endswith(f"got {bad!r}")
    assert "\n" not in message


def test_every_wrong_option_is_named():
    lines = refusal(data="moons", steps=0, objective_options={"power": "x", "drop": None})
    assert [line.split(":")[0] for line in lines.splitlines()] == [
        "objective_options.power",
        "objective_options.drop",
        "steps",
    ]
    assert "objective_options: " in refusal(data="moons", objective_options="power=0.7")
    assert "objective_options: " in refusal(data="moons", objective_options=0.7)


def test_an_option_of_two_types_is_answered_in_one_line():
    assert refusal(data="moons", variance=[1]).startswith("variance: input should be")
    assert "\n" not in refusal(data="moons", variance=[1])


def test_a_yaml_file_holds_the_options_as_a_mapping(tmp_path):
    path = tmp_path / "options.yaml"
    path.write_text("data: moons\nobjective-options:\n  power: 0.7\n  reference: yes\n")
    expected = {"power": 0.7, "reference": True}
    assert RunConfig.create(**read_yaml(path)).objective_options == expected
    path.write_text("data: moons\nobjective_options: [power=0.7, reference=yes]\n")
    assert RunConfig.create(**read_yaml(path)).objective_options == expected


# --- models with defaults of their own ----------------------------------------------------------

MODELS = {
    "mixture-density-network": {
        "objective": "debiased",
        "batch_size": 512,
        "centers": None,
        "variance_y": None,
        "variance": "median",
        "learn_variance": False,
        "learning_rate": 5e-3,
        "beta1": 0.5,
        "beta2": 0.9,
    },
    "encoder-mixture-decoder": {
        "objective": "conditional",
        "batch_size": 128,
        "centers": 10,
        "variance_y": 0.01,
        "variance": "0.3*median",
        "learn_variance": False,
        "learning_rate": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
    },
    "autoencoder": {
        "objective": "trace",
        "batch_size": 128,
        "centers": None,
        "variance_y": None,
        "variance": "median",
        "learn_variance": False,
        "learning_rate": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
    },
    "vae": {
        "objective": "likelihood",
        "batch_size": 128,
        "centers": None,
        "variance_y": None,
        "variance": "median/dim",
        "learn_variance": True,
        "learning_rate": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
    },
}
ENCODERS = sorted(MODEL_DEFAULTS)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_its_defaults(model):
    config = RunConfig.create(data="moons", model=model)
    assert {name: getattr(config, name) for name in MODELS[model]} == MODELS[model]
    if model == "mixture-density-network":
        assert config == RunConfig.create(data="moons")


@pytest.mark.parametrize("model", MODELS)
def test_a_model_written_out_is_the_same_configuration(tmp_path, model):
    config = RunConfig.create(data="moons", model=model, seed=3)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert RunConfig.create(**read_yaml(path)) == config
    assert RunConfig.create(**config.model_dump()) == config


@pytest.mark.parametrize("model", ENCODERS)
def test_what_is_said_beats_the_models_default(model):
    said = {"batch_size": 64, "learning_rate": 0.5, "beta1": 0.0, "objective": "likelihood"}
    config = RunConfig.create(data="moons", model=model, learn_variance=False, **said)
    assert {name: getattr(config, name) for name in said} == said
    assert not config.learn_variance
    assert config.beta2 == 0.999


@pytest.mark.parametrize("model", MODELS)
def test_an_explicit_none_is_the_default(model):
    """As a command line has it that was not given an option."""
    plain = RunConfig.create(data="moons", model=model)
    nothing = dict.fromkeys(("variance_y", "centers", "eval_centers", "encoder", "bound_every"))
    assert RunConfig.create(data="moons", model=model, **nothing) == plain


@pytest.mark.parametrize(
    ("model", "options", "others"),
    [
        ("mixture-density-network", {"features": 3}, ENCODERS),
        ("mixture-density-network", {"encoder": "runs/x"}, ENCODERS),
        (
            "mixture-density-network",
            {"variance_y": 0.1},
            ["autoencoder", "encoder-mixture-decoder", "latent-mixture"],
        ),
        (
            "vae",
            {"variance_y": 0.1},
            ["autoencoder", "encoder-mixture-decoder", "latent-mixture"],
        ),
        *(
            (
                model,
                option,
                ["encoder-mixture-decoder", "latent-mixture", "mixture-density-network"],
            )
            for model in ("autoencoder", "vae")
            for option in (
                {"noise_dim": 3},
                {"centers": 7},
                {"eval_centers": 7},
                {"learn_weights": True},
            )
        ),
    ],
    ids=str,
)
def test_an_option_that_means_nothing_is_refused_with_the_models_it_belongs_to(
    model, options, others
):
    (name,) = options
    message = refusal(data="moons", model=model, **options)
    start = f"{name} has no effect for model {model!r}: leave it out, or use "
    assert message.startswith(start)
    assert sorted(message.removeprefix(start).split(" or ")) == others
    for other in others:
        # The decoder of a latent mixture has noise where rows have more than one centre.
        beside = {"objective": "conditional"} if other == "latent-mixture" else {}
        assert RunConfig.create(data="moons", model=other, **options, **beside)


@pytest.mark.parametrize("model", MODELS)
def test_the_meaningless_default_is_no_offence(model):
    defaults = {"features": 2, "noise_dim": 16, "learn_weights": False}
    assert RunConfig.create(data="moons", model=model, **defaults).model == model


def test_an_unknown_model_is_left_to_the_table_of_models():
    assert RunConfig.create(data="moons", model="vea").objective == "debiased"


def test_an_encoder_may_be_a_path():
    config = RunConfig.create(data="moons", model="vae", encoder=Path("runs") / "a")
    assert config.encoder == "runs/a"


def test_yaml_that_would_grow_or_never_end_is_refused(tmp_path):
    file = tmp_path / "options.yaml"
    bomb = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))]
    file.write_text("\n".join(bomb))
    with pytest.raises(InputError, match=r"aliases such as \*name are not read"):
        read_yaml(file)
    file.write_text("data: " + "[" * 20_000)
    with pytest.raises(InputError, match="nested too deeply"):
        read_yaml(file)
