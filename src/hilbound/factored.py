r"""The fidelity of two mixtures from factors of low rank: units, centre and tolerance.

With shared variances v and w the overlap is :math:`e^m \exp(-\tfrac12 |\tilde x - \tilde y|^2)` for
points in units of :math:`\sqrt{v + w}`, coordinate by coordinate, and
:math:`m = \log k(0)` the mismatch of the variances. The rest is :mod:`hilbound.low_rank`.
"""

import torch
from torch import Tensor

from hilbound import gram
from hilbound.low_rank import Points, low_rank_fidelity
from hilbound.mixture import GaussianMixture
from hilbound.spectrum import Plan, default_drop, plan

# Where the tolerance is a share of the fidelity, which nobody knows beforehand: from here up it
# is met at the first attempt.
_LEAST_FIDELITY = 0.25


def fidelity_plan(p: GaussianMixture, q: GaussianMixture, tol: float | None = None) -> Plan:
    """Return how :func:`hilbound.functional.fidelity` of these mixtures would be computed.

    >>> x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
    >>> fidelity_plan(GaussianMixture(x, 0.5), GaussianMixture(x, 0.5)).method
    'low rank'
    """
    shared = p.component_variance.shape[:-1] == q.component_variance.shape[:-1] == (1,)
    alone = not p.batch_shape and not q.batch_shape
    return plan(
        p.components,
        q.components,
        dim=p.dim if shared and alone else None,
        dtype=p.means.dtype,
        device=p.means.device,
        gradient=torch.is_grad_enabled() and _is_differentiable(p, q),
        tol=tol,
    )


def _is_differentiable(*mixtures: GaussianMixture) -> bool:
    parts = [(m.means, m.component_variance, m.log_weights) for m in mixtures]
    return any(part.requires_grad for three in parts for part in three)


def factored_fidelity(
    p: GaussianMixture, q: GaussianMixture, drop: float | None = None, tol: float | None = None
) -> tuple[Tensor, Tensor] | None:
    """Return the fidelity and its certificate, or ``None`` where the plan or the rank says so.

    Args:
        p: The data's mixture.
        q: The model's mixture.
        drop: See :func:`hilbound.spectrum.nuclear_norm`.
        tol: The largest certificate; the default is a rounding unit of the fidelity itself.
    """
    chosen = fidelity_plan(p, q, tol)
    if chosen.method != "low rank":
        return None
    factor = 1 if tol is not None else _LEAST_FIDELITY
    result = low_rank_fidelity(
        _points(p, q),
        chosen.tol * factor,
        chosen.rank_limit,
        default_drop(drop, p.means.dtype),
        dtype=_dtype_of_sums(p.means.dtype),
    )
    if result is None:
        return None
    value, certificate = result
    if tol is None and not certificate <= chosen.tol * float(value.detach()):
        return None
    rounded = value.to(p.means.dtype)
    rounding = torch.finfo(rounded.dtype).eps * rounded.detach().double()
    return rounded, certificate + rounding


def _dtype_of_sums(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype, or float64 where torch may form its products in fewer bits."""
    return dtype if gram.rounding_unit(dtype) <= torch.finfo(dtype).eps else torch.float64


def _points(p: GaussianMixture, q: GaussianMixture) -> Points:
    """Return both sets in float64, around their centre and in units of the kernel's spread."""
    v, w = p.component_variance.double(), q.component_variance.double()
    centre = p.means.detach().double().mean(-2)
    unit, total = (v + w).rsqrt(), (v + w).detach().squeeze(0)
    origin = torch.zeros_like(centre).unsqueeze(0)
    return Points(
        (p.means.double() - centre) * unit,
        (q.means.double() - centre) * unit,
        p.log_weights.double(),
        q.log_weights.double(),
        gram.log_overlaps(origin, v, origin, w)[0, 0],
        2 * v.detach().squeeze(0) / total,
        2 * w.detach().squeeze(0) / total,
    )
