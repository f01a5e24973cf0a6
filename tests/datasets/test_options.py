"""Options of images: from the command line to the loader, and where they have no meaning."""

import numpy as np
import pytest
import torch

from hilbound import RunConfig
from hilbound.datasets import load
from hilbound.datasets.options import ImageOptions, as_classes
from hilbound.errors import InputError
from hilbound.training.plan import load_dataset

GIVEN = {"image_size": 8, "crop": 5, "grayscale": True, "classes": "1"}


@pytest.mark.parametrize(("option", "value"), GIVEN.items())
def test_options_are_refused_where_they_mean_nothing(option, value, tmp_path):
    path = tmp_path / "points.npy"
    np.save(path, np.arange(40.0).reshape(20, 2))
    for data in ("moons", str(path)):
        with pytest.raises(InputError, match=rf"{option}='?{value}'? is for images") as caught:
            load(data, **{option: value})
        assert f"leave it out for {data!r}" in str(caught.value)


@pytest.mark.parametrize("option", ["image_size", "crop", "grayscale"])
def test_digits_know_classes_only(option):
    with pytest.raises(InputError, match=f"{option}=.* leave it out for 'digits'"):
        load("digits", **{option: GIVEN[option]})


def test_classes_of_digits():
    whole, some = load("digits", seed=1), load("digits", seed=1, classes="7,3")
    for part in ("train", "validation", "test"):
        labels = getattr(whole, f"{part}_labels")
        kept = (labels == 3) | (labels == 7)
        assert torch.equal(getattr(some, part), getattr(whole, part)[kept])
        assert torch.equal(getattr(some, f"{part}_labels"), (labels[kept] == 7).long())
    assert (whole.class_names, some.class_names) == (tuple("0123456789"), ("3", "7"))
    few = load("digits", seed=1, classes=[3, 7], samples=9)
    assert torch.equal(few.train, some.train[:9])
    with pytest.raises(InputError, match="digits has no class '10'"):
        load("digits", classes="10")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 0}, "image_size=0, at least 1 pixel"),
        ({"crop": -3}, "crop=-3, at least 1 pixel"),
        ({"classes": ""}, "classes='': name one or more"),
        ({"classes": "3,"}, "classes='3,': name one or more"),
        ({"classes": []}, "classes='': name one or more"),
    ],
)
def test_values_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        load("digits", **options)


def test_classes_are_read_from_texts_and_sequences():
    assert as_classes("3, 5") == as_classes([3, 5]) == as_classes(("3", "5")) == ("3", "5")
    assert as_classes(None) is None
    assert ImageOptions(classes=("b", "b", "0")).chosen("ab", "letters") == (0, 1)


@pytest.mark.parametrize("classes", ["3,7", [3, 7], (7, "3")])
def test_a_configuration_reaches_the_loader(classes):
    config = RunConfig.create(data="digits", classes=classes)
    assert isinstance(config.classes, str)
    expected = load("digits", classes="3,7")
    assert torch.equal(load_dataset(config).train, expected.train)
    one = RunConfig.create(data="digits", classes=3)  # as YAML reads `classes: 3`
    assert load_dataset(one).classes == 1


@pytest.mark.parametrize("option", ["image_size", "crop"])
def test_a_configuration_refuses_what_is_no_size(option):
    with pytest.raises(InputError, match=f"{option}: .* greater than or equal to 1"):
        RunConfig.create(data="digits", **{option: 0})


def test_every_option_of_an_image_reaches_the_loader(monkeypatch):
    seen = {}
    monkeypatch.setattr("hilbound.datasets.load", lambda _, **options: seen.update(options))
    load_dataset(RunConfig.create(data="cifar10", label_column="a", **GIVEN))
    assert GIVEN.items() <= seen.items()
    assert seen["label_column"] == "a"
