"""hilbound: train density models on contrastive entropy bounds, and see how tight each bound is.

Names are loaded when they are first used, so that ``import hilbound`` and ``hilbound --help`` pay
for nothing that they don't need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hilbound import bounds, datasets, functional, objectives
    from hilbound.bounds import Bound
    from hilbound.config import RunConfig
    from hilbound.errors import DataError, InputError
    from hilbound.full_mixture import FullGaussianMixture
    from hilbound.mixture import GaussianMixture
    from hilbound.models import (
        VAE,
        Autoencoder,
        Encoder,
        EncoderMixtureDecoder,
        MixtureDecoder,
        MixtureDensityNetwork,
    )
    from hilbound.objectives import (
        ConditionalScalarCost,
        DebiasedNuclearNorm,
        DistanceNuclearNorm,
        Likelihood,
        MeanSquaredError,
        NuclearNorm,
        ScalarCost,
        Schatten,
        SchurCost,
        Trace,
        VectorCost,
    )
    from hilbound.runs import Run
    from hilbound.training import fit, resume
    from hilbound.variance import median_variance

__version__ = "0.1.0"

__all__ = [
    "VAE",
    "Autoencoder",
    "Bound",
    "ConditionalScalarCost",
    "DataError",
    "DebiasedNuclearNorm",
    "DistanceNuclearNorm",
    "Encoder",
    "EncoderMixtureDecoder",
    "FullGaussianMixture",
    "GaussianMixture",
    "InputError",
    "Likelihood",
    "MeanSquaredError",
    "MixtureDecoder",
    "MixtureDensityNetwork",
    "NuclearNorm",
    "Run",
    "RunConfig",
    "ScalarCost",
    "Schatten",
    "SchurCost",
    "Trace",
    "VectorCost",
    "__version__",
    "bounds",
    "datasets",
    "fit",
    "functional",
    "median_variance",
    "objectives",
    "resume",
]

_HOMES = {
    "Autoencoder": "models",
    "Bound": "bounds",
    "ConditionalScalarCost": "objectives",
    "DataError": "errors",
    "DebiasedNuclearNorm": "objectives",
    "DistanceNuclearNorm": "objectives",
    "Encoder": "models",
    "EncoderMixtureDecoder": "models",
    "FullGaussianMixture": "full_mixture",
    "GaussianMixture": "mixture",
    "InputError": "errors",
    "Likelihood": "objectives",
    "MeanSquaredError": "objectives",
    "MixtureDecoder": "models",
    "MixtureDensityNetwork": "models",
    "NuclearNorm": "objectives",
    "Run": "runs",
    "RunConfig": "config",
    "ScalarCost": "objectives",
    "Schatten": "objectives",
    "SchurCost": "objectives",
    "Trace": "objectives",
    "VAE": "models",
    "VectorCost": "objectives",
    "fit": "training",
    "median_variance": "variance",
    "resume": "training",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name in _HOMES:
        return getattr(import_module(f"hilbound.{_HOMES[name]}"), name)
    if name in __all__:
        return import_module(f"hilbound.{name}")
    raise AttributeError(f"module 'hilbound' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
