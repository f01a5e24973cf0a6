"""The section of a report about a model's classes or clusters: a row of samples for each."""

import shlex
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from hilbound.datasets import Dataset
from hilbound.datasets.checks import coordinate_names
from hilbound.evaluation.conditions import Conditioned, samples_of_each
from hilbound.evaluation.quality import percent
from hilbound.reports import plots
from hilbound.reports.drawing import canvas, look, tidy, to_numpy
from hilbound.reports.feature_plots import name_points
from hilbound.reports.lettering import beside_points, name_axes
from hilbound.reports.page import Figure as Picture
from hilbound.reports.page import Section, figure_uri
from hilbound.training.runs import Run

# More rows would make a page of their own. Images of a row, and points of a group.
_MOST_ROWS = 32
_IMAGES, _POINTS = 12, 200


def condition_section(
    run: Run, dataset: Dataset, model: Conditioned, measured: dict[str, Any]
) -> Section:
    """Samples of each class or cluster: a row of images, or points in a colour of their own."""
    one = "cluster" if run.config.clusters is not None else "class"
    shown = min(model.blocks, _MOST_ROWS)
    # Those of the run: its data may have changed since.
    named = run.class_names if one == "class" else None
    names = named or tuple(map(str, range(model.blocks)))
    text = _text(one, names, measured)
    if shown < model.blocks:
        text += f" The first {shown} are shown."
    if dataset.image_shape is not None:
        figure, ax = canvas(5.6, 5.6 * shown / _IMAGES)
        images = samples_of_each(model, _IMAGES, run.config.seed, shown).flatten(0, 1)
        plots.plot_images(ax, images.reshape(-1, *dataset.image_shape), columns=_IMAGES)
        order = ", ".join(names[:shown]) if named else f"{one} 0 at the top"
        caption = f"Samples of each {one}, in a row of its own: {order}."
        alt = f"a row of samples for each {one}"
        return Section("Condition", text, (Picture(figure_uri(figure, "png"), alt, caption),))
    if dataset.dim != 2:
        return Section("Condition", text)
    labels = beside_points(names) or tuple(map(str, range(model.blocks)))
    points = samples_of_each(model, _POINTS, run.config.seed, shown)
    figure = _groups(dataset, points, labels)
    alt = f"samples of each {one} with its {'name' if labels == named else 'number'}"
    return Section(
        "Condition", text, (Picture(figure_uri(figure, "png"), alt, alt.capitalize() + "."),)
    )


def _groups(dataset: Dataset, points: Tensor, names: Sequence[str]) -> Figure:
    """Draw points with shape ``(C, n, 2)``, each group in a colour and with its name."""
    figure, ax = canvas(4.4, 4.2)
    for number, own in enumerate(points):
        x = to_numpy(dataset.to_user_units(own.to(dataset.train)))
        color, _ = look(number)
        ax.scatter(x[:, 0], x[:, 1], s=4, color=color, linewidths=0)
        name_points(ax, x, names[number], color)
    if dataset.standardization is None:
        ax.set_aspect("equal", adjustable="box")
    columns = dataset.columns or coordinate_names(2)
    name_axes((ax.set_xlabel, columns[0]), (ax.set_ylabel, columns[1]))
    tidy(ax, grid=False)
    return figure


def _text(one: str, names: Sequence[str], measured: dict[str, Any]) -> str:
    plural = "classes" if one == "class" else "clusters"
    text = (
        f"The model is told one of {len(names)} {plural}. “hilbound sample RUN --{one} "
        f"{shlex.quote(names[0])}” draws from one of them; without it, a {one} is drawn for each "
        "sample, as often as in the training rows."
    )
    shares = measured.get("condition", {}).get("agreement")
    if shares is None:
        return text
    text += f" {percent(shares['model'])} of the samples belong to the {one} they were drawn for"
    if "real" not in shares:
        return text + "."
    return text + f", and {percent(shares['real'])} of the held-out rows, as a classifier sees it."
