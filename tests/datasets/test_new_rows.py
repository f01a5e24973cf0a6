"""New rows for a trained model are found by name, wherever they come from."""

import numpy as np
import pandas as pd
import pytest
import torch

from hilbound.datasets.delimited import TextFormat
from hilbound.datasets.new_rows import as_rows, read_new
from hilbound.errors import DataError, InputError

X = np.random.default_rng(0).normal(size=(40, 2))
FRAME = pd.DataFrame(X, columns=["a", "b"])


def test_rows_are_found_by_name_and_checked():
    expected = torch.from_numpy(X)
    assert torch.equal(as_rows(FRAME[["b", "a"]].assign(c="x"), ["a", "b"], 2), expected)
    assert torch.equal(as_rows(X.tolist(), None, 2), expected)
    assert torch.equal(as_rows(FRAME, None, 2), expected)
    assert as_rows(np.zeros((5, 1, 2, 2)), None, 4).shape == (5, 4)
    assert as_rows(np.zeros(5), None, 1).shape == (5, 1)
    gaps = as_rows(FRAME.assign(a=[None, *X[1:, 0]]), ["a", "b"], 2)
    assert gaps.isnan().sum() == 1


@pytest.mark.parametrize(
    ("x", "columns", "dim", "words"),
    [
        (FRAME[["a"]], ["a", "b"], 2, "x lacks 'b', on which the model was fitted: add"),
        (
            FRAME.set_axis(["a", "bb"], axis=1),
            ["a", "b"],
            2,
            r"lacks 'b', .* \(it has 'bb' beside\): did you mean 'bb'\?",
        ),
        (FRAME, None, 3, "x has 2 columns, and the model was fitted on 3 without names"),
        (
            X,
            ["a", "b", "c"],
            3,
            r"x has shape \(40, 2\): rows of 3 numbers are needed, 'a', 'b', 'c'",
        ),
        (FRAME.assign(a="x"), ["a", "b"], 2, "column 'a' holds 'x' in row 1 below the header"),
        ([["x", "y"]], None, 2, "values of type <U1, and rows of 2 numbers are needed"),
        ([[1.0], [1.0, 2.0]], None, 2, "make all rows equally long"),
    ],
    ids=["lacking", "renamed", "other number", "shape", "text", "texts", "ragged"],
)
def test_wrong_columns_are_named(x, columns, dim, words):
    with pytest.raises(DataError, match=words):
        as_rows(x, columns, dim)


def test_images_come_in_bytes_or_between_zero_and_one():
    pixels = np.array([[[0, 255], [51, 102]]], dtype=np.uint8)
    expected = torch.tensor([[0, 1, 0.2, 0.4]], dtype=torch.float64)
    assert torch.allclose(as_rows(pixels, None, 4, images=True), expected)
    assert torch.allclose(as_rows(pixels / 255, None, 4, images=True), expected)
    with pytest.raises(DataError, match="images with values from 0 to 255"):
        as_rows(pixels.astype(float), None, 4, images=True)


def test_files_of_every_kind_are_read(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", x=X)
    FRAME.to_csv(tmp_path / "x.csv", index=False)
    FRAME.to_csv(tmp_path / "x.tsv", index=False, sep="\t")
    for name in ("x.npy", "x.npz", "x.csv", "x.tsv"):
        rows = as_rows(read_new(tmp_path / name), None, 2)
        assert rows.numpy() == pytest.approx(X)


def test_files_of_other_kinds_are_refused(tmp_path):
    (tmp_path / "x.txt").write_text("1")
    np.save(tmp_path / "x.npy", X)
    with pytest.raises(DataError, match=r"the suffix '.txt' is unknown, allowed are .csv"):
        read_new(tmp_path / "x.txt")
    with pytest.raises(DataError, match=r"y.npy does not exist: did you mean 'x.npy'"):
        read_new(tmp_path / "y.npy")
    with pytest.raises(DataError, match="does not exist"):
        read_new(tmp_path / "y.csv")
    with pytest.raises(InputError, match="--header: for files of text"):
        read_new(tmp_path / "x.npy", TextFormat(header=True))
