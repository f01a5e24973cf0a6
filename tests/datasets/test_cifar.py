"""CIFAR-10 in its published layout, written byte by byte: packed, unpacked, partial and damaged."""

import gzip
import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from hilbound.datasets import cifar, load
from hilbound.errors import DataError, InputError

NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def records(start, count):
    """Images that spell their own number in the first two pixels of every channel."""
    number = np.arange(start, start + count)
    pixels = np.random.default_rng(start).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    pixels[:, :, 0, 0], pixels[:, :, 0, 1] = (number // 256)[:, None], (number % 256)[:, None]
    labels = (number % 10).astype(np.uint8)
    return labels, pixels


def batch(start, count):
    labels, pixels = records(start, count)
    return b"".join(bytes([y]) + x.tobytes() for y, x in zip(labels, pixels, strict=True))


TWO_BATCHES = {
    "data_batch_1.bin": batch(0, 60),
    "data_batch_2.bin": batch(60, 40),
    "test_batch.bin": batch(100, 30),
}


def archive(members, prefix="cifar-10-batches-bin/"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in {"batches.meta.txt": b"airplane\n", **members}.items():
            entry = tarfile.TarInfo(prefix + name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def write(tmp_path):
    def write_archive(content=None, members=TWO_BATCHES):
        path = tmp_path / "cifar-10-binary.tar.gz"
        path.write_bytes(archive(members) if content is None else content)
        return path

    return write_archive


def numbers_of(rows):
    pixels = (rows * 255).round().long()
    return pixels[:, 0] * 256 + pixels[:, 1]


def test_splits_values_and_labels(write, tmp_path):
    write()
    data = load("cifar10", root=tmp_path, seed=3)
    assert data.image_shape == (3, 32, 32)
    assert data.train.dtype == torch.float32
    assert [len(part) for part in (data.train, data.validation, data.test)] == [90, 10, 30]
    assert numbers_of(data.test).tolist() == list(range(100, 130))
    train, validation = numbers_of(data.train), numbers_of(data.validation)
    assert sorted(torch.cat([train, validation]).tolist()) == list(range(100))
    assert torch.equal(data.train_labels, train % 10)
    assert torch.equal(data.validation_labels, validation % 10)
    assert torch.equal(data.test_labels, numbers_of(data.test) % 10)
    expected = records(100, 30)[1].reshape(30, -1).astype(np.float32) / 255
    assert np.array_equal(data.test.numpy(), expected)
    again, other = (load("cifar10", root=tmp_path, seed=seed) for seed in (3, 4))
    assert torch.equal(again.validation, data.validation)
    assert not torch.equal(other.validation, data.validation)


def test_samples_shorten_only_the_training_rows(write, tmp_path):
    write()
    whole, few = (load("cifar10", root=tmp_path, samples=n) for n in (None, 7))
    assert torch.equal(few.train, whole.train[:7])
    assert torch.equal(few.train_labels, whole.train_labels[:7])
    assert torch.equal(few.validation, whole.validation)


def test_the_published_set_holds_5000_out():
    split = cifar._split(50_000, 10_000, torch.Generator().manual_seed(0))
    assert [len(rows) for rows in split] == [45_000, 5_000, 10_000]
    assert torch.equal(torch.cat(split).sort().values, torch.arange(60_000))
    assert torch.equal(split.test, torch.arange(50_000, 60_000))


def test_folder_and_archive_agree_in_every_place(write, tmp_path, monkeypatch, caplog):
    path = write()
    expected = load("cifar10", root=tmp_path).train
    for place in ("cifar10/cifar-10-binary.tar.gz", "data/cifar10/cifar-10-binary.tar.gz"):
        target = tmp_path / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    path.unlink()
    assert torch.equal(load("cifar10", root=tmp_path).train, expected)
    monkeypatch.setenv("HILBOUND_DATA", str(tmp_path / "data"))
    assert torch.equal(load("cifar10").train, expected)
    folder = tmp_path / "unpacked" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, content in TWO_BATCHES.items():
        (folder / name).write_bytes(content)
    caplog.clear()
    assert torch.equal(load("cifar10", root=tmp_path / "unpacked").train, expected)
    assert "holds 100 training and 30 test images" in caplog.text
    (folder / "data_batch_2.bin").write_bytes(TWO_BATCHES["data_batch_2.bin"][:-1])
    with pytest.raises(DataError, match=r"data_batch_2\.bin: 122919 bytes, where 1 to 10000 rec"):
        load("cifar10", root=tmp_path / "unpacked")


def test_classes_by_name_and_number(write, tmp_path):
    write()
    whole, pets = load("cifar10", root=tmp_path), load("cifar10", root=tmp_path, classes="dog,cat")
    for part in ("train", "validation", "test"):
        labels = getattr(whole, f"{part}_labels")
        kept = (labels == 3) | (labels == 5)
        assert torch.equal(getattr(pets, part), getattr(whole, part)[kept])
        assert torch.equal(getattr(pets, f"{part}_labels"), (labels[kept] == 5).long())
    assert pets.classes == 2
    assert torch.equal(load("cifar10", root=tmp_path, classes=[3, 5]).train, pets.train)
    for number, name in enumerate(NAMES):
        if number in whole.validation_labels:
            one = load("cifar10", root=tmp_path, classes=name, samples=4)
            assert numbers_of(one.train).remainder(10).tolist() == [number] * 4
            assert one.train_labels.tolist() == [0] * 4
        else:
            with pytest.raises(DataError, match=f"no validation image of classes={name}"):
                load("cifar10", root=tmp_path, classes=name)
    with pytest.raises(InputError, match=r"no class 'catt': did you mean 'cat'\? known: airplane"):
        load("cifar10", root=tmp_path, classes="catt")
    with pytest.raises(InputError, match="no class '10'"):
        load("cifar10", root=tmp_path, classes=[10])


def test_size_crop_and_grey_are_pillows(write, tmp_path):
    write()
    options = {"image_size": 12, "crop": 20, "grayscale": True}
    data = load("cifar10", root=tmp_path, **options)
    assert data.image_shape == (1, 12, 12)
    pixels = records(100, 30)[1]
    for row, image in zip(data.test.numpy(), pixels, strict=True):
        grey = Image.fromarray(image.transpose(1, 2, 0)).convert("L").crop((6, 6, 26, 26))
        expected = np.asarray(grey.resize((12, 12), Image.Resampling.BILINEAR)).ravel()
        assert np.array_equal((row * 255).round(), expected)
    colour = load("cifar10", root=tmp_path, crop=20)
    assert colour.image_shape == (3, 20, 20)
    cut = pixels[:, :, 6:26, 6:26].reshape(30, -1) / np.float32(255)
    assert np.array_equal(colour.test.numpy(), cut)
    with pytest.raises(DataError, match="cifar10: 32 by 32 pixels, from which no square of crop=3"):
        load("cifar10", root=tmp_path, crop=33)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.9, "footer"])
def test_a_truncated_archive_is_named_and_refused(write, tmp_path, share):
    good = archive(TWO_BATCHES)
    path = write(good[:-6] if share == "footer" else good[: int(share * len(good))])
    with pytest.raises(DataError, match="a truncated gzip file") as caught:
        load("cifar10", root=tmp_path)
    assert str(path) in str(caught.value)


def test_damaged_archives(write, tmp_path):
    good = archive(TWO_BATCHES)
    cut = gzip.compress(gzip.decompress(good)[:200_000])
    checksum = good[:-8] + b"\0\0\0\0" + good[-4:]
    for content in (b"no archive", b"", cut, checksum, gzip.compress(b"no tar" * 999)):
        write(content)
        with pytest.raises(DataError, match=r"damaged archive|truncated gzip") as caught:
            load("cifar10", root=tmp_path)
        assert "cifar-10-binary.tar.gz" in str(caught.value)


def test_wrong_records(write, tmp_path):
    wrong = bytearray(TWO_BATCHES["data_batch_2.bin"])
    wrong[3073 * 4] = 10
    write(members={**TWO_BATCHES, "data_batch_2.bin": bytes(wrong)})
    with pytest.raises(DataError, match=r"data_batch_2\.bin: record 5 has the class 10, allowed"):
        load("cifar10", root=tmp_path)
    for content in (b"", b"\0" * 3072, b"\0" * 3074, b"\0" * 3073 * 10_001):
        write(members={**TWO_BATCHES, "test_batch.bin": content})
        with pytest.raises(DataError, match=rf"test_batch\.bin: {len(content)} bytes, where 1 to"):
            load("cifar10", root=tmp_path)


def test_missing_batches(write, tmp_path):
    for name, others in (("test_batch.bin", 2), ("data_batch_1.bin", 1)):
        members = dict(list(TWO_BATCHES.items())[:others] if others == 2 else [])
        members = members or {"test_batch.bin": TWO_BATCHES["test_batch.bin"]}
        write(members=members)
        with pytest.raises(DataError, match=f"{name} is missing"):
            load("cifar10", root=tmp_path)


def test_links_in_an_archive_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("data_batch_1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(DataError, match=r"data_batch_1\.bin is missing"):
        load("cifar10", root=tmp_path)


class Trap:
    """Would fail if it were ever unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


def test_the_python_version_is_refused(write, tmp_path):
    pickled = archive({"data_batch_1": pickle.dumps(Trap())}, "cifar-10-batches-py/")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(pickled)
    with pytest.raises(DataError, match=r"Python version .* unpickling runs code: fetch the bina"):
        load("cifar10", root=tmp_path)
    write(pickled)
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz: the Python version"):
        load("cifar10", root=tmp_path)


def test_without_the_data_it_says_what_to_put_where(tmp_path, monkeypatch):
    with pytest.raises(DataError) as caught:
        load("cifar10", root=tmp_path)
    message = str(caught.value)
    assert f"Put the archive into {tmp_path / 'cifar10'}" in message
    assert "cifar-10-binary.tar.gz" in message
    assert "HILBOUND_DATA" in message
    monkeypatch.delenv("HILBOUND_DATA", raising=False)
    with pytest.raises(DataError, match="HILBOUND_DATA is not set and no root was given"):
        load("cifar10")


def test_rows_beyond_the_memory_are_refused_before_they_are_made(write, tmp_path, monkeypatch):
    write()
    needed = 130 * 3 * 32 * 32 * 4
    monkeypatch.setattr("hilbound.datasets.gallery.machine_memory", lambda: 4 * needed)
    assert len(load("cifar10", root=tmp_path).train) == 90
    monkeypatch.setattr("hilbound.datasets.gallery.machine_memory", lambda: 4 * needed - 4)
    with pytest.raises(
        DataError, match=r"130 images of shape \(3, 32, 32\) make 0\.0 GB"
    ) as caught:
        load("cifar10", root=tmp_path)
    assert all(word in str(caught.value) for word in ("samples", "image_size", "grayscale"))
    assert len(load("cifar10", root=tmp_path, samples=80).train) == 80
    with pytest.raises(DataError, match=r"\(3, 9000000, 9000000\) make"):
        load("cifar10", root=tmp_path, image_size=9_000_000)
    monkeypatch.setattr("hilbound.datasets.gallery.machine_memory", lambda: None)
    assert len(load("cifar10", root=tmp_path).train) == 90


@pytest.mark.data
@pytest.mark.skipif("HILBOUND_DATA" not in os.environ, reason="HILBOUND_DATA names no folder")
def test_the_real_cifar10():
    data = load("cifar10", seed=1)
    held = torch.cat([data.train, data.validation])
    assert len(data.validation) == min(5_000, len(held) // 10)
    assert data.image_shape == (3, 32, 32)
    assert data.classes == 10
    counts = torch.bincount(torch.cat([data.train_labels, data.validation_labels]))
    assert (counts == len(held) // 10).all()  # every batch file has its classes in balance here
    # The published means and standard deviations of the channels of the 50,000 training images.
    channels = held.double().unflatten(1, (3, 1024))
    assert channels.mean(dim=(0, 2)).tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=5e-3)
    assert channels.std(dim=(0, 2)).tolist() == pytest.approx([0.247, 0.2435, 0.2616], abs=5e-3)
