"""The paper's experiments, and those of its open questions, by name.

Every experiment is one file, or a folder where that is not enough: frozen settings, the cells that
it is made of, how one is measured, and what the rows then say about the claims.
:mod:`hilbound.experiments.base` says what an experiment is, :mod:`hilbound.experiments.runner` runs
one, and :mod:`hilbound.experiments.pages` writes its page.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hilbound.registry import Registry

if TYPE_CHECKING:
    from hilbound.experiments.base import Experiment

__all__ = ["EXPERIMENTS", "get_experiment"]

#: What can be run: the module of each, which is imported only when it is asked for.
EXPERIMENTS: Registry[str] = Registry("experiment")

for name, description in {
    "variance-sweep": "the best variance of the kernel, and rules that choose it",
    "bound-tracking": "the conditional cost against its limit during training, for K centres",
    "reconstruction-diversity": "many reconstructions of one input: how different, how valid",
    "conditional-fidelity": "reconstructions by the joint fidelity, beside real images",
    "mechanism-isolation": "what each cost does to samples of separated Gaussians",
    "bound-tightness": "the gap of the conditional bound against the quality of reconstructions",
    "class-conditional": "images by class: mixture decoder, autoencoder and VAE",
    "kernel-or-distance": "the Gaussian kernel against raw distances and other kernels",
    "generation": "samples of all objectives and the VAE, at equal steps and equal time",
    "block-generation": "one network that is told nothing or the cluster, at equal time",
    "latent-mixture": "samples and bounds of latent mixtures, beside models that train as long",
    "precision-recall": "the precision and recall that weight, power, variance and batch buy",
    "high-dimensional-bound": "exact tightness at 784 and 12,288 dimensions",
    "known-density": "exact tightness of conditional models where p(x|y) is known",
    "few-features": "a mixture decoder and an autoencoder with 1 to 16 features",
    "parzen-window": "the Parzen log-likelihood of MNIST: how high, and what it says",
    "peers": "the objectives against what people would train a generator with instead",
    "uci-regression": "conditional densities of four tables, beside what people use instead",
}.items():
    EXPERIMENTS.register(name, description)(f"{__name__}.{name.replace('-', '_')}")


def get_experiment(name: str) -> "Experiment[Any]":
    """Return an experiment by name.

    Raises:
        InputError: If there is none of this name.

    >>> get_experiment("mechanism-isolation").name
    'mechanism-isolation'
    """
    experiment: Experiment[Any] = import_module(EXPERIMENTS[name]).EXPERIMENT
    return experiment
