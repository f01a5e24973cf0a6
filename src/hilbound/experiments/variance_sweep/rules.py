"""What the variance sweep says: curves, the rules' distance from the best, claims and tables.

A rule is judged by how many times worse than the best mean it is, on data on which no rule was
chosen (:mod:`hilbound.experiments.variance_sweep.fresh`). There the best is that of the sweep
alone, of which no rule's own training is a point. The *loss* of toys and tables is the sliced
Wasserstein distance, that of images 2 / (coverage + recall), so that 1.1 is "within 10 %" of both.
Losses are means over seeds. Where no training was made at the variance of a rule, the loss is read
off the curve, linearly between the logarithms of neighbours; a rule beyond the end of a curve gets
the loss of that end, which flatters it.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hilbound.experiments.base import Claim, Row, mean_of, select, spread, values_of
from hilbound.experiments.variance_sweep import fresh
from hilbound.reports.page import Table
from hilbound.variance import METHODS, ROWS

#: Data that are judged by coverage and recall.
IMAGES = ("digits", "mnist", *fresh.IMAGES)
#: A cost is tolerant to variances at which its loss is at most so many times the best of all costs.
TOLERATED = 2.0
#: The toy that is swept over absolute variances, with every cost.
SWEPT = "moons"
#: A rule may be so many times worse than the best.
TOLERANCE = 1.1
#: One step of the sweep of moons.
STEP = math.sqrt(10)


@dataclass(frozen=True)
class Point:
    """One variance of a curve.

    Args:
        variance: The variance, the geometric mean over the seeds.
        losses: The loss of every seed.
        rule: The rule and its factor, such as ``("median", 0.3)``.
    """

    variance: float
    losses: tuple[float, ...]
    rule: tuple[str, float]

    @property
    def loss(self) -> float:
        """The mean over the seeds."""
        return statistics.mean(self.losses)


@dataclass(frozen=True)
class Verdict:
    """How a rule does on one data set.

    Args:
        variance: What it chooses.
        ratio: Its loss over the best.
        measured: Whether a training was made there, or the curve was read.
        outside: Whether it lies beyond the end of the curve.
    """

    variance: float
    ratio: float
    measured: bool
    outside: bool

    @property
    def good(self) -> bool:
        """Whether it is known to be within the tolerance; beyond the curve nothing is known."""
        return self.ratio <= TOLERANCE and not self.outside


def loss(row: Row) -> float:
    """Return the loss of one training; lower is better.

    >>> loss({"data": "digits", "coverage": 0.5, "recall": 0.75})
    1.6
    """
    if row["data"] not in IMAGES:
        return float(row["sliced_wasserstein"])
    # Samples that cover nothing are as bad as bad can be, and no worse.
    return 2 / max(float(row["coverage"]) + float(row["recall"]), 0.1)


def data_of(rows: Sequence[Row]) -> list[str]:
    """Return the data sets, in the order of the rows."""
    return list(dict.fromkeys(row["data"] for row in rows))


def curve_of(rows: Sequence[Row], data: str, objective: str = "nuclear") -> list[Point]:
    """Return the sweep of a data set, in the order of the variances.

    Of fresh data, a training at a rule's own variance is no point of it.
    """
    chosen = select(rows, data=data, objective=objective)
    if fresh.is_fresh(data):
        chosen = [row for row in chosen if row["rule"] != "rank"]
    points = []
    for rule in dict.fromkeys((row["rule"], row["factor"]) for row in chosen):
        same = select(chosen, rule=rule[0], factor=rule[1])
        v = statistics.geometric_mean(row["variance"] for row in same)
        points.append(Point(v, tuple(map(loss, same)), rule))
    return sorted(points, key=lambda point: point.variance)


def best_of(curve: Sequence[Point]) -> Point:
    """Return the point with the lowest mean loss."""
    return min(curve, key=lambda point: point.loss)


def loss_at(curve: Sequence[Point], variance: float) -> float:
    """Return the loss between the points of a curve, linear in both logarithms.

    >>> ends = [Point(1.0, (4.0,), ("fixed", 1.0)), Point(100.0, (1.0,), ("fixed", 100.0))]
    >>> loss_at(ends, 10.0), loss_at(ends, 0.1)
    (2.0, 4.0)
    """
    if variance <= curve[0].variance:
        return curve[0].loss
    for a, b in pairwise(curve):
        if variance <= b.variance:
            share = math.log(variance / a.variance) / math.log(b.variance / a.variance)
            return math.exp((1 - share) * math.log(a.loss) + share * math.log(b.loss))
    return curve[-1].loss


def judge(rows: Sequence[Row], data: str, rule: str) -> Verdict:
    """Return how a rule does on one data set, by the nuclear norm."""
    curve = curve_of(rows, data)
    best = best_of(curve).loss
    own = select(rows, data=data, objective="nuclear", rule=rule, factor=1.0)
    if fresh.is_fresh(data) and own:
        v = statistics.geometric_mean(row["variance"] for row in own)
        ratio = statistics.mean(map(loss, own)) / best
        return Verdict(v, ratio, measured=True, outside=False)
    for point in curve:
        if point.rule == (rule, 1.0):
            return Verdict(point.variance, point.loss / best, measured=True, outside=False)
    v = statistics.geometric_mean(values_of(rows, f"{rule}_variance", data=data))
    outside = not curve[0].variance <= v <= curve[-1].variance
    return Verdict(v, loss_at(curve, v) / best, measured=False, outside=outside)


def claims(beyond: Sequence[float], rows: Sequence[Row]) -> list[Claim]:
    """Return what the sweep of moons says, and each rule's verdict."""
    return [
        _from_diverse_to_collapsed(beyond, rows),
        _likelihood_collapses(rows),
        *(_is_the_best(rows, rule) for rule in ("median", "silverman", "half-rank")),
        *(_finds_the_best(rows, rule) for rule in METHODS if fresh_of(rows)),
        *(_most_tolerant(rows, data) for data in tolerance_data(rows)),
    ]


def fresh_of(rows: Sequence[Row]) -> list[str]:
    """Return the data on which no rule was chosen."""
    return [data for data in data_of(rows) if fresh.is_fresh(data)]


def tolerance_data(rows: Sequence[Row]) -> list[str]:
    """Return the data that were swept with several costs."""
    several = [data for data in data_of(rows) if select(rows, data=data, objective="scalar")]
    return [data for data in several if select(rows, data=data, objective="likelihood")]


def decades_within(curve: Sequence[Point], most: float) -> float:
    """Return over how many decades of the variance the loss of a curve is at most a number.

    The curve is read linearly in both logarithms, as :func:`loss_at` does, at 40 points a decade.

    >>> ends = [Point(v, (loss,), ("fixed", v)) for v, loss in ((1.0, 1.0), (100.0, 10.0))]
    >>> round(decades_within(ends, 10.0**0.5), 2)
    1.0
    """
    low, high = (math.log10(curve[i].variance) for i in (0, -1))
    steps = max(2, round(40 * (high - low)))
    grid = [low + (high - low) * (i + 0.5) / steps for i in range(steps)]
    good = sum(loss_at(curve, 10**place) <= most for place in grid)
    return (high - low) * good / steps


def _most_tolerant(rows: Sequence[Row], data: str) -> Claim:
    """The nuclear norm against the two other costs, all swept over the same variances."""
    costs = ("nuclear", "scalar", "likelihood")
    sweeps = {o: [p for p in curve_of(rows, data, o) if p.rule[0] != "rank"] for o in costs}
    ends = max(c[0].variance for c in sweeps.values()), min(c[-1].variance for c in sweeps.values())
    sweeps = {
        o: [p for p in c if ends[0] * 0.99 <= p.variance <= ends[1] * 1.01]
        for o, c in sweeps.items()
    }
    best = min(best_of(curve).loss for curve in sweeps.values())
    widths = {o: decades_within(curve, TOLERATED * best) for o, curve in sweeps.items()}
    swept = math.log10(ends[1] / ends[0])
    return Claim(
        f"{data}: the nuclear norm is the most tolerant to the variance, its loss is within twice "
        "the best of all costs over more decades than that of the scalar cost and the likelihood",
        ", ".join(f"{o} over {width:.1f}" for o, width in widths.items())
        + f" of the {swept:.1f} decades that were swept, from {ends[0]:.3g} to {ends[1]:.3g}; the "
        f"best of all is {best:.3f}",
        widths["nuclear"] > max(widths["scalar"], widths["likelihood"]),
        "The likelihood takes the variance as that of the model alone, so its scale is smaller by "
        "nature; all are swept over the same numbers.",
    )


def _mean(rows: Sequence[Row], name: str, objective: str, variance: float) -> float:
    return mean_of(rows, name, data=SWEPT, objective=objective, rule="fixed", factor=variance)


def _paper_curve(rows: Sequence[Row], objective: str, beyond: Sequence[float] = ()) -> list[Point]:
    """Return the curve of moons at the paper's variances only."""
    curve = curve_of(rows, SWEPT, objective)
    return [p for p in curve if p.rule[0] == "fixed" and p.rule[1] not in beyond]


def _from_diverse_to_collapsed(beyond: Sequence[float], rows: Sequence[Row]) -> Claim:
    curve = _paper_curve(rows, "nuclear", beyond)
    best, low, high = best_of(curve), curve[0], curve[-1]
    kept, far = (_mean(rows, "spread", "nuclear", v) for v in (high.rule[1], beyond[-1]))
    holds = low.loss > 2 * best.loss and high.loss > 2 * best.loss and kept < 0.5
    return Claim(
        "Two moons, nuclear norm: with the variance samples go from bad through good to collapsed "
        "(both ends twice as bad as the best, less than half of the data's variance at the upper)",
        f"distance {low.loss:.2f} at {low.variance:.3g}, {best.loss:.3f} at its best "
        f"({best.variance:.3g}), {high.loss:.3f} at {high.variance:.3g}, where samples keep "
        f"{kept:.2f} of the data's variance",
        holds,
        "" if holds else _second_moments(rows, best.rule[1], beyond[-1], far),
    )


def _second_moments(rows: Sequence[Row], best: float, far: float, kept: float) -> str:
    near, away = (_mean(rows, "squared_mmd", "nuclear", v) for v in (best, far))
    return (
        "The likely reason: a kernel that is wide beside the data compares second moments, and the "
        "nuclear norm still matches those, so samples lose their shape but not their spread. "
        f"Tested at a variance of {far:.3g}: samples keep {kept:.2f} of the data's variance, the "
        f"squared MMD is {away:.1e}, and {near:.1e} at the best variance."
    )


def _likelihood_collapses(rows: Sequence[Row]) -> Claim:
    largest = _paper_curve(rows, "likelihood")[-1].rule[1]
    kept = {o: _mean(rows, "spread", o, largest) for o in ("nuclear", "scalar", "likelihood")}
    return Claim(
        f"At a variance of {largest:.3g}, above that of two moons, the likelihood collapses "
        "(samples keep less than a tenth of the data's variance) and the nuclear norm and the "
        "scalar cost do not",
        ", ".join(f"{o} keeps {v:.2f}" for o, v in kept.items()),
        kept["likelihood"] < 0.1 <= min(kept["nuclear"], kept["scalar"]),
    )


def _is_the_best(rows: Sequence[Row], rule: str) -> Claim:
    curve = [p for p in curve_of(rows, SWEPT) if p.rule[0] == "fixed"]
    best, verdict = best_of(curve), judge(rows, SWEPT, rule)
    factor = verdict.variance / best.variance
    return Claim(
        f"Two moons, nuclear norm: the best variance is that of the rule '{rule}' (within one step "
        f"of the sweep, a factor of {STEP:.1f})",
        f"best at {best.variance:.3g}; '{rule}' says {verdict.variance:.3g}, {factor:.2g} times "
        "that",
        1 / STEP <= factor <= STEP,
    )


def _finds_the_best(rows: Sequence[Row], rule: str) -> Claim:
    verdicts = {data: judge(rows, data, rule) for data in fresh_of(rows)}
    worst = max(verdicts, key=lambda data: verdicts[data].ratio)
    good = [data for data, verdict in verdicts.items() if verdict.good]
    holds = len(good) == len(verdicts)
    least = "at least " if verdicts[worst].outside else ""
    return Claim(
        f"The rule '{rule}' comes within 10 % of the best of the sweep on each data set that had "
        "no part in its choice",
        f"on {len(good)} of {len(verdicts)} ({', '.join(verdicts)}); worst on {worst}, with {least}"
        f"{verdicts[worst].ratio:.2f} times the loss of the best",
        holds,
        "" if holds else _why_not(rows, rule, worst),
    )


def _why_not(rows: Sequence[Row], rule: str, worst: str) -> str:
    curve = curve_of(rows, worst)
    best, verdict = best_of(curve), judge(rows, worst, rule)
    rank = mean_of(rows, f"{rule}_rank", data=worst)
    side = "below" if verdict.variance < best.variance else "above"
    end = " The best is an end of the sweep." if best in (curve[0], curve[-1]) else ""
    beyond = " and beyond the end of the sweep" if verdict.outside else ""
    return (
        f"On {worst} it says {verdict.variance:.3g}, {side} the best ({best.variance:.3g})"
        f"{beyond}: there the kernel tells {rank:.1f} of {ROWS} rows apart.{end} Over the seeds "
        f"the loss at the best is {spread(best.losses)}."
    )


def tables(objectives: Sequence[str], rows: Sequence[Row]) -> list[Table]:
    """Return the rules on each data set, what they choose, and the sweep of moons."""
    return [_ratios(rows), _choices(rows), _frechet(rows), *_sweeps(objectives, rows)]


def _ratios(rows: Sequence[Row]) -> Table:
    lines = []
    for data in data_of(rows):
        best = best_of(curve_of(rows, data))
        floor = statistics.mean(loss(row) for row in select(rows, data=data, objective="real"))
        lines.append(
            (
                f"**{data}**" if fresh.is_fresh(data) else data,
                f"{floor:.3f}",
                spread(best.losses),
                f"{best.variance:.3g}{_at_an_end(rows, data)}",
                _flat(rows, data),
                *(_ratio(judge(rows, data, rule)) for rule in METHODS),
            )
        )
    return Table(
        ("data", "real data", "best of the sweep", "at variance", "decades within 10 %", *METHODS),
        tuple(lines),
        "Loss: sliced Wasserstein distance of toys and tables, 2 / (coverage + recall) of images. "
        "Rules: how many times the best; (read off the curve), ≥ beyond its end. Bold: data that "
        "had no part in any rule, judged by a finer sweep; on the others the rule 'rank' was "
        "chosen, or its own training is a point of a coarse sweep, and no verdict is drawn",
    )


def _at_an_end(rows: Sequence[Row], data: str) -> str:
    curve = curve_of(rows, data)
    return " (an end)" if best_of(curve) in (curve[0], curve[-1]) else ""


def _flat(rows: Sequence[Row], data: str) -> str:
    """Return how flat a curve is: where a band is wide, any rule passes."""
    curve = curve_of(rows, data)
    return f"{decades_within(curve, TOLERANCE * best_of(curve).loss):.1f}"


def _ratio(verdict: Verdict) -> str:
    if verdict.measured:
        return f"{verdict.ratio:.2f}"
    return f"({'≥ ' if verdict.outside else ''}{verdict.ratio:.2f})"


def _choices(rows: Sequence[Row]) -> Table:
    lines = []
    for data in data_of(rows):
        cells = []
        for rule in METHODS:
            v = mean_of(rows, f"{rule}_variance", data=data)
            rank = mean_of(rows, f"{rule}_rank", data=data)
            cells.append(f"{v:.3g} ({rank:.1f})")
        lines.append((data, *cells))
    return Table(
        ("data", *METHODS),
        tuple(lines),
        f"The variance of every rule (and the effective rank of the Gram matrix of {ROWS} rows)",
    )


def _frechet(rows: Sequence[Row]) -> Table:
    lines = []
    for data in data_of(rows):
        if data not in IMAGES:
            continue
        for point in curve_of(rows, data):
            rule, factor = point.rule
            cells = (
                spread(values_of(rows, name, data=data, rule=rule, factor=factor), digits)
                for name, digits in (
                    ("coverage", 2),
                    ("recall", 2),
                    ("precision", 2),
                    ("frechet_distance", 1),
                )
            )
            lines.append((data, f"{point.variance:.3g}", f"{factor:g} × {rule}", *cells))
    return Table(
        ("data", "variance", "that is", "coverage", "recall", "precision", "Fréchet"),
        tuple(lines),
        "The sweeps of images, nuclear norm",
    )


def _sweeps(objectives: Sequence[str], rows: Sequence[Row]) -> list[Table]:
    titles = (
        ("sliced_wasserstein", "Sliced Wasserstein distance", 3),
        ("squared_mmd", "Squared MMD at the median variance", 4),
        ("cross_rank", "Effective rank of the cross Gram matrix", 1),
        ("spread", "Total variance of the samples, as a share of the data's", 2),
    )
    fixed = sorted({row["factor"] for row in select(rows, data=SWEPT, rule="fixed")})
    return [
        Table(
            ("variance", *objectives),
            tuple(
                (
                    f"{v:.3g}",
                    *(
                        spread(
                            values_of(rows, name, data=SWEPT, objective=o, rule="fixed", factor=v),
                            digits,
                        )
                        for o in objectives
                    ),
                )
                for v in fixed
            ),
            f"Two moons: {title}",
        )
        for name, title, digits in titles
    ]


def notes(slow_seeds: int, rows: Sequence[Row]) -> str:
    """Return how the rules were judged, and what the deviations allow to say."""
    within = [data for data in data_of(rows) if _is_noise(rows, data)]
    text = (
        "## How far the verdicts carry\n\n"
        "The best is the lowest of several means, so it is a little too good, and every rule looks "
        "a little worse than it is. Ratios are of the whole distance, floor included; the column "
        "*real data* is that floor, which no model passes without luck. Trainings are short, those "
        "of MNIST the shortest for what they have to learn; longer ones and other batches may "
        "prefer another variance."
    )
    if not fresh_of(rows):
        text += (
            " **No data that had no part in the rules were measured here, so no rule is judged.**"
        )
    if select(rows, data="mnist"):
        text += f" MNIST is trained with at most {slow_seeds} seeds, since each takes long."
    for data in (data for data in data_of(rows) if data in IMAGES and not fresh.is_fresh(data)):
        text += f" {_by_frechet(rows, data)}"
    if within:
        text += (
            f" On {', '.join(within)} the rule 'rank' and the best differ by less than the "
            "deviation over the seeds: there the order of the two is not known."
        )
    return text


def _by_frechet(rows: Sequence[Row], data: str) -> str:
    """Return what another metric would have called the best."""
    means = {}
    for point in curve_of(rows, data):
        rule, factor = point.rule
        distances = values_of(rows, "frechet_distance", data=data, rule=rule, factor=factor)
        means[point.rule] = (statistics.mean(distances), point.variance)
    best, chosen = min(means.values()), means["rank", 1.0]
    return (
        f"By the Fréchet distance, which sees means and covariances only, the best variance of "
        f"{data} would be {best[1]:.3g} with {best[0]:.1f}, and the rule 'rank' has "
        f"{chosen[0]:.1f}."
    )


def _is_noise(rows: Sequence[Row], data: str) -> bool:
    curve = curve_of(rows, data)
    best = best_of(curve)
    own = select(rows, data=data, objective="nuclear", rule="rank", factor=1.0)
    losses = [loss(row) for row in own]
    if best.rule[0] == "rank" or min(len(best.losses), len(losses)) < 2:
        return False
    deviation = math.hypot(statistics.stdev(best.losses), statistics.stdev(losses))
    return statistics.mean(losses) - best.loss < deviation
