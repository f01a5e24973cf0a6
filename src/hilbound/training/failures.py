r"""What went wrong, in words: five signatures of a run that fails, each with its likely cause.

Everything is read from two Gram matrices of the training's own kernel, the data's and the model's,

.. math:: K_{ij} = \exp\!\big(-|x_i - x_j|^2 / (2v)\big), \qquad
    r = \exp\Big(-\sum_i \pi_i \log \pi_i\Big), \quad \pi = \text{eigenvalues of } K / n,

and from distances to nearest neighbours. The effective rank r counts the points that the kernel
tells apart, between 1 and n:

- **variance too large**, r near 1: everything overlaps, and a blur matches the data;
- **variance too small**, r near n: K is the identity, a centre feels no point of a batch but one
  that it meets by chance, and the gradient vanishes between batches;
- **collapse**: the model's r is far below the data's;
- **memorisation**: samples are nearer to training rows than held-out rows are;
- **far from data**: samples are farther from every row than rows are from each other.

The functions judge rows, whoever made them; :class:`hilbound.training.diagnosis.Diagnosis` asks
them while a run trains.

References:
    The effective rank: a measure of effective dimensionality (Roy and Vetterli, 2007).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hilbound.engine.gram import squared_distances
from hilbound.engine.spectrum.svd import effective_rank, singular_values

#: Fewer rows say nothing about a Gram matrix.
GRAM_ROWS = 16

_TOO_LARGE = 1.5
_TOO_SMALL = 0.9
_COLLAPSED = 0.1
_COPIED = 0.7
_SCORE = 5.0
# So many rows are as good as all for a median of distances.
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
    r"""Return how many of the points a kernel tells apart, between 1 and n.

    The effective rank of :math:`\exp(-|x_i - x_j|^2 / (2v))`, in float64.

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
    """Say so if the data look like a single point to the kernel.

    The limit is an effective rank of 1.5, fewer than two points. The exact nuclear norm bears much:
    on moons and digits its samples are nearly as good at a rank of 2 as at their best, and lose a
    tenth to a quarter of their precision where the rank falls from 1.4 to 1.1.

    Args:
        x: Rows of the data with shape ``(n, d)``; of fewer than 16 nothing is said.
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
        f"data are as diverse as {rank:.2f}, and a blur would match them: lower --variance",
        {"variance": variance, "rows": len(x), "data_rank": rank},
    )


def variance_too_small(x: Tensor, variance: float) -> Finding | None:
    """Say so if the data's Gram matrix is nearly the identity.

    The limit is an effective rank of 90 % of n. On moons and digits all trainings above it failed,
    with coverage below 2/3 and recall down to nothing, by the nuclear norm and by the scalar cost;
    at 75 % some still succeed. The likelihood, which weighs rows by what is nearest, is content
    with a Gram matrix that is the identity: do not ask of it.

    Args:
        x: As many rows of the data as a batch has, with shape ``(n, d)``; more rows are closer to
            one another. Of fewer than 16 nothing is said.
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
        f"data are as diverse as {rank:.1f}, so that a centre hardly feels any of them and the "
        "gradient vanishes between batches: raise --variance, or --batch-size",
        {"variance": variance, "rows": len(x), "data_rank": rank},
    )


def collapse(
    x: Tensor, samples: Tensor, variance: float, objective: str | None = None
) -> Finding | None:
    r"""Say so if the model's centres are far less diverse than the data.

    Both effective ranks are of equally many rows. One point has rank 1, so what is compared is

    .. math:: \frac{r_\text{model} - 1}{r_\text{data} - 1} < 0.1.

    In trainings that succeed on moons and digits the share lies between 0.36 and 1.1, in one that
    ended far too early at 0.17, and in those that collapse below 0.02.

    Where the data themselves look like one point, or there are fewer than 16 rows, nothing is said.

    Args:
        x: Rows of the data with shape ``(n, d)``.
        samples: Centres of the model with shape ``(m, d)``.
        variance: Variance of the kernel between a point and a centre.
        objective: Name of the objective, if it may be the cause.

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
        f"the model has collapsed: {n} centres are as diverse as {model:.2f}, and {n} rows of the "
        f"data as {data:.1f}. {_cause(objective)}",
        {"variance": variance, "rows": n, "data_rank": data, "model_rank": model},
    )


def _cause(objective: str | None) -> str:
    """Return the likely cause of a collapse, and its remedy, in a sentence."""
    if objective == "distance":
        return (
            "Squared distances see little more than second moments, and are smallest where all "
            "centres meet in the mean: take --objective nuclear"
        )
    if objective == "likelihood":
        return (
            "A component that is as wide as the data explains all rows from one place: lower "
            "--variance, and if that is small already, lower --learning-rate"
        )
    if objective == "trace":
        return (
            "The objective 'trace' pairs every centre with a row at random, so that the mean "
            "serves all of them best: take --objective nuclear, which needs no pairing"
        )
    return (
        "Many centres share few places and leave them only slowly: lower --learning-rate, raise "
        "--variance so that distant rows are felt, or take --objective schatten or debiased, "
        "which favour diversity"
    )


def memorisation(train: Tensor, held_out: Tensor, samples: Tensor) -> Finding | None:
    r"""Say so if samples are nearer to training rows than held-out rows are.

    With the median distance :math:`d(A, B)` of rows of A to the nearest of B, it asks for

    .. math:: \frac{d(\text{samples}, \text{train}) / d(\text{held-out}, \text{train})}
        {d(\text{samples}, \text{held-out}) / d(\text{train}, \text{held-out})} < 0.7,

    which is 1 where samples are like held-out rows and 0 where they are training rows. The
    denominator keeps a blur from being taken for a copy: in many dimensions the middle of the data
    is nearer to every row than rows are to each other, but to held-out rows as much as to training
    rows. Healthy, blurred and collapsed models of all moons and digits lay between 0.78 and 4,
    models of 20 to 32 digits below 0.7.

    Such medians are noisy where rows are few or have heavy tails, so it asks for more than that: a
    permutation test. Let :math:`c_j` be the number of samples that are nearest to row j of all N
    training and M held-out rows. A model that has not memorised does not know which are which, so
    the labels can be exchanged, and :math:`T = \sum_{j \in \text{train}} c_j` has

    .. math:: E\,T = \frac{N}{N + M} \sum_j c_j, \qquad
        \operatorname{Var} T = \frac{N M}{(N + M)(N + M - 1)} \sum_j (c_j - \bar c)^2,

    wherever the samples lie. T must exceed its mean by five standard deviations: a chance below
    :math:`e^{-25/2} = 4 \cdot 10^{-6}`. Ties go to the held-out rows, of which there are never more
    than training rows, lest one row that is nearest to all samples decide. The test cannot reach
    five with fewer than 26 rows in all, nor where N is above a 25th of the number of samples times
    M: then nothing is said.

    Args:
        train: Training rows with shape ``(n, d)``, all or a random part of them.
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
        f"the model has memorised training rows: its samples are {near:.2f} times as far from the "
        f"nearest of them as held-out rows are, but {far:.2f} times as far from held-out rows as "
        "training rows are: raise --variance, give more training rows, or stop early with "
        "--patience",
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
    """Return by how many standard deviations the first ``n`` of ``n + m`` rows are preferred."""
    counts = torch.bincount(row, minlength=n + m).double()
    mean = counts.mean()
    variance = n * m / ((n + m) * (n + m - 1)) * (counts - mean).square().sum()
    # Where every row is preferred alike there is nothing to tell.
    return float((counts[:n].sum() - n * mean) / variance.sqrt()) if variance > 0 else 0.0


def _nearest(x: Tensor, y: Tensor) -> float:
    """Return the median distance of rows of ``x`` to the nearest row of ``y``."""
    return _median_root(squared_distances(x[:_MEDIAN_ROWS], y, torch.inf).amin(-1))


def _median_root(squares: Tensor) -> float:
    # Copies among the data have distance zero: of those nothing can be nearer.
    return max(float(squares.median().sqrt()), torch.finfo(squares.dtype).tiny)
