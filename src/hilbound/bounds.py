"""A cost beside the limit that it cannot pass.

A :class:`Bound` holds both as logarithms, because only their difference is needed and the numbers
themselves are outside float64 in high dimension.
"""

from dataclasses import dataclass

from torch import Tensor

from hilbound.functional import precise_log_inner
from hilbound.mixture import GaussianMixture


@dataclass(frozen=True)
class Bound:
    """A cost and its limit.

    Args:
        log_value: Logarithm of the cost, with shape ``(*)``.
        log_limit: Logarithm of its limit, with shape ``(*)``.

    >>> import torch
    >>> bound = Bound(torch.tensor(0.5).log(), torch.tensor(0.0))
    >>> print(bound)
    50.0 % of the limit, gap 0.6931
    """

    log_value: Tensor
    log_limit: Tensor

    @property
    def gap(self) -> Tensor:
        """The distance ``log_limit - log_value`` in nats, with shape ``(*)``."""
        return self.log_limit - self.log_value

    @property
    def tightness(self) -> Tensor:
        """The share of the limit that is reached, in [0, 1] up to rounding, with shape ``(*)``."""
        return (-self.gap).exp()

    def __str__(self) -> str:
        gap, tightness = float(self.gap.detach()), float(self.tightness.detach())
        return f"{100 * tightness:.1f} % of the limit, gap {gap:.4g}"


def marginal_bound(p: GaussianMixture, q: GaussianMixture) -> Bound:
    r"""Return the scalar cost of q against its limit.

    .. math:: \frac{\langle p, q \rangle^2}{\langle q, q \rangle} \le \langle p, p \rangle

    Args:
        p: The data's mixture with batch shape ``(*)``.
        q: The model's mixture with the same batch shape.

    Returns:
        Both logarithms with shape ``(*)``, in float64: the constants that cancel in the gap would
        take the digits of the gap along in float32.

    >>> import torch
    >>> p = GaussianMixture(torch.tensor([[0.0], [1.0]]), 0.5)
    >>> float(marginal_bound(p, p).tightness)
    1.0
    """
    log_pp, log_pq, log_qq = (precise_log_inner(*pair) for pair in ((p, p), (p, q), (q, q)))
    return Bound(2 * log_pq - log_qq, log_pp)
