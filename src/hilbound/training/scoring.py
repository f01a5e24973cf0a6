r"""The log density of new rows under a trained model, with an error bar.

The density of a model is an integral over its noise. For most models it is estimated by the mixture
of K centres drawn at random,

.. math:: q(x) = \sum_{k=1}^K b_k N(x - m_k; v_k).

Let :math:`r_k` be the share of centre k in this sum. By the delta method the logarithm has the
squared standard error

.. math:: \frac{K}{K-1} \sum_{k=1}^K (r_k - b_k)^2 .

A latent mixture draws where a row needs it (:mod:`hilbound.models.importance`).
"""

import torch
from torch import Tensor

from hilbound.engine.gram import block_pairs, log_inner_products
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.models.base import DensityModel
from hilbound.models.classes import ClassConditional
from hilbound.models.importance import LogDensity
from hilbound.models.latent import LatentMixture

#: Centres of the mixture, and draws for each row of a latent mixture, unless another number is
#: asked for.
CENTERS, DRAWS = 10_000, 200


@torch.no_grad()
def estimate_log_densities(
    model: DensityModel, x: Tensor, draws: int | None, generator: torch.Generator
) -> LogDensity:
    """Return the log densities of rows in the units of the model, with standard errors.

    Args:
        model: The model, in evaluation mode.
        x: Rows with shape ``(n, d)``.
        draws: Number of centres; for a latent mixture, of draws for each row. By default
            :data:`CENTERS` or :data:`DRAWS`.
        generator: Draws them.

    Returns:
        What :class:`~hilbound.models.importance.LogDensity` says, in float64.

    Raises:
        InputError: If there are fewer than two draws, or the model learns weights or variances that
            importance sampling does not know.
    """
    if draws is not None and draws < 2:
        raise InputError(f"draws must be at least 2, or there is no error bar; got {draws}")
    if isinstance(model, LatentMixture):
        return _in_double(model.log_prob(x, draws or DRAWS, generator))
    if isinstance(model, ClassConditional) and isinstance(model.model, LatentMixture):
        return _of_classes(model, model.model, x, draws or DRAWS, generator)
    return _of_mixture(model.draw(draws or CENTERS, generator), x)


def _in_double(found: LogDensity) -> LogDensity:
    return LogDensity(*(part.double() for part in found))


def _of_mixture(q: GaussianMixture, x: Tensor) -> LogDensity:
    # A density is a number to report, so it is computed in float64.
    means, v = q.means.double(), q.component_variance.double()
    log_weights, weights = q.log_weights.double(), q.weights.double()
    x, points = x.double(), v.new_zeros(1, 1)
    # Variances that differ by coordinate make a cube of pairs.
    numbers = q.components * (1 if v.shape[-1] == 1 else q.dim)
    parts = []
    for few in x.split(max(1, block_pairs(x.device) // numbers)):
        logs = log_inner_products(few, points, means, v) + log_weights
        value = logs.logsumexp(-1)
        shares = (logs - value.unsqueeze(-1)).exp()
        apart = (shares - weights).square().sum(-1) * q.components / (q.components - 1)
        parts.append((value, apart.sqrt(), 1 / shares.square().sum(-1)))
    return LogDensity(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _of_classes(
    model: ClassConditional, inner: LatentMixture, x: Tensor, draws: int, generator: torch.Generator
) -> LogDensity:
    r"""Return :math:`\log \sum_c \pi_c q(x|c)`, from an estimate for every class."""
    counts = model.remembered_rows.double()
    present = counts.nonzero().flatten().tolist()
    each = [_in_double(inner.log_prob(x, draws, generator, c)) for c in present]
    logs = (
        torch.stack([found.value for found in each])
        + (counts[present] / counts.sum()).log()[:, None]
    )
    value = logs.logsumexp(0)
    shares = (logs - value).exp()
    errors = torch.stack([found.standard_error for found in each])
    effective = torch.stack([found.effective_draws for found in each])
    return LogDensity(value, (shares * errors).square().sum(0).sqrt(), (shares * effective).sum(0))


def in_user_units(found: LogDensity, log_volume: float) -> LogDensity:
    """Return the densities per unit of the user's own axes.

    Args:
        found: The densities in standardised units.
        log_volume: Logarithm of the volume of a standardised unit cube in the user's units.

    >>> found = LogDensity(torch.zeros(1), torch.ones(1), torch.ones(1))
    >>> in_user_units(found, math.log(2)).value
    tensor([-0.6931])
    """
    return found._replace(value=found.value - log_volume)
