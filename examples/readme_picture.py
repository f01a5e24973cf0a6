"""Draw the picture of the README from the runs of the demonstration.

    python examples/readme_picture.py

Runs ``hilbound demo`` into a temporary folder and draws samples of its six runs beside the data.
"""

import tempfile
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from hilbound.cli.demo import run_demo
from hilbound.engine.seeding import stream
from hilbound.reports import plots
from hilbound.training.plan import load_dataset
from hilbound.training.runs import Run

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "images" / "readme.png"
OBJECTIVES = {
    "nuclear": "nuclear norm",
    "scalar": "normalised inner product",
    "likelihood": "likelihood",
}


def draw(folder: Path) -> Figure:
    """Return the figure: a column for each objective, points above, digits below."""
    figure = Figure(figsize=(9.6, 4.1), layout="constrained")
    axes = figure.subplots(2, 3, height_ratios=(1.15, 1))
    for column, (objective, title) in enumerate(OBJECTIVES.items()):
        for row, data in enumerate(("moons", "digits")):
            run, ax = Run.open(folder / f"{data}-{objective}"), axes[row, column]
            dataset = load_dataset(run.config)
            samples = run.model.sample(700, stream(1, "picture"))
            if dataset.image_shape is None:
                ax.scatter(*dataset.test[:1500].T.numpy(), s=4, color="0.8", linewidths=0)
                ax.scatter(*samples.T.numpy(), s=5, color=plots.PALETTE[0], linewidths=0)
                ax.set_aspect("equal")
                ax.set_axis_off()
                ax.set_title(title, fontsize=12)
            else:
                images = samples[:50].reshape(-1, *dataset.image_shape)
                plots.plot_images(ax, images, columns=10)
    return figure


def main() -> None:
    """Run the demonstration and write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        run_demo(Path(folder), Console(), quiet=True)
        figure = draw(Path(folder))
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=150)


if __name__ == "__main__":
    main()
