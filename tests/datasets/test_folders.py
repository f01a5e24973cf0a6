"""Folders of images: layouts, formats and modes, crops against Pillow's, and what is refused."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from hilbound.datasets import load
from hilbound.datasets.options import PLAIN, ImageOptions
from hilbound.datasets.pixels import read_picture
from hilbound.errors import DataError, InputError


def random_pixels(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(number, height=6, width=5):
    """Noise that spells its own number in the first pixel."""
    pixels = random_pixels(number, height, width, 3)
    pixels[0, 0] = number
    return Image.fromarray(pixels)


def numbers_of(rows):
    return (rows[:, 0] * 255).round().long()


def write_classes(folder, sizes):
    """Write so many images of every class, numbered on."""
    number = 0
    for name, size in sizes.items():
        (folder / name).mkdir(parents=True)
        for _ in range(size):
            picture(number).save(folder / name / f"{number:03}.png")
            number += 1
    return folder


@pytest.fixture
def pets(tmp_path):
    return write_classes(tmp_path / "pets", {"cat": 60, "dog": 30, "ant": 10})


def test_classes_splits_and_exact_pixels(pets):
    data = load(pets, seed=2, validation_fraction=0.2, test_fraction=0.1)
    parts = [
        (data.train, data.train_labels),
        (data.validation, data.validation_labels),
        (data.test, data.test_labels),
    ]
    assert data.name == str(pets)
    assert data.image_shape == (3, 6, 5)
    assert [len(rows) for rows, _ in parts] == [70, 20, 10]
    # ant, cat, dog in the order of their names, each shared out in the same proportions
    assert [np.bincount(labels).tolist() for _, labels in parts] == [
        [7, 42, 21],
        [2, 12, 6],
        [1, 6, 3],
    ]
    numbers = torch.cat([numbers_of(rows) for rows, _ in parts])
    assert sorted(numbers.tolist()) == list(range(100))
    for rows, labels in parts:
        for row, label in zip(rows.numpy(), labels.tolist(), strict=True):
            number = round(float(row[0]) * 255)
            assert label == [1, 2, 0][(number >= 60) + (number >= 90)]
            expected = np.asarray(picture(number)).transpose(2, 0, 1).ravel()
            assert np.array_equal(row, expected / np.float32(255))


def test_a_seed_names_the_rows_and_samples_cut_the_training_ones(pets):
    first, again, other = load(pets, seed=1), load(str(pets), seed=1), load(pets, seed=2)
    assert torch.equal(first.train, again.train)
    assert not torch.equal(first.test, other.test)
    few = load(pets, seed=1, samples=10)
    assert torch.equal(few.train, first.train[:10])
    assert torch.equal(few.test, first.test)
    assert torch.bincount(few.train_labels).tolist() == [1, 6, 3]  # in proportion as well


def test_only_what_is_used_is_decoded(pets):
    data = load(pets, seed=1, samples=10)
    used = {int(n) for part in (data.train, data.validation, data.test) for n in numbers_of(part)}
    used.add(90)  # the first in order, which tells the shape
    for path in pets.rglob("*.png"):
        if int(path.stem) not in used:
            path.write_bytes(b"damaged")
    assert torch.equal(load(pets, seed=1, samples=10).train, data.train)
    with pytest.raises(DataError, match="a truncated or damaged image"):
        load(pets, seed=1)


def test_classes_of_a_folder(pets):
    whole, some = load(pets, seed=1), load(pets, seed=1, classes="dog,ant")
    kept = whole.train_labels != 1
    assert torch.equal(some.train, whole.train[kept])
    assert torch.equal(some.train_labels, (whole.train_labels[kept] == 2).long())
    assert some.classes == 2
    assert torch.equal(load(pets, seed=1, classes=[2, 0]).train, some.train)
    with pytest.raises(InputError, match=r"no class 'dgo': did you mean 'dog'\? known: ant, cat"):
        load(pets, classes="dgo")


def test_numeric_names_of_classes_are_names(tmp_path):
    write_classes(tmp_path, {"3": 20, "5": 20, "0x": 20})
    assert load(tmp_path, classes="5").train[:, 0].mul(255).round().min() >= 20
    with pytest.raises(InputError, match="no class '1'"):
        load(tmp_path, classes="1")


def test_a_class_too_small_for_every_split(tmp_path):
    write_classes(tmp_path, {"many": 30, "one": 1})
    data = load(tmp_path)
    assert data.train_labels.sum() == 1
    assert data.test_labels.sum() == 0
    with pytest.raises(DataError, match="no validation image of classes=one"):
        load(tmp_path, classes="one")


def test_flat_and_nested_folders(tmp_path, monkeypatch):
    flat, nested = tmp_path / "flat", tmp_path / "nested"
    for folder in (flat, nested / "a" / "x", nested / "a" / "y"):
        folder.mkdir(parents=True)
        for number in range(20):
            picture(number).save(folder / f"{number}.PNG")
    data = load(flat)
    assert data.train_labels is None
    assert data.classes is None
    assert [len(part) for part in (data.train, data.validation, data.test)] == [16, 2, 2]
    assert load(nested).classes == 1
    assert len(load(nested).train) == 32
    monkeypatch.chdir(tmp_path)
    assert torch.equal(load("flat").train, data.train)
    with pytest.raises(InputError, match=r"no class 'a': known: none"):
        load("flat", classes="a")
    with pytest.raises(InputError, match="label_column='kind' is for files and celeba"):
        load("flat", label_column="kind")


def test_what_is_no_image_is_passed_over(pets, caplog):
    expected = load(pets).train
    for name in (".hidden.png", "Thumbs.db", "desktop.ini", "notes.txt", "cat/.DS_Store"):
        (pets / name).write_bytes(b"no image")
    for name in (".git/a.png", "__MACOSX/._a.png"):
        (pets / name).parent.mkdir()
        (pets / name).write_bytes(b"no image")
    assert torch.equal(load(pets).train, expected)
    assert caplog.text == ""
    (pets / "bird").mkdir()
    assert torch.equal(load(pets).train, expected)
    assert f"{pets / 'bird'} holds no images, and is not counted as a class" in caplog.text


def test_folders_refused(tmp_path, pets):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no images \(\.png, \.jpg"):
        load(tmp_path / "empty")
    picture(0).save(pets / "loose.png")
    with pytest.raises(DataError, match="1 images lie beside the sub-folders ant, cat, dog"):
        load(pets)
    write_classes(tmp_path / "ready", {"Train/cat": 12, "test/cat": 12})
    with pytest.raises(DataError, match="the sub-folders Train, test look like splits"):
        load(tmp_path / "ready")
    write_classes(tmp_path / "few", {"cat": 9})
    with pytest.raises(DataError, match="9 rows of data, at least 10"):
        load(tmp_path / "few")
    with pytest.raises(DataError, match="missing does not exist"):
        load(tmp_path / "missing")


def test_images_of_several_sizes(pets):
    picture(7, 8, 9).save(pets / "cat" / "007.png")
    with pytest.raises(DataError, match=r"007\.png: 9 by 8 pixels, where 5 by"):
        load(pets)
    assert load(pets, image_size=4).image_shape == (3, 4, 4)
    assert load(pets, crop=5).image_shape == (3, 5, 5)
    with pytest.raises(DataError, match="5 by 6 pixels, from which no square of crop=6 can be cut"):
        load(pets, crop=6)


def test_colour_in_vain_is_noticed(tmp_path, caplog):
    for number in range(12):
        picture(number).convert("L").save(tmp_path / f"{number}.png")
    assert load(tmp_path).image_shape == (3, 6, 5)
    assert "images are grey: grayscale would make their rows a third as long" in caplog.text
    caplog.clear()
    assert load(tmp_path, grayscale=True).image_shape == (1, 6, 5)
    assert caplog.text == ""


def test_memory_is_checked_before_the_images_are_decoded(pets, monkeypatch):
    monkeypatch.setattr("hilbound.datasets.gallery.machine_memory", lambda: 1000)
    for path in list(pets.rglob("*.png"))[1:]:
        if path.stem != "090":
            path.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"100 images of shape \(3, 6, 5\) make"):
        load(pets)


@pytest.mark.parametrize("option", ["image_size", "crop"])
def test_absurd_sizes_are_refused_before_anything_is_drawn(pets, option):
    with pytest.raises(DataError, match=r"\(3, 9000000, 9000000\) make .* GB of float32 rows"):
        load(pets, **{option: 9_000_000})
    with pytest.raises(DataError, match=r"\(1, 9000000, 9000000\) make"):
        load(pets, **{option: 9_000_000}, grayscale=True)


# One image at a time: crops, sizes, formats and modes.


@pytest.fixture
def save(tmp_path):
    def save_image(image, name="image.png", **options):
        path = tmp_path / name
        image.save(path, **options)
        return path

    return save_image


@pytest.mark.parametrize(
    ("options", "box", "size"),
    [
        ({"crop": 8}, (8, 3, 16, 11), None),
        ({"image_size": 7}, (5, 0, 19, 14), 7),  # the largest square
        ({"crop": 9, "image_size": 5}, (7, 2, 16, 11), 5),
        ({"crop": 4, "image_size": 12}, (10, 5, 14, 9), 12),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_crop_and_size_are_pillows(save, options, box, size, mode):
    image = picture(1, 14, 24)
    found = read_picture(save(image), ImageOptions(**options, grayscale=mode == "L"))
    expected = image.convert(mode).crop(box)
    if size is not None:
        expected = expected.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.atleast_3d(np.asarray(expected)).transpose(2, 0, 1)
    assert np.array_equal(found, pixels)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.webp"])
def test_lossless_formats_are_exact(save, name):
    image = picture(3, 9, 7)
    options = {"lossless": True} if name == "a.webp" else {}
    found = read_picture(save(image, name, **options), PLAIN)
    assert np.array_equal(found, np.asarray(image).transpose(2, 0, 1))


def test_jpeg_is_near(save):
    smooth = np.linspace(0, 255, 16 * 16 * 3).reshape(16, 16, 3).astype(np.uint8)
    for image in (Image.fromarray(smooth), Image.fromarray(smooth).convert("CMYK")):
        found = read_picture(save(image, "a.jpg", quality=95), PLAIN)
        assert np.abs(found.transpose(1, 2, 0).astype(int) - smooth).max() < 20


def test_palettes_and_greys(save):
    indices = random_pixels(0, 4, 5) % 3
    colours = np.array([[255, 0, 9], [3, 200, 0], [0, 17, 255]], dtype=np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    for name in ("a.png", "a.gif"):
        assert np.array_equal(
            read_picture(save(image, name), PLAIN).transpose(1, 2, 0), colours[indices]
        )
    grey = random_pixels(1, 4, 5)
    path = save(Image.fromarray(grey))
    assert np.array_equal(read_picture(path, PLAIN), np.stack([grey] * 3))
    assert np.array_equal(read_picture(path, ImageOptions(grayscale=True)), grey[None])
    black = save(Image.fromarray(grey > 127), "b.png")
    assert np.array_equal(read_picture(black, PLAIN)[0], (grey > 127) * 255)


def test_transparency_is_laid_on_white(save):
    pixels = random_pixels(0, 4, 5, 4)
    pixels[0, :, 3], pixels[1, :, 3] = 0, 255
    found = read_picture(save(Image.fromarray(pixels)), PLAIN).transpose(1, 2, 0).astype(float)
    alpha = pixels[..., 3:] / 255
    assert np.abs(found - (pixels[..., :3] * alpha + 255 * (1 - alpha))).max() <= 1
    assert (found[0] == 255).all()
    assert np.array_equal(found[1], pixels[1, :, :3])
    palette = Image.fromarray(pixels[..., 0] % 2)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    found = read_picture(save(palette, "p.png", transparency=0), PLAIN).transpose(1, 2, 0)
    assert np.array_equal(found, np.array([[255] * 3, [40, 50, 60]])[pixels[..., 0] % 2])


def test_sixteen_bits_are_rounded_to_eight(save):
    values = np.array([[0, 128, 129, 257], [65535, 65534, 32768, 1000]], dtype=np.uint16)
    expected = [[0, 0, 1, 1], [255, 255, 128, 4]]
    for name in ("a.png", "a.tif"):
        found = read_picture(save(Image.fromarray(values), name), ImageOptions(grayscale=True))
        assert found.tolist() == [expected]
    wide = Image.fromarray(values.astype(np.int32) - 1)
    with pytest.raises(DataError, match=r"b\.tif: greys from -1 to 65534, where 16 bits"):
        read_picture(save(wide, "b.tif"), PLAIN)


def test_other_modes_are_refused(save):
    with pytest.raises(DataError, match=r"f\.tif: an image of mode 'F', allowed are grey"):
        read_picture(save(Image.fromarray(np.ones((3, 3), np.float32)), "f.tif"), PLAIN)


def test_exif_orientation_is_applied(save):
    image, exif = picture(5, 6, 9), Image.Exif()
    turned = {
        1: image,
        3: image.transpose(Image.Transpose.ROTATE_180),
        6: image.transpose(Image.Transpose.ROTATE_270),
    }
    for orientation, expected in turned.items():
        exif[274] = orientation
        found = read_picture(save(image, exif=exif), PLAIN)
        assert np.array_equal(found, np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.gif", "a.tif", "a.webp", "a.ppm"])
@pytest.mark.parametrize("share", [0, 0.05, 0.5, 0.9])
def test_truncated_images_are_named_and_refused(save, name, share):
    path = save(picture(0, 30, 40), name)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="a truncated or damaged image") as caught:
        read_picture(path, PLAIN)
    assert str(caught.value).startswith(str(path))


def test_damaged_images_and_other_files(save, tmp_path):
    path = save(picture(0, 30, 40))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)  # the checksum finds it
    with pytest.raises(DataError, match="a truncated or damaged image, or none"):
        read_picture(path, PLAIN)
    for text in (b"<svg></svg>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"GIF89a"):
        path.write_bytes(text)
        with pytest.raises(DataError, match="or none at all"):
            read_picture(path, PLAIN)
    picture(0).save(path, format="PCX")  # which Pillow would read, as it would run an EPS
    with pytest.raises(DataError, match="or none at all"):
        read_picture(path, PLAIN)
    with pytest.raises(DataError, match="does not exist"):
        read_picture(tmp_path / "gone.png", PLAIN)


@pytest.mark.parametrize(
    "side", [10_000, 60_000]
)  # Pillow warns of the first and refuses the other
def test_decompression_bombs_are_refused(save, side):
    path = save(picture(0))
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", side, side)
    path.write_bytes(content[:29] + struct.pack(">I", zlib.crc32(content[12:29])) + content[33:])
    with pytest.raises(DataError, match="more pixels than Pillow's limit of 89478485"):
        read_picture(path, PLAIN)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of some damage before it raises
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.gif", "a.tif", "a.webp", "a.ppm"])
def test_whatever_is_damaged_nothing_but_a_data_error_comes_out(save, name):
    path = save(picture(0, 20, 24), name)
    content, draw = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = np.frombuffer(content, np.uint8).copy()
        places = draw.integers(min(len(content), 300), size=3)
        damaged[places] = draw.integers(256, size=3)
        path.write_bytes(damaged.tobytes())
        try:
            read_picture(path, PLAIN)
        except DataError:
            refused += 1
    assert refused > 0
