"""Memory: how much is free, keeping what was freed, and the way to a GPU's."""

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_GIBIBYTE = 2**30

_UNLIMITED = 2**63


def keep_freed_memory() -> bool:
    """Tell glibc to serve large blocks from its heap and not to give them back to the system; say if that worked.

    Per-task gradients are tens of megabytes that are allocated and freed at every update. By default glibc maps and
    unmaps them each time, and touching the fresh pages took 10 to 15% of the gradient's time (scripts/bench_gradients).
    Does nothing on other systems, and no more than once.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _GIBIBYTE)) and bool(mallopt(_M_TRIM_THRESHOLD, 2 * _GIBIBYTE - 1))


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Return the array on the device, to which it is on its way: nobody waits. On the CPU nothing is copied."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def free_bytes(device: torch.device) -> int:
    """Return the free memory of `device` in bytes; on the CPU the least of what Linux and the job's limits allow."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([_available_to_system(), *_available_to_groups()])


def _available_to_system() -> int:
    """Return what Linux calls available memory, in bytes; unlimited where that is unknown."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux
        return _UNLIMITED


def _available_to_groups(
    root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> Iterator[int]:
    """Yield what is left of every memory limit this process lives under: container, job, service.

    Page cache that can be dropped counts as free.
    """
    try:
        lines = membership.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, limit, usage, cache = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, usage, cache = (
                root / "memory",
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
        else:
            continue
        group = base / path.strip("/")
        for folder in [group, *group.parents]:
            if folder == root.parent:
                break
            try:
                stat = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                used = int((folder / usage).read_text()) - int(stat.get(cache, 0))
                yield int((folder / limit).read_text()) - used
            except (OSError, ValueError):  # no such group here, or no limit ("max")
                continue
