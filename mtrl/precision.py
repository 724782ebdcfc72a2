"""Products of float32 matrices whose factors are rounded, which some hardware multiplies faster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

Precision = Literal["float32", "tf32", "bfloat16"]
"""What factors are rounded to: 24 significant bits, none lost; 11; 8. Results and sums are float32 in each."""

# torch's setting of each kind of hardware, and its word for the one precision below float32 that is offered there.
# `torch.set_float32_matmul_precision` would be one for all hardware, where each word means something else.
_BACKENDS: dict[str, tuple[Any, str]] = {
    "tf32": (torch.backends.cuda.matmul, "tf32"),
    "bfloat16": (torch.backends.mkldnn.matmul, "bf16"),  # pyright: ignore[reportAttributeAccessIssue] - made at run time
}


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """Let torch round the factors of products of float32 matrices to `precision` while the body runs.

    Holds for the whole process, tf32 on GPUs alone and bfloat16 on CPUs alone; on hardware that has it not, nothing
    changes. Small products, those with vectors and all of float64 stay as they are. float32 leaves torch as it is.
    """
    if precision == "float32":
        yield
        return
    backend, name = _BACKENDS[precision]
    before = backend.fp32_precision
    backend.fp32_precision = name
    try:
        yield
    finally:
        backend.fp32_precision = before


def has_precision(device: torch.device, precision: Precision) -> bool:
    """Return whether products on `device` can be faster in `precision`; of float32, whether they can be made at all."""
    if precision == "float32":
        return True
    if precision == "tf32":
        return device.type == "cuda" and torch.cuda.is_tf32_supported()
    return device.type == "cpu" and _rounds_to_bfloat16()


def _rounds_to_bfloat16() -> bool:
    """Multiply, and look: torch has no function that tells."""
    factor = torch.full((64, 64), 1 + 2**-12)  # in bfloat16 it is 1
    with products_in("bfloat16"):
        return bool(((factor @ factor) == 64).all())
