"""Eigenvalues and eigenvectors of symmetric (task, task) matrices, without waiting for the device.

Torch's solver asks an accelerator whether it has succeeded, which stalls the host and cannot be captured in a graph.
There Jacobi's method serves, whose fixed number of steps suffices for fifty tasks and twelve decades between rows.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Eigen = tuple[Float[Tensor, " task"], Float[Tensor, "task task"]]
"""Eigenvalues, ascending, and the eigenvectors in columns."""

# Entries below this, relative to the largest, are noise. Rotations by noise would mix equal eigenvalues, such as the
# zeros of a rank-deficient matrix, anew in every sweep, and stop the others from settling.
_NOISE = 1e-16


def eigh(matrix: Float[Tensor, "task task"]) -> Eigen:
    """Return eigenvalues and eigenvectors of a symmetric matrix."""
    if matrix.device.type == "cpu":
        eigenvalues, V = torch.linalg.eigh(matrix)
        return eigenvalues, V
    return jacobi(matrix)


def eigvalsh(matrix: Float[Tensor, "task task"]) -> Float[Tensor, " task"]:
    """Return the eigenvalues of a symmetric matrix, ascending."""
    return torch.linalg.eigvalsh(matrix) if matrix.device.type == "cpu" else jacobi(matrix)[0]


def jacobi(matrix: Float[Tensor, "task task"]) -> Eigen:
    """Compute what `eigh` does by Jacobi's method, on any device, in steps that only the size decides on.

    Every round turns T/2 disjoint pairs of columns at once; in a sweep of T - 1 rounds (T for an odd T) each pair has
    its turn. Eigenvalues are accurate to about 1e-14 times the largest. Eleven operations per round: 800 in all for ten
    tasks, 5400 for fifty. Finite numbers never give NaN.

    Source: Brent, Luk, "The Solution of Singular-Value and Symmetric Eigenvalue Problems on Multiprocessor Arrays",
    SIAM J. Sci. Stat. Comput. 1985. The step of the QR algorithm before it, on descending diagonal entries, is ours,
    after Drmac, Veselic, "New Fast and Accurate Jacobi SVD Algorithm", 2008: fifty eigenvalues over twelve decades
    settle in 6 sweeps with it, and not in 13 without.
    """
    size = len(matrix)
    half = (size + 1) // 2
    identity = torch.eye(2 * half, dtype=matrix.dtype, device=matrix.device)
    scale = matrix.abs().amax()
    order = matrix.diagonal().argsort(descending=True)
    A = (matrix / torch.where(scale > 0, scale, 1.0))[order][:, order]
    Q, _ = torch.linalg.qr(A)
    # An odd size is filled up by a row and column of zeros, which no rotation touches.
    fill = (0, 2 * half - size)
    A = torch.nn.functional.pad(Q.T @ A @ Q, fill * 2)
    V = torch.nn.functional.pad(identity[:size, :size][:, order] @ Q, fill)

    # The pairs of a round are the columns k and k + half, which R turns and then moves to their places in the next one:
    # cosines where `stay` has ones, sines where `cross` has them, of +angle in the upper half and -angle in the lower.
    stay = torch.stack([identity[:, column] for column in _next_places(half)], 1)
    cross = stay.roll(half, 0)
    phase = (stay * math.pi / 2).view(2, half, 2 * half)
    factor = (stay + cross).view(2, half, 2 * half)
    factor = torch.stack([factor[0], -factor[1]]) / 2
    for _ in range(_num_sweeps(size) * (2 * half - 1)):
        first, second = A.diagonal().split(half)
        coupling = torch.nn.functional.hardshrink(A.diagonal(half), _NOISE)
        double_angle = (2 * coupling / (second - first)).nan_to_num(0.0).atan()
        R = torch.addcmul(phase, factor, double_angle[:, None]).sin().view_as(identity)
        A = R.T @ A @ R
        V = V @ R
    eigenvalues, order = A.diagonal()[:size].sort()
    return eigenvalues * scale, V[:, order]


def _num_sweeps(size: int) -> int:
    """Return as many sweeps as the slowest of many kinds of matrices takes; Gramians take two or three less."""
    return 4 + (size - 1).bit_length()


def _next_places(half: int) -> list[int]:
    """Return which column takes each place in the next round: all but the first go round in a ring of two rows."""
    if half == 1:
        return [0, 1]
    return [0, half, *range(1, half - 1), *range(half + 1, 2 * half), half - 1]
