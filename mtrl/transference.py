"""Transference: how far a step on one task's gradient lowers the losses of the others."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.gradients import TaskLoss, losses_after
from mtrl.interfaces import Metrics, Parameters

StepKind = Literal["optimizer", "gradient"]
"""Whose step: the optimiser's, from the moments it has, or that of plain gradient descent."""

LOSS_EPS = 1e-8
"""Added to the loss that a change is relative to."""


@torch.no_grad()
def transference(
    loss: TaskLoss, shared: Parameters, private: Parameters, frozen: Any, moves: Parameters
) -> Float[Tensor, "task task"]:
    """Compute the lookahead matrix, all sources at once.

        Z[i, j] = (L_j(theta) - L_j(theta - move_i)) / (|L_j(theta)| + 1e-8)

    is the share of target j's loss that a step on source i alone takes away; positive where it helps. On the diagonal
    stands what a task's step does for itself. Batch, targets and noise of the losses are frozen, so that both
    evaluations differ in the parameters alone.

    Source: Fifty, Amid, Zhao, Yu, Anil, Finn, "Measuring and Harnessing Transference in Multi-Task Learning", 2020,
    equation 1. Differs from it in the denominator, |L_j| instead of L_j, for losses that may be negative, such as an
    actor's: there, too, positive means that the loss falls.

    Args:
        loss: The loss of one task.
        shared: Parameters all tasks use.
        private: Parameters with the task on axis 0; they stay where they are.
        frozen: A tree of tensors with the task on axis 0.
        moves: Per shared parameter what each task's step subtracts from it, (task, *shape).

    Returns:
        Z, the source on axis 0 and the target on axis 1.
    """
    # Evaluated together with the moves, where there is none: equal parameters then give equal losses to the last bit.
    with_none = {name: torch.cat([torch.zeros_like(leaf[:1]), leaf]) for name, leaf in moves.items()}
    losses = losses_after(loss, shared, private, frozen, with_none)
    return (losses[0] - losses[1:]) / (losses[0].abs() + LOSS_EPS)


class Average:
    """The mean of matrices that are measured more often than they are recorded, over their finite entries."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def add(self, metrics: Metrics) -> None:
        """Take in one measurement. Stays on the device and asks it nothing."""
        for name, value in metrics.items():
            is_finite = value.isfinite()
            before = self._sums.get(name, torch.zeros_like(value))
            self._sums[name] = before + torch.where(is_finite, value, 0.0)
            self._counts[name] = self._counts.get(name, torch.zeros_like(value)) + is_finite

    def pop(self) -> Metrics:
        """Return the means since the last call; NaN where no entry was finite, nothing where nothing was measured."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Return what has been taken in."""
        return {"sums": self._sums, "counts": self._counts}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]], device: torch.device) -> None:
        """Restore `state_dict`'s result."""
        self._sums, self._counts = (
            {name: value.to(device) for name, value in state[part].items()} for part in ("sums", "counts")
        )
