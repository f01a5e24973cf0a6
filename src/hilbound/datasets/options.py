"""Options for images: their size, a crop, grey instead of colour, and a choice of classes.

Not every option applies to every data set. Each data set says which ones it allows, and the others
are refused rather than ignored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from hilbound.errors import InputError
from hilbound.registry import suggest

_MEANT_FOR = {
    "image_size": "images: cifar10, celeba, mnist, and folders of images",
    "crop": "images: cifar10, celeba, mnist, and folders of images",
    "grayscale": "images: cifar10, celeba, mnist, and folders of images",
    "classes": "images with classes: digits, mnist, cifar10, celeba, and folders of images",
    "label_column": "files and celeba",
}


@dataclass(frozen=True)
class ImageOptions:
    """Which images of a set are used, and how they are processed.

    Args:
        image_size: Height and width in pixels to which the central square is resized.
        crop: Side in pixels of the central square that is cut out first.
        grayscale: One channel (the luma of ITU-R 601) in place of three.
        classes: Names or numbers of the only classes to use. They are renumbered from 0.
        label_column: The attribute of CelebA that is the label.

    Raises:
        InputError: If a size is not positive, or ``classes`` is empty.

    >>> ImageOptions(image_size=0)
    Traceback (most recent call last):
        ...
    hilbound.errors.InputError: image_size=0, at least 1 pixel is needed
    """

    image_size: int | None = None
    crop: int | None = None
    grayscale: bool = False
    classes: tuple[str, ...] | None = None
    label_column: str | None = None

    def __post_init__(self) -> None:
        for name, side in (("image_size", self.image_size), ("crop", self.crop)):
            if side is not None and side < 1:
                raise InputError(f"{name}={side}, at least 1 pixel is needed")
        if self.classes is not None and not all(self.classes or [""]):
            raise InputError(f"classes={','.join(self.classes)!r}: name one or more, such as 3,5")

    def allow(self, data: str, *allowed: str) -> None:
        """Refuse every given option that a data set does not allow.

        Raises:
            InputError: If there is one. The message names the option and the data it is meant for.

        >>> ImageOptions(crop=5).allow("moons")
        Traceback (most recent call last):
            ...
        hilbound.errors.InputError: crop=5 is for images: cifar10, celeba, mnist, and folders of \
images; leave it out for 'moons'
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default and field.name not in allowed:
                shown = ",".join(value) if isinstance(value, tuple) else value
                raise InputError(
                    f"{field.name}={shown!r} is for {_MEANT_FOR[field.name]}; leave it out for "
                    f"{data!r}"
                )

    def chosen(self, names: Sequence[str], source: str) -> tuple[int, ...] | None:
        """Return the numbers of the wanted classes in increasing order, or ``None`` for all.

        A class can be given by its name. It can also be given by its number, unless the names of
        classes are numbers themselves.

        Raises:
            InputError: If there is no such class.

        >>> ImageOptions(classes=("frog", "0")).chosen(["cat", "dog", "frog"], "pets")
        (0, 2)
        """
        if self.classes is None:
            return None
        numbers = class_numbers(names)
        for wanted in self.classes:
            if wanted not in numbers:
                raise InputError(
                    f"classes={','.join(self.classes)!r}: {source} has no class {wanted!r}: "
                    f"{suggest(wanted, names)}known: {', '.join(names) or 'none'}"
                )
        return tuple(sorted({numbers[wanted] for wanted in self.classes}))


PLAIN = ImageOptions()


def class_numbers(names: Sequence[str]) -> dict[str, int]:
    """Map what a user may call a class to its number.

    That is its name. It is also its number, unless the names of classes are numbers themselves.

    >>> class_numbers(["cat", "dog"])
    {'cat': 0, 'dog': 1, '0': 0, '1': 1}
    >>> class_numbers(["3", "5"])
    {'3': 0, '5': 1}
    """
    numbers = {name: number for number, name in enumerate(names)}
    if not any(name.lstrip("-").isdecimal() for name in names):
        numbers |= {str(number): number for number in range(len(names))}
    return numbers


def as_classes(classes: str | Sequence[str | int] | None) -> tuple[str, ...] | None:
    """Read classes from a text with commas or from a sequence.

    >>> as_classes("cat, dog"), as_classes([3, 5]), as_classes(None)
    (('cat', 'dog'), ('3', '5'), None)
    """
    if classes is None:
        return None
    listed = classes.split(",") if isinstance(classes, str) else classes
    return tuple(str(name).strip() for name in listed)
