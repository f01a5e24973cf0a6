"""What reconstructions are held against: how different, how valid, and whether they fit the input.

A feature leaves open which of the images that share it an input was, so that the reconstructions of
one input *should* differ. Real images drawn from :math:`p(x|y)` itself, that is with the weights
:math:`w_n(y)` of their features, show by how much. They are put in the place of reconstructions and
measured alike; and so are averages of them, which are blurred.

**Lost ones.** Some centres lie where there are no data at all: grey or inverted images. They differ
from everything, and a classifier may still be sure of them, so that they would pass for diversity.
A reconstruction counts as *lost* if its squared distance in pixels to the nearest real image is
larger than that of 99.9 % of other real images. How many there are is measured, and all else is
measured on those that remain.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from hilbound import datasets
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.evaluation import metrics
from hilbound.evaluation.reconstruction import reconstruction_errors, rows_with_features
from hilbound.evaluation.spaces import ClassifierSpace, fit_classifier
from hilbound.experiments.base import Row
from hilbound.experiments.shared.conditional_runs import ConditionalSettings
from hilbound.models.autoencoders import EncoderMixtureDecoder

#: Most images that reconstructions are compared with.
SUPPORT = 5000
#: The probability above which the classifier counts as sure.
SURE = 0.9
#: Share of real images whose distance to the nearest other one is not that of a lost image.
USUAL = 0.999
#: Real images in an average.
AVERAGED = 10
#: Images that are not lost, for anything to be said of them.
FEWEST = 20


@dataclass(frozen=True)
class Yardstick:
    """Held-out images in three parts, and a small classifier in whose features they are compared.

    Args:
        inputs: Images to reconstruct, with shape ``(n, d)``.
        input_classes: Their classes, with shape ``(n,)``.
        real: Images that reconstructions are compared with, with shape ``(N, d)``.
        others: Images that may stand in the place of reconstructions, with shape ``(M, d)``.
        other_classes: Their classes, with shape ``(M,)``.
        classifier: The classifier, trained on all training rows.
    """

    inputs: Tensor
    input_classes: Tensor
    real: Tensor
    others: Tensor
    other_classes: Tensor
    classifier: ClassifierSpace

    @classmethod
    def of(cls, settings: ConditionalSettings) -> Self:
        """Cut the test rows of the settings' data in three.

        Raises:
            InputError: If the data have no classes.
        """
        dataset = datasets.load(settings.data)
        if dataset.test_labels is None:
            raise InputError(f"data {settings.data!r} have no classes: name labelled images")
        classifier = fit_classifier(dataset)
        n = settings.inputs
        support = min(SUPPORT, (len(dataset.test) - n) // 2)
        parts = (n, support, len(dataset.test) - n - support)
        x, real, others = dataset.test.split(parts)
        of_x, _, of_others = dataset.test_labels.split(parts)
        return cls(x, of_x, real, others, of_others, classifier)

    @cached_property
    def support(self) -> Tensor:
        """Features of the real images, with shape ``(N, f)``."""
        return self.classifier.transform(self.real)

    @cached_property
    def farthest(self) -> float:
        """The squared distance from the nearest real image beyond which an image is lost."""
        return float(torch.quantile(self.from_nearest(self.others), USUAL))

    def from_nearest(self, x: Tensor) -> Tensor:
        """Return squared distances in pixels ``(n,)`` of images from their nearest real one."""
        return torch.cdist(x, self.real).amin(1).square()

    def measure(self, model: EncoderMixtureDecoder, several: Tensor) -> Row:
        """Return how different images in the place of reconstructions are, and how valid.

        Args:
            model: The model, whose features say which images an input shares them with.
            several: What stands for the inputs, with shape ``(n, m, d)``.

        Returns:
            ``lost``, the share of images that are no images of this kind at all; of the others, how
            different they are: ``distance``, the mean squared distance between two that stand for
            one input; ``kinds``, the mean number of classes among m.

            Of how valid: ``nearest``, the mean distance to the nearest real image in the features;
            ``sure``, the share that the classifier gives a class more than 0.9; ``density``, how
            many neighbourhoods of real images one lies in, relative to what is due; ``precision``,
            the share that lies in any.

            Of whether they fit the input: ``best``, the squared error per pixel of the best of m;
            ``own_class``, the share with the input's class; ``agreement``, that of their classes
            with those of the images that share the input's feature (:func:`agreement`).

            Without enough images that are not lost, all but two are ``None``.
        """
        best = reconstruction_errors(self.inputs, several)["error_of_best"]
        kept = (self.from_nearest(several.flatten(0, 1)) <= self.farthest).view(several.shape[:2])
        found = {"lost": 1 - float(kept.double().mean()), "best": best}
        if int(kept.sum()) < FEWEST:
            return dict.fromkeys(MEASURES) | found
        return found | self._of_kept(model, several, kept)

    def _of_kept(self, model: EncoderMixtureDecoder, several: Tensor, kept: Tensor) -> Row:
        points = self.classifier.transform(several[kept])
        shares = self.class_probabilities(several.flatten(0, 1))
        classes = shares.argmax(-1).view(several.shape[:2])
        own = classes == self.input_classes.unsqueeze(1)
        marks = one_hot(classes, shares.shape[-1]) * kept.unsqueeze(-1)
        neighbourhoods = metrics.precision_recall_density_coverage(self.support, points)
        return {
            "distance": mean_distance(several, kept),
            "kinds": float(marks.amax(1).sum(-1)[kept.any(1)].mean()),
            "nearest": float(torch.cdist(points, self.support).amin(1).mean()),
            "sure": float((shares.amax(-1)[kept.flatten()] > SURE).double().mean()),
            "density": neighbourhoods.density,
            "precision": neighbourhoods.precision,
            "own_class": float(own[kept].double().mean()),
            "agreement": agreement(marks, self.class_shares(model, shares.shape[-1])),
        }

    @torch.no_grad()
    def class_probabilities(self, x: Tensor) -> Tensor:
        """Return the classifier's probabilities ``(n, C)`` for images with shape ``(n, d)``."""
        logits: Tensor = self.classifier(x.float())
        return logits.softmax(-1)

    def class_shares(self, model: EncoderMixtureDecoder, count: int) -> Tensor:
        r"""Return the shares of the classes given the inputs' features, with shape ``(n, C)``.

        .. math:: P(c \mid y) = \sum_{n: c_n = c} w_n(y)
        """
        weights = model.feature_weights(self.inputs, self.others).double()
        return weights @ one_hot(self.other_classes, count)

    def real_in_place(self, model: EncoderMixtureDecoder, m: int) -> Tensor:
        """Draw m real images with the features of each input, with shape ``(n, m, d)``."""
        return rows_with_features(model, self.inputs, self.others, m, stream(0, "real-in-place"))

    def averages_in_place(self, model: EncoderMixtureDecoder, m: int) -> Tensor:
        """Average ``AVERAGED`` real images with the features of each input, m times.

        They are blurred, and no valid images: a measure of validity has to say so.
        """
        several = self.real_in_place(model, m * AVERAGED)
        averages: Tensor = several.unflatten(1, (m, AVERAGED)).mean(2)
        return averages


def one_hot(classes: Tensor, count: int) -> Tensor:
    """Return ones at class numbers, with one more axis of ``count`` entries, in float64."""
    ones: Tensor = torch.nn.functional.one_hot(classes, count)
    return ones.double()


def mean_distance(several: Tensor, kept: Tensor) -> float:
    """Return the mean squared distance between two images of one input that are both kept.

    Args:
        several: Images with shape ``(n, m, d)``.
        kept: Which of them count, with shape ``(n, m)``.

    >>> images = torch.tensor([[[0.0], [2.0], [9.0]]])
    >>> mean_distance(images, torch.tensor([[True, True, False]]))
    4.0
    """
    distances = torch.cdist(several.double(), several.double()).square()
    pairs = (kept.unsqueeze(2) & kept.unsqueeze(1)).double()
    pairs = pairs - torch.diag_embed(pairs.diagonal(dim1=1, dim2=2))
    return float((distances * pairs).sum() / pairs.sum().clamp_min(1))


def agreement(marks: Tensor, shares: Tensor) -> float:
    r"""Return how far the classes of m reconstructions occur as often as they should.

    .. math:: 1 - \tfrac12 \sum_c \big| \tfrac1m \#\{i: c_i = c\} - P(c \mid y) \big|

    It is 1 where they do exactly. Even m draws from P itself stay below, because m is finite.

    Args:
        marks: Ones at the classes of m reconstructions, with shape ``(n, m, C)``; where one does
            not count, zeros, and inputs of which none counts are left out.
        shares: :math:`P(c \mid y)` with shape ``(n, C)``.

    >>> marks = one_hot(torch.tensor([[0, 1], [0, 0]]), 2)
    >>> agreement(marks, torch.tensor([[0.5, 0.5], [0.5, 0.5]]))
    0.75
    """
    counts = marks.sum(1)
    some = counts.sum(-1) > 0
    found = counts[some] / counts[some].sum(-1, keepdim=True)
    return 1 - float(0.5 * (found - shares[some]).abs().sum(-1).mean())


@dataclass(frozen=True)
class Measure:
    """How a measure of reconstructions is called, and which way is better.

    Args:
        title: The heading of its column.
        digits: Decimals.
        better: 1 where more is better, -1 where less is.
    """

    title: str
    digits: int
    better: int


#: What :meth:`Yardstick.measure` returns, in the order of tables.
MEASURES = {
    "lost": Measure("lost", 3, -1),
    "distance": Measure("distance² of two", 1, 1),
    "kinds": Measure("classes among them", 2, 1),
    "nearest": Measure("nearest real image", 2, -1),
    "sure": Measure("classifier is sure", 2, 1),
    "density": Measure("density", 2, 1),
    "precision": Measure("precision", 2, 1),
    "best": Measure("best one's error per pixel", 4, -1),
    "own_class": Measure("input's class", 2, 1),
    "agreement": Measure("agreement of classes", 2, 1),
}
MEASURES_EXPLAINED = """
*Lost* is the share of reconstructions that are no digits at all, such as grey or inverted images.
In pixels they are farther from every real image than 99.9 % of other real images are. All other
measures are of the reconstructions that are not lost.

- *Distance²* is the mean squared distance between two reconstructions of one image.
- *Classes among them* is the mean number of classes that a small classifier sees in them.
- *Nearest real image* is the mean distance to it in the classifier's features.
- The classifier *is sure* where it gives one class more than 0.9.
- *Density* counts in how many neighbourhoods of real images a reconstruction lies. Real images
  reach 1. *Precision* is the share of reconstructions that lie in any.
- *Best one's error* is the squared error per pixel of the reconstruction that is nearest to its
  input.
- *Input's class* is the share of reconstructions that have the class of their input.
- *Agreement of classes* is 1 minus a total variation: that between the classes of the
  reconstructions and the classes of the images that share the input's feature.
"""
