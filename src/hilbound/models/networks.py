"""Small networks: a multilayer perceptron, and a convolutional generator and encoder for images.

Every network maps rows with shape ``(*, n)`` to rows with shape ``(*, d)``. Images are flat rows.
The models (:mod:`hilbound.models`) decide what the rows mean. :data:`NETWORKS` is the table of
networks that make data, and :data:`ENCODERS` is that of networks that map data to features.
"""

import math
from collections.abc import Callable

from torch import Tensor, nn

from hilbound.errors import InputError
from hilbound.registry import Registry

ImageShape = tuple[int, int, int]
#: Builds a network from (inputs, outputs, width, depth, image_shape).
NetworkBuilder = Callable[[int, int, int, int, ImageShape | None], nn.Module]

NETWORKS: Registry[NetworkBuilder] = Registry("network")
#: The encoders that go with these networks in an autoencoder, under the same names.
ENCODERS: Registry[NetworkBuilder] = Registry("network")


class MLP(nn.Sequential):
    """Linear layers with SiLU between them, from ``(*, inputs)`` to ``(*, outputs)``.

    Args:
        inputs: Number of input coordinates.
        outputs: Number of output coordinates.
        width: Units of a hidden layer.
        depth: Number of hidden layers.

    >>> import torch
    >>> MLP(2, 3, width=8, depth=1)(torch.zeros(5, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(self, inputs: int, outputs: int, width: int = 512, depth: int = 2) -> None:
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [nn.Linear(inputs if i == 0 else width, width), nn.SiLU()]
        super().__init__(*layers, nn.Linear(width if depth else inputs, outputs))


class ConvGenerator(nn.Module):
    """A linear layer to a coarse grid, then upsampling convolutions, to flat images.

    Args:
        inputs: Number of input coordinates.
        image_shape: ``(channels, height, width)`` of the images.
        width: Channels of the coarse grid. Every upsampling halves them.
        depth: Number of upsamplings by two.

    >>> import torch
    >>> ConvGenerator(4, (1, 8, 8), width=16, depth=1)(torch.zeros(5, 4)).shape
    torch.Size([5, 64])
    """

    def __init__(
        self, inputs: int, image_shape: ImageShape, width: int = 128, depth: int = 2
    ) -> None:
        super().__init__()
        channels, height, breadth = image_shape
        self.image_shape = image_shape
        self.grid = (width, math.ceil(height / 2**depth), math.ceil(breadth / 2**depth))
        self.linear = nn.Linear(inputs, math.prod(self.grid))
        blocks: list[nn.Module] = []
        for i in range(depth):
            before, after = max(8, width >> i), max(8, width >> (i + 1))
            blocks += [
                nn.SiLU(),
                nn.Upsample(scale_factor=2.0, mode="nearest"),
                nn.Conv2d(before if i else width, after, 3, padding=1),
            ]
        last = max(8, width >> depth) if depth else width
        self.convolutions = nn.Sequential(
            *blocks, nn.SiLU(), nn.Conv2d(last, channels, 3, padding=1)
        )

    def forward(self, noise: Tensor) -> Tensor:
        """Map noise with shape ``(*, inputs)`` to rows with shape ``(*, d)``."""
        grid = self.linear(noise.reshape(-1, noise.shape[-1])).reshape(-1, *self.grid)
        _, height, breadth = self.image_shape
        # The grid may be larger than the image, whose sides need not be multiples of 2**depth.
        images = self.convolutions(grid)[..., :height, :breadth]
        rows: Tensor = images.reshape(*noise.shape[:-1], math.prod(self.image_shape))
        return rows


class ConvEncoder(nn.Module):
    """Convolutions that halve the grid, then a linear layer, from flat images to features.

    It is the mirror image of :class:`ConvGenerator`.

    Args:
        image_shape: ``(channels, height, width)`` of the images.
        outputs: Number of features.
        width: Channels of the coarsest grid. Each earlier layer has half as many as the next one.
        depth: Number of halvings.

    >>> import torch
    >>> ConvEncoder((1, 8, 8), 2, width=16, depth=1)(torch.zeros(5, 64)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self, image_shape: ImageShape, outputs: int, width: int = 128, depth: int = 2
    ) -> None:
        super().__init__()
        channels, height, breadth = image_shape
        self.image_shape = image_shape
        layers: list[nn.Module] = []
        for i in reversed(range(depth)):
            after = max(8, width >> i)
            layers += [nn.Conv2d(channels, after, 3, stride=2, padding=1), nn.SiLU()]
            channels = after
        self.convolutions = nn.Sequential(*layers)
        sides = (math.ceil(side / 2**depth) for side in (height, breadth))
        self.linear = nn.Linear(channels * math.prod(sides), outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map flat images with shape ``(*, d)`` to features with shape ``(*, outputs)``."""
        grid = self.convolutions(x.reshape(-1, *self.image_shape))
        features: Tensor = self.linear(grid.flatten(1))
        return features.reshape(*x.shape[:-1], features.shape[-1])


@NETWORKS.register("mlp", "multilayer perceptron, for any data")
@ENCODERS.register("mlp", "multilayer perceptron, for any data")
def _mlp(inputs: int, outputs: int, width: int, depth: int, _: ImageShape | None) -> nn.Module:
    return MLP(inputs, outputs, width, depth)


@NETWORKS.register("conv", "small convolutional generator, for images")
def _conv(
    inputs: int,
    outputs: int,  # noqa: ARG001 - follows from the image's shape
    width: int,
    depth: int,
    image_shape: ImageShape | None,
) -> nn.Module:
    return ConvGenerator(inputs, _require_images(image_shape), width, depth)


@ENCODERS.register("conv", "small convolutional encoder, of images")
def _conv_encoder(
    inputs: int,  # noqa: ARG001 - follows from the image's shape
    outputs: int,
    width: int,
    depth: int,
    image_shape: ImageShape | None,
) -> nn.Module:
    return ConvEncoder(_require_images(image_shape), outputs, width, depth)


def _require_images(image_shape: ImageShape | None) -> ImageShape:
    if image_shape is None:
        raise InputError(
            "network 'conv' is for images, and this data set has none: use network 'mlp'"
        )
    return image_shape
