"""The metrics of samples against held-out rows: their names, meanings, values and formats.

:mod:`hilbound.evaluation.evaluate` measures each of them twice, for a model and for real data.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from hilbound.bounds import marginal_bound
from hilbound.engine.seeding import stream
from hilbound.evaluation import metrics
from hilbound.evaluation.spaces import MetricSpace
from hilbound.functional import fidelity
from hilbound.mixture import GaussianMixture
from hilbound.variance import median_variance, of_component

# The fidelity needs singular values, so it uses at most this many rows.
_FIDELITY_ROWS = 1024


@dataclass(frozen=True)
class MetricInfo:
    """What a reader needs to know about a metric.

    Args:
        title: Its name in tables.
        better: Which value is better: a higher one, a lower one, or one near that of real data.
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
        # Not the tightness of the bound that was trained, which is of a batch and its own kernel.
        "Squared cosine",
        "higher",
        "<p,q>^2 / (<p,p><q,q>) at the median variance, 1 at q = p",
    ),
    "fidelity": MetricInfo(
        "Fidelity", "higher", "nuclear norm of the cross Gram matrix at the median variance"
    ),
    "classes_hit": MetricInfo(
        "Classes hit", "higher", "classes that at least one sample falls into"
    ),
    "class_entropy": MetricInfo(
        "Class entropy", "near real", "1 if all classes are equally frequent"
    ),
}

#: The metrics of reconstructions. Squared errors and distances are means over the coordinates.
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


def measure_in_space(test: Tensor, fake: Tensor, space: MetricSpace) -> dict[str, float]:
    """Return the metrics that need features only. The arguments are those of :func:`measure`."""
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
    test: Tensor, fake: Tensor, space: MetricSpace, classes: int | None, seed: int = 0
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
    v = of_component(variance)
    p, q = GaussianMixture(test, v), GaussianMixture(fake, v)
    few_p, few_q = (GaussianMixture(x[:_FIDELITY_ROWS], v) for x in (test, fake))
    values = measure_in_space(test, fake, space) | {
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


def reference_rows(held_out: Tensor, train: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return ``n`` held-out rows and ``n`` training rows, drawn at random, or their labels."""
    first = torch.randperm(len(held_out), generator=stream(seed, "evaluation-test"))[:n]
    second = torch.randperm(len(train), generator=stream(seed, "evaluation-train"))[:n]
    return held_out[first], train[second]


def format_metric(name: str, value: float | None) -> str:
    """Return a metric as tables print it, or a dash if there is none.

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


def format_entry(name: str, entry: Mapping[str, Any], side: str) -> str:
    """Return a metric of one side as tables print it, with its standard error if there is one.

    >>> format_entry("coverage", {"model": 0.9, "model_error": 0.042}, "model")
    '0.900 ± 0.042'
    """
    text = format_metric(name, entry[side])
    error = entry.get(f"{side}_error")
    return text if error is None else f"{text} ± {error:.2g}"


def percent(share: float) -> str:
    """Return a share as a percentage that stays readable when it is tiny.

    >>> percent(0.8712), percent(1e-9)
    ('87.1 %', '< 0.01 %')
    """
    return f"{100 * share:.1f} %" if share >= 1e-4 else "< 0.01 %"
