r"""Distances between images: an LPIPS-style one for any network, and the published FID and LPIPS.

The feature maps of a network's convolutional layers are normalised over their channels at every
position. The distance of two images is the squared difference of these maps, averaged over the
positions and summed over the layers,

.. math:: d(a, b) = \sum_l \frac{1}{H_l W_l} \sum_{hw}
    \left\| \frac{a^l_{hw}}{\|a^l_{hw}\|} - \frac{b^l_{hw}}{\|b^l_{hw}\|} \right\|^2 .

LPIPS is this distance with AlexNet's layers and learned weights of their channels. FID is the
Fréchet distance in the features of Inception. Both come from torchmetrics. The weights of their
networks are files, which are never downloaded here. If one is missing, an
:class:`UnavailableError` says which file to put where.

References:
    The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (Zhang, Isola, Efros,
    Shechtman and Wang, 2018). GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium (Heusel, Ramsauer, Unterthiner, Nessler and Hochreiter, 2017).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from hilbound.errors import InputError

#: Images that a published network sees at a time.
_ROWS = 50
#: AlexNet reduces smaller images to nothing.
_SMALLEST = 64


class UnavailableError(InputError):
    """A package or a file of weights is missing. The message says what to install or fetch."""


@dataclass(frozen=True)
class PublishedWeights:
    """A file of weights, named as torch.hub does: its name ends in the start of its SHA-256.

    Args:
        metric: The metric that needs it.
        package: The module that must be installed.
        url: Where the file is published.
    """

    metric: str
    package: str
    url: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[-1]

    def find(self) -> Path:
        """Return the file in torch.hub's cache.

        Raises:
            UnavailableError: If the package or the file is missing, or the file is damaged.
        """
        if find_spec(self.package) is None:
            raise UnavailableError(
                f"{self.metric} needs the package {self.package.replace('_', '-')}: "
                "pip install 'hilbound[image-metrics]'"
            )
        path = Path(torch.hub.get_dir(), "checkpoints", self.name)
        remedy = (
            f"fetch {self.url} and put it into the folder hub/checkpoints of TORCH_HOME, which is "
            "~/.cache/torch unless set otherwise"
        )
        if not path.is_file():
            raise UnavailableError(f"{self.metric} needs the file {self.name}: {remedy}")
        start = path.stem.rsplit("-", 1)[-1]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not digest.startswith(start):
            raise UnavailableError(
                f"{self.metric} needs the file {self.name}, but the present file is damaged "
                f"(its SHA-256 begins with {digest[:8]}): {remedy}"
            )
        return path


INCEPTION = PublishedWeights(
    "FID",
    "torch_fidelity",
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
)
ALEXNET = PublishedWeights(
    "LPIPS", "torchvision", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
)


def true_fid(real: Tensor, fake: Tensor) -> float:
    """Return the Fréchet distance of two sets of images in the features of Inception.

    With few images the estimate is too large, so compare only values from equally many images.

    Args:
        real: Images with shape ``(n, c, h, w)``, one or three channels, values in ``[0, 1]``. At
            least two are needed, because a covariance is estimated.
        fake: Images with shape ``(m, c, h, w)``, likewise.

    Raises:
        InputError: If the images have other shapes or values, or are fewer than two.
        UnavailableError: If the package or the weights are missing. Nothing is downloaded.
    """
    real, fake = _coloured("real", real, least=2), _coloured("fake", fake, least=2)
    weights = INCEPTION.find()
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(
        feature=2048, normalize=True, feature_extractor_weights_path=str(weights)
    )
    with torch.no_grad():
        for images, are_real in ((real, True), (fake, False)):
            for part in images.split(_ROWS):
                metric.update(part, real=are_real)
        return float(metric.compute())


def true_lpips(a: Tensor, b: Tensor) -> float:
    """Return the mean LPIPS distance (AlexNet) between ``a[i]`` and ``b[i]``.

    Images with sides below 64 pixels are enlarged bilinearly to 64 pixels.

    Args:
        a: Images with shape ``(n, c, h, w)``, of one or three channels, values in ``[0, 1]``.
        b: Images of the same shape.

    Raises:
        InputError: If the images have other shapes or values.
        UnavailableError: If the package or the weights are missing. Nothing is downloaded.
    """
    a, b = _coloured("a", a, least=1), _coloured("b", b, least=1)
    if a.shape != b.shape:
        raise InputError(f"b has shape {tuple(b.shape)}, but a has {tuple(a.shape)}: give pairs")
    ALEXNET.find()
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    metric = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
    with torch.no_grad():
        for one, other in zip(a.split(_ROWS), b.split(_ROWS), strict=True):
            metric.update(_enlarged(one), _enlarged(other))
        return float(metric.compute())


def feature_map_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Return :math:`d(a, b)` with shape ``(n,)`` for the maps of n pairs of images.

    A map that is zero at a position has no direction there. Its distance is 1 from a map that has
    one, and 0 from another zero.

    Args:
        a: Maps of the first images, one for each layer, with shape
            ``(n, channels, height, width)``.
        b: Maps of the second images, with the same shapes.

    Raises:
        InputError: If there are no maps, or the maps of a and b do not match.

    >>> one, other = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0])
    >>> feature_map_distance([one.reshape(1, 2, 1, 1)], [other.reshape(1, 2, 1, 1)])
    tensor([0.4000])
    """
    _require_pairs(a, b)
    layers = [
        (nn.functional.normalize(x) - nn.functional.normalize(y)).square().sum(1).mean((1, 2))
        for x, y in zip(a, b, strict=True)
    ]
    return torch.stack(layers).sum(0)


def _require_pairs(a: Sequence[Tensor], b: Sequence[Tensor]) -> None:
    """Raise an InputError unless both hold maps of the same layers for equally many images."""
    if not len(a) == len(b) > 0:
        raise InputError(
            f"a and b must hold the maps of the same layers, one at least; got {len(a)} and "
            f"{len(b)}"
        )
    for layer, (x, y) in enumerate(zip(a, b, strict=True)):
        if x.ndim != 4 or x.shape != y.shape or len(x) != len(a[0]):
            raise InputError(
                f"layer {layer} of a has shape {tuple(x.shape)}, that of b {tuple(y.shape)}: both "
                "must be (n, channels, height, width), with the same n for all layers"
            )


def _coloured(name: str, images: Tensor, *, least: int) -> Tensor:
    """Return checked images in float32 with three channels."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
        raise InputError(
            f"{name} has shape {tuple(images.shape)} and dtype {images.dtype}: expected floats "
            "(n, c, h, w) with one or three channels"
        )
    if len(images) < least or 0 in images.shape:
        raise InputError(
            f"{name} must hold at least {least} images of one pixel or more, got shape "
            f"{tuple(images.shape)}"
        )
    # In this form the test rejects NaN, too.
    if not bool((images >= 0).all() & (images <= 1).all()):
        raise InputError(
            f"{name} must have values in [0, 1], got {float(images.min()):g} to "
            f"{float(images.max()):g}: divide bytes by 255"
        )
    return images.float().expand(-1, 3, -1, -1)


def _enlarged(images: Tensor) -> Tensor:
    size = [max(side, _SMALLEST) for side in images.shape[-2:]]
    return nn.functional.interpolate(images, size, mode="bilinear", align_corners=False)
