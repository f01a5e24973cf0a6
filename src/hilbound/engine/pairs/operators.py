r"""The sums of :mod:`hilbound.engine.pairs.sums` as operators of torch, with their backward passes.

torch.compile does not look into an operator. In plain code it would break its graph wherever a
branch depends on numbers, such as a running maximum or the choice of a precision.

An operator takes the flat tensors of its sides, each with shapes ``(B, N, d)``, ``(B, N or 1, 1)``
and ``(B, N)``. It returns its value and a gradient for every tensor, which is empty if it is not
needed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from hilbound.engine import gram
from hilbound.engine.pairs.loops import log_row_totals, log_self_total, log_total
from hilbound.engine.pairs.tiles import Side, Slopes

Tensors = Sequence[Tensor]
Needs = Sequence[bool]


def pair_operator(tensors: Tensors, unit: float) -> Tensor:
    """Return the log sums over all pairs of two sides, shape ``(B,)``."""
    value: Tensor = _inner(tensors, unit, _needs(tensors))[0]
    return value


def norm_operator(tensors: Tensors, unit: float) -> Tensor:
    """Return the log sums over all pairs of a side with itself, shape ``(B,)``."""
    value: Tensor = _norm(tensors, unit, _needs(tensors))[0]
    return value


def row_operator(tensors: Tensors, unit: float) -> Tensor:
    """Return the log sums of every row, shape ``(B, N)``. The first side has no weights."""
    value: Tensor = _rows(tensors, unit, [False] * len(tensors))[0]
    return value


def log_mean_operator(tensors: Tensors, unit: float) -> Tensor:
    """Return the means of the log sums of the rows, shape ``(B,)``."""
    value: Tensor = _mean(tensors, unit, _needs(tensors))[0]
    return value


def _needs(tensors: Tensors) -> list[bool]:
    return [torch.is_grad_enabled() and t.requires_grad for t in tensors]


# ------------------------------------------------------------------ from slopes to gradients


def _wanted(v: Tensor, w: Tensor, p: Sequence[bool], q: Sequence[bool]) -> tuple[bool, bool]:
    """Return whether the needed gradients require the slopes of p, and those of q."""
    many_p, many_q = v.shape[-2] > 1, w.shape[-2] > 1
    to_p = p[0] or p[2] or (p[1] and many_p) or (q[1] and many_p and not many_q)
    to_q = q[0] or q[2] or (q[1] and many_q) or (p[1] and many_q and not many_p)
    # If all pairs share one variance, the slopes of either side give its gradient.
    return to_p, to_q or ((p[1] or q[1]) and not to_p)


def _gradients(
    side: Side, own: Slopes | None, other: Slopes | None, other_many: bool, needs: Sequence[bool]
) -> list[Tensor]:
    """Return gradients by means, variances and log weights. Those not needed are empty."""
    found = [t.new_empty(0) for t in side]
    if own is not None:
        found[0], found[2] = own.means, own.log_weights
    if needs[1]:
        many = side.variance.shape[-2] > 1
        source = own if many or (own is not None and not other_many) else other
        if source is not None:
            slope = source.variance.unsqueeze(-1)
            found[1] = slope if many else slope.sum(-2, keepdim=True)
    return [
        g.to(t.dtype) if need else t.new_empty(0)
        for g, t, need in zip(found, side, needs, strict=True)
    ]


def _by_batch(function: Callable[..., list[Tensor]], sizes: int, *tensors: Tensor) -> list[Tensor]:
    """Apply a function to as many batch elements at a time as fit into a tile."""
    count = max(1, gram.block_pairs(tensors[0].device) // 4 // max(1, sizes))
    if tensors[0].shape[0] <= count:
        return function(*tensors)
    parts = [function(*part) for part in zip(*(t.split(count) for t in tensors), strict=True)]
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def _both_gradients(
    p: Side, q: Side, slopes: Sequence[Slopes | None], needs: Needs
) -> list[Tensor]:
    many_p, many_q = p.variance.shape[-2] > 1, q.variance.shape[-2] > 1
    of_p, of_q = slopes
    return [
        *_gradients(p, of_p, of_q, many_q, needs[:3]),
        *_gradients(q, of_q, of_p, many_p, needs[3:]),
    ]


# ------------------------------------------------------------------ values with gradients


def _compute_inner(tensors: Tensors, unit: float, needs: Needs) -> list[Tensor]:
    _, v, a, _, w, b = tensors
    to = _wanted(v, w, needs[:3], needs[3:])

    def some(*tensors: Tensor) -> list[Tensor]:
        p, q = Side(*tensors[:3]), Side(*tensors[3:])
        value, *slopes = log_total(p, q, unit, *to)
        return [value.to(a.dtype), *_both_gradients(p, q, slopes, needs)]

    return _by_batch(some, a.shape[-1] * b.shape[-1], *tensors)


def _compute_norm(tensors: Tensors, unit: float, needs: Needs) -> list[Tensor]:
    _, v, a = tensors

    def some(*tensors: Tensor) -> list[Tensor]:
        p = Side(*tensors)
        value, slopes = log_self_total(p, unit, any(needs))
        return [value.to(a.dtype), *_gradients(p, slopes, slopes, v.shape[-2] > 1, needs)]

    return _by_batch(some, a.shape[-1] ** 2, *tensors)


def _compute_rows(tensors: Tensors, unit: float, needs: Needs) -> list[Tensor]:
    """Return the values. If the weights of the rows are the last tensor, return gradients, too."""
    x, v, _, w, b, *_ = tensors
    needs = [*needs[:2], False, *needs[2:5]]
    to = _wanted(v, w, needs[:3], needs[3:])

    def some(*tensors: Tensor) -> list[Tensor]:
        x, v, y, w, b, *pull = tensors
        p, q = Side(x, v, x.new_zeros(x.shape[:-1])), Side(y, w, b)
        value, *slopes = log_row_totals(p, q, unit, *to, pull=pull[0] if pull else None)
        by_x, by_v, _, *by_q = _both_gradients(p, q, slopes, needs)
        return [value.to(x.dtype), by_x, by_v, *by_q]

    return _by_batch(some, x.shape[-2] * b.shape[-1], *tensors)


def _compute_mean(tensors: Tensors, unit: float, needs: Needs) -> list[Tensor]:
    x = tensors[0]
    pull = [x.new_full(x.shape[:-1], 1 / x.shape[-2])] if any(needs) else []
    rows, *gradients = _compute_rows([*tensors, *pull], unit, needs)
    return [rows.double().mean(-1).to(rows.dtype), *gradients]


# ------------------------------------------------------------------ plain, differentiable twice


def _plain_inner(tensors: Tensors, unit: float) -> Tensor:
    x, v, a, *q = tensors
    return torch.logsumexp(gram.log_row_sums(x, v, *q, unit=unit) + a, -1)


def _plain_norm(tensors: Tensors, unit: float) -> Tensor:
    return _plain_inner([*tensors, *tensors], unit)


def _plain_rows(tensors: Tensors, unit: float) -> Tensor:
    x, v, *q = tensors
    return gram.log_row_sums(x, v, *q, unit=unit)


def _plain_mean(tensors: Tensors, unit: float) -> Tensor:
    return _plain_rows(tensors, unit).mean(-1)


# ------------------------------------------------------------------ backward passes

Compute = Callable[[Tensors, float, Needs], list[Tensor]]


def _operator(name: str, compute: Compute, *, by_row: bool = False) -> Any:
    # torch infers the schema from the annotations, and does not resolve type aliases.
    def call(tensors: Sequence[Tensor], unit: float, needs: Sequence[bool]) -> list[Tensor]:
        return compute(tensors, unit, needs)

    def fake(tensors: Sequence[Tensor], unit: float, needs: Sequence[bool]) -> list[Tensor]:  # noqa: ARG001 - as call
        x = tensors[0]
        gradients = (
            torch.empty_like(t) if n else t.new_empty(0)
            for t, n in zip(tensors, needs, strict=False)
        )
        return [x.new_empty(x.shape[:-1] if by_row else x.shape[:1]), *gradients]

    operator = custom_op(f"hilbound::{name}", call, mutates_args=())
    operator.register_fake(fake)
    return operator


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    """Save the tensors for a second derivative, and the gradients for the first."""
    tensors, ctx.unit, ctx.needs = inputs
    ctx.count = len(tensors)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output[1:])


def _backward(plain: Callable[[Tensors, float], Tensor]) -> Callable[..., tuple[Any, None, None]]:
    def backward(ctx: Any, pulls: Sequence[Tensor | None]) -> tuple[Any, None, None]:
        pull, needs = pulls[0], ctx.needs_input_grad[0]
        tensors, slopes = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        if pull is None:
            return [None] * ctx.count, None, None
        if torch.is_grad_enabled():
            return _again(plain, tensors, needs, ctx.unit, pull), None, None
        if plain is _plain_rows:
            _, *found = _row_gradients([*tensors, pull], ctx.unit, needs)
        else:
            found = [
                pull.reshape(-1, *(1,) * (s.ndim - 1)) * s if n else None
                for s, n in zip(slopes, needs, strict=True)
            ]
        return [g if n else None for g, n in zip(found, needs, strict=True)], None, None

    return backward


def _again(
    plain: Callable[[Tensors, float], Tensor],
    tensors: Tensors,
    needs: Needs,
    unit: float,
    pull: Tensor,
) -> list[Tensor | None]:
    """Return gradients of the plain sums that can themselves be differentiated."""
    # Aliases: one tensor may come as several arguments.
    aliases = [t.view_as(t) for t in tensors]
    needed = [t for t, n in zip(aliases, needs, strict=True) if n]
    found = iter(torch.autograd.grad(plain(aliases, unit), needed, pull, create_graph=True))
    return [next(found) if n else None for n in needs]


_inner = _operator("log_inner", _compute_inner)
_norm = _operator("log_norm", _compute_norm)
_mean = _operator("mean_log_row_sum", _compute_mean)
_rows = _operator("log_row_sums", _compute_rows, by_row=True)
_row_gradients = _operator("log_row_sums_gradients", _compute_rows, by_row=True)
for _forward, _plain in (
    (_inner, _plain_inner),
    (_norm, _plain_norm),
    (_mean, _plain_mean),
    (_rows, _plain_rows),
):
    _forward.register_autograd(_backward(_plain), setup_context=_keep)
