"""Gaussian mixtures as one of skpro's distributions."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from skpro.distributions.base import BaseDistribution
from torch import Tensor

from hilbound.errors import InputError
from hilbound.estimators import predictions
from hilbound.estimators.frames import Floats
from hilbound.evaluation import calibration
from hilbound.mixture import GaussianMixture


class PredictedMixture(BaseDistribution):  # type: ignore[misc]
    """A table of numbers in which every row has a Gaussian mixture of its own.

    Densities, probabilities and quantiles are those of every entry by itself, as skpro wants them,
    and exact. The columns of a row depend on each other: ``sample`` draws them together, and
    ``mixture.log_prob`` is their joint log density.

    skpro has no argument for a seed: ``sample`` follows ``numpy.random.seed``, like all its
    distributions.

    Args:
        mixture: Mixtures with batch shape ``(n,)``; or ``()`` and one coordinate, for a single
            number.
        index: Labels of the rows; they are counted if ``None``.
        columns: Labels of the columns; they are counted if ``None``.

    Raises:
        InputError: If the mixture has another batch shape, or the labels are too few or too many.

    >>> import torch
    >>> from hilbound import GaussianMixture
    >>> from hilbound.estimators.skpro import PredictedMixture
    >>> q = GaussianMixture(torch.tensor([[[-1.0], [1.0]], [[0.0], [4.0]]]), 0.5)
    >>> PredictedMixture(q, index=["a", "b"], columns=["y"]).mean()
         y
    a  0.0
    b  2.0
    """

    _tags: ClassVar[dict[str, Any]] = {
        "capabilities:exact": [
            *("mean", "var", "energy", "pdfnorm", "pdf", "log_pdf", "cdf", "ppf"),
        ],
        "capabilities:approx": [],
        "distr:measuretype": "continuous",
        "distr:paramtype": "general",
    }

    def __init__(
        self,
        mixture: GaussianMixture,
        index: ArrayLike | pd.Index | None = None,
        columns: ArrayLike | pd.Index | None = None,
    ) -> None:
        self.mixture = mixture
        batch = mixture.batch_shape
        single = len(batch) == 0 and mixture.dim == 1 and index is None and columns is None
        if len(batch) != 1 and not single:
            raise InputError(
                "mixture must have batch shape (n,), or () with one coordinate and without index "
                f"and columns, got {tuple(batch)} with {mixture.dim} coordinates"
            )
        if not single:
            index = pd.RangeIndex(batch[0]) if index is None else index
            columns = pd.RangeIndex(mixture.dim) if columns is None else columns
        super().__init__(index=index, columns=columns)
        if not single and self.shape != (batch[0], mixture.dim):
            raise InputError(
                f"index and columns must name {batch[0]} rows and {mixture.dim} columns, "
                f"got {self.shape[0]} and {self.shape[1]}"
            )

    @property
    def _rows(self) -> GaussianMixture:
        """The mixtures with batch shape ``(n,)``, where n is 1 for a single number."""
        return _part(self.mixture, None) if self.ndim == 0 else self.mixture

    def _iloc(self, rowidx: Any = None, colidx: Any = None) -> "PredictedMixture":
        if np.isscalar(rowidx) and np.isscalar(colidx):
            return self._iat(rowidx, colidx)
        rows, columns = _positions(rowidx, self.shape[0]), _positions(colidx, self.shape[1])
        return PredictedMixture(
            _part(self.mixture, rows, columns), self.index[rows], self.columns[columns]
        )

    def _iat(self, rowidx: Any = None, colidx: Any = None) -> "PredictedMixture":
        return PredictedMixture(_part(self.mixture, rowidx, [colidx]))

    def _mean(self) -> Floats | float:
        return self._shaped(self._rows.mean.numpy())

    def _var(self) -> Floats | float:
        return self._shaped(self._rows.variance.numpy())

    def _log_pdf(self, x: Floats) -> Floats | float:
        return self._by_column(lambda q, points: q.log_prob(points.unsqueeze(-1)), x)

    def _pdf(self, x: Floats) -> Floats | float:
        return self._by_column(lambda q, points: q.log_prob(points.unsqueeze(-1)).exp(), x)

    def _cdf(self, x: Floats) -> Floats | float:
        return self._by_column(lambda q, points: q.cdf(points.unsqueeze(-1)), x)

    def _ppf(self, p: Floats) -> Floats | float:
        return self._by_column(lambda q, levels: q.icdf(levels).squeeze(-1), p)

    def pdfnorm(self, a: float = 2) -> pd.DataFrame | float:
        r"""Return :math:`\int p(y)^a dy` of every entry; in closed form for the default, 2.

        Args:
            a: The power; skpro draws samples for others than 1 and 2, and warns.
        """
        if a != 2:
            drawn: pd.DataFrame | float = super().pdfnorm(a)
            return drawn
        q = self._rows
        norms = torch.stack([q.marginal([i]).log_norm() for i in range(q.dim)], -1).exp().numpy()
        return self._labelled(norms)

    def _energy_self(self) -> Floats | float:
        return self._shaped(calibration.spreads(self._rows).sum(-1, keepdims=True))

    def _energy_x(self, x: Floats) -> Floats | float:
        points = self._entries(x).numpy()
        return self._shaped(calibration.distances(self._rows, points).sum(-1, keepdims=True))

    def _sample(self, n_samples: int | None = None) -> pd.DataFrame | float:
        count = 1 if n_samples is None else n_samples
        seed = check_random_state(None).randint(np.iinfo(np.int32).max)
        generator = torch.Generator().manual_seed(int(seed))
        drawn = np.moveaxis(predictions.draws(self._rows, count, generator), 1, 0)
        values = drawn.reshape(-1, drawn.shape[-1])
        if n_samples is None:
            return self._labelled(values)
        if self.ndim == 0:
            return pd.DataFrame(values)
        index = pd.MultiIndex.from_product([range(count), self.index])
        return pd.DataFrame(values, index=index, columns=self.columns)

    def _by_column(
        self, method: Callable[[GaussianMixture, Tensor], Tensor], values: Floats
    ) -> Floats | float:
        """Apply a method to the marginal of every column, and the column of some values."""
        q, columns = self._rows, self._entries(values).unbind(-1)
        parts = [method(q.marginal([i]), column) for i, column in enumerate(columns)]
        return self._shaped(torch.stack(parts, -1).numpy())

    def _entries(self, values: Floats) -> Tensor:
        """Return values as a tensor with the shape of the rows, whatever type skpro passes."""
        q = self._rows
        entries = np.array(values, dtype=np.float64).reshape(q.batch_shape[0], q.dim)
        return torch.from_numpy(entries).to(q.means)

    def _shaped(self, values: Floats) -> Floats | float:
        """Return a table of values, or the only one for a single number."""
        return float(values.item()) if self.ndim == 0 else values

    def _labelled(self, values: Floats) -> pd.DataFrame | float:
        """Return a table of values with its labels, or the only one for a single number."""
        if self.ndim == 0:
            return float(values.item())
        return pd.DataFrame(values, index=self.index, columns=self.columns)

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:  # noqa: ARG003 - skpro's signature
        """Return mixtures for skpro's checks: a table, one with labels, and a single number."""
        means = torch.arange(12.0, dtype=torch.float64).reshape(3, 2, 2).sqrt()
        q = GaussianMixture(means, 0.5 + means, torch.tensor([[0.3, 0.7]]).double().expand(3, 2))
        labels = {"index": pd.Index([1, 2, 5]), "columns": pd.Index(["a", "b"])}
        line = GaussianMixture(torch.tensor([[0.0], [3.0]]).double(), 2.0)
        return [{"mixture": q}, {"mixture": q, **labels}, {"mixture": line}]


def _positions(chosen: Any, count: int) -> NDArray[np.intp]:
    """Return what was chosen of some rows or columns as whole numbers from 0."""
    every = np.arange(count)
    if chosen is None:
        return every
    return np.atleast_1d(every[chosen if isinstance(chosen, slice) else np.asarray(chosen)])


def _part(q: GaussianMixture, rows: Any, columns: Any = slice(None)) -> GaussianMixture:
    """Return some rows and columns; a row that is ``None`` adds an axis, a number drops one."""
    v = q.component_variance.expand_as(q.means)
    return GaussianMixture(
        q.means[rows][..., columns],
        v[rows][..., columns],
        log_weights=q.log_weights[rows],
        validate_args=False,
    )
