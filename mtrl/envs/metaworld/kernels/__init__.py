"""Observations and rewards of Meta-World's tasks as compiled functions."""

import importlib
from types import ModuleType


def load(task_name: str) -> ModuleType:
    """Return the module of a task such as "pick-place-v3"."""
    return importlib.import_module(f"{__name__}.tasks.{task_name.removesuffix('-v3').replace('-', '_')}")
