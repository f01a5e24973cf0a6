r"""Conditional fidelity: decoders trained on pairs, beside the conditional cost and real images.

All decoders are fitted to one frozen encoder with one feature. What they make of an input is held
against real images that share its feature, by the measures of
:mod:`hilbound.experiments.shared.yardstick` and by the tightness of the conditional bound.

**The real floor of a tightness.** If several rows share a feature, K draws from p(x|y) itself have
a tightness below 1: with few of them the mean of all rows would have more. So beside every
tightness stands the one of K real held-out images with the feature, in the decoder's place.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from hilbound import datasets
from hilbound.bounds import conditional_bound
from hilbound.engine.seeding import stream
from hilbound.evaluation import metrics
from hilbound.experiments.base import (
    Cell,
    Claim,
    Experiment,
    Picture,
    Row,
    select,
    spread,
    train,
    values_of,
)
from hilbound.experiments.shared.conditional_runs import (
    QUICK,
    ConditionalSettings,
    conditional_model,
    run_folder,
)
from hilbound.experiments.shared.yardstick import Yardstick
from hilbound.mixture import GaussianMixture
from hilbound.models.autoencoders import EncoderMixtureDecoder
from hilbound.reports.drawing import PALETTE, REAL, tidy
from hilbound.reports.page import Table
from hilbound.reports.plots import plot_images
from hilbound.training.runs import Run

#: How each decoder is trained: in words, and what its training has of its own.
DECODERS: dict[str, tuple[str, Row]] = {
    "slices": (
        "fidelity by slices, a larger network",
        {"objective_options": {"weight": 0.36}},
    ),
    "same": (
        "fidelity by slices, the others' network",
        {"objective_options": {"weight": 0.38}},
    ),
    "debiased": (
        "joint fidelity, debiased",
        {"objective": "joint-nuclear", "objective_options": {"weight": 0.35}},
    ),
    "joint": ("joint fidelity", {"objective": "joint-nuclear"}),
    "conditional": ("conditional cost", {"objective": "conditional"}),
    "wide": (
        "conditional cost, also at four times the variance",
        {"objective": "conditional", "objective_options": {"wide": 4.0}},
    ),
}
#: What a decoder is measured by: the heading, decimals, and which way is better.
MEASURED = {
    "lost": ("lost", 3),
    "distance": ("distance² of two", 1),
    "precision": ("precision", 2),
    "recall": ("recall", 2),
    "agreement": ("agreement of classes", 2),
}
_PAIRED = ("joint", "debiased")
_SLICED = ("slices", "same")
_NOT_DRAWN = ("same", "wide")
#: Hidden layers of the encoder, and of all decoders but the larger one.
_DEPTH = 2
#: The decoder that the claims are about.
_JUDGED = "slices"


class FidelitySettings(ConditionalSettings):
    """The trainings, and how they are measured."""

    samples: int | None = 20_000
    centers: tuple[int, ...] = (1, 10, 30)
    width: int = 512
    reconstructions: int = 30
    encoder_steps: int = 1500
    steps: int = 1200
    batch_size: int = 64
    learning_rate: float = 4e-3
    pair_steps: int = 700
    pair_batch: int = 512
    pair_variance: str = "median"
    slices: int = 16
    slice_steps: int = 600
    slice_batch: int = 4096
    slice_width: int = 768
    slice_depth: int = 3
    drawn: int = 6


class ConditionalFidelity(Experiment[FidelitySettings]):
    """Reconstructions by the joint fidelity, by the conditional cost, and real images."""

    name = "conditional-fidelity"
    title = "Conditional fidelity: reconstructions that are as good as real images"
    question = """
Many images share one feature. A decoder should answer a feature with images that are as valid and
as different as these. The conditional cost asks each of K centres for a share of a kernel around
one row. The *joint fidelity* compares pairs of an image and its feature, all rows with all centres.
The *fidelity by slices* draws some features for every step, and many images that share each; it
compares these with all centres of that feature. Do decoders that are trained with one of them lose
fewer centres, and are their reconstructions nearer to real ones? All decoders are fitted to the
encoder of the same plain autoencoder. *Real images with the feature* show what a perfect decoder
would reach.
"""

    def settings(self, *, quick: bool) -> FidelitySettings:
        """Return the settings of MNIST, or tiny ones on digits."""
        if not quick:
            return FidelitySettings()
        short = {"encoder_steps": 20, "pair_steps": 20, "pair_batch": 64, "drawn": 2}
        short |= {"slices": 2, "slice_steps": 20, "slice_batch": 64, "slice_width": 20}
        return FidelitySettings(**QUICK | short)

    def cells(
        self, settings: FidelitySettings, seeds: Sequence[int], rows: Sequence[Row]
    ) -> Iterable[Cell]:
        """Return the trainings of the encoders, then those of the decoders."""
        yield from (encoder_cell(seed) for seed in seeds)
        trained = {row["seed"] for row in select(rows, decoder="none")}
        for seed in seeds:
            if seed in trained:
                yield from (decoder_cell(name, seed) for name in DECODERS)

    def measure(self, settings: FidelitySettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Train an encoder, or a decoder and measure what it makes."""
        seed = options["seed"]
        if options["decoder"] == "none":
            run = _train_encoder(settings, folder, seed)
            return {"steps": run.config.steps}
        run = _train_decoder(settings, folder, options["decoder"], seed)
        model, yardstick = conditional_model(run), Yardstick.of(settings)
        m = settings.reconstructions
        several = model.reconstruct(yardstick.inputs, m, stream(0, "reconstructions"))
        real = yardstick.real_in_place(model, m)
        row: Row = {"seconds": run.read_bounds()[-1]["seconds"]}
        row |= _quality(yardstick, model, several)
        row["real"] = _quality(yardstick, model, real)
        for k in settings.centers:
            row[f"tightness_{k}"], row[f"floor_{k}"] = _tightness(settings, yardstick, model, k)
        return row

    def claims(self, settings: FidelitySettings, rows: Sequence[Row]) -> list[Claim]:
        """Return claims about lost ones, validity, diversity and tightness."""
        return [
            _few_lost(rows),
            _at_least(
                rows,
                "Two of its reconstructions of an input have a squared distance of at least 50",
                "distance",
                50,
            ),
            _at_least(rows, "Their precision is at least .93", "precision", 0.93),
            _at_least(rows, "Their recall is at least .7", "recall", 0.7),
            _above_the_floor(settings, rows),
        ]

    def tables(self, settings: FidelitySettings, rows: Sequence[Row]) -> list[Table]:
        """Return quality and tightness of every decoder and of real images."""
        columns = ("", *(title for title, _ in MEASURED.values()), "seconds")
        lines = [
            (title, *_spreads(select(rows, decoder=name)), _seconds(select(rows, decoder=name)))
            for name, (title, _) in DECODERS.items()
        ]
        real = [row["real"] for row in rows if "real" in row]
        lines.append(("real images with the feature", *_spreads(real), "–"))
        tight = ("", *(f"K = {k}" for k in settings.centers))
        own = [
            (title, *(_over_floor(select(rows, decoder=name), k) for k in settings.centers))
            for name, (title, _) in DECODERS.items()
        ]
        return [
            Table(columns, tuple(lines), "Reconstructions of held-out images"),
            Table(tight, tuple(own), "Tightness / that of as many real images with the feature"),
        ]

    def pictures(
        self, settings: FidelitySettings, rows: Sequence[Row], work: Path
    ) -> Iterator[Picture]:
        """Draw tightness beside its floor, and reconstructions."""
        yield _tightness_picture(settings, rows)
        yield _reconstructions(settings, work)

    def notes(self, settings: FidelitySettings, rows: Sequence[Row]) -> str:
        """Explain the measures."""
        return (
            "*Lost* is the share of reconstructions that are farther from every real image, in "
            "pixels, than 99.9 % of other real images. The rest is of those that are not lost: the "
            "mean squared distance between two of one input; *precision* and *recall* in the "
            "features of a small classifier, against held-out images; *agreement*, 1 minus the "
            "total variation between their classes and those of the images that share the "
            f"feature. {settings.inputs} inputs, {settings.reconstructions} reconstructions of "
            f"each. Tightness is that of components of variance {settings.variance:g} on "
            f"{settings.bound_rows} test rows, for every decoder alike. Seconds are those of one "
            f"busy core. The larger network has {settings.slice_depth} layers of "
            f"{settings.slice_width} units, all others {_DEPTH} of {settings.width}. Its size and "
            "the weights of the divergence were chosen on validation images, with one seed."
        )


# ------------------------------------------------------------------ trainings


def encoder_cell(seed: int) -> Cell:
    """Return the cell that trains the autoencoder whose encoder all decoders take over."""
    return Cell.of(decoder="none", seed=seed)


def decoder_cell(name: str, seed: int) -> Cell:
    """Return the cell that trains and measures a decoder."""
    return Cell.of(decoder=name, seed=seed)


def _shared(settings: FidelitySettings) -> Row:
    names = ("data", "samples", "features", "variance_y", "width")
    return {name: getattr(settings, name) for name in names}


def _train_encoder(settings: FidelitySettings, folder: Path, seed: int) -> Run:
    return train(
        folder,
        model="autoencoder",
        steps=settings.encoder_steps,
        validate_every=settings.encoder_steps,
        seed=seed,
        **_shared(settings),
    )


def _train_decoder(settings: FidelitySettings, folder: Path, name: str, seed: int) -> Run:
    own: Row = {
        "steps": settings.steps,
        "batch_size": settings.batch_size,
        "centers": settings.centers[-1],
        "variance": settings.variance,
        "bound_every": 10 * settings.steps,
    }
    if name in _SLICED:
        own = {
            "steps": settings.slice_steps,
            "batch_size": settings.slice_batch,
            "slices": settings.slices,
            "variance": settings.pair_variance,
        }
    if name == _JUDGED:
        own |= {"width": settings.slice_width, "depth": settings.slice_depth}
        own |= {"encoder_width": settings.width, "encoder_depth": _DEPTH}
    if name in _PAIRED:
        own = {
            "steps": settings.pair_steps,
            "batch_size": settings.pair_batch,
            "variance": settings.pair_variance,
        }
    return train(
        folder,
        model="encoder-mixture-decoder",
        encoder=str(run_folder(folder.parent, encoder_cell(seed))),
        learning_rate=settings.learning_rate,
        validate_every=own["steps"],
        seed=seed,
        **_shared(settings) | own | DECODERS[name][1],
    )


# ------------------------------------------------------------------ measures


def _quality(yardstick: Yardstick, model: EncoderMixtureDecoder, several: Tensor) -> Row:
    found = yardstick.measure(model, several)
    kept = yardstick.from_nearest(several.flatten(0, 1)) <= yardstick.farthest
    images = several.flatten(0, 1)[kept]
    row = {name: found[name] for name in MEASURED if name != "recall"}
    row["recall"] = None
    if row["precision"] is not None:
        points = yardstick.classifier.transform(images)
        both = metrics.precision_recall_density_coverage(yardstick.support, points)
        row["recall"] = float(both.recall)
    return row


@torch.no_grad()
def _tightness(
    settings: FidelitySettings, yardstick: Yardstick, model: EncoderMixtureDecoder, k: int
) -> tuple[float, float]:
    """Return the tightness of K centres, and of K real images with the feature.

    Decoders are trained with different variances, and measured with one.
    """
    v, v_y = settings.variance, settings.variance_y
    x = yardstick.real[: settings.bound_rows]
    draws = stream(0, "tightness", k)
    features = model.features_of(x)
    points, noise = model.perturb(features, draws), model.decoder.noise(k, generator=draws)
    with model.evaluating():
        own = conditional_bound(
            x,
            features,
            points,
            lambda y: GaussianMixture(model.decoder(y, noise).means, v),
            variance_p=v,
            variance_y=v_y,
        )
    # Draws in the same state give the same feature points, and so the same limit.
    real = model.real_bound(x, yardstick.others, v, k, stream(0, "tightness", k))
    return float(own.tightness), float(real.tightness)


def _spreads(rows: Sequence[Row]) -> tuple[str, ...]:
    return tuple(spread(values_of(rows, name), d) for name, (_, d) in MEASURED.items())


def _seconds(rows: Sequence[Row]) -> str:
    return spread(values_of(rows, "seconds"), 0)


def _over_floor(rows: Sequence[Row], k: int) -> str:
    tightness, floor = (
        spread(values_of(rows, f"{name}_{k}"), 2) for name in ("tightness", "floor")
    )
    return f"{tightness} / {floor}"


# ------------------------------------------------------------------ claims


def _both(rows: Sequence[Row], name: str) -> str:
    digits = MEASURED[name][1]
    return "; ".join(
        f"{title} {spread(values_of(select(rows, decoder=key), name), digits)}"
        for key, (title, _) in DECODERS.items()
    )


def _few_lost(rows: Sequence[Row]) -> Claim:
    values = values_of(select(rows, decoder=_JUDGED), "lost")
    return Claim(
        "The fidelity by slices loses at most one reconstruction in two hundred",
        _both(rows, "lost"),
        bool(values) and max(values) <= 0.005,
    )


def _real(rows: Sequence[Row], name: str) -> float:
    return mean(values_of([row["real"] for row in rows if "real" in row], name))


def _at_least(rows: Sequence[Row], words: str, name: str, least: float) -> Claim:
    """Return a claim about every seed of the fidelity by slices, beside real images."""
    values = values_of(select(rows, decoder=_JUDGED), name)
    digits = MEASURED[name][1]
    return Claim(
        words,
        f"{_both(rows, name)}; real images {_real(rows, name):.{digits}f}",
        bool(values) and min(values) >= least,
    )


def _above_the_floor(settings: FidelitySettings, rows: Sequence[Row]) -> Claim:
    own = select(rows, decoder=_JUDGED)
    holds = bool(own) and all(
        row[f"tightness_{k}"] >= row[f"floor_{k}"] for row in own for k in settings.centers
    )
    words = ", ".join(f"{_over_floor(own, k)} at K = {k}" for k in settings.centers)
    return Claim(
        "Its tightness is at least that of as many real images with the feature, at every K",
        f"tightness / that of real images: {words}",
        holds,
    )


# ------------------------------------------------------------------ pictures


def _tightness_picture(settings: FidelitySettings, rows: Sequence[Row]) -> Picture:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    ax = figure.subplots()
    for color, (name, (title, _)) in zip(PALETTE, DECODERS.items(), strict=False):
        own = select(rows, decoder=name)
        means = [mean(values_of(own, f"tightness_{k}")) for k in settings.centers]
        ax.plot(settings.centers, means, "o-", color=color, label=title)
    floors = [
        mean(row[f"floor_{k}"] for row in rows if f"floor_{k}" in row) for k in settings.centers
    ]
    ax.plot(settings.centers, floors, "*--", color=REAL, label="real images with the feature")
    ax.axhline(1, color=REAL, linewidth=0.8, label="limit")
    ax.set_xscale("log")
    ax.minorticks_off()
    ax.set_xticks(settings.centers, [str(k) for k in settings.centers])
    ax.set_xlabel("K")
    ax.set_ylabel("tightness")
    ax.set_ylim(0, 1.05)
    tidy(ax)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=8)
    return Picture(
        "tightness",
        figure,
        "Tightness of each decoder against K, and of real images with the feature",
        "A decoder is as good as real images where its line meets the dashed one; the mean of many "
        "images can lie above it.",
    )


def _reconstructions(settings: FidelitySettings, work: Path) -> Picture:
    from matplotlib.figure import Figure

    shape = datasets.load(settings.data).image_shape
    if shape is None:
        raise TypeError(f"{settings.data} are no images")
    yardstick, n = Yardstick.of(settings), settings.drawn
    x = yardstick.inputs[:n]
    panels = {"input": x.unsqueeze(1)}
    for name, (title, _) in DECODERS.items():
        if name in _NOT_DRAWN:
            continue
        model = conditional_model(Run.open(run_folder(work, decoder_cell(name, 0))))
        panels[title] = model.reconstruct(x, n, stream(0, "reconstructions"))
    panels["real images"] = yardstick.real_in_place(model, n)[:n]
    columns = [images.shape[1] for images in panels.values()]
    # As high as the rows are, so that nothing stays empty below them.
    figure = Figure(figsize=(10.0, 0.25 + 10.0 * n / sum(columns)), layout="constrained")
    axes = figure.subplots(1, len(panels), width_ratios=[15 * c - 1 for c in columns])
    for ax, (title, images), c in zip(axes, panels.items(), columns, strict=True):
        plot_images(ax, images.flatten(0, 1).unflatten(1, shape), columns=c).set_anchor("N")
        ax.set_title(title, fontsize=8, color="#3a424c")
    return Picture(
        "reconstructions",
        figure,
        "Inputs beside several reconstructions of each, and real images with the same feature",
        "Held-out inputs, several reconstructions of each by every decoder, and real images with "
        "the feature of the input; seed 0.",
    )


EXPERIMENT = ConditionalFidelity()
