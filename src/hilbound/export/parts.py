"""The parts of a model that can be exported, each a module from tensors to tensors.

Random numbers are inputs. A file could not be told a seed otherwise, and with the same noise every
program gives the same samples. Rows go in and come out in the user's own units.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hilbound.errors import InputError
from hilbound.models.autoencoders import FeatureModel
from hilbound.models.base import DensityModel, MixtureNetwork
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
    """Between the user's units and those of the network.

    Args:
        offset: What was subtracted from every column, or ``None`` if nothing was changed.
        scale: What every column was divided by.
        like: A tensor of the network's dtype.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, offset: list[float] | None, scale: list[float] | None, like: Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", like.new_tensor(0.0 if offset is None else offset))
        self.register_buffer("scale", like.new_tensor(1.0 if scale is None else scale))

    def inside(self, x: Tensor) -> Tensor:
        """Return rows in the network's units."""
        return (x - self.offset) / self.scale

    def outside(self, x: Tensor) -> Tensor:
        """Return rows in the user's units."""
        return x * self.scale + self.offset


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
    def __init__(self, head: _Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor, noise: Tensor | None = None) -> tuple[Tensor, ...]:
        inputs = features
        if noise is not None:
            several = features.unsqueeze(1).expand(-1, noise.shape[1], -1)
            inputs = torch.cat([several, noise], -1)
        results: tuple[Tensor, ...] = self.head(inputs)
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
        # Of a posterior, the first half are the means.
        return features[..., : self.features]


class _FeatureSampler(nn.Module):
    """Draws features around those of the training rows, and decodes each once."""

    means: Tensor
    deviation: Tensor

    def __init__(self, model: FeatureModel, head: _Head) -> None:
        super().__init__()
        density = model.feature_density()
        self.head = head
        self.register_buffer("means", density.means)
        self.register_buffer(
            "deviation", density.component_variance.sqrt().expand_as(density.means).clone()
        )

    def forward(
        self, rows: Tensor, feature_noise: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        features = self.means[rows] + self.deviation[rows] * feature_noise
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


def _decoder(model: FeatureModel, head: _Head) -> Part:
    like, noise_dim = model.head.variance, model.decoder.noise_dim
    inputs = {"features": _normal(like, model.decoder.feature_dim)}
    free: dict[str, tuple[str, ...]] = {"features": ("batch",)}
    if noise_dim:
        inputs["noise"] = _normal(like, _DRAWS, noise_dim)
        free["noise"] = ("batch", "draws")
    return Part("decoder", _Decoder(head), inputs, head.outputs, free)


def _encoder(model: FeatureModel, units: Units, dim: int) -> Part:
    encoder = model.encoder
    if not isinstance(encoder, Encoder):
        raise InputError(f"the encoder is a {type(encoder).__name__}, which is not exported")

    def rows(n: int, generator: torch.Generator) -> Tensor:
        # Between 0 and 1 pixels are allowed, and other rows are, too.
        shape = (n, dim)
        draw = torch.rand(shape, generator=generator, dtype=units.scale.dtype)
        return units.outside(draw)

    module = _Encoder(model, encoder, units)
    return Part("encoder", module, {"x": rows}, ("features",), {"x": ("batch",)})


def _feature_sampler(model: FeatureModel, head: _Head) -> Part:
    if model.head.weight_head is not None:
        raise InputError(
            "part 'sampler' is not exported for an encoder with learned weights, because centres "
            "are drawn by them: export the decoder, which returns the weights"
        )
    module = _FeatureSampler(model, head)
    like, count = model.head.variance, len(module.means)

    def rows(n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(count, (n,), generator=generator)

    inputs: dict[str, Example] = {
        "rows": rows,
        "feature_noise": _normal(like, model.decoder.feature_dim),
    }
    if model.decoder.noise_dim:
        inputs["noise"] = _normal(like, model.decoder.noise_dim)
    free = dict.fromkeys(inputs, ("batch",))
    notes = {"rows": f"numbers of remembered rows, from 0 to {count - 1}, drawn evenly"}
    return Part("sampler", module, inputs, head.outputs, free, notes)


def _normal(like: Tensor, *shape: int) -> Example:
    def draw(n: int, generator: torch.Generator) -> Tensor:
        return torch.randn((n, *shape), generator=generator, dtype=like.dtype)

    return draw
