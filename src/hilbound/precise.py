"""Inner products for ratios: in float64, and in a unit that keeps their logarithms small."""

import math

from torch import Tensor

from hilbound.mixture import GaussianMixture


def common_unit(p: GaussianMixture, q: GaussianMixture) -> float:
    r"""Return the unit for :meth:`GaussianMixture.log_inner` in which ratios keep their digits.

    It is the mean variance of the kernel between p and q. In plain units the factor
    :math:`(2\pi v)^{-d/2}` makes logarithms of about :math:`10^4` at d = 12288, which float32
    resolves to 0.001; it cancels in every ratio, and in this unit it is never formed.
    """
    return float(p.component_variance.detach().mean() + q.component_variance.detach().mean())


def precise_log_inner(p: GaussianMixture, q: GaussianMixture) -> Tensor:
    r"""Return :math:`\log \langle p, q \rangle` with shape ``(*)`` in float64, to be subtracted.

    In float32 the sums are formed in the common unit, where they are small, and the constant is
    added in float64: it would take the digits along that are left when two such values cancel.
    """
    unit = common_unit(p, q)
    return p.log_inner(q, unit).double() - 0.5 * p.dim * math.log(2 * math.pi * unit)
