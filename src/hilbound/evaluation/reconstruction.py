r"""Features and reconstructions of inputs, for models with an encoder.

A reconstruction is a centre of :math:`q(x \mid y)` at the features of an input. One input can have
several different reconstructions. Let :math:`r_1, \dots, r_m` be those of an input :math:`x`, and
:math:`\bar r` their mean. The mean squared error splits into the error of :math:`\bar r` and the
differences between reconstructions,

.. math:: \frac1m \sum_i \|x - r_i\|^2
    = \|x - \bar r\|^2 + \frac{m - 1}{2m} \cdot \frac{1}{m(m-1)} \sum_{i \ne j} \|r_i - r_j\|^2 .

Diversity raises the left side, but it is not a fault. Real rows that share a feature differ, too
(:func:`rows_with_features`). Reconstructions should differ as much as these rows do.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.models.autoencoders import FeatureModel
from hilbound.models.classes import telling, with_encoder
from hilbound.training.runs import Run

SPLITS = ("test", "validation", "train")

SplitName = Literal["test", "validation", "train"]


@dataclass(frozen=True)
class Reconstructions:
    """Inputs with their features and reconstructions, in the original units of the data.

    Args:
        x: The inputs with shape ``(n, d)``.
        features: Their features without noise, with shape ``(n, F)``.
        reconstructions: Their reconstructions with shape ``(n, m, d)``.
        image_shape: ``(channels, height, width)`` if rows are images.
        columns: Names of the ``d`` columns of a table.
    """

    x: Tensor
    features: Tensor
    reconstructions: Tensor
    image_shape: tuple[int, int, int] | None = None
    columns: tuple[str, ...] | None = None

    def arrays(self) -> dict[str, Tensor]:
        """Return the three tensors by name. Images are returned in their image shape."""
        n, m, _ = self.reconstructions.shape
        shape = self.image_shape or self.x.shape[1:]
        return {
            "x": self.x.reshape(n, *shape),
            "features": self.features,
            "reconstructions": self.reconstructions.reshape(n, m, *shape),
        }


def feature_model(run: Run) -> FeatureModel:
    """Load the model of a run that has an encoder.

    Raises:
        InputError: If the run's model has no encoder, or the run is damaged.
    """
    model = with_encoder(run.model)
    if model is None:
        raise InputError(
            f"run {str(run.path)!r} is of a {run.config.model}, which has no encoder and cannot "
            "reconstruct: fit a run with --model encoder-mixture-decoder"
        )
    return model


def reconstruct(
    run: Run,
    n: int = 8,
    m: int = 10,
    *,
    split: SplitName = "test",
    seed: int = 0,
) -> Reconstructions:
    """Reconstruct some rows of a run's data, each several times.

    Args:
        run: A trained run of a model with an encoder.
        n: How many inputs, drawn at random.
        m: How many reconstructions of each.
        split: The rows that inputs are drawn from.
        seed: Seed of the draws. The same seed gives the same inputs and reconstructions.

    Raises:
        InputError: If the run's model has no encoder, ``n`` or ``m`` is below 1, the split is
            unknown or has fewer than ``n`` rows, or the run is damaged.
    """
    for name, number in (("n", n), ("m", m)):
        if number < 1:
            raise InputError(f"{name} must be at least 1, got {number}")
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    model = feature_model(run)
    dataset = run.dataset
    every, every_label = dataset.split(split)
    x = choose_rows(every, n, split, seed)
    labels = None if every_label is None else choose_rows(every_label, n, split, seed)
    rows = x.to(model.head.variance)
    with torch.no_grad():
        features = model.encode(rows)
    with telling(run.model, labels):
        drawn = model.reconstruct(rows, m, stream(seed, "reconstructions"))
    return Reconstructions(
        dataset.to_user_units(x),
        features,
        run.to_user_units(drawn.flatten(0, 1)).unflatten(0, (n, m)),
        dataset.image_shape,
        dataset.columns,
    )


def choose_rows(rows: Tensor, n: int, split: str, seed: int) -> Tensor:
    """Return ``n`` rows with shape ``(n, d)``, drawn at random, or their labels ``(n,)``.

    Raises:
        InputError: If there are fewer than ``n`` rows.
    """
    if n > len(rows):
        raise InputError(f"the {split} split has {len(rows)} rows, got n={n}: ask for fewer")
    order = torch.randperm(len(rows), generator=stream(seed, "reconstructed", split))
    return rows[order[:n]]


@torch.no_grad()
def rows_with_features(
    model: FeatureModel,
    x: Tensor,
    rows: Tensor,
    m: int,
    generator: torch.Generator,
    *,
    same: Tensor | None = None,
) -> Tensor:
    r"""Draw real rows that share the features of inputs, to compare with reconstructions.

    Row n is drawn with the weight that it has in :math:`p(x \mid y)`,

    .. math:: w_n(y) \propto e^{-\|y - y_n\|^2 / (2 v_y)}

    Args:
        model: A model whose features have noise.
        x: Inputs with shape ``(B, d)``, whose features are y.
        rows: Real rows with shape ``(N, d)``, whose features are :math:`y_n`.
        m: How many rows to draw for every input.
        generator: Draws them.
        same: Which rows are of the input's class, with shape ``(B, N)``. Only they are drawn.

    Returns:
        Rows with shape ``(B, m, d)``.

    Raises:
        InputError: If the model's features have no noise.
    """
    weights = model.feature_weights(x, rows)
    if same is not None:
        # An input whose class has no row near it takes what is there.
        own = weights * same.to(weights)
        weights = torch.where(own.sum(-1, keepdim=True) > 0, own, weights)
    return rows[torch.multinomial(weights, m, replacement=True, generator=generator)]


def reconstruction_errors(x: Tensor, reconstructions: Tensor) -> dict[str, float]:
    """Return squared errors and distances, each a mean over inputs and coordinates.

    Args:
        x: Inputs with shape ``(n, d)``.
        reconstructions: Their reconstructions with shape ``(n, m, d)``.

    Returns:
        ``error_of_mean`` is the error of the mean reconstruction, ``error_of_best`` that of the
        nearest one, and ``pairwise_distance`` the squared distance between two reconstructions of
        one input.

    >>> r = torch.tensor([[[0.0], [2.0]]])
    >>> reconstruction_errors(torch.tensor([[2.0]]), r)
    {'error_of_mean': 1.0, 'error_of_best': 0.0, 'pairwise_distance': 4.0}
    """
    x, r = x.double(), reconstructions.double()
    # The mean over all pairs of different reconstructions is twice the unbiased variance.
    pairwise = 2 * float(r.var(1).mean()) if r.shape[1] > 1 else 0.0
    return {
        "error_of_mean": float((x - r.mean(1)).square().mean()),
        "error_of_best": float((x.unsqueeze(1) - r).square().mean(-1).amin(1).mean()),
        "pairwise_distance": pairwise,
    }
