"""Methods that the package does not have: what a new file in mtrl/aggregators would hold, one for each other need."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.aggregators.base import Aggregator, Need
from mtrl.aggregators.system import Aggregation, GradientSystem


class SignVote(Aggregator):
    """Move each parameter by the majority of the task gradients' signs: needs rows, is no weighting of them."""

    need = Need.ROWS

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Majority of signs."""

        length: float = 1.0
        """Length of the move in each parameter."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the vote, leaf by leaf."""
        assert system.rows is not None
        votes = tuple(leaf.sign().sum(0).sign() * self.config.length for leaf in system.rows)
        return Aggregation(weights=None, direction=votes)


class LossShare(Aggregator):
    """Weigh each task by its share of a moving average of the losses: needs losses, keeps state, looks again."""

    need = Need.LOSSES
    observes = True

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Share of the average loss."""

        momentum: float = 0.5
        """Share of the old average."""

    average: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Start with equal averages."""
        super().setup(num_tasks, shapes, device)
        self.register_buffer("average", torch.ones(num_tasks, dtype=torch.float64, device=device))

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the shares."""
        assert system.losses is not None
        self.average.lerp_(system.losses.double(), 1 - self.config.momentum)
        return Aggregation(self.average / self.average.sum())

    def observe(self, losses: Float[Tensor, " task"]) -> None:
        """Replace the average by the losses after the step."""
        self.average.copy_(losses)
