"""GradDrop: for each parameter, keep the gradients of one sign only."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mtrl.aggregators.base import Aggregator, Need
from mtrl.aggregators.system import Aggregation, GradientSystem, combine


class GradDrop(Aggregator):
    """Draw for each parameter a sign, and drop what the tasks' gradients have of the other (Gradient Sign Dropout).

    The positive sign is drawn with the positive share P = (1 + sum_i J_ip / sum_i |J_ip|) / 2 of parameter p. Task i
    keeps the share `leaks[i]` of what would be dropped; the direction is the mean over tasks of what is left. It
    follows the axes of the parameters: rotated parameters give another direction.

    Source: Chen, Ngiam, Huang, Luong, Kretzschmar, Chai, Anguelov, "Just Pick a Sign: Optimizing Deep Multitask Models
    with Gradient Sign Dropout", NeurIPS 2020, algorithm 1, on parameters as in TorchJD, where the paper has activations
    times their sign. Differs from TorchJD, which sums over tasks (T times this), and drops both signs in the rare case
    that P equals the number drawn; from Samsung's code, where one draw decides for all parameters.

    Cost: T P, and a random number per parameter.
    """

    need = Need.ROWS

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """GradDrop (Chen et al. 2020): gradients of one random sign in each parameter."""

        leaks: tuple[float, ...] | None = None
        """Share of its dropped gradient that each task keeps, 0 to 1; by default none."""

        def __post_init__(self) -> None:
            """Check what does not depend on the number of tasks."""
            if self.leaks is not None and not all(0 <= leak <= 1 for leak in self.leaks):
                raise ValueError(f"leaks must lie between 0 and 1, got {self.leaks}")

    leaks: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Place the leaks on the device."""
        super().setup(num_tasks, shapes, device)
        leaks = (0.0,) * num_tasks if self.config.leaks is None else self.config.leaks
        if len(leaks) != num_tasks:
            raise ValueError(f"leaks must hold one number per task: {num_tasks} tasks, {len(leaks)} leaks")
        self.register_buffer("leaks", torch.tensor(leaks, dtype=torch.float64, device=device))

    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Return what the drawn signs leave, leaf by leaf."""
        assert system.rows is not None, "the need of this method is the rows"
        direction = tuple(
            keep_one_sign(leaf, torch.rand(leaf.shape[1:], generator=system.generator, device=leaf.device), self.leaks)
            / system.num_tasks
            for leaf in system.rows
        )
        return Aggregation(weights=None, direction=direction)


def keep_one_sign(
    leaf: Float[Tensor, "task *shape"], uniforms: Float[Tensor, "*shape"], leaks: Float[Tensor, " task"]
) -> Float[Tensor, "*shape"]:
    """Sum over the tasks what has the sign that `uniforms` decide on, and the leak of what has not."""
    positive, positive_leak = _sums(leaf.clamp(min=0), leaks)
    negative, negative_leak = _sums(leaf.clamp(max=0), leaks)
    positive_share = positive / (positive - negative)  # NaN where all gradients are zero, and stay zero
    return torch.where(positive_share > uniforms, positive + negative_leak, negative + positive_leak)


def _sums(part: Float[Tensor, "task *shape"], leaks: Float[Tensor, " task"]) -> tuple[Tensor, Tensor]:
    """Return the plain sum over the tasks and the one weighted by the leaks."""
    return part.sum(0), combine((part,), leaks)[0]
