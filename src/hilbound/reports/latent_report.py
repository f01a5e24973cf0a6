"""The section of a report on a latent mixture: its density of features, and how good it is."""

from typing import Any

import torch

from hilbound.datasets import Dataset
from hilbound.engine.seeding import stream
from hilbound.models.latent import LatentMixture
from hilbound.reports import plots
from hilbound.reports.drawing import canvas
from hilbound.reports.feature_plots import principal_components
from hilbound.reports.page import Figure, Section, figure_uri
from hilbound.training.runs import Run

_SHOWN = 1000


@torch.no_grad()
def density_section(
    run: Run, dataset: Dataset, model: LatentMixture, measured: dict[str, Any]
) -> Section:
    """Features drawn from the density over those of held-out rows, and what was measured.

    Args:
        run: The run.
        dataset: Its data.
        model: Its model.
        measured: The content of ``metrics.json``, or nothing.
    """
    generator = stream(run.config.seed, "report-features")
    drawn = model.density.draw(_SHOWN, None, generator)
    real = model.features_of(dataset.test[:_SHOWN])
    text = (
        f"The density of the features is a mixture of {len(model.density.means):,} Gaussians with "
        "full covariances, fitted to the features of all training rows. A sample is made from "
        "features that are drawn from it."
    )
    if "latent" in measured:
        text += "\n\n" + density_text(measured["latent"])
    if real.shape[1] == 1:
        return Section("Density of the features", text)
    names = ("feature 1", "feature 2")
    what = "Features drawn from the density, over those of held-out rows"
    points = torch.cat([real, drawn])
    if real.shape[1] > 2:
        points, _ = principal_components(points)
        names = ("first principal component", "second principal component")
    figure, ax = canvas(4.8, 4.4)
    plots.plot_points(ax, points[: len(real)], points[len(real) :], columns=names)
    picture = Figure(
        figure_uri(figure, "png"), "scatter of drawn features and held-out features", f"{what}."
    )
    return Section("Density of the features", text, (picture,))


def density_text(block: dict[str, Any]) -> str:
    """Return sentences about the bound in the features and the log-likelihood of rows.

    Args:
        block: The entry ``latent`` of ``metrics.json``.
    """
    bound, found = block["feature_bound"], block.get("log_likelihood")
    text = (
        f"On the features of {block['feature_rows']:,} held-out rows the scalar cost reaches "
        f"{100 * bound['tightness']:.2f} % of its limit (cost {bound['log_value']:.4g}, limit "
        f"{bound['log_limit']:.4g}, both as logarithms, kernel variance {bound['variance']:.3g}); "
        f"as many training features in its place reach {100 * bound['real_tightness']:.2f} %. The "
        f"mean log density of a held-out feature is {block['feature_log_density']:.4g} nats."
    )
    if found is None:
        return text
    return (
        f"{text}\n\nThe mean log density of {found['rows']:,} held-out rows is {found['mean']:.4g} "
        f"± {found['standard_error']:.2g} nats, where the error is that of so few rows. It is "
        f"estimated by importance sampling with {found['draws']} draws for each row, which add an "
        f"error of {found['error_of_draws']:.2g}. Around a reconstruction every coordinate has the "
        f"variance {found['variance']:.3g}, the mean squared error on held-out rows."
    )
