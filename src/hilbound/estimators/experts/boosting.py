"""Gradient boosting with a spread: trees for the mean, and trees for the size of its errors.

The spread is learned from errors on held-out rows, which those on fitted rows would understate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor

from hilbound.estimators.experts.processes import one_gaussian
from hilbound.estimators.experts.rows import Rows
from hilbound.estimators.experts.trees import Trees
from hilbound.estimators.frames import Floats
from hilbound.mixture import GaussianMixture

FOLDS = 5
_MEAN: dict[str, Any] = {"learning_rate": 0.08, "max_iter": 250, "l2_regularization": 1.0}
_SPREAD: dict[str, Any] = {
    "loss": "gamma",
    "learning_rate": 0.05,
    "max_iter": 60,
    "max_leaf_nodes": 8,
}
_LEAST = 1e-6  # squared error that counts, as a share of the target's variance


@dataclass(frozen=True)
class Booster:
    """Fitted trees for one target.

    Attributes:
        means: Trees for the mean, one set for each fold; their average counts.
        spreads: Trees for the logarithm of the variance, likewise.
    """

    means: list[Trees]
    spreads: list[Trees]

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and variances with shape ``(n,)`` each."""
        mean = torch.stack([trees(x) for trees in self.means]).mean(0)
        return mean, torch.stack([trees(x) for trees in self.spreads]).mean(0).exp()


@dataclass(frozen=True)
class Boosters:
    """One booster for each target.

    Attributes:
        parts: The boosters.
    """

    parts: list[Booster]

    def predict(self, x: Tensor) -> GaussianMixture:
        """Return mixtures of one component over standardised targets, batch shape ``(n,)``."""
        return one_gaussian([part.predict(x.double()) for part in self.parts])


def fit_boosters(
    rows: Rows, generator: torch.Generator, advance: Callable[[], None] = lambda: None
) -> tuple[Boosters, GaussianMixture]:
    """Fit every target, and return the boosters with their predictions of held-out rows."""
    parts, pairs = [], []
    x, weight = rows.x.double(), rows.weight.double().numpy()
    for y in rows.y.double().unbind(1):
        seed = int(torch.randint(1 << 31, (), generator=generator))
        held = torch.randperm(len(x), generator=generator).tensor_split(min(FOLDS, len(x)))
        means, mean = _across(x, y.numpy(), weight, held, random_state=seed, **_MEAN)
        error = np.maximum((y.numpy() - mean.numpy()) ** 2, _LEAST)
        spreads, log_variance = _across(x, error, weight, held, random_state=seed, **_SPREAD)
        parts.append(Booster(means, spreads))
        pairs.append((mean, log_variance.exp()))
        advance()
    return Boosters(parts), one_gaussian(pairs)


def _across(
    x: Tensor, y: Floats, weight: Floats, held: tuple[Tensor, ...], **settings: object
) -> tuple[list[Trees], Tensor]:
    """Fit one model for each fold's rest, and return them with their sums for held-out rows."""
    trees, sums = [], torch.empty(len(x), dtype=torch.float64)
    for part in held:
        rest = np.ones(len(x), dtype=bool)
        rest[part.numpy()] = False
        model = HistGradientBoostingRegressor(early_stopping=False, **settings).fit(
            x[rest].numpy(), y[rest], weight[rest]
        )
        trees.append(Trees.of(model))
        sums[part] = trees[-1](x[part])
    return trees, sums
