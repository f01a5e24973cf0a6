r"""The log density of a model with a latent variable, by importance sampling with an error bar.

The density of a row is an integral over the latent z, which holds the features and the decoder's
noise,

.. math:: q(x) = \int N(x - D(z); v)\, p(z)\, dz
    \approx \frac1n \sum_{i=1}^n w_i, \qquad
    w_i = \frac{N(x - D(z_i); v)\, p(z_i)}{g(z_i)}, \qquad z_i \sim g.

The proposal g is a Gaussian. From the features that the encoder gives, a few Gauss-Newton steps
lead to a maximum of the integrand. The curvature there, with the Jacobian J of the decoder and the
precision :math:`\Lambda` of p near the maximum, gives the covariance

.. math:: C = s\, \big(J^\top J / v + \Lambda\big)^{-1},

where a factor s a little above 1 keeps the weights bounded in the tails. The mean of the weights is
unbiased for q(x). By the delta method its logarithm has the standard error
:math:`\operatorname{std}(w) / (\bar w \sqrt n)`, and is too low by about half the square of it.

References:
    Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from hilbound.engine.expectation.components import LOG_2PI, Components, log_density, log_joint
from hilbound.errors import InputError

# Gauss-Newton steps, and how often a step may be halved until it helps.
_STEPS, _HALVINGS = 6, 3
# The step of differences, in features of variance 1.
_DIFFERENCE = 1e-2
# The covariance of the proposal is larger than the curvature asks for.
_INFLATION = 1.2
# Rows whose draws are decoded at a time have so many coordinates together.
_BLOCK_ENTRIES = 2**23


class LogDensity(NamedTuple):
    """Estimates of log densities.

    Args:
        value: Log densities in nats, with shape ``(N,)``.
        standard_error: Their standard errors, with shape ``(N,)``.
        effective_draws: How many equally weighted draws the weighted ones are worth, ``(N,)``.
            Where they are few, the error bar itself is not to be trusted.
    """

    value: Tensor
    standard_error: Tensor
    effective_draws: Tensor


@dataclass(frozen=True)
class Integrand:
    """The product of which the density is the integral.

    Args:
        decode: Maps latents with shape ``(*, Z)`` to centres with shape ``(*, d)``.
        prior: The density p(z), components with covariances.
        variance: The variance v of a coordinate around its centre.
    """

    decode: Callable[[Tensor], Tensor]
    prior: Components
    variance: float

    def log_value(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the logarithm for rows ``(B, d)`` and latents ``(n, B, Z)``, in float64."""
        squares = (x - self.decode(z)).square().sum(-1, dtype=torch.float64)
        log_normal = -0.5 * (squares / self.variance + x.shape[-1] * self._log_unit)
        log_prior = log_density(self.prior, z.flatten(0, -2)).view(z.shape[:-1])
        total: Tensor = log_normal + log_prior
        return total

    @cached_property
    def _precision(self) -> Tensor:
        inverse: Tensor = torch.linalg.inv(self.prior.spread)
        return inverse

    @property
    def _log_unit(self) -> float:
        return LOG_2PI + math.log(self.variance)

    def newton(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the Gauss-Newton step ``(B, Z)`` and the negative curvature ``(B, Z, Z)``."""
        jacobian = self._jacobian(z)
        shares = log_joint(self.prior, z).softmax(-1)
        precision = self._precision
        pulled = (precision @ self.prior.means.unsqueeze(-1)).squeeze(-1)
        own = torch.einsum("bk,kij->bij", shares, precision)
        slope = shares @ pulled - (own @ z.unsqueeze(-1)).squeeze(-1)
        error = (x - self.decode(z)).unsqueeze(-1)
        slope = slope + (jacobian.mT @ error).squeeze(-1) / self.variance
        curvature = jacobian.mT @ jacobian / self.variance + own
        return torch.linalg.solve(curvature, slope.unsqueeze(-1)).squeeze(-1), curvature

    def _jacobian(self, z: Tensor) -> Tensor:
        """Return the Jacobian of the decoder, ``(B, d, Z)``, by central differences.

        It shapes the proposal only. So its small errors cost some draws, and change no result.
        """
        ways = _DIFFERENCE * torch.eye(z.shape[-1]).to(z).unsqueeze(1)
        apart = self.decode(z + ways) - self.decode(z - ways)
        return (apart / (2 * _DIFFERENCE)).movedim(0, -1)


def estimate_log_density(
    integrand: Integrand,
    x: Tensor,
    start: Tensor,
    *,
    draws: int,
    generator: torch.Generator | None = None,
) -> LogDensity:
    """Return the log densities of rows.

    Args:
        integrand: The integrand.
        x: Rows with shape ``(N, d)``.
        start: Where to look for a maximum of the integrand, with shape ``(N, Z)``.
        draws: Number of draws for every row.
        generator: Draws the latents.

    Raises:
        InputError: If there are fewer than two draws.
    """
    if draws < 2:
        raise InputError(f"draws must be at least 2, or there is no error bar; got {draws}")
    rows = max(1, _BLOCK_ENTRIES // (max(draws, start.shape[-1]) * x.shape[-1]))
    parts = [
        _of_block(integrand, few, first, draws, generator)
        for few, first in zip(x.split(rows), start.split(rows), strict=True)
    ]
    return LogDensity(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _of_block(
    integrand: Integrand,
    x: Tensor,
    start: Tensor,
    draws: int,
    generator: torch.Generator | None,
) -> LogDensity:
    mode = _maximise(integrand, x, start)
    _, curvature = integrand.newton(x, mode)
    # With L L^T the curvature, the covariance is that of sqrt(s) L^-T times standard noise.
    factor = torch.linalg.cholesky(curvature / _INFLATION)
    noise = torch.randn(
        (draws, *mode.shape), generator=generator, dtype=mode.dtype, device=mode.device
    )
    moved = torch.linalg.solve_triangular(factor.mT, noise.unsqueeze(-1), upper=True).squeeze(-1)
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    log_proposal = log_det - 0.5 * (noise.square().sum(-1) + mode.shape[-1] * LOG_2PI)
    log_weights = integrand.log_value(x, mode + moved) - log_proposal
    value = log_weights.logsumexp(0) - math.log(draws)
    weights = (log_weights - value).exp()
    return LogDensity(
        value,
        weights.std(0) / math.sqrt(draws),
        weights.sum(0).square() / weights.square().sum(0),
    )


def _maximise(integrand: Integrand, x: Tensor, z: Tensor) -> Tensor:
    """Climb the integrand from latents ``(B, Z)``. A step that does not help is halved."""
    reached = integrand.log_value(x, z.unsqueeze(0)).squeeze(0)
    for _ in range(_STEPS):
        step, _ = integrand.newton(x, z)
        for _ in range(_HALVINGS + 1):
            there = z + step
            value = integrand.log_value(x, there.unsqueeze(0)).squeeze(0)
            better = value > reached
            z = torch.where(better.unsqueeze(-1), there, z)
            reached = torch.where(better, value, reached)
            step = torch.where(better.unsqueeze(-1), 0.0, 0.5 * step)
    return z
