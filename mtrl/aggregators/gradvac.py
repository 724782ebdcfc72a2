"""GradVac: pull the angles between the task gradients up to their running averages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mtrl.aggregators.base import Aggregator
from mtrl.aggregators.host import on_host
from mtrl.aggregators.pcgrad import random_orders
from mtrl.aggregators.solvers import unit_system
from mtrl.aggregators.system import Aggregation, GradientSystem

TargetUpdate = Literal["always", "adjusted"]

# Smallest sine of a target angle: near 0 the gradients are parallel in the mean, and the formula divides by it.
_SMALLEST_SINE = 1e-4


class GradVac(Aggregator):
    """Turn each task gradient towards those whose cosine with it is below the running average, in random order.

    Where phi = cos(g_i', g_j) is below the target rho_ij, g_i' becomes the g_i' + a g_j, a > 0, with cosine rho_ij;
    then rho_ij moves towards phi. With rho = 0 for ever this is PCGrad. The mean of the g_i' is the direction.

    Source: Wang, Tsvetkov, Firat, Cao, "Gradient Vaccine: Investigating and Improving Multi-task Optimization in
    Massively Multilingual Models", ICLR 2021, algorithm 1. Works on the Gramian. Differs from the public codes, which
    sum (T times this mean) and disagree on when the target moves; pairs with a zero gradient are left alone.

    Cost: T steps of T^2.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """GradVac (Wang et al. 2021): angles pulled up to their running averages."""

        momentum: float = 0.5
        """Share of the newest cosine in the running averages; the public codes use 0.5."""
        target_update: TargetUpdate = "always"
        """Move a running average with every cosine (the paper, LibMTL) or only with those below it (Samsung's code)."""

        def __post_init__(self) -> None:
            """Check the range."""
            if not 0 <= self.momentum <= 1:
                raise ValueError(f"momentum must lie between 0 and 1, got {self.momentum}")

    targets: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Start with a target of 0, a right angle, for every pair."""
        super().setup(num_tasks, shapes, device)
        self.register_buffer("targets", torch.zeros(num_tasks, num_tasks, dtype=torch.float64, device=device))

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the mean of the turned gradients' coefficients, and the coefficients as mixing."""
        assert system.gramian is not None, "the need of this method is the Gramian"
        orders = random_orders(system.num_tasks, system.generator, system.gramian.device)
        coefficients, targets = turn(
            system.gramian, orders, self.targets, self.config.momentum, self.config.target_update
        )
        self.targets.copy_(targets)
        return Aggregation(weights=coefficients.mean(0), mixing=coefficients)


@on_host
def turn(
    gramian: Float[Tensor, "task task"],
    orders: Int[Tensor, "task other"],
    targets: Float[Tensor, "task task"],
    momentum: float,
    target_update: TargetUpdate,
) -> tuple[Float[Tensor, "task task"], Float[Tensor, "task task"]]:
    """Turn all task gradients, each towards the others in its own order.

    Args:
        gramian: Inner products of the original gradients.
        orders: Row i lists the tasks that gradient i meets, in order.
        targets: Cosine that gradient i shall have with gradient j at least.
        momentum: Share of the newest cosine in the new targets.
        target_update: Which targets move.

    Returns:
        Coefficients M (turned gradient i is sum_j M[i, j] g_j), and the new targets.

    Source: Wang et al. 2021, algorithm 1 and equation 2, for all i at once.
    """
    cosines, norms, is_nonzero = unit_system(gramian)
    lengths = norms.diag()  # turned gradient i is sum_j lengths[i, j] u_j
    for other in orders.unbind(1):
        inner = (lengths * cosines[other]).sum(1)
        norm = ((lengths @ cosines) * lengths).sum(1).clamp(min=0).sqrt()
        is_pair = is_nonzero & is_nonzero[other] & (norm > 0)
        phi = torch.where(is_pair, inner / torch.where(is_pair, norm, 1.0), 0.0).clamp(-1, 1)
        rho = targets.gather(1, other[:, None])[:, 0]
        is_below = is_pair & (phi < rho)
        sine = (1 - rho**2).clamp(min=_SMALLEST_SINE**2).sqrt()
        step = torch.where(is_below, norm * (rho * (1 - phi**2).sqrt() - phi * sine) / sine, 0.0)
        lengths = lengths.scatter_add(1, other[:, None], step[:, None])
        moves = is_below if target_update == "adjusted" else is_pair
        moved = torch.where(moves, (1 - momentum) * rho + momentum * phi, rho)
        targets = targets.scatter(1, other[:, None], moved[:, None])
    return lengths / norms, targets
