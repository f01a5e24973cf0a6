"""Whether samples belong to the class or cluster that they were drawn for."""

from typing import Any

import torch
from torch import Tensor

from hilbound.datasets import Dataset
from hilbound.engine.seeding import stream
from hilbound.evaluation.spaces import MetricSpace
from hilbound.models.base import DensityModel
from hilbound.models.blocks import BlockDensityNetwork
from hilbound.models.classes import ClassConditional

# Samples of each class or cluster that are looked at.
_SAMPLES = 100

#: A model that is told a class or a cluster.
Conditioned = BlockDensityNetwork | ClassConditional


def agreement(
    model: Conditioned, dataset: Dataset, test_labels: Tensor | None, space: MetricSpace, seed: int
) -> dict[str, Any]:
    """Return the share of samples that belong to the class or cluster they were drawn for.

    A classifier says to which class a sample belongs, and the nearest centre says to which cluster.
    As many samples of each are looked at.

    Args:
        model: The model.
        dataset: The data.
        test_labels: Labels of the test rows, or ``None``.
        space: Where the classifier is.
        seed: Seed of the draws.

    Returns:
        ``kind`` is ``"classes"`` or ``"clusters"`` and ``blocks`` is their number. ``agreement``
        has the share of the ``model`` and, for classes, that of the test rows as ``real``. It is
        missing if there is no classifier.
    """
    clusters = model.clusters if isinstance(model, BlockDensityNetwork) else None
    found: dict[str, Any] = {
        "kind": "classes" if clusters is None else "clusters",
        "blocks": model.blocks,
    }
    assign = space.predict if clusters is None else clusters
    if assign is None:
        return found
    drawn = samples_of_each(model, _SAMPLES, seed).to(dataset.train)
    wanted = torch.arange(model.blocks).repeat_interleave(_SAMPLES)
    shares = {"model": float((assign(drawn.flatten(0, 1)) == wanted).double().mean())}
    if clusters is None and test_labels is not None:
        shares["real"] = float((assign(dataset.test) == test_labels).double().mean())
    return found | {"agreement": shares}


def samples_of_each(model: Conditioned, n: int, seed: int, blocks: int | None = None) -> Tensor:
    """Draw ``n`` centres of each class or cluster, with shape ``(C, n, d)``.

    Args:
        model: The model.
        n: How many of each.
        seed: Seed of the draws.
        blocks: Only the first classes or clusters.
    """
    return torch.stack(
        [
            model.sample(n, stream(seed, "samples of each", label), label)
            for label in range(model.blocks if blocks is None else min(blocks, model.blocks))
        ]
    )


def conditioned(model: DensityModel) -> Conditioned | None:
    """Return the model if it is told a class or a cluster, otherwise ``None``."""
    return model if isinstance(model, BlockDensityNetwork | ClassConditional) else None
