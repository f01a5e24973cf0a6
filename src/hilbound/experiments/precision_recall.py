"""Precision against recall: what weight, power, variance and batch buy, and who should choose.

The debiased nuclear norm has a weight, the Schatten overlap a power, and both have the variance
and the batch. On MNIST every setting is one point of a map. On more data sets, over all seeds,
three objectives are compared that need no tuning: the nuclear norm, the debiased one, and the
debiased one whose weight is calibrated while training.
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
    Settings,
    beyond,
    mean_of,
    select,
    spread,
    together,
    train,
    values_of,
)
from hilbound.experiments.shared.sample_quality import (
    features,
    images,
    sample_quality,
    training_rows,
)
from hilbound.reports.drawing import canvas, look
from hilbound.reports.page import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What is compared on every data set: the default, and what might take its place.
CANDIDATES: dict[str, dict[str, Any]] = {
    "nuclear": {"objective": "nuclear"},
    "debiased": {"objective": "debiased"},
    "calibrated": {"objective": "debiased", "objective_options": {"calibrate": True}},
}
#: Options of the candidates on points in the plane, and on all else.
ON_TOYS: dict[str, Any] = {"variance": "0.1*median", "batch_size": 256, "width": 128}
ON_IMAGES: dict[str, Any] = {"variance": "median"}
METRICS = ("coverage", "recall", "precision", "frechet_distance")


class MapSettings(Settings):
    """The trainings; a map entry is an objective, its number and a multiple of the median."""

    map_data: str = "mnist"
    map_rows: int = 20_000
    weights: tuple[float, ...] = (0.2, 0.35, 0.5)
    powers: tuple[float, ...] = (1.0, 0.85, 0.7)
    variances: tuple[float, ...] = (1.0, 3.0)
    batches: tuple[int, ...] = (256, 1024)
    batch_size: int = 512
    steps: int = 300
    width: int = 512
    data: tuple[str, ...] = ("mnist", "digits", "cifar10", "moons", "eight-gaussians", "pinwheel")
    candidates: dict[str, dict[str, Any]] = CANDIDATES
    on_toys: dict[str, Any] = ON_TOYS
    on_images: dict[str, Any] = ON_IMAGES
    samples: int = 5000


class PrecisionRecall(Experiment[MapSettings]):
    """A map on MNIST, and three objectives on six data sets."""

    name = "precision-recall"
    title = "Precision and recall: what weight, power, variance and batch buy"
    question = """
The nuclear norm of a mini-batch underestimates that of the densities. So its maximum rewards
centres between data points: precision without recall. Two objectives correct this. The *debiased*
nuclear norm subtracts the model's own overlap with a weight λ. The *Schatten* overlap raises
singular values to a power r ≤ 1. Which precision and recall does each setting give, at which
variance of the kernel and which batch?

The *calibrated* objective finds λ by itself: two batches of the model are to overlap as much as two
batches of the data. Is it better than the plain nuclear norm on every kind of data, so that it
should be the default?
"""

    def settings(self, *, quick: bool) -> MapSettings:
        """Return the settings for MNIST and five other sets, or a tiny training."""
        if quick:
            return MapSettings(
                map_data="digits",
                map_rows=400,
                weights=(0.5,),
                powers=(0.85,),
                variances=(1.0,),
                batches=(),
                batch_size=32,
                steps=10,
                width=16,
                data=("digits", "moons"),
                samples=100,
                on_toys={"variance": "0.1*median", "width": 16},
            )
        return MapSettings()

    def cells(
        self,
        settings: MapSettings,
        seeds: Sequence[int],
        rows: Sequence[Row],
    ) -> Iterable[Cell]:
        """Return the map with one seed, then the candidates on all data with every seed."""
        yield Cell.of(part="floor", data=settings.map_data)
        for variance in settings.variances:
            for objective, numbers in (
                ("debiased", settings.weights),
                ("schatten", settings.powers),
            ):
                for number in numbers:
                    yield _map_cell(objective, number, variance, settings.batch_size)
        for batch in settings.batches:
            yield _map_cell("debiased", 0.5, 1.0, batch)
            yield _map_cell("schatten", 1.0, 1.0, batch)
        for data in settings.data:
            for candidate in settings.candidates:
                for seed in seeds:
                    yield Cell.of(part="default", data=data, candidate=candidate, seed=seed)

    def measure(self, settings: MapSettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Train once and measure the samples on validation rows; of the floor, training rows."""
        if options["part"] == "default":
            return _candidate(settings, options, folder)
        dataset, space = images(settings.map_data), features(settings.map_data)
        held_out = dataset.validation[: settings.samples]
        if options["part"] == "floor":
            samples = training_rows(dataset, settings.samples, 0)
            return sample_quality(dataset, space, samples, held_out=held_out)
        name = {"debiased": "weight", "schatten": "power"}[options["objective"]]
        run = train(
            folder,
            data=settings.map_data,
            samples=settings.map_rows,
            objective=options["objective"],
            objective_options={name: options["number"]},
            variance=f"{options['variance']:g}*median",
            batch_size=options["batch"],
            steps=settings.steps,
            width=settings.width,
            seed=options["seed"],
        )
        samples = run.model.sample(settings.samples, stream(0, "map"))
        found = sample_quality(dataset, space, samples, held_out=held_out)
        return found | {"training_seconds": run.read_bounds()[-1]["seconds"]}

    def claims(self, settings: MapSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return what the map and the comparison say."""
        return [
            _weight_buys_recall(settings, rows),
            _power_buys_recall(settings, rows),
            _both_at_once(rows),
            _wins(settings, rows, "debiased"),
            _wins(settings, rows, "calibrated"),
        ]

    def tables(self, settings: MapSettings, rows: Sequence[Row]) -> list[Table]:
        """Return the candidates on every data set, then the map."""
        return [_candidates_table(settings, rows), _map_table(rows)]

    def pictures(
        self,
        settings: MapSettings,
        rows: Sequence[Row],
        work: Path,
    ) -> Iterator[Picture]:
        """Draw the map."""
        del work
        yield _map_picture(settings, rows)


def _map_picture(settings: MapSettings, rows: Sequence[Row]) -> Picture:
    """Draw precision against recall; what the marks are is said in the legend."""
    figure, ax = canvas(6.8, 5.2)
    lines = [("debiased", v) for v in settings.variances]
    lines += [("schatten", v) for v in settings.variances]
    for i, (objective, variance) in enumerate(lines):
        _draw(ax, _line(rows, objective, variance, settings.batch_size), look(i)[0])
    _other_batches(ax, settings, rows, lines)
    floor = select(rows, part="floor")[0]
    ax.scatter(
        [floor["recall"]],
        [floor["precision"]],
        color="black",
        marker="+",
        s=90,
        label="training rows",
    )
    ax.set_xlabel("recall")
    ax.set_ylabel("precision")
    # Labels beside the marks would lie on each other: everything is said in the legend.
    ax.legend(frameon=False, fontsize=8, ncol=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return Picture(
        "map",
        figure,
        "Precision against recall, a line for each objective and variance",
        f"Precision against recall on {settings.map_data}, batch {settings.batch_size}, "
        f"{settings.steps} steps, one seed. Along a solid line the weight λ of the debiased "
        "norm changes. Along a dashed line the power r of the Schatten overlap changes (1 is the "
        "nuclear norm). The legend has them in this order, from the left to the right. Hollow "
        "marks have another batch. Variances are multiples of the median heuristic.",
    )


def _other_batches(
    ax: "Axes", settings: MapSettings, rows: Sequence[Row], lines: Sequence[tuple[str, float]]
) -> None:
    """Draw hollow marks of trainings with other batches."""
    for size, batch in zip((5, 10), settings.batches, strict=False):
        for objective, marker in (("debiased", "o"), ("schatten", "s")):
            own = select(rows, part="map", objective=objective, batch=batch)
            ax.plot(
                values_of(own, "recall"),
                values_of(own, "precision"),
                marker,
                color=look(lines.index((objective, settings.variances[0])))[0],
                fillstyle="none",
                markersize=size,
                label=f"{objective}, batch {batch}",
            )


def _map_cell(objective: str, number: float, variance: float, batch: int) -> Cell:
    return Cell.of(
        part="map", objective=objective, number=number, variance=variance, batch=batch, seed=0
    )


def _candidate(settings: MapSettings, options: Mapping[str, Any], folder: Path) -> Row:
    """Train a candidate on a data set with the settings of its kind, and measure it."""
    # The split is that of the training, so that validation rows were not trained on.
    dataset, space = images(options["data"], seed=options["seed"]), features(options["data"])
    run = train(
        folder,
        data=options["data"],
        samples=min(settings.map_rows, len(dataset.train)),
        seed=options["seed"],
        **{"batch_size": settings.batch_size, "steps": settings.steps, "width": settings.width}
        | (settings.on_toys if dataset.dim <= 2 else settings.on_images)
        | settings.candidates[options["candidate"]],
    )
    held_out = dataset.validation[: settings.samples]
    samples = run.model.sample(len(held_out), stream(options["seed"], "candidate"))
    return sample_quality(dataset, space, samples.to(held_out), held_out=held_out)


def _line(rows: Sequence[Row], objective: str, variance: float, batch: int) -> list[Row]:
    own = select(rows, part="map", objective=objective, variance=variance, batch=batch)
    return sorted(own, key=lambda row: row["number"])


def _draw(ax: "Axes", line: Sequence[Row], color: str) -> None:
    objective, variance = line[0]["objective"], line[0]["variance"]
    x, y = ([row[name] for row in line] for name in ("recall", "precision"))
    dashes, marker = ("-", "o") if objective == "debiased" else ("--", "s")
    # Recall grows with the weight, and falls with the power.
    numbers = [row["number"] for row in sorted(line, key=lambda row: row["recall"])]
    sign = "λ" if objective == "debiased" else "r"
    ax.plot(
        x,
        y,
        dashes,
        marker=marker,
        markersize=4,
        color=color,
        label=f"{objective}, {variance:g}·median, {sign} = {', '.join(f'{n:g}' for n in numbers)}",
    )


def _ends(settings: MapSettings, rows: Sequence[Row], objective: str) -> tuple[Row, Row]:
    line = _line(rows, objective, 1.0, settings.batch_size)
    return line[0], line[-1]


def _weight_buys_recall(settings: MapSettings, rows: Sequence[Row]) -> Claim:
    low, high = _ends(settings, rows, "debiased")
    return _bought("A larger weight λ buys recall with precision", "λ", low, high)


def _power_buys_recall(settings: MapSettings, rows: Sequence[Row]) -> Claim:
    low, high = _ends(settings, rows, "schatten")
    return _bought("A smaller power r buys recall with precision", "r", high, low)


def _bought(claim: str, sign: str, before: Row, after: Row) -> Claim:
    return Claim(
        claim,
        f"from {sign} = {before['number']:g} to {after['number']:g} at the median variance recall "
        f"goes from {before['recall']:.3f} to {after['recall']:.3f}, precision from "
        f"{before['precision']:.3f} to {after['precision']:.3f} (one seed)",
        after["recall"] > before["recall"] and after["precision"] < before["precision"],
    )


def _both_at_once(rows: Sequence[Row]) -> Claim:
    best = max(select(rows, part="map"), key=lambda row: min(row["recall"], row["precision"]))
    return Claim(
        "Some setting has precision and recall above .90 at once",
        f"nearest: {best['objective']} {best['number']:g} at {best['variance']:g} times the "
        f"median, batch {best['batch']}: precision {best['precision']:.3f}, recall "
        f"{best['recall']:.3f}, coverage {best['coverage']:.3f}, Fréchet distance "
        f"{best['frechet_distance']:.1f}",
        min(best["recall"], best["precision"]) > 0.9,
        _what_batches_do(rows),
    )


def _what_batches_do(rows: Sequence[Row]) -> str:
    """Return how recall and precision move with the batch, the likely reason of both."""
    found = []
    for objective in ("debiased", "schatten"):
        number = 0.5 if objective == "debiased" else 1.0
        own = select(rows, part="map", objective=objective, number=number, variance=1.0)
        own = sorted(own, key=lambda row: row["batch"])
        if len(own) > 1:
            first, last = own[0], own[-1]
            gains = (f"{name} {last[name] - first[name]:+.3f}" for name in ("recall", "precision"))
            found.append(
                f"{objective} {number:g}, from batch {first['batch']} to {last['batch']}: "
                + ", ".join(gains)
            )
    return f"A likely reason is the batch. Tested: {'; '.join(found)}." if found else ""


def _wins(settings: MapSettings, rows: Sequence[Row], candidate: str) -> Claim:
    """Ask whether a candidate has a higher coverage plus recall on every data set."""
    verdicts, gains = [], {}
    for data in settings.data:
        own, plain = (
            [row["coverage"] + row["recall"] for row in select(rows, data=data, candidate=name)]
            for name in (candidate, "nuclear")
        )
        verdicts.append(beyond(own, plain))
        gains[data] = mean(own) - mean(plain)
    text = ", ".join(f"{data} {gain:+.3f}" for data, gain in gains.items())
    return Claim(
        f"The {candidate} objective has more coverage plus recall than the nuclear norm on every "
        "data set and in every seed, so that it should be the default",
        text,
        together(verdicts),
        _where_it_loses(rows, gains),
    )


def _where_it_loses(rows: Sequence[Row], gains: Mapping[str, float]) -> str:
    """Return what the nuclear norm's recall is where it is beaten, and where it is not."""
    recall = {data: mean_of(rows, "recall", data=data, candidate="nuclear") for data in gains}
    sides = [
        ", ".join(f"{data} {recall[data]:.3f}" for data, gain in gains.items() if (gain > 0) == won)
        for won in (False, True)
    ]
    return (
        "A likely reason is that there is no bias to undo where the nuclear norm's recall is high "
        f"already. Its recall where it is not beaten: {sides[0] or 'nowhere'}; where it is: "
        f"{sides[1] or 'nowhere'}."
    )


def _candidates_table(settings: MapSettings, rows: Sequence[Row]) -> Table:
    lines = []
    for data in settings.data:
        for candidate in settings.candidates:
            own = select(rows, part="default", data=data, candidate=candidate)
            cells = [
                spread(values_of(own, name), 1 if "frechet" in name else 3) for name in METRICS
            ]
            lines.append((data, candidate, *cells))
    return Table(
        ("data", "objective", *_TITLES),
        tuple(lines),
        "Three objectives without tuning, on validation rows",
    )


_TITLES = ("Coverage", "Recall", "Precision", "Fréchet distance")


def _map_table(rows: Sequence[Row]) -> Table:
    lines = [("training rows", "", "", "", *_cells(select(rows, part="floor")[0]))]
    for row in select(rows, part="map"):
        first = (row["objective"], f"{row['number']:g}", f"{row['variance']:g}", str(row["batch"]))
        lines.append((*first, *_cells(row)))
    return Table(
        ("objective", "weight or power", "variance / median", "batch", *_TITLES),
        tuple(lines),
        "The map, one seed, on validation rows",
    )


def _cells(row: Row) -> tuple[str, ...]:
    return tuple(f"{row[name]:.{1 if 'frechet' in name else 3}f}" for name in METRICS)


EXPERIMENT = PrecisionRecall()
