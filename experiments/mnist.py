"""Three objectives on the whole of MNIST, each at its best variance, over three seeds.

    HILBOUND_DATA=path/to/data python experiments/mnist.py

First a sweep: every objective at a few variances, for a third of the steps, one seed, judged by the
Fréchet distance to *validation* images. Then the winner of every objective is trained in full with
three seeds and measured on the test images. Last, a ladder shows what helped. Runs that are already
there are not repeated, so the experiment goes on where it was stopped. Writes
``docs/results/mnist.json``, the tables in ``docs/results/mnist.md`` (between its two marks) and
pictures of samples.
"""

import argparse
import json
import logging
import statistics
from pathlib import Path
from typing import Any

import torch

import hilbound
from hilbound import plots
from hilbound.drawing import canvas
from hilbound.evaluation import METRICS, evaluate, format_metric
from hilbound.machine import processor, versions
from hilbound.runs import Run
from hilbound.seeding import stream

HERE = Path(__file__).resolve().parent.parent
RESULTS = HERE / "docs" / "results"
SWEEP = {
    "nuclear": (50, 100, 150, 200, 300),
    "scalar": (4, 8, 15, 30),
    "likelihood": (0.05, 0.1, 0.2, 0.5),
}
SHOWN = ("coverage", "recall", "precision", "density", "frechet_distance", "vendi_score",
         "tightness", "fidelity", "classes_hit")  # fmt: skip
SETTINGS: dict[str, Any] = {
    "data": "mnist",
    "width": 1024,
    "depth": 2,
    "noise_dim": 16,
    "batch_size": 1024,
    "centers": 512,
    "learning_rate": 1e-2,
    "tensorboard": False,
    "validate_every": 250,
}
#: What helped the nuclear norm: every line adds its changes to those of the lines before it.
LADDER: dict[str, dict[str, Any]] = {
    "10,000 images, MLP of 512, learning rate 5e-4, constant, batch 256, 2,500 steps": {
        "samples": 10_000, "width": 512, "learning_rate": 5e-4, "decay": False,
        "batch_size": 256, "centers": 256, "steps": 2500, "variance": 50,
    },
    "learning rate 1e-2, falling to zero along a cosine": {"learning_rate": 1e-2, "decay": True},
    "MLP of 1,024": {"width": 1024},
    "1,024 images against 512 centres, 1,500 steps": {
        "batch_size": 1024, "centers": 512, "steps": 1500,
    },
    "all 55,000 images": {"samples": None},
    "variance 70": {"variance": 70},
}  # fmt: skip
MARKS = ("<!-- table: begin -->", "<!-- table: end -->")


def one(path: Path, split: str, **options: Any) -> dict[str, Any]:
    """Train and measure, unless that was done before."""
    if not (path / "metrics.json").exists():
        run = hilbound.fit(path, overwrite=True, quiet=True, **SETTINGS | options)
        evaluate(run, split=split)  # type: ignore[arg-type]
    run = Run.open(path)
    rows = run.read_bounds()
    return {
        **run.read_json("metrics.json"),
        "options": options,
        "seconds": rows[-1]["seconds"],
        "validation_tightness": rows[-1]["tightness"],
    }


def sweep(root: Path, steps: int) -> dict[str, list[dict[str, Any]]]:
    """Try every objective at every variance."""
    tried: dict[str, list[dict[str, Any]]] = {}
    for objective, variances in SWEEP.items():
        for variance in variances:
            result = one(
                root / f"sweep-{objective}-{variance:g}", "validation",
                objective=objective, variance=variance, steps=steps, seed=0,
            )  # fmt: skip
            tried.setdefault(objective, []).append(result)
            logging.info(
                "sweep %s %g: Fréchet %.1f, %.0f s", objective, variance, distance(result),
                result["seconds"],
            )  # fmt: skip
    return tried


def climb(root: Path, seeds: int) -> dict[str, list[dict[str, Any]]]:
    """Add the changes one by one, and measure on the test images."""
    climbed: dict[str, list[dict[str, Any]]] = {}
    for seed in range(seeds):
        options: dict[str, Any] = {}
        for number, (title, change) in enumerate(LADDER.items()):
            options |= change
            path = root / f"ladder-{number}-{seed}"
            result = one(path, "test", objective="nuclear", seed=seed, **options)
            climbed.setdefault(title, []).append(result)
            logging.info("ladder %d seed %d: Fréchet %.1f", number, seed, distance(result))
    return climbed


def distance(result: dict[str, Any]) -> float:
    """Return the Fréchet distance, by which variances are chosen."""
    return float(result["metrics"]["frechet_distance"]["model"])


def full(
    root: Path, tried: dict[str, list[dict[str, Any]]], steps: int, seeds: int
) -> dict[str, list[dict[str, Any]]]:
    """Train every objective at its best variance, once a seed, and measure on the test images."""
    done: dict[str, list[dict[str, Any]]] = {}
    for objective, results in tried.items():
        variance = min(results, key=distance)["options"]["variance"]
        for seed in range(seeds):
            result = one(
                root / f"full-{objective}-{seed}", "test",
                objective=objective, variance=variance, steps=steps, seed=seed,
            )  # fmt: skip
            done.setdefault(objective, []).append(result)
            logging.info("full %s seed %d: Fréchet %.1f", objective, seed, distance(result))
    return done


def spread(values: list[float], name: str) -> str:
    """Return mean ± deviation as a table prints it."""
    mean = format_metric(name, statistics.mean(values))
    if len(values) < 2:
        return mean
    return f"{mean} ± {format_metric(name, statistics.stdev(values))}"


Results = dict[str, list[dict[str, Any]]]


def table(tried: Results, done: Results, climbed: Results) -> str:
    """Return the three tables in Markdown."""
    return "\n".join([*_full_table(done), "", *_sweep_table(tried), "", *_ladder_table(climbed)])


def _ladder_table(climbed: Results) -> list[str]:
    names = ("coverage", "recall", "precision", "frechet_distance")
    lines = [
        "What helped the nuclear norm, each line on top of those above it, on test images:", "",
        "| change | " + " | ".join(METRICS[name].title for name in names) + " | time |",
        "|---" * (len(names) + 2) + "|",
    ]  # fmt: skip
    for title, results in climbed.items():
        cells = [spread([r["metrics"][n]["model"] for r in results], n) for n in names]
        seconds = spread([r["seconds"] for r in results], "vendi_score")
        lines.append(f"| {title} | " + " | ".join(cells) + f" | {seconds} s |")
    return lines


def _full_table(done: Results) -> list[str]:
    lines = [
        "| objective | variance | "
        + " | ".join(METRICS[name].title for name in SHOWN)
        + " | time |",
        "|---" * (len(SHOWN) + 3) + "|",
    ]
    for objective, results in done.items():
        cells = [spread([r["metrics"][name]["model"] for r in results], name) for name in SHOWN]
        seconds = spread([r["seconds"] for r in results], "vendi_score")
        variance = results[0]["options"]["variance"]
        lines.append(f"| {objective} | {variance:g} | " + " | ".join(cells) + f" | {seconds} s |")
    floor = [
        spread([r["metrics"][name]["real"] for r in next(iter(done.values()))], name)
        for name in SHOWN
    ]
    lines.append("| real data | – | " + " | ".join(floor) + " | – |")
    return lines


def _sweep_table(tried: Results) -> list[str]:
    lines = [
        "The sweep, on validation images, a third of the steps:",
        "",
        "| objective | variance | Fréchet distance | Coverage | Recall | Precision |",
        "|---|---|---|---|---|---|",
    ]
    for objective, results in tried.items():
        best = min(results, key=distance)
        for result in results:
            cells = [
                format_metric(name, result["metrics"][name]["model"])
                for name in ("frechet_distance", "coverage", "recall", "precision")
            ]
            mark = " (chosen)" if result is best else ""
            lines.append(
                f"| {objective} | {result['options']['variance']:g}{mark} | "
                + " | ".join(cells)
                + " |"
            )
    return lines


def picture(root: Path, done: dict[str, list[dict[str, Any]]]) -> None:
    """Draw samples of every objective into one picture."""
    for objective in done:
        model = Run.open(root / f"full-{objective}-0").load_model()
        rows = model.sample(64, stream(0, "picture"))
        figure, ax = canvas(3.2, 3.2)
        plots.plot_images(ax, rows.reshape(-1, 1, 28, 28), columns=8)
        figure.savefig(RESULTS / f"mnist-{objective}.png", dpi=150)


def main() -> None:
    """Run the experiment and write its results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE / "runs" / "mnist")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="threads of a training")
    parser.add_argument("--part", choices=("all", "ladder"), default="all")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(given.threads)
    if given.part == "ladder":
        climb(given.output, given.seeds)
        return
    tried = sweep(given.output, given.steps // 3)
    done = full(given.output, tried, given.steps, given.seeds)
    climbed = climb(given.output, given.seeds)
    content = {
        "settings": SETTINGS | {"steps": given.steps, "sweep_steps": given.steps // 3},
        "versions": versions(),
        "machine": f"{processor()}, {torch.get_num_threads()} threads",
        "sweep": tried,
        "full": done,
        "ladder": climbed,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "mnist.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    page = RESULTS / "mnist.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    page.write_text(
        f"{before}{MARKS[0]}\n{table(tried, done, climbed)}\n{MARKS[1]}{after}", encoding="utf-8"
    )
    picture(given.output, done)


if __name__ == "__main__":
    main()
