r"""Components for values that rows share exactly.

Many tables are neither discrete nor continuous: a column is zero in most rows and a measure in the
others. One Gaussian for such rows is wide in every column in which a single row differs. So it is
split. The rows that share the value of one column get a component that is as narrow there as may
be; those that share the value of a second column as well get another one, and so on. The column
that comes next is the one whose value most of the remaining rows share. A row that differs
somewhere is left to the components before that column, the widest of which is the Gaussian itself.

With :math:`c_0 = m \ge c_1 \ge \dots \ge c_L` of the m rows of a Gaussian on each level, the levels
have the weights

.. math:: w_l = \frac{c_l - c_{l+1} + 1}{m + L + 1}, \qquad c_{L+1} = 0,

by Laplace's rule of succession, so that no level is impossible.
"""

import torch
from torch import Tensor

from hilbound.engine.expectation.components import Components, log_joint

_SHARES = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05)  # of a Gaussian's rows
_LEAST_ROWS = 5  # that share a value


def split_repeats(c: Components, x: Tensor, variance: float) -> Components:
    """Return the components, and beside each those of the rows that share values exactly.

    Args:
        c: Components whose weights sum to one.
        x: The rows that they were fitted to, with shape ``(n, d)``; a missing value is NaN.
        variance: That of a column whose value rows share.

    Returns:
        The same components where no value is shared by five rows of one.

    >>> x = torch.cat([torch.zeros(50, 1), torch.linspace(-1, 1, 50)[:, None]]).double()
    >>> one = Components(x.mean(0, keepdim=True), x.var(0, keepdim=True), x.new_zeros(1))
    >>> split_repeats(one, x, 1e-6).spread.log10().round()
    tensor([[-1.],
            [-6.]], dtype=torch.float64)
    """
    columns = _repeating(x)
    if not len(columns):
        return c
    owner = log_joint(c, x).argmax(1)
    enough = owner.bincount(minlength=len(c.means)) >= _LEAST_ROWS
    others = Components(c.means[~enough], c.spread[~enough], c.log_weights[~enough])
    parts = [others] + [
        _levels(c, k, x[owner == k], columns, variance)
        for k in enough.nonzero().squeeze(1).tolist()
    ]
    return Components(
        torch.cat([part.means for part in parts]),
        torch.cat([part.spread for part in parts]),
        torch.cat([part.log_weights for part in parts]),
    )


def _repeating(x: Tensor) -> Tensor:
    """Return the columns in which enough rows share a value."""
    counts = [column[~column.isnan()].unique(return_counts=True)[1] for column in x.T]
    return torch.tensor(
        [j for j, c in enumerate(counts) if (c >= _LEAST_ROWS).any()], dtype=torch.long
    )


def _levels(c: Components, k: int, rows: Tensor, columns: Tensor, variance: float) -> Components:
    """Return a component and, after it, one for each level of shared values among its rows."""
    shared, values, counts = _nest(rows, columns)
    known = torch.tensor([len(rows), *counts, 0], dtype=c.means.dtype)
    weights = (known[:-1] - known[1:] + 1) / (len(rows) + len(counts) + 1)
    means, spread = (
        part[k].repeat(len(weights), *[1] * (part.ndim - 1)) for part in (c.means, c.spread)
    )
    for level, some in enumerate(shared, start=1):
        means[level, some] = values[some]
        spread[level, some] = variance if not c.full else 0.0
        if c.full:
            spread[level, :, some] = 0.0
            spread[level, some, some] = variance
    return Components(means, spread, c.log_weights[k] + weights.log())


def _nest(rows: Tensor, columns: Tensor) -> tuple[list[Tensor], Tensor, list[int]]:
    """Find columns whose values many rows share.

    Returns:
        The columns of each level, every one with those of the level before; the value that most
        rows have in every column; and how many rows share all values of each level.
    """
    # Every gap counts as a value of its own, far from all others.
    gaps = torch.finfo(rows.dtype).max * torch.linspace(0.5, 1, len(rows)).to(rows).unsqueeze(1)
    values = torch.where(rows.isnan(), gaps, rows).mode(0).values
    same = (rows == values)[:, columns]
    order: list[int] = []
    counts: list[int] = []
    while len(order) < len(columns):
        found = same.sum(0)
        found[order] = -1
        best = int(found.argmax())
        if found[best] < _LEAST_ROWS:
            break
        order.append(best)
        counts.append(int(found[best]))
        same = same[same[:, best]]
    # One level for each share: the deepest that so many rows reach.
    depths = [sum(count >= share * len(rows) for count in counts) for share in _SHARES]
    kept = [depth for depth in dict.fromkeys(depths) if depth]
    return [columns[order[:d]] for d in kept], values, [counts[d - 1] for d in kept]
