"""Held-out log likelihood of densities: ours beside scikit-learn's, tuned by cross-validation.

Rows of JSON, one for each set, split and method; what is there is not measured again.
All methods see standardised columns; densities are in standardised units. The least variance of
a component is the same for all, --floor: GaussianMixture has it by reg_covar, KernelDensity by a
bandwidth of at least its root. Where values repeat, scores say how narrow a component may be: at
a floor of 1e-2 no spike can win.

    python density_draft.py OUT.jsonl SET [SET ...] [--data FOLDER] [--methods ours,gmm,kde]
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.neighbors import KernelDensity
from sklearn.preprocessing import StandardScaler

from hilbound.estimators import MixtureDensityEstimator


def rows(name, folder, split):
    if name in ("concrete", "energy", "power-plant", "wine-quality-red"):
        data = np.load(folder / f"{name}.npz")
        x = data["features"]
        return x[data[f"train_{split}"]], x[data[f"test_{split}"]]
    if name == "digits":
        x = load_digits().data
    else:
        from hilbound.datasets import load

        made = load(name, samples=2000, seed=split)
        x = np.concatenate([np.asarray(part) for part in (made.train,)])
    order = np.random.RandomState(split).permutation(len(x))
    cut = len(x) // 10
    return x[order[cut:]], x[order[:cut]]


def tuned_mixture(x, floor):
    """The best of K = 1, 2, 4, ... (two falls end it), two shapes, three ridges, by 3 folds.

    One ridge and at most 64 components above 4,000 rows, for the sake of time.
    """
    many = len(x) > 4000
    best = (-np.inf, None)
    folds = KFold(3, shuffle=True, random_state=0)
    for shape in ("full", "diag"):
        for ridge in (floor,) if many else sorted({max(r, floor) for r in (floor, 1e-3, 1e-1)}):
            top, falls, k = -np.inf, 0, 1
            while k <= (64 if many else min(256, len(x) // 6)) and falls < 2:
                model = GaussianMixture(k, covariance_type=shape, reg_covar=ridge, random_state=0)
                score = cross_val_score(model, x, cv=folds).mean()
                falls = 0 if score > top else falls + 1
                top = max(top, score)
                if score > best[0]:
                    best = (score, model)
                k *= 2
    return best[1].fit(x)


def tuned_kernel(x, floor):
    grid = {"bandwidth": np.geomspace(floor**0.5, 2, 25)}
    folds = KFold(3, shuffle=True, random_state=0)
    return GridSearchCV(KernelDensity(), grid, cv=folds).fit(x).best_estimator_


METHODS = {
    "ours": lambda x, floor: MixtureDensityEstimator(min_variance=floor, random_state=0).fit(x),
    "gmm": tuned_mixture,
    "kde": tuned_kernel,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--data", type=Path, default=Path("data/uci"))
    parser.add_argument("--methods", default="ours,gmm,kde")
    parser.add_argument("--floor", type=float, default=1e-6)
    parser.add_argument("--splits", type=int, default=5)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    seen = set()
    if arguments.out.exists():
        lines = arguments.out.read_text().splitlines()
        seen = {
            (r["set"], r["split"], r["method"], r.get("floor", 1e-6))
            for r in map(json.loads, lines)
        }
    for split in range(arguments.splits):
        for name in arguments.sets:
            train, test = rows(name, arguments.data, split)
            scale = StandardScaler().fit(train)
            train, test = scale.transform(train), scale.transform(test)
            for method in arguments.methods.split(","):
                if (name, split, method, arguments.floor) in seen:
                    continue
                start = time.process_time()
                model = METHODS[method](train, arguments.floor)
                row = {"set": name, "split": split, "method": method, "floor": arguments.floor}
                row["seconds"] = round(time.process_time() - start, 2)
                row["score"] = float(np.mean(model.score_samples(test)))
                new = [r for r in test if not (train == r).all(1).any()]
                row["score_unseen"] = float(np.mean(model.score_samples(np.array(new))))
                row["unseen"] = len(new)
                with arguments.out.open("a") as out:
                    out.write(json.dumps(row) + "\n")
                print(row, flush=True)


if __name__ == "__main__":
    main()
