r"""What went wrong, in words: five signatures of a run that fails, each with its likely cause.

They are read from distances to nearest neighbours and from two Gram matrices, one of the data and
one of the model. Both use the kernel of the training,

.. math:: K_{ij} = \exp\!\big(-|x_i - x_j|^2 / (2v)\big), \qquad
    r = \exp\Big(-\sum_i \pi_i \log \pi_i\Big), \quad \pi = \text{eigenvalues of } K / n.

The effective rank r lies between 1 and n. It counts the points that the kernel can distinguish.

- **variance too large**, r near 1: everything overlaps, and a blur matches the data;
- **variance too small**, r near n: K is the identity, a centre feels no point of a batch but one
  that it meets by chance, and the gradient vanishes between batches;
- **collapse**: the model's r is far below the data's;
- **memorisation**: samples are nearer to training rows than held-out rows are;
- **far from data**: samples are farther from every row than rows are from each other.

The functions take rows of any origin. :class:`hilbound.training.diagnosis.Diagnosis` calls them
while a run trains.

References:
    The effective rank: a measure of effective dimensionality (Roy and Vetterli, 2007).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hilbound.engine.gram import squared_distances
from hilbound.engine.spectrum.svd import effective_rank, singular_values

#: A Gram matrix of fewer rows is not judged.
GRAM_ROWS = 16

_TOO_LARGE = 1.5
_TOO_SMALL = 0.9
_COLLAPSED = 0.1
_COPIED = 0.7
_SCORE = 5.0
# A median of distances over this many rows is as good as one over all rows.
_MEDIAN_ROWS = 512
# Among so many the nearest row is looked for.
_FAR_ROWS = 4096


@dataclass(frozen=True)
class Finding:
    """A failure that a run shows.

    Args:
        name: Which: ``"variance-too-large"``, ``"variance-too-small"``, ``"collapse"``,
            ``"memorisation"`` or ``"far-from-data"``.
        message: What was seen, why that is likely, and what helps.
        figures: The numbers that it was seen in.
    """

    name: str
    message: str
    figures: Mapping[str, float]


def kernel_rank(x: Tensor, variance: float) -> float:
    r"""Return how many of the points a kernel can distinguish, between 1 and n.

    It is the effective rank of :math:`\exp(-|x_i - x_j|^2 / (2v))`, computed in float64.

    Args:
        x: Points with shape ``(n, d)``.
        variance: The variance v of the kernel between two points.

    >>> x = torch.tensor([[0.0], [0.0], [99.0], [99.0]])
    >>> round(kernel_rank(x, 1.0), 6), round(kernel_rank(x, 1e9), 3)
    (2.0, 1.0)
    """
    x = x.detach().cpu().double()
    gram = (squared_distances(x, x) / (-2 * variance)).exp()
    return float(effective_rank(singular_values(gram)))


def variance_too_large(x: Tensor, variance: float) -> Finding | None:
    """Return a finding if the data look like a single point to the kernel.

    The threshold is an effective rank of 1.5, which is fewer than two points. The exact nuclear
    norm tolerates a large variance. On moons and digits its samples at rank 2 are nearly as good
    as at the best rank. They lose a tenth to a quarter of their precision as the rank falls from
    1.4 to 1.1.

    Args:
        x: Rows of the data with shape ``(n, d)``. Fewer than 16 rows give no finding.
        variance: Variance of the kernel between a point and a centre.

    >>> x = torch.linspace(0, 1, 20).unsqueeze(-1)
    >>> variance_too_large(x, 100.0).name, variance_too_large(x, 0.01)
    ('variance-too-large', None)
    """
    if len(x) < GRAM_ROWS:
        return None
    rank = kernel_rank(x, variance)
    if rank >= _TOO_LARGE:
        return None
    return Finding(
        "variance-too-large",
        f"the variance is too large: to a kernel of variance {variance:.3g}, {len(x)} rows of the "
        f"data look like {rank:.2f} points, so a blur would match them: lower --variance",
        {"variance": variance, "rows": len(x), "data_rank": rank},
    )


def variance_too_small(x: Tensor, variance: float) -> Finding | None:
    """Return a finding if the data's Gram matrix is nearly the identity.

    The threshold is an effective rank of 90 % of n. On moons and digits all trainings above it
    failed, with the nuclear norm and with the scalar cost: coverage was below 2/3, and recall fell
    as low as zero. At 75 % some trainings still succeed.

    Do not use this test for the likelihood. It weights rows relative to the nearest one, so it
    trains well even if the Gram matrix is the identity.

    Args:
        x: Rows of the data with shape ``(n, d)``. Pass as many as a batch has, because more rows
            lie closer together. Fewer than 16 rows give no finding.
        variance: Variance of the kernel between a point and a centre.

    >>> x = torch.linspace(0, 1, 20).unsqueeze(-1)
    >>> variance_too_small(x, 1e-6).name, variance_too_small(x, 0.01)
    ('variance-too-small', None)
    """
    if len(x) < GRAM_ROWS:
        return None
    rank = kernel_rank(x, variance)
    if rank <= _TOO_SMALL * len(x):
        return None
    return Finding(
        "variance-too-small",
        f"the variance is too small: to a kernel of variance {variance:.3g}, {len(x)} rows of the "
        f"data look like {rank:.1f} points, so a centre overlaps with hardly any row and the "
        "gradient is nearly zero: raise --variance, or --batch-size",
        {"variance": variance, "rows": len(x), "data_rank": rank},
    )


def collapse(
    x: Tensor, samples: Tensor, variance: float, objective: str | None = None
) -> Finding | None:
    r"""Return a finding if the model's centres are far less diverse than the data.

    Both effective ranks are computed on the same number of rows. A single point has rank 1, so the
    condition is

    .. math:: \frac{r_\text{model} - 1}{r_\text{data} - 1} < 0.1.

    On moons and digits, the ratio lies between 0.36 and 1.1 in trainings that succeed. It was 0.17
    in one that ended far too early, and it is below 0.02 in those that collapse.

    There is no finding if the data themselves look like one point, or with fewer than 16 rows.

    Args:
        x: Rows of the data with shape ``(n, d)``.
        samples: Centres of the model with shape ``(m, d)``.
        variance: Variance of the kernel between a point and a centre.
        objective: Name of the objective if it may be the cause, else ``None``.

    >>> x = torch.linspace(0, 1, 20).unsqueeze(-1)
    >>> collapse(x, x.mean() + 0.01 * x, 0.01).name, collapse(x, 1 - x, 0.01)
    ('collapse', None)
    """
    n = min(len(x), len(samples))
    if n < GRAM_ROWS:
        return None
    data, model = kernel_rank(x[:n], variance), kernel_rank(samples[:n], variance)
    if data < _TOO_LARGE or model - 1 >= _COLLAPSED * (data - 1):
        return None
    return Finding(
        "collapse",
        f"the model has collapsed: to the kernel, {n} centres look like {model:.2f} points, and "
        f"{n} rows of the data like {data:.1f}. {_cause(objective)}",
        {"variance": variance, "rows": n, "data_rank": data, "model_rank": model},
    )


def _cause(objective: str | None) -> str:
    """Return a sentence with the likely cause of a collapse and its remedy."""
    if objective == "distance":
        return (
            "Squared distances depend on little more than second moments, and are smallest if all "
            "centres lie at the mean: take --objective nuclear"
        )
    if objective == "likelihood":
        return (
            "A component as wide as the data explains all rows from one place: lower --variance, "
            "and if it is small already, lower --learning-rate"
        )
    if objective == "trace":
        return (
            "The objective 'trace' pairs every centre with a random row, so the mean of the data "
            "is the best place for every centre: take --objective nuclear, which needs no pairing"
        )
    return (
        "Many centres share a few places and leave them only slowly: lower --learning-rate, raise "
        "--variance so that distant rows attract them, or take --objective schatten or debiased, "
        "which favour diversity"
    )


def memorisation(train: Tensor, held_out: Tensor, samples: Tensor) -> Finding | None:
    r"""Return a finding if samples are nearer to training rows than held-out rows are.

    Let :math:`d(A, B)` be the median distance from a row of A to the nearest row of B. The first
    condition is

    .. math:: \frac{d(\text{samples}, \text{train}) / d(\text{held-out}, \text{train})}
        {d(\text{samples}, \text{held-out}) / d(\text{train}, \text{held-out})} < 0.7.

    The ratio is 1 if samples are like held-out rows, and 0 if they are training rows. The
    denominator keeps a blur from looking like a copy. In many dimensions the middle of the data is
    nearer to every row than rows are to each other. But it is as near to held-out rows as to
    training rows. Healthy, blurred and collapsed models of all moons and digits had ratios between
    0.78 and 4. Models of 20 to 32 digits were below 0.7.

    These medians are noisy if rows are few or have heavy tails. So the second condition is a
    permutation test. Take all N training and M held-out rows together, and let :math:`c_j` be the
    number of samples whose nearest row is row j. A model that has not memorised cannot know which
    rows are training rows, so the labels can be exchanged. Then
    :math:`T = \sum_{j \in \text{train}} c_j` has

    .. math:: E\,T = \frac{N}{N + M} \sum_j c_j, \qquad
        \operatorname{Var} T = \frac{N M}{(N + M)(N + M - 1)} \sum_j (c_j - \bar c)^2,

    wherever the samples lie. T must exceed its mean by five standard deviations, which has a
    probability below :math:`e^{-25/2} = 4 \cdot 10^{-6}`.

    At most as many held-out rows as training rows are used, and ties go to the held-out rows. So
    the test cannot be decided by one row that is nearest to all samples. It cannot reach five
    standard deviations with fewer than 26 rows in all, or if N is above k M / 25 for k samples.
    In both cases there is no finding.

    Args:
        train: Training rows with shape ``(n, d)``: all of them, or a random subset.
        held_out: Held-out rows with shape ``(m, d)``.
        samples: Centres of the model with shape ``(k, d)``.

    References:
        A Non-Parametric Test to Detect Data-Copying in Generative Models (Meehan, Chaudhuri and
        Dasgupta, 2020).

    >>> draws = torch.Generator().manual_seed(0)
    >>> train, held_out, fresh = torch.randn(3, 200, 4, generator=draws)
    >>> memorisation(train, held_out, train + 0.01 * fresh).name
    'memorisation'
    >>> memorisation(train, held_out, fresh)
    """
    held_out, samples = held_out[: len(train)].to(train), samples.detach().to(train)
    if not len(held_out) or not len(samples):
        return None
    to_train, nearest = squared_distances(samples, train, torch.inf).min(-1)
    to_held_out, other = squared_distances(samples, held_out, torch.inf).min(-1)
    row = torch.where(to_train < to_held_out, nearest, len(train) + other)
    score = _exchange_score(row, len(train), len(held_out))
    if score < _SCORE:
        return None
    near = _median_root(to_train) / _nearest(held_out, train)
    far = _median_root(to_held_out) / _nearest(train, held_out)
    if not near < _COPIED * far:
        return None
    return Finding(
        "memorisation",
        f"the model has memorised training rows: its samples lie {near:.2f} times as far from the "
        f"nearest training row as held-out rows do, but {far:.2f} times as far from the nearest "
        "held-out row as training rows do: raise --variance, give more training rows, or stop "
        "early with --patience",
        {"to_train": near, "to_held_out": far, "score": score},
    )


def far_from_data(train: Tensor, samples: Tensor) -> Finding | None:
    """Say so if most samples are far from all data: what was trained is of no use.

    The median distance of a sample to the nearest row is held against the median distance of two
    rows. A blur and a collapse stay below it: the mean of the data is nearer to its rows than they
    are to each other.

    Args:
        train: Training rows with shape ``(n, d)``, all or a random part of them.
        samples: Finite centres of the model with shape ``(k, d)``.

    >>> x = torch.linspace(0, 1, 20).unsqueeze(-1)
    >>> far_from_data(x, x + 100).name, far_from_data(x, x.mean() + 0 * x)
    ('far-from-data', None)
    """
    train, samples = train[:_FAR_ROWS].double(), samples.detach()[:_MEDIAN_ROWS].to(train).double()
    if len(train) < GRAM_ROWS or not len(samples):
        return None
    few = train[:_MEDIAN_ROWS]
    pairs = squared_distances(few, few, torch.inf)
    # A row is no neighbour of itself.
    spread = _median_root(pairs[~torch.eye(len(few), dtype=torch.bool)])
    distance = _median_root(squared_distances(samples, train, torch.inf).amin(-1))
    if distance <= spread:
        return None
    return Finding(
        "far-from-data",
        f"the samples are far from all data: half of them are {distance:.3g} or more from the "
        f"nearest training row, and two rows are {spread:.3g} from each other. The weights are of "
        "no use, whatever a single number says: lower --learning-rate, or raise --variance",
        {"distance": distance, "spread": spread},
    )


def _exchange_score(row: Tensor, n: int, m: int) -> float:
    """Return by how many standard deviations samples prefer the first ``n`` of ``n + m`` rows."""
    counts = torch.bincount(row, minlength=n + m).double()
    mean = counts.mean()
    variance = n * m / ((n + m) * (n + m - 1)) * (counts - mean).square().sum()
    # If all rows have the same count, there is no preference.
    return float((counts[:n].sum() - n * mean) / variance.sqrt()) if variance > 0 else 0.0


def _nearest(x: Tensor, y: Tensor) -> float:
    """Return the median distance of rows of ``x`` to the nearest row of ``y``."""
    return _median_root(squared_distances(x[:_MEDIAN_ROWS], y, torch.inf).amin(-1))


def _median_root(squares: Tensor) -> float:
    # Duplicate rows have distance zero. The smallest positive number keeps ratios defined.
    return max(float(squares.median().sqrt()), torch.finfo(squares.dtype).tiny)
