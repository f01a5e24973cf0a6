"""hilbound: train density models on contrastive entropy bounds, and see how tight each bound is.

Names are loaded when they are first used, so that ``import hilbound`` and ``hilbound --help`` pay
for nothing that they don't need. What there is stands in ``__init__.pyi``, once, where type
checkers read it, too.
"""

from pathlib import Path

import lazy_loader

__version__ = "0.1.0"

__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __dir__() -> list[str]:
    return sorted(__all__)


# Modules that moved into rooms answer under their former names for one release.
__path__.append(str(Path(__file__).parent / "_former"))
