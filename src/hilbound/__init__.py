"""hilbound: train density models on contrastive entropy bounds, and see how tight each bound is.

Names are loaded when they are first used, so ``import hilbound`` and ``hilbound --help`` are quick.
All public names are listed in ``__init__.pyi``, which type checkers read, too.
"""

from pathlib import Path

import lazy_loader

__version__ = "0.1.0"

__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __dir__() -> list[str]:
    return sorted(__all__)


# For one release, modules that moved can also be imported under their former names.
__path__.append(str(Path(__file__).parent / "_former"))
