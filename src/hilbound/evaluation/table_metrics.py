"""What is measured of densities predicted for a table's targets, beside two baselines.

The baselines know the training targets and none of the other columns: a smoothed histogram and one
Gaussian. What a model gains over them is what the columns tell about the target.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilbound.engine.seeding import stream
from hilbound.evaluation import calibration
from hilbound.evaluation.calibration import Floats
from hilbound.mixture import GaussianMixture

#: Probabilities of the central intervals whose coverage is measured.
LEVELS = (0.5, 0.8, 0.9, 0.95)
#: Whose predictions are measured.
SIDES = ("model", "histogram", "gaussian")
#: What tables call the baselines.
BASELINES: Mapping[str, str] = {"histogram": "histogram", "gaussian": "one Gaussian"}
_PREDICTED = 50_000  # rows that the importance of all columns may ask for
_MOST_REPEATS = 5
_MOST_ROWS = 1000  # of which the importance is measured


@dataclass(frozen=True)
class TableMetric:
    """What a reader needs to know about a metric of a table.

    Args:
        title: Its name in tables.
        better: What value is best.
        meaning: One line for the report.
    """

    title: str
    better: str
    meaning: str


TABLE_METRICS: Mapping[str, TableMetric] = {
    "log_score": TableMetric("Log score", "higher", "mean log density, in nats"),
    "crps": TableMetric("CRPS", "lower", "error of the whole distribution"),
    "rmse": TableMetric("RMSE", "lower", "error of the predicted mean"),
    **{
        f"coverage_{level:g}": TableMetric(
            f"Coverage of {100 * level:g} % intervals",
            f"{100 * level:g} %",
            "share of values inside",
        )
        for level in LEVELS
    },
}


def measure_table(
    q: GaussianMixture, y: Floats, train: Floats, names: Sequence[str]
) -> dict[str, Any]:
    """Measure predictions, and the baselines beside them.

    Args:
        q: The predictions, with batch shape ``(n,)`` in ``d`` coordinates.
        y: The targets that came, with shape ``(n, d)``.
        train: The training targets, with shape ``(m, d)``.
        names: The names of the targets.

    Returns:
        What JSON can say: ``rows``, ``log_score`` of all targets together with its standard error
        ``log_score_error``, and for each of the ``targets`` every metric of ``TABLE_METRICS`` for
        every one of ``SIDES``.
    """
    scores = calibration.log_scores(q, y)
    targets = {
        name: _one_target(q.marginal([i]), y[:, [i]], train[:, i]) for i, name in enumerate(names)
    }
    together = {side: sum(t["log_score"][side] for t in targets.values()) for side in SIDES}
    return {
        "rows": len(y),
        "log_score": together | {"model": float(scores.mean())},
        "log_score_error": float(scores.std()) / math.sqrt(len(y)),
        "targets": targets,
    }


def _one_target(q: GaussianMixture, y: Floats, train: Floats) -> dict[str, dict[str, float]]:
    sides = {
        "model": q,
        "histogram": calibration.smoothed_histogram(train, len(y)),
        "gaussian": calibration.one_gaussian(train, len(y)),
    }
    measured = {side: _measure(prediction, y) for side, prediction in sides.items()}
    return {name: {side: measured[side][name] for side in SIDES} for name in TABLE_METRICS}


def _measure(q: GaussianMixture, y: Floats) -> dict[str, float]:
    shares = calibration.coverage(calibration.pit_values(q, y), LEVELS)[:, 0]
    return {
        "log_score": float(calibration.log_scores(q, y).mean()),
        "crps": float(calibration.crps(q, y).mean()),
        "rmse": float(np.sqrt(np.mean((q.mean.numpy() - y) ** 2))),
        **{f"coverage_{level:g}": float(s) for level, s in zip(LEVELS, shares, strict=True)},
    }


def measure_importance(
    score: Callable[[str, NDArray[np.int64]], Floats], names: Sequence[str], n: int, seed: int
) -> list[dict[str, Any]]:
    """Measure which columns matter; see :func:`~hilbound.evaluation.calibration`.

    Args:
        score: As :func:`~hilbound.evaluation.calibration.permutation_importance` takes it.
        names: The columns.
        n: The number of rows that ``score`` scores.
        seed: Seed of the shuffling.

    Returns:
        ``name``, ``drop`` and ``error`` of every column, the most important first; none where there
        are fewer than two rows.
    """
    if n < 2 or not names:
        return []
    repeats = max(1, min(_MOST_REPEATS, _PREDICTED // (n * len(names))))
    found = calibration.permutation_importance(
        score, names, n, repeats=repeats, generator=stream(seed, "importance")
    )
    return [asdict(one) for one in found]


def rows_for_importance(n: int) -> int:
    """Return of how many of ``n`` rows the importance is measured.

    >>> rows_for_importance(90), rows_for_importance(10**6)
    (90, 1000)
    """
    return min(n, _MOST_ROWS)


def format_value(name: str, value: float) -> str:
    """Return a metric's value as tables show it.

    >>> format_value("coverage_0.9", 0.875), format_value("log_score", -5.4321)
    ('87.5 %', '-5.432')
    """
    return f"{100 * value:.1f} %" if name.startswith("coverage") else f"{value:.4g}"
