"""The settings of the high-dimensional bound: data, training, and how often it is drawn."""

from typing import Any

from hilbound.experiments.base import Settings


class Source(Settings):
    """One data set, and the training that its model gets."""

    title: str
    data: str
    image_size: int = 0  # or as they are
    steps: int
    batch_size: int
    width: int

    @property
    def image_options(self) -> dict[str, Any]:
        """What makes the images another size."""
        return {"image_size": self.image_size} if self.image_size else {}


class HighSettings(Settings):
    """What is trained, and what is measured."""

    sources: tuple[Source, ...]
    variance: str = "0.3*median"
    #: Centres, and how often as many are drawn.
    draws: tuple[tuple[int, int], ...] = ((256, 16), (1024, 6), (4096, 3))
    #: As parts of the kernel variance of the training.
    factors: tuple[float, ...] = (1 / 3, 1.0, 3.0)
    probe: int = 2048
    groups: int = 16
    oracle: int = 300
