"""The compiler of the kernels, and where its results are kept.

Numba looks only at a function's own file when it decides whether a kept result is still good, not at the functions it
calls. So the folder is named by what all kernels' sources say.
"""

import hashlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config

Function = TypeVar("Function", bound=Callable[..., object])


def cache_folder() -> Path:
    """Return this user's folder for what need not be computed again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mtrl"


def _fingerprint() -> str:
    sources = sorted(Path(__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


config.CACHE_DIR = os.environ.get("NUMBA_CACHE_DIR") or str(cache_folder() / f"kernels-{_fingerprint()}")  # pyright: ignore[reportAttributeAccessIssue] - made at run time


def kernel(function: Function) -> Function:
    """Compile a function at its first call, or load what an earlier process compiled."""
    # error_model: a division by zero gives inf or NaN, as NumPy's does, instead of an exception.
    compiled = numba.njit(cache=True, nogil=True, error_model="numpy")(inspect.unwrap(function))  # tests wrap in checks
    return cast("Function", compiled)


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
            self._compiled = numba.cfunc(signature, cache=True, error_model="numpy")(self._function)
        return self._compiled.address
