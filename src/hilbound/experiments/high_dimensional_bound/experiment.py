r"""High-dimensional bound: the tightness of all training rows, exact, with its error bars.

The constants :math:`(2\pi v)^{-d/2}` of Gaussians in many dimensions are said to make the bound
intractable. They cancel in the tightness

.. math:: \tau = \frac{\langle p, q \rangle^2}{\langle p, p \rangle \langle q, q \rangle}

and need not be formed. What is left is a sum over pairs, which is exact up to rounding; the rest of
the error bar is statistics (:mod:`hilbound.experiments.high_dimensional_bound.sums`).
"""

import math
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hilbound import datasets
from hilbound.bounds import marginal_bound
from hilbound.engine.seeding import stream
from hilbound.experiments.base import Cell, Claim, Experiment, Picture, Row, select, spread, train
from hilbound.experiments.high_dimensional_bound.page import (
    gap_picture,
    most,
    sample_picture,
    tables,
)
from hilbound.experiments.high_dimensional_bound.settings import HighSettings, Source
from hilbound.experiments.high_dimensional_bound.sums import (
    Limit,
    direct_log_inner,
    error_of_one,
    error_of_rows,
    measure_bound,
    pooled_gap,
    rounding_error,
)
from hilbound.mixture import GaussianMixture
from hilbound.models.base import DensityModel
from hilbound.reports.page import Table

_LARGEST = math.log10(torch.finfo(torch.float64).max)

FULL = HighSettings(
    sources=(
        Source(title="MNIST", data="mnist", steps=300, batch_size=512, width=512),
        Source(
            title="CIFAR-10, upscaled from 32 x 32 to 64 x 64",
            data="cifar10",
            image_size=64,
            steps=150,
            batch_size=256,
            width=256,
        ),
    )
)

#: What should be known about a data set beside its figures.
REMARKS = {
    "cifar10": "Upscaling adds coordinates and no detail: it is the arithmetic of {dim:,} "
    "coordinates that is tested, on images that those of CelebA could replace."
}

#: Training rows where nothing is missing, of data that may be there in part: five batches of CIFAR
#: without those images that validate.
COMPLETE = {"cifar10": 45_000}

QUICK = HighSettings(
    sources=(Source(title="digits", data="digits", steps=10, batch_size=64, width=16),),
    draws=((32, 3), (128, 2)),
    probe=200,
    groups=4,
    oracle=50,
)


class HighDimensionalBound(Experiment[HighSettings]):
    """Log value, log limit and tightness of all training rows, with what they are uncertain by."""

    name = "high-dimensional-bound"
    title = "The bound in high dimension: exact, for all rows, with its error bar"
    question = r"""
A density of $d$ coordinates holds the constant $(2\pi v)^{-d/2}$. It is said to make the scalar
bound $\langle p,q\rangle^2 / \langle q,q\rangle \le \langle p,p\rangle$ intractable. Here a small
mixture density network is trained with the scalar cost. Then the bound of *all* training rows is
computed to the last pair: against as many centres in the first seed, against fewer in the others.

Three things may be wrong with such a figure, and each gets its number. *Rounding* has a
certificate, and is compared with direct summation in float64. The *draw* of the centres is
repeated. The *bias* of few centres or rows is known in closed form. Half of the training rows
against the other half show what a perfect model would reach.
"""

    def settings(self, *, quick: bool) -> HighSettings:
        """Return MNIST and images of 12,288 coordinates, or the digits."""
        return QUICK if quick else FULL

    def cells(
        self,
        settings: HighSettings,
        seeds: Sequence[int],
        rows: Sequence[Row],
    ) -> Iterable[Cell]:
        """Return one training and its bounds for every data set and seed."""
        for source in settings.sources:
            for seed in seeds:
                yield Cell.of(data=source.data, all_centers=seed == seeds[0], seed=seed)

    def notes(self, settings: HighSettings, rows: Sequence[Row]) -> str:
        """Return what the images were."""
        lines = [_finer(settings, rows), "", "## The data", ""]
        lines += [_data(source, select(rows, data=source.data)[0]) for source in settings.sources]
        return "\n".join(lines)

    def measure(self, settings: HighSettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Train once, and bound what was trained in every way."""
        source = next(s for s in settings.sources if s.data == options["data"])
        seed = options["seed"]
        began = time.process_time()
        run = train(
            folder,
            objective="scalar",
            seed=seed,
            variance=settings.variance,
            validate_every=source.steps,
            **source.image_options,
            **source.model_dump(exclude={"title", "image_size"}),
        )
        trained = time.process_time() - began
        model, v = run.model, run.read_json("run.json")["variance"]["end"] / 2
        x = datasets.load(source.data, seed=seed, **source.image_options).train
        with torch.no_grad():
            bounds = all_bounds(settings, x, model, v, options)
            return {"dim": x.shape[1], "rows": len(x), "kernel": 2 * v, "training": trained} | {
                "bounds": bounds,
                "batch": _batch_bound(x, model, v, source.batch_size, seed),
                "variances": _by_variance(settings, x, model, v, seed),
                "oracle": against_oracle(*_pair(x, model, settings.oracle, seed), v),
                "errors": _standard_errors(settings, x, model, v, bounds),
            }

    def claims(self, settings: HighSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return what was said about high dimension, and what came out."""
        return [
            _tractable(rows),
            _exact(rows),
            _negligible(rows),
            _unbiased(settings, rows),
            _tells(settings, rows),
        ]

    def tables(self, settings: HighSettings, rows: Sequence[Row]) -> list[Table]:
        """Return the bounds, their bias and spread, the numerics, and other variances."""
        return tables(settings, rows)

    def pictures(
        self, settings: HighSettings, rows: Sequence[Row], work: Path
    ) -> Iterator[Picture]:
        """Draw the gap against the number of centres, and samples of the models."""
        yield gap_picture(settings, rows)
        yield sample_picture(settings, rows, work)


def all_bounds(
    settings: HighSettings, x: Tensor, model: DensityModel, v: float, options: Mapping[str, Any]
) -> list[Row]:
    """Return the bounds of all rows: many draws of few centres, and one of as many as rows.

    The last one has its certificate, and the seconds that it and its limit took.
    """
    sizes = [size for size, times in settings.draws for _ in range(times)]
    if options["all_centers"]:
        sizes.append(len(x))
    seconds = [time.process_time()]
    limit = Limit.of(x, v)
    seconds.append(time.process_time())
    found = []
    for k, size in enumerate(sizes):
        centers = model.sample(size, stream(options["seed"], "high-dimensional", k))
        seconds.append(time.process_time())
        found.append(measure_bound(limit, centers))
    took = seconds[1] - seconds[0] + time.process_time() - seconds[-1]
    found[-1] |= {"error": rounding_error(x, centers, v), "took": took}
    if options["all_centers"]:
        found.append(_halves(x, v, options["seed"]))
    return found


def _halves(x: Tensor, v: float, seed: int) -> Row:
    """Return the bound of half of the rows as data and the other half as centres."""
    order = torch.randperm(len(x), generator=stream(seed, "halves"))
    first, second = x[order[: len(x) // 2]], x[order[len(x) // 2 :]]
    error = rounding_error(first, second, v)
    return measure_bound(Limit.of(first, v), second) | {"real": True, "error": error}


def _pair(x: Tensor, model: DensityModel, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return n rows and n centres, or as many as there are."""
    n = min(n, len(x))
    chosen = torch.randperm(len(x), generator=stream(seed, "some-rows"))[:n]
    return x[chosen], model.sample(n, stream(seed, "some-centers"))


def _batch_bound(x: Tensor, model: DensityModel, v: float, size: int, seed: int) -> Row:
    rows, centers = _pair(x, model, size, seed)
    return measure_bound(Limit.of(rows, v), centers)


def _by_variance(
    settings: HighSettings, x: Tensor, model: DensityModel, v: float, seed: int
) -> list[Row]:
    """Return the bounds of some rows at other variances, for the model and for real data."""
    n = min(settings.probe, len(x) // 2)
    real, centers = _pair(x, model, n, seed)
    other = x[torch.randperm(len(x), generator=stream(seed, "some-rows"))[n : 2 * n]]
    found = []
    for factor in settings.factors:
        limit = Limit.of(real, factor * v)
        gaps = [measure_bound(limit, points)["unbiased_gap"] for points in (centers, other)]
        found.append({"factor": factor, "model": gaps[0], "real": gaps[1]})
    return found


def _standard_errors(
    settings: HighSettings, x: Tensor, model: DensityModel, v: float, bounds: Sequence[Row]
) -> Row:
    """Return the standard errors that one row or one centre would leave in the gap."""
    few = settings.draws[0][0]
    gaps = [b["unbiased_gap"] for b in bounds if b["centers"] == few and not b.get("real")]
    centers = model.sample(settings.draws[1][0], stream(0, "centers-of-groups"))
    return {
        "of_row": error_of_rows(x, centers, v, settings.groups),
        "of_center": error_of_one(gaps, few),
    }


def against_oracle(x: Tensor, centers: Tensor, v: float) -> Row:
    """Return a gap summed up directly in float64, and how far others are from it.

    The others are the library's, a difference of plain float32 logarithms, and a quotient of
    densities, which may not exist.
    """
    sums = [direct_log_inner(*pair, v) for pair in ((x, x), (x, centers), (centers, centers))]
    log_pp, log_pq, log_qq = sums
    exact = log_pp + log_qq - 2 * log_pq
    p, q = GaussianMixture(x, v), GaussianMixture(centers, v)
    plain = float(p.log_norm() + q.log_norm() - 2 * p.log_inner(q))
    densities = [math.exp(s) if s / math.log(10) < _LARGEST else math.inf for s in sums]
    return {
        "size": len(x),
        "gap": exact,
        "difference": abs(float(marginal_bound(p, q).gap) - exact),
        "certified": rounding_error(x, centers, v),
        "float32_difference": abs(plain - exact),
        "exponent": log_pp / math.log(10),
        "exponent_of_peak": -0.5 * x.shape[1] * math.log10(4 * math.pi * v),
        # With zero or infinity in the place of a density there is no quotient.
        "quotient": all(0 < a < math.inf for a in densities),
    }


def _sizes(row: Row, centers: int) -> list[Row]:
    return [b for b in row["bounds"] if b["centers"] == centers and not b.get("real")]


def _tractable(rows: Sequence[Row]) -> Claim:
    complete = [row for row in rows if row["all_centers"]]
    parts = [
        f"d = {row['dim']:,}: log limit {most(row)['log_limit']:,.3f} and gap "
        f"{most(row)['gap']:.6f} nats from {row['rows']:,} rows and {most(row)['centers']:,} "
        f"centres in {most(row)['took']:.0f} s of one "
        f"core, where the limit itself is 10^{row['oracle']['exponent']:,.0f} and a quotient of "
        f"float64 densities {'exists' if row['oracle']['quotient'] else 'does not exist'}"
        for row in complete
    ]
    holds = all(math.isfinite(most(row)["gap"]) and most(row)["gap"] >= 0 for row in complete)
    return Claim(
        "The bound of all rows can be computed, at 12,288 coordinates as at 784",
        "; ".join(parts),
        holds,
    )


def _exact(rows: Sequence[Row]) -> Claim:
    worst = max(row["oracle"]["difference"] for row in rows)
    inside = all(row["oracle"]["difference"] <= row["oracle"]["certified"] for row in rows)
    plain = max(row["oracle"]["float32_difference"] for row in rows)
    return Claim(
        "It is exact: the gap differs from direct summation in float64 by less than is certified",
        f"by {worst:.1g} nats at most, certified {max(r['oracle']['certified'] for r in rows):.1g};"
        f" as a difference of plain float32 logarithms it would be off by up to {plain:.1g}",
        inside,
        theorem=True,
    )


def _negligible(rows: Sequence[Row]) -> Claim:
    shares = [
        (most(row)["error"], row["errors"]["of_center"] / math.sqrt(most(row)["centers"]))
        for row in rows
    ]
    return Claim(
        "The error bar is statistics: what rounding may do is less than the standard error of the "
        "drawn centres, even with the most of them",
        f"at most {max(a for a, _ in shares):.1g} nats by rounding, standard errors from "
        f"{min(b for _, b in shares):.1g} nats",
        all(a < b for a, b in shares),
    )


def _unbiased(settings: HighSettings, rows: Sequence[Row]) -> Claim:
    few, times = settings.draws[0]
    parts, logs, verdicts = [], [], []
    for source in settings.sources:
        own = select(rows, data=source.data)
        plain, rest = (
            statistics.mean(
                statistics.mean(b[name] for b in _sizes(row, few)) - most(row)[name] for row in own
            )
            for name in ("gap", "unbiased_gap")
        )
        variances = [row["errors"]["of_center"] ** 2 / (few * times) for row in own]
        bar = math.sqrt(statistics.mean(variances) / len(own))
        verdicts.append(abs(rest) <= max(0.25 * abs(plain), 2 * bar))
        pooled = statistics.mean(
            pooled_gap(_sizes(row, few)) - most(row)["unbiased_gap"] for row in own
        )
        parts.append(f"{source.title}: {plain:+.4f} nats as it is, {rest:+.4f} ± {bar:.4f} without")
        logs.append(f"{source.title} {pooled:+.4f} ± {bar:.4f}")
    return Claim(
        f"Most of the bias of {few:,} centres is that of pairs of one component with itself: "
        "without them no more than a quarter of it is left, or two standard errors",
        "; ".join(parts),
        all(verdicts),
        ""
        if all(verdicts)
        else "If what is left comes from taking logarithms of sums that vary, it goes away where "
        f"the sums of all {times} draws are averaged first. Left is then: {', '.join(logs)}.",
    )


def _data(source: Source, row: Row) -> str:
    """Return in words what a data set was, and how much of it there was."""
    n, complete = row["rows"], COMPLETE.get(source.data, row["rows"])
    part = f", {n / complete:.0%} of the {complete:,} of the complete set" if n < complete else ""
    remark = REMARKS.get(source.data, "").format(dim=row["dim"])
    return f"- {source.title}: {n:,} training rows{part}. {remark}".strip()


def _finer(settings: HighSettings, rows: Sequence[Row]) -> str:
    """Return in words how the gap grows at the smallest variance."""
    parts = []
    for source in settings.sources:
        own = select(rows, data=source.data)
        small, usual = (
            statistics.mean(r["variances"][settings.factors.index(f)]["model"] for r in own)
            for f in (min(settings.factors), 1.0)
        )
        parts.append(f"{small / usual:.0f} times as large for {source.title}")
    return (
        "A tightness near 1 is one at the resolution of its kernel: what is finer than that, such "
        f"as sharp edges, it does not see. At {min(settings.factors):.2g} of the variance the gap "
        f"of the same models is {' and '.join(parts)}."
    )


def _tells(settings: HighSettings, rows: Sequence[Row]) -> Claim:
    found = []
    for source in settings.sources:
        at = settings.factors.index(1.0)
        pairs = [r["variances"][at] for r in select(rows, data=source.data)]
        found.append((source.title, [p["real"] for p in pairs], [p["model"] for p in pairs]))
    return Claim(
        "The tightness tells a model from data: the gap of every model is more than twice that of "
        "other real rows, without bias",
        "; ".join(f"{t}: model {spread(m, 4)}, real {spread(r, 4)} nats" for t, r, m in found),
        all(min(m) > 2 * max(0.0, *r) for _, r, m in found),
    )


EXPERIMENT = HighDimensionalBound()
