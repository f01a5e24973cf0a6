"""Bound tightness: does a smaller gap of the conditional bound mean better reconstructions?

Two things change the gap: the length of the training, and the number of centres K. With the length
all else gets better too, so that a gap and a quality which improve together need have nothing to do
with each other; and an encoder that is trained with K centres is another one for every K, with
another limit. So values of K are compared at equal length, with decoders that are fitted to one
frozen encoder per seed (:mod:`hilbound.experiments.shared.conditional_runs`): they share one limit,
and the gap differs by the decoder alone. Decoders of several lengths show how both go with
training. Trainings of the encoder with each K stand beside them. All are on all training images;
the gap on held-out images stands beside what the reconstructions of held-out images are worth
(:mod:`hilbound.experiments.shared.yardstick`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from hilbound.engine.seeding import stream
from hilbound.experiments.base import (
    Cell,
    Claim,
    Experiment,
    Picture,
    Row,
    select,
    spread,
    values_of,
)
from hilbound.experiments.shared.conditional_runs import (
    QUICK,
    ConditionalSettings,
    bounds_at_end,
    conditional_model,
    frozen_cell,
    has_real,
    joint_cell,
    reach_real_rows,
    seeds_with_encoder,
    train_conditional,
)
from hilbound.experiments.shared.yardstick import MEASURES, MEASURES_EXPLAINED, Yardstick
from hilbound.reports.drawing import PALETTE, tidy
from hilbound.reports.page import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: All qualities of reconstructions that have a good side, and those that are drawn.
QUALITIES = ("best", "own_class", "agreement", "nearest", "sure", "density", "precision", "lost")
DRAWN = ("best", "nearest", "precision", "agreement")
_MARKS = "osD^v"


class TightnessSettings(ConditionalSettings):
    """The training that all cells share: on all images, and for several numbers of steps.

    Encoders are trained for ``steps``, decoders of frozen ones for each of ``lengths``.
    """

    samples: int | None = None
    centers: tuple[int, ...] = (1, 5, 10, 30)
    steps: int = 450
    lengths: tuple[int, ...] = (50, 150, 450)
    bound_every: int = 10_000


class BoundTightness(Experiment[TightnessSettings]):
    """The gap on held-out images against the quality of their reconstructions."""

    name = "bound-tightness"
    title = "Bound tightness: the gap of the conditional bound against reconstructions"
    question = """
The *gap* between the logarithms of the conditional cost and of its limit says how far a decoder is
from the best that its features allow. Does a smaller gap mean better reconstructions? Gap and
reconstructions are of held-out images, with one feature.

*Between values of K* an encoder that is trained with the decoder would be another one for every K,
and the limit would move with it. So the encoder of a joint training is frozen, one for each seed.
Decoders with K centres are fitted to it for equally many steps. They share one limit, and only the
decoder changes the gap. The joint protocol, where the encoder is trained with each K, is reported
beside it, but judges no quality.

The number of centres changes both sides, and so does the length of the training. So a gap and a
quality may improve together although neither depends on the other. For this reason no correlation
is computed. The question is asked of *every* quality that has a good side: does it improve while
the gap falls, from the fewest to the most centres, and during training? If a quality gets worse
while the gap falls, a smaller gap is not enough for it.
"""

    def settings(self, *, quick: bool) -> TightnessSettings:
        """Return the settings of MNIST, or tiny ones on digits."""
        if quick:
            return TightnessSettings(**QUICK | {"lengths": (5, 10, 20)})
        return TightnessSettings()

    def cells(
        self, settings: TightnessSettings, seeds: Sequence[int], rows: Sequence[Row]
    ) -> Iterable[Cell]:
        """Return joint trainings, and decoders of each length where there is an encoder."""
        yield from (joint_cell(k, seed) for seed in seeds for k in settings.centers)
        for seed in seeds_with_encoder(settings, seeds, rows):
            for steps in settings.lengths:
                yield from (frozen_cell(k, seed, steps=steps) for k in settings.centers)

    def measure(self, settings: TightnessSettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Train once; return the bound and the quality of reconstructions."""
        run = train_conditional(
            settings,
            folder,
            frozen=options["protocol"] == "frozen",
            centers=options["centers"],
            seed=options["seed"],
            steps=options.get("steps", settings.steps),
        )
        model, yardstick = conditional_model(run), Yardstick.of(settings)
        several = model.reconstruct(
            yardstick.inputs, settings.reconstructions, stream(0, "reconstructions")
        )
        return bounds_at_end(run, settings, ["test"]) | yardstick.measure(model, several)

    def claims(self, settings: TightnessSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return claims about K and the gap, then one for each quality, then one on training."""
        frozen = select(rows, protocol="frozen")
        longest = select(frozen, steps=settings.lengths[-1])
        return [
            _smaller_with_centers(settings, frozen),
            _smaller_jointly(settings, rows),
            *([reach_real_rows(settings, longest, "test")] if has_real(longest, "test") else []),
            *(_with_k(settings, longest, name) for name in QUALITIES),
            _while_training(settings, frozen),
        ]

    def tables(self, settings: TightnessSettings, rows: Sequence[Row]) -> list[Table]:
        """Return bound and qualities for every K and length, and for joint trainings."""
        frozen, joint = (select(rows, protocol=protocol) for protocol in ("frozen", "joint"))
        columns = (*(title for title, _, _ in _BOUND), *(m.title for m in MEASURES.values()))
        return [
            Table(
                ("steps", "K", *columns),
                tuple(
                    (str(steps), str(k), *_figures(select(frozen, steps=steps, centers=k)))
                    for steps in settings.lengths
                    for k in settings.centers
                ),
                "On held-out images, encoder frozen",
            ),
            Table(
                ("K", *columns),
                tuple((str(k), *_figures(select(joint, centers=k))) for k in settings.centers),
                f"On held-out images, encoder trained with each K for {settings.steps} steps",
            ),
        ]

    def pictures(
        self,
        settings: TightnessSettings,
        rows: Sequence[Row],
        work: Path,
    ) -> Iterator[Picture]:
        """Draw each quality against the gap."""
        from matplotlib.figure import Figure

        frozen = select(rows, protocol="frozen")
        figure = Figure(figsize=(8.0, 6.4), layout="constrained")
        for ax, name in zip(figure.subplots(2, 2).flat, DRAWN, strict=True):
            _against_gap(ax, settings, frozen, name)
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
        yield Picture(
            "gap",
            figure,
            "Four qualities of reconstructions against the gap, a line for each K",
            "Encoder frozen. Lines join the means over the seeds, from the shortest training, on "
            "the right, to the longest; faint points are the seeds. The two distances on top are "
            "better low, the two shares below are better high.",
        )

    def notes(self, settings: TightnessSettings, rows: Sequence[Row]) -> str:
        """Explain the measures."""
        return (
            f"{MEASURES_EXPLAINED.strip()}\n\n{settings.inputs} inputs, "
            f"{settings.reconstructions} reconstructions of each; the bound is that of "
            f"{settings.bound_rows} held-out images as the whole of the data, the mean over "
            f"{settings.noise_draws} draws of the noise."
        )


def falls(settings: TightnessSettings, rows: Sequence[Row]) -> list[float]:
    """Return by how many nats the gap is smaller with the most centres, for every seed."""
    few, many = (values_of(rows, "test_gap", centers=settings.centers[i]) for i in (0, -1))
    return [a - b for a, b in zip(few, many, strict=True)]


#: Columns of the bound: heading, entry of the rows, decimals.
_BOUND = (
    ("gap", "test_gap", 3),
    ("tightness", "test_tightness", 3),
    ("of K real rows", "test_real_tightness", 3),
    ("log limit, relative to the largest", "test_log_limit", 2),
)


def _figures(rows: Sequence[Row]) -> list[str]:
    first = [spread(values_of(rows, name), digits) for _, name, digits in _BOUND]
    return first + [spread(values_of(rows, n), m.digits) for n, m in MEASURES.items()]


def _smaller_with_centers(settings: TightnessSettings, frozen: Sequence[Row]) -> Claim:
    by_length = {steps: falls(settings, select(frozen, steps=steps)) for steps in settings.lengths}
    last = settings.lengths[-1]
    return Claim(
        "More centres make the gap smaller, encoder frozen: in every seed after the longest "
        "training",
        f"from K = {settings.centers[0]} to {settings.centers[-1]} it falls by "
        + ", ".join(f"{spread(own)} nats after {steps} steps" for steps, own in by_length.items()),
        min(by_length[last]) > 0,
    )


def _smaller_jointly(settings: TightnessSettings, rows: Sequence[Row]) -> Claim:
    """The gap as the joint protocol has it, with how far the limits lie apart."""
    own = falls(settings, select(rows, protocol="joint"))
    joint, frozen = (
        max(limit_ranges(select(rows, protocol=protocol))) for protocol in ("joint", "frozen")
    )
    return Claim(
        "The same where the encoder is trained with each K",
        f"it falls by {spread(own)} nats after {settings.steps} steps; but the limits of different "
        f"K, of one seed, lie up to {joint:.2g} nats apart (encoder frozen: {frozen:.1g})",
        min(own) > 0,
    )


def limit_ranges(rows: Sequence[Row]) -> list[float]:
    """Return how far apart the logarithms of the limits of each seed are.

    >>> limit_ranges([{"seed": 0, "test_log_limit": x} for x in (-2.0, -1.5)])
    [0.5]
    """
    seeds = sorted({row["seed"] for row in rows})
    limits = [values_of(rows, "test_log_limit", seed=seed) for seed in seeds]
    return [max(own) - min(own) for own in limits]


def changes(rows: Sequence[Row], name: str, entry: str, ends: tuple[int, int]) -> list[float]:
    """Return by how much a quality improves between two values of an entry, for every seed.

    >>> rows = [{"seed": 0, "centers": k, "best": 0.5 - 0.25 * k} for k in (0, 1)]
    >>> changes(rows, "best", "centers", (0, 1))  # a smaller error is better
    [0.25]
    """
    found = []
    for seed in sorted({row["seed"] for row in rows}):
        few, many = (values_of(rows, name, seed=seed, **{entry: end}) for end in ends)
        found += [MEASURES[name].better * (b - a) for a, b in zip(few, many, strict=False)]
    return found


def _with_k(settings: TightnessSettings, longest: Sequence[Row], name: str) -> Claim:
    """After the longest training; one encoder, one limit: only the decoder changes the gap."""
    measure, ends = MEASURES[name], (settings.centers[0], settings.centers[-1])
    found = changes(longest, name, "centers", ends)
    few, many = (spread(values_of(longest, name, centers=k), measure.digits) for k in ends)
    better = sum(value > 0 for value in found)
    holds = None
    if found:
        holds = min(found) > 0 or (None if mean(found) > 0 else False)
    return Claim(
        f"While the gap falls from K = {ends[0]} to {ends[1]}, reconstructions get better, in "
        f"every seed: {measure.title} ({'more' if measure.better > 0 else 'less'} is better)",
        f"{few} with K = {ends[0]}, {many} with K = {ends[1]}: better in {better} of {len(found)} "
        "seeds",
        holds,
    )


def _while_training(settings: TightnessSettings, frozen: Sequence[Row]) -> Claim:
    """Which qualities get worse with the length of the training, for some K."""
    ends = (settings.lengths[0], settings.lengths[-1])
    worse = []
    for name in QUALITIES:
        by_k = {
            k: changes(select(frozen, centers=k), name, "steps", ends) for k in settings.centers
        }
        bad = [k for k, found in by_k.items() if found and mean(found) < 0]
        if bad:
            worse.append(f"{MEASURES[name].title} for K = {', '.join(map(str, bad))}")
    return Claim(
        f"With one K, a training of {ends[1]} steps has a smaller gap than one of {ends[0]} and is "
        "no worse in any quality, in the mean over the seeds",
        f"worse in {'; '.join(worse)}" if worse else f"{len(QUALITIES)} qualities are no worse",
        not worse,
    )


def _against_gap(ax: "Axes", settings: TightnessSettings, rows: Sequence[Row], name: str) -> None:
    for i, k in enumerate(settings.centers):
        own = [row for row in select(rows, centers=k) if row[name] is not None]
        color = PALETTE[i % len(PALETTE)]
        ax.scatter(
            values_of(own, "test_gap"),
            values_of(own, name),
            s=12,
            color=color,
            alpha=0.35,
            linewidths=0,
        )
        lengths = [steps for steps in settings.lengths if select(own, steps=steps)]
        gap, value = (
            [mean(values_of(own, column, steps=steps)) for steps in lengths]
            for column in ("test_gap", name)
        )
        ax.plot(gap, value, marker=_MARKS[i % len(_MARKS)], color=color, label=f"K = {k}")
    ax.set_xlabel("gap in nats, held-out images")
    ax.set_ylabel(MEASURES[name].title)
    tidy(ax)


EXPERIMENT = BoundTightness()
