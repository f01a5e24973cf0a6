"""What is measured of samples by class and of reconstructions: means and a number for every class.

Samples of a class are compared with the test images of that class alone, in the features of a
small classifier (:class:`hilbound.evaluation.spaces.ClassifierSpace`). Diversity is the
LPIPS-style distance of :func:`hilbound.evaluation.image_metrics.feature_map_distance` in its
convolutional maps.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from hilbound.datasets import Dataset
from hilbound.evaluation.image_metrics import (
    UnavailableError,
    feature_map_distance,
    true_fid,
    true_lpips,
)
from hilbound.evaluation.metrics import frechet_distance, precision_recall_density_coverage
from hilbound.evaluation.reconstruction import reconstruction_errors
from hilbound.evaluation.spaces import ClassifierSpace
from hilbound.experiments.base import Row

#: Reconstructions of one input.
TIMES = 8

#: From a number of images and a class to images with shape ``(n, d)``.
Draw = Callable[[int, int], Tensor]
#: From inputs, labels and a number to reconstructions with shape ``(B, n, d)``.
Reconstruct = Callable[[Tensor, Tensor, int], Tensor]


class Amounts(Protocol):
    """How much is measured: samples of a class, inputs, and images for published networks."""

    @property
    def samples(self) -> int:
        """Samples of every class."""

    @property
    def inputs(self) -> int:
        """Inputs to reconstruct."""

    @property
    def published_rows(self) -> int:
        """Images that Inception and AlexNet see, of either kind."""


def measure_classes(
    dataset: Dataset,
    classifier: ClassifierSpace,
    amounts: Amounts,
    draw: Draw,
    reconstruct: Reconstruct | None,
) -> tuple[Row, list[Tensor]]:
    """Return what was measured, and the samples of every class.

    Args:
        dataset: Images with labels.
        classifier: Where images are compared.
        amounts: How much is measured.
        draw: Makes samples of a class.
        reconstruct: Makes reconstructions, or ``None`` where there is no model.
    """
    labels = held_out_labels(dataset)
    number = dataset.classes or 1
    samples = [draw(amounts.samples, c) for c in range(number)]
    per_class = [
        class_row(classifier, dataset.test[labels == c], samples[c], c) for c in range(number)
    ]
    row: Row = {name: sum(values[name] for values in per_class) / number for name in per_class[0]}
    row["frechet_by_class"] = [values["frechet"] for values in per_class]
    row |= {
        "classes": number,
        "train_rows": len(dataset.train),
        "test_rows": len(dataset.test),
        "accuracy": float((classifier.predict(dataset.test) == labels).double().mean()),
    }
    if reconstruct is not None:
        x, of_x = dataset.test[: amounts.inputs], labels[: amounts.inputs]
        row |= reconstruction_row(classifier, x, reconstruct(x, of_x, TIMES))
    return row | published_row(dataset, samples, amounts.published_rows), samples


def class_row(
    classifier: ClassifierSpace, real: Tensor, samples: Tensor, label: int
) -> dict[str, float]:
    """Return how samples ``(n, d)`` of a class compare with its real images ``(m, d)``."""
    of_real, of_samples = classifier.transform(real), classifier.transform(samples)
    near = precision_recall_density_coverage(of_real, of_samples)
    half = len(samples) // 2
    return {
        "frechet": frechet_distance(of_real, of_samples),
        "precision": near.precision,
        "coverage": near.coverage,
        "agreement": float((classifier.predict(samples) == label).double().mean()),
        "diversity": distance(classifier, samples[:half], samples[half : 2 * half]),
    }


def reconstruction_row(classifier: ClassifierSpace, x: Tensor, drawn: Tensor) -> Row:
    """Return how near and how different reconstructions ``(B, m, d)`` of inputs ``(B, d)`` are."""
    errors = reconstruction_errors(x, drawn)
    first, second = drawn[:, 0], drawn[:, 1]
    return {
        # The error of a reconstruction at random: of the mean, and half of what two differ by.
        "error": float((x.unsqueeze(1) - drawn).square().mean()),
        "error_of_best": errors["error_of_best"],
        "reconstruction_diversity": distance(classifier, first, second),
        "reconstruction_frechet": frechet_distance(
            classifier.transform(x), classifier.transform(first)
        ),
    }


def distance(classifier: ClassifierSpace, a: Tensor, b: Tensor) -> float:
    """Return the mean distance of pairs of images ``(n, d)`` in the classifier's maps."""
    return float(feature_map_distance(maps(classifier, a), maps(classifier, b)).double().mean())


@torch.no_grad()
def maps(classifier: ClassifierSpace, x: Tensor) -> list[Tensor]:
    """Return the maps behind every convolution and its ReLU, ``(n, channels, height, width)``."""
    found = []
    h = x.float()
    for layer in _layers(classifier.features):
        h = layer(h)
        if isinstance(layer, nn.ReLU) and h.ndim == 4:
            found.append(h)
    return found


def _layers(network: nn.Module) -> Sequence[nn.Module]:
    if not isinstance(network, nn.Sequential):
        return [network]
    return [layer for part in network for layer in _layers(part)]


def published_row(dataset: Dataset, samples: Sequence[Tensor], rows: int) -> Row:
    """Return true FID and LPIPS, or why there are none.

    LPIPS is that of two samples of one class; FID that of all classes together.
    """
    shape = dataset.image_shape or (1, 1, dataset.dim)
    each = max(2, rows // len(samples)) // 2 * 2
    fake = torch.cat([images[:each] for images in samples]).reshape(-1, *shape)
    # Test images lie in random order, not by class.
    real = dataset.test[: len(fake)].reshape(-1, *shape)
    row: Row = {"fid": None, "lpips": None, "unavailable": []}
    for name, metric, a, b in (
        ("fid", true_fid, real, fake),
        ("lpips", true_lpips, fake[::2], fake[1::2]),
    ):
        try:
            row[name] = metric(a, b)
        except UnavailableError as error:
            row["unavailable"].append(str(error))
    return row


def held_out_labels(dataset: Dataset) -> Tensor:
    """Return the labels of the test rows."""
    if dataset.test_labels is None:
        raise TypeError(f"{dataset.name} has no labels")
    return dataset.test_labels
