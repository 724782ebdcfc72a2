"""SDMGrad: the min-norm point of the convex hull, regularised towards the mean gradient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.aggregators.base import Aggregator
from mtrl.aggregators.host import on_host
from mtrl.aggregators.solvers import nearest_point, unit_system
from mtrl.aggregators.system import Aggregation, GradientSystem

Solver = Literal["exact", "sgd"]

_SGD_STEPS = 20
_SGD_RATE = 10.0
_SGD_MOMENTUM = 0.5
_SGD_EPS = 1e-4


class SDMGrad(Aggregator):
    """Mix the mean gradient g_0 with the hull point g_w that makes g_w + lam g_0 shortest.

    w = argmin ||sum_i w_i g_i + lam g_0||^2 over w >= 0, sum(w) = 1, and d = (g_w + lam g_0) / (1 + lam). lam = 0 is
    MGDA, a large lam the mean.

    Source: Xiao, Ban, Ji, "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic Algorithms",
    NeurIPS 2023, equation 6. `exact` solves the problem of one batch: it is MGDA on the gradients g_i + lam g_0. `sgd`
    repeats the official code for reinforcement learning, 20 projected steps from the previous update's w; its three
    independent batches are one batch there and here. Differs from it in that critic and actor do not share w; a zero
    gradient is left out (`exact` only).

    Cost: `exact` one quadratic problem between the tasks; `sgd` 20 steps of T^2.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """SDMGrad (Xiao et al. 2023): shortest hull point, drawn to the mean gradient."""

        lam: float = 0.6
        """Pull to the mean gradient: 0.6 on MT10, 0.3 in the paper's supervised runs."""
        solver: Solver = "exact"
        """The minimum of each batch, or the official 20 steps from the last weights."""

        def __post_init__(self) -> None:
            """Check the range."""
            if not 0 <= self.lam < float("inf"):
                raise ValueError(f"lam must be finite and not negative, got {self.lam}")

    w: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Start with equal weights."""
        super().setup(num_tasks, shapes, device)
        self.register_buffer("w", torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64, device=device))

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the weights of (g_w + lam g_0) / (1 + lam); they sum to 1."""
        assert system.gramian is not None, "the need of this method is the Gramian"
        lam = self.config.lam
        if self.config.solver == "exact":
            is_nonzero = unit_system(system.gramian).is_nonzero
            mean = is_nonzero.double() / is_nonzero.sum().clamp(min=1)
            self.w.copy_(exact_weights(system.gramian, mean, lam))
        else:
            mean = torch.full_like(self.w, 1 / system.num_tasks)
            self.w.copy_(sgd_weights(system.gramian, self.w, lam))
        return Aggregation((self.w + lam * mean) / (1 + lam))


def exact_weights(
    gramian: Float[Tensor, "task task"], mean: Float[Tensor, " task"], lam: float
) -> Float[Tensor, " task"]:
    """Compute w = argmin ||sum_i w_i g_i + lam g_0||, g_0 = sum_i mean_i g_i, over the tasks with a positive mean_i."""
    products = lam * (gramian @ mean)
    squared_pull = lam * (mean @ products)
    shifted = gramian + products[:, None] + products[None, :] + squared_pull
    # Where g_i + lam g_0 cancels to about zero, its square is rounding noise, and must not be negative.
    rounding = torch.finfo(gramian.dtype).eps * (gramian.diagonal() + 2 * products.abs() + squared_pull.abs())
    return nearest_point(shifted + rounding.diag(), mean > 0)


@on_host
def sgd_weights(gramian: Float[Tensor, "task task"], w: Float[Tensor, " task"], lam: float) -> Float[Tensor, " task"]:
    """Compute w as the official code for reinforcement learning does, starting from the last one.

    Source: github.com/OptMN-Lab/sdmgrad, mtrl_files/sdmgrad.py, `Agent.sdmgrad`.
    """
    scale = (gramian.diagonal() + _SGD_EPS).sqrt().mean()
    gramian = gramian / scale**2
    products = gramian.mean(1)
    velocity = torch.zeros_like(w)
    for _ in range(_SGD_STEPS):
        velocity = _SGD_MOMENTUM * velocity + gramian @ w + lam * products
        w = project_on_simplex(w - _SGD_RATE * velocity)
    return w


def project_on_simplex(point: Float[Tensor, " task"]) -> Float[Tensor, " task"]:
    """Return the nearest point with non-negative coordinates that sum to 1.

    Source: Duchi et al., "Efficient Projections onto the l1-Ball for Learning in High Dimensions", 2008, algorithm 1.
    """
    descending = point.sort(descending=True).values
    counts = torch.arange(1, len(point) + 1, device=point.device)
    sums = torch.ones(len(point), len(point), dtype=point.dtype, device=point.device).tril() @ descending
    thresholds = (sums - 1) / counts  # not `cumsum`, which on a GPU has no form that repeats its numbers
    last_kept = (descending > thresholds).sum(0, keepdim=True) - 1
    return (point - thresholds.gather(0, last_kept)).clamp(min=0)
