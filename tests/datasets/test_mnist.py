"""IDX files, good and damaged, written byte by byte; MNIST from a folder; the embedded digits."""

import gzip
import os
import struct

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from hilbound.datasets import data_root, load
from hilbound.datasets.mnist import MNIST_FILES, read_idx
from hilbound.errors import DataError


def idx(array, magic=None):
    array = np.asarray(array, dtype=np.uint8)
    magic = (0x0800 | array.ndim) if magic is None else magic
    return struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.tobytes()


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.fixture
def write(tmp_path):
    def write_bytes(content, name="file"):
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return write_bytes


@pytest.mark.parametrize("values", [IMAGES, np.array([7, 0, 255], dtype=np.uint8)])
def test_read_idx_plain_and_gzipped(write, values):
    for path in (write(idx(values)), write(gzip.compress(idx(values)), "file.gz")):
        found = read_idx(path)
        assert found.dtype == torch.uint8
        assert np.array_equal(found.numpy(), values)
        found[0] = 0  # writable, not a view of the file's bytes


def test_read_idx_missing(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path)


@pytest.mark.parametrize("magic", [0, 2050, 0x0D03, 0x03080000])
def test_read_idx_wrong_magic(write, magic):
    with pytest.raises(DataError, match=rf"magic number {magic}, allowed are 2049 .* and 2051"):
        read_idx(write(idx(IMAGES, magic)))


@pytest.mark.parametrize(
    ("keep", "expected"),
    [(0, "at least 4"), (3, "at least 4"), (4, "at least 16"), (15, "at least 16"), (39, "40")],
)
def test_read_idx_truncated(write, keep, expected):
    with pytest.raises(DataError, match=rf"truncated, expected {expected} bytes, got {keep};"):
        read_idx(write(idx(IMAGES)[:keep]))


def test_read_idx_impossible_sizes(write):
    content = struct.pack(">4I", 2051, *[2**32 - 1] * 3)
    with pytest.raises(DataError, match="truncated, expected 79228"):
        read_idx(write(content))


def test_read_idx_trailing_bytes(write):
    with pytest.raises(DataError, match="3 trailing bytes, expected 40 bytes, got 43"):
        read_idx(write(idx(IMAGES) + b"end"))


def test_read_idx_damaged_gzip(write):
    good = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, (20, 9, 9))))
    with pytest.raises(DataError, match="truncated gzip"):
        read_idx(write(good[: len(good) // 2], "a.gz"))
    with pytest.raises(DataError, match="corrupt gzip"):
        read_idx(write(idx(IMAGES), "b.gz"))
    with pytest.raises(DataError, match="corrupt gzip"):  # the checksum
        read_idx(write(good[:-8] + b"\0\0\0\0" + good[-4:], "c.gz"))
    with pytest.raises(DataError, match="corrupt gzip"):  # the compressed stream
        read_idx(write(good[:12] + b"\xff" * 40 + good[52:], "d.gz"))


@pytest.fixture(scope="module")
def parts():
    """5,020 training and 30 test images of 2 by 3 pixels that spell their own number."""
    number = np.arange(5050)
    digits = np.stack([number // 256, number % 256] * 3, axis=1).astype(np.uint8)
    images, labels = digits.reshape(-1, 2, 3), (number % 10).astype(np.uint8)
    return [images[:5020], labels[:5020], images[5020:], labels[5020:]]


def write_mnist(folder, parts, *, compress=False):
    folder.mkdir(exist_ok=True)
    for name, values in zip(MNIST_FILES, parts, strict=True):
        content = idx(values)
        path = folder / (f"{name}.gz" if compress else name)
        path.write_bytes(gzip.compress(content, 1) if compress else content)


def numbers_of(rows):
    pixels = (rows * 255).round().long()
    return pixels[:, 0] * 256 + pixels[:, 1]


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("sub_folder", ["", "mnist"])
def test_mnist_splits(tmp_path, monkeypatch, parts, compress, sub_folder):
    write_mnist(tmp_path / sub_folder, parts, compress=compress)
    monkeypatch.setenv("HILBOUND_DATA", str(tmp_path))
    data = load("mnist", seed=4)
    assert data.image_shape == (1, 2, 3)
    assert numbers_of(data.test).tolist() == list(range(5020, 5050))
    train, validation = numbers_of(data.train), numbers_of(data.validation)
    assert len(validation) == 5000
    assert sorted(torch.cat([train, validation]).tolist()) == list(range(5020))
    assert torch.equal(data.train_labels, train % 10)
    assert torch.equal(data.validation_labels, validation % 10)
    assert data.train.max() <= 1
    assert torch.equal(data.validation, load("mnist", seed=4).validation)
    assert not torch.equal(data.validation, load("mnist", seed=5).validation)
    few = load("mnist", seed=4, samples=8)
    assert torch.equal(few.train, data.train[:8])
    assert torch.equal(few.validation, data.validation)


def test_root_comes_before_the_environment(tmp_path, monkeypatch, parts):
    write_mnist(tmp_path / "here", parts)
    monkeypatch.setenv("HILBOUND_DATA", str(tmp_path / "nowhere"))
    assert load("mnist", root=tmp_path / "here").dim == 6
    assert data_root() == tmp_path / "nowhere"
    assert data_root("here").name == "here"
    monkeypatch.delenv("HILBOUND_DATA")
    assert data_root() is None


def test_mnist_missing(tmp_path, monkeypatch, parts):
    write_mnist(tmp_path, parts)
    (tmp_path / MNIST_FILES[1]).unlink()
    with pytest.raises(DataError) as caught:
        load("mnist", root=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"MNIST: {MNIST_FILES[1]} not found in {tmp_path / 'mnist'} and ")
    assert all(name in message for name in MNIST_FILES)
    assert "HILBOUND_DATA" in message
    monkeypatch.delenv("HILBOUND_DATA", raising=False)
    with pytest.raises(DataError, match="HILBOUND_DATA is not set and no root was given"):
        load("mnist")


def test_mnist_labels_do_not_match(tmp_path, parts):
    write_mnist(tmp_path, [parts[0], parts[1][:-1], *parts[2:]])
    with pytest.raises(DataError, match="5019 labels for the 5020 images"):
        load("mnist", root=tmp_path)


def test_mnist_changed_places(tmp_path, parts):
    write_mnist(tmp_path, [parts[1], parts[0], *parts[2:]])
    with pytest.raises(DataError, match=r"holds labels; were two files exchanged\?"):
        load("mnist", root=tmp_path)


def test_mnist_unfit(tmp_path, parts):
    write_mnist(tmp_path, [*parts[:2], parts[2].reshape(-1, 3, 2), parts[3]])
    with pytest.raises(DataError, match=r"\(3, 2\) pixels, but those of .* have \(2, 3\)"):
        load("mnist", root=tmp_path)
    write_mnist(tmp_path, [parts[0][:5000], parts[1][:5000], *parts[2:]])
    with pytest.raises(DataError, match="5000 images, more than 5000 are needed"):
        load("mnist", root=tmp_path)
    write_mnist(tmp_path, [*parts[:2], parts[2][:0], parts[3][:0]])
    with pytest.raises(DataError, match=r"an empty array of shape \(0, 2, 3\)"):
        load("mnist", root=tmp_path)


@pytest.mark.data
@pytest.mark.skipif("HILBOUND_DATA" not in os.environ, reason="HILBOUND_DATA names no folder")
def test_the_real_mnist():
    data = load("mnist")
    sizes = [len(part) for part in (data.train, data.validation, data.test)]
    assert sizes == [55_000, 5_000, 10_000]
    assert data.image_shape == (1, 28, 28)
    assert data.classes == 10
    assert data.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    everything = torch.cat([data.train, data.validation]).double()
    # The published mean and standard deviation of the 60,000 training images; copies that were
    # once stored as pictures are off by a grey level here and there.
    assert everything.mean().item() == pytest.approx(0.1307, abs=3e-4)
    assert everything.std().item() == pytest.approx(0.3081, abs=3e-4)


def test_digits_are_those_of_sklearn_in_stratified_disjoint_splits():
    images, labels = load_digits(return_X_y=True)
    data = load("digits", seed=0)
    parts = [
        (data.train, data.train_labels, 0.7),
        (data.validation, data.validation_labels, 0.15),
        (data.test, data.test_labels, 0.15),
    ]
    known = {image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    assert len(known) == 1797  # no image appears twice, so that rows can be told apart
    seen = []
    for rows, numbers, share in parts:
        found = [row.tobytes() for row in (rows.double() * 16).numpy()]
        assert [known[key] for key in found] == numbers.tolist()
        counts = np.bincount(numbers) / np.bincount(labels)
        assert np.abs(counts - share).max() < 0.01
        seen += found
    assert len(set(seen)) == len(seen) == 1797
    assert data.image_shape == (1, 8, 8)
    assert data.classes == 10
    assert data.train.dtype == torch.float32


def test_digits_seed_and_samples():
    first, few = load("digits", seed=1), load("digits", seed=1, samples=20)
    assert torch.equal(first.train[:20], few.train)
    assert torch.equal(first.test, few.test)
    assert not torch.equal(first.test, load("digits", seed=2).test)
