"""Products of float32 matrices whose factors are rounded, which some hardware multiplies faster."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["float32", "tf32", "bfloat16"]
"""What factors are rounded to: 24 significant bits, none lost; 11; 8. Results and sums are float32 in each."""

# torch's settings of each kind of hardware. `torch.set_float32_matmul_precision` would be one for all, in which the
# same word means something else on each.
_ON_GPU: Any = torch.backends.cuda.matmul
_ON_CPU: Any = torch.backends.mkldnn.matmul  # pyright: ignore[reportAttributeAccessIssue] - made at run time


def products_in(precision: Precision) -> AbstractContextManager[None]:
    """Let torch round the factors of products of float32 matrices to `precision` while the body runs.

    Holds for the whole process, tf32 on GPUs alone and bfloat16 on CPUs alone; on hardware that has it not, nothing
    changes. Small products and those of float64 stay as they are. float32 leaves torch as it is.
    """
    if precision == "float32":
        return nullcontext()
    return _set(_ON_GPU, "tf32") if precision == "tf32" else _set(_ON_CPU, "bf16")


def round_nothing() -> None:
    """Keep torch from rounding unasked, as TORCH_ALLOW_TF32_CUBLAS_OVERRIDE, set in some containers, lets it."""
    _ON_GPU.fp32_precision = _ON_CPU.fp32_precision = "ieee"


@contextmanager
def unrounded_products() -> Iterator[None]:
    """Keep torch from rounding the factors of products of float32 matrices while the body runs."""
    with _set(_ON_GPU, "ieee"), _set(_ON_CPU, "ieee"):
        yield


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


@contextmanager
def _set(backend: Any, name: str) -> Iterator[None]:
    before = backend.fp32_precision
    backend.fp32_precision = name
    try:
        yield
    finally:
        backend.fp32_precision = before
