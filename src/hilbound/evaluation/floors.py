r"""A run's bound on held-out rows, beside what real data and a single point reach.

A tightness alone says little. To a narrow kernel even real data look unlike other real data, and to
a wide one everything looks alike. So the same bound is computed three times: for the model, for
training rows in the place of its centres, and for one point, the mean of the training rows. A model
that is worth something is near the second and far above the third.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hilbound.bounds import Bound, conditional_bound
from hilbound.config import RunConfig
from hilbound.datasets import Dataset
from hilbound.engine.gram import squared_distances
from hilbound.engine.seeding import stream
from hilbound.evaluation.reconstruction import choose_rows
from hilbound.mixture import GaussianMixture
from hilbound.models.autoencoders import EncoderMixtureDecoder, FeatureModel
from hilbound.objectives import Objective, create_objective
from hilbound.training.runs import Run

#: What is said of a bound that every blur reaches.
TOO_WIDE = (
    "the kernel is so wide that a single point comes as close to the limit as real data do, so the "
    "bound says nothing here: lower --variance"
)
# Where one point has this share of what real data have, the kernel tells them hardly apart.
_BLUR = 0.9

# A nuclear norm of a whole batch takes about as long as a step, so a few batches must do.
_BATCHES = 4


@torch.no_grad()
def batch_bound(run: Run, held_out: Tensor) -> dict[str, Any] | None:
    """Return the bound that a run was trained on, on batches of held-out rows.

    Args:
        run: The run. The kernel variance at its end is used.
        held_out: Rows with shape ``(n, d)``.

    Returns:
        ``rows`` of a batch, ``batches``, and the mean ``tightness`` with that of ``real`` data and
        of the ``mean`` alone; ``None`` if every row has centres of its own.
    """
    model, config = run.model, run.config
    if isinstance(model, FeatureModel):
        return None
    objective = create_objective(config.objective, **config.objective_options)
    train = run.dataset.train.to(model.head.variance)
    rows = min(config.batch_size, len(held_out), len(train))
    centers = min(_centers(config, objective, rows), len(train))
    reached: dict[str, list[float]] = {"tightness": [], "real": [], "mean": []}
    batches = held_out[: len(held_out) // rows * rows].to(train).split(rows)[:_BATCHES]
    for i, batch in enumerate(batches):
        draws = stream(config.seed, "evaluation-batch", i)
        real = train[torch.randperm(len(train), generator=draws)[:centers]]
        p = GaussianMixture(batch, run.component_variance)
        sides = {
            "tightness": model.draw(centers, draws),
            "real": GaussianMixture(real, run.component_variance),
            "mean": GaussianMixture(train.mean(0).expand_as(real), run.component_variance),
        }
        for side, q in sides.items():
            reached[side].append(_tightness(objective.bound(p, q, draws)))
    means = {side: sum(values) / len(values) for side, values in reached.items()}
    return {"rows": rows, "batches": len(batches), **means}


def is_too_wide(bound: Mapping[str, Any]) -> bool:
    """Whether a single point reaches nearly what real data reach, of an entry made here.

    >>> is_too_wide({"real": 1.0, "mean": 0.99}), is_too_wide({"real": 0.9, "mean": 0.1})
    (True, False)
    """
    # The distance's nuclear norm is best at the mean, whatever the data: it has no kernel.
    return "real" in bound and _BLUR * bound["real"] < bound["mean"] < bound["real"] / _BLUR


def _centers(config: RunConfig, objective: Objective, rows: int) -> int:
    """Return how many centres the model is measured with."""
    if objective.paired:
        return rows
    return config.eval_centers or config.centers or rows


def _tightness(bound: Bound) -> float:
    # Two numbers at rounding level may part by more than the limit.
    return min(1.0, float(bound.tightness))


def tracked_bound(
    run: Run, model: EncoderMixtureDecoder, held_out: Tensor, split: str
) -> dict[str, float]:
    r"""Return the conditional bound of a run on rows of a split, drawn at random.

    Real data stand in the decoder's place by their weights: at a feature point y, as many training
    rows as the model has centres, drawn with

    .. math:: w_n(y) \propto e^{-\|y - y_n\|^2 / (2 v_y)}

    Args:
        run: The run. The kernel variance at its end is used.
        model: Its model.
        held_out: Rows with shape ``(n, d)``, of which ``bound_rows`` are drawn at random.
        split: The name of the split.

    Returns:
        ``rows``, ``log_value``, ``log_limit``, ``gap``, ``tightness`` and ``error``, and the
        tightness of ``real`` data and of the ``mean`` alone.
    """
    config = run.config
    rows = choose_rows(held_out, min(config.bound_rows, len(held_out)), split, config.seed)
    bound = model.bound(
        rows, run.component_variance, generator=stream(config.seed, "evaluation-bound")
    )
    return {
        "rows": len(rows),
        "log_value": float(bound.log_value),
        "log_limit": float(bound.log_limit),
        "gap": float(bound.gap),
        "tightness": float(bound.tightness),
        "error": bound.error,
        **_conditional_floors(run, model, rows, run.dataset),
    }


@torch.no_grad()
def _conditional_floors(
    run: Run, model: EncoderMixtureDecoder, rows: Tensor, dataset: Dataset
) -> dict[str, float]:
    draws = stream(run.config.seed, "evaluation-real-bound")
    variance = run.component_variance
    features, train = model.features_of(rows), dataset.train.to(model.head.variance)
    points = model.perturb(features, draws)
    distances = squared_distances(points, model.features_of(train))
    weights = (-distances / (2 * model.variance_y)).softmax(-1)
    chosen = torch.multinomial(weights, model.eval_centers, replacement=True, generator=draws)
    sides = {"real": train[chosen], "mean": train.mean(0).expand(len(points), 1, -1)}
    return {
        side: _tightness(
            conditional_bound(
                rows.to(features),
                features,
                points,
                GaussianMixture(means, variance),
                variance_p=variance,
                variance_y=model.variance_y,
            )
        )
        for side, means in sides.items()
    }
