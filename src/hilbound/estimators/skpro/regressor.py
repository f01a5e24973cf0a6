"""Conditional densities by skpro's rules."""

from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from skpro.regression.base import BaseProbaRegressor

from hilbound.estimators.conditional import ConditionalDensityEstimator
from hilbound.estimators.skpro.distribution import PredictedMixture


class ConditionalDensityRegressor(BaseProbaRegressor):  # type: ignore[misc]
    """A :class:`~hilbound.estimators.ConditionalDensityEstimator` that speaks skpro.

    Means, variances, quantiles and intervals are read off the distribution that
    ``predict_proba`` returns, so that they always agree with each other.

    Args:
        effort: ``"default"``, or ``"high"`` for a weighted mixture of several kinds of models.
        n_components: Gaussians of each network.
        n_folds: Parts of the rows, of which each network holds out one; chosen by the number of
            rows if ``None``.
        max_epochs: Most passes over the rows; chosen by their number if ``None``.
        variance_floor: The least variance of a Gaussian in the squared units of the target; chosen
            by the target if ``None``.
        handle_unknown: What to do with a text that was not there in ``fit``: refuse it
            (``"error"``) or treat it as missing (``"missing"``).
        random_state: A seed with which results repeat bit for bit.
        verbose: 1 for a progress bar.

    Attributes:
        estimator_: The fitted estimator, which offers scores, samples and ``save`` as well.

    >>> import pandas as pd
    >>> from hilbound.estimators.skpro import ConditionalDensityRegressor
    >>> X = pd.DataFrame({"x": [i / 30 - 1 for i in range(60)]})
    >>> y = pd.DataFrame({"y": X["x"] ** 2})
    >>> model = ConditionalDensityRegressor(max_epochs=20, random_state=0).fit(X, y)
    >>> model.predict_proba(X).shape, model.predict_interval(X, coverage=0.9).shape
    ((60, 1), (60, 2))
    """

    _tags: ClassVar[dict[str, Any]] = {
        "capability:multioutput": True,
        "capability:missing": True,
        "X_inner_mtype": "pd_DataFrame_Table",
        "y_inner_mtype": "pd_DataFrame_Table",
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
        super().__init__()

    def _fit(self, X: pd.DataFrame, y: pd.DataFrame) -> Self:
        estimator = ConditionalDensityEstimator(**self.get_params(deep=False))
        self.estimator_ = estimator.fit(_with_texts_for_names(X), y)
        return self

    def _predict_proba(self, X: pd.DataFrame) -> PredictedMixture:
        q = self.estimator_.predict_distribution(_with_texts_for_names(X))
        return PredictedMixture(q, index=X.index, columns=self._get_columns())

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:  # noqa: ARG003 - skpro's signature
        """Return parameters with which skpro's checks take seconds."""
        return [
            {"n_folds": 2, "max_epochs": 2, "random_state": 0},
            {"n_folds": 2, "max_epochs": 2, "n_components": 1, "handle_unknown": "missing"},
        ]


def _with_texts_for_names(X: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose columns have texts for names: scikit-learn takes no mixture of types."""
    return X.set_axis(X.columns.map(str), axis=1)
