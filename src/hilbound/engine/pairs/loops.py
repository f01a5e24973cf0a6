"""Sums over tiles of pairs: the loops behind :mod:`hilbound.engine.pairs.sums`, in flat batches."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hilbound.engine import gram
from hilbound.engine.pairs.tiles import EMPTY, Side, Slopes, Tile, Tiles, tiles

# An exponent that exceeds the running maximum by more than this becomes the new maximum. Smaller
# ones may stay above it, because e^30 is far from overflow.
_SLACK = 30.0
# A product of fewer rows is slow. For more columns, the sums over them take much memory.
_FEW_ROWS = 256
_FEW_COLUMNS = 2048


class _Running:
    """Sums of exponentials relative to a maximum that may still grow.

    Attributes:
        grid: The tiles that hold the exponents.
        mass: The sums, with shape ``(B,)``.
        shift: The sum of all shifts that were subtracted from the exponents so far.
    """

    def __init__(self, grid: Tiles) -> None:
        self.grid = grid
        self.mass = torch.zeros_like(grid.offset)
        self.shift = torch.zeros_like(grid.offset)
        self._begun = torch.zeros_like(grid.offset, dtype=torch.bool)

    @property
    def value(self) -> Tensor:
        """The logarithms of the sums."""
        return self.mass.log() + self.shift + self.grid.offset

    def add(self, tile: Tile, sums: Sequence[Tensor | None], times: int = 1) -> None:
        """Turn a tile's exponents into exponentials and add them.

        Args:
            tile: The tile, which is overwritten.
            sums: Sums of earlier tiles. They are rescaled to the same maximum.
            times: How often the tile counts.
        """
        top = tile.pull.flatten(1).amax(1)
        moves = (top > _SLACK) | (~self._begun & (top > EMPTY))
        if moves.any():
            step = top.where(moves, 0)
            tile.pull.sub_(step[:, None, None])
            self.grid.lower(step)
            self.shift += step
            factor = (-step.double()).exp().where(self._begun, 0)  # an empty sum stays empty
            for earlier in (self.mass, *sums):
                if earlier is not None:
                    earlier.mul_(factor.reshape(-1, *(1,) * (earlier.ndim - 1)))
            self._begun |= moves
        self.mass += times * tile.pull.exp_().flatten(1).sum(1).double()


def _blocks(n: int, size: int) -> list[slice]:
    return [slice(i, min(n, i + size)) for i in range(0, n, size)]


def _square_tiles(n: int, m: int, device: torch.device) -> tuple[list[slice], list[slice]]:
    """Cut n rows and m columns into tiles, which are square if there are enough of both."""
    pairs = max(1, gram.block_pairs(device) // 4)
    rows = min(n, max(1, math.isqrt(pairs)))
    columns = min(m, max(1, pairs // rows))
    return _blocks(n, min(n, max(1, pairs // columns))), _blocks(m, columns)


def _rows_of(columns: int, device: torch.device) -> int:
    """Return how many full rows are taken at a time.

    They have more pairs than a square tile. The sums over rows are as long as all columns, so with
    few rows at a time, adding them up would take much of the time.
    """
    pairs = gram.block_pairs(device)
    return max(1, min(_FEW_ROWS, pairs // columns), pairs // 4 // columns)


def _put(whole: Slopes | None, i: slice, part: Slopes, side: Side) -> Slopes:
    """Store the slopes of the components i in the tensors for the whole side."""
    if whole is None:
        small = side.means.new_empty(side.means.shape[:-1], dtype=torch.float64)
        whole = Slopes(torch.empty_like(side.means), small, torch.empty_like(small))
    for a, b in zip(whole, part, strict=True):
        a[:, i] = b
    return whole


def _scale(slopes: Slopes, i: slice, factor: Tensor) -> None:
    """Multiply the slopes of the components i by a factor with shape ``(B,)``."""
    for a in slopes:
        a[:, i] *= factor.reshape(-1, *(1,) * (a.ndim - 1)).to(a.dtype)


def _plus(sums: Tensor | None, tile: Tensor) -> Tensor:
    """Add the sums of a tile to earlier sums. From the second tile on, this is done in float64."""
    if sums is None:
        return tile
    return sums.double().add_(tile) if sums.dtype != torch.float64 else sums.add_(tile)


Sums = tuple[Tensor, Slopes | None, Slopes | None]


def log_total(p: Side, q: Side, unit: float, to_p: bool, to_q: bool) -> Sums:
    """Return L with shape ``(B,)``, and its slopes by each side if they are wanted."""
    if to_p and not to_q:
        # Strips of columns are finished one after the other. So if only one side's slopes are
        # wanted, that side should be the columns.
        value, first, second = log_total(q, p, unit, to_q, to_p)
        return value, second, first
    grid = tiles(p, q, unit)
    running = _Running(grid)
    rows, columns = _square_tiles(p.means.shape[1], q.means.shape[1], p.means.device)
    by_row: list[Tensor | None] = [None] * len(rows)
    of_q: Slopes | None = None
    shifts = []
    for j in columns:
        by_column = _strip(running, rows, j, by_row if to_p else None, to_q)
        shifts.append(running.shift.clone())
        if by_column is not None:
            of_q = _put(of_q, j, grid.column_slopes(by_column, j), q)
    if of_q is not None:
        for j, shift in zip(columns, shifts, strict=True):
            _scale(of_q, j, (shift - running.shift).exp() / running.mass)
    return running.value, _of_rows(p, grid, rows, by_row, running.mass.reciprocal()), of_q


def _strip(
    running: _Running,
    rows: list[slice],
    j: slice,
    by_row: list[Tensor | None] | None,
    to_q: bool,
) -> Tensor | None:
    """Sum over a strip of columns, adding to ``by_row``. Return the sums for the strip's slopes."""
    grid = running.grid
    by_column: Tensor | None = None
    for k, i in enumerate(rows):
        tile = grid.tile(i, j)
        running.add(tile, [*(by_row or []), by_column])
        if by_row is not None:
            by_row[k] = _plus(by_row[k], grid.row_sums(tile, j))
        if to_q:
            by_column = _plus(by_column, grid.column_sums(tile, i))
    return by_column


def _of_rows(
    p: Side, grid: Tiles, rows: list[slice], sums: list[Tensor | None], factor: Tensor
) -> Slopes | None:
    """Return the slopes of all rows from their sums. The sums are overwritten."""
    slopes: Slopes | None = None
    for k, i in enumerate(rows):
        of_rows, sums[k] = sums[k], None
        if of_rows is not None:
            slopes = _put(slopes, i, grid.row_slopes(of_rows, i), p)
            _scale(slopes, i, factor)
    return slopes


def log_self_total(p: Side, unit: float, to_p: bool) -> tuple[Tensor, Slopes | None]:
    """Return L of p with itself and its slopes, from the tiles on and above the diagonal."""
    grid = tiles(p, p, unit)
    running = _Running(grid)
    _, blocks = _square_tiles(p.means.shape[1], p.means.shape[1], p.means.device)
    sums: list[Tensor | None] = [None] * len(blocks)
    for k, j in enumerate(blocks):
        for h, i in enumerate(blocks[: k + 1]):
            tile = grid.tile(i, j, same=h == k)
            running.add(tile, sums, times=1 if h == k else 2)
            if to_p:
                sums[h] = _plus(sums[h], grid.row_sums(tile, j, same=h == k))
            if to_p and h < k:
                sums[k] = _plus(sums[k], grid.row_sums(tile.mT, i))
    # Every pair counts twice: each component is once the row and once the column.
    return running.value, _of_rows(p, grid, blocks, sums, 2 / running.mass)


def log_row_totals(
    p: Side, q: Side, unit: float, to_p: bool, to_q: bool, *, pull: Tensor | None = None
) -> Sums:
    """Return :math:`L_i` with shape ``(B, N)``, and the slopes of their sum weighted by pull."""
    grid = tiles(p, q, unit)
    batch, n, _ = p.means.shape
    every = slice(0, q.means.shape[1])
    value = torch.empty_like(p.log_weights, dtype=torch.float64)
    of_p: Slopes | None = None
    of_q: Slopes | None = None
    # Strips of columns go to the sums one after the other: a tile's own sums over its rows would
    # be half as large again as the sums of all tiles.
    strips = _blocks(every.stop, _FEW_COLUMNS) if to_q else []
    by_column: list[Tensor | None] = [None] * len(strips)
    for i in _blocks(n, _rows_of(batch * every.stop, p.means.device)):
        tile = grid.tile(i, every)
        top = tile.pull.amax(-1, keepdim=True)
        mass = tile.pull.sub_(top).exp_().sum(-1, keepdim=True)
        value[:, i] = (mass.log() + top).squeeze(-1)
        if pull is not None:
            tile.pull.mul_(pull[:, i].unsqueeze(-1) / mass)
        if to_p:
            of_p = _put(of_p, i, grid.row_slopes(grid.row_sums(tile, every), i), p)
        for k, j in enumerate(strips):
            by_column[k] = _plus(by_column[k], grid.column_sums(tile.columns(j), i))
    for k, j in enumerate(strips):
        of_strip, by_column[k] = by_column[k], None
        if of_strip is not None:
            of_q = _put(of_q, j, grid.column_slopes(of_strip, j), q)
    return value + grid.offset.unsqueeze(-1), of_p, of_q
