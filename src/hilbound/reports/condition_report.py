"""The section of a report about a model's classes or clusters: a row of samples for each."""

from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from hilbound.datasets import Dataset
from hilbound.evaluation.conditions import Conditioned, samples_of_each
from hilbound.evaluation.quality import percent
from hilbound.reports import plots
from hilbound.reports.drawing import canvas, look, tidy, to_numpy
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
    text = _text(one, model.blocks, measured)
    if shown < model.blocks:
        text += f" The first {shown} are shown."
    if dataset.image_shape is not None:
        figure, ax = canvas(5.6, 5.6 * shown / _IMAGES)
        images = samples_of_each(model, _IMAGES, run.config.seed, shown).flatten(0, 1)
        plots.plot_images(ax, images.reshape(-1, *dataset.image_shape), columns=_IMAGES)
        caption = f"Samples of each {one}, in a row of its own: {one} 0 at the top."
        alt = f"a row of samples for each {one}"
        return Section("Condition", text, (Picture(figure_uri(figure, "png"), alt, caption),))
    if dataset.dim != 2:
        return Section("Condition", text)
    figure = _groups(samples_of_each(model, _POINTS, run.config.seed, shown))
    alt = f"samples of each {one} with its number"
    return Section(
        "Condition", text, (Picture(figure_uri(figure, "png"), alt, alt.capitalize() + "."),)
    )


def _groups(points: Tensor) -> Figure:
    """Draw points with shape ``(C, n, 2)``, with the number of each group at its middle."""
    figure, ax = canvas(4.4, 4.2)
    for number, own in enumerate(points):
        x = to_numpy(own)
        color, _ = look(number)
        ax.scatter(x[:, 0], x[:, 1], s=4, color=color, linewidths=0)
        # A point of the group, because its mean may lie far from all of them.
        middle = x[((x - x.mean(0)) ** 2).sum(1).argmin()]
        ax.text(middle[0], middle[1], str(number), ha="center", va="center", weight="bold")
    ax.set_aspect("equal", adjustable="box")
    tidy(ax, grid=False)
    return figure


def _text(one: str, blocks: int, measured: dict[str, Any]) -> str:
    plural = "classes" if one == "class" else "clusters"
    text = (
        f"The model is told one of {blocks} {plural}. “hilbound sample RUN --{one} 0” draws from "
        f"one of them; without it, a {one} is drawn for each sample, as often as in the training "
        "rows."
    )
    shares = measured.get("condition", {}).get("agreement")
    if shares is None:
        return text
    text += f" {percent(shares['model'])} of the samples belong to the {one} they were drawn for"
    if "real" not in shares:
        return text + "."
    return text + f", and {percent(shares['real'])} of the held-out rows, as a classifier sees it."
