r"""Choosing the variance of the kernel between a data point and a centre.

The variance is the one scale of every objective: too small and points do not see each other, too
large and a blur matches everything. :func:`choose` reads one off the data by a rule of
:mod:`hilbound.variance`; :func:`parse_variance` takes what users write, a number, a rule or a
multiple of one, and makes a schedule of it.

There are two defaults. :func:`choose` takes the rule ``"rank"``, for loops of one's own: it asks
for what a spectral cost lives on, a kernel that tells a handful of points apart, whatever the
dimension and the size of a batch. The option ``variance`` of a training has ``"median"``, the
heuristic that is known from elsewhere: it has no number that was chosen on trainings, and the
defaults of other models and most experiments give variances in multiples of it. How far from the
best each rule ends was measured with the nuclear norm: ``docs/experiments/variance-sweep`` in the
repository.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hilbound.arguments import require_rows
from hilbound.engine.gram import squared_distances
from hilbound.engine.spectrum.svd import effective_rank
from hilbound.errors import InputError
from hilbound.registry import Registry, suggest

#: The effective rank that :func:`rank_variance` asks for. It was chosen on trial trainings with the
#: nuclear norm on toys, digits and MNIST; ``docs/experiments/variance-sweep`` measures, with other
#: seeds and further data, how far from the best it ends.
RANK = 8.0

#: Of how many rows the effective rank is taken.
ROWS = 256

# A bracket this narrow on log v: no training feels a thousandth.
_CLOSE = 1e-3


def median_variance(
    x: Tensor, samples: int = 2000, generator: torch.Generator | None = None
) -> float:
    r"""Return half of the median squared distance between points.

    Args:
        x: Points with shape ``(n, d)``.
        samples: Distances are measured within a random subset of this size, of two at least.
        generator: Draws the subset.

    Returns:
        A variance, in squared units of ``x``.

    Raises:
        InputError: If ``x`` is no matrix of two finite points at least, ``samples`` is below two,
            or at least half of all pairs coincide.

    References:
        Large sample analysis of the median heuristic (Garreau, Jitkrittum and Kanagawa, 2017).

    >>> median_variance(torch.tensor([[0.0], [1.0], [3.0]]))
    2.0
    """
    x = _subset(x, "samples", samples, generator)
    i, j = torch.triu_indices(len(x), len(x), offset=1, device=x.device)
    variance = 0.5 * float(squared_distances(x, x)[i, j].median())
    if variance == 0:
        raise InputError(
            "x has a median distance of zero: at least half of all pairs of points coincide; "
            "give the variance as a number"
        )
    return variance


def silverman_variance(x: Tensor) -> float:
    r"""Return twice the squared bandwidth of Silverman's rule.

    .. math:: v = 2 h^2, \qquad h^2 = \sigma^2 \Big(\frac{4}{(d + 2)\, n}\Big)^{2 / (d + 4)},

    with :math:`\sigma^2` the mean variance of the coordinates. It is made for densities in few
    dimensions: in many, a kernel of this variance tells all points apart.

    Args:
        x: Points with shape ``(n, d)``.

    Raises:
        InputError: If ``x`` is no matrix of two finite points at least, or all points coincide.

    References:
        Density Estimation for Statistics and Data Analysis (Silverman, 1986).

    >>> round(silverman_variance(torch.tensor([[0.0], [1.0], [3.0]])), 4)
    3.3739
    """
    require_rows("x", x, least=2)
    n, d = x.shape
    spread = float(x.double().var(0).mean())
    if spread == 0:
        raise InputError("x has no spread: all points coincide; give the variance as a number")
    shrinkage: float = (4 / ((d + 2) * n)) ** (2 / (d + 4))
    return 2 * spread * shrinkage


def rank_variance(
    x: Tensor,
    rank: float = RANK,
    rows: int = ROWS,
    generator: torch.Generator | None = None,
) -> float:
    r"""Return the variance at which the Gram matrix of the data has a given effective rank.

    Args:
        x: Points with shape ``(n, d)``.
        rank: The effective rank, above 1.
        rows: It is that of a random subset of this size, of two at least.
        generator: Draws the subset.

    Returns:
        A variance, in squared units of ``x``, to a thousandth.

    Raises:
        InputError: If ``x`` is no matrix of two finite points at least, ``rows`` is below two, or
            ``rank`` does not lie between 1 and the effective number of different points.

    >>> x = torch.tensor([[0.0], [1.0], [9.0], [10.0]])
    >>> round(rank_variance(x, 3.0), 1)
    1.5
    """
    x = _subset(x, "rows", rows, generator)
    return _variance_of_rank(x, rank, "rank")


def half_rank_variance(
    x: Tensor, rows: int = ROWS, generator: torch.Generator | None = None
) -> float:
    """Return the variance at which the kernel tells apart half as many points as there are.

    Arguments and errors as in :func:`rank_variance`. It depends on ``rows``: more rows are closer
    to one another, and the variance that makes half of them alone is smaller. Give the batch size
    for half of a batch; the rule ``"half-rank"`` of :func:`hilbound.variance.choose` knows of no
    batch and looks at :data:`ROWS` rows always.

    >>> x = torch.tensor([[0.0], [1.0], [9.0], [10.0]])
    >>> half_rank_variance(x) == rank_variance(x, 2.0)
    True
    """
    x = _subset(x, "rows", rows, generator)
    return _variance_of_rank(x, len(x) / 2, "half of the number of rows")


def _variance_of_rank(x: Tensor, rank: float, name: str) -> float:
    """Return the variance of a rank; the error calls it what ``name`` says."""
    distances = squared_distances(x, x).double()
    # The limit of a small variance: only copies of a point have any kernel left.
    most = _rank((distances == 0).double())
    if not 1 < rank < most:
        raise InputError(
            f"{name} must lie between 1 and {most:.4g}, the effective number of different points "
            f"among {len(x)} rows of x, got {rank:g}: give more rows, or the variance as a number"
        )

    def rank_at(variance: float) -> float:
        return _rank((distances / (-2 * variance)).exp())

    return _where_it_falls_to(rank, rank_at, float(distances.max()))


def _rank(gram: Tensor) -> float:
    return float(effective_rank(torch.linalg.eigvalsh(gram).clamp_min(0)))


def _where_it_falls_to(target: float, function: Callable[[float], float], start: float) -> float:
    """Return where a falling function of a positive number takes a value, by bisection."""
    low = high = start
    while function(low) < target:
        low /= 4
    while function(high) > target:
        high *= 4
    while high > (1 + _CLOSE) * low:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if function(middle) > target else (low, middle)
    return float((low * high) ** 0.5)


def _subset(x: Tensor, name: str, size: int, generator: torch.Generator | None) -> Tensor:
    """Return a random subset of ``size`` rows, an argument called ``name``."""
    require_rows("x", x, least=2)
    if size < 2:
        raise InputError(f"{name} must be at least 2, to measure a distance, got {size}")
    if len(x) <= size:
        return x
    return x[torch.randperm(len(x), generator=generator, device=x.device)[:size]]


# ------------------------------------------------------------------ what users write

#: A rule, from points ``(n, d)`` and a generator that draws a subset of them, to a variance.
Rule = Callable[[Tensor, torch.Generator | None], float]

#: The rules of :func:`choose`, by name.
METHODS: Registry[Rule] = Registry("method of choosing a variance")

METHODS.register("rank", "where the kernel tells a handful of points apart")(
    lambda x, generator: rank_variance(x, generator=generator)
)

METHODS.register("median", "half of the median squared distance")(
    lambda x, generator: median_variance(x, generator=generator)
)

METHODS.register("silverman", "twice the squared bandwidth of a density estimate")(
    lambda x, _: silverman_variance(x)
)

METHODS.register("half-rank", f"where the kernel tells half of {ROWS} points apart")(
    lambda x, generator: half_rank_variance(x, generator=generator)
)

_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"

_TERM = re.compile(
    rf"^(?:(?P<number>{_NUMBER})"
    rf"|(?:(?P<factor>{_NUMBER})\s*\*\s*)?(?P<method>{'|'.join(METHODS)})(?P<each>\s*/\s*dim)?)$"
)


def choose(x: Tensor, method: str = "rank", generator: torch.Generator | None = None) -> float:
    """Return a variance for the kernel between a data point and a centre.

    Args:
        x: Training points with shape ``(n, d)``.
        method: Name of a rule: ``"rank"``, ``"median"``, ``"silverman"`` or ``"half-rank"`` (half
            of 256 rows, whatever the batch); see :mod:`hilbound.variance`. ``"rank"`` is the
            reasoned choice for a loop of one's own and a spectral cost; the option ``variance`` of
            a training is ``"median"`` unless it is given. The module says why, and where the rules
            were compared.
        generator: Draws the subset of ``x`` that a rule looks at.

    Returns:
        A variance, in squared units of ``x``.

    Raises:
        InputError: If there is no such rule, ``x`` is no matrix of finite points, or they are too
            few or too alike for it.

    >>> choose(torch.tensor([[0.0], [1.0], [3.0]]), "median")
    2.0
    """
    return METHODS[method](x, generator)


@dataclass(frozen=True)
class VarianceSchedule:
    r"""A variance that moves geometrically from ``start`` to ``end`` over a run.

    Args:
        start: Variance at the first step.
        end: Variance at the last step; equal to ``start`` for a constant one.

    >>> round(VarianceSchedule(100.0, 1.0).at(0.5), 6)
    10.0
    """

    start: float
    end: float

    @property
    def constant(self) -> bool:
        """Whether the variance never moves."""
        return self.start == self.end

    def at(self, progress: float) -> float:
        """Return the variance when the share ``progress`` in [0, 1] of the run is done."""
        if self.constant:
            return self.start
        share = min(max(progress, 0.0), 1.0)
        return math.exp((1 - share) * math.log(self.start) + share * math.log(self.end))

    def __str__(self) -> str:
        return f"{self.start:.4g}" if self.constant else f"{self.start:.4g} to {self.end:.4g}"


@dataclass(frozen=True)
class Specification:
    """What a user wrote for a variance, read before there are data.

    Args:
        text: What was written.
        terms: Its one or two terms: a number with no rule, or a factor, a rule, and whether the
            share of one coordinate is meant.

    >>> Specification.parse("0.5*median").read(torch.tensor([[0.0], [1.0], [3.0]])).start
    1.0
    """

    text: str
    terms: tuple[tuple[float, str | None, bool], ...]

    @classmethod
    def parse(cls, specification: float | str) -> "Specification":
        """Read a number, a rule, a multiple of one, or two of those with a colon.

        Raises:
            InputError: If the text is none of these, or a number is not positive and finite.
        """
        text = str(specification)
        words = [word.strip() for word in text.split(":")]
        matches = [match for match in map(_TERM.match, words) if match]
        if len(words) > 2 or len(matches) < len(words):
            wrong = [name for name in re.findall(r"[a-z][a-z-]{3,}", text) if name not in METHODS]
            hint = suggest(wrong[0], METHODS) if wrong else ""
            raise InputError(
                f"{hint}variance must be a positive number, 'median', a multiple such as "
                f"'0.5*median', 'median/dim', another of {', '.join(METHODS)}, or START:END for a "
                f"schedule, got {specification!r}"
            )
        terms = tuple(
            (float(m["number"] or m["factor"] or 1), m["method"], bool(m["each"])) for m in matches
        )
        if not all(0 < factor < math.inf for factor, _, _ in terms):
            raise InputError(_not_positive(text))
        return cls(text, terms)

    def read(self, x: Tensor, generator: torch.Generator | None = None) -> VarianceSchedule:
        """Return the schedule for training points with shape ``(n, d)``.

        Args:
            x: The points, measured where a rule is asked for.
            generator: Draws the subset for a rule.

        Raises:
            InputError: If a rule cannot measure the points, or the variance is not positive and
                finite.
        """
        # Each rule once: both ends of a schedule are multiples of the same number.
        names = dict.fromkeys(name for _, name, _ in self.terms if name)
        scales = {name: choose(x, name, generator) for name in names}
        values = [
            factor * (scales[name] if name else 1) / (x.shape[-1] if each else 1)
            for factor, name, each in self.terms
        ]
        if not all(0 < value < math.inf for value in values):
            raise InputError(_not_positive(self.text))
        return VarianceSchedule(values[0], values[-1])


def _not_positive(text: str) -> str:
    return (
        f"variance must be positive and finite, got {text!r}; it is a variance in squared units of "
        "the data, for example 'median'"
    )


def parse_variance(
    specification: float | str, x: Tensor, generator: torch.Generator | None = None
) -> VarianceSchedule:
    """Turn what a user wrote into a schedule.

    Args:
        specification: A positive number, ``"median"`` or another rule of :func:`choose`, a
            multiple such as ``"0.5*median"``, the share of one coordinate, ``"median/dim"`` (for
            likelihoods, which want it much smaller), or two of those with a colon,
            ``"2*median:0.5*median"``, for a geometric schedule.
        x: Training points with shape ``(n, d)``, measured where a rule is asked for.
        generator: Draws the subset for a rule.

    Raises:
        InputError: If the text is none of these, or the variance is not positive and finite.

    >>> x = torch.tensor([[0.0], [1.0], [3.0]])
    >>> print(parse_variance("2*median:0.5", x))
    4 to 0.5
    """
    return Specification.parse(specification).read(x, generator)


def of_component(kernel: float, mixtures: int = 2) -> float:
    """Return the variance of a component, where that of the kernel between two is given.

    Variances add in an inner product: where both mixtures are smoothed alike, each gets half.

    Args:
        kernel: Variance of the kernel between a point and a centre.
        mixtures: How many of the two mixtures are smoothed, one or two.

    >>> of_component(1.0)
    0.5
    """
    return kernel / mixtures
