"""Fingerprints of trained weights: one short fit per model, to show that a change kept the values.

    python benchmarks/same_weights.py before.json     # at the old commit
    python benchmarks/same_weights.py after.json      # at the new one
    diff before.json after.json                       # empty if nothing moved

Bits depend on the machine and on its libraries, so both files have to come from one machine.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path

import torch

import hilbound

COMMON = {"steps": 12, "validate_every": 6, "width": 16, "tensorboard": False, "quiet": True}
FITS: dict[str, dict[str, object]] = {
    "nuclear on moons": {"data": "moons", "batch_size": 128, "objective": "nuclear"},
    "debiased on moons": {
        "data": "moons",
        "batch_size": 128,
        "objective": "debiased",
        "objective_options": {"calibrate": True},
    },
    "likelihood on moons": {
        "data": "moons",
        "batch_size": 128,
        "objective": "likelihood",
        "learn_weights": True,
        "learn_variance": True,
    },
    "scalar with a schedule on digits": {
        "data": "digits",
        "batch_size": 128,
        "objective": "scalar",
        "variance": "2*median:0.5*median",
    },
    "encoder-mixture-decoder on digits": {"data": "digits", "model": "encoder-mixture-decoder"},
    "autoencoder on digits": {"data": "digits", "model": "autoencoder"},
    "vae on digits": {"data": "digits", "model": "vae"},
    "convolutions on digits": {"data": "digits", "batch_size": 64, "network": "conv", "depth": 1},
}


def digest(options: dict[str, object]) -> dict[str, str]:
    """Train once and return short hashes of the weights and of the record of the bounds."""
    with tempfile.TemporaryDirectory() as folder:
        run = hilbound.fit(Path(folder) / "run", **{**COMMON, **options})
        bounds = (run.path / "bounds.csv").read_text(encoding="utf-8").splitlines()
        without_seconds = "\n".join(line.rpartition(",")[0] for line in bounds)
        return {
            "weights": _short((run.path / "model.safetensors").read_bytes()),
            "bounds": _short(without_seconds.encode()),
        }


def _short(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def main() -> None:
    """Fit every model and write what came out."""
    torch.set_num_threads(1)
    result = {name: digest(options) for name, options in FITS.items()}
    text = json.dumps(result, indent=2) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    print(text, end="")


if __name__ == "__main__":
    main()
