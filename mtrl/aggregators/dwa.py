"""DWA: tasks whose losses decrease slowly weigh more."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtrl.aggregators.base import Aggregator, Need
from mtrl.aggregators.losses import EPS, read_losses
from mtrl.aggregators.system import Aggregation, GradientSystem


class DWA(Aggregator):
    """Weigh the tasks by how much of their loss is left (dynamic weight average).

    With the mean losses of the last `window` updates and of the `window` before them, the weights are
    softmax(recent / previous / temperature). They are equal until two windows have passed.

    Needs positive losses: a mean below 1e-8 counts as 1e-8.

    Source: Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019, which compares epochs; the
    windows are those of Nash-MTL's code. Differs from that code, which uses T times this, and begins one update after
    the first window, when the previous window still holds ones that are no losses.

    Cost: nothing beyond; memory of two windows of losses.
    """

    need = Need.LOSSES
    needs_positive_losses = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """DWA (Liu et al. 2019): tasks whose losses decrease slowly weigh more."""

        window: int = 25
        """Updates over which a loss is averaged."""
        temperature: float = 2.0
        """The larger, the more equal the weights."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            if self.window < 1:
                raise ValueError(f"window must be at least 1, got {self.window}")
            if not 0 < self.temperature < math.inf:
                raise ValueError(f"temperature must be positive and finite, got {self.temperature}")

    history: Tensor
    num_seen: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Make room for the losses of two windows."""
        super().setup(num_tasks, shapes, device)
        history = torch.zeros(2 * self.config.window, num_tasks, dtype=torch.float64, device=device)
        self.register_buffer("history", history)  # oldest first
        self.register_buffer("num_seen", torch.zeros((), dtype=torch.int64, device=device))

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Take in the losses and return the weights."""
        self.history.copy_(self.history.roll(-1, 0))
        self.history[-1] = read_losses(system.losses)
        self.num_seen += 1
        previous, recent = (half.mean(0).clamp(min=EPS) for half in self.history.chunk(2))
        is_full = self.num_seen >= len(self.history)
        return Aggregation(torch.softmax(torch.where(is_full, recent / previous, 1.0) / self.config.temperature, 0))
