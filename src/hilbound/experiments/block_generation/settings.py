"""The settings of the experiment: what each method is told, and what all of them share."""

from typing import Any

from hilbound.experiments.base import Settings

#: Every method with its options. The page says how they were chosen.
METHODS: dict[str, dict[str, Any]] = {
    "unconditional": {
        "variance": 50.0,
        "batch_size": 1024,
        "objective_options": {"weight": 0.5},
    },
    "clusters": {
        "variance": 60.0,
        "batch_size": 4096,
        "objective_options": {"weight": 0.48},
        "condition": "clusters=128",
    },
}


class BlockSettings(Settings):
    """The training that all methods share."""

    data: str = "mnist"
    methods: dict[str, dict[str, Any]] = METHODS
    objective: str = "debiased"
    width: int = 512
    noise_dim: int = 16
    steps: int = 1800
    pilot_steps: int = 20
    samples: int = 10_000
