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
from hilbound.evaluation.conditions import agreement, conditioned
from hilbound.evaluation.floors import batch_bound, tracked_bound
from hilbound.evaluation.foresight import MOST_SAMPLES
from hilbound.evaluation.latent import measure_latent
from hilbound.evaluation.quality import METRICS, RECONSTRUCTION, measure, reference_rows
from hilbound.evaluation.reconstruction import reconstruction_errors, rows_with_features
from hilbound.evaluation.spaces import MetricSpace, fit_space
from hilbound.evaluation.telling import Tell, silent
from hilbound.evaluation.uncertainty import MOST_ROWS, standard_errors
from hilbound.models.autoencoders import EncoderMixtureDecoder
from hilbound.models.base import DensityModel
from hilbound.models.classes import telling, with_encoder
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
    *,
    tell: Tell = silent,
) -> dict[str, Any]:
    """Measure a run, write its ``metrics.json`` and return the content.

    The bound is measured with what real data and a single point reach in the model's place. For a
    model with an encoder, its reconstructions are measured, too, and the bound is the conditional
    one, if the features have noise. For a :class:`~hilbound.models.LatentMixture`, so is the
    density of its features.

    Args:
        run: The run.
        samples: How many samples and held-out rows to compare. By default all held-out rows are
            used, at most 10,000.
        split: The held-out rows: ``"validation"`` for choosing, ``"test"`` for final figures.
        tell: Called with a few words before each part of the work.

    Raises:
        InputError: If there are too few rows, or the run is damaged.
    """
    tell("reading the data")
    began = time.perf_counter()
    dataset, model = run.dataset, run.model
    held_out = getattr(dataset, split)
    n = _count(held_out, dataset, samples)
    tell("fitting the space of the metrics")
    space = fit_space(dataset, seed=run.config.seed)
    fake = model.sample(n, stream(run.config.seed, "evaluation")).to(held_out)
    test, real = reference_rows(held_out, dataset.train, n, run.config.seed)
    content: dict[str, Any] = {
        "split": split,
        "samples": n,
        "features": space.description,
        "classifier_accuracy": space.accuracy,
        "seconds": 0.0,
        "metrics": _metrics(run, test, {"model": fake, "real": real}, space, tell),
    }
    content |= _of_the_model(run, split, space, (test[:_RECONSTRUCTED], real), tell)
    content["seconds"] = time.perf_counter() - began
    far = far_from_data(real, fake)
    if far is not None:
        content["far_from_data"] = far.message
    _keep(run, content, far)
    return content


def _metrics(
    run: Run, test: Tensor, sides: dict[str, Tensor], space: MetricSpace, tell: Tell
) -> dict[str, dict[str, Any]]:
    """Return every metric of the samples, and of real data in their place; of few rows, errors."""

    def values_of(held_out: Tensor, rows: Tensor) -> dict[str, float]:
        return measure(held_out, rows, space, run.dataset.classes, run.config.seed)

    measured, errors = {}, {}
    for side, rows in sides.items():
        tell(f"{'samples' if side == 'model' else 'real data'} against held-out rows")
        measured[side] = values_of(test, rows)
        if len(test) <= MOST_ROWS:
            errors[f"{side}_error"] = standard_errors(values_of, test, rows)
    return {
        name: {side: values[name] for side, values in (measured | errors).items()}
        | {"better": METRICS[name].better}
        for name in measured["model"]
    }


def _of_the_model(
    run: Run,
    split: HeldOut,
    space: MetricSpace,
    sides: tuple[Tensor, Tensor],
    tell: Tell,
) -> dict[str, Any]:
    """Return what depends on the model: its bound, reconstructions, features, a condition.

    Reconstructions are of the first of the two sides, held-out rows; the second is training rows.
    """
    test, real = sides
    dataset, model, seed = run.dataset, run.model, run.config.seed
    held_out, labels = dataset.split(split)
    inner, told = with_encoder(model), conditioned(model)
    content = _bounds(run, held_out, split, labels, tell)
    if inner is not None:
        tell("reconstructions")
        pair = None
        if told is not None and labels is not None and dataset.train_labels is not None:
            chosen = reference_rows(labels, dataset.train_labels, len(real), seed)
            pair = (chosen[0][: len(test)], chosen[1])
        content["reconstruction"] = measure_reconstructions(
            model, test, real, space, seed, labels=pair
        )
    if isinstance(model, LatentMixture):
        tell("the density of the features")
        content["latent"] = measure_latent(model, held_out, dataset.train, split, seed)
    if told is not None:
        content["condition"] = agreement(told, dataset, dataset.test_labels, space, seed)
    return content


def _bounds(
    run: Run, held_out: Tensor, split: HeldOut, labels: Tensor | None, tell: Tell
) -> dict[str, Any]:
    """Return the entry of the bound that fits the model, or nothing."""
    tell("the bound")
    if isinstance(with_encoder(run.model), EncoderMixtureDecoder):
        return {"conditional_bound": tracked_bound(run, held_out, split, labels)}
    bound = batch_bound(run, held_out)
    return {} if bound is None else {"batch_bound": bound}


def _keep(run: Run, content: dict[str, Any], far: Finding | None) -> None:
    """Write what was measured; where that cannot be, it is still worth to be seen."""
    try:
        if far is not None:
            run.note(run.read_json("run.json")["step"], asdict(far))
        run.write_json("metrics.json", content)
    except OSError as error:
        log.warning("metrics.json of run %s cannot be written: %s", run.path, error.strerror)


def measure_reconstructions(
    model: DensityModel,
    x: Tensor,
    train: Tensor,
    space: MetricSpace,
    seed: int = 0,
    *,
    labels: tuple[Tensor, Tensor] | None = None,
) -> dict[str, Any]:
    """Return how near, how different and how lifelike the reconstructions of inputs are.

    If the features have noise, real data are measured in the same way: training rows that share
    the features of the input (:func:`~hilbound.evaluation.reconstruction.rows_with_features`). The
    validity of real data is that of the inputs themselves.

    Args:
        model: The model, which has an encoder.
        x: Held-out rows with shape ``(n, d)``.
        train: Training rows with shape ``(N, d)``.
        space: Where the support of the training rows is measured.
        seed: Seed of the draws.
        labels: Classes of both, for a model that is told them.

    Raises:
        InputError: If the model has no encoder.
    """
    inner = with_encoder(model)
    if inner is None:
        raise InputError(f"a {type(model).__name__} has no encoder and cannot reconstruct")
    with telling(model, None if labels is None else labels[0]):
        drawn = inner.reconstruct(
            x.to(model.head.variance), _TIMES, stream(seed, "evaluation-reconstructions")
        ).to(x)
    support = space.transform(train)
    values = reconstruction_errors(x, drawn) | {
        "validity": _inside(support, space.transform(drawn.flatten(0, 1)))
    }
    real: dict[str, float] = {"validity": _inside(support, space.transform(x))}
    if inner.variance_y is not None:
        generator = stream(seed, "evaluation-rows-with-features")
        same = None if labels is None else labels[0][:, None] == labels[1]
        shared = rows_with_features(inner, x, train, _TIMES, generator, same=same)
        real |= reconstruction_errors(x, shared)
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
        return min(MOST_SAMPLES, most)
    if not FEWEST_ROWS <= samples <= most:
        raise InputError(
            f"samples must lie between {FEWEST_ROWS} and {most}, the held-out rows of "
            f"{dataset.name!r}, got {samples}"
        )
    return samples
