"""The compiler of the kernels, and where its results are kept.

Numba looks only at a function's own file when it decides whether a kept result is still good, not at the functions it
calls. So the folder is named by what all kernels' sources say.
"""

import contextlib
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import config
from numba.core.caching import FunctionCache
from numba.core.ccallback import CFunc

from mtrl.envs.metaworld.cache import cache_folder, fingerprint, warn_not_kept

Function = TypeVar("Function", bound=Callable[..., object])

FOLDER = cache_folder(
    f"kernels-{fingerprint(Path(__file__).parent.rglob('*.py'))}", root=os.environ.get("NUMBA_CACHE_DIR")
)
"""Where compiled kernels are kept; None where nothing can be kept and every process compiles for itself."""

if FOLDER is not None:
    config.CACHE_DIR = str(FOLDER)  # pyright: ignore[reportAttributeAccessIssue] - made at run time


def kernel(function: Function) -> Function:
    """Compile a function at its first call, or load what an earlier process compiled."""
    plain = inspect.unwrap(function)  # tests wrap in checks
    # error_model: a division by zero gives inf or NaN, as NumPy's does, instead of an exception.
    compiled = numba.njit(nogil=True, error_model="numpy")(plain)
    _keep(compiled, plain)
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
            self._compiled = CFunc(
                self._function, ((numba.types.uint64,), numba.types.void), {}, {"error_model": "numpy"}
            )
            _keep(self._compiled, self._function)
            self._compiled.compile()
        return self._compiled.address


class _KernelCache(FunctionCache):
    """Numba's own files of one function. What cannot be read is compiled, what cannot be written is not kept.

    They carry no hash, as those of `Store` do: a changed byte that Numba can read goes unnoticed.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return what an earlier process compiled; None where that is nothing, or damaged, which is then replaced."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # noqa: BLE001 - reading a damaged file may raise anything
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was compiled; warn where that fails."""
        try:
            super().save_overload(sig, data)
        except Exception as problem:  # noqa: BLE001 - it reads a damaged file before it writes
            warn_not_kept(f"cannot write in {FOLDER}: {getattr(problem, 'strerror', None) or problem}")


def _keep(compiled: Any, function: Callable[..., object]) -> None:
    """Let a function of Numba's look for its code among the files, and keep it there."""
    if FOLDER is not None:
        compiled._cache = _KernelCache(function)  # noqa: SLF001 - in the place of Numba's, which raises
