r"""Tiles of the matrix of log products :math:`E_{ij} = a_i + b_j + \log \langle p_i, q_j \rangle`.

For isotropic variances, in units of ``unit`` and with :math:`t_{ij} = v_i + w_j`,

.. math:: E_{ij} = a_i + b_j - \frac{|x_i - y_j|^2}{2 t_{ij}} - \frac d2 \log \frac{t_{ij}}{unit}.

If t depends on one side only, say on i, this is one matrix product :math:`E = A B^\top` of

.. math:: A_i = \big(\tfrac{x_i}{t_i}, -\tfrac{|x_i|^2}{2 t_i}, \tfrac1{t_i}, a_i, 1\big), \qquad
    B_j = \big(y_j, 1, -\tfrac{|y_j|^2}{2}, 1, b_j\big)

(:class:`FactoredTiles`). Apart from it, the exponential is the only pass over the pairs. Let U be
the derivatives of some function by E. Then the products :math:`U B` and :math:`U^\top A` hold all
its gradients. A column of ones gives the sums of U, and
:math:`\sum_j U_{ij} E_{ij} = A_i \cdot (U B)_i` gives the derivative by the variance. If both sides
have a variance for every component, a few more passes are needed (:class:`PairwiseTiles`).

The points are taken relative to the mean of x. Products are formed in float64 if rounding could
change an exponent by more than :func:`hilbound.engine.gram.squared_distances` allows.
"""

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from hilbound.engine import gram

# The logarithm of a weight of zero. The sum of two of them is still a finite float32 number.
_NEVER = -1e37
#: An exponent below this belongs to a weight of zero.
EMPTY = -1e36


class Side(NamedTuple):
    """Components of one side, in batches.

    Attributes:
        means: Points with shape ``(B, N, d)``.
        variance: Variances with shape ``(B, N or 1, 1)``.
        log_weights: Logarithms with shape ``(B, N)``.
    """

    means: Tensor
    variance: Tensor
    log_weights: Tensor


class Slopes(NamedTuple):
    """Derivatives by the components of one side.

    Attributes:
        means: By the points, with shape ``(B, n, d)``.
        variance: By the sum of both variances, with shape ``(B, n)``. If all components share one
            variance, these are the parts of its derivative that come from each component.
        log_weights: By the logarithms of the weights, with shape ``(B, n)``.
    """

    means: Tensor
    variance: Tensor
    log_weights: Tensor


class Tile(NamedTuple):
    """A tile of pairs. Its tensors are overwritten.

    Attributes:
        pull: First the exponents E, then U, with shape ``(B, n, m)``.
        total: The variance t if every pair has its own, else empty.
        ratio: :math:`-|x_i - y_j|^2 / (2 t_{ij})` if every pair has its own variance, else empty.
    """

    pull: Tensor
    total: Tensor
    ratio: Tensor

    @property
    def mT(self) -> "Tile":  # noqa: N802 - torch's name
        """The same pairs seen from the other side."""
        return Tile(self.pull.mT, self.total.mT, self.ratio.mT)

    def columns(self, j: slice) -> "Tile":
        """The pairs of some columns."""
        return Tile(*(t[..., j] for t in self))


class Tiles(Protocol):
    """The interface of tiles for sums over pairs.

    Attributes:
        offset: Constants with shape ``(B,)`` in float64 that were subtracted from the exponents.
        width: The number of columns of the results of :meth:`row_sums` and :meth:`column_sums`.
    """

    offset: Tensor
    width: int

    def tile(self, i: slice, j: slice, *, same: bool = False) -> Tile:
        """Return the exponents of the rows i and columns j.

        Args:
            i: Rows.
            j: Columns.
            same: Whether both are the same components. Then the distance of a component to itself
                is exactly zero.
        """

    def lower(self, shift: Tensor) -> None:
        """Subtract a shift with shape ``(B,)`` from all exponents of later tiles."""

    def row_sums(self, tile: Tile, j: slice, *, same: bool = False) -> Tensor:
        """Return sums over the columns j that give the slopes of the tile's rows.

        With ``same`` the pairs of a component with itself are left out. Their slopes are zero, but
        rounding would leave a remainder.
        """

    def column_sums(self, tile: Tile, i: slice) -> Tensor:
        """Return sums over the rows i that give the slopes of the tile's columns."""

    def row_slopes(self, sums: Tensor, i: slice) -> Slopes:
        """Return derivatives by the components i of the rows, overwriting their sums."""

    def column_slopes(self, sums: Tensor, j: slice) -> Slopes:
        """Return derivatives by the components j of the columns, overwriting all sums."""


def tiles(p: Side, q: Side, unit: float) -> Tiles:
    """Return the tiles of two sides, in the cheapest form that their variances allow."""
    both = p.variance.shape[-2] > 1 and q.variance.shape[-2] > 1
    return PairwiseTiles(p, q, unit) if both else FactoredTiles(p, q, unit)


class _Points(NamedTuple):
    """Both sets of points relative to the mean of x, and their squares, in sufficient precision."""

    x: Tensor
    y: Tensor
    x2: Tensor
    y2: Tensor


def _centred(p: Side, q: Side) -> _Points:
    smallest = (p.variance.amin((-2, -1)) + q.variance.amin((-2, -1))).amin()
    resolution = gram.KERNEL_ERROR * float(smallest)
    points = _relative(p.means, q.means, p.means.dtype)
    if gram.is_too_coarse(points.x2, points.y2, p.means.dtype, resolution):
        # From the original points: centring in low precision has already rounded them. With an
        # outlier the mean is far away, and small points lose their digits.
        points = _relative(p.means, q.means, torch.float64)
    return points


def _relative(x: Tensor, y: Tensor, dtype: torch.dtype) -> _Points:
    centre = x.mean(-2, keepdim=True).to(dtype)
    a = x.to(dtype) - centre
    b = a if y is x else y.to(dtype) - centre
    a2 = a.square().sum(-1, keepdim=True)
    return _Points(a, b, a2, a2 if y is x else b.square().sum(-1, keepdim=True))


def _relative_logs(logs: Tensor) -> tuple[Tensor, Tensor]:
    """Return finite logarithms relative to the largest one, and the largest one."""
    top = logs.amax(-1, keepdim=True)
    return (logs - top).clamp_min(_NEVER), top.squeeze(-1)


def _take_diagonal(pull: Tensor) -> Tensor:
    """Return the diagonal, and replace it by zeros."""
    diagonal = pull.diagonal(dim1=-2, dim2=-1)
    own = diagonal.clone()
    diagonal.zero_()
    return own


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Return dot products along the last axis, summed in float64."""
    return (a * b).sum(-1, dtype=torch.float64)


class FactoredTiles:
    """Tiles of one matrix product: at most one side has a variance for every component."""

    def __init__(self, p: Side, q: Side, unit: float) -> None:
        points = _centred(p, q)
        self._dim = points.x.shape[-1]
        self.width = self._dim + 4
        total = p.variance.double() + q.variance.double()
        volume = 0.5 * self._dim * (total / unit).log().squeeze(-1)
        by_column = q.variance.shape[-2] > 1
        a, top_a = _relative_logs(p.log_weights - (0 if by_column else volume))
        b, top_b = _relative_logs(q.log_weights - (volume if by_column else 0))
        self.offset = top_a.double() + top_b.double()
        ones = torch.ones_like(total[:, :1])
        self._totals = (ones, total) if by_column else (total, ones)
        self._scales = [t.reciprocal().to(points.x.dtype) for t in self._totals]
        if total.shape[-2] == 1:
            self._totals = total, total
        self._a = self._factor(points.x, points.x2, self._scales[0], a)
        self._b = self._factor(points.y, points.y2, self._scales[1], b)
        # In the product, squares of one side must meet scales of the other, and log weights must
        # meet ones. So two columns are exchanged.
        self._b[..., [self._dim, self._dim + 1]] = self._b[..., [self._dim + 1, self._dim]]
        self._b[..., [self._dim + 2, self._dim + 3]] = self._b[..., [self._dim + 3, self._dim + 2]]

    def _factor(self, x: Tensor, x2: Tensor, scale: Tensor, logs: Tensor) -> Tensor:
        """Return the columns: scaled points, scaled squares, scale, log weights, ones."""
        factor = x.new_empty((*x.shape[:-1], self.width))
        torch.mul(x, scale, out=factor[..., : self._dim])
        factor[..., self._dim] = (-0.5 * x2 * scale).squeeze(-1)
        factor[..., self._dim + 1] = scale.squeeze(-1)
        factor[..., self._dim + 2] = logs
        factor[..., self._dim + 3] = 1
        return factor

    def tile(self, i: slice, j: slice, *, same: bool = False) -> Tile:
        """Return the exponents of the rows i and columns j."""
        a, b = self._a[:, i], self._b[:, j]
        exponents = torch.bmm(a, b.mT)
        if same:
            own = a[..., self._dim + 2] + b[..., self._dim + 3]
            exponents.diagonal(dim1=-2, dim2=-1).copy_(own)
        none = exponents[:, :0]
        return Tile(exponents, none, none)

    def lower(self, shift: Tensor) -> None:
        """Subtract a shift with shape ``(B,)`` from all exponents of tiles to come."""
        self._a[..., self._dim + 2] -= shift.unsqueeze(-1)

    def row_sums(self, tile: Tile, j: slice, *, same: bool = False) -> Tensor:
        """Return :math:`U B`."""
        own = _take_diagonal(tile.pull) if same else None
        sums = torch.bmm(tile.pull, self._b[:, j])
        if own is not None:
            sums[..., self._dim + 2] += own
        return sums

    def column_sums(self, tile: Tile, i: slice) -> Tensor:
        r"""Return :math:`U^\top A`."""
        return torch.bmm(tile.pull.mT, self._a[:, i])

    def row_slopes(self, sums: Tensor, i: slice) -> Slopes:
        """Return derivatives by the components i of the rows."""
        return self._slopes(0, self._a[:, i], sums, i)

    def column_slopes(self, sums: Tensor, j: slice) -> Slopes:
        """Return derivatives by the components j of the columns."""
        return self._slopes(1, self._b[:, j], sums, j)

    def _slopes(self, side: int, own: Tensor, sums: Tensor, i: slice) -> Slopes:
        # The column of the other side's scale. Its ones are two columns further on.
        d, at = self._dim, self._dim + side
        scale, total = (
            a[:, i] if a.shape[1] > 1 else a for a in (self._scales[side], self._totals[side])
        )
        mass = sums[..., at + 2].double()
        exponent = _dot(own[..., : d + 2], sums[..., : d + 2])
        means = sums[..., :d].mul_(scale).sub_(own[..., :d] * sums[..., at : at + 1])
        return Slopes(means, -(exponent + 0.5 * d * mass) / total.squeeze(-1), mass)


class PairwiseTiles:
    """Tiles where every pair has a variance of its own."""

    def __init__(self, p: Side, q: Side, unit: float) -> None:
        points = _centred(p, q)
        dtype, self._dim = points.x.dtype, points.x.shape[-1]
        self.width = self._dim + 3
        self._v, self._w = p.variance.to(dtype), q.variance.to(dtype)
        # A unit near the variances keeps the logarithms small. The difference is a constant.
        self._unit = float(self._v.mean() + self._w.mean())
        self._log_a, top_a = _relative_logs(p.log_weights)
        self._log_b, top_b = _relative_logs(q.log_weights)
        self._log_a, self._log_b = self._log_a.to(dtype), self._log_b.to(dtype)
        volume = 0.5 * self._dim * math.log(self._unit / unit)
        self.offset = top_a.double() + top_b.double() - volume
        one = torch.ones_like
        self._a = torch.cat([points.x, -0.5 * points.x2, one(points.x2)], -1)
        self._b = torch.cat([points.y, one(points.y2), -0.5 * points.y2], -1)

    def tile(self, i: slice, j: slice, *, same: bool = False) -> Tile:
        """Return the exponents of the rows i and columns j, with their variances and ratios."""
        ratio = torch.bmm(self._a[:, i], self._b[:, j].mT)
        if same:
            ratio.diagonal(dim1=-2, dim2=-1).zero_()
        total = self._v[:, i] + self._w[:, j].mT
        ratio.div_(total)
        exponents = (total / self._unit).log_().mul_(-0.5 * self._dim).add_(ratio)
        exponents.add_(self._log_a[:, i].unsqueeze(-1)).add_(self._log_b[:, j].unsqueeze(-2))
        return Tile(exponents, total, ratio)

    def lower(self, shift: Tensor) -> None:
        """Subtract a shift with shape ``(B,)`` from all exponents of tiles to come."""
        self._log_a = self._log_a - shift.unsqueeze(-1).to(self._log_a)

    def row_sums(self, tile: Tile, j: slice, *, same: bool = False) -> Tensor:
        """Return sums of U/t against the points and ones, of U, and of U times dE/dt."""
        own = _take_diagonal(tile.pull) if same else None
        sums = self._sums(tile, self._b[:, j, : self._dim])
        if own is not None:
            sums[..., self._dim + 1] += own
            own_total = tile.total.diagonal(dim1=-2, dim2=-1)
            sums[..., self._dim + 2] -= 0.5 * self._dim * own / own_total
        return sums

    def column_sums(self, tile: Tile, i: slice) -> Tensor:
        """Return the same sums over the rows."""
        return self._sums(tile.mT, self._a[:, i, : self._dim])

    def _sums(self, tile: Tile, others: Tensor) -> Tensor:
        pull = tile.pull / tile.total
        to_means, ones = torch.bmm(pull, others), pull.sum(-1, keepdim=True)
        # dE/dt = (|x - y|^2 / (2 t) - d / 2) / t
        by_variance = -(pull * tile.ratio).sum(-1, keepdim=True) - 0.5 * self._dim * ones
        return torch.cat([to_means, ones, tile.pull.sum(-1, keepdim=True), by_variance], -1)

    def row_slopes(self, sums: Tensor, i: slice) -> Slopes:
        """Return derivatives by the components i of the rows."""
        return self._slopes(self._a[:, i], sums)

    def column_slopes(self, sums: Tensor, j: slice) -> Slopes:
        """Return derivatives by the components j of the columns."""
        return self._slopes(self._b[:, j], sums)

    def _slopes(self, own: Tensor, sums: Tensor) -> Slopes:
        d = self._dim
        means = sums[..., :d].sub_(own[..., :d] * sums[..., d : d + 1])
        return Slopes(means, sums[..., d + 2], sums[..., d + 1])
