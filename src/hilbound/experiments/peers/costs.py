"""What the peers minimise: each a function of a batch of data and as many samples."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from hilbound.errors import InputError
from hilbound.functional import negative_log_likelihood
from hilbound.mixture import GaussianMixture
from hilbound.objectives import DebiasedNuclearNorm, NuclearNorm, Objective
from hilbound.variance import of_component

#: A loss of data and samples, with shape ``(n, d)`` each; the generator draws what is random.
Loss = Callable[[Tensor, Tensor, torch.Generator], Tensor]

#: Variances of the kernels of GMMN, as multiples of the middle of their range.
KERNELS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)


def loss_of(method: str, option: float, median: float, dim: int) -> Loss:
    """Return the loss of a method.

    Args:
        method: Its name.
        option: What it may choose (:data:`hilbound.experiments.peers.settings.TOYS`).
        median: The median heuristic of the data, half of the median squared distance.
        dim: Number of coordinates.
    """
    if method in ("nuclear", "debiased"):
        objective = NuclearNorm() if method == "nuclear" else DebiasedNuclearNorm()
        return _of_mixtures(objective, of_component(option * median))
    if method == "sinkhorn":
        return _sinkhorn(option * median**0.5)
    if method == "energy":
        return _energy
    if method == "mmd":
        return _several_kernels([option * share * median for share in KERNELS])
    if method == "sliced":
        return _sliced(int(option))
    if method == "likelihood":
        return _likelihood(option * median / dim)
    raise InputError(f"method must be a generator's, got {method!r}")


def _of_mixtures(objective: Objective, variance: float) -> Loss:
    def loss(x: Tensor, y: Tensor, _: torch.Generator) -> Tensor:
        value: Tensor = objective(GaussianMixture(x, variance), GaussianMixture(y, variance))
        return value

    return loss


def _likelihood(variance: float) -> Loss:
    return lambda x, y, _: negative_log_likelihood(x, GaussianMixture(y, variance))


def _sinkhorn(blur: float) -> Loss:
    try:
        geomloss: Any = import_module("geomloss")
    except ModuleNotFoundError:
        raise InputError(
            "the Sinkhorn divergence needs geomloss, which is not installed: "
            'pip install "hilbound[bench]"'
        ) from None
    divergence = geomloss.SamplesLoss("sinkhorn", p=2, blur=blur, backend="tensorized")
    return lambda x, y, _: divergence(y, x)


def _energy(x: Tensor, y: Tensor, _: torch.Generator) -> Tensor:
    r"""Return :math:`2 E|x - y| - E|y - y'|`; the data's own term has no gradient."""
    return 2 * torch.cdist(x, y).mean() - _off_diagonal(torch.cdist(y, y))


def _several_kernels(variances: list[float]) -> Loss:
    """Return the squared mean discrepancy of a sum of Gaussian kernels, less the data's term.

    References:
        Generative Moment Matching Networks (Li, Swersky and Zemel, 2015).
    """

    def kernel(squared: Tensor) -> Tensor:
        return torch.stack([(-squared / (2 * v)).exp() for v in variances]).sum(0)

    def loss(x: Tensor, y: Tensor, _: torch.Generator) -> Tensor:
        own = _off_diagonal(kernel(torch.cdist(y, y).square()))
        return own - 2 * kernel(torch.cdist(x, y).square()).mean()

    return loss


def _sliced(directions: int) -> Loss:
    """Return the squared sliced Wasserstein distance over directions that are drawn anew.

    References:
        Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015).
    """

    def loss(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        lines = torch.randn(x.shape[-1], directions, generator=generator, dtype=x.dtype)
        lines = lines / lines.norm(dim=0)
        apart: Tensor = (x @ lines).sort(0).values - (y @ lines).sort(0).values
        return apart.square().mean()

    return loss


def _off_diagonal(matrix: Tensor) -> Tensor:
    """Return the mean of the entries off the diagonal of a square matrix."""
    n = len(matrix)
    return (matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))
