"""DB-MTL: averaged gradients of the logarithms of the losses, all given the length of the longest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mtrl.aggregators.averages import RowAverages, norms, quotient
from mtrl.aggregators.base import Aggregator, Invariance, Need
from mtrl.aggregators.losses import EPS, read_losses
from mtrl.aggregators.system import Aggregation, GradientSystem


class DBMTL(Aggregator):
    """Balance losses by their logarithm and gradients by their length (Dual-Balancing Multi-Task Learning).

    In update t = 1, 2, ... the averages of the gradients of log(L_i + 1e-8) follow, y_i <- g_i + beta / t^beta_decay
    (y_i - g_i), starting at zero; the direction is the mean over tasks of max_j ||y_j|| / ||y_i|| y_i.

    Needs positive losses: a negative one would turn its gradient round, so it counts as 0. A task without gradient
    contributes nothing. Keeps a row of float64 per task: 8 bytes times tasks times parameters.

    Source: Lin, Jiang, Ye, Zhang, Chen, Chen, Liu, Kwok, "Dual-Balancing for Multi-Task Learning", 2023, algorithm 1,
    with LibMTL's defaults. Differs from LibMTL, which sums over tasks (T times this) and divides by ||y_i|| + 1e-8.

    Cost: T P for the averages, and their memory.
    """

    need = Need.ROWS
    needs_positive_losses = True
    invariances = frozenset({Invariance.LOSS_SCALES})

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """DB-MTL (Lin et al. 2023): logarithms of losses, gradients of one length."""

        beta: float = 0.9
        """Share of the old gradient in the averages."""
        beta_decay: float = 0.0
        """Power of the update's number by which that share falls; the paper also tries 0.5."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            if not 0 <= self.beta < 1:
                raise ValueError(f"beta must be at least 0 and below 1, got {self.beta}")
            if not 0 <= self.beta_decay < math.inf:
                raise ValueError(f"beta_decay must be finite and not negative, got {self.beta_decay}")

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Start without gradients."""
        super().setup(num_tasks, shapes, device)
        self.averages = RowAverages(num_tasks, shapes, device)

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Move the averages and return the mean of them at one length."""
        assert system.rows is not None, "the need of this method is the rows"
        losses = read_losses(system.losses).clamp(min=0) + EPS
        share = 1 - self.config.beta / self.averages.count() ** self.config.beta_decay
        self.averages.move(system.rows, 1 / losses, share)
        lengths = norms(self.averages.rows)
        weights = quotient(lengths.amax(), lengths) / system.num_tasks
        return Aggregation(weights=None, direction=self.averages.combine(weights, system.rows))
