"""The one door: names, paths, seeds and the refusals in between."""

import numpy as np
import pytest
import torch

from hilbound.datasets import DATASETS, Dataset, load
from hilbound.errors import DataError, InputError

NAMES = ["moons", "circles", "eight-gaussians", "25-grid", "swiss-roll", "pinwheel", "checkerboard"]
WITHOUT_FILES = [*NAMES, "digits"]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "points.npy"
    np.save(path, np.random.default_rng(0).normal(size=(100, 2)))
    return path


def test_every_data_set_has_a_one_line_description():
    assert list(DATASETS) == [*WITHOUT_FILES, "mnist", "cifar10", "celeba"]
    for name in DATASETS:
        description = DATASETS.describe(name)
        assert description.endswith(".")
        assert "\n" not in description


@pytest.mark.parametrize("name", WITHOUT_FILES)
def test_load_by_name(name):
    data = load(name, samples=50)
    assert isinstance(data, Dataset)
    assert data.name == name
    assert len(data.train) == 50
    assert data.standardization is None
    assert (data.train_labels is None) == (name in {"swiss-roll", "checkerboard"})
    if data.train_labels is not None:
        assert len(data.train_labels) == 50


@pytest.mark.parametrize("name", [*WITHOUT_FILES, "table"])
def test_a_seed_names_the_rows(name, table):
    def rows(seed):
        data = load(table if name == "table" else name, seed=seed)
        return torch.cat([data.train, data.validation, data.test])

    first = rows(11)
    assert torch.equal(first, rows(11))
    assert not torch.equal(first, rows(12))


def test_load_by_path(table, monkeypatch):
    whole = load(str(table), seed=1)
    assert whole.name == str(table)
    assert [len(part) for part in (whole.train, whole.validation, whole.test)] == [80, 10, 10]
    data = load(table, seed=1, samples=30, validation_fraction=0.2, test_fraction=0.3, scale="none")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [30, 20, 30]
    assert data.standardization is None
    monkeypatch.chdir(table.parent)
    assert torch.equal(load("points.npy", seed=1).test, whole.test)
    monkeypatch.setenv("HOME", str(table.parent))
    assert torch.equal(load("~/points.npy", seed=1).test, whole.test)


def test_label_column_reaches_the_table(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text("n,kind\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(20)))
    data = load(path, label_column="kind", scale="none")
    assert torch.equal(data.train_labels, data.train[:, 0].long() % 2)
    with pytest.raises(InputError, match="label_column='kind' is for files"):
        load("moons", label_column="kind")


@pytest.mark.parametrize(
    ("name", "near"), [("mons", "moons"), ("MNIST", "mnist"), ("swissroll", "swiss-roll")]
)
def test_unknown_name(name, near):
    with pytest.raises(InputError) as caught:
        load(name)
    message = str(caught.value)
    assert f"unknown data set {name!r}: did you mean {near!r}?" in message
    assert message.endswith(
        "the path of a .npy, .npz, .csv, .tsv or .parquet file or of a folder of images works as "
        "well"
    )


def test_empty_name():
    with pytest.raises(InputError, match="unknown data set ''"):
        load("")


@pytest.mark.parametrize("name", ["point.npy", "folder/points", "points.xyz"])
def test_missing_path(name, table, monkeypatch):
    monkeypatch.chdir(table.parent)
    with pytest.raises(DataError, match=f"{name} does not exist"):
        load(name)


def test_existing_file_without_suffix(table, monkeypatch):
    monkeypatch.chdir(table.parent)
    table.rename("points")
    with pytest.raises(DataError, match="the suffix '' is unknown"):
        load("points")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed=-1, allowed are 0 to 4294967295"),
        ({"seed": 2**32}, "seed=4294967296"),
        ({"samples": 0}, "samples=0, at least 1"),
        ({"validation_fraction": 1.5}, "validation_fraction=1.5 must lie"),
    ],
)
def test_numbers_out_of_range(arguments, message):
    with pytest.raises(InputError, match=message):
        load("moons", **arguments)
