"""From standardised rows to a mixture: many members, or one that keeps to a given number."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hilbound.engine.expectation.components import Components, log_density
from hilbound.estimators.mixtures.kernels import fit_kernel
from hilbound.estimators.mixtures.members import (
    Folds,
    blend,
    blend_blind,
    broad_member,
    cut,
    kernel_members,
    mixture_members,
    searched,
    weigh,
)
from hilbound.estimators.mixtures.polish import Ascent, Cost, climb, follow
from hilbound.estimators.mixtures.settings import Setting

_KERNEL_ROWS = 10_000  # kernel estimates are for tables up to here
_STARTS = 3
_BOUND_ROWS = 500


@dataclass(frozen=True)
class Task:
    """What is asked of a fit.

    Args:
        shapes: Whether components have covariances; where both are allowed, rows decide.
        count: The number of components; none to choose it.
        cost: What to climb after the likelihood; none to stay there.
        min_variance: The least variance of a component, in standardised units.
        seed: Where all chance comes from.
    """

    shapes: tuple[bool, ...]
    count: int | None
    cost: Cost | None
    min_variance: float
    seed: int


@dataclass
class Fit:
    """A mixture of standardised rows, and what is needed to judge it.

    Args:
        parts: The mixture.
        blind: The mixture as it is without the held-out rows.
        held_out: Rows without gaps that ``blind`` has not seen, with shape ``(m, d)``.
        variance: Variance of a kernel around them.
        members: What was mixed, with weights.
        ascent: What gradient steps gained, where any were asked for.
    """

    parts: list[Components]
    blind: list[Components]
    held_out: Tensor
    variance: float
    members: dict[str, float] = field(default_factory=dict)
    ascent: Ascent | None = None


def count_stages(task: Task) -> int:
    """Return how often :func:`fit` says that a stage is done, at most."""
    if task.count is None and task.cost is None:
        return 2 + 2 * len(task.shapes)
    return len(task.shapes) + _STARTS + (task.cost is not None)


def fit(x: Tensor, task: Task, advance: Callable[[], None] = lambda: None) -> Fit:
    """Fit a mixture to rows.

    Args:
        x: Rows with shape ``(n, d)``; a missing value is NaN.
        task: What is asked.
        advance: Called after each stage.
    """
    generator = torch.Generator().manual_seed(task.seed)
    if len(x) == 1:
        return _fit_single_row(x, task)
    folds = cut(x, generator)
    variance = _kernel_variance(x, generator, task.min_variance)
    held_out = _whole(folds.held_out(0))[:_BOUND_ROWS]
    if task.count is None and task.cost is None:
        return _fit_members(folds, task, held_out, variance, advance)
    return _fit_one(folds, task, held_out, variance, generator=generator, advance=advance)


def _whole(x: Tensor) -> Tensor:
    return x[~x.isnan().any(1)]


def _kernel_variance(x: Tensor, generator: torch.Generator, min_variance: float) -> float:
    """Return the variance of a round kernel; one where too few rows have no gap."""
    whole = _whole(x)
    if len(whole) < 2:
        return 1.0
    queries = torch.randperm(len(whole), generator=generator)
    rows = whole[queries[:_KERNEL_ROWS]]
    kernel = fit_kernel(rows, torch.arange(len(rows)), min_variance, full=False)
    return float(kernel[0, 0])


def _fit_single_row(x: Tensor, task: Task) -> Fit:
    """Give a single row the only spread that it can have: one in units of its scale."""
    dim = x.shape[1]
    unit = torch.eye(dim, dtype=x.dtype) if task.shapes[0] else torch.ones(dim, dtype=x.dtype)
    one = Components(x.nan_to_num(0.0), unit.unsqueeze(0), x.new_zeros(1))
    return Fit([one], [one], _whole(x), 1.0, {"1 component": 1.0})


def _fit_members(
    folds: Folds, task: Task, held_out: Tensor, variance: float, advance: Callable[[], None]
) -> Fit:
    members = [broad_member(folds, full=True in task.shapes)]
    if not folds.x.isnan().any() and len(folds.x) <= _KERNEL_ROWS:
        members += kernel_members(folds, task.min_variance, leaning=True in task.shapes)
    advance()
    for full in task.shapes:
        trials = searched(
            folds,
            full=full,
            count=None,
            repeats=True,
            min_variance=task.min_variance,
            seed=task.seed,
        )
        advance()
        members += mixture_members(folds, trials, task.min_variance, task.seed)
        advance()
    weighted = weigh(members)
    advance()
    named = {member.name: weight for weight, member in weighted}
    return Fit(blend(weighted), blend_blind(weighted), held_out, variance, named)


def _fit_one(
    folds: Folds,
    task: Task,
    held_out: Tensor,
    variance: float,
    *,
    generator: torch.Generator,
    advance: Callable[[], None],
) -> Fit:
    trials = []
    for full in task.shapes:
        trials += searched(
            folds,
            full=full,
            count=task.count,
            repeats=False,
            min_variance=task.min_variance,
            seed=task.seed,
        )[:1]
        advance()
    best = max(trials, key=lambda trial: trial.score)
    final = _best_start(folds.x, best.setting, generator, advance)
    result = Fit([final], [best.components], held_out, variance)
    if task.cost is not None:
        _polish(result, folds, task.cost, task.min_variance, generator)
        advance()
    result.members = {f"{len(final.means)} components": 1.0}
    return result


def _best_start(
    x: Tensor, setting: Setting, generator: torch.Generator, advance: Callable[[], None]
) -> Components:
    fits = []
    for _ in range(_STARTS):
        fits.append(setting.fit(x, generator))
        advance()
    return max(fits, key=lambda c: float(log_density(c, x).mean()))


def _polish(
    result: Fit, folds: Folds, cost: Cost, min_variance: float, generator: torch.Generator
) -> None:
    """Find on held-out rows how many steps help, and take as many on all rows."""
    train = _whole(folds.train(0))
    if 0 in (len(train), len(result.held_out)):
        return
    ascent = climb(
        cost,
        train,
        result.held_out,
        result.variance,
        result.blind[0],
        min_variance=min_variance,
        generator=generator,
    )
    result.ascent, result.blind = ascent, [ascent.components]
    if ascent.steps:
        result.parts = [
            follow(
                cost,
                _whole(folds.x),
                result.variance,
                result.parts[0],
                ascent.steps,
                min_variance=min_variance,
                generator=generator,
            )
        ]
