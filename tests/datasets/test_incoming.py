"""Data that are no file: they become one, and are read like every other."""

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from hilbound.datasets import incoming
from hilbound.datasets.incoming import as_rows, beside, is_incoming, store
from hilbound.datasets.tables import load_table
from hilbound.errors import DataError

X = np.random.default_rng(0).normal(size=(40, 2))
FRAME = pd.DataFrame(X, columns=["a", "b"])


def everything(path, **options):
    data = load_table(path, scale="none", **options)
    rows = torch.cat([data.train, data.validation, data.test])
    return np.sort(rows.numpy(), 0), data.columns


@pytest.mark.parametrize(
    ("data", "columns"),
    [(X, None), (X.tolist(), None), (torch.from_numpy(X), None), (FRAME, ("a", "b"))],
    ids=["array", "list", "tensor", "frame"],
)
def test_what_is_stored_is_read_again(tmp_path, data, columns):
    assert is_incoming(data)
    kept = store(data, tmp_path)
    found, names = everything(kept.path, header=True if kept.named else None)
    assert names == columns
    assert found == pytest.approx(np.sort(X, 0), abs=1e-6)


def piped(monkeypatch, content, *, terminal=False):
    stream = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: terminal)
    monkeypatch.setattr(incoming.sys, "stdin", stream)


def test_standard_input_is_known_by_its_first_bytes(tmp_path, monkeypatch):
    array = io.BytesIO()
    np.save(array, X)
    FRAME.to_csv(tmp_path / "x.csv.gz", index=False)
    for content, name in (
        (FRAME.to_csv(index=False).encode(), "data.csv"),
        ((tmp_path / "x.csv.gz").read_bytes(), "data.csv.gz"),
        (array.getvalue(), "data.npy"),
    ):
        piped(monkeypatch, content)
        kept = store("-", tmp_path)
        assert (kept.path.name, kept.name) == (name, "standard input")
        assert everything(kept.path)[0] == pytest.approx(np.sort(X, 0), abs=1e-6)


def test_what_cannot_be_stored_is_refused(tmp_path, monkeypatch):
    piped(monkeypatch, b"")
    with pytest.raises(DataError, match="nothing came on standard input"):
        store("-", tmp_path)
    piped(monkeypatch, b"a\n1\n", terminal=True)
    with pytest.raises(DataError, match="nothing is piped into it"):
        store("-", tmp_path)
    with pytest.raises(DataError, match="data of type int: give the name of a data set"):
        store(7, tmp_path)
    with pytest.raises(DataError, match="make all rows equally long"):
        store([[1.0, 2.0], [3.0]], tmp_path)


def test_a_runs_own_data_move_with_its_folder(tmp_path):
    (tmp_path / "data.csv").touch()
    assert beside(tmp_path, "/gone/data.csv") == str(tmp_path / "data.csv")
    assert beside(tmp_path, "/gone/other.csv") == "/gone/other.csv"
    assert beside(tmp_path, "moons") == "moons"


def test_rows_are_found_by_name_and_checked():
    expected = torch.from_numpy(X)
    assert torch.equal(as_rows(FRAME[["b", "a"]].assign(c="x"), ["a", "b"], 2), expected)
    assert torch.equal(as_rows(X.tolist(), None, 2), expected)
    assert as_rows(np.zeros((5, 1, 2, 2)), None, 4).shape == (5, 4)
    assert as_rows(np.zeros(5), None, 1).shape == (5, 1)
    with pytest.raises(DataError, match="x lacks 'b': it has 'a'"):
        as_rows(FRAME[["a"]], ["a", "b"], 2)
    with pytest.raises(DataError, match=r"x has shape \(40, 2\): rows of 3 numbers"):
        as_rows(X, None, 3)
    with pytest.raises(DataError, match="something else than numbers"):
        as_rows(FRAME.assign(a="x"), ["a", "b"], 2)
