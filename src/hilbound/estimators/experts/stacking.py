r"""Several models as one mixture, weighted by what they say about rows they have not seen.

.. math:: q(y \mid x) = \sum_e w_e \, q_e^{\tau_e}(y \mid x)

where a temperature :math:`\tau` multiplies all variances of a model's mixture. Weights are those
of greatest held-out likelihood, found by expectation and maximisation, in turn with each model's
temperature on a grid.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hilbound.mixture import GaussianMixture

_TEMPERATURES = torch.logspace(math.log10(0.3), math.log10(2.0), 17, dtype=torch.float64)
_ROUNDS = 12
_EM_STEPS = 25
_PRIOR = 1.0  # rows that every model is credited with beforehand
_LEAST = 1e-3  # models of less weight are dropped


class Expert(Protocol):
    """What predicts a mixture over standardised targets for every row."""

    def predict(self, x: Tensor) -> GaussianMixture:
        """Return mixtures with batch shape ``(n,)`` for rows ``(n, p)``."""


@dataclass
class Stack:
    """Weighted models.

    Attributes:
        experts: The models.
        weights: One for each, with sum one.
        temperatures: Factors of their variances.
        floor: The least variance of a component, with shape ``(d,)``.
    """

    experts: list[Expert]
    weights: list[float]
    temperatures: list[float]
    floor: Tensor

    def predict(self, x: Tensor) -> GaussianMixture:
        """Return mixtures over standardised targets with batch shape ``(n,)``."""
        parts = [expert.predict(x) for expert in self.experts]
        return mix(parts, self.weights, self.temperatures, self.floor)


def at_temperature(q: GaussianMixture, temperature: float, floor: Tensor) -> GaussianMixture:
    """Return mixtures with variances times a temperature, none below the floor."""
    variance = (q.component_variance.double() * temperature).maximum(floor.double())
    return GaussianMixture(
        q.means.double(), variance.expand_as(q.means), q.weights.double(), validate_args=False
    )


def mix(
    parts: list[GaussianMixture], weights: list[float], temperatures: list[float], floor: Tensor
) -> GaussianMixture:
    """Return one mixture of all components."""
    parts = [at_temperature(q, t, floor) for q, t in zip(parts, temperatures, strict=True)]
    return GaussianMixture(
        torch.cat([q.means for q in parts], -2),
        torch.cat([q.component_variance for q in parts], -2),
        torch.cat([q.weights * w for q, w in zip(parts, weights, strict=True)], -1),
        validate_args=False,
    )


def fit_stack(
    experts: list[Expert], held_out: list[GaussianMixture], y: Tensor, weight: Tensor, floor: Tensor
) -> tuple[Stack, GaussianMixture]:
    """Weigh models by their predictions of held-out rows.

    Args:
        experts: The models.
        held_out: Their predictions for the rows, from fits that had not seen them.
        y: Standardised targets with shape ``(n, d)``.
        weight: Weights of the rows, with shape ``(n,)``.
        floor: The least variance of a component, with shape ``(d,)``.

    Returns:
        The stack, and its own mixtures for held-out rows.
    """
    y = y.double()
    table = torch.stack(
        [
            torch.stack([at_temperature(q, float(t), floor).log_prob(y) for t in _TEMPERATURES])
            for q in held_out
        ]
    )
    shares, chosen = _weigh(table, weight.double())
    kept = [e for e in range(len(experts)) if shares[e] > _LEAST]
    total = sum(float(shares[e]) for e in kept)
    weights = [float(shares[e]) / total for e in kept]
    temperatures = [float(_TEMPERATURES[chosen[e]]) for e in kept]
    stack = Stack([experts[e] for e in kept], weights, temperatures, floor)
    return stack, mix([held_out[e] for e in kept], weights, temperatures, floor)


def _weigh(table: Tensor, weight: Tensor) -> tuple[Tensor, list[int]]:
    """Return the models' weights and the places of their temperatures.

    Args:
        table: Log densities with shape ``(models, temperatures, n)``.
        weight: Weights of the rows, with shape ``(n,)``.
    """
    models = len(table)
    chosen = [int((row @ weight).argmax()) for row in table]
    shares = table.new_full((models,), 1 / models)
    for _ in range(_ROUNDS):
        before = list(chosen)
        shares = _expectation_maximisation(
            torch.stack([table[e, chosen[e]] for e in range(models)]), weight, shares
        )
        for e in range(models):
            others = [table[k, chosen[k]] + shares[k].log() for k in range(models) if k != e]
            rest = torch.stack([*others, torch.full_like(weight, -torch.inf)]).logsumexp(0)
            total = torch.logaddexp(table[e] + shares[e].log(), rest)
            chosen[e] = int((total @ weight).argmax())
        if chosen == before:
            break
    return shares, chosen


def _expectation_maximisation(log_density: Tensor, weight: Tensor, shares: Tensor) -> Tensor:
    for _ in range(_EM_STEPS):
        posterior = (log_density + shares.log()[:, None]).softmax(0)
        counts = posterior @ weight + _PRIOR
        shares = counts / counts.sum()
    return shares
