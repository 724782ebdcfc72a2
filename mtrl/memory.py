"""Keep freed memory in the process, so that large tensors do not fault in fresh pages at every update."""

import ctypes
import sys

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_GIBIBYTE = 2**30


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
