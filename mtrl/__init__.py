"""Multi-task reinforcement learning with a choice of gradient aggregation.

Importing this package imports nothing heavy; `mtrl.backward` is imported when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtrl.autograd import backward

__all__ = ["__version__", "backward"]

__version__ = "0.1.0.dev0"

_LAZY = {"backward": "mtrl.autograd"}


def __getattr__(name: str) -> object:
    """Import a public name from the module that holds it (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    """List the public names, those not imported yet included."""
    return sorted(__all__)
