"""The settings of the latent-mixture experiment."""

from typing import Any

from hilbound.experiments.base import Settings

#: The name of the model.
OWN = "latent-mixture"
#: Where it differs from the defaults of the command line: a longer training.
OPTIONS: dict[str, Any] = {"steps": 10_000}
#: What is trained for the same time beside it.
PEERS: dict[str, dict[str, Any]] = {
    "autoencoder": {
        "model": "autoencoder",
        "features": 64,
        "variance_y": 0.1,
        "batch_size": 256,
        "width": 768,
        "learning_rate": 2e-3,
    },
    "vae": {"model": "vae", "features": 16, "batch_size": 256, "width": 768},
}


class LatentSettings(Settings):
    """The data, the options of the latent mixture that differ from its defaults, and the peers."""

    data: str = "mnist"
    options: dict[str, Any] = OPTIONS
    peers: dict[str, dict[str, Any]] = PEERS
    pilot_steps: int = 100
    samples: int = 10_000
