"""IMTL-L: learn a scale for each loss that brings all to the same size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mtrl.aggregators.adam import AdamVector
from mtrl.aggregators.base import Aggregator, Need
from mtrl.aggregators.losses import EPS, read_losses
from mtrl.aggregators.system import Aggregation, GradientSystem


class IMTLL(Aggregator):
    """Scale each loss by a learned factor (the loss-balancing half of Impartial Multi-Task Learning).

    The direction descends the mean over tasks of e^s_i L_i - s_i, so the weights are e^s_i / T, and the log scales s_i
    descend the same by Adam, one step after every update. At rest e^s_i L_i = 1 for all tasks: the fixed point is
    `scale_invariant`, which this approaches slowly, averaging over noise.

    Needs positive losses: one below 1e-8 counts as 1e-8, so that its scale comes to rest at 1e8.

    Source: Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang, "Towards Impartial Multi-Task Learning", ICLR 2021, section
    3.2. Differs from LibMTL, which sums over tasks (T times this) and lets the model's optimiser move s.

    Cost: nothing beyond.
    """

    need = Need.LOSSES
    needs_positive_losses = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """IMTL-L (Liu et al. 2021): losses brought to one size by learned scales."""

        lr: float = 0.025
        """Step size of the log scales."""

        def __post_init__(self) -> None:
            """Check the range."""
            if not 0 < self.lr < math.inf:
                raise ValueError(f"lr must be positive and finite, got {self.lr}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Start with scales of 1."""
        super().setup(num_tasks, shapes, device)
        self.log_scales = AdamVector(num_tasks, device, lr=self.config.lr)

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the scales over T, then move the log scales."""
        scales = self.log_scales.values.exp()
        self.log_scales.step(scales * read_losses(system.losses).clamp(min=EPS) - 1)
        return Aggregation(scales / system.num_tasks)
