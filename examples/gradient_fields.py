"""Draw where every objective pushes one centre of a small mixture.

    python examples/gradient_fields.py

Six data points in three groups, and five centres that stay where they are. The sixth centre is put
on every place of a grid: the shade is the loss there, an arrow the direction of steepest descent.
"""

from io import BytesIO
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image
from torch import Tensor

from hilbound import GaussianMixture
from hilbound import functional as F
from hilbound.objectives import DebiasedNuclearNorm, Objective, create_objective
from hilbound.reports.drawing import MODEL

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "gradient-fields.png"
VARIANCE = 0.5  # of the kernel between a point and a centre
DATA = torch.tensor(
    [[-1.7, -1.2], [1.7, -1.0], [-0.5, 1.6], [-1.2, -0.6], [1.3, -1.6], [0.6, 1.5]],
    dtype=torch.float64,
)
JITTER = 0.12 * torch.tensor([[1, -1], [-1, 1], [0.5, 1], [1, 1], [-1, -1]]).double()
FIXED = DATA[:5] + JITTER
SECOND_BATCH = DATA[:5] - 2 * JITTER  # what the debiased objective compares the centres with
SIDE = 3.0
TITLES = {
    "nuclear": ("nuclear norm", "finds the point that has no centre"),
    "scalar": ("scalar", "drawn to data, pushed off other centres"),
    "vector": ("vector", "weights are free: only the span counts"),
    "schur": ("Schur", "wants each point in the span"),
    "schatten": ("Schatten, power 0.85", "as nuclear, keener on what is missing"),
    "debiased": ("debiased", "pushed off a second batch of centres (+)"),
    "trace": ("trace", "sees its own point and no other"),
    "likelihood": ("likelihood", "nothing pushes it off a taken point"),
    "distance": ("distance (ablation)", "no Gaussian: collapses to the mean"),
}
SHADES = LinearSegmentedColormap.from_list("loss", ["#2f7fb8", "#94bfdd", "#dbe9f4", "#ffffff"])


def loss_of(objective: Objective, centres: Tensor) -> Tensor:
    """Return the loss (n,) of sets of centres with shape (n, 6, 2)."""
    variance = objective.component_variance(VARIANCE)
    q = GaussianMixture(centres, variance)
    p = GaussianMixture(DATA, variance).expand(q.batch_shape)
    if isinstance(objective, DebiasedNuclearNorm):
        # The module halves a batch; six points are too few for that, so a second one is drawn.
        copy = GaussianMixture(SECOND_BATCH, variance).expand(q.batch_shape)
        return F.debiased_fidelity(p, None, q, copy, objective.weight)
    return objective(p, q)


def field(objective: Objective, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return loss (n,) and descent (n, 2) for the last centre at places with shape (n, 2)."""
    places = places.clone().requires_grad_()
    fixed = FIXED.expand(len(places), *FIXED.shape)
    loss = loss_of(objective, torch.cat([fixed, places.unsqueeze(1)], 1))
    (gradient,) = torch.autograd.grad(loss.sum(), places)
    return loss.detach(), -gradient


def lattice(count: int) -> Tensor:
    """Return a square of places with shape (count^2, 2)."""
    axis = torch.linspace(-SIDE, SIDE, count, dtype=torch.float64)
    return torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(-1, 2)


def draw_panel(ax: Axes, name: str) -> None:
    """Draw one objective: shades of the loss, arrows, points and centres."""
    objective = create_objective(name)
    fine, coarse = lattice(161), 0.94 * lattice(17)
    loss, _ = field(objective, fine)
    x, y = fine.T.reshape(2, 161, 161).numpy()
    ax.contourf(x, y, loss.reshape(161, 161).numpy(), levels=14, cmap=SHADES)
    _, descent = field(objective, coarse)
    size = descent.norm(dim=-1)
    strong = size > 0.02 * size.max()
    for which, color in ((strong, "#1f2933"), (~strong, "#aab3bd")):
        at, way = coarse[which].T.numpy(), (descent / size.unsqueeze(-1))[which].T.numpy()
        ax.quiver(*at, *way, color=color, pivot="mid", scale=22, width=0.006)
    ax.plot(
        *fine[loss.argmin()].numpy(), "*", color="#ffd400", markersize=20, markeredgecolor="black"
    )
    ax.plot(*DATA.T.numpy(), "o", color="black", markersize=6)
    ax.plot(*FIXED.T.numpy(), "X", color=MODEL, markersize=8, markeredgecolor="white")
    if name == "debiased":
        ax.plot(*SECOND_BATCH.T.numpy(), "P", color=MODEL, markersize=8, markeredgecolor="white")
    title, note = TITLES[name]
    ax.set_title(title, fontsize=12, fontweight="bold")
    ax.set_xlabel(note, fontsize=10)
    ax.set(xticks=[], yticks=[], xlim=(-SIDE, SIDE), ylim=(-SIDE, SIDE), aspect="equal")


def draw() -> Figure:
    """Return the figure with a panel for each objective."""
    figure = Figure(figsize=(9.6, 11.4), layout="constrained")
    for ax, name in zip(figure.subplots(3, 3).flat, TITLES, strict=True):
        draw_panel(ax, name)
    marks = [
        Line2D([], [], marker="o", color="black", linestyle="", label="data point"),
        Line2D(
            [],
            [],
            marker="X",
            color=MODEL,
            markeredgecolor="white",
            markersize=9,
            linestyle="",
            label="centre that stays",
        ),
        Line2D(
            [],
            [],
            marker="*",
            color="#ffd400",
            markeredgecolor="black",
            markersize=14,
            linestyle="",
            label="best place for the sixth centre",
        ),
        Line2D(
            [],
            [],
            marker=r"$\rightarrow$",
            color="#1f2933",
            markersize=12,
            linestyle="",
            label="where it is pushed (pale: under 2 % of the strongest push)",
        ),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    return figure


def main() -> None:
    """Write the picture."""
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    whole = BytesIO()
    draw().savefig(whole, dpi=110)
    # A palette takes a third of the space, and the shades have few colours anyway.
    with Image.open(whole) as image:
        image.convert("RGB").quantize(
            160, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
        ).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
