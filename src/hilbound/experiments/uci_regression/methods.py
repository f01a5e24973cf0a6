"""What is measured on a table: our estimator, and what people would use instead."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hilbound.estimators import ConditionalDensityEstimator
from hilbound.estimators.columns import Columns
from hilbound.estimators.experts.ensemble import Ensemble, Recipe, fit_ensemble
from hilbound.estimators.experts.rows import Rows
from hilbound.estimators.experts.targets import Targets
from hilbound.estimators.frames import columns_of_array
from hilbound.experiments.base import Row
from hilbound.experiments.uci_regression.settings import UciSettings

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Split:
    """Rows to fit and rows to judge by.

    Args:
        x: Training rows with shape ``(n, p)``.
        y: Their targets with shape ``(n,)``.
        new: Test rows.
        target: Their targets.
        seed: The number of the split, and the seed of the fit.
    """

    x: Floats
    y: Floats
    new: Floats
    target: Floats
    seed: int


#: From a split and the settings to what is reported.
Method = Callable[[Split, UciSettings], Row]

#: Midpoints of ten equal parts of probability; the first and the last end the interval of .9.
_LEVELS = np.arange(0.05, 1, 0.1)

#: Above this many rows a network is wider and sees larger batches, as the estimator's are.
_SMALL = 3000


def is_installed(method: str) -> bool:
    """Whether a method's library is there; most need none."""
    return method not in LIBRARIES or find_spec(LIBRARIES[method]) is not None


def score_estimator(model: ConditionalDensityEstimator, split: Split) -> Row:
    """Return what is reported of a fitted model, on the split's test rows."""
    x, y = split.new, split.target
    inside = model.predict_interval(x, 0.9)
    row: Row = {
        "nll": -model.score(x, y),
        "crps": float(np.mean(model.crps(x, y))),
        "coverage": float(((y >= inside[:, 0]) & (y <= inside[:, 1])).mean()),
        "rmse": float(np.sqrt(np.mean((model.predict(x) - y) ** 2))),
        "floor_deviation": float(np.sqrt(model.variance_floor_[0])),
    }
    if _takes_integers(y):
        # The probability of the interval that rounds to the target: no spike can win here.
        mass = model.cdf(x, y + 0.5) - model.cdf(x, y - 0.5)
        row["integer_nll"] = -float(np.log(np.maximum(mass, 1e-300)).mean())
    return row


def _takes_integers(y: Floats) -> bool:
    grid = np.unique(y)
    return len(grid) < 20 and np.allclose(grid, grid.round())


def _estimator(effort: str) -> Method:
    def measure(split: Split, settings: UciSettings) -> Row:
        model = ConditionalDensityEstimator(
            effort=effort, max_epochs=settings.max_epochs, random_state=split.seed
        )
        return score_estimator(model.fit(split.x, split.y), split)

    return measure


def _network(split: Split, settings: UciSettings) -> Row:
    """A plain mixture density network: one member, no embedding, stopped on a tenth."""
    x, y = split.x, split.y
    columns, targets = Columns.learn(columns_of_array(x)), Targets.learn(y[:, None], None)
    rows = Rows(
        torch.from_numpy(columns.read(columns_of_array(x))).float(),
        torch.from_numpy(targets.standardise(y[:, None])).float(),
        torch.ones(len(x)),
    )
    small = len(x) <= _SMALL
    batch, passes = (64, settings.max_epochs or 300) if small else (256, settings.max_epochs or 140)
    recipe = Recipe(
        folds=10,
        repeats=1,
        width=64 if small else 128,
        batch=batch,
        steps=max(1, min(8000, passes * (len(x) * 9 // 10 // batch))),
        bins=0,
    )
    floor = torch.from_numpy(targets.floor).float()
    ensemble, _ = fit_ensemble(rows, recipe, floor, torch.Generator().manual_seed(split.seed))
    model = ConditionalDensityEstimator()
    model.columns_, model.targets_ = columns, targets
    model.model_ = Ensemble(ensemble.embedding, [w[:1] for w in ensemble.weights], floor)
    model.n_targets_, model.n_features_in_ = 1, x.shape[1]
    model.variance_floor_ = targets.floor * targets.scale**2
    return score_estimator(model, split)


def _of_gaussians(mean: Floats, deviation: Floats, target: Floats) -> Row:
    from scipy.stats import norm

    z = (target - mean) / deviation
    crps = deviation * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / math.sqrt(math.pi))
    return {
        "nll": -float(np.mean(norm.logpdf(target, mean, deviation))),
        "crps": float(np.mean(crps)),
        "coverage": float((np.abs(z) <= norm.ppf(0.95)).mean()),
        "rmse": float(np.sqrt(np.mean((mean - target) ** 2))),
    }


def _process(split: Split, settings: UciSettings) -> Row:
    """scikit-learn's Gaussian process with a length for every column, on some of the rows."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.preprocessing import StandardScaler

    x, y = split.x, split.y
    scaler = StandardScaler().fit(x)
    few = np.random.default_rng(split.seed).permutation(len(x))[: settings.process_rows]
    kernel = ConstantKernel() * RBF(np.ones(x.shape[1]), (1e-2, 1e3)) + WhiteKernel(0.1)
    model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=split.seed)
    mean, deviation = model.fit(scaler.transform(x[few]), y[few]).predict(
        scaler.transform(split.new), return_std=True
    )
    return _of_gaussians(mean, deviation, split.target)


def _boosting(split: Split, settings: UciSettings) -> Row:
    """Histogram gradient boosting with one deviation, that of its held-out residuals."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.model_selection import KFold, cross_val_predict

    del settings  # it has its own number of trees
    model = HistGradientBoostingRegressor(random_state=split.seed)
    folds = KFold(10, shuffle=True, random_state=split.seed)
    held = cross_val_predict(model, split.x, split.y, cv=folds)
    mean = model.fit(split.x, split.y).predict(split.new)
    deviation = np.full(len(split.new), np.sqrt(np.mean((held - split.y) ** 2)))
    return _of_gaussians(mean, deviation, split.target)


def _ngboost(split: Split, settings: UciSettings) -> Row:
    """Natural gradient boosting with its defaults, stopped on a tenth of the rows."""
    from ngboost import NGBRegressor
    from sklearn.model_selection import train_test_split

    del settings  # it stops by itself
    a, b, c, d = train_test_split(split.x, split.y, test_size=0.1, random_state=split.seed)
    model = NGBRegressor(n_estimators=2000, verbose=False, random_state=split.seed)
    fitted: Any = model.fit(a, c, X_val=b, Y_val=d, early_stopping_rounds=50).pred_dist(split.new)
    return _of_gaussians(np.asarray(fitted.loc), np.asarray(fitted.scale), split.target)


def _of_quantiles(quantiles: Floats, mean: Floats, target: Floats) -> Row:
    """Return what quantiles at ``_LEVELS`` say, with shape ``(n, 10)``; they have no density."""
    q = np.sort(quantiles, axis=1)  # trees for one level each may cross
    error = target[:, None] - q
    pinball = np.maximum(_LEVELS * error, (_LEVELS - 1) * error)
    return {
        # The integral over all levels, by the midpoints of ten parts.
        "crps": 2 * float(pinball.mean()),
        "coverage": float(((target >= q[:, 0]) & (target <= q[:, -1])).mean()),
        "rmse": float(np.sqrt(np.mean((mean - target) ** 2))),
    }


def _quantiles(split: Split, settings: UciSettings) -> Row:
    """Histogram gradient boosting, fitted once for each of ten quantiles."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    del settings  # it has its own number of trees
    found = [
        HistGradientBoostingRegressor(loss="quantile", quantile=level, random_state=split.seed)
        .fit(split.x, split.y)
        .predict(split.new)
        for level in _LEVELS
    ]
    quantiles = np.stack(found, axis=1)
    return _of_quantiles(quantiles, quantiles.mean(1), split.target)


def _forest(split: Split, settings: UciSettings) -> Row:
    """A quantile regression forest of 500 trees, with the library's own defaults."""
    from quantile_forest import RandomForestQuantileRegressor

    del settings
    forest = RandomForestQuantileRegressor(500, random_state=split.seed).fit(split.x, split.y)
    quantiles = np.asarray(forest.predict(split.new, quantiles=_LEVELS.tolist()))
    return _of_quantiles(quantiles, quantiles.mean(1), split.target)


#: Methods that need a library of their own, which may not be there.
LIBRARIES = {"ngboost": "ngboost", "forest": "quantile_forest"}

METHODS: dict[str, tuple[str, Method]] = {
    "default": ("default", _estimator("default")),
    "high": ('effort="high"', _estimator("high")),
    "network": ("plain mixture density network", _network),
    "process": ("GaussianProcessRegressor", _process),
    "boosting": ("HistGradientBoosting, one deviation", _boosting),
    "quantiles": ("HistGradientBoosting, ten quantiles", _quantiles),
    "forest": ("quantile regression forest", _forest),
    "ngboost": ("NGBoost", _ngboost),
}


def measure(method: str, split: Split, settings: UciSettings) -> Row:
    """Fit a method and return what is reported; the libraries' own notices are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return METHODS[method][1](split, settings)
