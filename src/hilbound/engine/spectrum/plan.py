r"""The choice of the algorithm for a nuclear norm. The computation follows this plan.

=============  ===================================================================================
low rank       certified factors of the joint Gram matrix (``low_rank``): smooth
               kernels of points in few dimensions, no N x M matrix
sketch         a random sketch of the range (``sketch``): float32 matrices of low rank, as kernels
               in few dimensions have; foreseen from a few columns
eigen          one float32 eigen-decomposition with its tail kept (``eigen``)
polynomial     an iteration of matrix products (``polynomial``): devices on which
               decompositions are slow
svd            LAPACK's divide and conquer: small matrices, and float64
threads        the same, for the matrices of a batch: each thread takes some of them and uses one
               core, which wastes no time on waiting
values         singular values alone, if no gradient is needed
=============  ===================================================================================

The sizes at which one method overtakes another are measured (``benchmarks/nuclear_norm.py``).
"""

from dataclasses import dataclass

import torch

from hilbound.engine.gram import rounding_unit

# If the smaller side is below this, a sketch saves too little.
_LEAST_SKETCH = 192
# If the smaller side is below this, the SVD is faster than the eigen method with its extra steps.
_LEAST_EIGEN = 448
# On a GPU the iteration is fast only for matrices of at least this size.
_LEAST_POLYNOMIAL = 256
# The largest ``drop``, in rounding units, for methods that cannot cut the spectrum sharply.
_LARGEST_DROP = 8
#: Without a tolerance, low rank is tried for float32 points in at most this many dimensions, and
#: with at least this many points.
LARGEST_DIM, _LEAST_POINTS = 3, 1000
#: The most columns of a factor: this share of the smaller set, and at most this number.
_RANK_SHARE, _LARGEST_RANK = 1 / 3, 2048


@dataclass(frozen=True)
class NormPlan:
    """The method that would run, and the reason for it.

    Attributes:
        method: The name of the first method, as in :mod:`hilbound.engine.spectrum.plan`.
        reason: Why it comes first, in words.
        otherwise: The methods that follow. Each runs if the one before gives up or fails.
        rank_limit: The most columns of ``"low rank"``, or 0 for other methods.
        tol: The certificate that ``"low rank"`` has to reach, or 0 for other methods.
    """

    method: str
    reason: str
    otherwise: tuple[str, ...] = ()
    rank_limit: int = 0
    tol: float = 0.0

    @property
    def order(self) -> tuple[str, ...]:
        """All methods, in the order in which they are tried."""
        return (self.method, *self.otherwise)

    def __str__(self) -> str:
        then = f"; otherwise {', then '.join(self.otherwise)}" if self.otherwise else ""
        return f"{self.method}: {self.reason}{then}"


def plan_norm(
    n: int,
    m: int,
    *,
    batch: int = 1,
    dim: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    power: float = 1.0,
    gradient: bool = True,
    drop: float | None = None,
    tol: float | None = None,
) -> NormPlan:
    """Return how the nuclear norm of an n x m matrix would be computed.

    Args:
        n: Rows.
        m: Columns.
        batch: The number of matrices.
        dim: The dimension of the points, if the matrix is a cross Gram matrix of points without
            batch shape and with one variance for each set. ``None`` for any other matrix.
        dtype: The precision of the matrix or the points.
        device: The device of the matrix or the points.
        power: The power p of the singular values.
        gradient: Whether a gradient is needed.
        drop: The share of the largest singular value at or below which directions get no gradient,
            as in :func:`hilbound.engine.spectrum.norms.nuclear_norm`.
        tol: The accepted error of the value, or ``None`` for rounding errors.

    >>> print(plan_norm(2048, 2048, dim=2, tol=1e-4))
    low rank: 2 dimensions and a tolerance of 0.0001; otherwise sketch, then eigen, then svd
    >>> plan_norm(64, 64).method, plan_norm(1024, 1024).order
    ('svd', ('sketch', 'eigen', 'svd'))
    >>> plan_norm(1024, 1024, dtype=torch.float64).method
    'svd'
    >>> plan_norm(128, 128, batch=32).order
    ('threads', 'svd')
    >>> plan_norm(4096, 4096, device="cuda").method, plan_norm(1024, 1024, gradient=False).method
    ('polynomial', 'values')
    """
    dense = _dense_plan(min(n, m), dtype, torch.device(device), power, gradient=gradient)
    if drop is not None and drop > _LARGEST_DROP * torch.finfo(dtype).eps and gradient:
        dense = NormPlan("svd", f"a line at {drop:g} of the largest needs exact directions")
    if batch > 1 and torch.device(device).type == "cpu":
        dense = _by_threads(dense, batch)
    if dim is None or power != 1:
        return dense
    by_default = dtype == torch.float32 and dim <= LARGEST_DIM and min(n, m) >= _LEAST_POINTS
    if tol is None and not by_default:
        return dense
    error = "rounding" if tol is None else f"{tol:g}"
    return NormPlan(
        "low rank",
        f"{dim} dimensions and a tolerance of {error}",
        dense.order,
        max(32, min(int(_RANK_SHARE * min(n, m)), _LARGEST_RANK)),
        torch.finfo(dtype).eps if tol is None else tol,
    )


def _by_threads(plan: NormPlan, batch: int) -> NormPlan:
    """Return the plan with threads over matrices before LAPACK, where LAPACK is next."""
    if "eigen" in plan.order or plan.order[-1] != "svd":
        return plan
    methods = [*plan.order[:-1], "threads", "svd"]
    reason = f"{batch} matrices, one core for each; {plan.reason}"
    return NormPlan(methods[0], reason, tuple(methods[1:]))


def _dense_plan(
    smaller: int, dtype: torch.dtype, device: torch.device, power: float, *, gradient: bool
) -> NormPlan:
    if not gradient:
        return NormPlan("values", "no gradient is asked for, so singular vectors are not needed")
    if dtype != torch.float32:
        return NormPlan("svd", f"{dtype} keeps its accuracy")
    if device.type != "cpu" and power == 1 and smaller >= _LEAST_POLYNOMIAL:
        return NormPlan("polynomial", f"{device.type} is fast at matrix products", ("svd",))
    if rounding_unit(dtype) > torch.finfo(dtype).eps:
        return NormPlan("svd", "other methods rest on products, which torch may form in fewer bits")
    if device.type != "cpu" or smaller < _LEAST_SKETCH:
        return NormPlan("svd", f"a smaller side of {smaller} leaves nothing to gain")
    methods = ["svd"]
    if smaller >= _LEAST_EIGEN:
        methods.insert(0, "eigen")
    if power == 1:
        methods.insert(0, "sketch")
    reason = f"a smaller side of {smaller} pays for "
    reason += "a look at the rank" if power == 1 else "extra steps"
    return NormPlan(methods[0], reason, tuple(methods[1:]))
