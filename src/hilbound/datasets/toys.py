r"""Distributions in the plane whose true density is known.

A bound is best judged against a known density, so every toy draws samples and computes its own log
density. All toys fit roughly into :math:`[-4, 4]^2`. There are three constructions.

*Gaussians.* With centres :math:`m_k`, :math:`k = 1, \dots, K`, and a variance :math:`v`,

.. math:: p(x) = \frac1K \sum_k N(x; m_k, v I).

*A curve with noise.* Take a point :math:`c(t)` with :math:`t` uniform on [0, 1], and add Gaussian
noise. This is a Gaussian mixture with a continuum of centres. Gauss-Legendre nodes :math:`t_j` and
weights :math:`w_j` approximate it by a finite mixture,

.. math:: p(x) = \int_0^1 N(x; c(t), v I)\, dt \approx \sum_j w_j N(x; c(t_j), v I),

which is exact to rounding if the nodes lie closer than the width of the noise. For a circle of
radius :math:`r` the integral is a Bessel function of :math:`\rho = |x|`:

.. math:: p(x) = \frac{1}{2 \pi v} e^{-(\rho^2 + r^2) / 2v}\, I_0(\rho r / v).

*A twist.* Every point is turned by an angle that depends only on its radius. This map preserves
area: its Jacobian determinant is 1. So the density at a point is the original density at the point
turned back.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import log, pi
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hilbound.datasets.base import Dataset
from hilbound.datasets.options import PLAIN, ImageOptions
from hilbound.errors import InputError

TRAIN_ROWS, VALIDATION_ROWS, TEST_ROWS = 10_000, 2_000, 2_000
MOST_ROWS = 10_000_000
QUADRATURE_NODES = 512
CHUNK = 2048

Curve = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Toy(ABC):
    """A distribution in the plane.

    Args:
        name: What users type.
        description: One line on its shape.
    """

    name: str
    description: str

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw points with shape ``(n, 2)``, float64, and the numbers of their modes ``(n,)``."""

    @abstractmethod
    def _log_density(self, x: Tensor) -> Tensor:
        """Return the log density at float64 points with shape ``(n, 2)``."""

    def log_density(self, x: Tensor) -> Tensor:
        """Return the true log density at points with shape ``(n, 2)``, with shape ``(n,)``.

        It is computed in float64, in chunks, and returned in the type of ``x``.

        >>> TOYS["checkerboard"].log_density(torch.tensor([[-3.0, -3.0]])).exp() * 32
        tensor([1.])
        """
        rows = torch.tensor_split(x.double(), max(1, -(-len(x) // CHUNK)))
        return torch.cat([self._log_density(chunk) for chunk in rows]).to(x.dtype)

    def load(
        self,
        *,
        root: str | Path | None,
        seed: int,
        samples: int | None,
        options: ImageOptions = PLAIN,
    ) -> Dataset:
        """Draw the three splits independently. The held-out ones do not depend on ``samples``.

        Raises:
            InputError: If options of images are given, or too many samples are asked for.
        """
        options.allow(self.name)
        generator = torch.Generator().manual_seed(seed)
        test, test_labels = self.sample(TEST_ROWS, generator)
        validation, validation_labels = self.sample(VALIDATION_ROWS, generator)
        if samples is not None and samples > MOST_ROWS:
            raise InputError(
                f"samples={samples}: {self.name!r} draws its rows into memory, at most "
                f"{MOST_ROWS:,} of them: give fewer"
            )
        train, train_labels = self.sample(TRAIN_ROWS if samples is None else samples, generator)
        return Dataset(
            name=self.name,
            train=train.float(),
            validation=validation.float(),
            test=test.float(),
            train_labels=train_labels,
            validation_labels=validation_labels,
            test_labels=test_labels,
            log_density=self.log_density,
        )


def _normal(n: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


def _mixture_log_density(x: Tensor, centres: Tensor, log_weights: Tensor, v: float) -> Tensor:
    # From differences. The expanded square would lose digits to cancellation far from the centres.
    distance = torch.cdist(x, centres, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.logsumexp(log_weights - distance.square() / (2 * v), dim=-1) - log(2 * pi * v)


@dataclass(frozen=True)
class Gaussians(Toy):
    """Equally weighted Gaussians.

    Args:
        centres: Centres of the ``K`` Gaussians, pairs of coordinates.
        variance: Their common variance in each coordinate.
    """

    centres: tuple[tuple[float, float], ...]
    variance: float

    def _means(self) -> Tensor:
        return torch.tensor(self.centres, dtype=torch.float64)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw points and the numbers of their Gaussians."""
        mode = torch.randint(len(self.centres), (n,), generator=generator)
        return self._means()[mode] + self.variance**0.5 * _normal(n, generator), mode

    def _log_density(self, x: Tensor) -> Tensor:
        means = self._means().to(x.device)
        log_weights = x.new_full((len(means),), -log(len(means)))
        return _mixture_log_density(x, means, log_weights, self.variance)


@cache
def _quadrature() -> tuple[Tensor, Tensor]:
    """Gauss-Legendre nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(QUADRATURE_NODES)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


@dataclass(frozen=True)
class NoisyCurves(Toy):
    """Equally weighted curves, blurred by Gaussian noise.

    Args:
        curves: Maps from ``t`` in [0, 1] with shape ``(n,)`` to points with shape ``(n, 2)``.
        variance: Variance of the noise in each coordinate.
    """

    curves: tuple[Curve, ...]
    variance: float

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw points and the numbers of their curves (``None`` if there is only one)."""
        mode = torch.randint(len(self.curves), (n,), generator=generator)
        t = torch.rand(n, generator=generator, dtype=torch.float64)
        points = torch.stack([curve(t) for curve in self.curves])[mode, torch.arange(n)]
        x = points + self.variance**0.5 * _normal(n, generator)
        return x, mode if len(self.curves) > 1 else None

    def _log_density(self, x: Tensor) -> Tensor:
        t, weights = _quadrature()
        centres = torch.cat([curve(t) for curve in self.curves])
        log_weights = (weights / len(self.curves)).log().repeat(len(self.curves))
        return _mixture_log_density(
            x, centres.to(x.device), log_weights.to(x.device), self.variance
        )


@dataclass(frozen=True)
class Circles(Toy):
    """Equally weighted circles around the origin, blurred by Gaussian noise.

    Args:
        radii: Radii of the circles.
        variance: Variance of the noise in each coordinate.
    """

    radii: tuple[float, ...]
    variance: float

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw points and the numbers of their circles."""
        mode = torch.randint(len(self.radii), (n,), generator=generator)
        angle = 2 * pi * torch.rand(n, generator=generator, dtype=torch.float64)
        radius = torch.tensor(self.radii, dtype=torch.float64)[mode]
        points = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
        return points + self.variance**0.5 * _normal(n, generator), mode

    def _log_density(self, x: Tensor) -> Tensor:
        rho, v = torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.variance
        r = torch.tensor(self.radii, dtype=x.dtype, device=x.device)
        # i0e(z) = exp(-z) I0(z) completes the square, so the exponential cannot overflow.
        each = -(rho - r).square() / (2 * v) + torch.special.i0e(rho * r / v).log()
        return torch.logsumexp(each, dim=-1) - log(2 * pi * v * len(self.radii))


@dataclass(frozen=True)
class Pinwheel(Toy):
    """Gaussian arms, twisted around the origin.

    Each arm is a Gaussian around ``(radius, 0)``, elongated along the radius. It is turned to its
    place in the wheel, and then every point x is turned by ``twist * exp(|x| / radius)``.

    Args:
        arms: The number of arms.
        radius: Distance of the arms' centres from the origin.
        radial_variance: Variance along an arm.
        tangential_variance: Variance across an arm.
        twist: Strength of the twist, in radians.

    References:
        After the warped shapes of Johnson, Duvenaud, Wiltschko, Datta and Adams, "Composing
        graphical models with neural networks for structured representations and fast inference",
        2016. Their twist depends on the first coordinate, and the density has no closed form.
    """

    arms: int
    radius: float
    radial_variance: float
    tangential_variance: float
    twist: float

    def _turn(self, x: Tensor, angle: Tensor) -> Tensor:
        a, b, cos, sin = x[..., 0], x[..., 1], angle.cos(), angle.sin()
        return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)

    def _angle(self, x: Tensor, arm: Tensor) -> Tensor:
        place = arm.to(x.dtype) * (2 * pi / self.arms)  # whole numbers would become float32
        rho: Tensor = torch.linalg.vector_norm(x, dim=-1)
        return place + self.twist * (rho / self.radius).exp()

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw points and the numbers of their arms."""
        arm = torch.randint(self.arms, (n,), generator=generator)
        radial, tangential = _normal(n, generator).unbind(-1)
        a = self.radius + self.radial_variance**0.5 * radial
        x = torch.stack([a, self.tangential_variance**0.5 * tangential], dim=-1)
        return self._turn(x, self._angle(x, arm)), arm

    def _log_density(self, x: Tensor) -> Tensor:
        x = x.unsqueeze(-2)
        arm = torch.arange(self.arms, device=x.device)
        a, b = self._turn(x, -self._angle(x, arm)).unbind(-1)
        along = (a - self.radius).square() / self.radial_variance
        across = b.square() / self.tangential_variance
        area = 2 * pi * (self.radial_variance * self.tangential_variance) ** 0.5
        return torch.logsumexp(-(along + across) / 2, dim=-1) - log(self.arms * area)


@dataclass(frozen=True)
class Checkerboard(Toy):
    """Uniform on every other square of a board around the origin. Elsewhere the density is zero.

    Args:
        squares: The number of squares on a side, an even number.
        side: The side of a square.
    """

    squares: int
    side: float

    def _centres(self) -> Tensor:
        place = torch.arange(self.squares)
        column, row = torch.meshgrid(place, place, indexing="ij")
        black = (column + row) % 2 == 0
        corner = torch.stack([column[black], row[black]], dim=-1).double()
        return (corner + 0.5 - self.squares / 2) * self.side

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, None]:
        """Draw points."""
        centres = self._centres()
        square = torch.randint(len(centres), (n,), generator=generator)
        offset = torch.rand(n, 2, generator=generator, dtype=torch.float64) - 0.5
        return centres[square] + self.side * offset, None

    def _log_density(self, x: Tensor) -> Tensor:
        centres = self._centres().to(x.device)
        # Edges belong to the squares, so a sample that is rounded to float32 never falls outside.
        reach = (x.unsqueeze(-2) - centres).abs().amax(dim=-1)
        inside = (reach <= self.side / 2).any(dim=-1)
        uniform = x.new_full((len(x),), -log(len(centres) * self.side**2))
        return uniform.masked_fill(~inside, -torch.inf)


def _upper_moon(t: Tensor) -> Tensor:
    return 2 * torch.stack([(pi * t).cos() - 0.5, (pi * t).sin() - 0.25], dim=-1)


def _lower_moon(t: Tensor) -> Tensor:
    return 2 * torch.stack([0.5 - (pi * t).cos(), 0.25 - (pi * t).sin()], dim=-1)


def _roll(t: Tensor) -> Tensor:
    angle = 1.5 * pi * (1 + 2 * t)
    return angle.unsqueeze(-1) / 4 * torch.stack([angle.cos(), angle.sin()], dim=-1)


def _ring(count: int, radius: float) -> tuple[tuple[float, float], ...]:
    angles = [2 * pi * k / count for k in range(count)]
    return tuple((radius * float(np.cos(angle)), radius * float(np.sin(angle))) for angle in angles)


def _grid(*places: float) -> tuple[tuple[float, float], ...]:
    return tuple((a, b) for a in places for b in places)


TOYS: dict[str, Toy] = {
    toy.name: toy
    for toy in (
        NoisyCurves("moons", "Two interleaved half circles.", (_upper_moon, _lower_moon), 0.04),
        Circles("circles", "Two circles around one centre.", (3.0, 1.5), 0.04),
        Gaussians("eight-gaussians", "Eight Gaussians on a ring.", _ring(8, 3.0), 0.04),
        Gaussians(
            "25-grid", "25 Gaussians on a five by five grid.", _grid(-3, -1.5, 0, 1.5, 3), 0.01
        ),
        NoisyCurves("swiss-roll", "A spiral in the plane.", (_roll,), 0.01),
        Pinwheel("pinwheel", "Five twisted arms.", 5, 2.0, 0.36, 0.04, 0.25),
        Checkerboard("checkerboard", "Uniform on every other square of a board.", 4, 2.0),
    )
}
