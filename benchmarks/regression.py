"""Judge `ConditionalDensityEstimator`, with its one default, on tables of your own.

    python benchmarks/regression.py houses.csv --target price
    python benchmarks/regression.py a.npz b.npz c.csv --splits 20 --json scores.json

A ``.npz`` file holds ``features`` with shape (n, d) and ``target`` with shape (n,), and may hold
the rows of published splits as ``train_0, test_0, train_1, ...``, as the files of
``hilbound experiment uci-regression`` do. Any other table is read as ``hilbound fit --target``
reads it: numbers, texts and missing cells; the target is the last column unless ``--target`` names
it. Where there are no published splits, a tenth of the rows is drawn for testing, by the split's
number.

Nothing is chosen by the user or on test rows. Every split is printed as it comes; then the means
with their standard errors.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from hilbound.datasets.mixed import read_mixed
from hilbound.estimators import ConditionalDensityEstimator
from hilbound.experiments.uci_regression.methods import Split, score_estimator
from hilbound.training.machine import processor, versions

#: What is printed, with so many digits.
SHOWN = {
    **dict.fromkeys(("nll", "crps", "coverage", "rmse", "integer_nll"), 3),
    "seconds": 1,
    "core_seconds": 1,
}


def splits_of(path: Path, target: str | None, count: int) -> Iterator[Split]:
    """Yield the published splits of a table, or random ones."""
    x, y, published = read(path, target)
    for number in range(count):
        if published:
            if number >= len(published):
                return
            train, test = published[number]
        else:
            order = np.random.default_rng(number).permutation(len(y))
            cut = max(1, len(y) // 10)
            train, test = order[cut:], order[:cut]
        yield Split(x.iloc[train], y[train], x.iloc[test], y[test], number)


def read(path: Path, target: str | None) -> tuple[pd.DataFrame, Any, list[tuple[Any, Any]]]:
    """Return the columns of a table, its target, and the rows of its published splits, if any."""
    if path.suffix != ".npz":
        frame = read_mixed(path)
        name = frame.columns[-1] if target is None else target
        if name not in frame:
            raise SystemExit(f"{path} has no column {name!r}, only {', '.join(frame.columns)}")
        known = frame[name].notna().to_numpy()
        frame = frame[known].reset_index(drop=True)
        return frame.drop(columns=name), frame[name].to_numpy(dtype=np.float64), []
    with np.load(path, allow_pickle=False) as data:
        x = data["features"]
        frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])
        numbers = [i for i in range(len(data.files)) if f"train_{i}" in data.files]
        published = [(data[f"train_{i}"], data[f"test_{i}"]) for i in numbers]
        return frame, data["target"].astype(np.float64), published


def measure(split: Split, effort: str) -> dict[str, Any]:
    """Fit one split in one thread, and score its test rows."""
    began, core = time.perf_counter(), time.process_time()
    model = ConditionalDensityEstimator(
        effort=effort, handle_unknown="missing", random_state=split.seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # whatever a table holds, nothing should have to be said
        model.fit(split.x, split.y)
        seconds = {
            "seconds": time.perf_counter() - began,
            "core_seconds": time.process_time() - core,
        }
        row = score_estimator(model, split)
    return {"split": split.seed, "rows": len(split.y), **row, **seconds}


def line(values: dict[str, list[float]]) -> str:
    """Return means in one line, with standard errors where there are several values."""
    parts = []
    for name, found in values.items():
        digits = SHOWN[name]
        part = f"{name} {statistics.mean(found):.{digits}f}"
        if len(found) > 1:
            part += f" ± {statistics.stdev(found) / len(found) ** 0.5:.{digits}f}"
        parts.append(part)
    return ", ".join(parts)


def main() -> None:
    """Measure every table and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE")
    parser.add_argument("--target", help="the target's column (default: the last)")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--effort", choices=("default", "high"), default="default")
    parser.add_argument("--json", type=Path, help="where to write every figure")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    content: dict[str, Any] = {"processor": processor(), "versions": versions(), "tables": {}}
    for path in arguments.tables:
        rows = []
        for split in splits_of(path, arguments.target, arguments.splits):
            rows.append(measure(split, arguments.effort))
            one = {name: [rows[-1][name]] for name in SHOWN if name in rows[-1]}
            print(f"{path.name}, split {split.seed}: {line(one)}", flush=True)
        values = {name: [row[name] for row in rows] for name in SHOWN if name in rows[0]}
        print(f"{path.name}, mean over splits: {line(values)}\n")
        content["tables"][str(path)] = rows
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
