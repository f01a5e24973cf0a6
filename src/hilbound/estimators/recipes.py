"""One default for all tables: how the sizes of the models follow from the number of rows."""

import torch

from hilbound.errors import DataError
from hilbound.estimators.ensemble import Ensemble, Recipe, Rows, fit_ensemble
from hilbound.estimators.progress import progress_bar
from hilbound.mixture import GaussianMixture

_SMALL = 3000  # rows up to which twenty narrow members are better than five wide ones


def plan(n: int, components: int, folds: int | None, epochs: int | None) -> Recipe:
    """Return the recipe for ``n`` rows.

    Args:
        n: The number of rows.
        components: Gaussians of a member.
        folds: Parts of the rows, or ``None`` for 10 up to 3,000 rows and 5 above.
        epochs: Passes over the rows, or ``None`` for 300 and 70.

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
    passes = (300 if small else 70) if epochs is None else epochs
    per_epoch = max(1, (n - -(-n // parts)) // batch)
    return Recipe(
        folds=parts,
        repeats=2 if small else 1,
        width=64 if small else 128,
        batch=batch,
        steps=min(most, passes * per_epoch),
        components=components,
    )


def fit_members(
    rows: Rows, recipe: Recipe, floor: torch.Tensor, *, effort: str, seed: int, shown: bool
) -> tuple[Ensemble, GaussianMixture]:
    """Fit what the effort asks for, and return it with its predictions for held-out rows."""
    generator = torch.Generator().manual_seed(seed)
    with progress_bar("fitting", recipe.steps, shown=shown) as advance:
        return fit_ensemble(rows, recipe, floor, generator, advance)
