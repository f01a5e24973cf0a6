"""Write users' names into pictures, whatever their script.

matplotlib's own font has no Chinese, Japanese or Korean letters, and draws boxes for them with a
warning for each. So a font that is installed is looked for that has them. Where there is none, a
picture writes ``column 3`` instead, and :func:`key` says which one that is, in the page's text.
"""

from collections.abc import Callable, Sequence
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

#: The first that has the letters is taken; any other is better than none.
_PREFERRED = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans",
    "Source Han Sans",
    "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei",
    "IPAexGothic",
    "Hiragino Sans",
    "PingFang SC",
    "Apple SD Gothic Neo",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
)
#: This one has a box for every letter, and no letter.
_BOXES = "Last Resort"
#: Letters of a name among points; more would cover them.
_SHORT = 16


def names_in_pictures(
    names: Sequence[str], instead: str | None = None
) -> tuple[list[str], list[str]]:
    """Return names as a picture can write them, and the fonts to write them with.

    Args:
        names: The users' names.
        instead: What to write where no font has the letters; ``column 1`` and so on by default.

    Returns:
        As many labels as names, and families for matplotlib's ``fontfamily``.

    >>> names_in_pictures(["height", "größe"])
    (['height', 'größe'], ['DejaVu Sans'])
    """
    labels, families = [], [_own_font()]
    for i, name in enumerate(names):
        family = _family(frozenset(c for c in name if not c.isspace()))
        if family is None:
            labels.append(instead or f"column {i + 1}")
            continue
        labels.append(name)
        if family not in families:
            families.append(family)
    return labels, families


def key(names: Sequence[str], instead: str | None = None) -> str:
    """Return a sentence on the names that no installed font can write, or the empty string.

    >>> key(["height"])
    ''
    """
    labels, _ = names_in_pictures(names, instead)
    pairs = zip(labels, names, strict=True)
    told = [f"{label} is “{name}”" for label, name in pairs if label != name]
    if not told:
        return ""
    return f"No installed font has the letters of some names. In the pictures {', '.join(told)}."


def beside_points(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return names that can stand among the points of a picture: all of them, or none.

    They can if each is short, is no formula, and matplotlib's own font has its letters. Otherwise
    pictures show numbers.

    >>> beside_points(["cat", "dog"]), beside_points(["cat", "$x$"]), beside_points(None)
    (('cat', 'dog'), (), ())
    """
    own = _own_font()
    fit = all(
        0 < len(name) <= _SHORT
        and "$" not in name
        and _family(frozenset(c for c in name if not c.isspace())) == own
        for name in names or ()
    )
    return tuple(names or ()) if fit else ()


def name_axes(*axes: tuple[Callable[..., object], str], instead: str | None = None) -> None:
    """Call setters such as ``ax.set_xlabel`` with users' names, which are no formulas.

    Args:
        *axes: Setters, each with its name.
        instead: What to write where no font has the letters; ``column 1`` and so on by default.
    """
    labels, families = names_in_pictures([name for _, name in axes], instead)
    for (setter, _), label in zip(axes, labels, strict=True):
        setter(label, parse_math=False, fontfamily=families)


def _own_font() -> str:
    return str(get_font(findfont(FontProperties())).family_name)


@cache
def _family(letters: frozenset[str]) -> str | None:
    """Return the family of an installed font that has all letters, the default one first."""
    wanted = set(map(ord, letters))
    if wanted <= _letters(findfont(FontProperties())):
        return _own_font()
    entries = {entry.name: entry.fname for entry in fontManager.ttflist}
    order = [name for name in _PREFERRED if name in entries]
    for name in [*order, *sorted(set(entries) - set(order))]:
        if not name.startswith(_BOXES) and wanted <= _letters(entries[name]):
            return name
    return None


@cache
def _letters(file: str) -> frozenset[int]:
    return frozenset(get_font(file).get_charmap())
