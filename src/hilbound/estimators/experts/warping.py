r"""A Gaussian process on a bent target, read back as a mixture of Gaussians.

Yeo and Johnson's power transform makes a skewed target nearly normal. A normal prediction of the
bent target is written as a few narrow normals, and each is carried back along the tangent:

.. math:: N(z; \mu, v) \approx \sum_i w_i N(z; \mu + a_i \sqrt v, s^2 v) \;\to\;
    \sum_i w_i N\bigl(y; g(\mu + a_i \sqrt v), (g' s)^2 v\bigr)

References:
    A new family of power transformations to improve normality or symmetry (Yeo, Johnson, 2000).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.preprocessing import PowerTransformer
from torch import Tensor

from hilbound.estimators.experts.processes import Processes, fit_processes
from hilbound.estimators.experts.rows import Rows
from hilbound.mixture import GaussianMixture

_NODES = 9
_NARROW = 0.16  # variance of a piece, as a share of the whole
_GRID = 4001


@dataclass
class Bend:
    """A rising map between a target and its bent form, by the values of both on a grid.

    Attributes:
        target: Values of the target, rising, with shape ``(g,)``.
        bent: The bent form of each, rising.
    """

    target: Tensor
    bent: Tensor

    @classmethod
    def learn(cls, y: Tensor) -> "Bend":
        """Learn the power from targets with shape ``(n,)``; the map reaches three ranges out."""
        transform = PowerTransformer().fit(y.numpy()[:, None])
        low, high = float(y.min()), float(y.max())
        grid = np.linspace(2 * low - high, 2 * high - low, _GRID)
        bent = transform.transform(grid[:, None])[:, 0]
        rising = np.concatenate([[True], np.diff(np.maximum.accumulate(bent)) > 1e-12])
        return cls(torch.from_numpy(grid[rising]), torch.from_numpy(bent[rising]))

    def __call__(self, y: Tensor) -> Tensor:
        """Return the bent form of targets."""
        return _follow(y, self.target, self.bent)[0]

    def back(self, q: GaussianMixture) -> GaussianMixture:
        """Return mixtures of one component of the bent target as ones of the target itself."""
        nodes, weights = _pieces()
        v = q.component_variance
        places = q.means + nodes * v.sqrt()
        y, slope = _follow(places[..., 0], self.bent, self.target)
        # A piece is as steep as the map is on average across it, not at its middle alone.
        variance = _NARROW * v * slope.unsqueeze(-1).square()
        return GaussianMixture(
            y.unsqueeze(-1), variance, weights.expand(len(y), -1), validate_args=False
        )


def _pieces() -> tuple[Tensor, Tensor]:
    """Return places and weights of narrow normals that make up a standard one."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    places = torch.from_numpy(nodes) * (1 - _NARROW) ** 0.5
    return places[:, None], torch.from_numpy(weights / weights.sum())


def _follow(x: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Return the piecewise-linear map of ``x`` and its slope; the ends go on straight."""
    i = torch.searchsorted(start, x.contiguous()).clamp(1, len(start) - 1)
    slope = (end[i] - end[i - 1]) / (start[i] - start[i - 1])
    return end[i - 1] + slope * (x - start[i - 1]), slope


@dataclass
class WarpedProcess:
    """A process of one bent target.

    Attributes:
        processes: The processes of the bent target.
        bend: Its map.
    """

    processes: Processes
    bend: Bend

    def predict(self, x: Tensor) -> GaussianMixture:
        """Return mixtures over the standardised target with batch shape ``(n,)``."""
        return self.bend.back(self.processes.predict(x))


def fit_warped(
    rows: Rows, generator: torch.Generator, advance: Callable[[], None] = lambda: None
) -> tuple[WarpedProcess, GaussianMixture]:
    """Fit a process to one bent target, and return it with its predictions of held-out rows."""
    bend = Bend.learn(rows.y[:, 0].double())
    bent = bend(rows.y[:, 0].double())[:, None]
    processes, held_out = fit_processes(replace(rows, y=bent), generator, advance)
    return WarpedProcess(processes, bend), bend.back(held_out)
