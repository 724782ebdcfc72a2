"""The arrays that the parent and its worker processes share, in memory without a name: nothing to leak."""

import math
import mmap
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

CACHE_LINE = 64
"""Bytes; every array begins on its own line, so that neighbours do not slow each other down."""

IDLE = -1
"""What `progress` holds while a worker waits."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What determines the layout. A row is one environment; rows are ordered by task, then by environment."""

    rows: int
    obs_dim: int
    action_dim: int
    workers: int


@dataclass(frozen=True, kw_only=True)
class SharedArrays:
    """Views of one block of memory. The parent writes `action` and `goal`, the workers the rest of their own rows."""

    obs: Float[np.ndarray, "row obs"]
    final_obs: Float[np.ndarray, "row obs"]
    action: Float[np.ndarray, "row action"]
    reward: Float[np.ndarray, " row"]
    terminated: Bool[np.ndarray, " row"]
    truncated: Bool[np.ndarray, " row"]
    success: Bool[np.ndarray, " row"]
    valid: Bool[np.ndarray, " row"]
    goal: Int[np.ndarray, " row"]
    """The goal of the next episode, whenever that begins."""
    progress: Int[np.ndarray, " worker"]
    """The row a worker is busy with, or `IDLE`: tells which environment hangs or crashed the process."""


def allocate(sizes: Sizes) -> int:
    """Return the descriptor of a zeroed block for `attach`. Close it when all processes have attached."""
    num_bytes = _num_bytes(sizes)
    if sys.platform == "linux":
        descriptor = os.memfd_create("mtrl-envs")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, num_bytes)
    return descriptor


def attach(descriptor: int, sizes: Sizes) -> SharedArrays:
    """Map the block. The memory is freed when the last process has dropped its arrays."""
    memory = mmap.mmap(descriptor, _num_bytes(sizes))
    offset = 0

    def take(dtype: type, *shape: int) -> np.ndarray:
        nonlocal offset
        array = np.frombuffer(memory, dtype, count=math.prod(shape), offset=offset).reshape(shape)
        offset += _padded(array.nbytes)
        return array

    return _lay_out(sizes, take)


def _lay_out(sizes: Sizes, take: Callable[..., np.ndarray]) -> SharedArrays:
    return SharedArrays(
        obs=take(np.float32, sizes.rows, sizes.obs_dim),
        final_obs=take(np.float32, sizes.rows, sizes.obs_dim),
        action=take(np.float32, sizes.rows, sizes.action_dim),
        reward=take(np.float32, sizes.rows),
        terminated=take(np.bool_, sizes.rows),
        truncated=take(np.bool_, sizes.rows),
        success=take(np.bool_, sizes.rows),
        valid=take(np.bool_, sizes.rows),
        goal=take(np.int64, sizes.rows),
        progress=take(np.int64, sizes.workers),
    )


def _num_bytes(sizes: Sizes) -> int:
    total = 0

    def count(dtype: type, *shape: int) -> np.ndarray:
        nonlocal total
        total += _padded(math.prod(shape) * np.dtype(dtype).itemsize)
        return np.empty(0, dtype)

    _lay_out(sizes, count)
    return total


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // CACHE_LINE) * CACHE_LINE
