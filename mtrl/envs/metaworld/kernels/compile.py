"""The compiler of the kernels, and where its results are kept.

Numba looks only at a function's own file when it decides whether a kept result is still good, not at the functions it
calls. So the folder is named by what all kernels' sources say.
"""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config

from mtrl.envs.metaworld.cache import cache_folder, fingerprint

Function = TypeVar("Function", bound=Callable[..., object])

FOLDER = cache_folder(
    f"kernels-{fingerprint(Path(__file__).parent.rglob('*.py'))}", root=os.environ.get("NUMBA_CACHE_DIR")
)
"""Where compiled kernels are kept; None where nothing can be kept and every process compiles for itself."""

if FOLDER is not None:
    config.CACHE_DIR = str(FOLDER)  # pyright: ignore[reportAttributeAccessIssue] - made at run time


def kernel(function: Function) -> Function:
    """Compile a function at its first call, or load what an earlier process compiled."""
    # error_model: a division by zero gives inf or NaN, as NumPy's does, instead of an exception.
    compiler = numba.njit(cache=FOLDER is not None, nogil=True, error_model="numpy")
    return cast("Function", compiler(inspect.unwrap(function)))  # tests wrap in checks


class Entry:
    """A function that other compiled code calls by its address: one word in, nothing out."""

    def __init__(self, function: Callable[[int], None]) -> None:
        """Compile nothing yet."""
        self._function = function
        self._compiled: Any = None

    @property
    def address(self) -> int:
        """Where the compiled function is; compiles it, or loads what an earlier process compiled."""
        if self._compiled is None:
            signature = numba.types.void(numba.types.uint64)
            self._compiled = numba.cfunc(signature, cache=FOLDER is not None, error_model="numpy")(self._function)
        return self._compiled.address
