"""How good a run is: its samples against held-out data, and real data against real data beside.

A figure alone says little: coverage 0.93 is perfect where real data reach 0.93. So every metric is
measured twice with the same code, once for the model's samples and once for as many training rows
in their place. The second is the floor that no model without memorising should be expected to pass.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hilbound import metrics
from hilbound.autoencoders import EncoderMixtureDecoder
from hilbound.bounds import marginal_bound
from hilbound.datasets import Dataset
from hilbound.errors import InputError
from hilbound.feature_model import FeatureModel
from hilbound.features import FeatureSpace, fit_features
from hilbound.functional import fidelity
from hilbound.mixture import GaussianMixture
from hilbound.objectives import create_objective
from hilbound.planning import load_run_dataset
from hilbound.reconstruction import choose_rows, reconstruction_errors, rows_with_features
from hilbound.runs import Run
from hilbound.seeding import stream
from hilbound.variance import median_variance

# The fidelity needs singular values: rows beyond these are left out of it.
_FIDELITY_ROWS = 1024
# Inputs that are reconstructed, each so many times.
_RECONSTRUCTED, _TIMES = 500, 10
# Neighbourhoods and covariances of fewer rows say nothing.
_FEWEST = 10


@dataclass(frozen=True)
class MetricInfo:
    """What a reader needs to know about a metric.

    Args:
        title: Its name in tables.
        better: Whether a higher or a lower value is better, or one near that of real data.
        meaning: One line for the report.
    """

    title: str
    better: Literal["higher", "lower", "near real"]
    meaning: str


METRICS: Mapping[str, MetricInfo] = {
    "precision": MetricInfo("Precision", "higher", "share of samples inside the data's support"),
    "recall": MetricInfo("Recall", "higher", "share of the data inside the samples' support"),
    "density": MetricInfo("Density", "higher", "how many data neighbourhoods hold a sample"),
    "coverage": MetricInfo("Coverage", "higher", "share of data points with a sample nearby"),
    "frechet_distance": MetricInfo(
        "Fréchet distance", "lower", "between Gaussians fitted to the features"
    ),
    "vendi_score": MetricInfo("Vendi score", "near real", "effective number of different samples"),
    "sliced_wasserstein": MetricInfo(
        "Sliced Wasserstein", "lower", "mean transport distance along random directions"
    ),
    "squared_mmd": MetricInfo("Squared MMD", "lower", "unbiased, at the median variance"),
    "tightness": MetricInfo(
        "Tightness", "higher", "<p,q>^2 / (<p,p><q,q>) at the median variance, 1 at q = p"
    ),
    "fidelity": MetricInfo(
        "Fidelity", "higher", "nuclear norm of the cross Gram matrix at the median variance"
    ),
    "classes_hit": MetricInfo(
        "Classes hit", "higher", "classes that at least one sample falls into"
    ),
    "class_entropy": MetricInfo(
        "Class entropy", "near real", "1 where all classes are as frequent"
    ),
}

#: What is measured of reconstructions; squares are for one coordinate.
RECONSTRUCTION: Mapping[str, MetricInfo] = {
    "error_of_mean": MetricInfo(
        "Squared error of the mean", "lower", "of the mean reconstruction, for one coordinate"
    ),
    "error_of_best": MetricInfo(
        "Squared error of the best", "lower", "of the reconstruction nearest to the input"
    ),
    "pairwise_distance": MetricInfo(
        "Squared distance of pairs", "near real", "between two reconstructions of one input"
    ),
    "validity": MetricInfo(
        "Validity", "higher", "share of reconstructions inside the support of training rows"
    ),
}


def measure_features(test: Tensor, fake: Tensor, space: FeatureSpace) -> dict[str, float]:
    """Return those metrics that look at features alone; arguments as in :func:`measure`."""
    real_features, fake_features = space.transform(test), space.transform(fake)
    prdc = metrics.precision_recall_density_coverage(real_features, fake_features)
    return {
        "precision": prdc.precision,
        "recall": prdc.recall,
        "density": prdc.density,
        "coverage": prdc.coverage,
        "frechet_distance": metrics.frechet_distance(real_features, fake_features),
        "vendi_score": metrics.vendi_score(fake_features),
    }


def measure(
    test: Tensor, fake: Tensor, space: FeatureSpace, classes: int | None, seed: int = 0
) -> dict[str, float]:
    """Return every metric of samples against held-out rows, by the names of :data:`METRICS`.

    Args:
        test: Held-out rows with shape ``(n, d)``.
        fake: Samples with shape ``(m, d)``.
        space: Where precision, recall, density, coverage, Fréchet and Vendi are measured.
        classes: Number of classes, or ``None`` without labels.
        seed: Seed of the random directions.
    """
    variance = median_variance(test, generator=stream(seed, "metric-median"))
    p, q = GaussianMixture(test, variance / 2), GaussianMixture(fake, variance / 2)
    few_p, few_q = (GaussianMixture(x[:_FIDELITY_ROWS], variance / 2) for x in (test, fake))
    values = measure_features(test, fake, space) | {
        "sliced_wasserstein": metrics.sliced_wasserstein(
            test, fake, generator=stream(seed, "directions")
        ),
        "squared_mmd": metrics.squared_mmd(test, fake, variance),
        "tightness": float(marginal_bound(p, q).tightness),
        "fidelity": float(fidelity(few_p, few_q)),
    }
    if space.predict is not None and classes is not None:
        histogram = metrics.class_histogram(space.predict(fake), classes)
        values |= {"classes_hit": histogram.hit, "class_entropy": histogram.entropy}
    return values


Split = Literal["validation", "test"]


def evaluate(
    run: Run,
    samples: int | None = None,
    split: Split = "test",
    *,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Measure a run, write its ``metrics.json`` and return what stands in it.

    Of a model with an encoder its reconstructions are measured, too, and of an
    :class:`~hilbound.models.EncoderMixtureDecoder` its conditional bound.

    Args:
        run: The run.
        samples: How many samples and held-out rows to compare; by default as many as there are
            held-out rows, at most 10,000.
        split: The held-out rows: ``"validation"`` for choosing, ``"test"`` for final figures.
        dataset: The run's data, if they are loaded already.

    Raises:
        InputError: If there are fewer rows than asked for, or the run is damaged.
    """
    began = time.perf_counter()
    dataset = load_run_dataset(run) if dataset is None else dataset
    model = run.load_model()
    held_out = getattr(dataset, split)
    n = _count(held_out, dataset, samples)
    space = fit_features(dataset, seed=run.config.seed)
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
    content["seconds"] = time.perf_counter() - began
    run.write_json("metrics.json", content)
    return content


def measure_reconstructions(
    model: FeatureModel, x: Tensor, train: Tensor, space: FeatureSpace, seed: int = 0
) -> dict[str, Any]:
    """Return how near, how different and how lifelike the reconstructions of inputs are.

    Real data stand beside where the features have noise: training rows that share the features of
    the input (:func:`~hilbound.reconstruction.rows_with_features`). The real validity is that of
    the inputs themselves.

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
    run: Run, model: EncoderMixtureDecoder, held_out: Tensor, split: Split
) -> dict[str, float]:
    """Return the conditional bound of a run on rows of a split, drawn at random.

    Args:
        run: The run, whose kernel variance at the end is taken.
        model: Its model.
        held_out: Rows with shape ``(n, d)``, of which ``bound_rows`` are drawn at random.
        split: Their name.
    """
    config = run.config
    rows = choose_rows(held_out, min(config.bound_rows, len(held_out)), split, config.seed)
    kernel = run.read_json("run.json")["variance"]["end"]
    variance = create_objective(config.objective).component_variance(kernel)
    generator = stream(config.seed, "evaluation-bound")
    bound = model.bound(rows, variance, generator=generator)
    return {
        "rows": len(rows),
        "log_value": float(bound.log_value),
        "log_limit": float(bound.log_limit),
        "gap": float(bound.gap),
        "tightness": float(bound.tightness),
        "error": bound.error,
    }


def _count(held_out: Tensor, dataset: Dataset, samples: int | None) -> int:
    most = min(len(held_out), len(dataset.train))
    if most < _FEWEST:
        raise InputError(
            f"{dataset.name!r} has {most} held-out rows, at least {_FEWEST} are needed to measure "
            "samples: give more data, or a larger --test-fraction; the trained run is kept and can "
            "be sampled from"
        )
    if samples is None:
        return min(10_000, most)
    if not _FEWEST <= samples <= most:
        raise InputError(
            f"samples must lie between {_FEWEST} and {most}, the held-out rows of "
            f"{dataset.name!r}, got {samples}"
        )
    return samples


def reference_rows(held_out: Tensor, train: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return ``n`` held-out rows and ``n`` training rows, drawn at random."""
    first = torch.randperm(len(held_out), generator=stream(seed, "evaluation-test"))[:n]
    second = torch.randperm(len(train), generator=stream(seed, "evaluation-train"))[:n]
    return held_out[first], train[second]


def format_metric(name: str, value: float | None) -> str:
    """Return a metric as tables print it, and a dash where there is none.

    >>> format_metric("coverage", 0.9312), format_metric("frechet_distance", 31.249)
    ('0.931', '31.2')
    """
    if value is None:
        return "–"
    if name == "classes_hit":
        return f"{value:.0f}"
    if name in {"frechet_distance", "vendi_score"}:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.3f}"
