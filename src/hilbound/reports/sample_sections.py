"""The section of a report that shows samples beside the data: images, points or columns."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hilbound.datasets import Dataset
from hilbound.datasets.checks import coordinate_names
from hilbound.engine.gram import squared_distances
from hilbound.engine.seeding import stream
from hilbound.evaluation.spaces import MetricSpace, fit_space
from hilbound.models.base import DensityModel
from hilbound.reports import lettering, plots
from hilbound.reports.drawing import canvas
from hilbound.reports.film import film_figure
from hilbound.reports.page import Figure, Section, figure_uri
from hilbound.reports.table_plots import draw_histograms, draw_pairs, strongest_columns
from hilbound.training.runs import Run

if TYPE_CHECKING:
    from matplotlib import figure

_SHOWN_IMAGES = 64
_DRAWS = 4  # grids of samples, among which a reader chooses
_SHOWN_POINTS = 1000
# A picture of fewer rows shows little more than chance.
_FEW = 200
_HISTOGRAMS, _PAIRS = 16, 4


def samples_section(run: Run, dataset: Dataset, model: DensityModel, fake: Tensor) -> Section:
    """Samples of the model beside as many rows: images, a scatter, or columns and their pairs.

    Args:
        run: The run.
        dataset: Its data.
        model: Its model.
        fake: Samples with shape ``(n, d)``.
    """
    if dataset.image_shape is not None:
        return _image_section(run, dataset, fake)
    real, which = _rows_to_draw(run, dataset, len(fake))
    fake = fake[: len(real)]
    if dataset.dim == 2:
        return _planar_section(run, model, (real, fake), which)
    return _columns_section(dataset, real, fake, which)


def _rows_to_draw(run: Run, dataset: Dataset, most: int) -> tuple[Tensor, str]:
    """Return rows for the pictures and what they are: the test rows, or all if those are few."""
    test = dataset.test
    if len(test) >= _FEW:
        return test[:most], f"{min(most, len(test)):,} held-out rows"
    rows = torch.cat([dataset.train, dataset.validation, test])
    order = torch.randperm(len(rows), generator=stream(run.config.seed, "report-rows"))
    shown = min(most, len(rows))
    return rows[order[:shown]], f"{shown:,} rows, training rows among them, as few were held out"


# ------------------------------------------------------------------ images


def _image_section(run: Run, dataset: Dataset, fake: Tensor) -> Section:
    space = fit_space(dataset, seed=run.config.seed)
    shape = dataset.image_shape or ()
    figures = []
    for title, rows in (("Samples", fake), ("Held-out images", dataset.test)):
        uris = [
            _image_grid(part.reshape(-1, *shape))
            for part in rows[: _DRAWS * _SHOWN_IMAGES].split(_SHOWN_IMAGES)
            if len(part) == min(_SHOWN_IMAGES, len(rows))
        ]
        alt = f"a grid of {title.lower()}"
        figures.append(Figure(uris[0], alt, f"{title}.", others=tuple(uris[1:])))
    picture, ax = canvas(7.0, 4.4)
    few = fake[:10]
    nearest = nearest_rows(space, few, dataset.train, 6)
    plots.plot_neighbours(ax, few.reshape(-1, *shape), nearest.reshape(len(few), 6, *shape))
    caption = (
        "Samples beside their nearest training images (by "
        f"{space.description}). A good sample resembles them but is not a copy."
    )
    alt = "samples and their nearest training images"
    return Section("Samples", "", (*figures, Figure(figure_uri(picture, "png"), alt, caption)))


def _image_grid(images: Tensor) -> str:
    picture, ax = canvas(4.4, 4.4)
    plots.plot_images(ax, images, columns=8)
    return figure_uri(picture, "png")


def nearest_rows(space: MetricSpace, samples: Tensor, train: Tensor, k: int) -> Tensor:
    """Return the ``k`` training rows nearest to every sample in feature space, ``(n, k, d)``."""
    distances = squared_distances(space.transform(samples), space.transform(train))
    return train[distances.topk(k, largest=False).indices]


# ------------------------------------------------------------------ the plane


def _planar_section(
    run: Run, model: DensityModel, rows: tuple[Tensor, Tensor], which: str
) -> Section:
    dataset = run.dataset
    names = dataset.columns or coordinate_names(2)
    # Columns of a table have units of their own, and no common scale.
    own: dict[str, Any] = {"columns": names, "equal": dataset.standardization is None}
    real, fake = (dataset.to_user_units(x) for x in rows)
    picture, ax = canvas(4.4, 4.2)
    plots.plot_points(ax, real, fake, dataset.log_density, **own)
    density = ", with the true density behind" if dataset.log_density is not None else ""
    drawn = Figure(
        figure_uri(picture, "png"),
        "scatter of data and samples",
        f"As many samples (centres of the mixture) as data, {which}{density}.",
    )
    with torch.no_grad():
        q = model.draw(_SHOWN_POINTS, stream(run.config.seed, "report-density"))

    def log_density(x: Tensor) -> Tensor:
        # The Jacobian is a constant, and contours are at shares of the mass.
        return q.log_prob(dataset.from_user_units(x).to(q.means))

    picture, ax = canvas(4.4, 4.2)
    plots.plot_points(ax, real, fake, log_density, **own)
    units = "" if dataset.standardization is None else " in standardised units"
    smooth = Figure(
        figure_uri(picture, "png"),
        "density of the model with data and samples",
        f"The model's density: the mixture of {q.components:,} centres with component variance "
        f"{float(model.head.variance):.3g}{units}.",
    )
    film = _film(run, real, own)
    return Section("Samples", lettering.key(names), (drawn, smooth, *film))


def _film(run: Run, real: Tensor, own: dict[str, Any]) -> tuple[Figure, ...]:
    """Return the animation of samples over the steps of training, if the run kept any."""
    frames = run.read_snapshots()
    return (film_figure(real, frames, **own),) if len(frames) > 1 else ()


# ------------------------------------------------------------------ columns


def _drawn(
    draw: Callable[..., "figure.Figure"],
    columns: list[int],
    dataset: Dataset,
    real: Tensor,
    fake: Tensor,
) -> "figure.Figure":
    """Return a picture of some columns, in the user's units."""
    # Numbered in the whole table, where a name cannot be written.
    labels, _ = lettering.names_in_pictures(dataset.columns or coordinate_names(dataset.dim))
    rows = [dataset.to_user_units(x)[:, columns] for x in (real, fake)]
    whole = [place for place, j in enumerate(columns) if j in dataset.whole]
    return draw(*rows, [labels[j] for j in columns], whole)


def _columns_section(dataset: Dataset, real: Tensor, fake: Tensor, which: str) -> Section:
    names = dataset.columns or coordinate_names(dataset.dim)

    def drawn(draw: Callable[..., "figure.Figure"], columns: list[int]) -> "figure.Figure":
        return _drawn(draw, columns, dataset, real, fake)

    few = list(range(min(_HISTOGRAMS, dataset.dim)))
    some = f" of the first {len(few)} of {dataset.dim}" if dataset.dim > len(few) else ""
    figures = [
        Figure(
            figure_uri(drawn(draw_histograms, few)),
            "histograms of every column, of data and of samples",
            f"Every column{some}, samples over data.",
        )
    ]
    if dataset.dim > 1:
        pairs = strongest_columns(real, _PAIRS)
        chosen = "" if len(pairs) == dataset.dim else " that depend most on each other"
        figures.append(
            Figure(
                figure_uri(drawn(draw_pairs, pairs), dpi=150),
                "scatter of pairs of columns, of data and of samples",
                f"Pairs of the columns{chosen}: data below the diagonal, samples above it.",
            )
        )
    text = f"As many samples as data, {which}, in the table's own units."
    return Section("Samples", f"{text} {lettering.key(names)}".strip(), tuple(figures))


# ------------------------------------------------------------------ beside other runs


def held_out_picture(dataset: Dataset) -> str | None:
    """Return a grid of held-out images as a data URI, or ``None`` if the data are no images."""
    if dataset.image_shape is None:
        return None
    return _image_grid(dataset.test[:_SHOWN_IMAGES].reshape(-1, *dataset.image_shape))


def sample_picture(run: Run, dataset: Dataset | None) -> str | None:
    """Return one picture of a run's samples as a data URI, to stand beside those of other runs.

    Images are a grid, points of the plane a scatter over held-out rows, and columns histograms.

    Args:
        run: The run.
        dataset: Its data, or ``None`` if they are gone. Columns cannot be drawn without them.
    """
    fake = run.model.sample(_SHOWN_POINTS, stream(run.config.seed, "report"))
    told = run.read_json("run.json")["data"]
    if told["image_shape"] is not None:
        return _image_grid(fake[:_SHOWN_IMAGES].reshape(-1, *told["image_shape"]))
    if told["dim"] == 2:
        picture, ax = canvas(4.4, 4.2)
        equal = told["offset"] is None
        real, density = None, None
        if dataset is not None:
            rows, _ = _rows_to_draw(run, dataset, len(fake))
            real, density = dataset.to_user_units(rows), dataset.log_density
            fake = fake[: len(rows)]
        columns = told["columns"] or coordinate_names(2)
        fake = run.to_user_units(fake)
        plots.plot_points(ax, real, fake, density, columns=columns, equal=equal)
        return figure_uri(picture, "png")
    if dataset is None:
        return None
    rows, _ = _rows_to_draw(run, dataset, len(fake))
    few = list(range(min(_HISTOGRAMS, dataset.dim)))
    return figure_uri(_drawn(draw_histograms, few, dataset, rows, fake[: len(rows)].to(rows)))
