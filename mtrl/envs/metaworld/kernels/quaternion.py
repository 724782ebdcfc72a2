"""Orientations, to the last bit as SciPy computes them."""

import math

import numpy as np
from jaxtyping import Float

from mtrl.envs.metaworld.kernels.compile import kernel


@kernel
def from_matrix(matrix: Float[np.ndarray, " 9"], quat: Float[np.ndarray, " 4"]) -> None:
    """Write `scipy.spatial.transform.Rotation.from_matrix(matrix).as_quat()`, scalar last, for an orthonormal matrix.

    Shepperd's method: the largest component from the diagonal, the others from sums and differences across it.
    """
    trace = matrix[0] + matrix[4] + matrix[8]
    choice, largest = 0, matrix[0]
    for i in range(1, 4):
        candidate = trace if i == 3 else matrix[4 * i]
        if candidate > largest:
            choice, largest = i, candidate
    if choice == 3:
        quat[0] = matrix[7] - matrix[5]
        quat[1] = matrix[2] - matrix[6]
        quat[2] = matrix[3] - matrix[1]
        quat[3] = 1 + trace
    else:
        i, j, k = choice, (choice + 1) % 3, (choice + 2) % 3
        quat[i] = 1 - trace + 2 * matrix[4 * i]
        quat[j] = matrix[3 * j + i] + matrix[3 * i + j]
        quat[k] = matrix[3 * k + i] + matrix[3 * i + k]
        quat[3] = matrix[3 * k + j] - matrix[3 * j + k]
    norm = math.sqrt(quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3])
    for i in range(4):
        quat[i] /= norm
