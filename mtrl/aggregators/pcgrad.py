"""PCGrad: project each task gradient onto the normal plane of those it conflicts with."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mtrl.aggregators.base import Aggregator
from mtrl.aggregators.host import on_host
from mtrl.aggregators.system import Aggregation, GradientSystem


class PCGrad(Aggregator):
    """Remove from each task gradient what points against the others, in random order, and take the mean.

    Gradient i, a copy g_i', meets every other task j: where <g_i', g_j> < 0 it becomes
    g_i' - <g_i', g_j> / ||g_j||^2 g_j. The direction is the mean of the g_i'. Works on the Gramian: a projected
    gradient is a combination of the original ones, so only its coefficients move.

    Source: Yu, Kumar, Gupta, Levine, Hausman, Finn, "Gradient Surgery for Multi-Task Learning", NeurIPS 2020, algorithm
    1. Each task draws its own order and never meets itself. Differs from the paper's code, which sums (T times this
    mean), and whose order is fixed because the result of its shuffle is discarded.

    Cost: T steps of T^2.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """PCGrad (Yu et al. 2020): conflicting components projected away."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the mean of the projected gradients' coefficients, and the coefficients as mixing."""
        assert system.gramian is not None, "the need of this method is the Gramian"
        orders = random_orders(system.num_tasks, system.generator, system.gramian.device)
        coefficients = project(system.gramian, orders)
        return Aggregation(weights=coefficients.mean(0), mixing=coefficients)


@on_host
def project(gramian: Float[Tensor, "task task"], orders: Int[Tensor, "task other"]) -> Float[Tensor, "task task"]:
    """Project all task gradients, each against the others in its own order.

    Args:
        gramian: Inner products of the original gradients.
        orders: Row i lists the tasks that gradient i meets, in order.

    Returns:
        Coefficients C: projected gradient i is sum_j C[i, j] g_j.

    Source: Yu et al. 2020, algorithm 1, for all i at once.
    """
    squared_norms = gramian.diagonal()
    coefficients = torch.eye(len(gramian), dtype=gramian.dtype, device=gramian.device)
    for other in orders.unbind(1):
        inner = (coefficients * gramian[other]).sum(1)
        # A norm below 1e-162 has underflowed in its square: such a row is treated like a zero row.
        conflicts = (inner < 0) & (squared_norms[other] > 0)
        step = torch.where(conflicts, inner / squared_norms[other], 0.0)
        coefficients = coefficients.scatter_add(1, other[:, None], -step[:, None])
    return coefficients


def random_orders(num_tasks: int, generator: torch.Generator | None, device: torch.device) -> Int[Tensor, "task other"]:
    """Draw for each task an order of all others."""
    keys = torch.rand(num_tasks, num_tasks, generator=generator, device=device)
    keys.fill_diagonal_(2.0)  # sorts last, and is dropped
    return keys.argsort(1)[:, :-1]
