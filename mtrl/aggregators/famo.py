"""FAMO: weigh the losses so that all decrease at the same relative rate, at the cost of one backward pass."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.aggregators.adam import AdamVector
from mtrl.aggregators.base import Aggregator, Invariance, Need
from mtrl.aggregators.losses import EPS, read_losses
from mtrl.aggregators.system import Aggregation, GradientSystem


class FAMO(Aggregator):
    """Balance the relative decrease of the losses (Fast Adaptive Multitask Optimization).

    With logits xi, z = softmax(xi) and D_i = L_i - min_loss + 1e-8, the direction descends sum_i z_i log D_i, divided
    by c = sum_i z_i / D_i: the weights are a_i = z_i / (c D_i), which sum to 1. After the step the same batch is
    evaluated again, and xi descends J_softmax^T (log D - log D') by Adam: tasks that decreased less gain weight.
    Outside an agent, call `observe` with the losses after the step, or the weights stay at z = 1/T.

    Needs L_i > min_loss: a loss at or below it counts as 1e-8 and draws nearly all weight.

    Source: Liu, Feng, Stone, Liu, "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023, algorithm 1. Differs from
    the official code for Meta-World, which multiplies by c where the paper divides.

    Cost: one more forward pass, after the step.
    """

    need = Need.LOSSES
    observes = True
    needs_positive_losses = True
    invariances = frozenset({Invariance.LOSS_SCALES})

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """FAMO (Liu et al. 2023): all losses decrease at the same relative rate."""

        lr: float = 0.025
        """Step size of the logits of the task weights."""
        weight_decay: float = 0.01
        """Pull of the logits towards equal weights."""
        min_loss: float = 0.0
        """Lower bound of every task's loss."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            if not 0 < self.lr < math.inf:
                raise ValueError(f"lr must be positive and finite, got {self.lr}")
            if not 0 <= self.weight_decay < math.inf:
                raise ValueError(f"weight_decay must be finite and not negative, got {self.weight_decay}")
            if not math.isfinite(self.min_loss):
                raise ValueError(f"min_loss must be finite, got {self.min_loss}")

    log_distance: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        if config.min_loss != 0:  # a bound has a unit
            self.invariances = frozenset()

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Start with equal weights."""
        super().setup(num_tasks, shapes, device)
        self.logits = AdamVector(num_tasks, device, lr=self.config.lr, weight_decay=self.config.weight_decay)
        self.register_buffer("log_distance", torch.zeros(num_tasks, dtype=torch.float64, device=device))

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return a, and remember the losses for `observe`."""
        self.log_distance.copy_(self._log_distance(system.losses))
        # z_i / D_i over its sum, in the exponent: losses of any size.
        return Aggregation(torch.softmax(self.logits.values - self.log_distance, 0))

    def observe(self, losses: Float[Tensor, " task"]) -> None:
        """Move the logits. A loss that has become NaN teaches nothing, nor does an update that was thrown away."""
        if self.was_thrown_away:
            return
        decrease = self.log_distance - self._log_distance(losses)
        decrease = torch.where(decrease.isnan(), 0.0, decrease)
        z = torch.softmax(self.logits.values, 0)
        self.logits.step(z * (decrease - z @ decrease))

    def _log_distance(self, losses: Float[Tensor, " task"] | None) -> Float[Tensor, " task"]:
        """Return log D."""
        return ((read_losses(losses) - self.config.min_loss).clamp(min=0) + EPS).log()
