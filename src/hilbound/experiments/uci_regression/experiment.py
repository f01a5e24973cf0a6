"""UCI regression: densities of a target given a table, on published splits, one default for all."""

import itertools
import math
import os
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hilbound.datasets.arrays import read_archive
from hilbound.errors import DataError
from hilbound.experiments.base import (
    Cell,
    Claim,
    Experiment,
    Picture,
    Row,
    select,
    values_of,
)
from hilbound.experiments.uci_regression.methods import METHODS, Split, is_installed, measure
from hilbound.experiments.uci_regression.settings import GOALS, PUBLISHED, UciSettings
from hilbound.reports.drawing import PALETTE, canvas, tidy
from hilbound.reports.page import Table


class UciRegression(Experiment[UciSettings]):
    """Test negative log-likelihood, CRPS, coverage and seconds, for ours and for others."""

    name = "uci-regression"
    title = "UCI regression: conditional densities of tables"
    question = """
`ConditionalDensityEstimator` with one default for all tables, and with `effort="high"`, beside what
people would use instead. The tables have published splits; the number of a seed is that of the
split. *NLL* is the mean negative log density of the test targets in their own units; lower is
better. *CRPS* is the continuous ranked probability score; lower is better. *Coverage* is the share
of test targets inside the central interval of probability .9. Every choice of ours is made inside
`fit`, on held-out training rows.
"""

    def settings(self, *, quick: bool) -> UciSettings:
        """Return the four tables, or a made one for a few passes."""
        if quick:
            return UciSettings(sets=("made",), methods=("default", "boosting"), max_epochs=5)
        return UciSettings()

    def cells(
        self, settings: UciSettings, seeds: Sequence[int], rows: Sequence[Row]
    ) -> Iterable[Cell]:
        """Return every method on every split; slow ones on the first splits."""
        for seed in seeds:
            for method in settings.methods:
                if seed >= settings.few.get(method, len(seeds)):
                    continue
                if is_installed(method):
                    yield from (Cell.of(set=s, method=method, seed=seed) for s in settings.sets)

    def identity(self, settings: UciSettings, options: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what a row depends on: not which other tables, methods and splits there are."""
        names = {"max_epochs"} | ({"process_rows"} if options["method"] == "process" else set())
        return settings.model_dump(mode="json", include=names)

    def measure(self, settings: UciSettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Fit one method on one split."""
        split = split_of(options["set"], options["seed"])
        began, core = time.perf_counter(), time.process_time()
        row = measure(options["method"], split, settings)
        return row | {
            "rows": len(split.y),
            "wall_seconds": time.perf_counter() - began,
            "core_seconds": time.process_time() - core,
        }

    def claims(self, settings: UciSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return the goals, set by set."""
        goals = [(s, m) for s in settings.sets for m in GOALS.get(s, {})]
        return [_goal(rows, s, m) for s, m in goals if select(rows, set=s, method=m)] or [
            Claim("Everything runs", f"{len(rows)} cells on a made table", True)
        ]

    def tables(self, settings: UciSettings, rows: Sequence[Row]) -> list[Table]:
        """Return a table of all measures for each set."""
        return [_table(settings, rows, name) for name in settings.sets]

    def pictures(self, settings: UciSettings, rows: Sequence[Row], work: Path) -> Iterator[Picture]:
        """Draw the negative log-likelihoods beside each other."""
        yield _chart(settings, rows)

    def notes(self, settings: UciSettings, rows: Sequence[Row]) -> str:
        """Say what the figures are relative to."""
        few = [
            f"{METHODS[m][0]} ({count})"
            for m, count in settings.few.items()
            if select(rows, method=m)
        ]
        return f"""
± is the standard error over the splits. Where the numbers of splits differ, so do the test rows:
compare such lines with care. Measured on the first splits alone, for the sake of time:
{"; ".join(few) or "none"}.
The published figures are means over all splits, as their authors report them. "Pretrained" is a
network whose weights have to be downloaded.

Wine's targets are six integers, and a third of its test rows stand verbatim in training. A density
can be made as high as one likes there by narrow spikes. So the estimator has a least variance: that
of rounding to the targets' grid. The table also has the log probability of the integer, where no
spike can win. In CRPS the least variance is a cost: even a certain and right prediction pays
σ(√2 - 1)/√π = 0.067 there for its width. Quantiles may be the integers themselves and pay nothing.
The Gaussian process has no such least variance. Its low NLL on wine is made of
spikes on repeated rows, and its CRPS is the worst there.

Lower in CRPS than the default on the same splits: {_lower(settings, rows) or "none"}.

Quantiles have no density, and so no NLL. Their CRPS is the mean over ten levels of probability, .05
to .95. Their interval lies between the first and the last. NGBoost needs an older scikit-learn than
this library, and is left out where it is missing. Its published figures stand in the tables. The
Gaussian process sees at most {settings.process_rows:,} rows.

Seconds are those of one core, on a machine that did other work beside.
"""


def split_of(name: str, number: int) -> Split:
    """Return training and test rows with their targets.

    Raises:
        DataError: If the table is not there.
    """
    if name == "made":
        draw = np.random.default_rng(number)
        x = draw.normal(size=(120, 3))
        y = x[:, 0] + 0.3 * draw.normal(size=120)
        return Split(x[:100], y[:100], x[100:], y[100:], number)
    root = os.environ.get("HILBOUND_DATA")
    file = Path(root or ".") / "uci" / f"{name}.npz"
    if root is None or not file.is_file():
        raise DataError(
            f"{name!r} needs the file uci/{name}.npz: set HILBOUND_DATA to the folder that holds "
            "uci/, with the arrays features, target, train_0 to train_19 and test_0 to test_19"
        )
    data = read_archive(file, ("features", "target", f"train_{number}", f"test_{number}"))
    x, y = data["features"].astype(np.float64), data["target"].astype(np.float64)
    train, test = data[f"train_{number}"], data[f"test_{number}"]
    return Split(x[train], y[train], x[test], y[test], number)


def _with_error(values: Sequence[float], digits: int) -> str:
    if not values:
        return "–"
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    return f"{mean} ± {statistics.stdev(values) / math.sqrt(len(values)):.{digits}f}"


def _goal(rows: Sequence[Row], name: str, method: str) -> Claim:
    goal = GOALS[name][method]
    values = values_of(rows, "nll", set=name, method=method)
    mean = statistics.mean(values)
    return Claim(
        f"{name}, {METHODS[method][0]}: NLL at most {goal}",
        f"{_with_error(values, 3)} over {len(values)} splits",
        mean <= goal,
    )


def _lower(settings: UciSettings, rows: Sequence[Row]) -> str:
    """Say which other methods have a lower CRPS than the default, on the splits that both have."""
    found = []
    for name, method in itertools.product(settings.sets, settings.methods):
        own, other = (
            {row["seed"]: row["crps"] for row in select(rows, set=name, method=m)}
            for m in ("default", method)
        )
        both = sorted(own.keys() & other.keys())
        if method in {"default", "high"} or not both:
            continue
        ours, theirs = (statistics.mean(c[seed] for seed in both) for c in (own, other))
        if theirs < ours:
            found.append(
                f"{METHODS[method][0]} on {name} ({theirs:.3f} against {ours:.3f} on {len(both)})"
            )
    return "; ".join(found)


def _table(settings: UciSettings, rows: Sequence[Row], name: str) -> Table:
    columns = (("NLL", "nll", 3), ("CRPS", "crps", 3), ("coverage of .9", "coverage", 3))
    lines = [
        (
            METHODS[m][0],
            str(len(select(rows, set=name, method=m))),
            *(_with_error(values_of(rows, key, set=name, method=m), d) for _, key, d in columns),
            _with_error(values_of(rows, "integer_nll", set=name, method=m), 3),
            f"{statistics.mean(values_of(rows, 'core_seconds', set=name, method=m)):.0f}",
        )
        for m in settings.methods
        if select(rows, set=name, method=m)
    ]
    lines += [
        (f"published: {title}", "20", f"{value:.2f}", "–", "–", "–", "–")
        for title, value in PUBLISHED.get(name, {}).items()
    ]
    size = statistics.mean(values_of(rows, "rows", set=name))
    return Table(
        ("method", "splits", *(title for title, _, _ in columns), "NLL of integers", "seconds"),
        tuple(lines),
        f"{name}, {size:.0f} training rows",
    )


def _chart(settings: UciSettings, rows: Sequence[Row]) -> Picture:
    # Quantiles have no density.
    shown = [m for m in settings.methods if any("nll" in row for row in select(rows, method=m))]
    figure, _ = canvas(8.0, 2.2 + 0.25 * len(shown))
    figure.clear()
    axes = figure.subplots(1, len(settings.sets), sharey=True, squeeze=False)[0]
    for ax, name in zip(axes, settings.sets, strict=True):
        for place, m in enumerate(reversed(shown)):
            values = values_of(rows, "nll", set=name, method=m)
            if values:
                error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0
                color = PALETTE[0] if m in {"default", "high"} else "#888888"
                ax.errorbar(statistics.mean(values), place, xerr=error, fmt="o", color=color)
        best = PUBLISHED.get(name, {}).get("best parametric")
        if best is not None:
            ax.axvline(best, color="#888888", linestyle=":", linewidth=1)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("NLL")
        tidy(ax)
    axes[0].set_yticks(range(len(shown)), [METHODS[m][0] for m in reversed(shown)])
    return Picture(
        "nll",
        figure,
        "Test negative log-likelihood of every method on every table",
        "Test negative log-likelihood, mean and standard error; further left is better. The dotted "
        "line is the best published parametric method. Each panel has a scale of its own.",
    )


EXPERIMENT = UciRegression()
