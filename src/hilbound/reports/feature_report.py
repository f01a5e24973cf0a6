r"""Sections of a report for models with an encoder: bound, reconstructions and features.

The conditional cost and its limit contain the constant of the kernel, which is hundreds of nats in
high dimension. So both are drawn relative to the largest value that they can have,

.. math:: C = N(0; 2 v_p) = (4 \pi v_p)^{-d/2}.

The limit has this value if the features tell all rows apart.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hilbound.bounds import log_component_norm
from hilbound.config import RunConfig
from hilbound.datasets import Dataset
from hilbound.engine.seeding import stream
from hilbound.evaluation.floors import floors_text, is_too_wide
from hilbound.evaluation.quality import format_metric, percent
from hilbound.evaluation.reconstruction import Reconstructions, reconstruct
from hilbound.models.autoencoders import VAE, FeatureModel
from hilbound.reports import feature_plots
from hilbound.reports.drawing import canvas
from hilbound.reports.hover import curve_figure
from hilbound.reports.lettering import beside_points
from hilbound.reports.page import Fact, Figure, Section, figure_uri
from hilbound.reports.plots import plot_curve, plot_images, plot_tightness
from hilbound.reports.reconstructions import draw_reconstructions
from hilbound.training.runs import Run
from hilbound.variance import of_component

# The number of inputs shown and of reconstructions of each. The last one is the number of inputs if
# each has only one reconstruction.
_INPUTS, _TIMES, _PAIRS = 8, 10, 12
_SHOWN_FEATURES = 2000
_BEHIND = 1500

Rows = list[dict[str, Any]]


# ------------------------------------------------------------------ training


def tracked_section(run: Run, rows: dict[str, Rows], dim: int) -> Section:
    """The conditional cost below its moving limit, on fixed training rows and held-out rows."""
    config = run.config
    figures = []
    for split, name in (("train", "training rows"), ("validation", "held-out rows")):
        if rows[split]:
            figure, ax = canvas()
            _plot_relative(ax, rows[split], dim)
            caption = f"Cost and limit on fixed {name}; the gap between them is shaded."
            alt = f"conditional cost below its limit against training steps, on {name}"
            figures.append(curve_figure(figure, alt, caption))
    figures.append(_tightness(rows, model_centers(config)))
    ends = run.read_json("run.json")["variance"]
    moves = "it moves while the encoder learns, and rises as features tell rows apart"
    if config.encoder is not None:
        moves = "the encoder is frozen, so it stays where it is"
        if ends["start"] != ends["end"]:
            moves = "the encoder is frozen, so it moves with the variance of the kernel only"
    text = (
        f"Cost and limit are computed on a fixed sample: at most {config.bound_rows:,} training "
        "rows and as many held-out rows. The loss is minus the logarithm of the cost. The limit "
        "‖p(X|Y)‖² is the squared norm of the data's own density given the features. A decoder "
        "reaches it if, for every feature, its centres are spread like the rows that share the "
        f"feature. The limit does not depend on the decoder: {moves}."
        "\n\nZero is the largest value that cost and limit can have. If the limit is zero, every "
        "feature belongs to one row. The lower the limit, the more rows share a feature."
    )
    return Section("Training", text, tuple(figures))


def _plot_relative(ax: Any, rows: Rows, dim: int) -> None:
    largest = [log_component_norm(of_component(row["variance"]), dim) for row in rows]
    cost, limit = (
        [row[name] - top for row, top in zip(rows, largest, strict=True)]
        for name in ("log_value", "log_limit")
    )
    feature_plots.plot_bound(ax, [row["step"] for row in rows], cost, limit)


def _tightness(rows: dict[str, Rows], centers: int) -> Figure:
    figure, ax = canvas()
    names = {"train": "training rows", "validation": "held-out rows"}
    curves = {
        names[k]: ([r["step"] for r in v], [r["tightness"] for r in v])
        for k, v in rows.items()
        if v
    }
    caption = "Tightness: the share of the limit that the cost reaches."
    real = {
        f"{names[k]}, real rows": ([r["step"] for r in v], [r["real_tightness"] for r in v])
        for k, v in rows.items()
        if v and all(r["real_tightness"] is not None for r in v)
    }
    if real:
        several = "1 real row" if centers == 1 else f"{centers} real rows"
        caption += (
            f" Real rows: the share that {several} with the same feature reach in the place of the "
            "centres. A decoder above it is nearer to the limit than a perfect sampler."
        )
    plot_tightness(ax, curves | real)
    return curve_figure(figure, "tightness of the bound against training steps", caption)


def model_centers(config: RunConfig) -> int:
    """Return the number of centres for every input when a run is measured."""
    return config.eval_centers or config.centers or 1


def likelihood_name(run: Run) -> str:
    """Return the name of the quantity that is minus the loss of a run with the likelihood."""
    return "evidence lower bound" if run.config.model == "vae" else "log-likelihood given features"


def likelihood_section(run: Run, rows: dict[str, Rows]) -> Section:
    """The mean log-likelihood of rows during training, or its lower bound."""
    name = likelihood_name(run)
    figure, ax = canvas()
    curves = {k: ([r["step"] for r in v], [-r["loss"] for r in v]) for k, v in rows.items()}
    held_out = curves["validation"] if rows["validation"] else None
    plot_curve(ax, *curves["train"], label="training batch", validation=held_out)
    ax.set_ylabel("nats for a row")
    text = (
        "The model is trained on the evidence lower bound. It is the mean log-likelihood of a row "
        "given features drawn for it, minus the divergence of the features' distribution from a "
        "standard normal. The log-likelihood of a row is never below this bound."
        if run.config.model == "vae"
        else "The model is trained on the mean log-likelihood of a row given its features: the "
        "logarithm of the density that the decoder gives it."
    )
    caption = f"{name.capitalize()}; higher is better."
    return Section(
        "Training", text, (curve_figure(figure, f"{name} against training steps", caption),)
    )


def bound_fact(run: Run, held_out: Rows, measured: dict[str, Any]) -> Fact | None:
    """Return the final bound on held-out rows, or ``None`` if it was not measured.

    Args:
        run: The run.
        held_out: Rows of ``bounds.csv``, in the order of the steps.
        measured: The content of ``metrics.json``.
    """
    if run.config.objective == "likelihood" and isinstance(run.model, FeatureModel):
        if not held_out:
            return None
        value = f"{-held_out[-1]['loss']:.4g}"
        return Fact(likelihood_name(run).capitalize(), value, "nats, a held-out row")
    bound = measured.get("conditional_bound") or measured.get("batch_bound") or {}
    if not bound and not held_out:
        return None
    found = bound or held_out[-1]
    note = "of its limit, held-out rows"
    if bound:
        note += floors_text(bound)
    elif found.get("real_tightness") is not None:
        note += f"; real rows: {percent(found['real_tightness'])}"
    if is_too_wide(bound):
        note += ". The kernel is so wide that this says nothing"
    return Fact("Bound reached", percent(found["tightness"]), note)


def error_fact(measured: dict[str, Any]) -> Fact:
    """Return the squared error of the reconstructions."""
    block = measured["reconstruction"]
    entry = block["metrics"]["error_of_best"]
    note = "for one coordinate"
    if block["metrics"]["pairwise_distance"]["model"] > 0:
        note += f", best of {block['reconstructions']}"
    if entry["real"] is not None:
        note += f"; real data: {format_metric('error_of_best', entry['real'])}"
    return Fact("Squared error", format_metric("error_of_best", entry["model"]), note)


# ------------------------------------------------------------------ reconstructions


def reconstructions_section(
    run: Run, dataset: Dataset, model: FeatureModel, measured: dict[str, Any]
) -> Section:
    """Some held-out inputs beside their reconstructions, and the errors over many inputs."""
    text = _reconstruction_text(model, measured)
    if dataset.standardization is not None:
        text += " Errors and distances are in standardised coordinates."
    if dataset.image_shape is None and dataset.dim != 2:
        return Section("Reconstructions", text)
    n, m = (_INPUTS, _TIMES) if is_random(model) else (_PAIRS, 1)
    n = min(n, len(dataset.test))
    few = reconstruct(run, n, m, seed=run.config.seed)
    return Section("Reconstructions", text, (_reconstruction_figure(few, dataset),))


def is_random(model: FeatureModel) -> bool:
    """Whether two reconstructions of one input differ."""
    return isinstance(model, VAE) or model.decoder.noise_dim > 0


def _reconstruction_figure(few: Reconstructions, dataset: Dataset) -> Figure:
    n, m, _ = few.reconstructions.shape
    alt = "held-out inputs beside their reconstructions"
    if m == 1 and dataset.image_shape is not None:
        figure, ax = canvas(0.62 * n, 1.4)
        arrays = few.arrays()
        both = torch.cat([arrays["x"], arrays["reconstructions"].squeeze(1)])
        plot_images(ax, both, columns=n)
        caption = f"{n} held-out inputs, and below each its reconstruction."
        return Figure(figure_uri(figure, "png"), alt, caption)
    images = dataset.image_shape is not None
    behind = None if images else dataset.to_user_units(dataset.test[:_BEHIND])
    times = f"{m} reconstructions of each" if m > 1 else "the reconstruction of each"
    where = "in the same row" if images else "in the same colour and shape"
    return Figure(
        figure_uri(draw_reconstructions(few, behind), "png"),
        alt,
        f"{n} held-out inputs and {times}, {where}.",
    )


def _reconstruction_text(model: FeatureModel, measured: dict[str, Any]) -> str:
    block = measured["reconstruction"]
    m, values = block["reconstructions"], block["metrics"]
    number = {k: format_metric(k, v["model"]) for k, v in values.items()}
    real = {k: format_metric(k, v["real"]) for k, v in values.items()}
    shares = {side: f"{100 * values['validity'][side]:.1f} %" for side in ("model", "real")}
    start = f"Of {block['inputs']:,} held-out inputs, each reconstructed"
    validity = (
        f"{shares['model']} of the reconstructions lie inside the support of the training rows; "
        f"of the inputs themselves {shares['real']} do."
    )
    if not is_random(model):
        return (
            f"{start} once: the mean squared error of a coordinate is {number['error_of_mean']}. "
            f"{validity}"
        )
    text = (
        f"{start} {m} times: the mean squared error of a coordinate is {number['error_of_mean']} "
        f"for the mean reconstruction and {number['error_of_best']} for the best of the {m}. The "
        "mean squared difference between two reconstructions of one input is "
        f"{number['pairwise_distance']}. {validity}"
    )
    if values["error_of_best"]["real"] is None:
        return text
    return (
        f"{text}\n\nFor comparison, the same numbers for real data, {m} training rows that share "
        f"the features of the input: {real['error_of_mean']} for their mean, "
        f"{real['error_of_best']} for the best, {real['pairwise_distance']} between two."
    )


# ------------------------------------------------------------------ features


@torch.no_grad()
def features_section(run: Run, dataset: Dataset, model: FeatureModel) -> Section:
    """Held-out rows in the space of the features. If there are labels, classes are marked."""
    order = torch.randperm(len(dataset.test), generator=stream(run.config.seed, "features"))
    order = order[:_SHOWN_FEATURES]
    y = model.encode(dataset.test[order].to(model.head.variance))
    labels = None if dataset.test_labels is None else dataset.test_labels[order]
    names = beside_points(dataset.class_names)
    if y.shape[1] == 1:
        figure = _one_feature(y, labels, names, model.variance_y)
    else:
        figure = _two_features(y, labels, names)
    return Section("Features", _feature_text(model, y, dataset), (figure,))


def _one_feature(
    y: Tensor, labels: Tensor | None, names: Sequence[str], variance: float | None
) -> Figure:
    figure, ax = canvas(5.0, 4.4 if labels is not None else 3.0)
    feature_plots.plot_feature_density(ax, y, labels, class_names=names, variance=variance)
    by_class = ", one curve for each class" if labels is not None else ""
    smooth = "with their noise" if variance is not None else "smoothed by Scott's rule"
    caption = f"Density of the features of {len(y):,} held-out rows, {smooth}{by_class}."
    return Figure(figure_uri(figure), f"density of the feature{by_class}", caption)


def _two_features(y: Tensor, labels: Tensor | None, class_names: Sequence[str]) -> Figure:
    figure, ax = canvas(5.4, 4.6)
    by_class = ", coloured by class" if labels is not None else ""
    what = "Features"
    if y.shape[1] == 2:
        feature_plots.plot_feature_scatter(ax, y, labels, class_names=class_names)
    else:
        components, shares = feature_plots.principal_components(y)
        names = [
            f"{which} principal component ({100 * share:.0f} % of the variance)"
            for which, share in zip(("first", "second"), shares, strict=True)
        ]
        feature_plots.plot_feature_scatter(
            ax, components, labels, class_names=class_names, names=names
        )
        what = f"First two principal components of the {y.shape[1]} features"
    caption = f"{what} of {len(y):,} held-out rows{by_class}."
    return Figure(figure_uri(figure), f"scatter of the features{by_class}", caption)


def _feature_text(model: FeatureModel, y: Tensor, dataset: Dataset) -> str:
    count = "one number" if y.shape[1] == 1 else f"{y.shape[1]} numbers"
    text = f"The encoder sums up the {dataset.dim:,} coordinates of a row in {count}. "
    if model.variance_y is not None:
        text += (
            "The decoder gets them with noise of standard deviation "
            f"{math.sqrt(model.variance_y):.3g}: rows that are closer than that share a feature."
        )
    elif isinstance(model, VAE):
        text += "The picture shows the means of q(y|x). The decoder gets draws from it."
    else:
        text += "They have no noise."
    if (dataset.classes or 0) > feature_plots.MOST_CLASSES and dataset.test_labels is not None:
        text += f" Only the {feature_plots.MOST_CLASSES} most frequent classes are drawn."
    return text
