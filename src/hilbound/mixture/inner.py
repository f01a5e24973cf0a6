r"""Inner products for ratios and differences, in a unit that keeps float32's digits."""

import math

import torch
from torch import Tensor

from hilbound.mixture.gaussian import GaussianMixture


def in_common_unit(
    p: GaussianMixture, q: GaussianMixture
) -> tuple[GaussianMixture, GaussianMixture, float, Tensor]:
    r"""Return p, q, a unit for :meth:`GaussianMixture.log_inner`, and what to add to logarithms.

    The unit is the mean variance of the kernel between p and q. In plain units the factor
    :math:`(2\pi v)^{-d/2}` gives logarithms of about :math:`10^4` at d = 12288, which float32
    resolves only to 0.001. In this unit the factor is not computed. It cancels in every ratio. For
    the plain logarithm of a sum, add the last value, which is in float64.
    """
    variance = p.component_variance.detach().mean() + q.component_variance.detach().mean()
    constant = -0.5 * p.dim * (2 * math.pi * variance.double()).log()
    if not torch.compiler.is_compiling():
        return p, q, float(variance), constant
    # A graph has no numbers. In coordinates divided by the unit's root, the unit is 1.
    scaled = _divided(p, variance)
    return scaled, scaled if q is p else _divided(q, variance), 1.0, constant


def _divided(q: GaussianMixture, variance: Tensor) -> GaussianMixture:
    """Return a mixture in coordinates that are divided by the root of a variance."""
    return GaussianMixture(
        q.means * variance.rsqrt(),
        q.component_variance / variance,
        log_weights=q.log_weights,
        validate_args=False,
    )


def precise_log_inner(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Return :math:`\log \langle p, q \rangle` with shape ``(*)`` in float64, for differences.

    Float32 sums are computed in the common unit, where their logarithms are small. The constant is
    added in float64. In float32 it would cost the digits that remain when two such values cancel.
    """
    p, q, unit, constant = in_common_unit(p, q)
    return p.log_inner(q, unit).double() + constant
