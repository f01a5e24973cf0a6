"""What mixtures of Gaussians have in common, whatever their covariances."""

from typing import ClassVar

from torch import Tensor
from torch.distributions import Distribution, constraints

from hilbound.errors import InputError


class Mixture(Distribution):
    """A mixture with K components in d coordinates; a subclass gives them their spread.

    Attributes:
        means: Centres of the components, with shape ``(*batch, K, d)``.
        log_weights: Logarithms of the normalised weights, with shape ``(*batch, K)``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    has_rsample = False
    means: Tensor
    log_weights: Tensor

    @property
    def components(self) -> int:
        """The number of components ``K``."""
        return self.means.shape[-2]

    @property
    def dim(self) -> int:
        """The number of coordinates ``d``."""
        return self.means.shape[-1]

    @property
    def weights(self) -> Tensor:
        """The normalised weights, with shape ``(*batch, K)``."""
        return self.log_weights.exp()

    @property
    def mean(self) -> Tensor:
        """The mean of the mixture, with shape ``(*batch, d)``."""
        return (self.weights.unsqueeze(-1) * self.means).sum(-2)

    def renyi_entropy(self) -> Tensor:
        r"""Return Rényi's quadratic entropy :math:`H_2 = -\log \langle q, q \rangle` in nats.

        References:
            On measures of entropy and information (Rényi, 1961).
        """
        return -self.log_norm()

    def log_norm(self) -> Tensor:
        r"""Return :math:`\log \langle q, q \rangle`, the squared norm, with shape ``(*batch)``."""
        raise NotImplementedError

    def _check_dim(self, name: str, dim: int) -> None:
        if dim != self.dim:
            raise InputError(
                f"{name} has {dim} coordinates, but this mixture has {self.dim}: "
                "both must live in the same space"
            )
