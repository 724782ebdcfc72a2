"""Random loss weighting: draw the weights anew for every update."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.aggregators.base import Aggregator, Need
from mtrl.aggregators.system import Aggregation, GradientSystem


class RLW(Aggregator):
    """Weigh the tasks by the softmax of standard normal numbers (random loss weighting).

    On average it is the mean. A method that does not do better than this has not shown that its weights matter.

    Source: Lin, Ye, Zhang, Tsang, "Reasonable Effectiveness of Random Weighting: A Litmus Test for Multi-Task
    Learning", TMLR 2022, its variant with normal weights. Differs from the codes derived from Nash-MTL's, which use T
    times this.

    Cost: nothing beyond.
    """

    need = Need.LOSSES

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Random loss weighting (Lin et al. 2022): the softmax of normal numbers."""

    device: torch.device

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Remember the device of the weights."""
        super().setup(num_tasks, shapes, device)
        self.device = device

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return weights of this moment."""
        normals = torch.randn(system.num_tasks, generator=system.generator, dtype=torch.float64, device=self.device)
        return Aggregation(weights_from(normals))


def weights_from(normals: Float[Tensor, " task"]) -> Float[Tensor, " task"]:
    """Return positive weights that sum to 1."""
    return torch.softmax(normals, 0)
