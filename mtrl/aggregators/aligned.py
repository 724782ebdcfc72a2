"""Aligned-MTL: make the gradient system orthonormal up to a common scale, then sum it with the task weights."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.aggregators.base import WeightedAggregator, check_task_weights
from mtrl.aggregators.host import on_host
from mtrl.aggregators.system import Aggregation, GradientSystem, cosines

ScaleMode = Literal["min", "median", "rmse"]

COSINE_EPS = torch.finfo(torch.float32).eps ** 2
"""Where a row of float32 is a multiple of another, rounding leaves a component of 3e-8 of its length, which is no
direction to be aligned: an eigenvalue of some 1e-15 of the cosines, which unlike the Gramian know no lengths."""


class Aligned(WeightedAggregator):
    """Align the orthogonal components of the gradient system (Aligned-MTL).

    With the Gramian G = V diag(lambda) V^T of the task gradients J, the balance matrix B = s V diag(lambda^-1/2) V^T
    turns independent rows into B J, which are orthogonal and equally long: their condition number is 1. The direction
    is w^T B J. It descends the weighted total loss sum_i w_i L_i, so that w chooses the trade-off; it may still
    conflict with an original row. Dependent rows become a scaled projection, of the rank that `rank_eps` counts.

    With `scale_mode=min` the direction is no longer than the smallest kept singular value times ||w||. So it gets short
    next to every point where the gradients are dependent, Pareto-stationary ones among them, and descent without noise
    may take very long to pass. With noisy gradients and Adam, as in training, it arrives where w says.

    Source: Senushkin, Patakin, Kuznetsov, Konushin, "Independent Component Alignment for Multi-Task Learning", CVPR
    2023, algorithm 1. Differs from the official code, which ignores w and sums the aligned rows (T times ours at w =
    1/T) and takes its rank tolerance from the default dtype instead of the Gramian's.

    Cost: T^3 for the eigenvalues of the Gramian.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Aligned-MTL (Senushkin et al. 2023): gradients made orthogonal and equally long."""

        scale_mode: ScaleMode = "min"
        """Common length s of the aligned gradients: the smallest singular value (the paper), the lower median, or the
        root mean square of all."""
        weights: tuple[float, ...] | None = None
        """Weight of each task, used as given; by default 1/T each. They choose the trade-off between tasks."""
        rank_eps: float | None = None
        """Eigenvalues below the largest one times T times this count as zero; by default the Gramian's own precision
        (2.2e-16), and no more than the gradients' directions are independent of one another in float32. The official
        code uses 1.2e-7."""

        def __post_init__(self) -> None:
            """Check what does not depend on the number of tasks."""
            check_task_weights(self.weights)
            if self.rank_eps is not None and not 0 < self.rank_eps < 1:
                raise ValueError(f"rank_eps must lie between 0 and 1, got {self.rank_eps}")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return B w as weights and B as mixing."""
        assert system.gramian is not None, "the need of this method is the Gramian"
        balance = balance_matrix(system.gramian, self.config.scale_mode, self.config.rank_eps)
        return Aggregation(weights=balance @ self.task_weights, mixing=balance)


@on_host
def balance_matrix(
    gramian: Float[Tensor, "task task"], scale_mode: ScaleMode = "min", rank_eps: float | None = None
) -> Float[Tensor, "task task"]:
    """Compute B = s V diag(lambda^-1/2) V^T over the numerically non-zero eigenvalues of the Gramian.

    A zero row keeps weight 0 and does not disturb the others. A zero Gramian gives B = 0.

    Args:
        gramian: Of rows in float32 or better.
        scale_mode: Which singular value becomes that of all.
        rank_eps: Eigenvalues below the largest one times T times this count as zero. By default the Gramian's own
            precision, and as many as the cosines have above `COSINE_EPS`.

    Source: Senushkin et al. 2023, algorithm 1.
    """
    eps = torch.finfo(gramian.dtype).eps if rank_eps is None else rank_eps
    eigenvalues, V = torch.linalg.eigh(gramian)
    keep = eigenvalues > eigenvalues[-1] * gramian.shape[0] * eps
    if rank_eps is None:
        keep = keep & _is_independent(gramian)
    inverse_root = torch.where(keep, eigenvalues, 1.0).rsqrt() * keep
    balance = _scale(eigenvalues, keep, scale_mode) * (V * inverse_root) @ V.T
    # Exact zeros for zero rows, where the eigenvectors carry rounding noise.
    nonzero = gramian.diagonal() > 0
    return balance * (nonzero[:, None] & nonzero[None, :])


def _is_independent(gramian: Float[Tensor, "task task"]) -> Tensor:
    """Return (task,) bool: false first, as often as directions of the rows depend on the others but for rounding."""
    eigenvalues = torch.linalg.eigvalsh(cosines(gramian))
    eps = max(COSINE_EPS, torch.finfo(gramian.dtype).eps)
    return eigenvalues > eigenvalues[-1] * len(eigenvalues) * eps


def _scale(eigenvalues: Float[Tensor, " task"], keep: Tensor, scale_mode: ScaleMode) -> Float[Tensor, ""]:
    """Return the common length s of the aligned rows; 0 if no eigenvalue is kept."""
    if scale_mode == "min":
        squared = torch.where(keep, eigenvalues, torch.inf).amin()
    elif scale_mode == "median":
        squared = torch.where(keep, eigenvalues, torch.nan).nanmedian()
    else:
        squared = (eigenvalues * keep).sum() / keep.sum()
    return torch.where(keep.any(), squared, 0.0).sqrt()
