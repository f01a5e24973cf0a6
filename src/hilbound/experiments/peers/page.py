"""What the rows of the comparison with peers say: claims, tables, pictures and notes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

from matplotlib.axes import Axes
from safetensors.torch import load_file
from torch import Tensor

from hilbound.evaluation.quality import METRICS
from hilbound.experiments.base import (
    Cell,
    Claim,
    Picture,
    Row,
    beyond,
    mean_of,
    select,
    spread,
    together,
    values_of,
)
from hilbound.experiments.peers.settings import OURS, PeersSettings
from hilbound.experiments.shared.sample_quality import images, title_of
from hilbound.reports import plots
from hilbound.reports.drawing import MODEL, REAL, canvas
from hilbound.reports.feature_plots import COLORS
from hilbound.reports.page import Table

QUESTION = """
A network that maps noise to data can be trained with many losses. Which gives the best samples in
equal time? Five things are the same for all: the network, its initial weights, the batches, the
optimiser (Adam, its rate falling along a cosine of the time), and the seconds of one core. Only the
loss differs:

- *nuclear*: the nuclear norm;
- *debiased*: the nuclear norm without the bias of the mini-batch;
- *clusters*: the debiased norm given clusters of the training rows, with 64 rows of each cluster in
  a step, because blocks are cheap;
- *sinkhorn*: the Sinkhorn divergence of geomloss;
- *energy*: the energy distance;
- *mmd*: the maximum mean discrepancy of six Gaussian kernels, as in generative moment matching
  networks;
- *sliced*: the sliced Wasserstein distance;
- *likelihood*: the likelihood of a mixture density network.

Beside them stands a *vae*, whose decoder is the same network.

Each method may choose one number out of three. For *clusters* it is their number, for *sliced* the
number of directions, for *vae* the number of features. The energy distance has no scale, so it
chooses a multiple of the learning rate. All others choose the multiple of the median heuristic for
their variance (for Sinkhorn, its blur). The choice has the highest coverage + recall against
*validation* rows, after a third of the time and with another seed. All final figures are against
test rows. The best of ours is the one whose final trainings are best against validation rows.
"""

SAMPLES = "samples.safetensors"
SHOWN = (
    ("coverage", 3),
    ("recall", 3),
    ("precision", 3),
    ("frechet_distance", 2),
    ("novelty", 2),
)


def score(row: Row) -> float:
    """Return coverage + recall, which is 2 at best.

    >>> score({"coverage": 0.5, "recall": 0.75})
    1.25
    """
    return float(row["coverage"]) + float(row["recall"])


def chosen(rows: Sequence[Row]) -> Row:
    """Return the row with the highest coverage + recall; the first of several."""
    return max(rows, key=score)


def best_of_ours(rows: Sequence[Row], data: str) -> str:
    """Return the method of this library whose final trainings validation rows prefer."""
    means = {m: values_of(final(rows, data, m), "validation_score") for m in OURS}
    return max((m for m, values in means.items() if values), key=lambda m: mean(means[m]))


def final(rows: Sequence[Row], data: str, method: str) -> list[Row]:
    """Return the final rows of a method."""
    return select(rows, data=data, method=method, purpose="final")


def _scores(rows: Sequence[Row], data: str, method: str) -> list[float]:
    return [score(row) for row in final(rows, data, method)]


def is_whole(settings: PeersSettings, rows: Sequence[Row], data: str) -> bool:
    """Whether every method has a final training on a data set."""
    return all(final(rows, data, method) for method in settings.methods)


def measured(settings: PeersSettings, rows: Sequence[Row]) -> list[str]:
    """Return the data sets on which all methods were measured."""
    return [data for data in settings.budgets if is_whole(settings, rows, data)]


def claims(settings: PeersSettings, rows: Sequence[Row]) -> list[Claim]:
    """Return one claim for each data set."""
    return [_ahead(settings, rows, data) for data in measured(settings, rows)]


def _ahead(settings: PeersSettings, rows: Sequence[Row], data: str) -> Claim:
    ours = best_of_ours(rows, data)
    own = _scores(rows, data, ours)
    peers = [m for m in settings.methods if m not in OURS]
    verdicts = {m: beyond(own, _scores(rows, data, m)) for m in peers}
    ahead = [m for m, verdict in verdicts.items() if verdict]
    figures = ", ".join(f"{m} {spread(_scores(rows, data, m), 2)}" for m in (ours, *peers))
    holds = together(list(verdicts.values()))
    seconds = settings.budgets[data].seconds
    return Claim(
        f"{data}: in {seconds:g} s, the best of ours is ahead of every peer in coverage + recall, "
        "in every seed",
        f"{figures}; ahead of {', '.join(ahead) or 'none'}",
        holds,
        "" if holds else _why(rows, data, ours, verdicts),
    )


def _why(rows: Sequence[Row], data: str, ours: str, verdicts: dict[str, bool | None]) -> str:
    """Say which peer wins, in what, and with how many steps."""
    lines = []
    for method, verdict in verdicts.items():
        if verdict:
            continue
        word = "is ahead" if verdict is False else "is not behind in every seed"
        lines.append(
            f"{method} {word}: {_four(rows, data, method)} after {_steps(rows, data, method)}"
        )
    return (
        f"{'; '.join(lines)}. Beside it {ours}: {_four(rows, data, ours)} after "
        f"{_steps(rows, data, ours)}."
    )


def _four(rows: Sequence[Row], data: str, method: str) -> str:
    own = final(rows, data, method)
    return ", ".join(
        f"{METRICS[name].title.lower()} {mean_of(own, name):.{digits}f}"
        for name, digits in SHOWN[:4]
    )


def _steps(rows: Sequence[Row], data: str, method: str) -> str:
    return f"{mean(values_of(final(rows, data, method), 'steps')):,.0f} steps"


def tables(settings: PeersSettings, rows: Sequence[Row]) -> list[Table]:
    """Return a table for each data set, and what validation rows chose."""
    return [
        *(_table(settings, rows, data) for data in measured(settings, rows)),
        _choices(settings, rows),
    ]


def _table(settings: PeersSettings, rows: Sequence[Row], data: str) -> Table:
    titles = [title_of(name) for name, _ in SHOWN]
    lines = []
    for method in ("real", *settings.methods):
        group = (
            select(rows, data=data, method="real")
            if method == "real"
            else final(rows, data, method)
        )
        cells = [spread(values_of(group, name), digits) for name, digits in SHOWN]
        total = spread([score(row) for row in group], 2)
        ends = [spread(values_of(group, n), 0) for n in ("steps", "training_seconds")]
        lines.append(("training rows" if method == "real" else method, total, *cells, *ends))
    return Table(
        ("method", "coverage + recall", *titles, "steps", "seconds"),
        tuple(lines),
        f"{data}, {settings.budgets[data].seconds:g} s each, against test rows",
    )


def _choices(settings: PeersSettings, rows: Sequence[Row]) -> Table:
    lines = []
    for data in measured(settings, rows):
        for method in settings.methods:
            tried = select(rows, data=data, method=method, purpose="choice")
            best = chosen(tried)
            cells = ", ".join(f"{row['option']:g}: {score(row):.2f}" for row in tried)
            lines.append((data, method, cells, f"{best['option']:g}"))
    return Table(
        ("data", "method", "option: coverage + recall", "chosen"),
        tuple(lines),
        "What each method could choose, on validation rows",
    )


def pictures(settings: PeersSettings, rows: Sequence[Row], work: Path) -> Iterator[Picture]:
    """Draw recall against coverage, and samples, for each data set."""
    for data in measured(settings, rows):
        yield _against(settings, rows, data)
        yield _samples(settings, rows, data, work)


def _against(settings: PeersSettings, rows: Sequence[Row], data: str) -> Picture:
    figure, ax = canvas(6.0, 4.0)
    for i, method in enumerate(settings.methods):
        x, y = (values_of(final(rows, data, method), name) for name in ("coverage", "recall"))
        ax.scatter(
            x, y, color=COLORS[i % len(COLORS)], marker="os^Dv<>PX*"[i % 10], s=34, label=method
        )
    floor = select(rows, data=data, method="real")[0]
    ax.scatter([floor["coverage"]], [floor["recall"]], color="black", marker="+", s=80,
               label="training rows")  # fmt: skip
    ax.set(xlabel="coverage", ylabel="recall")
    ax.legend(frameon=False, fontsize=8, ncol=2)
    return Picture(
        f"{data}-coverage-recall",
        figure,
        f"Recall against coverage on {data}, a mark for every method and seed",
        f"{data}: recall against coverage after {settings.budgets[data].seconds:g} s, a mark for "
        "every seed.",
    )


def _samples(settings: PeersSettings, rows: Sequence[Row], data: str, work: Path) -> Picture:
    from matplotlib.figure import Figure

    columns = 4
    lines = -(-len(settings.methods) // columns)
    dataset = images(data)
    size = 1.2 if dataset.image_shape is None else 0.95
    figure = Figure(figsize=(1.9 * columns, size * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, method in zip(axes.flat, settings.methods, strict=False):
        row = final(rows, data, method)[0]
        options = {n: row[n] for n in ("data", "method", "purpose", "option", "seed")}
        drawn = load_file(work / Cell.of(**options).name / SAMPLES)["samples"]
        if dataset.image_shape is None:
            _scatter(ax, dataset.test[:500], drawn[:500])
        else:
            plots.plot_images(ax, drawn[:24].reshape(-1, *dataset.image_shape), columns=8)
        ax.set_title(f"{method}, {score(row):.2f}", fontsize=9)
    return Picture(
        f"{data}-samples",
        figure,
        f"Samples of every method on {data}",
        f"{data}: samples after {settings.budgets[data].seconds:g} s, seed {row['seed']}, not "
        "chosen; beside the name coverage + recall.",
    )


def _scatter(ax: Axes, data: Tensor, samples: Tensor) -> None:
    ax.scatter(data[:, 0], data[:, 1], s=2, color=REAL, alpha=0.4, linewidths=0)
    ax.scatter(samples[:, 0], samples[:, 1], s=2, color=MODEL, linewidths=0)
    ax.set_aspect("equal")


def notes() -> str:
    """Return how far the figures carry."""
    return (
        "## How far the figures carry\n\n"
        "The budgets are small, and the networks plain perceptrons: what is compared is how fast "
        "a loss teaches one network, not what it can reach in the end. Coverage and recall are "
        "computed in the space of `hilbound evaluate`: the features of a small classifier for "
        "images, whitened coordinates for moons. A step of the nuclear norm takes a singular value "
        "decomposition, so it makes fewest steps. Three candidates for each method are a coarse "
        "choice, and the choice is made after a third of the time. Seconds are those of one "
        "thread, so the number of steps differs a little from run to run."
    )
