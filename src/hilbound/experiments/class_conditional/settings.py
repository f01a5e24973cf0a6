"""The settings of images by class: models, data and training."""

from hilbound.experiments.base import Settings
from hilbound.objectives import ConditionalScalarCost, Objective, ScalarCost

#: Those with several centres, and their objectives.
MIXTURES: dict[str, type[Objective]] = {"mixture": ConditionalScalarCost, "by-row": ScalarCost}

#: The mixture decoder that compares rows which share a class and a feature with as many centres.
SLICES = "slices"
#: The autoencoder with :attr:`ClassSettings.longer` times as many steps.
LONGER = "autoencoder-longer"


class ClassSettings(Settings):
    """The networks, their training and what is measured, for all models alike."""

    data: str = "cifar10"
    features: tuple[int, ...] = (2, 16)
    noise_dim: int = 16
    variance_y: float = 0.01
    variance_share: float = 0.03
    centers: int = 8
    width: int = 384
    channels: int = 64
    batch_size: int = 64
    steps: int = 500
    longer: int = 3
    slices: int = 8
    slice_rows: int = 512
    slice_steps: int = 250
    slice_learning_rate: float = 4e-3
    learning_rate: float = 2e-3
    samples: int = 500
    inputs: int = 200
    published_rows: int = 1000
