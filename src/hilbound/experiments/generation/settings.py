"""The settings of the generation experiment: methods with their options, and what they share."""

from typing import Any

from hilbound.experiments.base import Settings

#: Every method with its options; the page says how they were chosen.
METHODS: dict[str, dict[str, Any]] = {
    "nuclear": {"objective": "nuclear", "variance": "3*median"},
    "debiased": {"objective": "debiased", "variance": "median"},
    "schatten": {"objective": "schatten", "variance": "2*median"},
    "scalar": {"objective": "scalar", "variance": "0.3*median"},
    "likelihood": {"objective": "likelihood", "variance": "median/dim"},
    "vae": {"model": "vae", "features": 16, "batch_size": 256, "width": 768},
    "autoencoder": {
        "model": "autoencoder",
        "features": 64,
        "variance_y": 0.1,
        "batch_size": 256,
        "width": 768,
        "learning_rate": 2e-3,
    },
}

#: CelebA as grey images of this size, so many of them: what a few minutes allow.
CELEBA = {"image_size": 32, "grayscale": True, "samples": 20_000}


class GenerationSettings(Settings):
    """The training that all methods share."""

    data: tuple[str, ...] = ("mnist", "celeba")
    methods: dict[str, dict[str, Any]] = METHODS
    celeba: dict[str, Any] = CELEBA
    width: int = 512
    noise_dim: int = 16
    batch_size: int = 512
    steps: int = 300
    longer: float = 6.0
    longer_methods: tuple[str, ...] = ("debiased", "likelihood", "vae", "autoencoder")
    samples: int = 10_000
