"""Random streams that depend on a seed and a name, never on earlier draws.

A training step draws its noise from the stream ``(seed, "noise", step)``. So a resumed run draws
the same numbers as an uninterrupted one, and no random state has to be stored.

Torch's initialisers use the global generator only. :func:`seeded_globally` seeds it and then
restores its state.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, NamedTuple

import torch
from torch import Tensor


def stream(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for the stream ``names`` of a seed.

    >>> a, b = stream(0, "noise", 1), stream(0, "noise", 1)
    >>> bool(torch.rand(1, generator=a) == torch.rand(1, generator=b))
    True
    """
    digest = blake2b(repr((seed, *names)).encode(), digest_size=8).digest()
    # Torch takes seeds below 2**63 on every device.
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


class Part(NamedTuple):
    """A generator that draws for a whole batch. One worker uses some of its rows.

    All workers draw the same numbers as one process would, and each keeps its own.

    Args:
        generator: The generator of the whole batch.
        rows: The rows of this worker.
        total: How many rows the whole batch has.
    """

    generator: torch.Generator
    rows: range
    total: int


#: What draws noise: torch's own generator (``None``), one of a stream, or a part of one's draws.
Source = torch.Generator | Part | None


def normal(shape: Sequence[int], source: Source, **options: Any) -> Tensor:
    """Draw standard normal numbers. If a part draws them, the first axis counts its rows.

    Args:
        shape: The shape of the numbers.
        source: What draws them.
        **options: The dtype and the device.

    >>> whole = normal((4, 2), stream(0, "noise"))
    >>> torch.equal(normal((2, 2), Part(stream(0, "noise"), range(1, 3), 4)), whole[1:3])
    True
    """
    if not isinstance(source, Part):
        return torch.randn(*shape, generator=source, **options)
    whole = torch.randn(source.total, *shape[1:], generator=source.generator, **options)
    return whole[source.rows.start : source.rows.stop]


@contextmanager
def seeded_globally(seed: int) -> Iterator[None]:
    """Seed the CPU's global generator inside a ``with`` block, and restore its state at the end.

    This is for code that only draws from the global generator, such as torch's initialisers.

    >>> before = torch.get_rng_state()
    >>> with seeded_globally(0):
    ...     one = torch.nn.Linear(2, 1).weight
    >>> with seeded_globally(0):
    ...     other = torch.nn.Linear(2, 1).weight
    >>> torch.equal(one, other), torch.equal(torch.get_rng_state(), before)
    (True, True)
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def choose(
    weights: Tensor, sample_shape: torch.Size, generator: torch.Generator | None
) -> tuple[Tensor, ...]:
    """Draw components of mixtures by their weights, with shape ``(*batch, K)``.

    Returns:
        Indices into the leading axes of any tensor with shape ``(*batch, K, ...)``. The selected
        entries have shape ``(*sample, *batch, ...)``.
    """
    batch_shape, shape = weights.shape[:-1], (*sample_shape, *weights.shape[:-1])
    if 0 in shape:  # torch refuses to draw nothing
        chosen = torch.zeros(shape, dtype=torch.long, device=weights.device)
    else:
        rows = weights.detach().reshape(-1, weights.shape[-1])
        count = math.prod(sample_shape)
        chosen = torch.multinomial(rows, count, replacement=True, generator=generator)
        chosen = chosen.T.reshape(shape)
    axes = [torch.arange(n, device=weights.device) for n in batch_shape]
    return (*(torch.meshgrid(*axes, indexing="ij") if axes else ()), chosen)
