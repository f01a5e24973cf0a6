r"""How close two sets of points are, measured from their rows alone.

Every function here takes rows with shape ``(n, d)``, usually features from
:mod:`hilbound.evaluation.spaces`, and returns plain Python numbers. No metric knows how the points
were made. So all models are judged alike, whatever their objective, and so are samples of others.

There are three kinds of metrics.

*Balls*: around every point lies a ball that reaches its ``k``-th nearest neighbour. Precision,
recall, density and coverage count the points of one set in the balls of the other.

*Spectra*: let :math:`X = QR` be the centred rows, divided by :math:`\sqrt{n - 1}`. Then the
covariance is :math:`S = R^\top R`, and the cross term of the Fréchet distance is a nuclear norm,

.. math:: \operatorname{tr}\,(S_1^{1/2} S_2 S_1^{1/2})^{1/2} = \|R_1 R_2^\top\|_*,

This needs no matrix root and no inverse, so singular covariances are harmless.

*Transport on a line*: in one dimension the optimal plan pairs equal quantiles. Projections on
random directions reduce any dimension to one.

Metrics that count neighbours compute distances from differences of coordinates, never from
:math:`\|x\|^2 - 2 x \cdot y + \|y\|^2`. So equal rows have distance exactly zero, and ties are
decided alike in every block.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hilbound.arguments import require_rows
from hilbound.engine.gram import squared_distances
from hilbound.errors import InputError

_BLOCK_ELEMENTS = 2**22  # distances in memory at a time: 32 MiB in float64


@dataclass(frozen=True)
class PRDC:
    """Fidelity and diversity of generated points, with two measures of each.

    Args:
        precision: Share of the fake points inside the real balls, in [0, 1].
        recall: Share of the real points inside the fake balls, in [0, 1].
        density: Mean number of real balls around a fake point, divided by ``k``; may exceed 1.
        coverage: Share of the real points whose ball holds a fake point, in [0, 1].
    """

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class ClassCoverage:
    """Which classes a set of samples reaches, and how evenly.

    Args:
        hit: Number of classes with at least one sample.
        entropy: Entropy of the class shares divided by the log of the number of classes; 1 is even.
    """

    hit: int
    entropy: float


def _check_pair(
    names: tuple[str, str], x: Tensor, y: Tensor, minimum: int
) -> tuple[Tensor, Tensor]:
    """Check two sets of rows, and return them in their common dtype."""
    for name, rows in zip(names, (x, y), strict=True):
        require_rows(name, rows, minimum)
    if x.shape[1] != y.shape[1]:
        raise InputError(
            f"{names[1]} has {y.shape[1]} columns but {names[0]} has {x.shape[1]}: "
            "both must live in the same space"
        )
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.detach().to(dtype), y.detach().to(dtype)


def _distance_blocks(x: Tensor, y: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the distances of a block of rows of ``x`` to ``y``, with the block's first row."""
    rows = max(1, _BLOCK_ELEMENTS // len(y))
    for start in range(0, len(x), rows):
        block = x[start : start + rows]
        yield start, torch.cdist(block, y, compute_mode="donot_use_mm_for_euclid_dist")


def _neighbour_radii(x: Tensor, k: int) -> Tensor:
    """Return the distance of every row to its ``k``-th nearest other row, with shape ``(n,)``."""
    radii = []
    for start, distances in _distance_blocks(x, x):
        distances.diagonal(offset=start).fill_(torch.inf)  # a point is not its own neighbour
        radii.append(distances.topk(k, dim=1, largest=False).values[:, -1])
    return torch.cat(radii)


def precision_recall_density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> PRDC:
    r"""Precision, recall, density and coverage of generated points.

    Let :math:`B_k(x_i)` be the open ball around :math:`x_i` that reaches its ``k``-th nearest
    neighbour among the other points of its own set. Then

    .. math::
        \text{precision} = \tfrac1m \sum_j 1[y_j \in \cup_i B_k(x_i)], \quad
        \text{recall} = \tfrac1n \sum_i 1[x_i \in \cup_j B_k(y_j)], \\
        \text{density} = \tfrac1{km} \sum_{ij} 1[y_j \in B_k(x_i)], \quad
        \text{coverage} = \tfrac1n \sum_i 1[\exists j: y_j \in B_k(x_i)].

    A point with ``k`` or more exact duplicates has radius zero. Its ball is then the point itself
    rather than empty. Otherwise this is the definition of the authors' ``prdc`` package. Distances
    are computed in blocks, so memory does not grow with ``n m``.

    Args:
        real: Points of the data with shape ``(n, d)``.
        fake: Points of the model with shape ``(m, d)``.
        k: The number of the neighbour that sets the radius. Both sets need more than ``k`` rows.

    Raises:
        InputError: If a set is not a finite matrix, has ``k`` rows or fewer, or the widths differ.

    References:
        Improved Precision and Recall Metric for Assessing Generative Models, Kynkäänniemi,
        Karras, Laine, Lehtinen and Aila, 2019.
        Reliable Fidelity and Diversity Metrics for Generative Models, Naeem, Oh, Uh, Choi and
        Yoo, 2020.

    >>> x = torch.arange(12.0).reshape(6, 2)
    >>> precision_recall_density_coverage(x, x + 0.1, k=2)
    PRDC(precision=1.0, recall=1.0, density=1.0833333333333333, coverage=1.0)
    """
    if k < 1:
        raise InputError(f"k is {k}: the number of neighbours must be 1 or more")
    real, fake = _check_pair(("real", "fake"), real, fake, k + 1)
    real_radii, fake_radii = _neighbour_radii(real, k), _neighbour_radii(fake, k)
    balls_around_fake = torch.zeros(len(fake), dtype=torch.int64, device=fake.device)
    recalled = covered = 0
    for start, distances in _distance_blocks(real, fake):
        same = distances == 0
        in_real = (distances < real_radii[start : start + len(distances), None]) | same
        in_fake = (distances < fake_radii) | same
        balls_around_fake += in_real.sum(dim=0)
        covered += int(in_real.any(dim=1).sum())
        recalled += int(in_fake.any(dim=1).sum())
    return PRDC(
        precision=int((balls_around_fake > 0).sum()) / len(fake),
        recall=recalled / len(real),
        density=int(balls_around_fake.sum()) / (k * len(fake)),
        coverage=covered / len(real),
    )


def _mean_and_factor(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and an ``R`` with ``R.T @ R`` the unbiased covariance, both in float64."""
    x = x.double()
    mean = x.mean(dim=0)
    factor = torch.linalg.qr(x - mean, mode="r").R
    return mean, factor / math.sqrt(len(x) - 1)


def frechet_distance(real: Tensor, fake: Tensor) -> float:
    r"""Squared Fréchet distance between the Gaussians fitted to two sets of points.

    .. math::
        \|\mu_1 - \mu_2\|^2 + \operatorname{tr}(S_1) + \operatorname{tr}(S_2)
        - 2 \operatorname{tr}\,(S_1^{1/2} S_2 S_1^{1/2})^{1/2},

    with the unbiased covariances :math:`S`. The last trace is computed in float64 as the nuclear
    norm :math:`\|R_1 R_2^\top\|_*` of the factors :math:`S = R^\top R`. A result that rounding
    makes negative becomes zero. On Inception features this distance is known as the FID.

    Args:
        real: Points with shape ``(n, d)``, at least two.
        fake: Points with shape ``(m, d)``, at least two.

    Raises:
        InputError: If a set is not a finite matrix of two rows or more, or the widths differ.

    References:
        GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium, Heusel,
        Ramsauer, Unterthiner, Nessler and Hochreiter, 2017.

    >>> x = torch.tensor([[-1.0], [1.0]])
    >>> round(frechet_distance(x, 2 * x + 3), 12)  # (mean difference)^2 + (2 - 1)^2 * 2
    11.0
    """
    real, fake = _check_pair(("real", "fake"), real, fake, 2)
    mean_real, factor_real = _mean_and_factor(real)
    mean_fake, factor_fake = _mean_and_factor(fake)
    cross = torch.linalg.svdvals(factor_real @ factor_fake.T).sum()
    distance = (
        (mean_real - mean_fake).square().sum()
        + factor_real.square().sum()
        + factor_fake.square().sum()
        - 2 * cross
    )
    return max(0.0, float(distance))


def _cosine_spectrum(x: Tensor) -> Tensor:
    """Return the eigenvalues of the cosine kernel matrix over ``n``.

    They come from the smaller of the two Gram matrices of the rows and of the columns.
    """
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    if bool((norms == 0).any()):
        raise InputError("x has rows of zeros, which have no cosine: remove them or give a kernel")
    unit = x / norms
    gram = unit @ unit.T if len(x) <= x.shape[1] else unit.T @ unit
    spectrum: Tensor = torch.linalg.eigvalsh(gram / len(x))
    return spectrum


def _kernel_spectrum(x: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the eigenvalues of a normalised kernel matrix over ``n``."""
    gram = kernel(x, x).detach().double()
    if gram.shape != (len(x), len(x)):
        raise InputError(
            f"kernel returned shape {tuple(gram.shape)} for {len(x)} rows: it must be (n, n)"
        )
    one = torch.ones(len(x), dtype=gram.dtype, device=gram.device)
    if not torch.allclose(gram.diagonal(), one) or not torch.allclose(gram, gram.T):
        raise InputError("kernel must be symmetric with kernel(x, x) = 1 on the diagonal")
    spectrum: Tensor = torch.linalg.eigvalsh(gram / len(x))
    return spectrum


def vendi_score(x: Tensor, kernel: Callable[[Tensor, Tensor], Tensor] | None = None) -> float:
    r"""Effective number of different points: exponential of the entropy of a kernel's spectrum.

    .. math:: \exp\Big(-\sum_i \lambda_i \log \lambda_i\Big), \qquad
              \lambda = \text{eigenvalues of } K / n, \quad K_{ii} = 1.

    It lies between 1 (all points alike) and ``n`` (all points orthogonal). The cosine kernel has
    rank ``d`` at most, so its spectrum comes from the smaller of the ``(n, n)`` and ``(d, d)``
    matrices.

    Args:
        x: Points with shape ``(n, d)``, at least two.
        kernel: Maps two sets of rows to their kernel matrix, with ones on its diagonal; ``None``
            is the cosine of the angle between rows.

    Raises:
        InputError: If ``x`` is not a finite matrix, a row is zero under the cosine kernel, or the
            kernel's matrix is not symmetric with ones on the diagonal.

    References:
        The Vendi Score: A Diversity Evaluation Metric for Machine Learning, Friedman and Dieng,
        2022.

    >>> round(vendi_score(torch.eye(3).repeat(5, 1)), 6)
    3.0
    """
    require_rows("x", x, least=2)
    x = x.detach().double()
    spectrum = _cosine_spectrum(x) if kernel is None else _kernel_spectrum(x, kernel)
    return float(torch.special.entr(spectrum.clamp(min=0)).sum().exp())


def sliced_wasserstein(
    x: Tensor, y: Tensor, projections: int = 128, *, generator: torch.Generator
) -> float:
    r"""Sliced Wasserstein distance of order 2 between two sets of points.

    .. math:: \Big(\frac1L \sum_{l=1}^{L} \int_0^1
              \big(F^{-1}_{x \cdot \theta_l}(t) - F^{-1}_{y \cdot \theta_l}(t)\big)^2
              \,dt\Big)^{1/2}

    over directions :math:`\theta_l` drawn uniformly from the sphere. The quantile functions are
    step functions with steps of width ``1 / n`` and ``1 / m``. The integral is the exact sum over
    their common steps, so the sizes may differ.

    Args:
        x: Points with shape ``(n, d)``, at least two.
        y: Points with shape ``(m, d)``, at least two.
        projections: Number ``L`` of directions.
        generator: Draws the directions. The same state gives the same distance.

    Returns:
        The distance, not its square.

    Raises:
        InputError: If a set is not a finite matrix, the widths differ, or there is no projection.

    References:
        Sliced and Radon Wasserstein Barycenters of Measures, Bonneel, Rabin, Peyré and Pfister,
        2015.

    >>> x = torch.tensor([[0.0], [1.0], [5.0]])
    >>> round(sliced_wasserstein(x, x + 2, generator=torch.Generator()), 6)
    2.0
    """
    x, y = _check_pair(("x", "y"), x, y, 2)
    if projections < 1:
        raise InputError(f"projections is {projections}: at least 1 direction is needed")
    directions = torch.randn(
        x.shape[1], projections, generator=generator, dtype=torch.float64, device=generator.device
    ).to(x.device)
    directions = directions / torch.linalg.vector_norm(directions, dim=0)
    n, m = len(x), len(y)
    # Steps end at i/n and j/m. In units of 1/(nm) these are whole numbers, so they are exact.
    steps = (torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n)
    ends: Tensor = torch.cat(steps).to(x.device).sort().values
    widths = torch.diff(ends, prepend=ends.new_zeros(1)).double() / (n * m)
    quantiles_x = (x.double() @ directions).sort(dim=0).values[(ends - 1) // m]
    quantiles_y = (y.double() @ directions).sort(dim=0).values[(ends - 1) // n]
    cost = widths @ (quantiles_x - quantiles_y).square()
    return float(cost.mean().sqrt())


def _kernel_sum(x: Tensor, y: Tensor, variance: float) -> float:
    """Return the sum of the Gaussian kernel over all pairs, computed in blocks."""
    blocks = x.split(max(1, _BLOCK_ELEMENTS // len(y)))
    # The kernel divides squared distances by the variance, so the tolerance scales with it.
    harmless = 1e-5 * variance
    kernels = (squared_distances(rows, y, harmless).div_(-2 * variance).exp_() for rows in blocks)
    return sum(float(kernel.sum(dtype=torch.float64)) for kernel in kernels)


def squared_mmd(x: Tensor, y: Tensor, variance: float) -> float:
    r"""Unbiased estimate of the squared maximum mean discrepancy with a Gaussian kernel.

    With :math:`k(a, b) = \exp(-\|a - b\|^2 / (2\,\text{variance}))`,

    .. math::
        \frac{1}{n(n-1)} \sum_{i \ne j} k(x_i, x_j) + \frac{1}{m(m-1)} \sum_{i \ne j} k(y_i, y_j)
        - \frac{2}{nm} \sum_{ij} k(x_i, y_j).

    Its expectation is the squared discrepancy. For two sets from one distribution it therefore
    scatters around zero, and is negative about half the time.

    Args:
        x: Points with shape ``(n, d)``, at least two.
        y: Points with shape ``(m, d)``, at least two.
        variance: Variance of the Gaussian kernel, in squared units of the points.

    Returns:
        The estimate of the squared discrepancy, which may be negative.

    Raises:
        InputError: If a set is not a finite matrix, the widths differ, or the variance is not
            positive and finite.

    References:
        A Kernel Two-Sample Test, Gretton, Borgwardt, Rasch, Schölkopf and Smola, 2012.

    >>> x = torch.zeros(3, 2)
    >>> squared_mmd(x, x + 100, variance=1.0)
    2.0
    """
    x, y = _check_pair(("x", "y"), x, y, 2)
    if not 0 < variance < math.inf:
        raise InputError(f"variance is {variance}: it must be positive and finite")
    x, y = x.double(), y.double()
    n, m = len(x), len(y)
    # The kernel of a set with itself has a diagonal of exactly n ones.
    within_x = (_kernel_sum(x, x, variance) - n) / (n * (n - 1))
    within_y = (_kernel_sum(y, y, variance) - m) / (m * (m - 1))
    return within_x + within_y - 2 * _kernel_sum(x, y, variance) / (n * m)


def class_histogram(predictions: Tensor, classes: int) -> ClassCoverage:
    r"""How many classes a set of samples hits, and how evenly.

    .. math:: \text{entropy} = -\frac{1}{\log C} \sum_{c=1}^{C} p_c \log p_c

    Args:
        predictions: Class numbers of the samples with shape ``(n,)``, integers from 0.
        classes: Number ``C`` of all classes, at least two.

    Raises:
        InputError: If the predictions are not class numbers below ``classes``.

    >>> class_histogram(torch.tensor([0, 1, 1, 0]), classes=4)
    ClassCoverage(hit=2, entropy=0.5)
    """
    if classes < 2:
        raise InputError(f"classes is {classes}: a histogram needs at least 2")
    if predictions.ndim != 1 or predictions.is_floating_point() or len(predictions) == 0:
        raise InputError(
            f"predictions has shape {tuple(predictions.shape)} and dtype {predictions.dtype}: "
            "it must be a non-empty vector of integers"
        )
    low, high = int(predictions.min()), int(predictions.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"predictions runs from {low} to {high}: class numbers lie between 0 and {classes - 1}"
        )
    counts = torch.bincount(predictions, minlength=classes).double()
    entropy = torch.special.entr(counts / counts.sum()).sum() / math.log(classes)
    return ClassCoverage(hit=int((counts > 0).sum()), entropy=float(entropy))
