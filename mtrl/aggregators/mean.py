"""The weighted mean of the task gradients: linear scalarisation."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtrl.aggregators.base import Aggregator, Need, check_task_weights, resolve_task_weights
from mtrl.aggregators.system import Aggregation, GradientSystem


class Mean(Aggregator):
    """Sum the task gradients with fixed weights, 1/T each by default.

    Needs one ordinary backward pass. It is what every method is compared with; many official codes sum instead
    (T times this), which Adam hides and gradient clipping does not.
    """

    need = Need.LOSSES

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Weighted mean of the task gradients."""

        weights: tuple[float, ...] | None = None
        """Weight of each task, used as given; by default 1/T each."""

        def __post_init__(self) -> None:
            """Check what does not depend on the number of tasks."""
            check_task_weights(self.weights)

    task_weights: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Place the task weights on the device."""
        super().setup(num_tasks, shapes, device)
        self.register_buffer("task_weights", resolve_task_weights(self.config.weights, num_tasks, device))

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the fixed weights."""
        del system
        return Aggregation(self.task_weights)
