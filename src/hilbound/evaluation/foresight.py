"""How long an evaluation will take, foreseen from a share of its rows before anything is trained.

Two things take the time. The distances of all pairs of rows: their number grows with the square of
the rows. And the classifier in whose features images are compared, if none is kept from earlier.
"""

import time
from collections.abc import Callable

from torch import Tensor

from hilbound.bounds import marginal_bound
from hilbound.datasets import Dataset
from hilbound.evaluation import metrics
from hilbound.evaluation.quality import measure_in_space
from hilbound.evaluation.spaces import MetricSpace, WhitenedPCA, probe_classifier
from hilbound.mixture import GaussianMixture

#: Rows that are compared at the most, unless another number is asked for.
MOST_SAMPLES = 10_000
_PROBED = 1000


def foresee_seconds(dataset: Dataset, seed: int = 0) -> float:
    """Return about how many seconds :func:`~hilbound.evaluate` will take on this machine.

    Args:
        dataset: The data.
        seed: The seed of the run.

    >>> from hilbound import datasets
    >>> foresee_seconds(datasets.load("checkerboard", samples=100))
    0.0
    """
    n = min(MOST_SAMPLES, len(dataset.test), len(dataset.train))
    seconds = probe_classifier(dataset, seed)
    if n <= _PROBED:
        return seconds
    test, train = dataset.test[:_PROBED], dataset.train[:_PROBED]
    once = _seconds(lambda: _of_pairs(test, train))
    # Once for samples and once for real data.
    return seconds + 2 * once * (n / _PROBED) ** 2


def _of_pairs(x: Tensor, y: Tensor) -> None:
    """Do what an evaluation does with all pairs of rows."""
    pca = WhitenedPCA.fit(y)
    measure_in_space(x, y, MetricSpace(pca.transform, pca.description))
    metrics.squared_mmd(x, y, 1.0)
    marginal_bound(GaussianMixture(x, 0.5), GaussianMixture(y, 0.5))


def _seconds(work: Callable[[], None]) -> float:
    work()  # the first time, libraries are loaded
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
