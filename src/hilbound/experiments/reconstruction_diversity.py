"""Reconstruction diversity: how different the reconstructions of one input are, and how valid.

All decoders are fitted to one frozen encoder, so that a feature leaves open the same for all.
Real images with the feature are the aim, their averages, which are blurred, the warning.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hilbound import datasets
from hilbound.engine.seeding import stream
from hilbound.experiments.base import (
    Cell,
    Claim,
    Experiment,
    Picture,
    Row,
    beyond,
    drawn_from,
    select,
    spread,
    together,
    values_of,
)
from hilbound.experiments.shared.conditional_runs import (
    QUICK,
    ConditionalSettings,
    bounds_at_end,
    conditional_model,
    deviation,
    frozen_cell,
    joint_cell,
    reasons_once,
    run_folder,
    seeds_with_encoder,
    train_conditional,
)
from hilbound.experiments.shared.yardstick import MEASURES, MEASURES_EXPLAINED, Yardstick
from hilbound.reports.drawing import PALETTE, REAL, tidy
from hilbound.reports.page import Table
from hilbound.reports.plots import plot_images
from hilbound.training.runs import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOST = 0.01  # the largest share of lost ones that is no failure
#: What is put in the place of reconstructions.
STANDINGS = {"real": "real images with the feature", "average": "averages of ten of them"}


class DiversitySettings(ConditionalSettings):
    """The training that all cells share; the bound is tracked at both ends only."""

    bound_every: int = 10_000
    drawn: int = 6


#: Trainings that test likely reasons: in words, and what they change.
CHANGES: dict[str, tuple[str, Callable[[DiversitySettings], Row]]] = {
    "likelihood": (
        "the likelihood in place of the cost, at the same variance, which is too wide for it",
        lambda _: {"objective": "likelihood"},
    ),
    "likelihood-own": (
        "the likelihood at the variance of its own rule, median/dim",
        lambda _: {"objective": "likelihood", "variance": "median/dim"},
    ),
    "wide-first": (
        "a variance that falls from four times as much",
        lambda s: {"variance": f"{4 * s.variance:g}:{s.variance:g}"},
    ),
    "longer": ("three times the steps", lambda s: {"steps": 3 * s.steps}),
    "narrow": ("a third of the variance", lambda s: {"variance": s.variance / 3}),
}
#: Those that test why centres are lost, which takes the most centres, and why they are blurred.
ON_LOST, ON_BLUR = ("likelihood", "likelihood-own", "wide-first"), ("longer", "narrow")
#: The baseline: the likelihood smooths the model alone, so it has a variance of its own.
BASELINE = "likelihood-own"


class ReconstructionDiversity(Experiment[DiversitySettings]):
    """Many reconstructions of one input, for every K, beside real images with its feature."""

    name = "reconstruction-diversity"
    title = "Reconstruction diversity: many reconstructions of one input"
    question = """
One feature does not determine an image: many images share it. A decoder with K centres can answer
with many reconstructions of one input. Do they differ more, the more centres it is trained with?
Are they valid: near real images, of a clear class, and of the classes that images with this
feature have? All decoders are fitted to the same encoder, which is that of a joint training and
then frozen. *Real images with the feature*, drawn with the weights of p(x|y), show what a perfect
decoder would answer. *Averages of ten of them* show what a measure makes of blurred images.
"""

    def settings(self, *, quick: bool) -> DiversitySettings:
        """Return the settings of MNIST, or tiny ones on digits."""
        return DiversitySettings(**QUICK | {"drawn": 2}) if quick else DiversitySettings()

    def cells(
        self, settings: DiversitySettings, seeds: Sequence[int], rows: Sequence[Row]
    ) -> Iterable[Cell]:
        """Return the trainings of the encoders, then decoders for each K, then changed ones."""
        yield from (joint_cell(settings.encoder_centers, seed) for seed in seeds)
        for seed in seeds_with_encoder(settings, seeds, rows):
            yield from (frozen_cell(k, seed) for k in settings.centers)
            for change in CHANGES:
                yield frozen_cell(centers_of(settings, change), seed, change=change)

    def measure(self, settings: DiversitySettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Train once and measure reconstructions; with an encoder's training, what stands in."""
        frozen, m = options["protocol"] == "frozen", settings.reconstructions
        run = train_conditional(
            settings,
            folder,
            frozen=frozen,
            centers=options["centers"],
            seed=options["seed"],
            **changed(settings, options.get("change")),
        )
        model, yardstick = conditional_model(run), Yardstick.of(settings)
        several = model.reconstruct(yardstick.inputs, m, stream(0, "reconstructions"))
        row = yardstick.measure(model, several)
        if run.config.objective == "conditional":
            row |= bounds_at_end(run, settings)
        if not frozen:
            row["real"] = yardstick.measure(model, yardstick.real_in_place(model, m))
            row["average"] = yardstick.measure(model, yardstick.averages_in_place(model, m))
        return row

    def claims(self, settings: DiversitySettings, rows: Sequence[Row]) -> list[Claim]:
        """Return claims about diversity and validity, and one against the likelihood."""
        makers = (
            _more_diverse,
            _as_valid,
            _few_lost,
            _right_classes,
            _sharper_than_averages,
            _as_diverse_as_real,
            *([_ahead_of_likelihood] if select(rows, change=BASELINE) else []),
        )
        return reasons_once([make(settings, rows) for make in makers])

    def tables(self, settings: DiversitySettings, rows: Sequence[Row]) -> list[Table]:
        """Return all measures for every K and what stands in, and those of changed trainings."""
        columns = ("", *(measure.title for measure in MEASURES.values()))
        per_k = [(f"K = {k}", of_k(rows, k)) for k in settings.centers]
        stand_in = [
            (title, [row[name] for row in select(rows, protocol="joint")])
            for name, title in STANDINGS.items()
        ]
        changes = [
            (f"K = {centers_of(settings, name)}, {title}", select(rows, change=name))
            for name, (title, _) in CHANGES.items()
            if select(rows, change=name)
        ]
        return [
            Table(columns, _lines([*per_k, *stand_in]), "Reconstructions of held-out images"),
            Table(columns, _lines(changes), "What changes them"),
        ]

    def pictures(
        self, settings: DiversitySettings, rows: Sequence[Row], work: Path
    ) -> Iterator[Picture]:
        """Draw diversity against validity, and reconstructions."""
        yield _diversity_and_validity(settings, rows)
        yield _reconstructions(settings, work)

    def notes(self, settings: DiversitySettings, rows: Sequence[Row]) -> str:
        """Explain the measures."""
        return (
            f"{MEASURES_EXPLAINED.strip()}\n\n{settings.inputs} inputs, "
            f"{settings.reconstructions} reconstructions of each."
        )


def changed(settings: DiversitySettings, change: str | None) -> Row:
    """Return the options that a training has instead of the shared ones.

    >>> changed(DiversitySettings(), "likelihood"), changed(DiversitySettings(), None)
    ({'objective': 'likelihood'}, {})
    """
    return {} if change is None else CHANGES[change][1](settings)


def centers_of(settings: DiversitySettings, change: str) -> int:
    """Return the number of centres that a changed training has.

    >>> [centers_of(DiversitySettings(), change) for change in CHANGES]
    [30, 30, 30, 10, 10]
    """
    return settings.centers[-1] if change in ON_LOST else settings.encoder_centers


def of_k(rows: Sequence[Row], k: int) -> list[Row]:
    """Return the rows of unchanged decoders with K centres."""
    return [row for row in select(rows, protocol="frozen", centers=k) if "change" not in row]


def _lines(named: Sequence[tuple[str, Sequence[Row]]]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (title, *(spread(values_of(own, name), m.digits) for name, m in MEASURES.items()))
        for title, own in named
    )


# ------------------------------------------------------------------ claims


def gains(settings: ConditionalSettings, rows: Sequence[Row], name: str) -> list[float]:
    """Return how much better a measure is with the most centres than with one, for every seed."""
    few, many = (of_k(rows, k) for k in (settings.centers[0], settings.centers[-1]))
    return [
        MEASURES[name].better * (b[name] - a[name])
        for a, b in zip(few, many, strict=True)
        if a[name] is not None and b[name] is not None
    ]


def _change(settings: ConditionalSettings, rows: Sequence[Row], name: str) -> str:
    """Return in words how a measure changes from the fewest to the most centres."""
    measure = MEASURES[name]
    figures = (
        f"{spread(values_of(of_k(rows, k), name), measure.digits)} with K = {k}"
        for k in (settings.centers[0], settings.centers[-1])
    )
    return f"{measure.title} {', '.join(figures)}"


def _more_diverse(settings: DiversitySettings, rows: Sequence[Row]) -> Claim:
    names = ("distance", "kinds")
    return Claim(
        "With more centres the reconstructions of one input differ more, lost ones left out",
        "; ".join(_change(settings, rows, name) for name in names),
        all(min(gains(settings, rows, name), default=0.0) > 0 for name in names),
    )


def _as_valid(settings: DiversitySettings, rows: Sequence[Row]) -> Claim:
    names = ("nearest", "sure", "density", "precision")
    return Claim(
        "Those that are not lost are no less valid: no measure is worse by more than its deviation",
        "; ".join(_change(settings, rows, name) for name in names),
        all(_no_worse(gains(settings, rows, name)) for name in names),
    )


def _no_worse(differences: Sequence[float]) -> bool:
    return bool(differences) and mean(differences) >= -deviation(differences)


def _few_lost(settings: DiversitySettings, rows: Sequence[Row]) -> Claim:
    own = {k: values_of(of_k(rows, k), "lost") for k in settings.centers}
    holds = all(max(values) <= LOST for values in own.values())
    return Claim(
        "At most one reconstruction in a hundred is lost, for every K and seed",
        "share lost " + ", ".join(f"{spread(v)} with K = {k}" for k, v in own.items()),
        holds,
        "" if holds else _why_lost(settings, rows),
    )


def _why_lost(settings: DiversitySettings, rows: Sequence[Row]) -> str:
    """Return what the changed trainings say of the likely reason."""
    k = settings.centers[-1]
    found = "; ".join(
        f"with {CHANGES[name][0]} {_lost_and_spread(select(rows, change=name))}"
        for name in ON_LOST
        if select(rows, change=name)
    )
    return (
        "The likely reason is that the cost hardly sees them. Let a share s of q's mass lie where "
        "no data are. Then ⟨p, q⟩ gets a factor 1 - s, and ⟨q, q⟩ almost its square. Both divide "
        "out of ⟨p, q⟩² / ⟨q, q⟩: the more centres share the mass, the less is left of it. And so "
        "far away the kernel has no gradient. The likelihood has no such quotient, and a kernel "
        f"that is wide at first has a gradient there. Both were tested with K = {k}: {found}; "
        f"unchanged {_lost_and_spread(of_k(rows, k))}."
    )


def _lost_and_spread(rows: Sequence[Row]) -> str:
    distance = spread(values_of(rows, "distance"), 1)
    return f"{spread(values_of(rows, 'lost'))} are lost, distance² of the others {distance}"


def _right_classes(settings: DiversitySettings, rows: Sequence[Row]) -> Claim:
    differences = gains(settings, rows, "agreement")
    real = values_of([row["real"] for row in select(rows, protocol="joint")], "agreement")
    return Claim(
        "With more centres their classes agree better with those of images that share the feature",
        f"{_change(settings, rows, 'agreement')}; real images with the feature {spread(real, 2)}",
        bool(differences) and min(differences) > 0 and mean(differences) > deviation(differences),
    )


def _sharper_than_averages(settings: DiversitySettings, rows: Sequence[Row]) -> Claim:
    most, names = settings.centers[-1], ("nearest", "sure")
    averages = [row["average"] for row in select(rows, protocol="joint")]
    both = {name: (values_of(of_k(rows, most), name), values_of(averages, name)) for name in names}
    outcome = "; ".join(
        f"{MEASURES[name].title} {spread(own, 2)} with K = {most}, averages {spread(other, 2)}"
        for name, (own, other) in both.items()
    )
    holds = all(
        bool(own and other) and MEASURES[name].better * (mean(own) - mean(other)) > 0
        for name, (own, other) in both.items()
    )
    return Claim(
        "With the most centres they are sharper than averages of ten real images with the feature",
        outcome,
        holds,
        "" if holds else _why_blurred(settings, rows),
    )


def _as_diverse_as_real(settings: DiversitySettings, rows: Sequence[Row]) -> Claim:
    most = settings.centers[-1]
    own = values_of(of_k(rows, most), "distance")
    real = values_of([row["real"] for row in select(rows, protocol="joint")], "distance")
    holds = bool(own and real) and mean(own) >= 0.9 * mean(real)
    return Claim(
        "With the most centres they differ as much as real images with the feature do, at least "
        "by 90 %",
        f"distance² {spread(own, 1)} with K = {most}, real images {spread(real, 1)}",
        holds,
        "" if holds else _why_blurred(settings, rows),
    )


def _ahead_of_likelihood(settings: DiversitySettings, rows: Sequence[Row]) -> Claim:
    """Compare with the likelihood at its own rule's variance, for the most centres."""
    most, names = settings.centers[-1], ("agreement", "nearest", "distance", "lost")
    own, other = of_k(rows, most), select(rows, change=BASELINE)
    verdicts: dict[str, bool | None] = {}
    for name in names:
        sign = MEASURES[name].better
        ours, theirs = ([sign * v for v in values_of(group, name)] for group in (own, other))
        if ours and theirs:
            # Of what is lost, as little is enough.
            as_good = name == "lost" and min(ours) >= max(theirs)
            verdicts[name] = True if as_good else beyond(ours, theirs)
    figures = "; ".join(
        f"{MEASURES[name].title} {spread(values_of(own, name), MEASURES[name].digits)} against "
        f"{spread(values_of(other, name), MEASURES[name].digits)}"
        for name in names
    )
    return Claim(
        f"With K = {most} the cost is ahead of the likelihood at its own variance: classes agree "
        "better, reconstructions are nearer to real images and differ more, and no more are lost; "
        "in every seed",
        figures,
        together(list(verdicts.values())) if verdicts else None,
    )


def _why_blurred(settings: DiversitySettings, rows: Sequence[Row]) -> str:
    """Say what a longer training and a narrower kernel change."""
    k = settings.encoder_centers
    found = (f"with {CHANGES[name][0]} {_four(select(rows, change=name))}" for name in ON_BLUR)
    return (
        "Likely reasons are a short training, and a kernel so wide that one centre can stand for "
        f"many images. Both were tested with K = {k}: {'; '.join(found)}; unchanged "
        f"{_four(of_k(rows, k))}."
    )


def _four(rows: Sequence[Row]) -> str:
    names = ("lost", "distance", "nearest", "agreement")
    return ", ".join(
        f"{MEASURES[name].title} {spread(values_of(rows, name), MEASURES[name].digits)}"
        for name in names
    )


# ------------------------------------------------------------------ pictures


def _diversity_and_validity(settings: DiversitySettings, rows: Sequence[Row]) -> Picture:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    encoders = select(rows, protocol="joint")
    for ax, name in zip(figure.subplots(1, 3), ("nearest", "sure", "agreement"), strict=True):
        for i, k in enumerate(settings.centers):
            own = of_k(rows, k)
            ax.plot(
                values_of(own, "distance"),
                values_of(own, name),
                "o",
                color=PALETTE[i],
                label=f"K = {k}",
            )
        for mark, standing in zip("*X", STANDINGS, strict=True):
            own = [row[standing] for row in encoders]
            ax.plot(
                values_of(own, "distance"),
                values_of(own, name),
                mark,
                color=REAL,
                markersize=9,
                label=STANDINGS[standing],
            )
        ax.set_xlabel("distance² of two reconstructions")
        ax.set_ylabel(MEASURES[name].title)
        tidy(ax)
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False)
    return Picture(
        "diversity",
        figure,
        "Validity and agreement of classes against diversity",
        "Of reconstructions that are not lost, a point for each seed. Nearer is better in the "
        "first panel, higher in the others; the stars show what a perfect decoder would reach.",
    )


def _reconstructions(settings: DiversitySettings, work: Path) -> Picture:
    kept = Picture(
        "reconstructions",
        None,
        "Inputs beside several reconstructions of each, and real images with the same feature",
        "Held-out inputs, several reconstructions of each, and real images with the feature of the "
        "input; seed 0. The likelihood has the variance of its own rule.",
    )
    folders = [run_folder(work, cell) for cell in _shown_cells(settings).values()]
    return drawn_from(folders, lambda: replace(kept, figure=_drawn(settings, work)), kept)


def _drawn(settings: DiversitySettings, work: Path) -> "Figure":
    from matplotlib.figure import Figure

    panels = _panels(settings, work)
    shape = datasets.load(settings.data).image_shape
    if shape is None:
        raise TypeError(f"{settings.data} are no images")
    columns = [images.shape[1] for images in panels.values()]
    figure = Figure(figsize=(11.0, 0.45 + 0.335 * settings.drawn), layout="constrained")
    # Between images is a fourteenth of their width.
    axes = figure.subplots(1, len(panels), width_ratios=[15 * n - 1 for n in columns])
    for ax, (title, images), n in zip(axes, panels.items(), columns, strict=True):
        plot_images(ax, images.flatten(0, 1).unflatten(1, shape), columns=n).set_anchor("N")
        ax.set_title(title, fontsize=9, color="#3a424c")
    return figure


def _shown_cells(settings: DiversitySettings) -> dict[str, Cell]:
    """Return titles with the cells whose reconstructions are drawn."""
    most = settings.centers[-1]
    cells = {f"K = {k}": frozen_cell(k, 0) for k in (settings.centers[0], most)}
    cells[f"K = {most}, variance falling"] = frozen_cell(most, 0, change="wide-first")
    cells[f"K = {most}, likelihood"] = frozen_cell(most, 0, change=BASELINE)
    return cells


def _panels(settings: DiversitySettings, work: Path) -> dict[str, Tensor]:
    """Return titles with images, shape ``(drawn, columns, d)``."""
    yardstick = Yardstick.of(settings)
    x, m = yardstick.inputs[: settings.drawn], settings.drawn
    panels = {"input": x.unsqueeze(1)}
    for title, cell in _shown_cells(settings).items():
        model = conditional_model(Run.open(run_folder(work, cell)))
        panels[title] = model.reconstruct(x, m, stream(0, "reconstructions"))
    panels["real images with the feature"] = yardstick.real_in_place(model, m)[: settings.drawn]
    return panels


EXPERIMENT = ReconstructionDiversity()
