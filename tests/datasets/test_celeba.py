"""CelebA in its official layout, drawn small: partition, attributes, crop and damaged lists."""

import numpy as np
import pytest
import torch
from PIL import Image

from hilbound.datasets import load
from hilbound.errors import DataError, InputError

PARTS = [0] * 20 + [1] * 6 + [2] * 4
NAMES = [f"{number:06}.jpg" for number in range(1, 31)]


def face(number):
    """A smooth picture of 178 by 218 pixels, whose mean grey tells its number."""
    y, x = np.mgrid[:218, :178]
    waves = 30 * np.sin(x / 17 + number) + 30 * np.cos(y / 23)
    pixels = 70 + 4 * number + np.stack([waves, -waves, 0 * waves], axis=-1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def smiles(number):
    return number % 3 == 0


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    for number, name in enumerate(NAMES):
        face(number).save(folder / name, quality=95)
    return folder


@pytest.fixture
def celeba(tmp_path, drawn):
    images = tmp_path / "celeba" / "img_align_celeba"
    images.parent.mkdir()
    images.symlink_to(drawn)
    write_partition(images.parent)
    lines = [
        f"{name} {1 if i % 2 else -1:2d}  {1 if smiles(i) else -1}" for i, name in enumerate(NAMES)
    ]
    header = f"{len(NAMES)}\nMale Smiling \n"
    (images.parent / "list_attr_celeba.txt").write_text(header + "\n".join(lines) + "\n")
    return images.parent


def write_partition(folder, lines=None):
    lines = [f"{n} {p}" for n, p in zip(NAMES, PARTS, strict=True)] if lines is None else lines
    (folder / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")


def by_hand(path, crop, size):
    """The central crop as boxes for the official 178 by 218 pixels."""
    box = {148: (15, 35, 163, 183), 108: (35, 55, 143, 163)}[crop]
    with Image.open(path) as image:
        small = image.crop(box).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(small).transpose(2, 0, 1).ravel() / np.float32(255)


@pytest.mark.parametrize(
    ("options", "crop", "size"),
    [({}, 148, 64), ({"image_size": 16}, 148, 16), ({"crop": 108, "image_size": 32}, 108, 32)],
)
def test_partition_and_crop(celeba, drawn, options, crop, size):
    data = load("celeba", root=celeba.parent, seed=1, **options)
    assert data.image_shape == (3, size, size)
    assert data.train_labels is None
    rows = {name: by_hand(drawn / name, crop, size).tobytes() for name in NAMES}
    for part, number in (("train", 0), ("validation", 1), ("test", 2)):
        expected = {rows[n] for n, p in zip(NAMES, PARTS, strict=True) if p == number}
        assert {row.tobytes() for row in getattr(data, part).numpy()} == expected


def test_seed_samples_and_grey(celeba, monkeypatch):
    monkeypatch.setenv("HILBOUND_DATA", str(celeba.parent))
    options = {"image_size": 8, "grayscale": True}
    whole, few = load("celeba", **options), load("celeba", samples=5, **options)
    assert whole.image_shape == (1, 8, 8)
    assert torch.equal(few.train, whole.train[:5])
    assert torch.equal(few.test, whole.test)
    assert not torch.equal(load("celeba", seed=1, **options).train, whole.train)


def test_attributes_are_labels(celeba, drawn):
    options = {"root": celeba, "image_size": 8}
    data = load("celeba", label_column="Smiling", **options)
    known = {by_hand(drawn / name, 148, 8).tobytes(): i for i, name in enumerate(NAMES)}
    for part in ("train", "validation", "test"):
        numbers = [known[row.tobytes()] for row in getattr(data, part).numpy()]
        assert getattr(data, f"{part}_labels").tolist() == [int(smiles(n)) for n in numbers]
    happy = load("celeba", label_column="Smiling", classes="Smiling", **options)
    assert torch.equal(happy.train, data.train[data.train_labels == 1])
    assert happy.classes == 1
    sad = load("celeba", label_column="Smiling", classes="not-Smiling", **options)
    assert len(sad.train) + len(happy.train) == 20
    with pytest.raises(InputError, match=r"label_column='Smilling': did you mean 'Smiling'\?"):
        load("celeba", label_column="Smilling", **options)
    with pytest.raises(InputError, match="name it with label_column, such as Smiling"):
        load("celeba", classes="Smiling", **options)


def test_published_folders(celeba, tmp_path):
    expected = load("celeba", root=celeba, image_size=4, label_column="Male")
    for part, name in (
        ("Img", "img_align_celeba"),
        ("Eval", "list_eval_partition.txt"),
        ("Anno", "list_attr_celeba.txt"),
    ):
        (tmp_path / "other" / part).mkdir(parents=True)
        (celeba / name).rename(tmp_path / "other" / part / name)
    found = load("celeba", root=tmp_path / "other", image_size=4, label_column="Male")
    assert torch.equal(found.train, expected.train)
    assert torch.equal(found.train_labels, expected.train_labels)


def test_validation_rows_are_limited(celeba, monkeypatch):
    monkeypatch.setattr("hilbound.datasets.celeba.VALIDATION_ROWS", 3)
    assert len(load("celeba", root=celeba, image_size=4).validation) == 3


@pytest.mark.parametrize(
    "line", ["000003.jpg 3", "000003.jpg", "000003.jpg 0 0", "000003.jpg train"]
)
def test_damaged_partition(celeba, line):
    write_partition(celeba, [f"{NAMES[0]} 0", f"{NAMES[1]} 1", line])
    with pytest.raises(DataError, match=rf"list_eval_partition\.txt: line 3 is '{line}'"):
        load("celeba", root=celeba)


def test_lists_that_do_not_fit(celeba):
    write_partition(celeba, [f"{name} 0" for name in NAMES])
    with pytest.raises(DataError, match="celeba: no validation image"):
        load("celeba", root=celeba)
    write_partition(celeba, [f"{NAMES[0]} {part}" for part in (0, 1, 2)])
    with pytest.raises(DataError, match="some images are listed twice"):
        load("celeba", root=celeba)
    write_partition(celeba, [f"{NAMES[0]} 0", "../secret.jpg 1", "999999.jpg 2"])
    with pytest.raises(DataError, match=r"2 of the 3 images .* the first is \.\./secret\.jpg"):
        load("celeba", root=celeba)
    write_partition(celeba, [])
    with pytest.raises(DataError, match="0 of the 0 images"):
        load("celeba", root=celeba)


def test_damaged_attributes(celeba):
    path = celeba / "list_attr_celeba.txt"
    good = path.read_text().splitlines()
    for line in ("000003.jpg 1", "000003.jpg 1 0", "000003.jpg 1 1 1"):
        path.write_text("\n".join([*good[:4], line, *good[5:]]))
        with pytest.raises(DataError, match=r"list_attr_celeba\.txt: line 5 does not hold"):
            load("celeba", root=celeba, label_column="Smiling")
    path.write_text("\n".join(good[:-1]))
    with pytest.raises(DataError, match=r"1 images have no attributes, the first is 000030\.jpg"):
        load("celeba", root=celeba, label_column="Smiling")
    path.write_text("")
    with pytest.raises(InputError, match=r"the attributes in .* are none"):
        load("celeba", root=celeba, label_column="Smiling")


def test_truncated_face(celeba, drawn):
    (celeba / "img_align_celeba").unlink()
    (celeba / "img_align_celeba").mkdir()
    for name in NAMES:
        content = (drawn / name).read_bytes()
        cut = content[: len(content) // 2] if name == NAMES[4] else content
        (celeba / "img_align_celeba" / name).write_bytes(cut)
    with pytest.raises(DataError, match=r"000005\.jpg: a truncated or damaged image"):
        load("celeba", root=celeba)


def test_without_the_data_it_says_what_to_put_where(tmp_path, celeba, monkeypatch):
    with pytest.raises(DataError, match="CelebA: img_align_celeba not found") as caught:
        load("celeba", root=tmp_path / "nowhere")
    assert f"into {tmp_path / 'nowhere' / 'celeba'}" in str(caught.value)
    assert "list_eval_partition.txt" in str(caught.value)
    monkeypatch.delenv("HILBOUND_DATA", raising=False)
    with pytest.raises(DataError, match="HILBOUND_DATA is not set and no root was given"):
        load("celeba")
    (celeba / "img_align_celeba").unlink()
    (celeba / "img_align_celeba").write_bytes(b"")
    with pytest.raises(DataError, match=r"is no folder: unpack img_align_celeba\.zip there"):
        load("celeba", root=celeba)


def test_all_of_celeba_is_told_to_be_too_much_before_it_is_decoded(celeba, monkeypatch):
    monkeypatch.setattr("hilbound.datasets.gallery.machine_memory", lambda: 10**6)
    with pytest.raises(DataError, match=r"celeba: 30 images of shape \(3, 64, 64\) make"):
        load("celeba", root=celeba)
