"""The arithmetic of Meta-World's rewards (`metaworld.utils.reward_utils`), for compiled kernels.

Where stock rewards touch the action, a float32, NumPy computes the rest of the expression in float32. `rounded` does
what that does: with `is_single` the result of ONE operation is rounded to float32, which is exactly the operation
in float32 where its operands are.
"""

import math

import numpy as np
from jaxtyping import Float

from mtrl.envs.metaworld.kernels.compile import kernel

_SCALE_AT_MARGIN = math.sqrt(1 / 0.1 - 1)
"""Of the long tail: value 0.1 at the margin."""

_GAUSSIAN_SCALE_AT_MARGIN = math.sqrt(-2 * math.log(0.1))


@kernel
def rounded(value: float, is_single: bool) -> float:
    """Return the value, rounded to float32 where the operation it came from is one in float32."""
    return float(np.float32(value)) if is_single else value


@kernel
def distance(a: Float[np.ndarray, " 3"], b: Float[np.ndarray, " 3"]) -> float:
    """Return the Euclidean distance of two points."""
    return math.sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2)


@kernel
def distance_in_plane(a: Float[np.ndarray, " 3"], b: Float[np.ndarray, " 3"], i: int, j: int) -> float:
    """Return the distance of two points in the plane of two axes."""
    return math.sqrt((a[i] - b[i]) ** 2 + (a[j] - b[j]) ** 2)


@kernel
def long_tail(x: float, lower: float, upper: float, margin: float) -> float:
    """Return `tolerance` with sigmoid="long_tail": 1 in the bounds, 0.1 a margin outside.

    A margin of 0 gives 0 outside; where stock raises, for a negative margin, the result is NaN.
    """
    if lower <= x <= upper:
        return 1.0 if margin >= 0 else math.nan
    if margin == 0:
        return 0.0
    if margin < 0:
        return math.nan
    d = (lower - x if x < lower else x - upper) / margin
    return 1 / ((d * _SCALE_AT_MARGIN) ** 2 + 1)


@kernel
def gaussian(x: float, lower: float, upper: float, margin: float) -> float:
    """Return `tolerance` with sigmoid="gaussian": 1 in the bounds, 0.1 a margin outside. Margins as in `long_tail`."""
    if lower <= x <= upper:
        return 1.0 if margin >= 0 else math.nan
    if margin == 0:
        return 0.0
    if margin < 0:
        return math.nan
    d = (lower - x if x < lower else x - upper) / margin
    return math.exp(-0.5 * (d * _GAUSSIAN_SCALE_AT_MARGIN) ** 2)


@kernel
def hamacher_product(a: float, b: float, is_single: bool = False) -> float:
    """Return the Hamacher product of two numbers in [0, 1], in float32 where `is_single`."""
    a, b = rounded(a, is_single), rounded(b, is_single)
    product = rounded(a * b, is_single)
    denominator = rounded(rounded(a + b, is_single) - product, is_single)
    return 0.0 if denominator <= 0 else rounded(product / denominator, is_single)  # what is no number stays none


@kernel
def scaled_distance(a: Float[np.ndarray, " 3"], b: Float[np.ndarray, " 3"], scale: tuple[float, float, float]) -> float:
    """Return the distance of two points where each axis counts by a factor."""
    return math.sqrt(
        ((a[0] - b[0]) * scale[0]) ** 2 + ((a[1] - b[1]) * scale[1]) ** 2 + ((a[2] - b[2]) * scale[2]) ** 2
    )


@kernel
def quat_error(quat: Float[np.ndarray, " 4"]) -> float:
    """Return how far an orientation is from lying flat: the distance in the space of quaternions."""
    return math.sqrt((quat[0] - 0.707) ** 2 + quat[1] ** 2 + quat[2] ** 2 + (quat[3] - 0.707) ** 2)


@kernel
def length(vector: Float[np.ndarray, " 3"]) -> float:
    """Return the Euclidean norm of a vector."""
    return math.sqrt(vector[0] ** 2 + vector[1] ** 2 + vector[2] ** 2)
