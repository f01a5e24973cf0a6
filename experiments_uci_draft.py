"""Measure conditional densities on UCI's standard splits, one row of JSON at a time.

``python experiments_uci_draft.py FOLDER -o rows.jsonl --sets concrete energy --splits 0-19
--methods default high network process boosting``. What is in the file already is not repeated.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy.stats import norm
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import KFold, cross_val_predict, train_test_split
from sklearn.preprocessing import StandardScaler

from hilbound.estimators import ConditionalDensityEstimator

SETS = ("concrete", "energy", "power-plant", "wine-quality-red")


def numbers_of(model, x, y):
    """Return what is reported of a fitted estimator."""
    inside = model.predict_interval(x, 0.9)
    pit = model.cdf(x, y)
    row = {
        "nll": -float(model.score(x, y)),
        "crps": float(model.crps(x, y).mean()),
        "coverage": float(((y >= inside[:, 0]) & (y <= inside[:, 1])).mean()),
        "rmse": float(np.sqrt(np.mean((model.predict(x) - y) ** 2))),
        "held_out_nll": -model.held_out_score_,
        "pit_mean": float(pit.mean()),
        "floor_deviation": float(np.sqrt(model.variance_floor_[0])),
    }
    grid = np.unique(y)
    if len(grid) < 20 and np.allclose(np.diff(grid), 1):
        row["integer_nll"] = -float(np.log(integer_probability(model, x, y)).mean())
    return row


def integer_probability(model, x, y):
    """Return the probability of the interval that rounds to the target."""
    mass = model.cdf(x, y + 0.5) - model.cdf(x, y - 0.5)
    return np.maximum(mass, 1e-300)


def estimator(effort):
    def measure(x, y, new, target, seed):
        model = ConditionalDensityEstimator(effort=effort, random_state=seed)
        return numbers_of(model.fit(x, y), new, target)

    return measure


def network(x, y, new, target, seed):
    """A plain likelihood-trained network: one member, no embedding, stopped on a tenth."""
    from hilbound.estimators.columns import Columns
    from hilbound.estimators.ensemble import Recipe, Rows, fit_ensemble
    from hilbound.estimators.frames import columns_of_array
    from hilbound.estimators.targets import Targets

    columns, targets = Columns.learn(columns_of_array(x)), Targets.learn(y[:, None])
    rows = Rows(
        torch.tensor(columns.read(columns_of_array(x))).float(),
        torch.tensor(targets.standardise(y[:, None])).float(),
        torch.ones(len(x)),
    )
    small = len(x) <= 3000
    batch, passes = (64, 300) if small else (256, 140)
    recipe = Recipe(
        folds=10,
        repeats=1,
        width=64 if small else 128,
        batch=batch,
        steps=min(8000, passes * (len(x) * 9 // 10 // batch)),
        bins=0,
    )
    floor = torch.tensor(targets.floor).float()
    ensemble, _ = fit_ensemble(rows, recipe, floor, torch.Generator().manual_seed(seed))
    one = type(ensemble)(ensemble.embedding, [w[:1] for w in ensemble.weights], floor)

    model = ConditionalDensityEstimator()
    model.columns_, model.targets_, model.model_ = columns, targets, one
    model.n_targets_, model.n_features_in_ = 1, x.shape[1]
    model.variance_floor_ = targets.floor * targets.scale**2
    model.held_out_score_ = float("nan")
    return numbers_of(model, new, target)


def gaussian(mean, deviation, target):
    z = (target - mean) / deviation
    crps = deviation * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi))
    return {
        "nll": -float(norm.logpdf(target, mean, deviation).mean()),
        "crps": float(crps.mean()),
        "coverage": float((np.abs(z) <= norm.ppf(0.95)).mean()),
        "rmse": float(np.sqrt(np.mean((mean - target) ** 2))),
    }


def process(x, y, new, target, seed):
    """scikit-learn's Gaussian process, on at most 2,000 rows."""
    scaler = StandardScaler().fit(x)
    if len(x) > 2000:
        x, _, y, _ = train_test_split(x, y, train_size=2000, random_state=seed)
    kernel = ConstantKernel() * RBF(np.ones(x.shape[1]), (1e-2, 1e3)) + WhiteKernel(0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
        model.fit(scaler.transform(x), y)
    mean, deviation = model.predict(scaler.transform(new), return_std=True)
    return gaussian(mean, deviation, target)


def boosting(x, y, new, target, seed):
    """Histogram gradient boosting with one deviation, that of its held-out residuals."""
    model = HistGradientBoostingRegressor(random_state=seed)
    held = cross_val_predict(model, x, y, cv=KFold(10, shuffle=True, random_state=seed))
    mean = model.fit(x, y).predict(new)
    return gaussian(mean, np.sqrt(np.mean((held - y) ** 2)), target)


METHODS = {
    "default": estimator("default"),
    "high": estimator("high"),
    "network": network,
    "process": process,
    "boosting": boosting,
}


def summary(rows):
    """Print mean and standard error of every set and method."""
    for name in SETS:
        for method in METHODS:
            some = [r for r in rows if r["set"] == name and r["method"] == method]
            if some:
                words = []
                for key in ("nll", "crps", "coverage", "seconds", "integer_nll", "held_out_nll"):
                    values = np.array([r[key] for r in some if key in r])
                    if len(values):
                        error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0
                        words.append(f"{key} {values.mean():.3f}±{error:.3f}")
                print(f"{name:17} {method:9} n={len(some):2} ", "  ".join(words))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--methods", nargs="+", default=["default"], choices=METHODS)
    parser.add_argument("--splits", default="0-19")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after these")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    first, last = (int(part) for part in options.splits.split("-"))
    text = options.output.read_text() if options.output.exists() else ""
    rows = [json.loads(line) for line in text.splitlines()]
    done = {(r["set"], r["method"], r["split"]) for r in rows}
    begin = time.monotonic()
    for split in range(first, last + 1):
        for name in options.sets:
            for method in options.methods:
                late = time.monotonic() - begin > options.seconds
                if (name, method, split) in done or late:
                    continue
                data = np.load(options.folder / f"{name}.npz")
                x, y = data["features"], data["target"]
                train, test = data[f"train_{split}"], data[f"test_{split}"]
                start = time.monotonic()
                row = METHODS[method](x[train], y[train], x[test], y[test], split)
                row |= {"seconds": time.monotonic() - start, "threads": options.threads}
                row |= {"set": name, "method": method, "split": split, "rows": len(train)}
                rows.append(row)
                with options.output.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    summary(rows)


if __name__ == "__main__":
    main()
