"""Data that are no file: they become one, and are read like every other."""

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from hilbound.datasets import incoming
from hilbound.datasets.incoming import beside, called, is_incoming, store
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
        # Names of columns that begin as other kinds of files do.
        (FRAME.set_axis(["PK", "PAR1"], axis=1).to_csv(index=False).encode(), "data.csv"),
        (FRAME.set_axis(["PAR1", "b"], axis=1).to_csv(index=False).encode(), "data.csv"),
        (FRAME.to_csv(index=False, sep="\t").encode(), "data.csv"),
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
    with pytest.raises(DataError, match="an array of objects such as None"):
        store(np.array([[None, 1.0], [2.0, 3.0]]), tmp_path)


def test_messages_call_the_data_by_their_name(tmp_path):
    kept = store(FRAME.assign(b="x"), tmp_path)
    with pytest.raises(DataError, match=r"^a data frame of 40 rows: text in 'b'"), called(kept):
        load_table(kept.path, header=True)


def test_a_runs_own_data_move_with_its_folder(tmp_path):
    (tmp_path / "data.csv").touch()
    assert beside(tmp_path, "/gone/data.csv") == str(tmp_path / "data.csv")
    assert beside(tmp_path, "/gone/other.csv") == "/gone/other.csv"
    assert beside(tmp_path, "moons") == "moons"
