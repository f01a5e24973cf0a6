r"""Choosing the variance of the kernel between a data point and a centre.

The variance is the one scale of every objective: too small and points do not see each other, too
large and a blur matches everything. The median heuristic takes

.. math:: v = \tfrac12 \operatorname{median}_{i<j} |x_i - x_j|^2,

so that the kernel :math:`\exp(-|x_i - x_j|^2 / (2v))` of a typical pair is :math:`e^{-1}`. It is
where a search should start, not where it should end.
"""

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from hilbound.errors import InputError
from hilbound.gram import squared_distances

_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
_TERM = re.compile(
    rf"^(?:(?P<number>{_NUMBER})"
    rf"|(?:(?P<factor>{_NUMBER})\s*\*\s*)?median(?P<each>\s*/\s*dim)?)$"
)


def median_variance(
    x: Tensor, samples: int = 2000, generator: torch.Generator | None = None
) -> float:
    r"""Return half of the median squared distance between points.

    Args:
        x: Points with shape ``(n, d)``.
        samples: Distances are measured within a random subset of this size.
        generator: Draws the subset.

    Returns:
        A variance, in squared units of ``x``.

    Raises:
        InputError: If there is one point only, or at least half of all pairs coincide.

    References:
        Large sample analysis of the median heuristic (Garreau, Jitkrittum and Kanagawa, 2017).

    >>> median_variance(torch.tensor([[0.0], [1.0], [3.0]]))
    2.0
    """
    if len(x) < 2:
        raise InputError(f"x must hold at least two points to measure a distance, got {len(x)}")
    if len(x) > samples:
        x = x[torch.randperm(len(x), generator=generator, device=x.device)[:samples]]
    i, j = torch.triu_indices(len(x), len(x), offset=1, device=x.device)
    variance = 0.5 * float(squared_distances(x, x)[i, j].median())
    if variance == 0:
        raise InputError(
            "x has a median distance of zero: at least half of all pairs of points coincide; "
            "give the variance as a number"
        )
    return variance


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
        specification: A positive number, ``"median"``, a multiple such as ``"0.5*median"``, the
            share of one coordinate, ``"median/dim"`` (for likelihoods, which want it much
            smaller), or two of those with a colon, ``"2*median:0.5*median"``, for a geometric
            schedule.
        x: Training points with shape ``(n, d)``, measured where the median is asked for.
        generator: Draws the subset for the median.

    Raises:
        InputError: If the text is none of these, or the variance is not positive and finite.

    >>> x = torch.tensor([[0.0], [1.0], [3.0]])
    >>> print(parse_variance("2*median:0.5", x))
    4 to 0.5
    """
    terms = [term.strip() for term in str(specification).split(":")]
    matches = [_TERM.match(term) for term in terms]
    if len(terms) > 2 or not all(matches):
        raise InputError(
            f"variance must be a positive number, 'median', a multiple such as '0.5*median', "
            f"'median/dim', or START:END for a schedule, got {specification!r}"
        )
    median = median_variance(x, generator=generator) if "median" in str(specification) else math.nan
    values = [_value(match, median, x.shape[-1]) for match in matches if match]
    if not all(0 < value < math.inf for value in values):
        raise InputError(
            f"variance must be positive and finite, got {specification!r}; it is a variance in "
            "squared units of the data, for example 'median'"
        )
    return VarianceSchedule(values[0], values[-1])


def _value(term: re.Match[str], median: float, dim: int) -> float:
    if term["number"]:
        return float(term["number"])
    return float(term["factor"] or 1) * median / (dim if term["each"] else 1)
