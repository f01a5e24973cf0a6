r"""Kernels of squared distances, and what the distances themselves can tell.

A kernel makes a matrix K of the squared distances :math:`D_{ij} = |x_i - y_j|^2` between two sets,
with a scale s in the units of D:

.. math:: e^{-D/(2s)}, \qquad e^{-\sqrt{D/s}}, \qquad (1 + D/s)^{-1/2},

the Gaussian, the Laplace and the inverse multiquadric kernel. All three are 1 at distance zero and
fall to 0; how fast, and how heavy the tail, is what sets them apart. Scales are compared by the
*effective rank* of the data's own Gram matrix, which falls as s grows, so one is found by
bisection.

The distances without a kernel factor by themselves:

.. math:: D = A B^\top, \qquad A_i = \big(|x_i|^2, 1, -2 x_i\big), \quad
    B_j = \big(1, |y_j|^2, y_j\big)

has rank d + 2 at most, and its singular values are the square roots of the eigenvalues of
:math:`(A^\top A)(B^\top B)`. So sets that agree in :math:`A^\top A / N`, that is in

.. math:: E x, \quad E x x^\top, \quad E |x|^2 x, \quad E |x|^4,

are one and the same to every spectral cost of D, however different they look.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hilbound.engine.gram import squared_distances
from hilbound.engine.spectrum.norms import nuclear_norm
from hilbound.engine.spectrum.svd import effective_rank, singular_values
from hilbound.errors import InputError
from hilbound.experiments.base import Row

#: The variance of the Gaussian on sets that fool distances, whose covariance is 1.
_TOY_VARIANCE = 0.5
#: From squared distances with shape ``(N, M)`` and a scale to the kernel.
Kernel = Callable[[Tensor, float], Tensor]


def gaussian(distances: Tensor, scale: float) -> Tensor:
    """Return :math:`e^{-D/(2s)}`; the scale is the variance."""
    return (-0.5 * distances / scale).exp()


def laplace(distances: Tensor, scale: float) -> Tensor:
    r"""Return :math:`e^{-\sqrt{D/s}}`."""
    # At distance zero it has a kink, and zero is among its slopes: that of what is clamped.
    tiny = torch.finfo(distances.dtype).tiny
    return (-(distances / scale).clamp_min(tiny).sqrt()).exp()


def inverse_multiquadric(distances: Tensor, scale: float) -> Tensor:
    """Return :math:`(1 + D/s)^{-1/2}`."""
    return (1 + distances / scale).rsqrt()


KERNELS: dict[str, Kernel] = {
    "gaussian": gaussian,
    "laplace": laplace,
    "inverse multiquadric": inverse_multiquadric,
}
#: What is trained: the kernels, and distances without one.
COSTS = (*KERNELS, "distance")


def cost(name: str, x: Tensor, y: Tensor, scale: float) -> Tensor:
    """Return the loss of one batch: minus a normalised nuclear norm, or plus that of distances.

    Args:
        name: One of :data:`KERNELS`, or ``"distance"``.
        x: Data with shape ``(N, d)``.
        y: Centres with shape ``(M, d)``.
        scale: The kernel's scale; distances have none.

    >>> x = torch.tensor([[0.0], [3.0]])
    >>> cost("gaussian", x, x, 0.1)
    tensor(-1.)
    """
    distances = squared_distances(x, y, 1e-5 * scale)
    root = math.sqrt(distances.numel())
    if name == "distance":
        return nuclear_norm(distances / root)
    return -nuclear_norm(KERNELS[name](distances, scale) / root)


def rank_of(matrix: Tensor) -> float:
    """Return the effective rank of a matrix, from its singular values."""
    return float(effective_rank(singular_values(matrix.double())))


def matched_scale(kernel: Kernel, x: Tensor, rank: float, steps: int = 40) -> float:
    """Return the scale at which the data's own Gram matrix has an effective rank.

    Args:
        kernel: The kernel.
        x: Data with shape ``(n, d)``.
        rank: The effective rank, between 1 and n.
        steps: Bisections of the logarithm of the scale.

    Raises:
        InputError: If the rank is not between 1 and n.

    >>> x = torch.linspace(0, 1, 20).unsqueeze(1)
    >>> scale = matched_scale(laplace, x, 5.0)
    >>> round(rank_of(laplace(squared_distances(x, x), scale)), 4)
    5.0
    """
    if not 1 < rank < len(x):
        raise InputError(f"rank must lie between 1 and {len(x)}, the points, got {rank:g}")
    distances = squared_distances(x.double(), x.double())
    middle = math.log(float(distances.mean()))
    low, high = middle - 30, middle + 30
    for _ in range(steps):
        middle = 0.5 * (low + high)
        if rank_of(kernel(distances, math.exp(middle))) > rank:
            low = middle
        else:
            high = middle
    return math.exp(0.5 * (low + high))


def seen_moments(x: Tensor) -> Tensor:
    r"""Return :math:`A^\top A / N`, all that spectral costs of distances see, ``(d + 2, d + 2)``.

    >>> seen_moments(torch.tensor([[1.0], [-1.0]]))
    tensor([[1., 1., 0.],
            [1., 1., 0.],
            [0., 0., 4.]])
    """
    square = x.square().sum(-1, keepdim=True)
    a = torch.cat([square, torch.ones_like(square), -2 * x], -1)
    return a.mT @ a / len(x)


def look_alikes(n: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Return sets of n points in the plane, all with mean 0 and covariance 1, in float64.

    A ring, the corners of a triangle and of a square, each as often as the others, share all
    moments that distances see; a Gaussian, whitened to have the same covariance exactly, does not.

    Args:
        n: The number of points, a multiple of 12.
        generator: Draws the Gaussian.

    Raises:
        InputError: If the corners cannot be taken equally often.
    """
    if n < 12 or n % 12:
        raise InputError(f"n must be a multiple of 12, so that corners come equally often, got {n}")
    sets = {name: _corners(k, n) for name, k in (("ring", n), ("triangle", 3), ("square", 4))}
    z = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    z -= z.mean(0)
    root = torch.linalg.cholesky(z.mT @ z / n)
    return sets | {"Gaussian": torch.linalg.solve_triangular(root, z.mT, upper=False).mT}


def _corners(k: int, n: int) -> Tensor:
    angle = 2 * math.pi * (torch.arange(n, dtype=torch.float64) % k) / k
    return math.sqrt(2) * torch.stack([angle.cos(), angle.sin()], -1)


def theory(n: int, generator: torch.Generator) -> Row:
    """Return what distances and a Gaussian see of sets with one mean and covariance.

    Args:
        n: Points of a set.
        generator: Draws the Gaussian set, and the points that all sets are compared with.
    """
    sets = look_alikes(n, generator)
    y = torch.randn(n // 2, 2, generator=generator, dtype=torch.float64) + 0.3
    found: Row = {}
    for name, x in sets.items():
        distances = squared_distances(x, y)
        root = distances.numel() ** 0.5
        kernel = gaussian(distances, _TOY_VARIANCE)
        found[name] = {
            "distance": float(nuclear_norm(distances / root)),
            "gaussian": float(nuclear_norm(kernel / root)),
            "rank": int(torch.linalg.matrix_rank(distances)),
            "gaussian_rank": int(torch.linalg.matrix_rank(kernel)),
            "fourth": float(x.square().sum(-1).square().mean()),
            "moments_apart": float((seen_moments(x) - seen_moments(sets["ring"])).abs().max()),
        }
    return found
