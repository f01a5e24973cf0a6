"""Draw samples from a trained run."""

from typing import Literal

import torch
from torch import Tensor

from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.training.runs import Run


def draw(
    run: Run, n: int, *, seed: int = 0, source: Literal["centers", "density"] = "centers"
) -> Tensor:
    """Draw samples with shape ``(n, d)`` in the original units of the data.

    Args:
        run: A trained run.
        n: How many.
        seed: Seed of the draw. The same seed gives the same samples.
        source: ``"centers"`` for what the network generates, ``"density"`` for draws from the
            mixture, which adds the noise of the components' variance.

    Raises:
        InputError: If ``n`` is not positive or ``source`` is unknown.
    """
    if n < 1:
        raise InputError(f"n must be at least 1, got {n}")
    model, generator = run.model, stream(seed, "sample")
    if source == "centers":
        rows = model.sample(n, generator)
    elif source == "density":
        with torch.no_grad():
            rows = model.draw(n, generator).sample((n,), generator=generator)
    else:
        raise InputError(f"source must be 'centers' or 'density', got {source!r}")
    return run.to_user_units(rows)
