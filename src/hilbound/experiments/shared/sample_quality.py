"""How good samples of images are, beside held-out and training rows; shared by experiments.

Three kinds of numbers: the metrics of :mod:`hilbound.evaluation.metrics` in the features of the
small classifier; the log-likelihood under a Parzen window; and how much nearer the samples lie to
training rows than held-out rows do.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from hilbound import datasets
from hilbound.datasets import Dataset
from hilbound.engine.gram import squared_distances
from hilbound.engine.seeding import stream
from hilbound.evaluation.parzen import parzen_log_likelihood
from hilbound.evaluation.quality import METRICS, measure_in_space
from hilbound.evaluation.spaces import MetricSpace, fit_space
from hilbound.experiments.base import Row

#: What tables of samples show: metric, digits.
SHOWN = (
    ("coverage", 3),
    ("recall", 3),
    ("precision", 3),
    ("frechet_distance", 1),
    ("vendi_score", 2),
    ("novelty", 2),
    ("parzen", 0),
)
#: Of what is measured here alone.
TITLES = {"novelty": "Novelty", "parzen": "Parzen, nats"}

# So many rows are as good as all for a median of distances.
_QUERIES = 1000


def title_of(name: str) -> str:
    """Return the title of a metric of samples.

    >>> title_of("novelty"), title_of("coverage")
    ('Novelty', 'Coverage')
    """
    return TITLES.get(name) or METRICS[name].title


@cache
def images(data: str, **options: Any) -> Dataset:
    """Return a data set of images, loaded once in a process."""
    return datasets.load(data, **options)


@cache
def features(data: str, **options: Any) -> MetricSpace:
    """Return where the samples of a data set are compared, fitted once in a process."""
    return fit_space(images(data, **options))


def training_rows(dataset: Dataset, n: int, seed: int) -> Tensor:
    """Return ``n`` training rows, drawn at random: what stands in the place of samples."""
    order = torch.randperm(len(dataset.train), generator=stream(seed, "real rows"))
    return dataset.train[order[:n]]


def sample_quality(
    dataset: Dataset, space: MetricSpace, samples: Tensor, *, held_out: Tensor | None = None
) -> Row:
    """Return how good samples are.

    Args:
        dataset: The data.
        space: Where samples are compared with held-out rows.
        samples: Samples with shape ``(n, d)``; the first are compared with as many held-out rows.
        held_out: The held-out rows, by default those of the test split.
    """
    test = dataset.test if held_out is None else held_out
    n = min(len(test), len(samples))
    found = measure_in_space(test[:n], samples[:n], space)
    return found | {"novelty": novelty(dataset.train, test, samples)}


def parzen_row(dataset: Dataset, samples: Tensor) -> Row:
    """Return the log-likelihood of the test rows under a window that validation rows chose."""
    found = parzen_log_likelihood(samples, dataset.test, dataset.validation)
    return {
        "parzen": found.log_likelihood,
        "parzen_error": found.standard_error,
        "parzen_variance": found.variance,
    }


def novelty(train: Tensor, held_out: Tensor, samples: Tensor) -> float:
    r"""Return how little the samples know of single training rows: 1 nothing, 0 for copies.

    With the median distance :math:`d(A, B)` of rows of A to the nearest of B, it is

    .. math:: \frac{d(\text{samples}, \text{train}) / d(\text{held-out}, \text{train})}
        {d(\text{samples}, \text{held-out}) / d(\text{train}, \text{held-out})},

    as :func:`hilbound.training.failures.memorisation` has it, which warns below 0.7; infinite or
    not a number where rows of one set are copies of the other.

    Args:
        train: Training rows with shape ``(N, d)``, in random order.
        held_out: Held-out rows with shape ``(M, d)``.
        samples: Samples with shape ``(n, d)``.
    """
    few = min(_QUERIES, len(train), len(held_out))
    parts = torch.tensor(
        [
            _distance(samples[:few], train),
            _distance(train[:few], held_out),
            _distance(held_out[:few], train),
            _distance(samples[:few], held_out),
        ]
    )
    # Tensors divide by zero as arithmetic has it.
    return float(parts[0] * parts[1] / (parts[2] * parts[3]))


def _distance(x: Tensor, y: Tensor) -> float:
    return float(squared_distances(x, y).amin(1).sqrt().median())
