"""Features of a table's rows, and many reconstructions from each."""

import math
import os
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from hilbound.bounds import Bound, conditional_bound
from hilbound.errors import InputError
from hilbound.estimators.coder import Coder, Schedule, train
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
from hilbound.mixture import GaussianMixture

_HELD_OUT = 10  # one row in so many
_MEDIAN_ROWS = 500
_SHARE = 0.05  # of the median squared distance: the variance of the kernel
_WIDE_SHARE = 0.2  # the same, for the first step


class MixtureAutoencoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]  # no annotations there
    r"""A few features of every row, and a mixture of rows for every feature.

    An encoder gives features y; a decoder gives the centres of a mixture q(x|y), one for each draw
    of noise. Both are small networks that maximise the conditional cost

    .. math:: \frac{\big( E_y \langle p(\cdot|y), q(\cdot|y) \rangle \big)^2}
        {E_y \langle q(\cdot|y), q(\cdot|y) \rangle} \le E_y |p(\cdot|y)|^2,

    under which rows that share features may have different reconstructions. With one centre it is
    a plain autoencoder. Columns are standardised inside; reconstructions are in their own units.

    Args:
        n_features: The number of features.
        n_centres: The number of centres that a feature is decoded to.
        objective: ``"scalar"``, the cost above, or ``"trace"``, the mean overlap of a row with its
            one reconstruction.
        variance: Variance of the kernel around rows and centres, in squared units of the
            standardised columns. The default is a twentieth of the median squared distance.
        feature_variance: Variance of the noise of the features, whose own variance is one.
        max_steps: The number of gradient steps.
        batch_size: The number of rows of one.
        learning_rate: The largest learning rate.
        random_state: A seed, for results that repeat bit for bit.
        verbose: 1 for a progress bar.

    Attributes:
        bound_: The conditional cost against its limit, on a tenth of the rows that took no part in
            training; in squared units of the standardised columns. None for less than 20 rows.
        variance_: The variance of the kernel.
        location_: The mean of every column, with shape ``(d,)``.
        scale_: The standard deviation of every column, with shape ``(d,)``; one for constant ones.
        n_features_in_: The number of columns.
        feature_names_in_: Their names, where the table has any.

    References:
        Contrastive Entropy Bounds for Density and Conditional Density Decomposition (Hu and
        Principe, 2025, arXiv 2511.12903).

    >>> x = np.random.RandomState(0).normal(size=(100, 3))
    >>> coder = MixtureAutoencoder(n_features=1, max_steps=20, random_state=0).fit(x)
    >>> coder.transform(x).shape, coder.reconstruct(x, 5).shape
    ((100, 1), (100, 5, 3))
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_features": [Interval(Integral, 1, None, closed="left")],
        "n_centres": [Interval(Integral, 1, None, closed="left")],
        "objective": [StrOptions({"scalar", "trace"})],
        "variance": [Interval(Real, 0, None, closed="neither"), None],
        "feature_variance": [Interval(Real, 0, None, closed="neither")],
        "max_steps": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        n_features: int = 2,
        *,
        n_centres: int = 8,
        objective: str = "scalar",
        variance: float | None = None,
        feature_variance: float = 0.01,
        max_steps: int = 500,
        batch_size: int = 128,
        learning_rate: float = 1e-2,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_features = n_features
        self.n_centres = n_centres
        self.objective = objective
        self.variance = variance
        self.feature_variance = feature_variance
        self.max_steps = max_steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Train encoder and decoder.

        Args:
            X: Rows with shape ``(n, d)``, nothing missing.
            y: Not used.

        Raises:
            InputError: If a column holds no numbers, or the objective does not go with the number
                of centres.
        """
        if self.objective == "trace" and self.n_centres != 1:
            raise InputError(
                "objective='trace' compares each row with one reconstruction, got "
                f"n_centres={self.n_centres}: use n_centres=1, or objective='scalar'"
            )
        table = read_numbers(self, X, reset=True, gaps=False)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        generator = torch.Generator().manual_seed(seed)
        self.location_, self.scale_ = standardisation(table)
        self._train(self._standardise(table), generator)
        return self

    def _train(self, x: Tensor, generator: torch.Generator) -> None:
        held, trained = _split(x, generator)
        distance = _median_distance(trained)
        self.variance_ = float(self.variance or _SHARE * distance)
        self._coder = Coder(x.shape[1], self.n_features, generator)
        self._codes = torch.randn(
            self.n_centres, self._coder.noise_dim, generator=generator, dtype=x.dtype
        )
        schedule = Schedule(
            objective=self.objective,
            centres=self.n_centres,
            variance=self.variance_,
            widest=max(self.variance_, _WIDE_SHARE * distance),
            feature_variance=self.feature_variance,
            steps=self.max_steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
        )
        with progress_bar("fitting", self.max_steps, shown=self.verbose > 0) as advance:
            train(self._coder, trained, schedule, generator, advance)
        self.bound_ = self._bound(held, generator) if len(held) else None

    def _bound(self, x: Tensor, generator: torch.Generator) -> Bound:
        with torch.no_grad():
            features = self._coder.encode(x)
            noise = torch.randn(features.shape, generator=generator, dtype=x.dtype)
            points = features + math.sqrt(self.feature_variance) * noise
            q = GaussianMixture(self._coder.decode(points, self._codes), self.variance_)
            return conditional_bound(
                x,
                features,
                points,
                q,
                variance_p=self.variance_,
                variance_y=self.feature_variance,
            )

    @property
    def _n_features_out(self) -> int:
        """What scikit-learn names the features by."""
        return self.n_features

    def _standardise(self, table: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy((table - self.location_) / self.scale_)

    def _features(self, X: ArrayLike) -> Tensor:
        check_is_fitted(self)
        table = read_numbers(self, X, reset=False, gaps=False)
        with torch.no_grad():
            features: Tensor = self._coder.encode(self._standardise(table))
        return features

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the features without noise, with shape ``(n, n_features)``."""
        features: NDArray[np.float64] = self._features(X).numpy()
        return features

    def inverse_transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the mean of the decoder's mixture, with shape ``(n, d)``.

        Args:
            X: Features with shape ``(n, n_features)``.

        Raises:
            InputError: If there is another number of features.
        """
        check_is_fitted(self)
        features = check_array(X, dtype=np.float64)
        if features.shape[1] != self.n_features:
            raise InputError(
                f"X must have {self.n_features} columns, one for each feature, got "
                f"{features.shape[1]}: give what transform returned"
            )
        with torch.no_grad():
            centres = self._coder.decode(torch.from_numpy(features.copy()), self._codes)
        means: NDArray[np.float64] = self.location_ + self.scale_ * centres.mean(1).numpy()
        return means

    def reconstruct(
        self,
        X: ArrayLike,
        n: int = 1,
        random_state: int | np.random.RandomState | None = None,
    ) -> NDArray[np.float64]:
        """Return reconstructions of rows, one centre for each draw of noise.

        Args:
            X: Rows with shape ``(m, d)``.
            n: The number of reconstructions of each.
            random_state: A seed; the estimator's own ``random_state`` by default.

        Returns:
            Centres with shape ``(m, n, d)``.

        Raises:
            InputError: If ``n`` is not a whole number above zero.
        """
        features = self._features(X)
        if not isinstance(n, Integral) or n < 1:
            raise InputError(f"n must be a whole number above zero, got {n!r}")
        chance = check_random_state(self.random_state if random_state is None else random_state)
        generator = torch.Generator().manual_seed(int(chance.randint(2**31 - 1)))
        shape = (len(features), int(n), self._coder.noise_dim)
        noise = torch.randn(shape, generator=generator, dtype=features.dtype)
        with torch.no_grad():
            centres: NDArray[np.float64] = self._coder.decode(features, noise).numpy()
        return self.location_ + self.scale_ * centres

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to one safetensors file, without pickle.

        Args:
            path: The file, such as ``"coder.safetensors"``.

        Raises:
            InputError: If the folder of the file is not there.
        """
        check_is_fitted(self)
        arrays: dict[str, Tensor | NDArray[Any]] = {
            "location": self.location_,
            "scale": self.scale_,
            "codes": self._codes,
        }
        arrays |= {f"coder.{name}": a for name, a in self._coder.state_dict().items()}
        bound = self.bound_
        facts = {
            **facts_of(self),
            "variance": self.variance_,
            "bound": bound and [float(bound.log_value), float(bound.log_limit), bound.error],
        }
        write_estimator(path, arrays, facts)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an estimator that :meth:`save` wrote.

        Raises:
            DataError: If the file is missing, broken, or holds something else.
        """
        estimator, arrays, facts = read_standardised(cls, path)
        with restoring(path):
            estimator.variance_, estimator._codes = facts["variance"], arrays["codes"]
            weights = {name[6:]: a for name, a in arrays.items() if name.startswith("coder.")}
            # On the meta device nothing is made room for, whatever number of features is claimed.
            with torch.device("meta"):
                claimed = Coder(estimator.n_features_in_, estimator.n_features, None)
            if {k: v.shape for k, v in claimed.state_dict().items()} != {
                k: v.shape for k, v in weights.items()
            }:
                raise ValueError("weights of other shapes than its parameters say")
            coder = Coder(estimator.n_features_in_, estimator.n_features, torch.Generator())
            coder.load_state_dict(weights)
            estimator._coder = coder
            numbers = facts["bound"]
            estimator.bound_ = numbers and Bound(
                torch.tensor(numbers[0], dtype=torch.float64),
                torch.tensor(numbers[1], dtype=torch.float64),
                numbers[2],
            )
            # A state that fits together can encode its middle.
            estimator.transform(probe(estimator))
        return estimator


def _split(x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return held-out rows and the others; few rows are all trained on."""
    order = torch.randperm(len(x), generator=generator)
    count = len(x) // _HELD_OUT if len(x) >= 2 * _HELD_OUT else 0
    return x[order[:count]], x[order[count:]]


def _median_distance(x: Tensor) -> float:
    """Return the median squared distance; that of unrelated rows where all are alike."""
    distances = torch.pdist(x[:_MEDIAN_ROWS]).square()
    median = float(distances.median()) if len(distances) else 0.0
    return median or 2.0 * x.shape[1]
