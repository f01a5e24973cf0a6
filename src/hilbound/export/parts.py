"""The parts of a model that can be exported, each a module from tensors to tensors.

Random numbers are inputs. A file could not be told a seed otherwise, and with the same noise every
program gives the same samples. Rows go in and come out in the user's own units.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from hilbound.errors import InputError
from hilbound.mixture import FullGaussianMixture, GaussianMixture
from hilbound.models.autoencoders import FeatureModel
from hilbound.models.base import DensityModel, MixtureNetwork
from hilbound.models.blocks import BlockDensityNetwork
from hilbound.models.classes import ClassDecoder
from hilbound.models.density import MixtureDensityNetwork
from hilbound.models.encoder import Encoder

#: Draws an example of one input for a batch of n rows.
Example = Callable[[int, torch.Generator], Tensor]
# Centres for each row in an example of a decoder; the exported axis takes any number.
_DRAWS = 5


@dataclass(frozen=True)
class Part:
    """One exported function.

    Args:
        name: What it is: ``sampler``, ``encoder``, ``decoder`` or ``density``.
        module: The function, in evaluation mode.
        inputs: For every input, in order, how an example is drawn.
        outputs: Names of the outputs, in order.
        free: Names of the axes of any length, for every input. The first is the batch.
        notes: What a reader of the file has to know, as text.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Example]
    outputs: tuple[str, ...]
    free: dict[str, tuple[str, ...]]
    notes: dict[str, str] = field(default_factory=dict)

    def example(self, n: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Return inputs for a batch of ``n`` rows."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(draw(n, generator) for draw in self.inputs.values())


class Units(nn.Module):
    """Between the user's units, in float64, and those of the network.

    A column such as a year has a large mean and little spread. In float32 its digits would be lost.

    Args:
        offset: What was subtracted from every column, or ``None`` if nothing was changed.
        scale: What every column was divided by.
        like: A tensor of the network's dtype.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, offset: list[float] | None, scale: list[float] | None, like: Tensor) -> None:
        super().__init__()
        self.dtype = like.dtype
        for name, value in (("offset", offset or 0.0), ("scale", scale or 1.0)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))

    def inside(self, x: Tensor) -> Tensor:
        """Return rows in the network's units and precision."""
        return ((x - self.offset) / self.scale).to(self.dtype)

    def outside(self, x: Tensor) -> Tensor:
        """Return rows in the user's units."""
        return x.double() * self.scale + self.offset


class _Head(nn.Module):
    """Centres in the user's units, and weights and variances where they are learned."""

    def __init__(self, head: MixtureNetwork, units: Units) -> None:
        super().__init__()
        self.head, self.units = head, units

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        results = [self.units.outside(self.head.centers(inputs))]
        weights = self.head.weights(inputs)
        if weights is not None:
            results.append(weights)
        if self.head.variance_head is not None:
            results.append(self.head.variances(inputs) * self.units.scale.square())
        return tuple(results)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the results."""
        names = ["centers"]
        names += ["weights"] if self.head.weight_head is not None else []
        names += ["variance"] if self.head.variance_head is not None else []
        return tuple(names)


class _Decoder(nn.Module):
    """Features, then a class if the decoder is told one, then noise if it has any."""

    def __init__(self, head: _Head, classes: int) -> None:
        super().__init__()
        self.head, self.classes = head, classes

    def forward(
        self, features: Tensor, first: Tensor | None = None, second: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        others = [part for part in (first, second) if part is not None]
        told = features
        if self.classes:
            told = torch.cat([told, one_hot(others[0], self.classes).to(features)], -1)
        noise = others[-1] if len(others) > bool(self.classes) else None
        if noise is not None:
            told = told.unsqueeze(1).expand(-1, noise.shape[1], -1)
            told = torch.cat([told, noise], -1)
        results: tuple[Tensor, ...] = self.head(told)
        return results


class _BlockSampler(nn.Module):
    """Draws from the network of one block: a class, or a cluster."""

    def __init__(self, head: _Head, blocks: int) -> None:
        super().__init__()
        self.head, self.blocks = head, blocks

    def forward(self, noise: Tensor, block: Tensor) -> tuple[Tensor, ...]:
        code = one_hot(block, self.blocks).to(noise)
        results: tuple[Tensor, ...] = self.head(torch.cat([noise, code], -1))
        return results


class _Encoder(nn.Module):
    def __init__(self, model: FeatureModel, encoder: Encoder, units: Units) -> None:
        super().__init__()
        self.encoder, self.units = encoder, units
        self.features = model.decoder.feature_dim

    def forward(self, x: Tensor) -> Tensor:
        # Not the encoder's own forward: its checks of values have no place in a graph.
        features: Tensor = self.encoder.network(self.units.inside(x))
        if self.encoder.standardization is not None:
            features = self.encoder.standardization(features)
        # An encoder of a VAE returns means and variances. The means come first.
        return features[..., : self.features]


class _FeatureSampler(nn.Module):
    """Draws features from one component of their density, and decodes each once."""

    means: Tensor
    factor: Tensor

    def __init__(self, density: GaussianMixture | FullGaussianMixture, head: _Head) -> None:
        super().__init__()
        self.head = head
        means = density.means
        if isinstance(density, FullGaussianMixture):
            factor = torch.linalg.cholesky(density.component_covariance)
        else:
            factor = torch.diag_embed(density.component_variance.sqrt().expand_as(means))
        self.register_buffer("means", means.clone())
        self.register_buffer("factor", factor.expand(len(means), -1, -1).to(means).clone())

    def forward(
        self, rows: Tensor, feature_noise: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        spread = (self.factor[rows] @ feature_noise.unsqueeze(-1)).squeeze(-1)
        features = self.means[rows] + spread
        inputs = features if noise is None else torch.cat([features, noise], -1)
        results: tuple[Tensor, ...] = self.head(inputs)
        return results


def parts_of(model: DensityModel, units: Units, dim: int) -> dict[str, Callable[[], Part]]:
    """Return how to make every part that a model has, the most useful one first.

    Args:
        model: A trained model in evaluation mode.
        units: The units of its rows.
        dim: Number of coordinates of a row.
    """
    head = _Head(model.head, units)
    if isinstance(model, BlockDensityNetwork):
        return {"sampler": lambda: _block_sampler(model, head)}
    if isinstance(model, MixtureDensityNetwork):
        return {"sampler": lambda: _network_sampler(model, head)}
    if isinstance(model, FeatureModel):
        return {
            "decoder": lambda: _decoder(model, head),
            "encoder": lambda: _encoder(model, units, dim),
            "sampler": lambda: _feature_sampler(model, head),
        }
    raise InputError(f"a {type(model).__name__} has no part that can be exported")


def _network_sampler(model: MixtureDensityNetwork, head: _Head) -> Part:
    return Part(
        "sampler",
        head,
        {"noise": _normal(model.head.variance, model.noise_dim)},
        head.outputs,
        {"noise": ("batch",)},
    )


def _block_sampler(model: BlockDensityNetwork, head: _Head) -> Part:
    return Part(
        "sampler",
        _BlockSampler(head, model.blocks),
        {
            "noise": _normal(model.head.variance, model.noise_dim),
            "block": _whole(model.blocks),
        },
        head.outputs,
        {"noise": ("batch",), "block": ("batch",)},
        {"block": f"numbers of blocks, drawn with the shares {model.share.tolist()}"},
    )


def _classes(model: FeatureModel) -> int:
    """Return the number of classes that the decoder is told, or 0."""
    return model.decoder.classes if isinstance(model.decoder, ClassDecoder) else 0


def _decoder(model: FeatureModel, head: _Head) -> Part:
    like, noise_dim, classes = model.head.variance, model.decoder.noise_dim, _classes(model)
    inputs = {"features": _normal(like, model.decoder.feature_dim)}
    free: dict[str, tuple[str, ...]] = {"features": ("batch",)}
    if classes:
        inputs["label"] = _whole(classes)
        free["label"] = ("batch",)
    if noise_dim:
        inputs["noise"] = _normal(like, _DRAWS, noise_dim)
        free["noise"] = ("batch", "draws")
    return Part("decoder", _Decoder(head, classes), inputs, head.outputs, free)


def _encoder(model: FeatureModel, units: Units, dim: int) -> Part:
    encoder = model.encoder
    if not isinstance(encoder, Encoder):
        raise InputError(f"the encoder is a {type(encoder).__name__}, which is not exported")

    def rows(n: int, generator: torch.Generator) -> Tensor:
        # Between 0 and 1 pixels are allowed, and other rows are, too.
        shape = (n, dim)
        draw = torch.rand(shape, generator=generator)
        return units.outside(draw)

    module = _Encoder(model, encoder, units)
    return Part("encoder", module, {"x": rows}, ("features",), {"x": ("batch",)})


def _feature_sampler(model: FeatureModel, head: _Head) -> Part:
    if model.head.weight_head is not None or _classes(model):
        reason = "classes" if _classes(model) else "learned weights"
        raise InputError(
            f"part 'sampler' is not exported for an encoder with {reason}: export the decoder, "
            "and draw its inputs"
        )
    density = model.feature_density()
    like, count = model.head.variance, density.components
    inputs: dict[str, Example] = {
        "rows": _whole(count),
        "feature_noise": _normal(like, model.decoder.feature_dim),
    }
    if model.decoder.noise_dim:
        inputs["noise"] = _normal(like, model.decoder.noise_dim)
    free: dict[str, tuple[str, ...]] = dict.fromkeys(inputs, ("batch",))
    weights = density.weights
    drawn = "evenly" if bool((weights == weights[0]).all()) else f"with weights {weights.tolist()}"
    notes = {"rows": f"numbers of components of the features, from 0 to {count - 1}, drawn {drawn}"}
    return Part("sampler", _FeatureSampler(density, head), inputs, head.outputs, free, notes)


def _normal(like: Tensor, *shape: int) -> Example:
    def draw(n: int, generator: torch.Generator) -> Tensor:
        return torch.randn((n, *shape), generator=generator, dtype=like.dtype)

    return draw


def _whole(count: int) -> Example:
    def draw(n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(count, (n,), generator=generator)

    return draw
