"""Load any data set by the name of a known one, or by the path of a file or a folder.

>>> moons = load("moons", seed=0, samples=500)
>>> moons.train.shape, moons.classes
(torch.Size([500, 2]), 2)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hilbound.config import HELD_OUT
from hilbound.datasets.base import Dataset, Loader
from hilbound.datasets.celeba import load_celeba
from hilbound.datasets.cifar import load_cifar10
from hilbound.datasets.delimited import Decimal, Header
from hilbound.datasets.folders import load_folder
from hilbound.datasets.missing import Missing
from hilbound.datasets.mixed import SUFFIXES, suffix_of
from hilbound.datasets.mnist import load_digits, load_mnist
from hilbound.datasets.options import ImageOptions, as_classes
from hilbound.datasets.splits import check_fractions
from hilbound.datasets.tables import Scale, load_table
from hilbound.datasets.toys import TOYS
from hilbound.errors import InputError
from hilbound.registry import Registry, suggest

DATASETS = Registry[Loader]("data set")
for toy in TOYS.values():
    DATASETS.register(toy.name, toy.description)(toy.load)
DATASETS.register("digits", "1,797 handwritten digits of 8 by 8 pixels.")(load_digits)
DATASETS.register("mnist", "70,000 handwritten digits of 28 by 28 pixels (your files).")(load_mnist)
DATASETS.register("cifar10", "60,000 colour images of ten classes (your files).")(load_cifar10)
DATASETS.register("celeba", "202,599 faces, cut to 64 by 64 pixels (your files).")(load_celeba)

SEED_LIMIT = 2**32

_TEXTS = frozenset(kind for kind in SUFFIXES if kind != ".parquet")
_ARRAYS = frozenset({".npy", ".npz"})
_FILES = frozenset(SUFFIXES) | _ARRAYS
#: Options of files and folders: whom they are meant for, and the kinds of files.
OF_FILES: Mapping[str, tuple[str, frozenset[str]]] = {
    "validation_fraction": ("files and folders", _FILES | {"folder"}),
    "test_fraction": ("files and folders", _FILES | {"folder"}),
    "scale": ("tables", _FILES),
    "missing": ("tables", _FILES),
    "columns": ("tables whose columns have names", frozenset(SUFFIXES)),
    "drop": ("tables whose columns have names", frozenset(SUFFIXES)),
    "header": ("CSV files and others of text", _TEXTS),
    "delimiter": ("CSV files and others of text", _TEXTS),
    "decimal": ("CSV files and others of text", _TEXTS),
}


def load(
    name: str | Path,
    *,
    root: str | Path | None = None,
    seed: int = 0,
    samples: int | None = None,
    validation_fraction: float = HELD_OUT,
    test_fraction: float = HELD_OUT,
    scale: Scale = "standardize",
    header: Header = None,
    delimiter: str | None = None,
    decimal: Decimal | None = None,
    columns: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    missing: Missing = "refuse",
    label_column: str | None = None,
    image_size: int | None = None,
    crop: int | None = None,
    grayscale: bool = False,
    classes: str | Sequence[str | int] | None = None,
) -> Dataset:
    """Load a data set by its name or by its path. The same seed gives the same rows.

    Args:
        name: A name in :data:`DATASETS`, or the path of a ``.npy``, ``.npz``, ``.csv``, ``.tsv`` or
            ``.parquet`` file (text may be packed: ``.csv.gz``) or of a folder of images.
        root: The folder of a named data set's files, by default the one in ``HILBOUND_DATA``.
        seed: Seed of the random draw or split, from 0 to 2³² - 1.
        samples: Train on at most this many rows. A toy draws exactly this many.
        validation_fraction: Share of the rows of a file or folder for validation. Named data sets
            have their own.
        test_fraction: Share of the rows of a file or folder for testing.
        scale: ``"standardize"`` or ``"none"``, for the vectors of a file.
        header: Whether the first line of a text file names the columns; by default it is looked
            at. ``"guess"`` looks at it without a word.
        delimiter: What separates the fields of a text file; the file tells by default.
        decimal: The decimal mark of a text file; the file tells by default.
        columns: Names of the only columns of a table to use.
        drop: Names of columns to leave out.
        missing: Whether a table's missing values are refused, their rows left out (``"drop"``), or
            the gaps filled in from similar rows (``"impute"``).
        label_column: The column (or array of a ``.npz`` file, or attribute of CelebA) that holds
            the labels.
        image_size: Height and width in pixels to which the central square of images is resized.
        crop: Side in pixels of the central square that is cut out of images first.
        grayscale: Make images grey.
        classes: Names or numbers of the only classes to use, as in ``"cat,dog"`` or ``[3, 5]``.
            They are renumbered from 0 and keep their order.

    Raises:
        InputError: If the name is unknown, or an argument is out of range or does not apply to
            these data.
        DataError: If a file is missing, damaged or unfit for a density model.

    >>> load("mons")
    Traceback (most recent call last):
        ...
    hilbound.errors.InputError: unknown data set 'mons': did you mean 'moons'? known: moons, \
circles, eight-gaussians, 25-grid, swiss-roll, pinwheel, checkerboard, digits, mnist, cifar10, \
celeba; the path of a .npy, .npz, .csv, .tsv or .parquet file or of a folder of images works as \
well
    """
    _check_numbers(seed, samples)
    check_fractions(validation_fraction, test_fraction)
    options = ImageOptions(image_size, crop, grayscale, as_classes(classes), label_column)
    if name in DATASETS:
        return DATASETS[str(name)](root=root, seed=seed, samples=samples, options=options)
    if not _is_path(name):
        raise InputError(
            f"unknown data set {name!r}: {suggest(str(name).lower(), DATASETS)}known: "
            f"{', '.join(DATASETS)}; the path of a .npy, .npz, .csv, .tsv or .parquet file or of a "
            "folder of images works as well"
        )
    if Path(name).expanduser().is_dir():
        return load_folder(
            name,
            seed=seed,
            samples=samples,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            options=options,
        )
    options.allow(str(name), "label_column")
    return load_table(
        name,
        seed=seed,
        samples=samples,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        scale=scale,
        header=header,
        delimiter=delimiter,
        decimal=decimal,
        columns=columns,
        drop=drop,
        missing=missing,
        label_column=label_column,
    )


def whole_path(name: str | Path) -> str:
    """Return the whole path of a file or folder, and the name of a known data set as it is.

    >>> whole_path("moons"), Path(whole_path("points.csv")).is_absolute()
    ('moons', True)
    """
    if name in DATASETS or not _is_path(name):
        return str(name)
    return str(Path(name).expanduser().absolute())


def refuse_meaningless(name: str | Path, given: Mapping[str, object]) -> None:
    """Refuse options that a data set would ignore; options of images are refused by :func:`load`.

    Args:
        name: The name or the path.
        given: Those options of files and folders that were given.

    Raises:
        InputError: Naming the option and the data that it is meant for.

    >>> refuse_meaningless("moons", {"scale": "none"})
    Traceback (most recent call last):
        ...
    hilbound.errors.InputError: --scale none is for tables; leave it out for 'moons'
    """
    path = Path(name).expanduser()
    kind = "named" if name in DATASETS else "folder" if path.is_dir() else suffix_of(path)
    for option, value in given.items():
        meant, kinds = OF_FILES[option]
        if kind not in kinds:
            raise InputError(
                f"{_flag(option, value)} is for {meant}; leave it out for {str(name)!r}"
            )


def _flag(option: str, value: object) -> str:
    """Return an option as it stands on the command line."""
    flag = option.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    shown = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
    return f"--{flag} {shown}"


def _is_path(name: str | Path) -> bool:
    path = Path(name).expanduser()
    nested = isinstance(name, Path) or len(path.parts) > 1
    return nested or bool(path.suffix) or (bool(name) and path.exists())


def _check_numbers(seed: int, samples: int | None) -> None:
    if not 0 <= seed < SEED_LIMIT:
        raise InputError(f"seed={seed}, allowed are 0 to {SEED_LIMIT - 1}")
    if samples is not None and samples < 1:
        raise InputError(f"samples={samples}, at least 1 training row is needed")
