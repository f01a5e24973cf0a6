"""Density estimation for tables, with scikit-learn's manners."""

import os
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin, _fit_context
from sklearn.utils import Tags, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from hilbound.bounds import Bound
from hilbound.engine.expectation.components import (
    Components,
    blur,
    draw,
    log_density,
    log_inner,
    log_norm,
)
from hilbound.errors import InputError
from hilbound.estimators.mixtures.fitting import Fit, Task, count_stages, fit
from hilbound.estimators.mixtures.joined import as_mixture
from hilbound.estimators.mixtures.kernels import kernel_components
from hilbound.estimators.mixtures.polish import COSTS
from hilbound.estimators.mixtures.scaling import standardisation
from hilbound.estimators.progress import progress_bar
from hilbound.estimators.reading import read_numbers
from hilbound.estimators.storage import (
    facts_of,
    probe,
    read_standardised,
    restoring,
    write_estimator,
)
from hilbound.mixture import FullGaussianMixture, GaussianMixture

_DIAGONAL_ONLY = ("vector", "nuclear")


class MixtureDensityEstimator(DensityMixin, BaseEstimator):  # type: ignore[misc]  # no annotations there
    r"""The density of a table's rows, as a Gaussian mixture.

    By default the mixture is an average of many, weighted by how well each predicts held-out rows:

    - mixtures with full covariances and mixtures with variances. A search finds their number of
      components and their regularisation. Each is fitted once for every part of the rows that is
      held out;
    - kernel estimates with one covariance around every row.

    Rows that share values exactly, such as zeros, may get components of their own. With
    ``n_components`` or another objective the mixture is a single one.

    Missing values (NaN) are integrated out, in ``fit`` and in ``score_samples``; nothing is
    imputed. Columns are standardised inside, and everything that comes out is in their own units. A
    constant column keeps the scale one.

    **Discrete columns.** A density has no probability at single points. Around values that repeat
    exactly, components become as narrow as ``min_variance`` allows, and the log density of such
    rows depends on it. To compare two models of such a table, give both the same least variance.

    Args:
        n_components: The number of components of a single mixture; fewer where there are fewer
            distinct rows. The default chooses on held-out rows.
        covariance: ``"full"`` or ``"diagonal"`` covariances; ``"auto"`` lets held-out rows decide.
        objective: ``"likelihood"``, or what a single mixture climbs by gradient after that:
            ``"scalar"``, the cost :math:`\langle p, q \rangle^2 / \langle q, q \rangle`;
            ``"vector"`` or ``"nuclear"``, with diagonal covariances only. Held-out rows say how
            many steps help; there may be none. Rows with gaps take no part in these steps.
        min_variance: The least variance of a component in any direction, as a share of the
            variance of the columns.
        random_state: A seed, for results that repeat bit for bit.
        verbose: 1 for a progress bar.

    Attributes:
        n_components_: The number of components of ``mixture_``.
        members_: What was averaged, by name, with its weight.
        location_: The mean of every column, with shape ``(d,)``.
        scale_: The standard deviation of every column, with shape ``(d,)``; one for constant ones.
        polish_steps_: The number of gradient steps that held-out rows approved of.
        n_features_in_: The number of columns.
        feature_names_in_: Their names, where the table has any.

    >>> x = np.random.RandomState(0).normal(5, 2, (200, 2))
    >>> estimator = MixtureDensityEstimator(1, random_state=0).fit(x)
    >>> estimator.mixture_.mean.round()
    tensor([5., 5.], dtype=torch.float64)
    >>> estimator.condition([0], [[4.0], [6.0]]).variance.round()
    tensor([[4.],
            [4.]], dtype=torch.float64)
    >>> estimator.score_samples([[5.0, 5.0], [np.nan, 5.0]]).round(1)
    array([-3.3, -1.6])
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "covariance": [StrOptions({"auto", "full", "diagonal"})],
        "objective": [StrOptions({"likelihood", *COSTS})],
        "min_variance": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_components: int | None = None,
        *,
        covariance: str = "auto",
        objective: str = "likelihood",
        min_variance: float = 1e-6,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.covariance = covariance
        self.objective = objective
        self.min_variance = min_variance
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit the mixture.

        Args:
            X: Rows with shape ``(n, d)``; a missing value is NaN.
            y: Not used.

        Raises:
            InputError: If a column has no value at all or no numbers, or an objective cannot be
                had with full covariances.
        """
        shapes = self._shapes()
        table = read_numbers(self, X, reset=True, gaps=True)
        if table.shape[1] == 1:  # where both are the same
            shapes = shapes[-1:]
        self._check_columns(table)
        self.location_, self.scale_ = standardisation(table)
        task = Task(
            shapes=shapes,
            count=self.n_components,
            cost=None if self.objective == "likelihood" else COSTS[self.objective],
            min_variance=self.min_variance,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )
        rows = torch.from_numpy((table - self.location_) / self.scale_)
        with progress_bar("fitting", count_stages(task), shown=self.verbose > 0) as advance:
            self._take(fit(rows, task, advance))
        return self

    def _shapes(self) -> tuple[bool, ...]:
        if self.objective in _DIAGONAL_ONLY:
            if self.covariance == "full":
                raise InputError(
                    f"objective={self.objective!r} is for diagonal covariances, got "
                    "covariance='full': use covariance='diagonal', or objective='scalar'"
                )
            return (False,)
        return {"auto": (True, False), "full": (True,), "diagonal": (False,)}[self.covariance]

    def _check_columns(self, table: NDArray[np.float64]) -> None:
        empty = np.flatnonzero(np.isnan(table).all(0))
        if len(empty):
            names = ", ".join(self._name(int(column)) for column in empty)
            raise InputError(
                f"X must have a value in every column, got only missing ones in {names}: drop "
                "what has no value"
            )

    def _name(self, column: int) -> str:
        names = getattr(self, "feature_names_in_", None)
        return f"column {column}" if names is None else f"column {names[column]!r}"

    def _take(self, result: Fit) -> None:
        self._parts = result.parts
        self._held_back: Fit | None = result
        self._bound: Bound | None = None
        self.n_components_ = sum(len(c.means) for c in result.parts)
        self.members_ = result.members
        self.polish_steps_ = result.ascent.steps if result.ascent else 0

    @property
    def mixture_(self) -> GaussianMixture | FullGaussianMixture:
        """The mixture in the columns' own units, in float64; built anew whenever it is asked for.

        With covariances it holds one matrix for every component: ``n_components_ * d * d`` numbers.
        """
        check_is_fitted(self)
        shift, scale = torch.from_numpy(self.location_), torch.from_numpy(self.scale_)
        return as_mixture([c.in_units(shift, scale) for c in self._parts])

    @property
    def bound_(self) -> Bound | None:
        r"""The scalar cost against its limit, on held-out rows, in standardised units.

        The data's mixture p has a kernel around every held-out row without gaps, up to 500 of them.
        Its variance was fitted by leaving each row out in turn. q is the mixture as it was fitted
        without these rows, blurred by the same variance. None if every held-out row has a gap.
        Computed when first asked for.
        """
        check_is_fitted(self)
        if self._bound is None and self._held_back is not None and len(self._held_back.held_out):
            self._bound = _bound(self._held_back)
        return self._bound

    def score_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return log densities with shape ``(n,)``, in nats and in the columns' own units.

        Where values are missing it is the density of the others; of a row without any, zero.
        """
        check_is_fitted(self)
        table = read_numbers(self, X, reset=False, gaps=True)
        z = torch.from_numpy((table - self.location_) / self.scale_)
        # A missing coordinate has no density, hence no factor of its scale either.
        jacobian = (~np.isnan(table)) @ np.log(self.scale_)
        densities: NDArray[np.float64] = log_density(self._parts, z).numpy() - jacobian
        return densities

    def score(self, X: ArrayLike, y: object = None) -> float:
        """Return the mean of :meth:`score_samples`; higher is better."""
        return float(self.score_samples(X).mean())

    def sample(
        self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None
    ) -> NDArray[np.float64]:
        """Draw rows with shape ``(n_samples, d)``.

        Args:
            n_samples: The number of rows, at least one.
            random_state: A seed; the estimator's own ``random_state`` by default.

        Raises:
            InputError: If ``n_samples`` is not a whole number above zero.
        """
        check_is_fitted(self)
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise InputError(f"n_samples must be a whole number above zero, got {n_samples!r}")
        chance = check_random_state(self.random_state if random_state is None else random_state)
        generator = torch.Generator().manual_seed(int(chance.randint(2**31 - 1)))
        rows: NDArray[np.float64] = draw(self._parts, int(n_samples), generator).numpy()
        return self.location_ + self.scale_ * rows

    def marginal(self, columns: Sequence[int | str]) -> GaussianMixture | FullGaussianMixture:
        """Return the distribution of some columns, in the order given.

        Args:
            columns: Names, or positions; negative ones count from the end.

        Raises:
            InputError: If there are none, one is unknown, or one comes twice.
        """
        return self.mixture_.marginal(self._positions(columns))

    def condition(
        self, columns: Sequence[int | str], values: ArrayLike
    ) -> GaussianMixture | FullGaussianMixture:
        """Return the distribution of the other columns where some are known.

        Args:
            columns: Names, or positions; negative ones count from the end.
            values: Their values with shape ``(len(columns),)``, or ``(m, len(columns))`` for m
                distributions at once.

        Raises:
            InputError: If a column is unknown or comes twice, no column is left, a value is not
                finite, or the shapes do not fit.
        """
        positions = self._positions(columns)
        given = np.asarray(values, dtype=np.float64)
        if not np.isfinite(given).all():
            raise InputError(
                "values must be finite, got NaN or infinite ones: leave out the columns that are "
                "not known"
            )
        return self.mixture_.condition(positions, torch.from_numpy(given.copy()))

    def _positions(self, columns: Sequence[int | str]) -> list[int]:
        check_is_fitted(self)
        if isinstance(columns, str | Integral):
            raise InputError(
                f"columns must be a list of names or positions, got {columns!r}: "
                f"write [{columns!r}]"
            )
        return [self._position(column) for column in columns]

    def _position(self, column: int | str) -> int:
        names = list(getattr(self, "feature_names_in_", []))
        if isinstance(column, str):
            if column in names:
                return names.index(column)
            known = (
                f"one of {', '.join(map(repr, names))}" if names else "a position: X had no names"
            )
            raise InputError(f"columns must be known, got {column!r}: give {known}")
        if (
            not isinstance(column, Integral)
            or not -self.n_features_in_ <= column < self.n_features_in_
        ):
            raise InputError(
                f"columns must be names, or positions from 0 to {self.n_features_in_ - 1}, "
                f"got {column!r}"
            )
        return int(column) % self.n_features_in_

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one safetensors file, without pickle.

        Args:
            path: The file, such as ``"density.safetensors"``.

        Raises:
            InputError: If the folder of the file is not there.
        """
        check_is_fitted(self)
        arrays: dict[str, Tensor | NDArray[Any]] = {
            "location": self.location_,
            "scale": self.scale_,
        }
        for number, c in enumerate(self._parts):
            arrays[f"means.{number}"] = c.means
            arrays[f"spread.{number}"] = c.spread
            arrays[f"log_weights.{number}"] = c.log_weights
        write_estimator(path, arrays, self._facts())

    def _facts(self) -> dict[str, Any]:
        bound = self.bound_
        return {
            **facts_of(self),
            "members": self.members_,
            "polish_steps": self.polish_steps_,
            "parts": len(self._parts),
            "bound": bound and [float(bound.log_value), float(bound.log_limit)],
        }

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an estimator that :meth:`save` wrote.

        Raises:
            DataError: If the file is missing, broken, or holds something else.
        """
        estimator, arrays, facts = read_standardised(cls, path)
        with restoring(path):
            keys = ("means", "spread", "log_weights")
            estimator._parts = [
                Components(*(arrays[f"{key}.{number}"] for key in keys))
                for number in range(min(facts["parts"], len(arrays)))
            ]
            estimator.n_components_ = sum(len(c.means) for c in estimator._parts)
            estimator.members_, estimator.polish_steps_ = facts["members"], facts["polish_steps"]
            numbers = facts["bound"]
            estimator._bound = (
                Bound(*torch.tensor(numbers, dtype=torch.float64)) if numbers else None
            )
            estimator._held_back = None
            # A state that fits together can tell the density at its middle.
            estimator.score_samples(probe(estimator))
        return estimator


def _bound(result: Fit) -> Bound:
    x = result.held_out
    p = [kernel_components(x, x.new_full((x.shape[1],), result.variance))]
    q = [blur(c, result.variance) for c in result.blind]
    return Bound(2 * log_inner(p, q) - log_norm(q), log_norm(p))
