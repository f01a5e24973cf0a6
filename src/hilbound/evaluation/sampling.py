"""Draw samples from a trained run."""

from typing import Literal

import torch
from torch import Tensor

from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.training.runs import Run


def draw(
    run: Run,
    n: int,
    *,
    seed: int = 0,
    source: Literal["centers", "density"] = "centers",
    label: int | None = None,
) -> Tensor:
    """Draw samples with shape ``(n, d)`` in the original units of the data.

    Args:
        run: A trained run.
        n: How many.
        seed: Seed of the draw. The same seed gives the same samples.
        source: ``"centers"`` for what the network generates, ``"density"`` for draws from the
            mixture, which adds the noise of the components' variance.
        label: The number of the class or cluster to draw from, for a run with a condition. By
            default one is drawn for each sample, as often as in the training rows.

    Raises:
        InputError: If ``n`` is not positive, ``source`` is unknown, the run has no condition or no
            such class or cluster, or the weights are spoilt.
    """
    if n < 1:
        raise InputError(f"n must be at least 1, got {n}")
    model, generator = run.model, stream(seed, "sample")
    if source == "centers":
        rows = model.sample(n, generator, label)
    elif source == "density":
        with torch.no_grad():
            rows = model.draw(n, generator, label).sample((n,), generator=generator)
    else:
        raise InputError(f"source must be 'centers' or 'density', got {source!r}")
    bad = int((~rows.isfinite()).any(-1).sum())
    if bad:
        raise InputError(
            f"run {str(run.path)!r} draws NaN or infinite values ({bad} of {n} samples): its "
            "weights are spoilt. Fit again with a lower --learning-rate"
        )
    return run.to_user_units(rows)
