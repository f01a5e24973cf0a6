r"""Expectation-maximisation for Gaussian mixtures, exact where values are missing.

The E-step (:mod:`hilbound.engine.expectation.moments`) gives every row its posterior weights
:math:`r_{ik}` and fills its gaps. The M-step is regularised,

.. math:: S_k = \frac{\sum_i r_{ik} \big[ (x_{ik} - m_k)(x_{ik} - m_k)^T + C_{ik} \big] + c\, S_0}
    {\sum_i r_{ik} + c} + \rho 1,

where :math:`C_{ik}` is the conditional covariance of the gaps and :math:`S_0` the mean of the
scatters within all components. At :math:`c = 0` this is the plain algorithm with a ridge
:math:`\rho`. A least variance :math:`\varepsilon` is no ridge: where :math:`S_k` has less in some
direction it gets as much there, and stays as it is elsewhere.

References:
    Maximum likelihood from incomplete data via the EM algorithm (Dempster, Laird and Rubin, 1977);
    Supervised learning from incomplete data via an EM approach (Ghahramani and Jordan, 1994);
    k-means++: The advantages of careful seeding (Arthur and Vassilvitskii, 2007).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hilbound.engine.expectation.components import Components, at_least, squared_distances
from hilbound.engine.expectation.moments import Moments, expect

_LLOYD_STEPS = 10
_STARTS = 4
_ROWS = 2048  # rows whose products are held at a time


@dataclass(frozen=True)
class Regularisation:
    """How far the components are kept from their own scatter.

    Args:
        shrinkage: Rows' worth ``c`` of the scatter common to all components.
        ridge: Variance that is added in every direction.
        floor: The least variance in any direction.
    """

    shrinkage: float = 0.0
    ridge: float = 1e-6
    floor: float = 0.0


def fit_components(
    x: Tensor,
    start: Components,
    regularisation: Regularisation,
    *,
    max_steps: int = 100,
    tolerance: float = 1e-3,
) -> Components:
    """Run the algorithm until a step gains less than ``tolerance`` nats for each row.

    Args:
        x: Rows with shape ``(n, d)``; a missing value is NaN.
        start: Where to start; whether it has variances or covariances stays so.
        regularisation: What is added to the scatter.
        max_steps: The most steps.
        tolerance: The least gain in mean log likelihood that is worth another step.

    Returns:
        The components, weights summing to one; those that lost all rows are left out.

    >>> x = torch.tensor([[0.0], [2.0], [9.0], [11.0]], dtype=torch.float64)
    >>> start = Components(x[[0, 3]], torch.ones(2, 1).double(), torch.full((2,), 0.5).log())
    >>> fit_components(x, start, Regularisation(ridge=0.0)).means.round().squeeze()
    tensor([ 1., 10.], dtype=torch.float64)
    """
    components, last = start, -math.inf
    for _ in range(max_steps):
        moments = expect(x, components)
        mean = float(moments.log_likelihood) / len(x)
        components = _maximise(moments, components.full, regularisation)
        if mean - last < tolerance:
            break
        last = mean
    return _without_empty(components)


def _maximise(moments: Moments, full: bool, regularisation: Regularisation) -> Components:
    count = moments.count + 10 * torch.finfo(moments.count.dtype).eps
    means = moments.first / count.unsqueeze(1)
    if full:
        scatter = moments.second - count[:, None, None] * (means.unsqueeze(2) * means.unsqueeze(1))
    else:
        scatter = (moments.second - count.unsqueeze(1) * means.square()).clamp_min(0)
    spread = _regularise(scatter, count, regularisation)
    return Components(means, spread, (count / count.sum()).log())


def _regularise(scatter: Tensor, count: Tensor, regularisation: Regularisation) -> Tensor:
    common, c = scatter.sum(0) / count.sum(), regularisation.shrinkage
    ridge, floor = regularisation.ridge, regularisation.floor
    if scatter.ndim == 2:
        spread = (scatter + c * common) / (count + c).unsqueeze(1)
        return (spread + ridge).clamp_min(floor)
    eye = torch.eye(scatter.shape[1], dtype=scatter.dtype)
    spread = (scatter + c * common) / (count + c)[:, None, None] + ridge * eye
    return at_least(spread, floor) if floor else spread


def _without_empty(c: Components) -> Components:
    kept = c.log_weights > math.log(1e-12)
    log_weights = c.log_weights[kept]
    return Components(c.means[kept], c.spread[kept], log_weights - log_weights.logsumexp(0))


def start_components(
    x: Tensor,
    count: int,
    regularisation: Regularisation,
    *,
    full: bool,
    generator: torch.Generator,
    starts: int = _STARTS,
) -> Components:
    """Return components around centres that k-means finds.

    Args:
        x: Rows with shape ``(n, d)``; a missing value is NaN, and counts as zero for this start.
        count: The number of components; fewer come back where there are fewer distinct rows.
        regularisation: What is added to the scatter.
        full: Whether to give covariances.
        generator: Draws the centres.
        starts: The number of draws, of which the best goes on.
    """
    filled = x.nan_to_num(0.0)
    centres = _spread_centres(filled, count, generator)
    for _ in range(starts - 1):
        other = _spread_centres(filled, count, generator)
        centres = min(centres, other, key=lambda some: _inertia(filled, some))
    for _ in range(_LLOYD_STEPS):
        r = _nearest(filled, centres)
        centres = (r.mT @ filled) / r.sum(0).clamp_min(1).unsqueeze(1)
    r = _nearest(filled, centres)
    r = r[:, r.sum(0) > 0]
    dim = x.shape[1]
    first = r.mT @ filled
    second = r.mT @ filled.square()
    if full:
        outer = [(r[rows].mT @ _products(filled[rows])) for rows in _blocks(len(x))]
        second = torch.stack(outer).sum(0).reshape(-1, dim, dim)
    return _maximise(Moments(r.sum(0), first, second, x.new_zeros(())), full, regularisation)


def _products(x: Tensor) -> Tensor:
    return (x.unsqueeze(2) * x.unsqueeze(1)).flatten(1)


def _blocks(n: int) -> list[slice]:
    return [slice(i, i + _ROWS) for i in range(0, n, _ROWS)]


def _spread_centres(x: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw rows with a probability that grows with their distance from those drawn before."""
    chosen = [int(torch.randint(len(x), (1,), generator=generator))]
    distance = (x - x[chosen[0]]).square().sum(1)
    while len(chosen) < count and float(distance.max()) > 0:
        chosen.append(int(torch.multinomial(distance, 1, generator=generator)))
        distance = torch.minimum(distance, (x - x[chosen[-1]]).square().sum(1))
    return x[chosen]


def _inertia(x: Tensor, centres: Tensor) -> float:
    return float(squared_distances(x, centres).amin(1).sum())


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    labels = squared_distances(x, centres).argmin(1)
    return torch.nn.functional.one_hot(labels, len(centres)).to(x)
