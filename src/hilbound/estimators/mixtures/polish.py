r"""Gradient steps on an objective, as many as held-out rows approve of.

Expectation-maximisation climbs the likelihood. Other costs compare a mixture q with the data's own,
:math:`p = \frac1n \sum_i N(\cdot - x_i; v)`, and are climbed from there by gradient: centres,
Cholesky factors or deviations, and weights. Both are seen through the same kernel: q is blurred by
v, too, so that p and q may agree, and no component has to be as wide as the kernel.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hilbound import functional as F
from hilbound.engine.expectation.components import Components, blur, log_inner, log_norm
from hilbound.estimators.mixtures.kernels import kernel_components
from hilbound.mixture import GaussianMixture

_STEPS = 200
_CHECK_EVERY = 10
_BATCH = 256
_LEARNING_RATE = 3e-3

#: From rows ``(n, d)``, the variance of their kernel and a blurred mixture to what is maximised.
Cost = Callable[[Tensor, float, Components], Tensor]


def scalar_cost(x: Tensor, variance: float, q: Components) -> Tensor:
    """Return the logarithm of the scalar cost, for variances and covariances alike."""
    p = kernel_components(x, x.new_full((x.shape[1],), variance))
    return 2 * log_inner([p], [q]) - log_norm([q])


def vector_cost(x: Tensor, variance: float, q: Components) -> Tensor:
    """Return the logarithm of the vector-matrix cost."""
    return F.log_vector_cost(GaussianMixture(x, variance), _as_diagonal(q))


def fidelity(x: Tensor, variance: float, q: Components) -> Tensor:
    """Return the logarithm of the nuclear norm of the cross Gram matrix."""
    return F.log_fidelity(GaussianMixture(x, variance), _as_diagonal(q))


def _as_diagonal(q: Components) -> GaussianMixture:
    return GaussianMixture(q.means, q.spread, q.log_weights.exp())


#: What can be climbed, by the name that users give.
COSTS: dict[str, Cost] = {"scalar": scalar_cost, "vector": vector_cost, "nuclear": fidelity}


@dataclass
class Ascent:
    """What gradient steps made of a mixture.

    Args:
        components: The mixture after them.
        steps: Their number; none if no step was an improvement.
        before: The objective on held-out rows at the start.
        after: The objective on held-out rows at the end.
    """

    components: Components
    steps: int
    before: float
    after: float


class _Parameters:
    """A mixture as free numbers: nothing that a gradient step does leaves the mixtures."""

    def __init__(self, c: Components, min_variance: float) -> None:
        self.full, self.floor = c.full, min_variance
        self.means = c.means.clone().requires_grad_()
        self.logits = c.log_weights.clone().requires_grad_()
        if c.full:
            floor = 0.999 * min_variance * torch.eye(c.means.shape[1], dtype=c.means.dtype)
            self.root = torch.linalg.cholesky(c.spread - floor).requires_grad_()
        else:
            self.root = (c.spread - 0.999 * min_variance).sqrt().requires_grad_()

    def components(self) -> Components:
        if self.full:
            eye = torch.eye(self.means.shape[1], dtype=self.means.dtype)
            lower = self.root.tril()
            spread = lower @ lower.mT + self.floor * eye
        else:
            spread = self.root.square() + self.floor
        return Components(self.means, spread, self.logits.log_softmax(0))

    def detached(self) -> Components:
        c = self.components()
        return Components(c.means.detach().clone(), c.spread.detach(), c.log_weights.detach())


def climb(
    cost: Cost,
    train: Tensor,
    held_out: Tensor,
    variance: float,
    start: Components,
    *,
    min_variance: float,
    generator: torch.Generator,
) -> Ascent:
    """Take gradient steps and return the best mixture by held-out rows, be it the start.

    Args:
        cost: What to maximise.
        train: Rows with shape ``(n, d)`` whose gradient is followed.
        held_out: Rows with shape ``(m, d)`` that judge.
        variance: Variance of the data's kernel.
        start: The mixture to start from.
        min_variance: Variance that stays in every direction.
        generator: Draws the batches.
    """
    parameters = _Parameters(start, min_variance)
    with torch.no_grad():
        before = float(cost(held_out, variance, blur(start, variance)))
    best = Ascent(start, 0, before, before)
    for step in _steps(cost, train, variance, parameters, _STEPS, generator=generator):
        if step % _CHECK_EVERY == 0:
            found = parameters.detached()
            with torch.no_grad():
                value = float(cost(held_out, variance, blur(found, variance)))
            if value > best.after:
                best = Ascent(found, step, before, value)
    return best


def follow(
    cost: Cost,
    x: Tensor,
    variance: float,
    start: Components,
    steps: int,
    *,
    min_variance: float,
    generator: torch.Generator,
) -> Components:
    """Return the mixture after a number of steps that was found elsewhere."""
    parameters = _Parameters(start, min_variance)
    for _ in _steps(cost, x, variance, parameters, steps, generator=generator):
        pass
    return parameters.detached()


def _steps(
    cost: Cost,
    x: Tensor,
    variance: float,
    parameters: _Parameters,
    count: int,
    *,
    generator: torch.Generator,
) -> Iterator[int]:
    """Take steps one at a time, so that whoever asks may look in between."""
    free = [parameters.means, parameters.root, parameters.logits]
    optimizer = torch.optim.Adam(free, lr=_LEARNING_RATE)
    for step in range(1, count + 1):
        batch = x[torch.randperm(len(x), generator=generator)[:_BATCH]]
        optimizer.zero_grad()
        loss = -cost(batch, variance, blur(parameters.components(), variance))
        loss.backward()
        optimizer.step()
        yield step
