"""The arrays that the parent and its worker processes share, in memory without a name: nothing to leak."""

import mmap
import os
import sys
import tempfile
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

IDLE = -1
"""What `progress` holds while a worker waits."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What determines the layout. A row is one environment; rows are ordered by task, then by environment."""

    rows: int
    obs_dim: int
    action_dim: int
    workers: int
    info_names: tuple[str, ...] = ()
    """Columns of `info`."""


@dataclass(frozen=True, kw_only=True)
class SharedArrays:
    """Views of one block of memory.

    The parent writes `action`, `goal` and `broken`, the workers the rest of their own rows.
    """

    rows: Shaped[np.ndarray, " row"]
    """All of the following but `info` and `progress`, as structures of `row_type`."""
    obs: Float[np.ndarray, "row obs"]
    final_obs: Float[np.ndarray, "row obs"]
    action: Float[np.ndarray, "row action"]
    reward: Float[np.ndarray, " row"]
    terminated: Bool[np.ndarray, " row"]
    truncated: Bool[np.ndarray, " row"]
    success: Bool[np.ndarray, " row"]
    valid: Bool[np.ndarray, " row"]
    goal: Int[np.ndarray, " row"]
    """The goal of the next episode, whenever that begins. Between steps that of the present one, which is begun again
    where its worker is lost."""
    broken: Bool[np.ndarray, " row"]
    """Whether the episode was lost with its worker: the next step is none, but begins a new one."""
    info: Float[np.ndarray, "row info"]
    progress: Int[np.ndarray, " worker"]
    """The row a worker is busy with, or `IDLE`: tells which environment hangs or crashed the process."""


def allocate(sizes: Sizes) -> int:
    """Return the descriptor of a zeroed block for `attach`. Close it when all processes have attached."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("mtrl-envs")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _num_bytes(sizes))
    return descriptor


def attach(descriptor: int, sizes: Sizes) -> SharedArrays:
    """Map the block. The memory is freed when the last process has dropped its arrays."""
    memory = mmap.mmap(descriptor, _num_bytes(sizes))
    rows = np.frombuffer(memory, row_type(sizes.obs_dim, sizes.action_dim), count=sizes.rows)
    return SharedArrays(
        rows=rows,
        obs=rows["obs"],
        final_obs=rows["final_obs"],
        action=rows["action"],
        reward=rows["reward"],
        terminated=rows["terminated"],
        truncated=rows["truncated"],
        success=rows["success"],
        valid=rows["valid"],
        goal=rows["goal"],
        broken=rows["broken"],
        info=np.ndarray((sizes.rows, len(sizes.info_names)), np.float64, memory, offset=rows.nbytes),
        progress=np.ndarray(sizes.workers, np.int64, memory, offset=_num_bytes(sizes) - 8 * sizes.workers),
    )


def row_type(obs_dim: int, action_dim: int) -> np.dtype:
    """Return the layout of one environment's row."""
    fields = [
        ("obs", np.float32, (obs_dim,)),
        ("final_obs", np.float32, (obs_dim,)),
        ("action", np.float32, (action_dim,)),
        ("reward", np.float32),
        ("terminated", np.bool_),
        ("truncated", np.bool_),
        ("success", np.bool_),
        ("valid", np.bool_),
        ("goal", np.int64),
        ("broken", np.bool_),
    ]
    return np.dtype(fields, align=True)


def _num_bytes(sizes: Sizes) -> int:
    row_bytes = row_type(sizes.obs_dim, sizes.action_dim).itemsize + 8 * len(sizes.info_names)
    return sizes.rows * row_bytes + 8 * sizes.workers
