"""The target's scale, and how narrow a density over it may become."""

from dataclasses import dataclass

import numpy as np
import torch

from hilbound.errors import DataError, InputError
from hilbound.estimators.frames import Floats
from hilbound.mixture import GaussianMixture

_SMALLEST_DEVIATION = np.exp(-6.9)  # of a component, as a share of the target's own
_DISCRETE_SHARE = 0.1  # fewer distinct values than this share of the rows: a grid, not a measure


@dataclass(frozen=True)
class Targets:
    """Means, scales and variance floors of the targets, with shape ``(d,)`` each.

    Attributes:
        mean: Means, in the user's units.
        scale: Standard deviations, in the user's units.
        floor: The least variance of a component, in squared units of ``scale``.
    """

    mean: Floats
    scale: Floats
    floor: Floats

    @classmethod
    def learn(cls, y: Floats, floor: float | None = None) -> "Targets":
        """Learn them from targets with shape ``(n, d)``.

        Args:
            y: The targets.
            floor: The least variance in the squared units of the target, or ``None`` to read it
                off the data.

        Raises:
            DataError: If a target is constant.
            InputError: If the floor is not below the target's own variance.
        """
        mean, scale = y.mean(0), y.std(0)
        for i, deviation in enumerate(scale):
            if not deviation > 1e-12 * abs(mean[i]) or not np.isfinite(deviation):
                which = f"target {i}" if y.shape[1] > 1 else "the target y"
                raise DataError(
                    f"{which} is constant ({y[0, i]:g} in all {len(y)} rows), or varies by less "
                    "than a float can tell: there is no density to learn; check which column "
                    "you gave"
                )
        if floor is not None and not (floor < scale**2).all():
            raise InputError(
                f"variance_floor must be below the target's own variance, {min(scale**2):g}, got "
                f"{floor:g}; it is a variance in the squared units of the target"
            )
        least = [
            _floor(column, s) if floor is None else floor / s**2
            for column, s in zip(y.T, scale, strict=True)
        ]
        return cls(mean, scale, np.asarray(least))

    def standardise(self, y: Floats) -> Floats:
        """Return targets with mean 0 and variance 1, with shape ``(n, d)``."""
        return (y - self.mean) / self.scale

    @property
    def log_jacobian(self) -> float:
        """What to subtract from a log density of standardised targets for the user's units."""
        return float(np.log(self.scale).sum())

    def in_users_units(self, q: GaussianMixture) -> GaussianMixture:
        """Return a mixture over standardised targets as one in the user's units, in float64."""
        scale, mean = torch.from_numpy(self.scale), torch.from_numpy(self.mean)
        return GaussianMixture(
            q.means.double() * scale + mean,
            q.component_variance.double() * scale**2,
            q.weights.double(),
            validate_args=False,
        )


def _floor(y: Floats, scale: float) -> float:
    """Return the least variance of a component, as a share of the target's variance.

    Where the target takes few distinct values, a density could grow without bound on them; the
    variance of rounding to their median gap stops it there.
    """
    distinct = np.unique(y)
    least = float(_SMALLEST_DEVIATION)
    if len(distinct) < _DISCRETE_SHARE * len(y):
        gap = float(np.median(np.diff(distinct))) / scale
        least = max(least, gap / float(np.sqrt(12)))
    return least**2
