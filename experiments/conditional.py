"""How tight the conditional bound becomes with K centres, by two protocols, on 800 MNIST images.

    HILBOUND_DATA=path/to/data python experiments/conditional.py

An encoder with one feature and a mixture decoder are trained with K = 1, 2, 5, 10 and 30 centres.
*Joint*: encoder and decoder together, so that the limit moves with the encoder. *Frozen*: the
encoder of the joint run with K = 10 is kept as it is, and a decoder is fitted to it for every K:
all share one limit, and only the decoder can close the gap. Bounds are exact, on the 800 images
themselves and on 800 held-out ones. Runs that are already there are not repeated, so the
experiment goes on where it was stopped. Writes ``docs/results/conditional.json``, the tables in
``docs/conditional.md`` (between their marks) and its pictures.
"""

import argparse
import json
import logging
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from marks import fill

import hilbound
from hilbound import metrics, plots
from hilbound.autoencoders import EncoderMixtureDecoder
from hilbound.config import RunConfig
from hilbound.datasets import Dataset
from hilbound.drawing import canvas
from hilbound.features import FeatureSpace, fit_features
from hilbound.machine import processor, versions
from hilbound.planning import load_dataset
from hilbound.reconstruction import (
    draw_reconstructions,
    reconstruct,
    reconstruction_errors,
)
from hilbound.runs import Run
from hilbound.seeding import stream

HERE = Path(__file__).resolve().parent.parent
DOCS = HERE / "docs"
RESULT = DOCS / "results" / "conditional.json"
CENTERS = (1, 2, 5, 10, 30)
#: The joint run whose encoder the frozen protocol takes.
ENCODER_CENTERS = 10
PROTOCOLS = ("joint", "frozen")
SETTINGS: dict[str, Any] = {
    "data": "mnist",
    "samples": 800,
    "model": "encoder-mixture-decoder",
    "features": 1,
    "variance": 15,
    "variance_y": 0.01,
    "width": 256,
    "steps": 1000,
    "validate_every": 500,
    "tensorboard": False,
}
#: Inputs, and reconstructions of each, that diversity and validity are measured on.
INPUTS, RECONSTRUCTIONS = 200, 10
#: Draws of the centres' noise that a bound is averaged over.
NOISE_DRAWS = 5
Row = dict[str, Any]


def one(root: Path, protocol: str, centers: int, seed: int, **options: Any) -> Run:
    """Train, unless that was done before with the same options."""
    options = SETTINGS | options | {"centers": centers, "seed": seed}
    if protocol == "frozen":
        options["encoder"] = str(root / f"joint-{ENCODER_CENTERS}-{seed}")
    path = root / f"{protocol}-{centers}-{seed}"
    if not is_there(path, RunConfig.create(**options)):
        hilbound.fit(path, overwrite=True, quiet=True, **options)
    return Run.open(path)


def is_there(path: Path, wanted: RunConfig) -> bool:
    """Whether a run with these very options was finished before."""
    if not (path / "run.json").exists():
        return False
    run = Run.open(path)
    return run.config == wanted and run.read_json("run.json")["status"] == "finished"


def bounds(run: Run, dataset: Dataset) -> Row:
    """Return the exact bounds at the end, on training and on held-out rows.

    A bound is that of one draw of the K noise vectors; the mean over a few is of the decoder.
    """
    model = encoder_of(run)
    found: Row = {}
    for split, rows in (("train", dataset.train), ("test", dataset.test)):
        few = rows[: SETTINGS["samples"]]
        for name, k in (("", run.config.centers), ("_30", max(CENTERS))):
            several = [
                model.bound(few, run.config.variance / 2, k, stream(draw, "conditional", split))
                for draw in range(NOISE_DRAWS)
            ]
            found[f"{split}_tightness{name}"] = mean([float(b.tightness) for b in several])
            found[f"{split}_log_limit"] = mean([float(b.log_limit) for b in several])
    return found


def encoder_of(run: Run) -> EncoderMixtureDecoder:
    """Return the model of a run."""
    model = run.load_model()
    if not isinstance(model, EncoderMixtureDecoder):
        raise TypeError(f"{run.path} holds a {type(model).__name__}")
    return model


def reconstructions(run: Run, dataset: Dataset, space: FeatureSpace) -> Row:
    """Return how different the reconstructions of an input are, and how close to real images."""
    model = encoder_of(run)
    x = dataset.test[:INPUTS]
    several = model.reconstruct(x, RECONSTRUCTIONS, stream(0, "reconstructions"))
    errors = reconstruction_errors(x, several)
    real = space.transform(dataset.test[INPUTS : INPUTS + 5000])
    flat = space.transform(several.flatten(0, 1))
    nearest = torch.cdist(flat, real).amin(1)
    return {
        "pairwise_squared_distance": errors["pairwise_distance"] * x.shape[1],
        "error_of_mean": errors["error_of_mean"],
        "best_squared_error": errors["error_of_best"],
        "validity": metrics.precision_recall_density_coverage(real, flat).precision,
        "nearest_real": float(nearest.mean()),
        "nearest_real_of_real": float(torch.cdist(space.transform(x), real).amin(1).mean()),
        "validity_of_real": metrics.precision_recall_density_coverage(
            real, space.transform(x)
        ).precision,
    }


def mean_and_deviation(rows: list[Row], name: str, digits: int = 3) -> str:
    """Return ``mean ± standard deviation`` over the seeds."""
    values = [row[name] for row in rows]
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.{digits}f} ± {spread:.{digits}f}"


def tables(results: list[Row]) -> str:
    """Return both protocols' tables as Markdown."""
    lines: list[str] = []
    columns = {
        "tightness, trained images": ("train_tightness", 3),
        "tightness, held-out images": ("test_tightness", 3),
        "log limit": ("train_log_limit", 2),
        "distance² between reconstructions": ("pairwise_squared_distance", 2),
        "best of 10, error per pixel": ("best_squared_error", 4),
        "validity": ("validity", 3),
        "nearest real image": ("nearest_real", 2),
    }
    for protocol in PROTOCOLS:
        lines += ["", f"**{protocol.capitalize()}**", "", "| K | " + " | ".join(columns) + " |",
                  "|--:|" + "--:|" * len(columns)]  # fmt: skip
        for k in CENTERS:
            rows = [r for r in results if (r["protocol"], r["centers"]) == (protocol, k)]
            cells = [mean_and_deviation(rows, *column) for column in columns.values()]
            lines.append(f"| {k} | " + " | ".join(cells) + " |")
    validity, nearest = (results[0][f"{name}_of_real"] for name in ("validity", "nearest_real"))
    lines += ["", f"Real images in their place: validity {validity:.3f}, nearest at {nearest:.2f}."]
    return "\n".join(lines).strip() + "\n"


def curves(results: list[Row]) -> None:
    """Draw tightness against K for both protocols, one line for every seed and their mean."""
    figure, ax = canvas(6.0, 3.8)
    for number, protocol in enumerate(PROTOCOLS):
        found = {
            k: [r["train_tightness"] for r in results
                if (r["protocol"], r["centers"]) == (protocol, k)]
            for k in CENTERS
        }  # fmt: skip
        color = plots.PALETTE[number]
        for values in zip(*found.values(), strict=True):
            ax.plot(CENTERS, values, color=color, alpha=0.3, linewidth=1)
        means = [mean(values) for values in found.values()]
        label = ("encoder trained with each K", "encoder frozen")[number]
        ax.plot(CENTERS, means, marker="o", color=color, label=label)
    ax.set_xscale("log")
    ax.set_xticks(CENTERS, [str(k) for k in CENTERS])
    ax.minorticks_off()
    ax.set_xlabel("centres K")
    ax.set_ylabel("tightness of the conditional bound")
    ax.legend(frameon=False)
    figure.savefig(DOCS / "images" / "conditional_tightness.png", dpi=160)


def pictures(root: Path) -> None:
    """Draw reconstructions of a few test images by the joint run with the most centres."""
    run = Run.open(root / f"joint-{max(CENTERS)}-0")
    figure = draw_reconstructions(reconstruct(run, 6, RECONSTRUCTIONS))
    figure.savefig(DOCS / "images" / "conditional_reconstructions.png", dpi=160)


def main() -> None:
    """Run what is missing, then write figures, tables and pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=HERE / "runs" / "conditional")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    results: list[Row] = []
    everything = load_dataset(RunConfig.create(data="mnist"))
    space = fit_features(everything, seed=0)
    for seed in range(options.seeds):
        dataset = load_dataset(RunConfig.create(**SETTINGS | {"seed": seed}))
        for protocol in PROTOCOLS:
            # The frozen protocol needs the encoder of the joint one.
            for k in CENTERS:
                run = one(options.runs, protocol, k, seed)
                row = {"protocol": protocol, "centers": k, "seed": seed,
                       "seconds": run.read_bounds()[-1]["seconds"],
                       **bounds(run, dataset), **reconstructions(run, dataset, space)}  # fmt: skip
                results.append(row)
                logging.info("%s", row)
    content = {"settings": SETTINGS, "processor": processor(), "versions": versions(),
               "results": results}  # fmt: skip
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    curves(results)
    pictures(options.runs)
    fill(DOCS / "conditional.md", "tables", tables(results))


if __name__ == "__main__":
    main()
