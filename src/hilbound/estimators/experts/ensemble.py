"""Members trained together, each on its own rows, stopped where they predict held-out rows best."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hilbound.estimators.experts import networks
from hilbound.estimators.experts.embedding import Embedding
from hilbound.estimators.experts.folds import Folds
from hilbound.estimators.experts.rows import Rows
from hilbound.mixture import GaussianMixture

_CHUNK = 1 << 15  # rows that are predicted at once in training, to bound memory
# In float64 a chunk of this size stays below 32 MiB for each layer. Above, the C library asks the
# system for new pages every time.
_PREDICTED = 1 << 13


@dataclass(frozen=True)
class Recipe:
    """How an ensemble is built and trained.

    Attributes:
        folds: Parts of the rows; each member holds one out.
        repeats: Divisions of the rows; there are folds x repeats members.
        width: Width of the hidden layers.
        batch: Rows of a step, for each member.
        steps: Number of training steps.
        components: Gaussians of a member.
        bins: Most bins of a column's embedding; 0 for none.
        smoothing: Variance of the smoothed target in the project's own cost, or ``None`` for
            the likelihood.
    """

    folds: int
    repeats: int
    width: int
    batch: int
    steps: int
    components: int = 3
    bins: int = 8
    smoothing: float | None = None
    rate: float = 1e-2
    decay: float = 1e-2


@dataclass(frozen=True)
class Ensemble:
    """Fitted members, mixed equally.

    Attributes:
        embedding: What the members read beside the columns.
        weights: Weights of the networks, with the members as the first axis.
        floor: The least variance of a component, with shape ``(d,)``.
    """

    embedding: Embedding
    weights: list[Tensor]
    floor: Tensor

    def predict(self, x: Tensor) -> GaussianMixture:
        """Return mixtures over standardised targets with batch shape ``(n,)``.

        Args:
            x: Standardised rows with shape ``(n, p)``.
        """
        members = len(self.weights[0])
        parts = []
        # In float64 a row's prediction does not depend on the rows that are predicted with it.
        weights, floor = [w.double() for w in self.weights], self.floor.double()
        for rows in x.double().split(max(1, _PREDICTED // members)):
            with torch.no_grad():
                inputs = self.embedding(rows).expand(members, -1, -1)
                heads = networks.forward(weights, inputs, len(floor), floor)
            parts.append([_beside(part.transpose(0, 1)) for part in heads])
        log_weights, means, variance = (torch.cat(part) for part in zip(*parts, strict=True))
        return GaussianMixture(means, variance, log_weights.exp(), validate_args=False)


def _beside(part: Tensor) -> Tensor:
    """Merge the members' components: ``(n, members, K, *)`` to ``(n, members K, *)``."""
    return part.flatten(1, 2)


def fit_ensemble(
    rows: Rows,
    recipe: Recipe,
    floor: Tensor,
    generator: torch.Generator,
    advance: Callable[[], None] = lambda: None,
) -> tuple[Ensemble, GaussianMixture]:
    """Train all members and return them with their predictions for held-out rows.

    Args:
        rows: What to learn from.
        recipe: How.
        floor: The least variance of a component, with shape ``(d,)``.
        generator: Draws everything random.
        advance: Called once for each of the recipe's steps.

    Returns:
        The ensemble, and mixtures over standardised targets with batch shape ``(n,)``, each from
        the members that did not see its row.
    """
    folds = Folds.draw(len(rows.x), recipe.folds, recipe.repeats, generator)
    embedding = Embedding.learn(rows.x.double().numpy(), recipe.bins)
    training = _Training(Rows(embedding(rows.x), rows.y, rows.weight), recipe, folds, floor)
    weights = training.run(generator, advance)
    heads = training.held_out(weights)
    ordered = [folds.gather(part, len(rows.x)).flatten(1, 2) for part in heads]
    held_out = GaussianMixture(ordered[1], ordered[2], ordered[0].exp(), validate_args=False)
    return Ensemble(embedding, weights, floor), held_out


class _Training:
    """One run of all members over their own rows."""

    def __init__(self, rows: Rows, recipe: Recipe, folds: Folds, floor: Tensor) -> None:
        self.rows, self.recipe, self.folds, self.floor = rows, recipe, folds, floor

    def run(self, generator: torch.Generator, advance: Callable[[], None]) -> list[Tensor]:
        """Return the average weights at the step with the best held-out score."""
        recipe = self.recipe
        weights = networks.initial_weights(
            self.folds.members,
            self.rows.x.shape[1],
            width=recipe.width,
            components=recipe.components,
            targets=self.rows.y.shape[1],
            generator=generator,
        )
        for w in weights:
            w.requires_grad_()
        optimiser = torch.optim.AdamW(
            weights, lr=recipe.rate, betas=(0.9, 0.99), weight_decay=recipe.decay, fused=True
        )
        average = [w.detach().clone() for w in weights]
        best, kept = -math.inf, average
        every = max(1, recipe.steps // 60)
        for step, chosen in zip(range(1, recipe.steps + 1), self._batches(generator), strict=False):
            optimiser.param_groups[0]["lr"] = recipe.rate * _schedule(step, recipe.steps)
            self._step(weights, chosen, optimiser)
            decay = min(0.99, 1 - 1 / (1 + step))
            torch._foreach_lerp_(average, [w.detach() for w in weights], 1 - decay)
            if step % every == 0 or step == recipe.steps:
                score = self._score(average)
                if score > best:
                    best, kept = score, [w.clone() for w in average]
            advance()
        return kept

    def _batches(self, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield row numbers with shape ``(members, batch)``, epoch after epoch."""
        fitted = self.folds.fitted
        size = min(self.recipe.batch, fitted.shape[1])
        while True:
            order = torch.rand(fitted.shape, generator=generator).argsort(1)
            shuffled = fitted.gather(1, order)
            for start in range(0, fitted.shape[1] - size + 1, size):
                yield shuffled[:, start : start + size]

    def _step(
        self, weights: list[Tensor], chosen: Tensor, optimiser: torch.optim.Optimizer
    ) -> None:
        x, y, weight = (part[chosen] for part in (self.rows.x, self.rows.y, self.rows.weight))
        heads = networks.forward(weights, x, y.shape[-1], self.floor)
        loss = (self._losses(heads, y) * weight).mean(1).sum()
        gradients = torch.autograd.grad(loss, weights)
        squares = torch.stack([g.square().sum((1, 2)) for g in gradients]).sum(0)
        scale = (5.0 / squares.sqrt().clamp(min=5.0))[:, None, None]
        for w, g in zip(weights, gradients, strict=True):
            w.grad = g * scale
        optimiser.step()

    def _losses(self, heads: networks.Heads, y: Tensor) -> Tensor:
        r"""Return the cost of every row: its negative log density, or its log cosine.

        .. math:: \tfrac12 \log \langle q, q \rangle - \log \langle p, q \rangle, \qquad
            p = N(\cdot - y; s)
        """
        smoothing = self.recipe.smoothing
        if smoothing is None:
            return -networks.log_densities(heads, y)
        wide = heads._replace(variance=heads.variance + smoothing)
        return 0.5 * networks.log_norms(heads) - networks.log_densities(wide, y)

    def held_out(self, weights: list[Tensor]) -> networks.Heads:
        """Return each member's mixtures for the rows it held out."""
        held = self.folds.held
        size = max(1, _CHUNK // self.folds.members)
        with torch.no_grad():
            parts = [
                networks.forward(weights, self.rows.x[part], self.rows.y.shape[1], self.floor)
                for part in held.split(size, 1)
            ]
        return networks.Heads(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))

    def _score(self, weights: list[Tensor]) -> float:
        """Return the mean log density of held-out rows, a member at a time."""
        held = self.folds.held
        heads = self.held_out(weights)
        if self.recipe.smoothing is not None:
            # The best Gaussian by this cost has twice the variance of the target around it.
            heads = heads._replace(variance=(heads.variance / 2).maximum(self.floor))
        log_density = networks.log_densities(heads, self.rows.y[held])
        counts = self.folds.counts * self.rows.weight[held]
        return float((log_density * counts).sum() / counts.sum())


def _schedule(step: int, steps: int) -> float:
    """Return the share of the rate at a step: a warm-up, then half a cosine to zero."""
    warm = min(50, max(1, steps // 10))
    if step <= warm:
        return step / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
