"""How good a latent mixture is as a density: its bound in the features, and its log-likelihood.

The bound is the scalar one of :func:`hilbound.bounds.marginal_bound`, in the space of the features.
The data are a Gaussian around each held-out feature. The model is the mixture p(y), smoothed by the
same kernel. Training features in the place of the model show what real data reach.
"""

import math
from typing import Any

import torch
from torch import Tensor

from hilbound.bounds import Bound, marginal_bound
from hilbound.engine.expectation.components import Components, blur, log_density
from hilbound.engine.seeding import stream
from hilbound.evaluation.reconstruction import choose_rows
from hilbound.mixture import FullGaussianMixture, GaussianMixture
from hilbound.models.latent import LatentMixture
from hilbound.variance import choose, of_component

# Rows whose features are compared, rows whose log density is estimated, and draws for each.
_FEATURE_ROWS, _DENSITY_ROWS, _DRAWS = 5000, 200, 200


@torch.no_grad()
def measure_latent(
    model: LatentMixture, held_out: Tensor, train: Tensor, split: str, seed: int
) -> dict[str, Any]:
    """Return what was measured of the density of features, and of the density of rows.

    Args:
        model: A trained model.
        held_out: Held-out rows with shape ``(n, d)``.
        train: Training rows with shape ``(N, d)``.
        split: The name of the held-out split.
        seed: Seed of the draws.
    """
    rows = choose_rows(held_out, min(_FEATURE_ROWS, len(held_out)), split, seed)
    others = choose_rows(train, min(len(rows), len(train)), "train", seed)
    y, real = model.features_of(rows), model.features_of(others)
    density = model.feature_density()
    kernel = choose(y, generator=stream(seed, "feature-kernel"))
    v = of_component(kernel)
    bound = feature_bound(y, density, v)
    floor = marginal_bound(GaussianMixture(y, v), GaussianMixture(real, v))
    own = Components(density.means, density.component_covariance, density.log_weights)
    return {
        "components": density.components,
        "feature_rows": len(rows),
        "feature_log_density": float(log_density(own, y).mean()),
        "feature_bound": {
            "variance": kernel,
            "log_value": float(bound.log_value),
            "log_limit": float(bound.log_limit),
            "gap": float(bound.gap),
            "tightness": float(bound.tightness),
            "real_tightness": float(floor.tightness),
        },
    } | _log_likelihood(model, rows[:_DENSITY_ROWS], seed)


def feature_bound(y: Tensor, density: FullGaussianMixture, variance: float) -> Bound:
    r"""Return the scalar cost of the smoothed density against its limit.

    .. math:: \frac{\langle p, q_v \rangle^2}{\langle q_v, q_v \rangle}
        \le \langle p, p \rangle, \qquad
        p = \frac1n \sum_i N(\cdot - y_i; v), \quad q_v = q * N(0; v)

    Since :math:`\langle p, q_v \rangle` is the mean of :math:`q_{2v}` at the features, no pair of
    covariances has to be formed for it.

    Args:
        y: Features with shape ``(n, F)``.
        density: The density q of features.
        variance: The variance v.

    >>> one = FullGaussianMixture(torch.zeros(1, 1), torch.full((1, 1, 1), 1e-6))
    >>> feature_bound(torch.zeros(1, 1), one, 1.0).tightness.round(decimals=4)
    tensor(1., dtype=torch.float64)
    """
    # Differences of large logarithms need float64.
    q = Components(
        density.means.double(),
        density.component_covariance.double(),
        density.log_weights.double(),
    )
    y = y.double()
    log_pq = log_density(blur(q, 2 * variance), y).logsumexp(0) - math.log(len(y))
    smooth = blur(q, variance)
    log_qq = FullGaussianMixture(
        smooth.means, smooth.spread, log_weights=smooth.log_weights
    ).log_norm()
    return Bound(2 * log_pq - log_qq, GaussianMixture(y, variance).log_norm())


def _log_likelihood(model: LatentMixture, rows: Tensor, seed: int) -> dict[str, Any]:
    """Return the mean log density of rows in nats, with its error bars."""
    if model.decoder.weight_head is not None or model.decoder.variance_head is not None:
        return {}
    found = model.log_prob(rows, _DRAWS, stream(seed, "log-density"))
    n = len(rows)
    return {
        "log_likelihood": {
            "rows": n,
            "draws": _DRAWS,
            "variance": float(model.output_variance if model.paired else model.decoder.variance),
            "mean": float(found.value.mean()),
            # Both are errors of the mean: by the choice of the rows, and by the draws.
            "standard_error": float(found.value.std() / math.sqrt(n)) if n > 1 else 0.0,
            "error_of_draws": float(found.standard_error.square().sum().sqrt() / n),
            "fewest_effective_draws": float(found.effective_draws.min()),
        }
    }
