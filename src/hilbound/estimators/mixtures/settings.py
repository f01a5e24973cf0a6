"""Searching for the number of components and their regularisation on held-out rows.

A climb along three geometric grids: number of components, shrinkage, ridge. It goes along one axis
as long as the held-out score grows, then along the next. It ends if no step on any axis helps, or
if the allowed work is done. Work is counted in operations, not in seconds, so that a search
repeats itself.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hilbound.engine.expectation.algorithm import (
    Regularisation,
    fit_components,
    start_components,
)
from hilbound.engine.expectation.components import Components, log_density
from hilbound.estimators.mixtures.repeats import split_repeats

_SHRINKAGES = (0.0, 0.25, 1.0, 4.0, 16.0)  # in rows for each column
_STEPS = 100
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Setting:
    """What a fit by expectation-maximisation is told.

    Args:
        full: Whether the components have covariances.
        count: The number of components.
        regularisation: What is added to their scatter.
    """

    full: bool
    count: int
    regularisation: Regularisation

    def without_ridge(self) -> "Setting":
        """Return the setting without a ridge; the least variance stays."""
        return replace(self, regularisation=replace(self.regularisation, ridge=0.0))

    def fit(self, x: Tensor, generator: torch.Generator) -> Components:
        """Return components fitted to rows with shape ``(n, d)``; a missing value is NaN."""
        start = start_components(
            x, self.count, self.regularisation, full=self.full, generator=generator
        )
        return fit_components(x, start, self.regularisation, max_steps=_STEPS, tolerance=_TOLERANCE)

    def work(self, n: int, dim: int, kinds: int) -> float:
        """Return about how many operations a fit takes.

        Args:
            n: The number of rows.
            dim: The number of columns.
            kinds: The number of patterns of gaps.
        """
        if not self.full:
            return 30.0 * self.count * n * (dim + 30)
        return 30.0 * self.count * (n * (dim * dim + 30) + (kinds - 1) * 4000)


@dataclass
class Trial:
    """A setting that was tried, its fit, and the guarded mean log density of held-out rows.

    The score is that of the fit, or of the fit split where rows repeat values, if that is better.
    """

    setting: Setting
    components: Components
    score: float


class Search:
    """A climb over settings on one split.

    Args:
        train: Rows to fit, with shape ``(n, d)``.
        held_out: Rows to judge by, with shape ``(m, d)``.
        guard: Log densities that are added to theirs, with shape ``(m,)``.
        full: Whether the components have covariances.
        count: A number of components to keep to; none to search for it.
        min_variance: The least variance of a component in any direction.
        work: How many operations to spend; the first walk is always done.
        seed: Every trial draws its start from this seed, so that settings differ in nothing else.
        repeats: Whether a fit may be split where rows repeat values.
    """

    def __init__(
        self,
        train: Tensor,
        held_out: Tensor,
        guard: Tensor,
        *,
        full: bool,
        count: int | None,
        min_variance: float,
        work: float,
        seed: int,
        repeats: bool,
    ) -> None:
        self.train, self.held_out, self.guard = train, held_out, guard
        self.repeats = repeats
        self.full, self.seed, self.floor = full, seed, min_variance
        self.kinds = count_kinds(train)
        self.counts = _ladder(len(train)) if count is None else [count]
        dim = train.shape[1]
        self.axes: dict[str, list[float]] = {
            "ridge": [0.0, *(r for k in range(7) if (r := min_variance * 10.0**k) <= 1)],
            "count": [float(k) for k in self.counts],
            "shrinkage": [s * dim for s in _SHRINKAGES],
        }
        self.trials: dict[tuple[int, ...], Trial] = {}
        self.left = work

    def run(self) -> list[Trial]:
        """Return all trials, the best first."""
        place = {
            "ridge": min(3, len(self.axes["ridge"]) - 1),
            "count": min(3, len(self.counts) - 1),
            "shrinkage": 2,
        }
        moved = True
        while moved:
            before = dict(place)
            for axis in self.axes:
                self._walk(place, axis)
            moved = place != before and self.left > 0
        return sorted(self.trials.values(), key=lambda trial: -trial.score)

    def _walk(self, place: dict[str, int], axis: str) -> None:
        """Go up and down one axis while it helps, with one step of patience."""
        for direction in (1, -1):
            at, patience = place[axis], 1
            best = self._score(place)
            while 0 <= at + direction < len(self.axes[axis]) and patience >= 0 and self.left > 0:
                at += direction
                score = self._score({**place, axis: at})
                if score > best:
                    best, patience = score, 1
                    place[axis] = at
                else:
                    patience -= 1

    def _score(self, place: dict[str, int]) -> float:
        key = tuple(place[axis] for axis in self.axes)
        if key not in self.trials:
            self.trials[key] = self._try(place)
        return self.trials[key].score

    def _try(self, place: dict[str, int]) -> Trial:
        value = {axis: self.axes[axis][at] for axis, at in place.items()}
        regularisation = Regularisation(value["shrinkage"], value["ridge"], self.floor)
        setting = Setting(self.full, int(value["count"]), regularisation)
        self.left -= setting.work(len(self.train), self.train.shape[1], self.kinds)
        components = setting.fit(self.train, torch.Generator().manual_seed(self.seed))
        score = self._judge(components)
        if self.repeats:
            score = max(score, self._judge(split_repeats(components, self.train, self.floor)))
        return Trial(setting, components, score)

    def _judge(self, components: Components) -> float:
        return float(torch.logaddexp(log_density(components, self.held_out), self.guard).mean())


def count_kinds(x: Tensor) -> int:
    """Return the number of patterns of gaps in rows with shape ``(n, d)``."""
    return len(x.isnan().unique(dim=0))


def _ladder(n: int) -> list[int]:
    """Return numbers of components, each twice the last, up to half the rows."""
    return [2**k for k in range(11) if 2**k <= max(1, n // 2)]
