"""What every aggregation method is: a rule from the gradient system of an update to one direction."""

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import Enum, IntEnum
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mtrl.aggregators.system import Aggregation, GradientSystem, combine, gramian

Setup = tuple[int, tuple[torch.Size, ...], torch.device]
"""What a method's state is for: the number of tasks, the shapes of the shared parameters, the device."""


class Need(IntEnum):
    """The least a method must see. Whoever computes the gradients computes no more."""

    LOSSES = 0
    """The loss values: one ordinary backward pass of their weighted sum."""
    REPRESENTATION = 1
    """The inner products of the gradients of what the encoder hands to the heads; no gradient of its parameters."""
    GRAMIAN = 2
    """The inner products of the task gradients."""
    ROWS = 3
    """The task gradients themselves, and no inner products of them: few such methods want any."""
    LOOKAHEAD = 4
    """The Gramian, and the same losses at other parameters."""

    @property
    def has_gramian(self) -> bool:
        """Whether the method sees inner products."""
        return self in (Need.REPRESENTATION, Need.GRAMIAN, Need.LOOKAHEAD)


class Invariance(Enum):
    """What may change about the tasks without turning the direction. Its length may change with it."""

    GRADIENT_SCALES = "gradients"
    """The gradient of each task is multiplied by a positive number of its own, another one in every update. Where a
    method does not look at losses, this covers every increasing transform of every loss."""
    LOSS_SCALES = "losses"
    """The loss of each task, and its gradient with it, is multiplied by a positive number of its own: another unit."""


class Aggregator(nn.Module, ABC):
    """Combines the gradients of T tasks into one direction.

    State, if a method has any, lives in buffers that `setup` creates and `aggregate` updates in place, so that
    `state_dict` and `load_state_dict` carry it. Two uses of one method (critic and actor, say) need two objects.

    Subclasses implement `aggregate`, set `need`, and where they look again after the step, `observes` and `observe`.
    Where options decide on one of these facts, `__init__` sets it on the object; ask objects, not classes.
    """

    need: Need = Need.GRAMIAN
    observes: bool = False
    """Whether `observe` must be called with the losses after the step, on the same batch."""
    needs_positive_losses: bool = False
    """Whether the method means nothing where losses are negative, as an actor's are. It stays finite there."""
    invariances: frozenset[Invariance] = frozenset()
    """What does not turn the direction. Declared only where it holds for all independent gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.num_tasks: int | None = None
        self.was_thrown_away = False
        """Whether the last update was not finite, so that there is nothing to `observe`."""
        self._own_generator: torch.Generator | None = None
        self._set_up_for: Setup | None = None

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Create all state for `num_tasks` tasks and shared parameters of the given shapes.

        Raises:
            ValueError: The configuration does not fit the number of tasks.
        """
        self.num_tasks = num_tasks
        self._set_up_for = _key(num_tasks, shapes, device)

    def setup_once(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Call `setup` unless it was last called with the same arguments; warn where that forgets what was learned."""
        if self._set_up_for == _key(num_tasks, shapes, device):
            return
        if self._set_up_for is not None and self._has_learned(*self._set_up_for):
            warnings.warn(
                f"{type(self).__name__} forgets what it has learned: number of tasks, shapes of shared parameters or "
                f"device changed from {self._set_up_for} to {_key(num_tasks, shapes, device)}",
                stacklevel=3,
            )
        self.setup(num_tasks, shapes, device)
        self._own_generator = None

    def _has_learned(self, *set_up_for: Any) -> bool:
        """Whether the state is another than `setup` created."""
        fresh = copy.deepcopy(self)
        fresh.setup(*set_up_for)
        return any(not torch.equal(value, fresh.get_buffer(name)) for name, value in self.named_buffers())

    @abstractmethod
    def aggregate(self, system: GradientSystem) -> Aggregation:
        """Decide on a direction for the system of one update, and update the method's own state."""

    def observe(self, losses: Float[Tensor, " task"]) -> None:
        """Take in the losses of the same batch after the step. Called only where `observes` is set."""
        del losses

    def forward(
        self,
        jacobian: Float[Tensor, "task param"],
        losses: Float[Tensor, " task"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, " param"]:
        """Combine the rows of a Jacobian.

        Where a number is not finite, the direction is NaN, and the method's state stays as it was.

        Args:
            jacobian: Gradient of each task in a row.
            losses: Loss of each task, for the methods that look at it.
            generator: Source of randomness; by default the aggregator keeps one of its own, seeded with 0.

        Returns:
            The direction to descend, in the dtype and on the device of `jacobian`.

        Raises:
            ValueError: `jacobian` is not a matrix with at least one row, there is not one loss per row, or the method
                looks at losses and there are none.
        """
        if jacobian.dim() != 2 or jacobian.shape[0] == 0:
            raise ValueError(f"jacobian must be (task, param) with at least one task, got {tuple(jacobian.shape)}")
        num_tasks = jacobian.shape[0]
        if losses is not None and losses.shape != (num_tasks,):
            raise ValueError(f"losses must be ({num_tasks},), one per row of jacobian, got {tuple(losses.shape)}")
        self.setup_once(num_tasks, [jacobian.shape[1:]], jacobian.device)
        rows = (jacobian,)
        self.was_thrown_away = not all_finite([*rows, *([] if losses is None else [losses])])
        if self.was_thrown_away:
            return torch.full_like(jacobian[0], torch.nan)
        system = GradientSystem(
            num_tasks=num_tasks,
            losses=losses,
            gramian=gramian(rows) if self.need.has_gramian else None,
            rows=rows if self.need == Need.ROWS else None,
            generator=generator or self.own_generator(jacobian.device),
        )
        (direction,) = apply(self.aggregate(system), rows)
        return direction

    def own_generator(self, device: torch.device) -> torch.Generator:
        """Return the generator this object falls back on where the caller passes none; seeded with 0."""
        if self._own_generator is None:
            self._own_generator = torch.Generator(device).manual_seed(0)
        return self._own_generator


@runtime_checkable
class HasTaskWeights(Protocol):
    """Configuration of a method with a weight per task."""

    @property
    def weights(self) -> tuple[float, ...] | None:
        """Weight of each task, or None for equal ones."""
        ...


class WeightedAggregator(Aggregator):
    """A method with a weight per task, `task_weights`: those of its configuration, by default 1/T each."""

    task_weights: Tensor

    def __init__(self, config: HasTaskWeights) -> None:
        super().__init__()
        self._weights = config.weights

    def setup(self, num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> None:
        """Place the task weights on the device."""
        super().setup(num_tasks, shapes, device)
        self.register_buffer("task_weights", resolve_task_weights(self._weights, num_tasks, device))


def _key(num_tasks: int, shapes: Sequence[torch.Size], device: torch.device) -> Setup:
    """Return what state is for, on the device that "cuda" stands for."""
    return num_tasks, tuple(shapes), torch.empty(0, device=device).device


def apply(aggregation: Aggregation, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return the direction that `aggregation` describes, leaf by leaf."""
    if aggregation.direction is not None:
        return aggregation.direction
    assert aggregation.weights is not None, "an aggregation has weights or a direction"
    return combine(rows, aggregation.weights)


def all_finite(tensors: Sequence[Tensor]) -> bool:
    """Return whether all numbers are finite."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())  # one wait for the device


def check_task_weights(weights: tuple[float, ...] | None) -> None:
    """Raise a ValueError unless `weights` is None or finite, non-negative and not all zero."""
    if weights is None:
        return
    if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
        raise ValueError(f"weights must be finite, non-negative and not all zero, got {weights}")


def resolve_task_weights(
    weights: tuple[float, ...] | None, num_tasks: int, device: torch.device
) -> Float[Tensor, " task"]:
    """Return `weights` as they are, or 1/T for each task, in float64.

    Raises:
        ValueError: There are not as many weights as tasks.
    """
    if weights is None:
        return torch.full((num_tasks,), 1 / num_tasks, dtype=torch.float64, device=device)
    if len(weights) != num_tasks:
        raise ValueError(f"weights must hold one number per task: {num_tasks} tasks, {len(weights)} weights")
    return torch.tensor(weights, dtype=torch.float64, device=device)
