"""Uncertainty weighting: learn each task's noise and divide its loss by it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mtrl.aggregators.adam import AdamVector
from mtrl.aggregators.base import Aggregator, Need
from mtrl.aggregators.losses import read_losses
from mtrl.aggregators.system import Aggregation, GradientSystem


class Uncertainty(Aggregator):
    """Weigh each loss by a learned precision (uncertainty weighting).

    The direction descends the mean over tasks of (e^-s_i L_i + s_i) / 2, so the weights are e^-s_i / (2 T), and the log
    variances s_i descend the same by Adam, one step after every update. At rest e^s_i = L_i.

    With a negative loss, as an actor has it, nothing holds s_i back: published codes let it fall until the weight
    overflows. Here |s_i| <= max_log_variance: such a task ends at the largest weight.

    Source: Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
    Semantics", CVPR 2018, with s = log sigma^2. Differs from the published codes, which sum over tasks (T times this)
    and do not bound s.

    Cost: nothing beyond.
    """

    need = Need.LOSSES

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Uncertainty weighting (Kendall et al. 2018): losses divided by a learned variance."""

        lr: float = 0.025
        """Step size of the log variances."""
        max_log_variance: float = 10.0
        """Bound of the log variances on both sides: weights differ by e to twice this at most."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            if not 0 < self.lr < math.inf:
                raise ValueError(f"lr must be positive and finite, got {self.lr}")
            if not 0 < self.max_log_variance <= 50:  # e^50 is a number in float32, and so is its product with a loss
                raise ValueError(f"max_log_variance must be positive and at most 50, got {self.max_log_variance}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Start with variances of 1."""
        super().setup(num_tasks, shapes, device)
        self.log_variances = AdamVector(num_tasks, device, lr=self.config.lr, bound=self.config.max_log_variance)

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the precisions over 2 T, then move the log variances."""
        precisions = (-self.log_variances.values).exp()
        self.log_variances.step((1 - precisions * read_losses(system.losses)) / 2)
        return Aggregation(precisions / (2 * system.num_tasks))
