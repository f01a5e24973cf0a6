"""Images by class: the mixture decoder, the autoencoder and the VAE, all told the class.

Models and their training are in :mod:`hilbound.experiments.class_conditional.training`, measures in
:mod:`hilbound.experiments.class_conditional.measures`.
"""

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hilbound import datasets
from hilbound.datasets import Dataset
from hilbound.datasets.cifar import CLASSES
from hilbound.engine.seeding import stream
from hilbound.evaluation.spaces import fit_classifier
from hilbound.experiments.base import (
    Cell,
    Claim,
    Experiment,
    Picture,
    Row,
    drawn_from,
    select,
    spread,
    values_of,
)
from hilbound.experiments.class_conditional.measures import TIMES, measure_classes
from hilbound.experiments.class_conditional.settings import (
    LONGER,
    MIXTURES,
    SLICES,
    ClassSettings,
)
from hilbound.experiments.class_conditional.training import train_labels, trained
from hilbound.models.classes import ClassConditional
from hilbound.reports import plots
from hilbound.reports.drawing import PALETTE, REAL, tidy
from hilbound.reports.page import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The models, and the heading of each.
MODELS = {
    "real": "training images",
    "mixture": "mixture decoder",
    "autoencoder": "autoencoder",
    "vae": "VAE",
    "by-row": "mixture, row by row",
    SLICES: "mixture, slices",
    LONGER: "autoencoder, longer",
}
TRAINED = tuple(MODELS)[1:]
#: Those of most claims; the other models test why one fails, and what more steps would change.
COMPARED = TRAINED[:3]
#: Those of the picture of samples.
DRAWN = (*COMPARED, SLICES)
SHOWN = 3
SAMPLES = "samples.safetensors"

#: The measure, its digits, what is claimed of the mixture decoder, and whether more is better.
_CLAIMS = (
    ("diversity", 2, "the mixture decoder's samples of a class are the most diverse", True),
    ("reconstruction_diversity", 2, "its reconstructions of one input differ most", True),
    ("frechet", 1, "its samples of a class are nearest to the test images", False),
    ("coverage", 2, "its samples cover the test images best", True),
)

_MARKS = {
    "real": (REAL, "_"),
    "mixture": (PALETTE[1], "o"),
    "autoencoder": (PALETTE[0], "s"),
    "vae": (PALETTE[2], "^"),
    "by-row": (PALETTE[3], "D"),
    SLICES: (PALETTE[4], "P"),
    LONGER: (PALETTE[5], "s"),
}

_ROW_BY_ROW = """
The conditional cost adds the overlaps of all rows of a batch before it takes the logarithm. In
thousands of dimensions overlaps differ by orders of magnitude. So the rows that are easiest to
reconstruct count for most of it. Is this what holds the mixture decoder back? *Mixture, row by row*
tests it. It has the same decoder and the same kernel, but is trained on the mean of every row's own
logarithm, so all rows count alike.
""".strip()


_SLICES = """
*Mixture, slices* tests another reason: every row is compared with its own images alone, so nothing
asks for the diversity of rows that share a class and a feature. Here 64 such rows are compared with
64 centres in a step, by the Schatten norm (power .85, kernel variance: the median). The encoder is
that of the autoencoder, and does not move; its training is counted in the seconds. The norm, the
number of rows and the learning rate were chosen on validation rows, seed 0. What it costs: its
reconstructions are farther from their input, because they aim at all rows that share its features.
""".strip()


class ClassConditionalImages(Experiment[ClassSettings]):
    """Samples by class of three models, beside held-out images of the class."""

    name = "class-conditional"
    title = "Images by class: mixture decoder, autoencoder and VAE"
    question = """
CIFAR-10, made class by class. Every decoder is told the class beside the features of the encoder.
The *mixture decoder* turns features and noise into several images. It is trained on the conditional
scalar cost. The *autoencoder* makes one image, and is trained by mean squared error. The *VAE*
makes one image, and is trained by the evidence lower bound. All see as many rows in as many steps.
*Mixture, slices* is a mixture decoder, too. It compares rows that share a class and a feature with
as many images, and takes about the time of the longer autoencoder. New images of a class come from
the noisy features of its training images; for the VAE they come from the prior. Are the images of
the mixture decoder nearer to the test images of the class, and more diverse?

*Fréchet distance*, *precision* and *coverage* compare the samples of a class with its test images,
in the 84 features of a small classifier. *Agreement* is how often that classifier sees the class
that was asked for. *Diversity* is the distance of two samples of a class in the classifier's
convolutional maps, built as LPIPS is, but without its learned weights. All are means over the
classes.
"""

    def settings(self, *, quick: bool) -> ClassSettings:
        """Return those of CIFAR-10, or of the small digits and a tiny training."""
        if quick:
            return ClassSettings(
                data="digits",
                features=(1, 4),
                width=32,
                channels=8,
                steps=30,
                samples=20,
                inputs=20,
                published_rows=20,
                slices=2,
                slice_rows=16,
                slice_steps=5,
            )
        return ClassSettings()

    def cells(
        self,
        settings: ClassSettings,
        seeds: Sequence[int],
        rows: Sequence[Row],
    ) -> Iterable[Cell]:
        """Return a training for every model, number of features and seed, and real images."""
        for seed in seeds:
            yield Cell.of(model="real", features=0, seed=seed)
            for features in settings.features:
                for kind in TRAINED:
                    yield Cell.of(model=kind, features=features, seed=seed)

    def measure(self, settings: ClassSettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Train once, draw samples of every class and compare them with test images."""
        dataset = datasets.load(settings.data)
        seed = int(options["seed"])
        classifier = fit_classifier(dataset)
        if options["model"] == "real":
            draw, reconstruct = partial(_real_rows, dataset, seed), None
        else:
            features = int(options["features"])
            began = time.process_time()
            model = trained(settings, dataset, str(options["model"]), features, seed)
            seconds = time.process_time() - began
            draw = partial(_model_rows, model, seed)
            reconstruct = partial(model.reconstruct, generator=stream(seed, "reconstructions"))
        row, samples = measure_classes(dataset, classifier, settings, draw, reconstruct)
        if reconstruct is not None:
            # Seconds of one core: what else the machine does is no part of them.
            row["training_seconds"] = seconds
        shown = torch.stack([images[:SHOWN] for images in samples])
        images = shown.unflatten(-1, dataset.image_shape or (1, 1, dataset.dim)).contiguous()
        save_file({"samples": images}, folder / SAMPLES)
        return row

    def claims(self, settings: ClassSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return what was expected of the mixture decoder."""
        claims = []
        for f in settings.features:
            given, at = f"With {_features(f)}", select(rows, features=f)
            claims += [
                ahead(at, name, digits, f"{given}, {claim}", more=more)
                for name, digits, claim, more in _CLAIMS
            ]
            longer = (
                f"{given}, its samples of a class are nearer than those of an autoencoder with "
                f"{settings.longer} times as many steps"
            )
            claims.append(ahead(at, "frechet", 1, longer, more=False, others=(LONGER,)))
            claims += [
                ahead(
                    at,
                    name,
                    digits,
                    f"{given}, trained by slices, its samples of a class {claim} than those of an "
                    "autoencoder, also the longer one, and of a VAE",
                    more=more,
                    own=SLICES,
                    others=("autoencoder", "vae", LONGER),
                )
                for name, digits, claim, more in (
                    ("frechet", 1, "are nearer to the test images", False),
                    ("coverage", 2, "cover more of the test images", True),
                )
            ]
        return claims

    def tables(self, settings: ClassSettings, rows: Sequence[Row]) -> list[Table]:
        """Return the means over the classes, and the Fréchet distance of every class."""
        names = {
            "frechet": ("Fréchet", 1),
            "precision": ("precision", 2),
            "coverage": ("coverage", 2),
            "agreement": ("agreement", 2),
            "diversity": ("diversity", 2),
            "training_seconds": ("seconds", 0),
        }
        inputs = {
            "error": ("squared error", 4),
            "error_of_best": (f"of the best of {TIMES}", 4),
            "reconstruction_diversity": ("diversity", 2),
            "reconstruction_frechet": ("Fréchet", 1),
        }
        return [
            _model_table(settings, rows, names, "Samples of a class, mean over the classes"),
            _model_table(
                settings,
                [row for row in rows if row["model"] != "real"],
                inputs,
                "Reconstructions of test images",
            ),
        ]

    def pictures(
        self, settings: ClassSettings, rows: Sequence[Row], work: Path
    ) -> Iterator[Picture]:
        """Draw samples of every class, and the Fréchet distance of every class."""
        yield _sample_grid(settings, work)
        yield _chart(settings, rows)

    def notes(self, settings: ClassSettings, rows: Sequence[Row]) -> str:
        """Say what the classifier and the published metrics can tell."""
        first = select(rows, model="real")[0]
        weak = (
            "so its features barely know the classes: distances in them tell colour, layout and "
            "coarse shape apart, and say little about whether a cat looks like one"
            if first["accuracy"] < 0.7
            else "so distances in its features tell the classes apart"
        )
        classifier = (
            f"The classifier recognises {first['accuracy']:.0%} of the test images "
            f"({1 / first['classes']:.0%} would be chance), {weak}. The Fréchet distance can be "
            "compared within this page only. Training images in the place of samples show what "
            "could be reached at best."
        )
        data = (
            f"The data: {first['train_rows']:,} training and {first['test_rows']:,} test images of "
            f"`{settings.data}`, which is what the run was given. Where pictures were decoded from "
            "JPEG they are slightly lossy."
        )
        parts = [
            "## What to make of it",
            _ROW_BY_ROW,
            _SLICES,
            _longer(settings),
            classifier,
            data,
            _published(settings, rows),
        ]
        return "\n\n".join(parts)


def class_names(settings: ClassSettings) -> tuple[str, ...]:
    """Return what the classes are called."""
    return CLASSES if settings.data == "cifar10" else tuple(map(str, range(10)))


def _real_rows(dataset: Dataset, seed: int, n: int, label: int) -> Tensor:
    """Return training rows of a class in the place of samples."""
    rows = dataset.train[train_labels(dataset) == label]
    return rows[torch.randperm(len(rows), generator=stream(seed, "real", label))[:n]]


def _model_rows(model: ClassConditional, seed: int, n: int, label: int) -> Tensor:
    return model.sample(n, stream(seed, "samples", label), label)


def ahead(
    rows: Sequence[Row],
    name: str,
    digits: int,
    claim: str,
    *,
    more: bool = True,
    own: str = "mixture",
    others: Sequence[str] = COMPARED[1:],
) -> Claim:
    """Judge whether a mixture decoder is ahead of the others in every seed.

    Args:
        rows: What was measured.
        name: The measure.
        digits: Its digits.
        claim: What was claimed.
        more: Whether more is better.
        own: Which mixture decoder.
        others: The models that it is compared with.
    """
    found = {kind: values_of(rows, name, model=kind) for kind in (own, *others)}
    listed = ", ".join(f"{MODELS[kind]} {spread(v, digits)}" for kind, v in found.items())
    behind = [MODELS[kind] for kind in others if _apart(found[kind], found[own], more=more)]
    ahead_of = [MODELS[kind] for kind in others if _apart(found[own], found[kind], more=more)]
    said = [
        f"{word} the {' and the '.join(names)}"
        for word, names in (("ahead of", ahead_of), ("behind", behind))
        if names
    ]
    holds = False if behind else (True if len(ahead_of) == len(others) else None)
    verdict = "in every seed " + " and ".join(said) if said else "no clear difference"
    explained = holds is False and own == "mixture"
    reason = _why_behind(rows, name, digits, more=more) if explained else ""
    return Claim(claim, f"{listed}: {verdict}", holds, reason)


def _why_behind(rows: Sequence[Row], name: str, digits: int, *, more: bool) -> str:
    """Say whether weighing all rows alike helps the mixture decoder."""
    own, by_row = (values_of(rows, name, model=kind) for kind in MIXTURES)
    if not by_row:
        return ""
    outcome = (
        "better in every seed, so this is part of the reason"
        if _apart(by_row, own, more=more)
        else "worse in every seed, so this is not the reason"
        if _apart(own, by_row, more=more)
        else "no clear difference, so this does not explain it"
    )
    return (
        "Do easy rows count for too much? Row by row (see below) the same decoder reaches "
        f"{spread(by_row, digits)} instead of {spread(own, digits)}: {outcome}."
    )


def _apart(better: Sequence[float], other: Sequence[float], *, more: bool) -> bool:
    """Whether every seed of one is better than every seed of the other."""
    return min(better) > max(other) if more else max(better) < min(other)


def _features(f: int) -> str:
    return "1 feature" if f == 1 else f"{f} features"


def _kinds(settings: ClassSettings, rows: Sequence[Row]) -> Iterator[tuple[str, int, str]]:
    """Yield model, number of features and heading of what was measured, in order."""
    measured = {(row["model"], row["features"]) for row in rows}
    for f in (0, *settings.features):
        for kind, title in MODELS.items():
            if (kind, f) in measured:
                yield kind, f, f"{title}, {_features(f)}" if f else title


def _model_table(
    settings: ClassSettings, rows: Sequence[Row], names: Mapping[str, tuple[str, int]], caption: str
) -> Table:
    cells = tuple(
        (
            title,
            *(
                spread(found, digits) if (found := values_of(rows, name, **which)) else "–"
                for name, (_, digits) in names.items()
            ),
        )
        for kind, f, title in _kinds(settings, rows)
        for which in [{"model": kind, "features": f}]
    )
    return Table(("model", *(heading for heading, _ in names.values())), cells, caption)


def _sample_grid(settings: ClassSettings, work: Path) -> Picture:
    blocks = [("real", 0), *((kind, f) for f in settings.features for kind in DRAWN)]
    files = {
        block: work / Cell.of(model=block[0], features=block[1], seed=0).name / SAMPLES
        for block in blocks
    }
    kept = Picture(
        "samples",
        None,
        "A grid of images: a row for every class, a block for every model",
        f"{SHOWN} images of every class, not chosen, seed 0.",
    )
    return drawn_from(files.values(), lambda: replace(kept, figure=_grid(settings, files)), kept)


def _grid(settings: ClassSettings, files: Mapping[tuple[str, int], Path]) -> "Figure":
    from matplotlib.figure import Figure

    names = class_names(settings)
    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    axes = figure.subplots(1, len(files))
    for ax, ((kind, f), file) in zip(axes, files.items(), strict=True):
        samples = load_file(file)["samples"]
        plots.plot_images(ax, samples.flatten(0, 1), SHOWN)
        title = MODELS[kind].replace(" ", "\n")
        ax.set_title(f"{title}\n{_features(f)}" if f else title, fontsize=8)
    # Rows are as far apart in every block.
    height = (axes[0].images[0].get_array().shape[0] + 1) / len(names)
    for c, name in enumerate(names):
        axes[0].text(-3, (c + 0.5) * height, name, ha="right", va="center", fontsize=8)
    return figure


def _chart(settings: ClassSettings, rows: Sequence[Row]) -> Picture:
    from matplotlib.figure import Figure

    names = class_names(settings)
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    panels = figure.subplots(1, len(settings.features), sharey=True, squeeze=False)[0]
    for ax, f in zip(panels, settings.features, strict=True):
        for i, (kind, title) in enumerate(MODELS.items()):
            found = select(rows, model=kind, features=f if kind in TRAINED else 0)
            means = [
                statistics.mean(v)
                for v in zip(*(row["frechet_by_class"] for row in found), strict=True)
            ]
            places = [c + 0.12 * (i - (len(MODELS) - 1) / 2) for c in range(len(names))]
            color, marker = _MARKS[kind]
            ax.plot(places, means, marker, color=color, label=title, markersize=5)
        ax.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
        ax.set_title(_features(f), fontsize=9)
        tidy(ax)
    panels[0].set_ylim(bottom=0)
    panels[0].set_ylabel("Fréchet distance")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=4,
        frameon=False,
        fontsize=8,
    )
    return Picture(
        "frechet",
        figure,
        "The Fréchet distance of every class, a mark for every model",
        "Fréchet distance to the test images of the class, in the features of the classifier; "
        "mean over the seeds, lower is better.",
    )


def _longer(settings: ClassSettings) -> str:
    """Say what a step of the mixture decoder is, and how the longer autoencoder differs."""
    return (
        f"Equal steps are not equal work: a mixture decoder makes {settings.centers} images of "
        f"every row, the autoencoder one. *{MODELS[LONGER].capitalize()}* is the autoencoder with "
        f"{settings.longer} times as many steps, which takes about as long as the training by "
        "slices with its encoder. The seconds are those of one core."
    )


def _published(settings: ClassSettings, rows: Sequence[Row]) -> str:
    """Say what FID and LPIPS are, or why there are none."""
    parts = []
    for name, title, digits in (
        ("fid", "FID over all classes", 1),
        ("lpips", "LPIPS between two samples of a class", 3),
    ):
        if values_of(rows, name):
            each = (
                f"{heading} {spread(values_of(rows, name, model=kind, features=f), digits)}"
                for kind, f, heading in _kinds(settings, rows)
            )
            parts.append(f"True {title}: {'; '.join(each)}.")
    reasons = sorted({reason for row in rows for reason in row["unavailable"]})
    parts += [f"Skipped: {reason}." for reason in reasons]
    return "\n\n".join(parts)


EXPERIMENT = ClassConditionalImages()
