r"""One mixture from many: members that are weighted by what they say about held-out rows.

An average of mixtures is a mixture. Every member gives log densities of rows that it has not seen,
and expectation-maximisation finds the weights under which the average predicts them best. Where
one member is best everywhere it takes all the weight; where several have something to say, the
average is better than any.

References:
    Linearly combining density estimators via stacking (Smyth and Wolpert, 1999).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hilbound.engine.expectation.algorithm import Regularisation, fit_components
from hilbound.engine.expectation.components import Components, at_least, log_density
from hilbound.estimators.mixtures.kernels import fit_kernel, kernel_components, leave_one_out
from hilbound.estimators.mixtures.repeats import split_repeats
from hilbound.estimators.mixtures.settings import Search, Setting, Trial, count_kinds

_FOLDS = 5
_JUDGES = 2000  # held-out rows that weigh the members
_MANY_ROWS = 4000  # from here on, fewer folds and fewer members
_ROUND = (1.0, 4.0)  # multiples of a round kernel's variance
_LEANING = (0.25, 0.5, 1.0, 2.0, 4.0)  # multiples of a leaning kernel's covariance
_WORK = 2e9  # operations of one search, and of fitting its best settings on the other parts
_KEPT = 3  # settings of one search that become members, at most
_SEARCH_ROWS = 10_000  # rows that a search fits and judges, at most
_GUARD = 0.01  # share of the broad Gaussian when settings are compared
_LEAST_WEIGHT = 0.01
_WEIGHT_STEPS = 2000
_WEIGHT_TOLERANCE = 1e-6


@dataclass
class Member:
    """A mixture in the making.

    Args:
        name: What it is, for the reader of a fitted model.
        log_densities: Log densities of the judges, by a fit that has not seen them.
        parts: The final mixture, weights summing to one.
        blind: The mixture as it is without the first part of the rows.
    """

    name: str
    log_densities: Tensor
    parts: list[Components]
    blind: Components


@dataclass(frozen=True)
class Folds:
    """Rows cut into parts, each held out once.

    Args:
        x: Rows with shape ``(n, d)``.
        fold: The part that each row is in, with shape ``(n,)``.
        judges: Indices of the rows that weigh members.
    """

    x: Tensor
    fold: Tensor
    judges: Tensor

    @property
    def count(self) -> int:
        """The number of parts."""
        return int(self.fold.max()) + 1

    def train(self, number: int) -> Tensor:
        """Return the rows outside a part."""
        return self.x[self.fold != number]

    def held_out(self, number: int) -> Tensor:
        """Return the rows of a part."""
        return self.x[self.fold == number]


def cut(x: Tensor, generator: torch.Generator) -> Folds:
    """Cut rows into parts by chance: five of them, three where there are many rows."""
    n = len(x)
    count = min(n, 3 if n > _MANY_ROWS else _FOLDS)
    order = torch.randperm(n, generator=generator)
    fold = torch.empty(n, dtype=torch.long)
    fold[order] = torch.arange(n) % count
    return Folds(x, fold, order[:_JUDGES])


def _cross_fitted(name: str, folds: Folds, fits: list[Components]) -> Member:
    """Return a member that averages the fits, one for each part held out."""
    log_densities = folds.x.new_empty(len(folds.judges))
    for number, components in enumerate(fits):
        judged = folds.fold[folds.judges] == number
        log_densities[judged] = log_density(components, folds.x[folds.judges[judged]])
    parts = [components.weighted(-math.log(folds.count)) for components in fits]
    return Member(name, log_densities, parts, fits[0])


def broad_member(folds: Folds, *, full: bool) -> Member:
    """Return one wide Gaussian, so that no row is impossible."""
    fits = [_broad(folds.train(number), full=full) for number in range(folds.count)]
    return _cross_fitted("broad", folds, fits)


def _broad(x: Tensor, *, full: bool) -> Components:
    dim = x.shape[1]
    spread = torch.eye(dim, dtype=x.dtype) if full else torch.ones(dim, dtype=x.dtype)
    start = Components(x.new_zeros(1, dim), spread.unsqueeze(0), x.new_zeros(1))
    one = fit_components(x, start, Regularisation(ridge=0.1))
    return Components(one.means, 2 * one.spread, one.log_weights)


def kernel_members(folds: Folds, min_variance: float, *, leaning: bool) -> list[Member]:
    """Return kernel estimates at several widths, round ones and, if allowed, leaning ones."""
    members = []
    for full in (False, True) if leaning else (False,):
        fitted = fit_kernel(folds.x, folds.judges, min_variance, full=full)
        members += [
            _kernel_member(folds, fitted, multiple, min_variance, leaning=full)
            for multiple in (_LEANING if full else _ROUND)
        ]
    return members


def _kernel_member(
    folds: Folds, fitted: Tensor, multiple: float, min_variance: float, *, leaning: bool
) -> Member:
    covariance = at_least(multiple * fitted, min_variance)
    log_densities = leave_one_out(folds.x, folds.judges, covariance)
    spread = covariance if leaning else covariance.diagonal()
    return Member(
        f"{'leaning' if leaning else 'round'} kernel x {multiple:g}",
        log_densities,
        [kernel_components(folds.x, spread)],
        kernel_components(folds.train(0), spread),
    )


def searched(
    folds: Folds, *, full: bool, count: int | None, repeats: bool, min_variance: float, seed: int
) -> list[Trial]:
    """Return what a search on the first part tried, the best first.

    Held-out rows are predicted with a little of one broad Gaussian mixed in: in the end there will
    be something for a row that no component expects, and one such row decides nothing else.
    """
    train, held_out = folds.train(0), folds.held_out(0)
    train, held_out = _some(train), _some(held_out)
    guard = log_density(_broad(train, full=full), held_out)
    search = Search(
        train,
        held_out,
        guard + math.log(_GUARD),
        full=full,
        count=count,
        min_variance=min_variance,
        work=_WORK,
        seed=seed,
        repeats=repeats,
    )
    return search.run()


def _some(x: Tensor) -> Tensor:
    """Return evenly spaced rows of many: tables are often sorted."""
    return x[:: -(-len(x) // _SEARCH_ROWS)]


def mixture_members(
    folds: Folds, trials: list[Trial], min_variance: float, seed: int
) -> list[Member]:
    """Return the best of the trials with different counts, fitted on every part.

    Settings that differ in less say much the same. There is one at least, or what work allows.
    """
    firsts = {trial.setting.count: trial for trial in reversed(trials)}  # the best of each count
    best = sorted(firsts.values(), key=lambda trial: -trial.score)[:_KEPT]
    size = (*folds.x.shape, count_kinds(folds.x))
    works = [(folds.count - 1) * trial.setting.work(*size) for trial in best]
    kept = [trial for i, trial in enumerate(best) if i == 0 or sum(works[: i + 1]) <= _WORK]
    searched_all = (folds.fold != 0).sum() <= _SEARCH_ROWS
    # A ridge is a bias where nothing degenerates; few held-out rows don't show a small one. And one
    # plain Gaussian is what much data is, more or less.
    bare = best[0].setting.without_ridge()
    plain = Setting(bare.full, 1, Regularisation(0.0, 0.0, min_variance))
    fitted: dict[Setting, Components | None] = {bare: None, plain: None}
    fitted |= {trial.setting: trial.components if searched_all else None for trial in kept}
    return [
        member
        for setting, first in fitted.items()
        for member in _mixture_pair(folds, setting, seed, first)
    ]


def _mixture_pair(
    folds: Folds, setting: Setting, seed: int, first: Components | None
) -> list[Member]:
    """Return the member of a setting, and another one split where rows repeat values."""

    def fit(number: int) -> Components:
        if number == 0 and first is not None:
            return first
        return setting.fit(folds.train(number), torch.Generator().manual_seed(seed + number))

    fits = [fit(number) for number in range(folds.count)]
    name, floor = _describe(setting), setting.regularisation.floor
    members = [_cross_fitted(name, folds, fits)]
    split = [split_repeats(c, folds.train(number), floor) for number, c in enumerate(fits)]
    if any(len(s.means) > len(c.means) for s, c in zip(split, fits, strict=True)):
        members.append(_cross_fitted(f"{name}, split where values repeat", folds, split))
    return members


def _describe(setting: Setting) -> str:
    r = setting.regularisation
    return (
        f"{setting.count} {'full' if setting.full else 'diagonal'} components, "
        f"shrinkage {r.shrinkage:g}, ridge {r.ridge:g}"
    )


def weigh(members: list[Member]) -> list[tuple[float, Member]]:
    """Return the members that are worth keeping, with weights that sum to one.

    The first member counts as if it had predicted half a row on its own, so it never vanishes.
    """
    log_densities = torch.stack([member.log_densities for member in members], 1)
    weights = _weights(log_densities)
    kept = (weights >= _LEAST_WEIGHT) | (torch.arange(len(members)) == 0)
    chosen = kept.nonzero().squeeze(1)
    weights = _weights(log_densities[:, chosen])
    return [(float(w), members[int(i)]) for w, i in zip(weights, chosen, strict=True)]


def _weights(log_densities: Tensor) -> Tensor:
    rows, count = log_densities.shape
    prior = log_densities.new_zeros(count)
    prior[0] = 0.5
    weights = log_densities.new_full((count,), 1 / count)
    for _ in range(_WEIGHT_STEPS):
        before = weights
        posterior = (log_densities + weights.log()).softmax(1)
        weights = (posterior.sum(0) + prior) / (rows + 0.5)
        if float((weights - before).abs().max()) < _WEIGHT_TOLERANCE:
            break
    return weights


def blend(weighted: list[tuple[float, Member]]) -> list[Components]:
    """Return the parts of all members as one mixture."""
    return [c.weighted(math.log(w)) for w, member in weighted if w > 0 for c in member.parts]


def blend_blind(weighted: list[tuple[float, Member]]) -> list[Components]:
    """Return the same mixture as it is without the first part of the rows."""
    return [member.blind.weighted(math.log(w)) for w, member in weighted if w > 0]
