r"""Choosing the variance of the kernel between a data point and a centre.

The variance is the only scale of an objective. If it is too small, points do not overlap. If it is
too large, a blur matches everything. :func:`choose` computes a variance from the data by a rule.
:func:`parse_variance` reads the user's specification (a number, a rule or a multiple of one) and
returns a schedule.

There are two defaults:

- :func:`choose`, for your own training loop, uses the rule ``"rank"``. It gives a kernel that can
  distinguish a handful of points, which a spectral cost needs. This holds for any dimension and
  any batch size.
- The option ``variance`` of a training is ``"median"``, a well-known heuristic. It has no constant
  that was tuned on trainings. Other models and most experiments give variances as multiples of it.

``docs/experiments/variance-sweep`` in the repository measures, with the nuclear norm, how far from
the best variance each rule ends.
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

#: The default effective rank of :func:`rank_variance`. It was chosen on trial trainings with the
#: nuclear norm on toys, digits and MNIST. ``docs/experiments/variance-sweep`` measures how far from
#: the best variance it ends, with other seeds and further data.
RANK = 8.0

#: The number of rows whose effective rank is computed.
ROWS = 256

# The final width of the bracket of log v. A thousandth makes no difference to a training.
_CLOSE = 1e-3


def median_variance(
    x: Tensor, samples: int = 2000, generator: torch.Generator | None = None
) -> float:
    r"""Return half of the median squared distance between points.

    Args:
        x: Points with shape ``(n, d)``.
        samples: Distances are measured within a random subset of this size, at least 2.
        generator: Draws the subset.

    Returns:
        A variance, in squared units of ``x``.

    Raises:
        InputError: If ``x`` is not a matrix of at least two finite points, ``samples`` is below 2,
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

    Here :math:`\sigma^2` is the mean variance of the coordinates. The rule is made for densities in
    few dimensions. In many dimensions, a kernel of this variance separates all points.

    Args:
        x: Points with shape ``(n, d)``.

    Raises:
        InputError: If ``x`` is not a matrix of at least two finite points, or all points coincide.

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
        rows: The rank is computed for a random subset of this size, at least 2.
        generator: Draws the subset.

    Returns:
        A variance, in squared units of ``x``, with a relative error of about a thousandth.

    Raises:
        InputError: If ``x`` is not a matrix of at least two finite points, ``rows`` is below 2, or
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
    """Return the variance at which the effective rank is half of the number of points.

    Arguments and errors are those of :func:`rank_variance`. The result depends on ``rows``: more
    rows lie closer together, so the variance is smaller. For half of a batch, pass the batch size.
    The rule ``"half-rank"`` of :func:`hilbound.variance.choose` always uses :data:`ROWS` rows,
    because it does not know the batch size.

    >>> x = torch.tensor([[0.0], [1.0], [9.0], [10.0]])
    >>> half_rank_variance(x) == rank_variance(x, 2.0)
    True
    """
    x = _subset(x, "rows", rows, generator)
    return _variance_of_rank(x, len(x) / 2, "half of the number of rows")


def _variance_of_rank(x: Tensor, rank: float, name: str) -> float:
    """Return the variance of a rank. ``name`` is the name of the rank in an error."""
    distances = squared_distances(x, x).double()
    # As the variance goes to zero, only the kernel between duplicate points is left.
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
    """Return the positive number at which a decreasing function has a value, by bisection."""
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
    """Return a random subset of ``size`` rows. ``name`` is the name of ``size`` in an error."""
    require_rows("x", x, least=2)
    if size < 2:
        raise InputError(f"{name} must be at least 2, to measure a distance, got {size}")
    if len(x) <= size:
        return x
    return x[torch.randperm(len(x), generator=generator, device=x.device)[:size]]


# ------------------------------------------------------------------ what users write

#: A rule maps points ``(n, d)``, and a generator that draws a subset of them, to a variance.
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
            of 256 rows, whatever the batch). ``"rank"`` is recommended for your own loop with a
            spectral cost. The option ``variance`` of a training is ``"median"`` by default. The
            docstring of this module gives the reasons.
        generator: Draws the subset of ``x`` that a rule uses.

    Returns:
        A variance, in squared units of ``x``.

    Raises:
        InputError: If there is no such rule, ``x`` is not a matrix of finite points, or the points
            are too few or too similar for the rule.

    >>> choose(torch.tensor([[0.0], [1.0], [3.0]]), "median")
    2.0
    """
    return METHODS[method](x, generator)


@dataclass(frozen=True)
class VarianceSchedule:
    r"""A variance that moves geometrically from ``start`` to ``end`` over a run.

    Args:
        start: Variance at the first step.
        end: Variance at the last step. For a constant variance it equals ``start``.

    >>> round(VarianceSchedule(100.0, 1.0).at(0.5), 6)
    10.0
    """

    start: float
    end: float

    @property
    def constant(self) -> bool:
        """Whether start and end are equal."""
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
    """A user's specification of a variance, parsed before the data are loaded.

    Args:
        text: The text of the user.
        terms: Its one or two terms. Each is a number without a rule, or a factor with a rule. It
            also says whether the variance is divided by the number of coordinates.

    >>> Specification.parse("0.5*median").read(torch.tensor([[0.0], [1.0], [3.0]])).start
    1.0
    """

    text: str
    terms: tuple[tuple[float, str | None, bool], ...]

    @classmethod
    def parse(cls, specification: float | str) -> "Specification":
        """Parse a number, a rule, a multiple of a rule, or two of these with a colon.

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
            x: The points to which rules are applied.
            generator: Draws the subset for a rule.

        Raises:
            InputError: If a rule cannot measure the points, or the variance is not positive and
                finite.
        """
        # Each rule is computed once, so both ends of a schedule are multiples of the same number.
        names = dict.fromkeys(name for _, name, _ in self.terms if name)
        scales = {name: choose(x, name, generator) for name in names}
        values = [
            factor * (scales[name] if name else 1) / (x.shape[-1] if each else 1)
            for factor, name, each in self.terms
        ]
        if not all(0 < value < math.inf for value in values):
            if names:
                size = float(x.detach().abs().max())
                raise InputError(
                    f"variance {self.text!r} is {min(values):.3g} for rows with values up to "
                    f"{size:.3g}, whose squares {x.dtype} cannot hold: rescale the rows, as "
                    "--scale standardize does to a table, or give a number"
                )
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
    """Parse a user's specification of a variance, and return a schedule.

    Args:
        specification: A positive number; ``"median"`` or another rule of :func:`choose`; a
            multiple such as ``"0.5*median"``; ``"median/dim"``, which divides by the number of
            coordinates (likelihoods need such a small variance); or two of these with a colon,
            such as ``"2*median:0.5*median"``, for a geometric schedule.
        x: Training points with shape ``(n, d)``, to which rules are applied.
        generator: Draws the subset for a rule.

    Raises:
        InputError: If the text is none of these, or the variance is not positive and finite.

    >>> x = torch.tensor([[0.0], [1.0], [3.0]])
    >>> print(parse_variance("2*median:0.5", x))
    4 to 0.5
    """
    return Specification.parse(specification).read(x, generator)


# The number of rows of a batch that a row should share its features with.
_SHARING = 36


def joint_feature_variance(features: int, rows: int) -> float:
    r"""Return the variance of a component in the features, for costs of pairs of row and features.

    A row is compared with the centres whose features lie near its own. With too narrow a kernel
    there are none, and with too wide a kernel the features do not matter. For features with
    variance 1 and a normal distribution, the kernel of variance 2v between two of them has the mean

    .. math:: E\, e^{-|y - y'|^2 / (4v)} = \Big(\frac{v}{v + 1}\Big)^{F/2}.

    v is such that the rows of a batch sum to 36. If there are not twice as many rows, they sum to
    half of them.

    Args:
        features: Number F of features.
        rows: Rows of a batch.

    >>> round(joint_feature_variance(1, 512), 4), round(joint_feature_variance(16, 512), 1)
    (0.005, 2.5)
    """
    share: float = min(_SHARING / rows, 0.5) ** (2 / features)
    return share / (1 - share)


def of_component(kernel: float, mixtures: int = 2) -> float:
    """Return the variance of a component for a given variance of the kernel.

    In an inner product variances add. So if both mixtures are smoothed alike, each gets half.

    Args:
        kernel: Variance of the kernel between a point and a centre.
        mixtures: How many of the two mixtures are smoothed, one or two.

    >>> of_component(1.0)
    0.5
    """
    return kernel / mixtures
