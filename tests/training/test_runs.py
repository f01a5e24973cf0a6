"""The run folder: written in one piece, read with care, never executed."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hilbound.config import RunConfig
from hilbound.datasets import load
from hilbound.errors import InputError
from hilbound.training.curves import BOUND_COLUMNS
from hilbound.training.runs import Run, fingerprint, refuse_occupied
from support.tiny_runs import Bomb, train, weights

pytest_plugins = ["support.fixtures_runs"]
CONFIG = RunConfig(data="moons", width=8)


def test_a_new_run_holds_its_configuration_and_nothing_else(tmp_path):
    run = Run.create(tmp_path / "deep" / "run", CONFIG)
    assert Run.open(run.path).config == CONFIG
    assert {file.name for file in run.path.iterdir()} == {"config.yaml", "checkpoints"}


def test_a_run_is_not_replaced_unless_asked(tmp_path):
    run = Run.create(tmp_path / "run", CONFIG)
    run.write_text("bounds.csv", "old")
    with pytest.raises(InputError, match=r"already holds a run.*--resume.*--overwrite"):
        Run.create(run.path, CONFIG)
    assert (run.path / "bounds.csv").read_text() == "old"
    Run.create(run.path, CONFIG.model_copy(update={"seed": 3}), overwrite=True)
    assert not (run.path / "bounds.csv").exists()
    assert Run.open(run.path).config.seed == 3


def test_what_others_put_beside_a_run_survives_its_replacement(tmp_path):
    run = Run.create(tmp_path / "run", CONFIG)
    (run.path / "notes.txt").write_text("mine")
    Run.create(run.path, CONFIG, overwrite=True)
    assert (run.path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("thesis.tex", "years of work"),
        ("config.yaml", "server: {port: 80}"),
        ("config.yaml", "data: [not closed"),
        ("metrics.json", "{}"),
    ],
)
def test_a_folder_with_foreign_files_is_refused_even_with_overwrite(
    tmp_path, name, content, overwrite
):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match="no run of hilbound: choose another folder"):
        Run.create(tmp_path, CONFIG, overwrite=overwrite)
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [(name, content)]


def test_a_file_and_a_path_below_a_file_are_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(InputError, match="is a file: give a folder"):
        refuse_occupied(file, overwrite=True)
    with pytest.raises(InputError, match="cannot be written: Not a directory"):
        Run.create(file / "run", CONFIG)
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("make", "words"),
    [(str, "does not exist"), (Path.mkdir, "holds no config.yaml")],
)
def test_what_is_no_run_is_not_opened(tmp_path, make, words):
    make(tmp_path / "run")
    with pytest.raises(InputError, match=f"{words}: give the folder that 'hilbound fit' wrote"):
        Run.open(tmp_path / "run")


def test_the_weights_come_back_to_the_last_bit(trained):
    model = trained.load_model()
    assert not model.training
    assert {name: t.tolist() for name, t in model.state_dict().items()} == {
        name: t.tolist() for name, t in weights(trained).items()
    }


@pytest.mark.parametrize("content", [b"", b"\x08", b"not safetensors", b"\xff" * 64, None])
def test_damaged_weights_are_refused(trained, content):
    file = trained.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9] if content is None else content)
    with pytest.raises(InputError, match=r"model\.safetensors' does not hold the weights"):
        trained.load_model()


def test_missing_weights_are_said_to_be_missing(trained):
    (trained.path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="has no weights: training stopped before"):
        trained.load_model()


def test_the_weights_of_another_model_are_refused(trained, tmp_path):
    other = train(tmp_path / "other", width=9, steps=1)
    for source in (other.path / "model.safetensors", trained.path / "run.json"):
        (trained.path / "model.safetensors").write_bytes(source.read_bytes())
        with pytest.raises(InputError, match="does not hold the weights of this run's model"):
            trained.load_model()


def test_a_pickle_in_the_place_of_the_weights_is_not_run(trained, tmp_path):
    mark = tmp_path / "mark"
    for write in (pickle.dumps, None):
        file = trained.path / "model.safetensors"
        if write is None:
            torch.save(Bomb(mark), file)
        else:
            file.write_bytes(write(Bomb(mark)))
        with pytest.raises(InputError, match="does not hold the weights"):
            trained.load_model()
    assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))  # noqa: S301 - the bomb of this test works
    assert mark.exists()


@pytest.mark.parametrize("name", ["run.json", "metrics.json"])
@pytest.mark.parametrize("content", [b"", b'{"step": ', b"[]", b"3", b"{}", b"\xff\xfe", None])
def test_damaged_facts_are_refused(trained, name, content):
    file = trained.path / name
    file.write_bytes(file.read_bytes()[:-20] if content is None else content)
    with pytest.raises(InputError, match=f"{name}' is damaged"):
        trained.read_json(name)
    file.unlink()
    with pytest.raises(InputError, match=f"has no {name}"):
        trained.read_json(name)


def test_facts_are_strict_json_and_can_be_changed(trained):
    before = trained.read_json("run.json")
    trained.update(status="odd", step=7)
    assert trained.read_json("run.json") == before | {"status": "odd", "step": 7}
    with pytest.raises(ValueError, match="not JSON compliant"):
        trained.update(step=float("nan"))
    assert trained.read_json("run.json")["step"] == 7


def test_run_json_says_what_was_trained_on(trained):
    facts = trained.read_json("run.json")
    data = facts["data"]
    assert (data["train"], data["validation"], data["test"], data["dim"]) == (160, 20, 20, 3)
    assert data["columns"] == ["height", "weight", "year, in AD"]
    assert data["fingerprint"] == fingerprint(load(trained.config.data))
    assert set(facts["versions"]) >= {"python", "torch", "lightning", "hilbound"}
    assert (facts["status"], facts["step"]) == ("finished", 8)


def test_samples_come_back_in_the_digits_of_the_table(trained):
    dataset = load(trained.config.data)
    table = np.loadtxt(trained.config.data, delimiter=",", skiprows=1)
    years = trained.to_user_units(dataset.train)[:, 2].numpy()
    # A step of float32 near 20,240 is 0.002; the years differ by 0.001.
    assert np.abs(years[:, None] - table[:, 2]).min(1).max() < 1e-8


def test_bounds_are_read_as_numbers(trained):
    rows = trained.read_bounds()
    assert [(row["step"], row["split"]) for row in rows] == [
        (0, "train"),
        (4, "validation"),
        (8, "validation"),
    ]
    for row in rows:
        assert row["gap"] == pytest.approx(row["log_limit"] - row["log_value"], abs=1e-6)
        assert row["tightness"] == pytest.approx(np.exp(-row["gap"]), rel=1e-5)
        assert 0 < row["tightness"] <= 1


@pytest.mark.parametrize("line", ["12,train,0.1\n", "x" + "," * 8 + "\n", "12\n"])
def test_damaged_bounds_are_refused(trained, line):
    file = trained.path / "bounds.csv"
    file.write_text(file.read_text() + line)
    with pytest.raises(InputError, match=r"bounds\.csv' is damaged"):
        trained.read_bounds()


def test_half_a_line_at_the_end_is_no_row(trained):
    """A process that is killed while it writes leaves one, be it a number cut short."""
    file, rows = trained.path / "bounds.csv", trained.read_bounds()
    whole = file.read_text()
    for cut in ("12", "12,train,0.1", "12,train," + ",".join("1234567")):
        file.write_text(whole + cut)
        assert trained.read_bounds() == rows


def test_a_run_without_bounds_has_none(trained):
    (trained.path / "bounds.csv").unlink()
    assert trained.read_bounds() == []


def test_a_file_is_whole_or_the_old_one(trained, monkeypatch):
    """An interruption while writing leaves what was there."""
    before = (trained.path / "run.json").read_text()

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        trained.update(step=99)
    assert (trained.path / "run.json").read_text() == before


def test_results_are_forgotten_and_the_weights_are_not(trained):
    (trained.path / "metrics.json").write_text("{}")
    trained.forget_results()
    names = {file.name for file in trained.path.iterdir()}
    assert {"model.safetensors", "bounds.csv", "run.json"} <= names
    assert not {"metrics.json", "report.html"} & names


def test_the_columns_of_the_bounds_are_as_documented(trained):
    header = (trained.path / "bounds.csv").read_text().splitlines()[0]
    assert tuple(header.split(",")) == BOUND_COLUMNS
    assert json.loads((trained.path / "run.json").read_text())["variance"]["start"] > 0


@pytest.mark.parametrize(
    ("block", "change", "words"),
    [
        ("data", {"dim": "two"}, "data.dim is wrong"),
        ("data", None, "data.fingerprint is wrong"),
        ("data", {"classes": 2, "class_names": ["a"]}, "data.class_names is wrong"),
        ("data", {"classes": 2, "class_names": ["a", 1]}, "data.class_names is wrong"),
        ("data", {"classes": 2, "class_names": "ab"}, "data.class_names is wrong"),
        ("variance", {"end": None}, "variance.end is wrong"),
    ],
)
def test_facts_of_a_wrong_kind_are_named(trained, block, change, words):
    facts = trained.read_json("run.json")
    own = {} if change is None else facts[block] | change
    trained.write_json("run.json", facts | {block: own})
    with pytest.raises(InputError, match=f"run.json' is damaged \\({words}"):
        trained.load_model()


def test_weights_that_are_no_fractions_are_refused(trained):
    save_file({n: t.int() for n, t in weights(trained).items()}, trained.path / "model.safetensors")
    with pytest.raises(InputError, match="does not hold the weights of this run's model"):
        trained.load_model()
