r"""Probabilities and quantiles of Gaussian mixtures on the line.

.. math:: F(x) = \sum_k b_k \Phi\!\left(\frac{x - m_k}{\sqrt{v_k}}\right)

A quantile of a mixture lies between the smallest and the largest of its components' own, which
brackets the root. Newton's steps are taken on the logarithm of the smaller tail, which is nearly
straight where the tail itself is flat, so quantiles far out keep their digits.
"""

import math

import torch
from torch import Tensor

from hilbound.errors import InputError

_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_STEPS = 200  # halving a bracket of doubles takes far fewer; Newton usually takes ten
_FAR = 1e-10  # tails below it need logarithms
_SPLIT = 3  # every third step halves the bracket, so that the worst case is a bisection


def cdf(value: Tensor, means: Tensor, variance: Tensor, log_weights: Tensor) -> Tensor:
    """Return the probability of values no larger than ``value``, in float64.

    Args:
        value: Points with shape ``(*sample, *batch)``.
        means: Centres with shape ``(*batch, K)``.
        variance: Variances that broadcast to ``(*batch, K)``.
        log_weights: Logarithms of the weights with shape ``(*batch, K)``.

    Returns:
        Probabilities with shape ``(*sample, *batch)``.

    >>> one = torch.zeros(1)
    >>> float(cdf(torch.tensor(0.0), one, torch.ones(1), one))
    0.5
    """
    z = (value.double().unsqueeze(-1) - means.double()) / variance.double().sqrt()
    # ndtr itself loses the lower tail beyond eight deviations.
    below = 0.5 * torch.special.erfc(-math.sqrt(0.5) * z)
    share: Tensor = (log_weights.double().exp() * below).sum(-1)
    return share.clamp(max=1.0)


@torch.no_grad()
def icdf(prob: Tensor, means: Tensor, variance: Tensor, log_weights: Tensor) -> Tensor:
    """Return the quantiles at ``prob``, in float64 and without gradient.

    Args:
        prob: Probabilities in [0, 1] with shape ``(*sample, *batch)``; 0 and 1 give the ends of
            the line.
        means: Centres with shape ``(*batch, K)``.
        variance: Variances that broadcast to ``(*batch, K)``.
        log_weights: Logarithms of the weights with shape ``(*batch, K)``.

    Returns:
        Quantiles with shape ``(*sample, *batch)``.

    Raises:
        InputError: If a probability is outside [0, 1] or not a number.

    >>> one = torch.zeros(1)
    >>> round(float(icdf(torch.tensor(0.975), one, torch.ones(1), one)), 3)
    1.96
    """
    check_probabilities(prob)
    prob = prob.double()
    means, deviation = means.double(), variance.double().sqrt()
    # The upper half is the lower half of the mirrored mixture; 1 - p is exact there.
    sign = torch.where(prob <= 0.5, 1.0, -1.0).to(prob)
    tail = torch.minimum(prob, 1 - prob)
    inside = tail > 0
    mirrored = sign.unsqueeze(-1) * means
    root = _lower_quantile(tail.where(inside, 0.5), mirrored, deviation, log_weights.double())
    return sign * root.masked_fill(~inside, -torch.inf)


def check_probabilities(prob: Tensor) -> None:
    """Raise an InputError unless all probabilities are in [0, 1]."""
    if not ((prob >= 0) & (prob <= 1)).all():
        bad = prob[~((prob >= 0) & (prob <= 1))].flatten()[0]
        raise InputError(f"prob must be probabilities from 0 to 1, got {float(bad):g}")


def _lower_quantile(tail: Tensor, means: Tensor, deviation: Tensor, log_weights: Tensor) -> Tensor:
    """Return where the mixture's lower tail is ``tail``, a probability in (0, 1/2]."""
    own = means + deviation * torch.special.ndtri(tail).unsqueeze(-1)
    own = own.where(log_weights > -torch.inf, _anchor(own, log_weights))
    components = [
        t.expand(own.shape).reshape(-1, own.shape[-1]) for t in (means, deviation, log_weights)
    ]
    ends = own.amin(-1).flatten(), own.amax(-1).flatten()
    return (
        _Bracket(ends, tail.expand(own.shape[:-1]).flatten(), components)
        .root()
        .reshape(own.shape[:-1])
    )


class _Bracket:
    """Quantiles that are still looked for; those that are found leave, and cost nothing more."""

    def __init__(self, ends: tuple[Tensor, Tensor], tail: Tensor, components: list[Tensor]) -> None:
        self.low, self.high = ends
        self.wanted = tail.log()
        self.means, self.deviation, self.log_weights = components
        self.log_heights = self.log_weights - self.deviation.log()
        # Far out only logarithms know a tail; elsewhere plain sums take half the time.
        self._far = bool((tail < _FAR).any())

    def root(self) -> Tensor:
        """Return all quantiles."""
        x = 0.5 * (self.low + self.high)
        found, missing = x.clone(), torch.arange(len(x), device=x.device)
        for step in range(_STEPS):
            following = self._step(x, newton=step % _SPLIT < _SPLIT - 1)
            found[missing] = following
            open_ = (following - x).abs() > _ulp(x)
            if not open_.any():
                break
            if open_.all():
                x = following
            else:
                x, missing = following[open_], missing[open_]
                self._keep(open_)
        return found

    def _step(self, x: Tensor, *, newton: bool) -> Tensor:
        """Narrow the bracket around the roots, and return where to look next."""
        log_tail, log_density = self._logarithms(x)
        excess = log_tail - self.wanted
        self.low = torch.where(excess < 0, x, self.low)
        self.high = torch.where(excess > 0, x, self.high)
        following = 0.5 * (self.low + self.high)
        if newton:
            straight = x - excess * (log_tail - log_density + _HALF_LOG_2PI).exp()
            inside = (straight >= self.low) & (straight <= self.high)
            following = straight.where(inside, following)
        return following.where(excess != 0, x)

    def _logarithms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return those of the tail below x, and of the density there, but for a constant."""
        z = (x.unsqueeze(-1) - self.means) / self.deviation
        exponents = self.log_heights - 0.5 * z.square()
        if self._far:
            log_tails = self.log_weights + torch.special.log_ndtr(z)
            return torch.logsumexp(log_tails, -1), torch.logsumexp(exponents, -1)
        tails = self.log_weights.exp() * torch.special.erfc(-math.sqrt(0.5) * z)
        return (0.5 * tails.sum(-1)).log(), exponents.exp().sum(-1).log()

    def _keep(self, rows: Tensor) -> None:
        self.low, self.high, self.wanted = self.low[rows], self.high[rows], self.wanted[rows]
        self.means, self.deviation = self.means[rows], self.deviation[rows]
        self.log_weights, self.log_heights = self.log_weights[rows], self.log_heights[rows]


def _anchor(own: Tensor, log_weights: Tensor) -> Tensor:
    """Return the quantile of the heaviest component, for those without any weight."""
    heaviest: Tensor = log_weights.expand_as(own).argmax(-1, keepdim=True)
    return own.gather(-1, heaviest)


def _ulp(x: Tensor) -> Tensor:
    """Return a distance that rounding makes at ``x``."""
    error: Tensor = 4 * torch.finfo(x.dtype).eps * x.abs() + torch.finfo(x.dtype).tiny
    return error
