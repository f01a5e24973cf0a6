r"""From image files and arrays of pixels to float32 rows in [0, 1].

An image is turned as its EXIF orientation says and made grey or RGB. If a crop or a size is asked
for, it is cut to its central square and resized by Pillow's antialiased bilinear filter. A byte
:math:`b` becomes :math:`b / 255`. Every image is converted to grey or RGB with 8 bits a channel:

* palettes, CMYK and YCbCr are converted to RGB, and greys are repeated in three channels;
* transparent pixels are laid on white;
* greys of 16 bits are rounded to 8.

Rows are written directly into the final tensor, so a folder of images needs no more memory than its
rows.
"""

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from hilbound.datasets.claims import damaged, file_size
from hilbound.datasets.options import ImageOptions
from hilbound.errors import DataError

log = logging.getLogger(__name__)

Shape: TypeAlias = tuple[int, int, int]
#: Maps image numbers with shape ``(n,)`` to their rows with shape ``(n, d)``.
Reader: TypeAlias = Callable[[Tensor], Tensor]

_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"})
_SIXTEEN_BITS = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
# Pillow reads more formats, but it would pass an EPS to an interpreter, whatever the file's name.
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
_REMEDY = "a truncated or damaged image, or none at all: replace it, or take it out of the folder"
# Eight black pixels a byte, and deflate: no honest PNG has more. A small picture costs little.
_PIXELS_OF_A_BYTE, _FREE_PIXELS = 8 * 1032, 1 << 20
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def read_picture(path: Path, options: ImageOptions) -> NDArray[np.uint8]:
    """Read an image file into pixels with shape ``(c, h, w)``, with ``c`` 1 or 3.

    Raises:
        DataError: If the file is missing, truncated, damaged or not an image, its mode cannot be
            read, or it is smaller than the crop.
    """
    opened = _open(path)
    with damaged(path, _REMEDY):
        image = _plain(opened, path)
        return _pixels(image.convert("L" if options.grayscale else "RGB"), options, str(path))


def _open(path: Path) -> Image.Image:
    if not path.exists():
        raise DataError(f"{path} does not exist")
    size = file_size(path)
    try:
        with warnings.catch_warnings(), damaged(path, _REMEDY):
            # Other warnings are of damage beside the pixels.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                _refuse_bomb(image.size, size, path)
                image.load()
                return ImageOps.exif_transpose(image)
    except DataError as error:
        if not isinstance(error.__cause__, _BOMB):
            raise
        raise DataError(
            f"{path}: more pixels than Pillow's limit of {Image.MAX_IMAGE_PIXELS} "
            f"({error.__cause__}): make the image smaller, or take it out of the folder"
        ) from error.__cause__


def _refuse_bomb(shape: tuple[int, int], size: int, path: Path) -> None:
    """Refuse a few bytes that claim to be a large picture, before it is made room for."""
    pixels = shape[0] * shape[1]
    if pixels > _FREE_PIXELS + _PIXELS_OF_A_BYTE * size:
        raise DataError(
            f"{path}: {size:,} bytes that claim to be a picture of {shape[0]} by {shape[1]} "
            "pixels: replace it, or take it out of the folder"
        )


def _plain(image: Image.Image, path: Path) -> Image.Image:
    """Return an image with 8 bits a channel and without transparency."""
    if image.mode in _SIXTEEN_BITS:
        return Image.fromarray(_eight_bits(np.asarray(image), path))
    if image.mode not in _MODES:
        raise DataError(
            f"{path}: an image of mode {image.mode!r}, allowed are grey, palette, RGB, CMYK and "
            "YCbCr of 8 bits and grey of 16: convert it, for example to an RGB PNG"
        )
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA"))


def _eight_bits(values: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise DataError(
            f"{path}: greys from {low} to {high}, where 16 bits hold 0 to 65535: convert the image "
            "to 8 or 16 bits"
        )
    rounded: NDArray[np.uint8] = np.rint(values / 257).astype(np.uint8)
    return rounded


def _pixels(image: Image.Image, options: ImageOptions, source: str) -> NDArray[np.uint8]:
    """Crop and resize an image of mode L or RGB."""
    width, height = image.size
    side = options.crop or (options.image_size and min(width, height))
    if side:
        if side > min(width, height):
            raise DataError(
                f"{source}: {width} by {height} pixels, from which no square of crop={side} can be "
                "cut: choose a smaller crop"
            )
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    if options.image_size:
        size = (options.image_size, options.image_size)
        image = image.resize(size, Image.Resampling.BILINEAR)
    array = np.asarray(image, dtype=np.uint8)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def file_reader(paths: Sequence[Path], options: ImageOptions) -> tuple[Reader, Shape]:
    """Return a function that decodes image files, and the shape that all images must have.

    The shape follows from the options, or else from the first image. The function raises a
    DataError for an image that it cannot read or that has another shape.

    Raises:
        DataError: If the first image is needed for the shape and cannot be read.
    """
    channels, side = 1 if options.grayscale else 3, options.image_size or options.crop
    # If a size is given, no image is decoded here: an absurd size would not fit into memory.
    shape = (channels, side, side) if side else _shape(read_picture(paths[0], options))

    def read(numbers: Tensor) -> Tensor:
        return _rows((_fitting(paths[i], options, shape) for i in numbers.tolist()), numbers, shape)

    return read, shape


def array_reader(pixels: Tensor, options: ImageOptions, source: str) -> tuple[Reader, Shape]:
    """Return a function that makes rows of bytes with shape ``(n, c, h, w)``, and their shape.

    The function raises a DataError if the images are smaller than the crop.
    """
    channels, *size = pixels.shape[1:]
    side = options.image_size or options.crop
    if not (side or (options.grayscale and channels > 1)):
        shape = (channels, size[0], size[1])
        return lambda numbers: pixels[numbers].flatten(1).float().div_(255), shape
    mode = "L" if channels == 1 or options.grayscale else "RGB"
    shape = (1 if mode == "L" else 3, side or size[0], side or size[1])

    def draw(number: int) -> NDArray[np.uint8]:
        array = pixels[number].numpy()
        image = Image.fromarray(array[0] if channels == 1 else array.transpose(1, 2, 0))
        return _pixels(image.convert(mode), options, source)

    return lambda numbers: _rows(map(draw, numbers.tolist()), numbers, shape), shape


def _shape(pixels: NDArray[np.uint8]) -> Shape:
    channels, height, width = pixels.shape
    return channels, height, width


def _rows(images: Iterable[NDArray[np.uint8]], numbers: Tensor, shape: Shape) -> Tensor:
    rows = torch.empty(len(numbers), *shape)
    for row, image in zip(rows, images, strict=True):
        row.copy_(torch.tensor(image))
    return rows.flatten(1).div_(255)


def _fitting(path: Path, options: ImageOptions, shape: Shape) -> NDArray[np.uint8]:
    pixels = read_picture(path, options)
    if pixels.shape != shape:
        raise DataError(
            f"{path}: {pixels.shape[2]} by {pixels.shape[1]} pixels, where {shape[2]} by "
            f"{shape[1]} as in the first image are needed, because rows must be equally long: "
            "choose an image_size, to which all are cut and resized"
        )
    return pixels
