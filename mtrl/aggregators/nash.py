"""Nash-MTL: the bargaining solution between the tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mtrl.aggregators.base import Aggregator, Invariance
from mtrl.aggregators.fairgrad import fair_weights
from mtrl.aggregators.host import on_host
from mtrl.aggregators.solvers import clip_weights
from mtrl.aggregators.system import Aggregation, GradientSystem


class NashMTL(Aggregator):
    """Take the direction on which the tasks, bargaining over the update, would agree (Nash's solution).

    The weights a > 0 solve J J^T a = 1 / a. Every task progresses by (J d)_i = 1 / a_i > 0, and the direction d = J^T a
    has length sqrt(T) before the clipping. Scaling a task's gradient does not change it. Where the gradients cancel
    (Pareto-stationary points) there is no solution, and the direction is about zero.

    Source: Navon et al., "Multi-Task Learning as a Bargaining Game", ICML 2022, claim 3.1. Solved as the minimum of the
    self-concordant a^T J J^T a / 2 - sum_i log a_i by damped Newton steps. Differs from the official code, 20 steps of
    a convex-concave procedure with ECOS, which fails on gradients shorter than 1e-3 or longer than 1e2, stays at a = 1
    where there is no solution, and shares its counter and weights between critic, actor and temperature. Here a zero
    gradient gets weight 0.

    Cost: about 12 Newton steps of T^3, 25 where there is no solution, in every `update_every`-th update.
    """

    invariances = frozenset(Invariance)

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Nash-MTL (Navon et al. 2022): bargaining solution between the tasks."""

        update_every: int = 1
        """Keep the weights for this many updates: 1, 50 and 100 in the paper's MT10 table."""
        max_norm: float | None = 1.0
        """Longest direction; None leaves its length at sqrt(T)."""

        def __post_init__(self) -> None:
            """Check the ranges."""
            if self.update_every < 1:
                raise ValueError(f"update_every must be at least 1, got {self.update_every}")
            if self.max_norm is not None and self.max_norm <= 0:
                raise ValueError(f"max_norm must be positive, got {self.max_norm}")

    kept: Tensor
    num_updates: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        if config.update_every > 1:  # kept weights do not follow gradients whose scales change
            self.invariances = frozenset({Invariance.LOSS_SCALES})

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Start without weights."""
        super().setup(num_tasks, shapes, device)
        self.register_buffer("kept", torch.zeros(num_tasks, dtype=torch.float64, device=device))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64, device=device))

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return the bargaining weights, of this update or kept from an earlier one, clipped to this one's Gramian."""
        assert system.gramian is not None, "the need of this method is the Gramian"
        weights = bargain(system.gramian, self.kept, self.num_updates, self.config.update_every)
        self.kept.copy_(weights)
        self.num_updates.add_(1)
        return Aggregation(clip_weights(weights, system.gramian, self.config.max_norm))


@on_host
def bargain(
    gramian: Float[Tensor, "task task"], kept: Float[Tensor, " task"], num_updates: Int[Tensor, ""], update_every: int
) -> Float[Tensor, " task"]:
    """Return the bargaining weights in every `update_every`-th update, and those of before in the others."""
    return kept.clone() if num_updates % update_every else fair_weights(gramian, 1.0)
