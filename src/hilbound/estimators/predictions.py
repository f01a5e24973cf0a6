"""What is read off predicted mixtures: quantiles and samples."""

import numpy as np
import torch

from hilbound.estimators.frames import Floats
from hilbound.evaluation.calibration import row_blocks
from hilbound.mixture import GaussianMixture


def quantiles(q: GaussianMixture, alpha: Floats) -> Floats:
    """Return quantiles of every target by itself, with shape ``(n, len(alpha), d)``.

    Args:
        q: Mixtures with batch shape ``(n,)``.
        alpha: Probabilities with shape ``(a,)``.
    """
    levels = torch.from_numpy(alpha)[:, None]
    result = np.empty((q.batch_shape[0], len(alpha), q.dim))
    for rows, part in row_blocks(q, len(alpha)):
        for i in range(q.dim):
            result[rows, :, i] = part.marginal([i]).icdf(levels).squeeze(-1).T.numpy()
    # Two levels may meet in one float, and rounding must not swap them.
    order = np.argsort(alpha, kind="stable")
    result[:, order] = np.maximum.accumulate(result[:, order], axis=1)
    return result


def draws(q: GaussianMixture, count: int, generator: torch.Generator) -> Floats:
    """Return samples with shape ``(n, count, d)`` of mixtures with batch shape ``(n,)``."""
    parts = [
        part.rsample((count,), generator=generator).movedim(0, 1)
        for _, part in row_blocks(q, count)
    ]
    return torch.cat(parts).numpy()
