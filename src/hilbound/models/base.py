r"""Base classes of all models: a model is compared with data, and it draws Gaussian mixtures.

Some models make one mixture from noise (:mod:`hilbound.models.density`). Others make a mixture for
every input, from its features (:mod:`hilbound.models.autoencoders`). Training, sampling and reports
treat them alike: they call :meth:`DensityModel.compare` and :meth:`DensityModel.draw`.

The last part of every model is a :class:`MixtureNetwork`. It maps inputs to centres,

.. math:: q(x) = \sum_{k=1}^K b_k N(x - m_k; v_k), \qquad m_k = g(u_k),

Weights and variances are fixed, or small heads compute them from the same inputs.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hilbound.arguments import require_whole
from hilbound.engine.gather import team
from hilbound.engine.seeding import Source, normal
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.models.networks import MLP

# The argument at which softplus is 1.
_SOFTPLUS_ONE = math.log(math.e - 1)


class MixturePart(GaussianMixture):
    """Some components of a mixture that several workers make, with learned weights.

    Args:
        means: As in :class:`~hilbound.GaussianMixture`.
        variance: As there.
        weights: As there. The weights of a part sum to one.
        log_mass: Logarithm of what the weights were divided by, with shape ``(*batch)``. It is
            needed to put the parts together.
    """

    def __init__(
        self, means: Tensor, variance: Tensor, weights: Tensor | None, *, log_mass: Tensor
    ) -> None:
        super().__init__(means, variance, weights)
        self.log_mass = log_mass


class MixtureNetwork(nn.Module):
    """Map inputs to a Gaussian mixture, optionally with learned weights and variances.

    Args:
        network: Maps inputs with shape ``(*, inputs)`` to centres with shape ``(*, d)``.
        inputs: Number of coordinates of an input.
        variance: Variance of the components. If it is learned, this is the initial value.
        learn_weights: Whether a second small network gives every centre a weight.
        learn_variance: Whether a second small network gives every centre a variance.
        min_variance: Lower limit of learned variances, by default a hundredth of ``variance``.
        bounded: Whether centres are squashed to [0, 1] by a sigmoid, for images.

    Raises:
        InputError: If a variance is not positive or ``min_variance`` is not below ``variance``.

    >>> head = MixtureNetwork(MLP(2, 3, width=8, depth=1), inputs=2, variance=0.5)
    >>> head.mixture(torch.zeros(4, 2))
    GaussianMixture(components=4, dim=3, batch_shape=(), variance=0.5)
    """

    variance: Tensor

    def __init__(
        self,
        network: nn.Module,
        inputs: int,
        variance: float,
        *,
        learn_weights: bool = False,
        learn_variance: bool = False,
        min_variance: float | None = None,
        bounded: bool = False,
    ) -> None:
        super().__init__()
        low = variance / 100 if min_variance is None else min_variance
        if not 0 < low < variance < math.inf:
            raise InputError(
                f"variance must be positive and above min_variance, got variance={variance:g} and "
                f"min_variance={low:g}"
            )
        self.network = network
        self.bounded = bounded
        self.min_variance = low
        self.register_buffer("variance", torch.tensor(float(variance)))
        self.weight_head = _zero_head(inputs) if learn_weights else None
        self.variance_head = _zero_head(inputs) if learn_variance else None

    def mixture(self, inputs: Tensor) -> GaussianMixture:
        """Return the mixture of K components for inputs with shape ``(*batch, K, inputs)``."""
        # Under mixed precision outputs are half floats, which are too coarse for inner products.
        centers = self.centers(inputs).to(self.variance.dtype)
        variance, weights = self.variances(inputs), self.weights(inputs)
        if team().alone or self.weight_head is None:
            return GaussianMixture(centers, variance, weights)
        mass = self.weight_head(inputs).squeeze(-1).logsumexp(-1)
        return MixturePart(centers, variance, weights, log_mass=mass)

    def centers(self, inputs: Tensor) -> Tensor:
        """Return centres with shape ``(*, d)`` for inputs with shape ``(*, inputs)``."""
        centers: Tensor = self.network(inputs)
        return centers.sigmoid() if self.bounded else centers

    def weights(self, inputs: Tensor) -> Tensor | None:
        """Return the weights with shape ``(*batch, K)``, or ``None`` if all are equal."""
        if self.weight_head is None:
            return None
        weights: Tensor = self.weight_head(inputs).squeeze(-1).softmax(-1)
        return weights

    def variances(self, inputs: Tensor) -> Tensor:
        """Return the variance of a component, or one for each if they are learned."""
        if self.variance_head is None:
            return self.variance
        # The head starts at zero. There the factor is 1, so training starts from `variance`. With a
        # large learning rate an exponential would overflow within a few steps.
        factor = nn.functional.softplus(
            self.variance_head(inputs).to(self.variance) + _SOFTPLUS_ONE
        )
        return self.min_variance + (self.variance - self.min_variance) * factor

    def normal(self, *shape: int, generator: Source = None) -> Tensor:
        """Draw standard normal noise of this network's dtype and device."""
        v = self.variance
        return normal(shape, generator, dtype=v.dtype, device=v.device)


def _zero_head(inputs: int) -> nn.Module:
    """Return a small network with one output, which is initially zero for every input."""
    head = MLP(inputs, 1, width=64, depth=1)
    last = head[-1]
    if isinstance(last, nn.Linear):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return head


class Comparison(NamedTuple):
    """The two mixtures that an objective compares.

    Args:
        p: The data's mixture.
        q: The model's mixture, of the same batch shape.
        penalty: A term that is added to the loss and subtracted from the bound, in nats, with shape
            ``()``: a mean over rows. In an evidence lower bound it is the divergence of the
            features, otherwise zero.
    """

    p: GaussianMixture
    q: GaussianMixture
    penalty: Tensor


class PairComparison(NamedTuple):
    """The two mixtures over pairs of a row and its features, for objectives that compare pairs.

    Args:
        p: The data's mixture, without a batch shape.
        q: The model's mixture, without a batch shape.
        each: The component around every row, and the mixture of the same centres that was made from
            its features, both with batch shape ``(B,)``. A term of the loss can tell from them
            which features are good. ``None`` if the encoder is frozen.
    """

    p: GaussianMixture
    q: GaussianMixture
    each: tuple[GaussianMixture, GaussianMixture] | None

    @property
    def penalty(self) -> Tensor:
        """Zero, as there is none."""
        return self.p.means.new_zeros(())


class DensityModel(nn.Module):
    """The interface of a model for training, sampling and reports.

    Attributes:
        objectives: Names of the objectives that can train it, the default first.
        stages: How many stages the training has. With two, :meth:`conclude` takes its time.
    """

    objectives: tuple[str, ...]
    stages: int = 1

    @property
    def head(self) -> MixtureNetwork:
        """The network that makes the components and holds their variance."""
        raise NotImplementedError

    def compare(
        self,
        x: Tensor,
        variance: float,
        centers: int,
        generator: Source = None,
        labels: Tensor | None = None,
    ) -> Comparison:
        """Return the data's mixture and the model's, for the rows of a batch.

        Args:
            x: Rows with shape ``(B, d)``.
            variance: Variance of a component of the data's mixture.
            centers: Number of centres: for each row if every row has its own, otherwise in all.
            generator: Draws the noise.
            labels: Classes of the rows with shape ``(B,)``, for a model that is told them. Others
                do not use them.
        """
        raise NotImplementedError

    def draw(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> GaussianMixture:
        """Return the model's density as a mixture of ``n`` components, drawn at random.

        Args:
            n: How many.
            generator: Draws them.
            label: The class or cluster to draw from, for a model that is told one. By default one
                is drawn for each component, as often as in the training rows.

        Raises:
            InputError: If the model is told no class, or there is no such class or cluster.
        """
        raise NotImplementedError

    def sample(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> Tensor:
        """Draw ``n`` centres with shape ``(n, d)``, by their weights if those are learned.

        Centres are the outputs of the network. To add the noise of the components, draw from the
        mixture: ``model.draw(k).sample((n,))``. The arguments are those of :meth:`draw`.
        """
        raise NotImplementedError

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Switch to evaluation mode inside a ``with`` block, so that measuring changes nothing."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

    def remember(self, x: Tensor, labels: Tensor | None = None) -> None:
        """Keep what sampling needs from training rows ``(n, d)``. By default that is nothing.

        Training calls this whenever it saves, so it must be quick.

        Args:
            x: The rows.
            labels: Their classes with shape ``(n,)``, for a model that is told them.
        """
        del x, labels

    def conclude(
        self,
        x: Tensor,
        held_out: Tensor,
        seed: int,
        labels: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> None:
        """Do what is left once the weights are trained. By default that is nothing.

        Args:
            x: All training rows with shape ``(n, d)``.
            held_out: Held-out rows with shape ``(m, d)``, for choices.
            seed: Seed of everything random.
            labels: The classes of both, for a model that is told them.
        """
        del x, held_out, seed, labels


def require_label(label: int, blocks: int) -> int:
    """Return the number of a class or cluster as an int.

    Args:
        label: A whole number, or a tensor that holds one.
        blocks: How many there are.

    Raises:
        InputError: If it is no whole number, or there is no such class or cluster.

    >>> require_label(10, 10)
    Traceback (most recent call last):
        ...
    hilbound.errors.InputError: label must lie between 0 and 9, got 10
    """
    number = require_whole("label", label)
    if not 0 <= number < blocks:
        raise InputError(f"label must lie between 0 and {blocks - 1}, got {number}")
    return number


def refuse_label(label: int | str | None) -> None:
    """Raise an InputError for a label, given to a model that is told no class or cluster."""
    if label is not None:
        raise InputError(
            f"label {label!r} is for a model with a condition, and this one has none: leave it "
            "out, or train with condition 'classes' or 'clusters=32'"
        )
