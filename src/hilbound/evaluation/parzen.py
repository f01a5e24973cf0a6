r"""Log-likelihood of held-out points under a Parzen window around generated samples.

The density of the model may be unknown. Samples :math:`s_1, \dots, s_M` are drawn from it, and each
becomes a Gaussian with the same variance :math:`h`. Held-out points are scored under this mixture,

.. math:: \frac1N \sum_i \log \frac1M \sum_j N(x_i - s_j; h).

The variance :math:`h` of the window is fitted to validation points by expectation maximisation.
With the responsibilities :math:`r_{ij} \propto \exp(-|x_i - s_j|^2 / (2h))`, each iteration sets

.. math:: h \leftarrow \frac1{N d} \sum_{ij} r_{ij} |x_i - s_j|^2,

which never lowers the likelihood. This metric rewards smooth samples near the data. On MNIST it is
higher for reconstructions than for real digits. So read it together with coverage and recall.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from hilbound.arguments import require_rows
from hilbound.engine.gram import squared_distances
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture

_ITERATIONS = 500
_CHANGE = 1e-5


class Parzen(NamedTuple):
    """A log-likelihood under a Parzen window.

    Args:
        log_likelihood: The mean over the held-out points, in nats.
        standard_error: The standard error of that mean.
        variance: The variance of the window, in squared units of the data.
    """

    log_likelihood: float
    standard_error: float
    variance: float


def fit_window(samples: Tensor, validation: Tensor, rows: int = 2000) -> float:
    """Return the variance of the window that maximises the likelihood of validation points.

    Args:
        samples: Generated points with shape ``(M, d)``.
        validation: Points with shape ``(n, d)``.
        rows: Only the first ``rows`` validation points are used.

    Raises:
        InputError: If there are no points, or they are not finite or do not fit together; if
            ``rows`` is not a whole number above zero; or if every validation point is a sample,
            because the best variance would be zero.

    >>> round(fit_window(torch.zeros(1, 2), torch.tensor([[1.0, 0.0], [0.0, 2.0]])), 6)
    1.25
    """
    if not isinstance(rows, int) or rows < 1:
        raise InputError(
            f"rows must be a whole number of 1 or more, the number of validation points to use; "
            f"got {rows!r}"
        )
    _require_points("samples", samples, samples)
    _require_points("validation", validation, samples)
    distances = squared_distances(validation[:rows], samples).double()
    dim = samples.shape[-1]
    variance = float(distances.amin(1).mean()) / dim
    if variance == 0:
        raise InputError(
            "every validation point is a sample, so the best variance of the window is zero: give "
            "validation points that the samples were not copied from"
        )
    for _ in range(_ITERATIONS):
        shares = (distances / (-2 * variance)).softmax(1)
        before, variance = variance, float((shares * distances).sum(1).mean()) / dim
        if abs(variance - before) <= _CHANGE * before:
            break
    return variance


def parzen_log_likelihood(samples: Tensor, test: Tensor, validation: Tensor) -> Parzen:
    """Return the log-likelihood of test points under a window fitted to validation points.

    Args:
        samples: Generated points with shape ``(M, d)``.
        test: Held-out points with shape ``(N, d)``.
        validation: Further held-out points with shape ``(n, d)``.

    Raises:
        InputError: If there are no points, they are not finite or do not fit together, or every
            validation point is a sample.

    References:
        Quickly Generating Representative Samples from an RBM-Derived Process (Breuleux, Bengio and
        Vincent, 2011); A Note on the Evaluation of Generative Models (Theis, van den Oord and
        Bethge, 2016), on the limits of this metric.

    >>> x = torch.tensor([[-1.0], [1.0]])
    >>> round(parzen_log_likelihood(torch.zeros(1, 1), x, x).log_likelihood, 4)
    -1.4189
    """
    _require_points("samples", samples, samples)
    _require_points("test", test, samples)
    variance = fit_window(samples, validation)
    with torch.no_grad():
        values = GaussianMixture(samples, variance).log_prob(test).double()
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return Parzen(float(values.mean()), error, variance)


def _require_points(name: str, points: Tensor, samples: Tensor) -> None:
    """Raise an InputError unless the points are finite rows of the same width as the samples."""
    require_rows(name, points)
    if points.shape[1] != samples.shape[1]:
        raise InputError(
            f"{name} must have as many columns as samples, {samples.shape[1]}; got "
            f"{points.shape[1]}: all are points of one space"
        )
