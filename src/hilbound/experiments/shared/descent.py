"""The plain loop of experiments that train without the library's own: Adam, and a falling rate."""

from collections.abc import Iterator

import torch
from torch import Tensor


def descend(adam: torch.optim.Adam, losses: Iterator[Tensor], steps: int) -> float:
    """Take a step for every loss, at a rate that falls to zero along a cosine of the steps.

    Args:
        adam: The optimiser.
        losses: Yields the loss of a step, computed after the step before.
        steps: Number of losses.

    Returns:
        The last loss, or not a number if there is none.

    >>> x = torch.ones((), requires_grad=True)
    >>> adam = torch.optim.Adam([x], lr=0.5)
    >>> round(descend(adam, (x.square() for _ in range(2)), steps=2), 4)
    0.25
    """
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    loss = torch.tensor(torch.nan)
    for loss in losses:
        adam.zero_grad()
        loss.backward()
        adam.step()
        cosine.step()
    return float(loss.detach())
