"""Files of estimators: what was written comes back, and nothing else is taken for it."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hilbound.errors import DataError, InputError
from hilbound.estimators import storage
from hilbound.estimators.storage import read_estimator, write_estimator


def test_arrays_and_facts_come_back_bit_for_bit(tmp_path):
    shared = torch.arange(6).double() / 7
    arrays = {"a": shared, "b": shared.view(2, 3).mT, "c": np.array([], dtype=np.float32)}
    facts = {"text": "<script>é</script>", "list": [1, 0.1, None, True], "more": {"x": "y"}}
    write_estimator(tmp_path / "m", arrays, facts)
    read, told = read_estimator(tmp_path / "m")
    assert told == facts
    for name, a in arrays.items():
        assert torch.equal(read[name], torch.as_tensor(a))
        assert read[name].dtype == torch.as_tensor(a).dtype


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path, monkeypatch):
    write_estimator(tmp_path / "m", {"a": torch.zeros(1)}, {"age": "old"})

    def full_disk(_):
        raise OSError("no space left on device")

    monkeypatch.setattr(storage.os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_estimator(tmp_path / "m", {"a": torch.zeros(1)}, {"age": "new"})
    assert read_estimator(tmp_path / "m")[1] == {"age": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_what_json_cannot_say_is_refused_and_nothing_is_written(tmp_path):
    for bad in (float("nan"), object()):
        with pytest.raises(InputError, match="facts must hold text, finite numbers"):
            write_estimator(tmp_path / "m", {}, {"bad": bad})
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match=r"make .*nowhere.* first"):
        write_estimator(tmp_path / "nowhere" / "m", {}, {})
    with pytest.raises(InputError, match="is a folder: give the name of a file"):
        write_estimator(tmp_path, {}, {})


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no estimator at .*m.*: give a file that `save` wrote"):
        read_estimator(tmp_path / "m")


def test_a_foreign_file_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "m")
    with pytest.raises(DataError, match="not written by an estimator's `save`"):
        read_estimator(tmp_path / "m")


def test_another_version_is_refused_with_what_to_do(tmp_path):
    metadata = {"hilbound.estimator": json.dumps({"version": 9, "facts": {}})}
    save_file({"a": torch.zeros(1)}, tmp_path / "m", metadata)
    with pytest.raises(DataError, match=r"version 9 .*reads version 1: update hilbound"):
        read_estimator(tmp_path / "m")


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-8], lambda b: b[:20], lambda _: b"", lambda _: b"x" * 99]
)
def test_a_broken_file_is_refused(tmp_path, damage):
    write_estimator(tmp_path / "m", {"a": torch.zeros(9)}, {"name": "m"})
    (tmp_path / "m").write_bytes(damage((tmp_path / "m").read_bytes()))
    with pytest.raises(DataError, match=r"no whole estimator file .*save the estimator again"):
        read_estimator(tmp_path / "m")


@pytest.mark.parametrize("text", ["no json", "[1]", "{}"])
def test_facts_that_are_none_are_refused(tmp_path, text):
    save_file({"a": torch.zeros(1)}, tmp_path / "m", {"hilbound.estimator": text})
    with pytest.raises(DataError, match=r"no whole estimator file"):
        read_estimator(tmp_path / "m")
