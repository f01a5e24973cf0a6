"""Random streams that are functions of a seed and a name, never of what ran before.

A training step draws its noise from the stream ``(seed, "noise", step)``. So a run that was
interrupted and resumed sees the same numbers as one that was not, and nothing has to be stored.
"""

from hashlib import blake2b

import torch


def stream(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a fresh generator for the stream ``names`` of a seed.

    >>> a, b = stream(0, "noise", 1), stream(0, "noise", 1)
    >>> bool(torch.rand(1, generator=a) == torch.rand(1, generator=b))
    True
    """
    digest = blake2b(repr((seed, *names)).encode(), digest_size=8).digest()
    # Torch takes seeds below 2**63 on every device.
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)
