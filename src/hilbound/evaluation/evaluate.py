"""How good a run is: its samples are compared with held-out data, and so are real data.

A number alone says little. Coverage 0.93 is perfect if real data reach 0.93. So the same code
measures every metric twice: once for the model's samples, and once for the same number of training
rows. The second value is the best that a model can be expected to reach without memorising.
"""

import logging
import time
from dataclasses import asdict
from typing import Any, Literal

from torch import Tensor

from hilbound.datasets import Dataset
from hilbound.engine.seeding import stream
from hilbound.errors import InputError
from hilbound.evaluation import metrics
from hilbound.evaluation.latent import measure_latent
from hilbound.evaluation.quality import METRICS, RECONSTRUCTION, measure, reference_rows
from hilbound.evaluation.reconstruction import (
    choose_rows,
    reconstruction_errors,
    rows_with_features,
)
from hilbound.evaluation.spaces import MetricSpace, fit_space
from hilbound.models.autoencoders import EncoderMixtureDecoder, FeatureModel
from hilbound.models.latent import LatentMixture
from hilbound.training.failures import Finding, far_from_data
from hilbound.training.runs import Run

log = logging.getLogger(__name__)

# Inputs that are reconstructed, each so many times.
_RECONSTRUCTED, _TIMES = 500, 10

#: Neighbourhoods and covariances of fewer rows say nothing.
FEWEST_ROWS = 10

HeldOut = Literal["validation", "test"]


def evaluate(
    run: Run,
    samples: int | None = None,
    split: HeldOut = "test",
) -> dict[str, Any]:
    """Measure a run, write its ``metrics.json`` and return the content.

    For a model with an encoder, its reconstructions are measured, too. For an
    :class:`~hilbound.models.EncoderMixtureDecoder`, so is its conditional bound; for a
    :class:`~hilbound.models.LatentMixture`, the density of its features.

    Args:
        run: The run.
        samples: How many samples and held-out rows to compare. By default all held-out rows are
            used, at most 10,000.
        split: The held-out rows: ``"validation"`` for choosing, ``"test"`` for final figures.

    Raises:
        InputError: If there are too few rows, or the run is damaged.
    """
    began = time.perf_counter()
    dataset, model = run.dataset, run.model
    held_out = getattr(dataset, split)
    n = _count(held_out, dataset, samples)
    space = fit_space(dataset, seed=run.config.seed)
    fake = model.sample(n, stream(run.config.seed, "evaluation")).to(held_out)
    test, real = reference_rows(held_out, dataset.train, n, run.config.seed)
    model_values = measure(test, fake, space, dataset.classes, run.config.seed)
    real_values = measure(test, real, space, dataset.classes, run.config.seed)
    content: dict[str, Any] = {
        "split": split,
        "samples": n,
        "features": space.description,
        "classifier_accuracy": space.accuracy,
        "seconds": time.perf_counter() - began,
        "metrics": {
            name: {"model": value, "real": real_values[name], "better": METRICS[name].better}
            for name, value in model_values.items()
        },
    }
    if isinstance(model, FeatureModel):
        content["reconstruction"] = measure_reconstructions(
            model, test[:_RECONSTRUCTED], real, space, run.config.seed
        )
    if isinstance(model, EncoderMixtureDecoder):
        content["conditional_bound"] = conditional_bound_of(run, model, held_out, split)
    if isinstance(model, LatentMixture):
        seed = run.config.seed
        content["latent"] = measure_latent(model, held_out, dataset.train, split, seed)
    content["seconds"] = time.perf_counter() - began
    far = far_from_data(real, fake)
    if far is not None:
        content["far_from_data"] = far.message
    _keep(run, content, far)
    return content


def _keep(run: Run, content: dict[str, Any], far: Finding | None) -> None:
    """Write what was measured; where that cannot be, it is still worth to be seen."""
    try:
        if far is not None:
            run.note(run.read_json("run.json")["step"], asdict(far))
        run.write_json("metrics.json", content)
    except OSError as error:
        log.warning("metrics.json of run %s cannot be written: %s", run.path, error.strerror)


def measure_reconstructions(
    model: FeatureModel, x: Tensor, train: Tensor, space: MetricSpace, seed: int = 0
) -> dict[str, Any]:
    """Return how near, how different and how lifelike the reconstructions of inputs are.

    If the features have noise, real data are measured in the same way: training rows that share
    the features of the input (:func:`~hilbound.evaluation.reconstruction.rows_with_features`). The
    validity of real data is that of the inputs themselves.

    Args:
        model: The model.
        x: Held-out rows with shape ``(n, d)``.
        train: Training rows with shape ``(N, d)``.
        space: Where the support of the training rows is measured.
        seed: Seed of the draws.
    """
    drawn = model.reconstruct(
        x.to(model.head.variance), _TIMES, stream(seed, "evaluation-reconstructions")
    ).to(x)
    support = space.transform(train)
    values = reconstruction_errors(x, drawn) | {
        "validity": _inside(support, space.transform(drawn.flatten(0, 1)))
    }
    real: dict[str, float] = {"validity": _inside(support, space.transform(x))}
    if model.variance_y is not None:
        generator = stream(seed, "evaluation-rows-with-features")
        real |= reconstruction_errors(x, rows_with_features(model, x, train, _TIMES, generator))
    return {
        "inputs": len(x),
        "reconstructions": _TIMES,
        "metrics": {
            name: {"model": value, "real": real.get(name), "better": RECONSTRUCTION[name].better}
            for name, value in values.items()
        },
    }


def _inside(support: Tensor, points: Tensor) -> float:
    return metrics.precision_recall_density_coverage(support, points).precision


def conditional_bound_of(
    run: Run, model: EncoderMixtureDecoder, held_out: Tensor, split: HeldOut
) -> dict[str, float]:
    """Return the conditional bound of a run on rows of a split, drawn at random.

    Args:
        run: The run. The kernel variance at its end is used.
        model: Its model.
        held_out: Rows with shape ``(n, d)``, of which ``bound_rows`` are drawn at random.
        split: The name of the split.
    """
    config = run.config
    rows = choose_rows(held_out, min(config.bound_rows, len(held_out)), split, config.seed)
    generator = stream(config.seed, "evaluation-bound")
    bound = model.bound(rows, run.component_variance, generator=generator)
    return {
        "rows": len(rows),
        "log_value": float(bound.log_value),
        "log_limit": float(bound.log_limit),
        "gap": float(bound.gap),
        "tightness": float(bound.tightness),
        "error": bound.error,
    }


def can_measure(dataset: Dataset) -> bool:
    """Whether a data set has rows enough to measure samples against."""
    return min(len(dataset.test), len(dataset.train)) >= FEWEST_ROWS


def _count(held_out: Tensor, dataset: Dataset, samples: int | None) -> int:
    most = min(len(held_out), len(dataset.train))
    if most < FEWEST_ROWS:
        raise InputError(
            f"{dataset.name!r} has {most} held-out rows, at least {FEWEST_ROWS} are needed to "
            "measure samples: give more data, or a larger --test-fraction; the trained run is kept "
            "and can be sampled from"
        )
    if samples is None:
        return min(10_000, most)
    if not FEWEST_ROWS <= samples <= most:
        raise InputError(
            f"samples must lie between {FEWEST_ROWS} and {most}, the held-out rows of "
            f"{dataset.name!r}, got {samples}"
        )
    return samples
