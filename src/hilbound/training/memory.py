"""What a step of training needs at the least, against what the machine has.

A training that outgrows the memory is killed without a word, so it is refused before it starts.
"""

import torch

from hilbound.config import RunConfig
from hilbound.engine.memory import machine_memory
from hilbound.engine.spectrum.plan import LARGEST_DIM
from hilbound.errors import InputError

# Objectives that hold the whole Gram matrix of a batch, and once more for its gradient.
_WHOLE = frozenset({"schatten", "debiased", "schur", "joint-nuclear"})


def least_memory(config: RunConfig, dim: int, blocks: int = 1) -> int:
    """Return a lower bound of the bytes that a step needs: nothing is counted that may be spared.

    Args:
        config: The options, with the batch that fits the data.
        dim: Coordinates of a row.
        blocks: Classes or clusters that are compared apart: a Gram matrix for each.

    >>> least_memory(RunConfig(data="moons", batch_size=1000, width=8, depth=1), 2) // 1000
    96
    """
    size = 8 if config.precision == "64-true" else 4
    every = config.slices or config.batch_size
    if config.model == "mixture-density-network":
        every = 1
    code = blocks if blocks > 1 else 0
    own = config.rows_per_slice if config.slices or every == 1 else 1
    centers = every * (config.centers or own)
    # Backward wants every hidden layer; a convolution has at least as many numbers.
    hidden = config.width * config.depth + dim
    numbers = 2 * centers * hidden + 2 * config.batch_size * dim + centers * code
    parts = config.slices or blocks
    if config.objective == "debiased" and parts == 1:
        # Matrices of halves, one after another. In few coordinates they are not formed at all.
        numbers += config.batch_size * centers // 2 if dim > LARGEST_DIM else 0
    elif config.objective in _WHOLE:
        numbers += 2 * config.batch_size * centers // parts
    return numbers * size


def refuse_too_large(config: RunConfig, dim: int, blocks: int = 1) -> None:
    """Raise an InputError if a step cannot fit into the memory of this machine.

    An accelerator has a memory of its own, and says itself when it is full.
    """
    elsewhere = torch.cuda.is_available() or torch.backends.mps.is_available()
    available = machine_memory()
    if available is None or (elsewhere and config.accelerator != "cpu"):
        return
    needed = least_memory(config, dim, blocks)
    if needed > available:
        raise InputError(
            f"batch_size {config.batch_size} and {config.centers or 'as many'} centers need at "
            f"least {needed / 2**30:.0f} GiB in every step, and this machine has "
            f"{available / 2**30:.0f} GiB: lower --batch-size, --centers or --width"
        )


def refuse_too_many(n: int, config: RunConfig, dim: int) -> None:
    """Raise an InputError if so many samples, and the layers that make them, cannot be held.

    Args:
        n: How many samples.
        config: The options of the run.
        dim: Coordinates of a sample.
    """
    available = machine_memory()
    # A layer is made from the one before it, and what is drawn is kept in float64.
    row = 4 * (dim + (2 * config.width if config.depth else 0)) + 8 * dim
    if available is not None and n * row > available:
        raise InputError(
            f"{n:,} samples need at least {n * row / 2**30:.0f} GiB, and this machine has "
            f"{available / 2**30:.0f} GiB: draw at most {available // row:,} at once, and others "
            "with another --seed"
        )
