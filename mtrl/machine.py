"""What this machine offers, in numbers: cores, disk, shared memory. Reads only, and needs no other package."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FSYNC_BYTES = 4096
_FSYNCS = 3


def usable_cores() -> int:
    """Return how many processes can work at full speed side by side, at least 1; a limit of their time counts too."""
    quota = cpu_quota()
    return allowed_cores() if quota is None else min(allowed_cores(), max(1, int(quota)))


def allowed_cores() -> int:
    """Return how many cores this process may run on, not how many the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return how many cores' time the limits of container, job and service leave, None where they set no limit."""
    try:
        lines = membership.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    return min((quota for line in lines for quota in _quotas(root, *line.split(":", 2)[1:])), default=None)


def _quotas(root: Path, controllers: str, path: str) -> Iterator[float]:
    """Yield the limits of one line of /proc/self/cgroup: of the group and of all above it."""
    if controllers and "cpu" not in controllers.split(","):
        return
    base = root / "cpu" if controllers else root
    group = base / path.strip("/")
    for folder in (group, *group.parents):
        if folder == root.parent:
            return
        try:
            if controllers:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            else:
                quota, period = (folder / "cpu.max").read_text().split()
            if int(quota) > 0:
                yield int(quota) / int(period)
        except (OSError, ValueError):  # no such group here, or no limit ("max")
            continue


def load() -> float | None:
    """Return how many processes have wanted a core during the last minute, None where that is unknown."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


class Space(NamedTuple):
    """A file system's size, in bytes."""

    free: int
    """For this user."""
    total: int


def space(folder: Path) -> Space | None:
    """Return the size of the file system of `folder`, None where there is no such folder."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def fsync_seconds(folder: Path) -> float:
    """Time how long a small file in `folder` takes to be on the disk, the median of a few; leaves nothing there.

    Raises:
        OSError: Nothing can be written there.
    """
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_FSYNCS):
            start = time.perf_counter()
            file.write(bytes(_FSYNC_BYTES))
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - start)
    return sorted(times)[_FSYNCS // 2]


def has_nvidia_driver() -> bool:
    """Return whether Linux has loaded NVIDIA's driver, whatever torch sees."""
    return Path("/proc/driver/nvidia/version").exists()
