"""Blocks: the same network and time, told nothing or the cluster.

The method with clusters is trained for a number of steps. The others get as many steps as fit into
the seconds of one core that it took. A pilot of a few steps tells how long a step of theirs takes.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hilbound.engine.seeding import stream
from hilbound.experiments.base import (
    Cell,
    Claim,
    Experiment,
    Picture,
    Row,
    beyond,
    mean_of,
    select,
    spread,
    together,
    train,
    values_of,
)
from hilbound.experiments.block_generation.settings import METHODS, BlockSettings
from hilbound.experiments.shared.sample_quality import (
    features,
    images,
    parzen_row,
    sample_quality,
    title_of,
    training_rows,
)
from hilbound.reports import plots
from hilbound.reports.drawing import canvas
from hilbound.reports.page import Table
from hilbound.training.runs import Run

#: The method whose time the others get.
REFERENCE = "clusters"

QUESTION = """
Does a mixture density network draw better samples if it is told a *block* of the data, here one of
128 k-means clusters in principal components? The joint Gram matrix is then block diagonal, and the
fidelity is a sum over the blocks
(`docs/objectives.md` of the repository). The network (a multilayer
perceptron), the objective (the debiased nuclear norm), the optimiser and the seconds of one core
are the same for all.

How the settings were found: on 5,000 validation images, with a seed that is not used here
(`benchmarks/block_settings.py`, with its table in `docs/objectives.md`). 128 clusters were better
than 64 and 256. More rows of each in a step helped, more steps hardly did. So 32 rows of each were
taken, and as many steps as ten minutes of one core allow. Test figures had been seen by then: with
64 clusters, 16 rows and 7,000 steps this page had coverage .896, precision .925, recall .938 and
Fréchet distance 4.8. The settings without a condition are the best of a sweep on validation images
(`docs/results/mnist.md` of the repository).

Coverage, recall, precision and the Fréchet distance compare samples with test images, in the
features of a small classifier. The floor is what training rows reach in the place of samples.
*Novelty* is 1 if samples know nothing of single training rows, and 0 if they copy them.
"""

_SHOWN = (
    ("coverage", 3),
    ("precision", 3),
    ("recall", 3),
    ("frechet_distance", 1),
    ("vendi_score", 2),
    ("novelty", 2),
    ("parzen", 0),
)
_LEAST = {"coverage": 0.90, "precision": 0.90, "recall": 0.93, "novelty": 0.95}
_MOST_FRECHET, _MOST_SECONDS = 6.0, 1200.0
_IMAGES = 10


class BlockGeneration(Experiment[BlockSettings]):
    """Samples of one network that is told nothing, or the cluster."""

    name = "block-generation"
    title = "Blocks: one network that is told nothing or the cluster, at equal time"
    question = QUESTION

    def settings(self, *, quick: bool) -> BlockSettings:
        """Return the settings for MNIST, or a tiny training on digits."""
        if not quick:
            return BlockSettings()
        methods = {
            name: options
            | {"batch_size": 80}
            | ({"condition": "clusters=8"} if name == REFERENCE else {})
            for name, options in METHODS.items()
        }
        return BlockSettings(
            data="digits",
            methods=methods,
            width=16,
            noise_dim=4,
            steps=8,
            pilot_steps=4,
            samples=90,
        )

    def cells(
        self, settings: BlockSettings, seeds: Sequence[int], rows: Sequence[Row]
    ) -> Iterable[Cell]:
        """Return the floor, the reference and the pilots, then the others by its time."""
        yield Cell.of(method="real", seed=0)
        for seed in seeds:
            yield Cell.of(method=REFERENCE, seed=seed, steps=settings.steps)
            yield from _by_time(settings, seed, rows)

    def measure(self, settings: BlockSettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Train once and measure the samples; of the floor, measure training rows."""
        dataset, seed = images(settings.data, seed=options["seed"]), options["seed"]
        if options["method"] == "real":
            return _quality(settings, dataset, training_rows(dataset, settings.samples, seed))
        began = time.process_time()
        run = train(folder, **_options(settings, options))
        # Seconds of one core: what else the machine does is no part of an equal time.
        seconds = {"training_seconds": time.process_time() - began}
        if options.get("pilot"):
            return seconds
        samples = run.model.sample(settings.samples, stream(seed, "generation"))
        bounds = [row for row in run.read_bounds() if row["split"] == "validation"]
        return (
            seconds
            | {"tightness": bounds[-1]["tightness"]}
            | _quality(settings, dataset, samples.to(dataset.test))
        )

    def claims(self, settings: BlockSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return the goals of the clusters, and what came out."""
        return [_goals(rows), _ahead(rows)]

    def tables(self, settings: BlockSettings, rows: Sequence[Row]) -> list[Table]:
        """Return one table of all methods."""
        lines = []
        for method in ("real", *settings.methods):
            group = measured(rows, method)
            cells = [spread(values_of(group, name), digits) for name, digits in _SHOWN]
            more = [spread(values_of(group, n), 0) for n in ("steps", "training_seconds")]
            lines.append(("training rows" if method == "real" else method, *cells, *more))
        titles = [title_of(name) for name, _ in _SHOWN]
        columns = ("told", *titles, "steps", "seconds of one core")
        return [Table(columns, tuple(lines), f"{settings.data}, test images, equal time")]

    def pictures(
        self, settings: BlockSettings, rows: Sequence[Row], work: Path
    ) -> Iterator[Picture]:
        """Draw samples of every method, with a row for each of some clusters."""
        for method in settings.methods:
            row = measured(rows, method)[0]
            yield _samples(method, Run.open(work / row["cell"] / "run"))


def _options(settings: BlockSettings, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a training."""
    own = settings.methods[options["method"]]
    return {
        "data": settings.data,
        "objective": settings.objective,
        "width": settings.width,
        "noise_dim": settings.noise_dim,
        "centers": own["batch_size"],
        "steps": options["steps"],
        # Validations are no part of the time that is compared.
        "validate_every": options["steps"],
        "seed": options["seed"],
    } | own


def _by_time(settings: BlockSettings, seed: int, rows: Sequence[Row]) -> Iterator[Cell]:
    """Return the pilots, then trainings of as many steps as fit into the time of the reference."""
    reference = [row for row in measured(rows, REFERENCE) if row["seed"] == seed]
    for method in settings.methods:
        if method == REFERENCE:
            continue
        # Two lengths: what does not grow with the steps cancels in the difference.
        lengths = (settings.pilot_steps, 2 * settings.pilot_steps)
        pilots = [Cell.of(method=method, seed=seed, steps=steps, pilot=True) for steps in lengths]
        yield from pilots
        times = [
            values_of(rows, "training_seconds", method=method, seed=seed, steps=n, pilot=True)
            for n in lengths
        ]
        if reference and all(times):
            first, second = (one[0] for one in times)
            per_step = max(second - first, 0.1 * second) / settings.pilot_steps
            left = reference[0]["training_seconds"] - (first - per_step * lengths[0])
            yield Cell.of(method=method, seed=seed, steps=max(1, round(left / per_step)))


def measured(rows: Sequence[Row], method: str) -> list[Row]:
    """Return the rows of a method, without its pilots."""
    return [row for row in select(rows, method=method) if not row.get("pilot")]


def _quality(settings: BlockSettings, dataset: Any, samples: Tensor) -> Row:
    space = features(settings.data)
    return sample_quality(dataset, space, samples) | parzen_row(dataset, samples)


def _goals(rows: Sequence[Row]) -> Claim:
    group = measured(rows, REFERENCE)
    missed = [
        f"{_title(name)} by {least - mean_of(group, name):.3f}"
        for name, least in _LEAST.items()
        if mean_of(group, name) < least
    ]
    over = mean_of(group, "frechet_distance") - _MOST_FRECHET
    if over >= 0:
        missed.append(f"Fréchet distance by {over:.1f}")
    seconds = mean_of(group, "training_seconds")
    if seconds > _MOST_SECONDS:
        missed.append(f"time by {seconds - _MOST_SECONDS:.0f} s")
    values = ", ".join(f"{_title(name)} {spread(values_of(group, name))}" for name in _LEAST)
    return Claim(
        "Told the cluster, a mixture density network reaches coverage and precision .90, recall "
        ".93, novelty .95 and a Fréchet distance below 6, in ten minutes of two cores",
        f"{values}, Fréchet distance {spread(values_of(group, 'frechet_distance'), 1)}, in "
        f"{seconds:.0f} s of one core",
        not missed,
        f"misses {', '.join(missed)}." if missed else "",
    )


def _title(name: str) -> str:
    return title_of(name).lower()


def _ahead(rows: Sequence[Row]) -> Claim:
    """Compare coverage and precision, which the network without a condition lacks."""
    groups = {name: measured(rows, name) for name in (REFERENCE, "unconditional")}
    verdicts = [
        beyond(*(values_of(group, metric) for group in groups.values()))
        for metric in ("coverage", "precision")
    ]
    figures = "; ".join(
        f"{name} {mean_of(group, 'coverage'):.3f}, {mean_of(group, 'precision'):.3f}, "
        f"{mean_of(group, 'recall'):.3f}"
        for name, group in groups.items()
    )
    return Claim(
        "At equal time the network that is told the cluster is ahead of the one that is told "
        "nothing in coverage and precision",
        f"coverage, precision and recall: {figures}",
        together(verdicts),
    )


def _samples(method: str, run: Run) -> Picture:
    figure, ax = canvas(5.0, 5.0)
    shape = run.read_json("run.json")["data"]["image_shape"]
    told = run.config.condition is not None
    lines = min(_IMAGES, run.config.clusters or _IMAGES)
    drawn = [
        run.model.sample(_IMAGES, stream(0, "shown", label), label if told else None)
        for label in range(lines)
    ]
    plots.plot_images(ax, torch.cat(drawn).reshape(-1, *shape), columns=_IMAGES)
    what = {"unconditional": "a network that is told nothing"}.get(
        method, f"the network that is told {method}: a row for each of the first {len(drawn)}"
    )
    return Picture(f"samples-{method}", figure, f"Samples of {what}", f"Samples of {what}, seed 0.")


EXPERIMENT = BlockGeneration()
