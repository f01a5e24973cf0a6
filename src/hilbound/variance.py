r"""Choosing the variance of the kernel between a data point and a centre.

The variance is the one scale of every objective: too small and points do not see each other, too
large and a blur matches everything. :func:`choose` reads one off the data by a rule of
:mod:`hilbound.bandwidth`; :func:`parse_variance` takes what users write, a number, a rule or a
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hilbound.bandwidth import (
    ROWS,
    half_rank_variance,
    median_variance,
    rank_variance,
    silverman_variance,
)
from hilbound.errors import InputError
from hilbound.registry import Registry

__all__ = ["METHODS", "VarianceSchedule", "choose", "median_variance", "parse_variance"]

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
            of 256 rows, whatever the batch); see :mod:`hilbound.bandwidth`. ``"rank"`` is the
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
    terms = [term.strip() for term in str(specification).split(":")]
    matches = [match for match in map(_TERM.match, terms) if match]
    if len(terms) > 2 or len(matches) < len(terms):
        raise InputError(
            f"variance must be a positive number, 'median', a multiple such as '0.5*median', "
            f"'median/dim', another of {', '.join(METHODS)}, or START:END for a schedule, "
            f"got {specification!r}"
        )
    # Each rule once: both ends of a schedule are multiples of the same number.
    methods = dict.fromkeys(match["method"] for match in matches if match["method"])
    scales = {name: choose(x, name, generator) for name in methods}
    values = [_value(match, scales, x.shape[-1]) for match in matches]
    if not all(0 < value < math.inf for value in values):
        raise InputError(
            f"variance must be positive and finite, got {specification!r}; it is a variance in "
            "squared units of the data, for example 'median'"
        )
    return VarianceSchedule(values[0], values[-1])


def _value(term: re.Match[str], scales: Mapping[str, float], dim: int) -> float:
    if term["number"]:
        return float(term["number"])
    return float(term["factor"] or 1) * scales[term["method"]] / (dim if term["each"] else 1)
