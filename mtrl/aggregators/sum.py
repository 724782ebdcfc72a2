"""The sum of the task gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtrl.aggregators.base import Aggregator, Need
from mtrl.aggregators.system import Aggregation, GradientSystem


class Sum(Aggregator):
    """Sum the task gradients: d = sum_i g_i, T times `mean`.

    Adam hides the factor T; clipping of the gradient, weight decay and plain gradient descent do not.

    Source: the "linear scalarisation" of many official codes. Differs from none of them.

    Cost: nothing beyond.
    """

    need = Need.LOSSES

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Sum of the task gradients: the mean times the number of tasks."""

    ones: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Place the weights on the device."""
        super().setup(num_tasks, shapes, device)
        self.register_buffer("ones", torch.ones(num_tasks, dtype=torch.float64, device=device))

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return ones."""
        del system
        return Aggregation(self.ones)
