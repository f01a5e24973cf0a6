"""The settings of kernel or distance: data, training, and the scale of the kernels."""

from hilbound.experiments.base import Settings


class KernelSettings(Settings):
    """The training that all kernels share."""

    data: str = "mnist"
    rows: int = 20_000
    width: int = 512
    noise_dim: int = 16
    steps: int = 300
    batch_size: int = 512
    learning_rate: float = 5e-3
    samples: int = 2000
    toy_points: int = 600
