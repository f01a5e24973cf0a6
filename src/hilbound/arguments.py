"""Reading and checking arguments: shapes, defaults and refusals."""

import math
import operator
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from hilbound.errors import InputError


def at_least_float32(means: Tensor, variance: float | Tensor) -> Tensor:
    """Convert half precision to float32, and warn of the error of the earlier rounding."""
    if means.dtype not in {torch.float16, torch.bfloat16}:
        return means
    smallest = float(torch.as_tensor(variance).detach().min())
    error = _rounding_of_means(means) / smallest if smallest > 0 else math.inf
    warnings.warn(
        f"means come in {means.dtype}: inner products are formed in float32, but the rounding of "
        f"the means themselves may change exponents by up to {error:.2g}",
        stacklevel=3,
    )
    return means.float()


def _rounding_of_means(means: Tensor) -> float:
    """Return a bound of the change of |x - y|²/4 that rounding of the means may have caused."""
    points = means.detach().double()
    norm = math.sqrt(points.square().sum(-1).amax())
    spread = math.sqrt((points - points.mean(-2, keepdim=True)).square().sum(-1).amax())
    # Two points are at most two spreads apart. Rounding moves each by half a unit of its norm.
    return 0.5 * (2 * spread) * torch.finfo(means.dtype).eps * norm


def _expands_to(tensor: Tensor, shape: torch.Size) -> bool:
    try:
        broadcast: torch.Size = torch.broadcast_shapes(tensor.shape, shape)
    except RuntimeError:
        return False
    return broadcast == shape


def as_component_variance(variance: float | Tensor, means: Tensor) -> Tensor:
    """Bring a variance to the shape ``(*, K or 1, d or 1)`` of :mod:`hilbound.engine.gram`.

    Raises:
        InputError: If it does not broadcast to the means' shape.
    """
    v = torch.as_tensor(variance, dtype=means.dtype, device=means.device)
    if not _expands_to(v, means.shape):
        raise InputError(
            f"variance with shape {tuple(v.shape)} does not broadcast to the means' shape "
            f"{tuple(means.shape)}: give a number, or one value per component with shape "
            f"{(*means.shape[:-1], 1)}"
        )
    return v.reshape((1,) * max(0, 2 - v.ndim) + v.shape)


def as_log_weights(weights: Tensor | None, log_weights: Tensor | None, means: Tensor) -> Tensor:
    """Return logarithms of normalised weights, with shape ``(*, K)``. By default all are equal.

    Raises:
        InputError: If there is not one weight for each component, or both arguments are given.
    """
    if log_weights is not None:
        return _as_normalised(weights, log_weights, means)
    if weights is None:
        return means.new_full(means.shape[:-1], -math.log(means.shape[-2]))
    if weights.shape[-1:] != means.shape[-2:-1] or not _expands_to(weights, means.shape[:-1]):
        raise InputError(
            f"weights must have shape {tuple(means.shape[:-1])}, one per component, "
            f"got {tuple(weights.shape)}"
        )
    weights = weights.to(means).expand(means.shape[:-1])
    weights = weights / weights.sum(-1, keepdim=True)
    # log 0 would give an infinite gradient to a weight without effect. The reciprocal of a
    # subnormal number overflows, too.
    present = weights >= torch.finfo(weights.dtype).tiny
    return weights.where(present, 1).log().masked_fill(~present, -math.inf)


def _as_normalised(weights: Tensor | None, log_weights: Tensor, means: Tensor) -> Tensor:
    if weights is not None:
        raise InputError("weights and log_weights were both given: give one of them")
    shape = means.shape[:-1]
    if log_weights.shape[-1:] != shape[-1:] or not _expands_to(log_weights, shape):
        raise InputError(
            f"log_weights must have shape {tuple(shape)}, one per component, "
            f"got {tuple(log_weights.shape)}"
        )
    log_weights = log_weights.to(means)
    total = log_weights.logsumexp(-1, keepdim=True)
    # Weights from another mixture already sum to one, up to rounding. They are not changed.
    rounding = 8 * torch.finfo(means.dtype).eps
    return (log_weights - total.where(total.abs() > rounding, 0)).expand(shape)


def as_coordinates(dims: Sequence[int], dim: int) -> list[int]:
    """Return distinct coordinates between 0 and ``dim - 1``. Negative ones count from the end.

    Raises:
        InputError: If there are none, one is repeated, or one is not an integer or is out of range.

    >>> as_coordinates((2, -3), 3)
    [2, 0]
    """
    try:
        given = [operator.index(c) for c in dims]
    except TypeError:
        raise InputError(
            f"dims must be a sequence of whole numbers, such as [0, 2], got {dims!r}"
        ) from None
    if not given or not all(-dim <= c < dim for c in given):
        raise InputError(
            f"dims must name one or more of the {dim} coordinates, 0 to {dim - 1} "
            f"(or -{dim} to -1 from the end), got {given}"
        )
    coordinates = [c % dim for c in given]
    if len(set(coordinates)) < len(coordinates):
        raise InputError(f"dims must name every coordinate once, got {given}")
    return coordinates


def as_values(values: Tensor, count: int, means: Tensor) -> Tensor:
    """Return values of ``count`` coordinates, shape ``(*, count)``, in the dtype of the means.

    Raises:
        InputError: If the last axis has another size, or the others do not broadcast with the
            batch shape.
    """
    values = torch.as_tensor(values, dtype=means.dtype, device=means.device)
    try:
        torch.broadcast_shapes(values.shape[:-1], means.shape[:-2])
        fits = values.shape[-1:] == (count,)
    except RuntimeError:
        fits = False
    if not fits:
        batch = tuple(means.shape[:-2])
        raise InputError(
            f"values must have shape (*, {count}), one for each of dims"
            f"{f', and broadcast to the batch shape {batch}' if batch else ''}, "
            f"got {tuple(values.shape)}"
        )
    return values


def rest_of(coordinates: Sequence[int], dim: int) -> list[int]:
    """Return the coordinates that are not given, in order.

    Raises:
        InputError: If all are given.

    >>> rest_of([0, 2], 3)
    [1]
    """
    rest = [c for c in range(dim) if c not in set(coordinates)]
    if not rest:
        raise InputError(
            f"dims names all {dim} coordinates: leave out at least one, whose distribution is "
            "returned, or use log_prob for the density at a point"
        )
    return rest


def as_posterior(log_joint: Tensor) -> Tensor:
    """Normalise logarithms of weights that are known up to a factor, with shape ``(*, K)``.

    Raises:
        InputError: If all are -inf, or one is not a number.
    """
    if not (log_joint.amax(-1) > -math.inf).all():
        raise InputError(
            "values must be finite and near enough to a component that the logarithm of its "
            f"density is a number in {log_joint.dtype}"
        )
    return log_joint.log_softmax(-1)


def require_tensor(name: str, x: object) -> None:
    """Raise an InputError unless an argument is a tensor, and say how to make one.

    >>> require_tensor("x", [[0.0, 1.0]])
    Traceback (most recent call last):
        ...
    hilbound.errors.InputError: x must be a torch.Tensor, got list: give torch.as_tensor(x)
    """
    if not isinstance(x, Tensor):
        raise InputError(
            f"{name} must be a torch.Tensor, got {type(x).__name__}: give torch.as_tensor({name})"
        )


def require_whole(name: str, value: object) -> int:
    """Return a whole number, or a tensor that holds one, as an int.

    Raises:
        InputError: If it is something else.

    >>> require_whole("classes", torch.tensor(3))
    3
    """
    try:
        return operator.index(value)  # type: ignore[arg-type]  # what else it is, is refused
    except TypeError:
        raise InputError(f"{name} must be a whole number, got {value!r}") from None


def require_one_space(p: int, q: int) -> None:
    """Raise an InputError if two mixtures have different numbers of coordinates."""
    # A single coordinate would broadcast against many, and give a wrong number without an error.
    if p != q:
        raise InputError(f"p has {p} coordinates and q has {q}: both must live in the same space")


def require_rows(name: str, x: Tensor, least: int = 1) -> None:
    """Raise an InputError unless an argument is a matrix of finite rows.

    Args:
        name: The name of the argument.
        x: Its value, which should have shape ``(n, d)``.
        least: The least number of rows.

    Raises:
        InputError: If it has another shape, too few rows, another type than floating point, or NaN
            or infinite values.

    >>> require_rows("x", torch.zeros(3, 2), least=4)
    Traceback (most recent call last):
        ...
    hilbound.errors.InputError: x must have at least 4 rows, got 3: give more points
    """
    require_tensor(name, x)
    if x.ndim != 2 or x.shape[1] == 0:
        raise InputError(
            f"{name} must have shape (n, d), one point in a row, got {tuple(x.shape)}: flatten "
            "images to rows, and give numbers as one column"
        )
    if not x.is_floating_point():
        raise InputError(
            f"{name} must hold floating-point numbers, got {x.dtype}: give {name}.float()"
        )
    if len(x) < least:
        rows = "row" if least == 1 else "rows"
        raise InputError(
            f"{name} must have at least {least} {rows}, got {len(x)}: give more points"
        )
    # A NaN becomes both minimum and maximum. A mask would take memory for every entry.
    least_of_row, largest_of_row = x.detach().aminmax(dim=-1)
    bad = int((~(least_of_row.isfinite() & largest_of_row.isfinite())).sum())
    if bad:
        raise InputError(
            f"{name} must be finite, but {bad} of {len(x)} rows hold NaN or infinite values: "
            "remove those rows"
        )
