r"""Densities :math:`p(y \mid x)` of a table's target, by scikit-learn's rules.

The prediction for a row is one Gaussian mixture in the target's own units. Means, quantiles,
intervals, samples and scores are read off it, so that they always agree with each other.
"""

from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from hilbound.errors import InputError
from hilbound.estimators import predictions
from hilbound.estimators.columns import Columns, NumberReader, TextReader
from hilbound.estimators.experts.boosting import Booster, Boosters
from hilbound.estimators.experts.embedding import Embedding
from hilbound.estimators.experts.ensemble import Ensemble
from hilbound.estimators.experts.processes import Process, Processes
from hilbound.estimators.experts.recipes import fit_default, fit_high, plan
from hilbound.estimators.experts.rows import Rows
from hilbound.estimators.experts.stacking import Expert, Stack
from hilbound.estimators.experts.targets import Targets
from hilbound.estimators.experts.trees import Trees
from hilbound.estimators.experts.warping import Bend, WarpedProcess
from hilbound.estimators.frames import Column, Floats
from hilbound.estimators.reading import read_table, read_targets, read_weights
from hilbound.estimators.storage import read_state, restoring, write_state
from hilbound.evaluation import calibration
from hilbound.mixture import GaussianMixture

_PARTS = (
    *(Columns, NumberReader, TextReader, Targets, Ensemble, Embedding, Stack),
    *(Process, Processes, Bend, WarpedProcess, Trees, Booster, Boosters),
)


class ConditionalDensityEstimator(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    r"""The density of one or several targets given the other columns of a table.

    Mixture density networks with piecewise-linear embeddings are trained side by side. Each holds
    out a part of the rows; all stop where they predict these best, and are mixed equally.

    Missing values are used as they are: a flag says where one was, and the column's median stands
    for it. Texts and categories become indicators. Dates are refused.

    Args:
        effort: ``"default"``, or ``"high"`` for a weighted mixture of several kinds of models.
        n_components: Gaussians of each network.
        n_folds: Parts of the rows, of which each network holds out one; chosen by the number of
            rows if ``None``.
        max_epochs: Most passes over the rows; chosen by their number if ``None``.
        variance_floor: The least variance of a Gaussian in the squared units of the target. If
            ``None``, a millionth of the target's variance; where the target takes few distinct
            values, that of rounding to their median gap.
        handle_unknown: What to do with a text that was not there in ``fit``: refuse it
            (``"error"``) or treat it as missing (``"missing"``).
        random_state: A seed with which results repeat bit for bit.
        verbose: 1 for a progress bar.

    Attributes:
        n_features_in_: The number of columns.
        feature_names_in_: Their names, if ``X`` was a data frame with texts for names.
        n_targets_: The number of targets.
        variance_floor_: The least variance used, with shape ``(n_targets,)``.
        held_out_score_: The mean log density of training rows by the networks that held them out.

    >>> import numpy as np
    >>> X = np.linspace(-1, 1, 60)[:, None]
    >>> y = X[:, 0] + 0.1 * np.sin(40 * X[:, 0])
    >>> model = ConditionalDensityEstimator(max_epochs=60, random_state=0).fit(X, y)
    >>> model.predict_interval(X, coverage=0.9).shape, model.score(X, y) > 0
    ((60, 2), True)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "effort": [StrOptions({"default", "high"})],
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "n_folds": [Interval(Integral, 2, None, closed="left"), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left"), None],
        "variance_floor": [Interval(Real, 0, None, closed="neither"), None],
        "handle_unknown": [StrOptions({"error", "missing"})],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        effort: str = "default",
        n_components: int = 3,
        n_folds: int | None = None,
        max_epochs: int | None = None,
        variance_floor: float | None = None,
        handle_unknown: str = "error",
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.effort = effort
        self.n_components = n_components
        self.n_folds = n_folds
        self.max_epochs = max_epochs
        self.variance_floor = variance_floor
        self.handle_unknown = handle_unknown
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the density from rows.

        Args:
            X: A data frame or array with shape ``(n, p)``.
            y: Targets with shape ``(n,)`` or ``(n, n_targets)``.
            sample_weight: Weights of the rows, with shape ``(n,)``; rows of weight zero are left
                out.

        Raises:
            InputError: If a column, the target or an argument cannot be used.
        """
        self._validate_params()
        table = read_table(self, X, reset=True)
        targets = read_targets(y)
        check_consistent_length(X, targets)
        weight = read_weights(sample_weight, len(targets))
        used = weight > 0
        table, targets, weight = [c.take(used) for c in table], targets[used], weight[used]
        recipe = plan(len(targets), self.n_components, self.n_folds, self.max_epochs)
        self.targets_ = Targets.learn(targets, self.variance_floor)
        self.columns_ = Columns.learn(table, refuse=self.handle_unknown == "error")
        rows = Rows(
            torch.from_numpy(self.columns_.read(table)).float(),
            torch.from_numpy(self.targets_.standardise(targets)).float(),
            torch.from_numpy(weight / weight.mean()).float(),
        )
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        floor = torch.from_numpy(self.targets_.floor).float()
        fit = fit_high if self.effort == "high" else fit_default
        self.model_: Expert
        self.model_, held_out = fit(rows, recipe, floor, seed=seed, shown=self.verbose > 0)
        log_density = held_out.log_prob(rows.y.to(held_out.means)) * rows.weight
        self.held_out_score_ = float(log_density.mean()) - self.targets_.log_jacobian
        self.n_targets_ = targets.shape[1]
        self.variance_floor_ = self.targets_.floor * self.targets_.scale**2
        return self

    def predict_distribution(self, X: ArrayLike) -> GaussianMixture:
        """Return one mixture for each row, with batch shape ``(n,)``, in the target's units.

        Args:
            X: Rows with the columns of ``fit``.

        Raises:
            InputError: If the columns are not those of ``fit``.
        """
        check_is_fitted(self)
        return self._predict_columns(read_table(self, X, reset=False))

    def _predict_columns(self, table: list[Column]) -> GaussianMixture:
        x = torch.from_numpy(self.columns_.read(table))
        return self.targets_.in_users_units(self.model_.predict(x))

    def predict(self, X: ArrayLike) -> Floats:
        """Return the means, with shape ``(n,)`` or ``(n, n_targets)``."""
        return self._for_one_target(self.predict_distribution(X).mean.numpy())

    def predict_quantiles(self, X: ArrayLike, alpha: ArrayLike = (0.05, 0.5, 0.95)) -> Floats:
        """Return quantiles, of every target by itself.

        Args:
            X: Rows with the columns of ``fit``.
            alpha: Probabilities between 0 and 1, in any order.

        Returns:
            Quantiles with shape ``(n, len(alpha))``, or ``(n, len(alpha), n_targets)`` for
            several targets.

        Raises:
            InputError: If a probability is not between 0 and 1.
        """
        levels = np.array(alpha, dtype=np.float64, ndmin=1)
        if levels.ndim > 1 or not ((levels > 0) & (levels < 1)).all():
            raise InputError(
                f"alpha must be probabilities between 0 and 1 (both excluded), got {alpha!r}"
            )
        q = self.predict_distribution(X)
        return self._for_one_target(predictions.quantiles(q, levels))

    def predict_interval(self, X: ArrayLike, coverage: float = 0.9) -> Floats:
        """Return intervals with as much probability below them as above.

        Args:
            X: Rows with the columns of ``fit``.
            coverage: The probability inside.

        Returns:
            Lower and upper ends with shape ``(n, 2)``, or ``(n, 2, n_targets)``.

        Raises:
            InputError: If the coverage is not between 0 and 1.
        """
        if not 0 < coverage < 1:
            raise InputError(
                f"coverage must be a probability between 0 and 1 (both excluded), got {coverage!r}"
            )
        return self.predict_quantiles(X, [0.5 - 0.5 * coverage, 0.5 + 0.5 * coverage])

    def score_samples(self, X: ArrayLike, y: ArrayLike | None = None) -> Floats:
        r"""Return the log density of every row's targets, in their units, with shape ``(n,)``.

        Args:
            X: Rows with the columns of ``fit``.
            y: Their targets. Without them, what the model itself expects is returned: the
                logarithm of the mean density, :math:`\log \int q(y \mid x)^2 dy`.
        """
        if y is None:
            expected: Floats = self.predict_distribution(X).log_norm().numpy()
            return expected
        q, targets = self._predicted(X, y)
        return calibration.log_scores(q, targets)

    def score(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean of :meth:`score_samples`; higher is better."""
        scores = self.score_samples(X, y)
        return float(np.average(scores, weights=read_weights(sample_weight, len(scores))))

    def cdf(self, X: ArrayLike, y: ArrayLike) -> Floats:
        """Return the probability of values no larger than ``y``, of every target by itself.

        The shape is ``(n,)``, or ``(n, n_targets)`` for several targets.
        """
        return self._for_one_target(calibration.pit_values(*self._predicted(X, y)))

    def crps(self, X: ArrayLike, y: ArrayLike) -> Floats:
        """Return the continuous ranked probability scores, in the targets' units; lower is better.

        The shape is ``(n,)``, or ``(n, n_targets)`` for several targets.
        """
        return self._for_one_target(calibration.crps(*self._predicted(X, y)))

    def sample(
        self,
        X: ArrayLike,
        n_samples: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> Floats:
        """Draw targets for every row.

        Args:
            X: Rows with the columns of ``fit``.
            n_samples: Draws for each row.
            random_state: A seed; the estimator's own if ``None``.

        Returns:
            Targets with shape ``(n, n_samples, n_targets)``.

        Raises:
            InputError: If ``n_samples`` is not a positive whole number.
        """
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise InputError(f"n_samples must be a whole number from 1, got {n_samples!r}")
        q = self.predict_distribution(X)
        state = check_random_state(self.random_state if random_state is None else random_state)
        generator = torch.Generator().manual_seed(int(state.randint(np.iinfo(np.int32).max)))
        return predictions.draws(q, int(n_samples), generator)

    def save(self, path: str | Path) -> None:
        """Write the fitted model to one file of safetensors and JSON, which holds no code.

        Args:
            path: The file; its folder must be there.
        """
        check_is_fitted(self)
        names = getattr(self, "feature_names_in_", None)
        seed = self.random_state if isinstance(self.random_state, Integral) else None
        learned = {k: v for k, v in vars(self).items() if k.endswith("_") and k[0] != "_"}
        learned["feature_names_in_"] = None if names is None else [str(name) for name in names]
        params = {**self.get_params(), "random_state": seed}
        write_state(path, {"params": params, "learned": learned})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the model that :meth:`save` has written.

        Args:
            path: The file.

        Raises:
            DataError: If it is not such a file, or is damaged.
        """
        state = read_state(path, _PARTS)
        with restoring(path):
            model = cls(**state["params"])
            for name, value in state["learned"].items():
                if not (name.endswith("_") and name[0] != "_" and name.isidentifier()):
                    raise ValueError(f"{name!r} is nothing that is learned")
                if name != "feature_names_in_":
                    setattr(model, name, value)
                elif value is not None:
                    model.feature_names_in_ = np.asarray(value, dtype=object)
            # A state that fits together can predict a row in which everything is missing.
            model._probe()
        return model

    def _probe(self) -> None:
        """Predict one row without values."""
        cells = [
            Column(reader.name, numbers=np.array([np.nan]))
            if isinstance(reader, NumberReader)
            else Column(reader.name, texts=[None])
            for reader in self.columns_.readers
        ]
        self._predict_columns(cells)

    def _predicted(self, X: ArrayLike, y: ArrayLike) -> tuple[GaussianMixture, Floats]:
        check_is_fitted(self)
        targets = read_targets(y)
        check_consistent_length(X, targets)
        if targets.shape[1] != self.n_targets_:
            raise InputError(
                f"y has {targets.shape[1]} targets, but the model was fitted with "
                f"{self.n_targets_}: give the same ones in the same order"
            )
        return self.predict_distribution(X), targets

    def _for_one_target(self, values: NDArray[np.float64]) -> Floats:
        """Drop the last axis if there is only one target."""
        return values[..., 0] if self.n_targets_ == 1 else values

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        # The tag speaks of a coefficient of determination; a log density has no such range.
        tags.regressor_tags.poor_score = True
        return tags
