"""Rows in the units that models learn in."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """What a model learns from.

    Attributes:
        x: Standardised rows with shape ``(n, p)``, float32.
        y: Standardised targets with shape ``(n, d)``, float32.
        weight: Weights of the rows with mean one, shape ``(n,)``.
    """

    x: Tensor
    y: Tensor
    weight: Tensor
