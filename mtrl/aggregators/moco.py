"""MoCo: tracked gradients, and weights that slowly approach those of the least conflict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtrl.aggregators.averages import RowAverages, norms, quotient
from mtrl.aggregators.base import Aggregator, Invariance, Need
from mtrl.aggregators.losses import EPS, read_losses
from mtrl.aggregators.system import Aggregation, GradientSystem, gramian


class MoCo(Aggregator):
    """Combine moving averages of the gradients with weights that descend the norm of their sum (multi-objective MoCo).

    In update t = 1, 2, ... each gradient is given the length of its loss, g_i <- L_i g_i / ||g_i||; the averages move,
    y <- y + beta / t^beta_decay (g - y); and so do the weights, lambda <- softmax(lambda - gamma / t^gamma_decay
    (y y^T + rho I) lambda). The direction is y^T lambda. The softmax is of the weights themselves, not of their
    logarithms: where the gradients are small, the weights stay within a factor e of one another.

    Needs positive losses: a negative one would turn its gradient round, so one below 1e-8 counts as 1e-8. A task that
    never had a gradient has weight 0. Keeps a row of float64 per task: 8 bytes times tasks times parameters.

    Source: Fernando, Shen, Liu, Chaudhury, Murugesan, Chen, "Mitigating Gradient Bias in Multi-objective Learning",
    ICLR 2023, algorithm 1, as LibMTL has it: the paper projects onto the simplex where LibMTL takes the softmax, and
    does not rescale gradients. Differs from LibMTL in tasks without gradient, which take their share of lambda there,
    and in dividing by ||g_i|| instead of ||g_i|| + 1e-8.

    Cost: T^2 P for the Gramian of the averages, and their memory.
    """

    need = Need.ROWS
    needs_positive_losses = True
    invariances = frozenset({Invariance.GRADIENT_SCALES})

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """MoCo (Fernando et al. 2023): averaged gradients, weights of least conflict."""

        beta: float = 0.5
        """Share of the new gradient in the averages."""
        beta_decay: float = 0.5
        """Power of the update's number by which that share falls."""
        gamma: float = 0.1
        """Step size of the weights."""
        gamma_decay: float = 0.5
        """Power of the update's number by which that step falls."""
        rho: float = 0.0
        """Pull of the weights towards equality."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            if not 0 < self.beta <= 1:
                raise ValueError(f"beta must be positive and at most 1, got {self.beta}")
            for name in ("beta_decay", "gamma", "gamma_decay", "rho"):
                if not 0 <= getattr(self, name) < math.inf:
                    raise ValueError(f"{name} must be finite and not negative, got {getattr(self, name)}")

    task_weights: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Start with equal weights and no gradients."""
        super().setup(num_tasks, shapes, device)
        self.averages = RowAverages(num_tasks, shapes, device)
        self.register_buffer(
            "task_weights", torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64, device=device)
        )

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Move averages and weights, and return their product."""
        assert system.rows is not None, "the need of this method is the rows"
        losses = read_losses(system.losses).clamp(min=EPS)
        count = self.averages.count()
        share = self.config.beta / count**self.config.beta_decay
        self.averages.move(system.rows, quotient(losses, norms(system.rows)), share)
        self._move_weights(self.config.gamma / count**self.config.gamma_decay)
        return Aggregation(weights=None, direction=self.averages.combine(self.task_weights, system.rows))

    def _move_weights(self, step_size: Tensor) -> None:
        """Take the step of lambda over the tasks that have a gradient."""
        products = gramian(self.averages.rows)
        has_gradient = products.diagonal() > 0
        total = (self.task_weights * has_gradient).sum()
        weights = torch.where(has_gradient & (total > 0), self.task_weights / total, 0.0)
        slope = products @ weights + self.config.rho * weights
        found = torch.softmax(torch.where(has_gradient, weights - step_size * slope, -torch.inf), 0)
        self.task_weights.copy_(torch.where(has_gradient.any(), found, self.task_weights))
