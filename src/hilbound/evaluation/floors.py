r"""A run's bound on held-out rows, beside what real data and a single point reach.

A tightness alone says little. To a narrow kernel even real data look unlike other real data, and to
a wide one everything looks alike. So the same bound is computed three times: for the model, for
training rows in the place of its centres, and for one point, the mean of the training rows. A model
that is worth something is near the second and far above the third.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from hilbound.bounds import Bound, conditional_bound
from hilbound.config import RunConfig
from hilbound.engine.seeding import stream
from hilbound.evaluation.quality import percent
from hilbound.evaluation.reconstruction import choose_rows
from hilbound.mixture import GaussianMixture
from hilbound.models.autoencoders import EncoderMixtureDecoder
from hilbound.models.classes import bound_of, real_bound_of, with_encoder
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
# Real rows that may stand in the place of centres: enough to find those with a feature.
_REAL_ROWS = 10_000


@torch.no_grad()
def batch_bound(run: Run, held_out: Tensor) -> dict[str, Any] | None:
    """Return the bound that a run was trained on, on batches of held-out rows.

    Args:
        run: The run. The kernel variance at its end is used.
        held_out: Rows with shape ``(n, d)``.

    Returns:
        ``rows`` of a batch, ``batches``, ``centers``, and the mean ``tightness`` with that of real
        data and of one point; ``None`` if every row has centres of its own.
    """
    model, config = run.model, run.config
    if with_encoder(model) is not None:
        return None
    objective = create_objective(config.objective, **config.objective_options)
    train = run.dataset.train.to(model.head.variance)
    rows = min(config.batch_size, len(held_out), len(train))
    centers = min(_centers(config, objective, rows), len(train))
    reached: dict[str, list[float]] = {"tightness": [], "real_tightness": [], "point_tightness": []}
    batches = held_out[: len(held_out) // rows * rows].to(train).split(rows)[:_BATCHES]
    for i, batch in enumerate(batches):
        draws = stream(config.seed, "evaluation-batch", i)
        real = train[torch.randperm(len(train), generator=draws)[:centers]]
        p = GaussianMixture(batch, run.component_variance)
        sides = {
            "tightness": model.draw(centers, draws),
            "real_tightness": GaussianMixture(real, run.component_variance),
            "point_tightness": GaussianMixture(
                train.mean(0).expand_as(real), run.component_variance
            ),
        }
        for side, q in sides.items():
            reached[side].append(_tightness(objective.bound(p, q, draws)))
    means = {side: sum(values) / len(values) for side, values in reached.items()}
    return {"rows": rows, "batches": len(batches), "centers": centers, **means}


def is_too_wide(bound: Mapping[str, Any]) -> bool:
    """Whether a single point reaches nearly what real data reach, of an entry made here.

    >>> is_too_wide({"real_tightness": 1.0, "point_tightness": 0.99})
    True
    >>> is_too_wide({"real_tightness": 0.9, "point_tightness": 0.1})
    False
    """
    real, point = bound.get("real_tightness"), bound.get("point_tightness")
    # The distance's nuclear norm is best at the mean, whatever the data: it has no kernel.
    return real is not None and point is not None and _BLUR * real < point < real / _BLUR


def floors_text(bound: Mapping[str, Any]) -> str:
    """Return what real rows and one point reach, as the end of a sentence about a bound.

    >>> floors_text({"centers": 3, "real_tightness": 0.5, "point_tightness": 0.1})
    "; 3 real rows in place of the model's centres: 50.0 %, one point: 10.0 %"
    """
    real = bound.get("real_tightness")
    if real is None:
        return ""
    rows = "1 real row" if bound["centers"] == 1 else f"{bound['centers']:,} real rows"
    point = bound.get("point_tightness")
    told = "" if point is None else f", one point: {percent(point)}"
    return f"; {rows} in place of the model's centres: {percent(real)}{told}"


def _centers(config: RunConfig, objective: Objective, rows: int) -> int:
    """Return how many centres the model is measured with."""
    if objective.paired:
        return rows
    return config.eval_centers or config.centers or rows


def _tightness(bound: Bound) -> float:
    # Two numbers at rounding level may part by more than the limit.
    return min(1.0, float(bound.tightness))


@torch.no_grad()
def tracked_bound(
    run: Run,
    held_out: Tensor,
    split: Literal["validation", "test"],
    labels: Tensor | None = None,
) -> dict[str, Any]:
    """Return the conditional bound of a run on rows of a split, drawn at random.

    ``real_tightness`` is what as many real rows reach in the place of the decoder's centres. They
    are drawn from the other rows of the split, together with validation rows for the test split,
    and with training rows for the validation split. It is ``None`` if there are too few of them.
    ``point_tightness`` is what one point reaches, the mean of the training rows. It is ``None`` for
    a model that is told a class.

    Args:
        run: The run. The kernel variance at its end is used.
        held_out: Rows with shape ``(n, d)``, of which ``bound_rows`` are drawn at random.
        split: The name of the split.
        labels: Their classes, for a model that is told them.
    """
    config, model = run.config, run.model
    dataset, n = run.dataset, min(config.bound_rows, len(held_out))
    order = choose_rows(
        torch.arange(len(held_out)).to(held_out.device), len(held_out), split, config.seed
    )
    rows, classes = held_out[order[:n]], None if labels is None else labels[order[:n]]
    further, of_further = dataset.split("validation" if split == "test" else "train")
    others = torch.cat([held_out[order[n:]], further])[:_REAL_ROWS]
    of_others = None
    if labels is not None and of_further is not None:
        of_others = torch.cat([labels[order[n:]], of_further])[:_REAL_ROWS]
    draws = [stream(config.seed, "evaluation-bound") for _ in range(2)]
    variance = run.component_variance
    bound = bound_of(model, rows, variance, draws[0], classes)
    real = real_bound_of(model, rows, others, variance, draws[1], labels=(classes, of_others))
    return {
        "rows": len(rows),
        "centers": inner.eval_centers if (inner := with_encoder(model)) is not None else 1,
        "log_value": float(bound.log_value),
        "log_limit": float(bound.log_limit),
        "gap": float(bound.gap),
        "tightness": float(bound.tightness),
        "error": bound.error,
        "real_tightness": None if real is None else float(real.tightness),
        "point_tightness": _of_one_point(run, rows),
    }


def _of_one_point(run: Run, rows: Tensor) -> float | None:
    """Return the tightness of the mean of the training rows in the place of all centres."""
    model = run.model
    if not isinstance(model, EncoderMixtureDecoder):
        return None
    features = model.features_of(rows)
    points = model.perturb(features, stream(run.config.seed, "evaluation-bound"))
    mean = run.dataset.train.to(features).mean(0).expand(len(points), 1, -1)
    variance = run.component_variance
    bound = conditional_bound(
        rows.to(features),
        features,
        points,
        GaussianMixture(mean, variance),
        variance_p=variance,
        variance_y=model.variance_y,
    )
    return _tightness(bound)
