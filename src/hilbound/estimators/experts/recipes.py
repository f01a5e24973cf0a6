"""One default for all tables: how the models and their sizes follow from the number of rows."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from hilbound.errors import DataError
from hilbound.estimators.experts import processes
from hilbound.estimators.experts.boosting import fit_boosters
from hilbound.estimators.experts.ensemble import Ensemble, Recipe, fit_ensemble
from hilbound.estimators.experts.processes import fit_processes
from hilbound.estimators.experts.rows import Rows
from hilbound.estimators.experts.stacking import Expert, Stack, fit_stack
from hilbound.estimators.experts.warping import fit_warped
from hilbound.estimators.progress import progress_bar
from hilbound.mixture import GaussianMixture

_Fit = Callable[[Callable[[], None]], tuple[Expert, GaussianMixture]]

_SMALL = 3000  # rows up to which twenty narrow members are better than five wide ones
_SMOOTHING = 0.01  # variance of the smoothed target, as a share of the target's variance


def plan(n: int, components: int, folds: int | None, epochs: int | None) -> Recipe:
    """Return the recipe for ``n`` rows.

    Args:
        n: The number of rows.
        components: Gaussians of a member.
        folds: Parts of the rows, or ``None`` for 10 up to 3,000 rows and 5 above.
        epochs: Passes over the rows, or ``None`` for 300 and 140.

    Raises:
        DataError: If there are fewer rows than folds.
    """
    small = n <= _SMALL
    parts = (10 if small else 5) if folds is None else folds
    if n < parts:
        raise DataError(
            f"n_samples={n} rows are fewer than the {parts} folds: give at least {parts} rows, or "
            f"set n_folds to a number from 2 to the number of rows"
        )
    batch, most = (64, 8000) if small else (256, 15000)
    passes = (300 if small else 140) if epochs is None else epochs
    per_epoch = max(1, (n - -(-n // parts)) // batch)
    return Recipe(
        folds=parts,
        repeats=2 if small else 1,
        width=64 if small else 128,
        batch=batch,
        steps=min(most, passes * per_epoch),
        components=components,
    )


def fit_default(
    rows: Rows, recipe: Recipe, floor: Tensor, *, seed: int, shown: bool
) -> tuple[Ensemble, GaussianMixture]:
    """Fit the ensemble, and return it with its predictions for held-out rows."""
    generator = torch.Generator().manual_seed(seed)
    with progress_bar("fitting", recipe.steps, shown=shown) as advance:
        return fit_ensemble(rows, recipe, floor, generator, advance)


def fit_high(
    rows: Rows, recipe: Recipe, floor: Tensor, *, seed: int, shown: bool
) -> tuple[Stack, GaussianMixture]:
    """Fit several kinds of models, and return their stack with its held-out predictions."""
    generator = torch.Generator().manual_seed(seed)
    targets = rows.y.shape[1]
    fits: list[_Fit] = [
        lambda advance: fit_ensemble(rows, recipe, floor, generator, advance),
        lambda advance: fit_ensemble(
            rows, replace(recipe, smoothing=_SMOOTHING), floor, generator, advance
        ),
        lambda advance: fit_ensemble(rows, replace(recipe, bins=0), floor, generator, advance),
    ]
    total = 3 * recipe.steps
    if rows.x.shape[1]:  # the others need a column that varies
        fits += [
            lambda advance: fit_processes(rows, generator, advance),
            lambda advance: fit_boosters(rows, generator, advance),
        ]
        total += (processes.STEPS + 1) * targets
    if rows.x.shape[1] and targets == 1:
        fits.append(lambda advance: fit_warped(rows, generator, advance))
        total += processes.STEPS
    experts, held_out = [], []
    with progress_bar("fitting", total, shown=shown) as advance:
        for fit in fits:
            expert, prediction = fit(advance)
            experts.append(expert)
            held_out.append(prediction)
    return fit_stack(experts, held_out, rows.y, rows.weight, floor)
