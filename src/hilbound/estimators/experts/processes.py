r"""Gaussian processes whose leave-one-out predictions come in closed form.

.. math:: k(x, x') = a_1 e^{-r_1^2 / 2} + a_2 (1 + \sqrt 3 r_2) e^{-\sqrt 3 r_2}
    + a_3 \, x^T x' + a_4

with scaled distances :math:`r` that have a length for every column. With noise added to the
diagonal of K, a row's prediction by all the others is

.. math:: \mu_i = y_i - \frac{(K^{-1} y)_i}{(K^{-1})_{ii}}, \qquad v_i = \frac{1}{(K^{-1})_{ii}}

References:
    Gaussian Processes for Machine Learning (Rasmussen, Williams, 2006), section 5.4.2.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hilbound.estimators.experts.rows import Rows
from hilbound.mixture import GaussianMixture

_MOST = 3000  # rows of the process
_SUBSET = 800  # rows that its lengths and amplitudes are fitted on
STEPS = 80
_RATE = 0.1
_JITTER = 1e-6
_CHUNK = 4096


@dataclass
class Process:
    """A fitted process for one target.

    Attributes:
        logs: Logarithms of 2 p lengths, 4 amplitudes and the noise, with shape ``(2 p + 5,)``.
        x: Its rows with shape ``(n, p)``.
        y: Their targets with shape ``(n,)``.
        share: Weights of the rows, which divide the noise, with shape ``(n,)``.
    """

    logs: Tensor
    x: Tensor
    y: Tensor
    share: Tensor

    @cached_property
    def factor(self) -> Tensor:
        """The lower Cholesky factor of the kernel matrix with noise, ``(n, n)``."""
        return _factor(self.logs, self.x, self.share)

    @cached_property
    def solved(self) -> Tensor:
        """The kernel matrix's inverse times the targets, with shape ``(n,)``."""
        return torch.cholesky_solve(self.y[:, None], self.factor).squeeze(-1)

    def predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and variances of new targets, with shape ``(m,)`` each."""
        parts = [self._predict(rows) for rows in x.split(_CHUNK)]
        means, variance = (torch.cat(part) for part in zip(*parts, strict=True))
        return means, variance

    def _predict(self, x: Tensor) -> tuple[Tensor, Tensor]:
        cross = _kernel(self.logs, self.x, x)
        explained = torch.linalg.solve_triangular(self.factor, cross, upper=False)
        noise = self.logs[-1].exp()
        own = _own(self.logs, x) + noise
        return cross.T @ self.solved, (own - explained.square().sum(0)).clamp(min=0.5 * noise)

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        """Return means and variances of its own rows' targets, each given all the others."""
        precision = torch.cholesky_inverse(self.factor).diagonal()
        return self.y - self.solved / precision, 1 / precision


def _kernel(logs: Tensor, a: Tensor, b: Tensor) -> Tensor:
    p = a.shape[1]
    smooth, rough = logs[:p].exp(), logs[p : 2 * p].exp()
    amplitude = logs[2 * p : 2 * p + 4].exp()
    distance = math.sqrt(3) * (_square(a / rough, b / rough) + 1e-12).sqrt()
    near = amplitude[0] * (-0.5 * _square(a / smooth, b / smooth)).exp()
    bent = amplitude[1] * (1 + distance) * (-distance).exp()
    return near + bent + amplitude[2] * (a @ b.T) + amplitude[3]


def _own(logs: Tensor, x: Tensor) -> Tensor:
    """Return the kernel of every row with itself."""
    amplitude = logs[2 * x.shape[1] :].exp()
    return amplitude[0] + amplitude[1] + amplitude[2] * x.square().sum(1) + amplitude[3]


def _square(a: Tensor, b: Tensor) -> Tensor:
    cross = a @ b.T
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * cross).clamp(min=0)


def _factor(logs: Tensor, x: Tensor, share: Tensor) -> Tensor:
    noise = logs[-1].exp() / share + _JITTER
    matrix: Tensor = torch.linalg.cholesky(_kernel(logs, x, x) + noise.diag())
    return matrix


def _negative_evidence(logs: Tensor, x: Tensor, y: Tensor, share: Tensor) -> Tensor:
    """Return the negative log marginal likelihood a row, with a weak prior on the lengths."""
    factor = _factor(logs, x, share)
    white = torch.linalg.solve_triangular(factor, y[:, None], upper=False)
    evidence = 0.5 * white.square().sum() + factor.diagonal().log().sum()
    loss: Tensor = (evidence + 0.05 * (logs - _start(x)).square().sum()) / len(x)
    return loss


def _start(x: Tensor) -> Tensor:
    lengths = x.new_full((2 * x.shape[1],), 0.5 * math.log(max(x.shape[1], 1)))
    return torch.cat([lengths, x.new_tensor([0.5, 0.5, 0.1, 0.1, 0.1]).log()])


def fit_process(
    x: Tensor,
    y: Tensor,
    share: Tensor,
    generator: torch.Generator,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Process, Tensor, Tensor]:
    """Fit a process to one target.

    Args:
        x: Rows with shape ``(n, p)``, float64.
        y: Standardised targets with shape ``(n,)``.
        share: Weights of the rows with mean one, shape ``(n,)``.
        generator: Chooses the rows, if there are too many.
        advance: Called after each of :data:`STEPS` steps.

    Returns:
        The process, and means and variances of all rows' targets without themselves.
    """
    chosen = torch.randperm(len(x), generator=generator)
    few = chosen[:_SUBSET]
    logs = _start(x).requires_grad_()
    optimiser = torch.optim.Adam([logs], lr=_RATE)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = _RATE * min(1.0, 2 * (1 - step / STEPS))
        loss = _negative_evidence(logs, x[few], y[few], share[few])
        (logs.grad,) = torch.autograd.grad(loss, [logs])
        optimiser.step()
        with torch.no_grad():
            # Wide enough for any table, and the matrix keeps its digits in float64.
            logs[:-1].clamp_(-7, 5)
            logs[-1:].clamp_(-10, 5)
        advance()
    some = chosen[:_MOST].sort().values
    process = Process(logs.detach(), x[some], y[some], share[some])
    means, variance = torch.empty_like(y), torch.empty_like(y)
    means[some], variance[some] = process.leave_one_out()
    others = chosen[_MOST:]
    if len(others):
        means[others], variance[others] = process.predict(x[others])
    return process, means, variance


@dataclass
class Processes:
    """One process for each target, independent of each other.

    Attributes:
        parts: The processes.
    """

    parts: list[Process]

    def predict(self, x: Tensor) -> GaussianMixture:
        """Return mixtures of one component over standardised targets, batch shape ``(n,)``."""
        pairs = [part.predict(x.double()) for part in self.parts]
        return one_gaussian(pairs)


def one_gaussian(pairs: list[tuple[Tensor, Tensor]]) -> GaussianMixture:
    """Return mixtures of one component from every target's means and variances."""
    means, variance = (torch.stack(part, -1) for part in zip(*pairs, strict=True))
    return GaussianMixture(means[:, None], variance[:, None], validate_args=False)


def fit_processes(
    rows: Rows, generator: torch.Generator, advance: Callable[[], None] = lambda: None
) -> tuple[Processes, GaussianMixture]:
    """Fit a process to every target, and return them with their predictions of held-out rows."""
    parts, pairs = [], []
    for y in rows.y.double().unbind(1):
        process, means, variance = fit_process(
            rows.x.double(), y, rows.weight.double(), generator, advance
        )
        parts.append(process)
        pairs.append((means, variance))
    return Processes(parts), one_gaussian(pairs)
