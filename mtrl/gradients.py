"""Per-task gradients and their combination: the engine between losses and aggregators.

The author of a loss writes the loss of ONE task as a function of its arguments alone:

    loss(shared, private, frozen) -> (scalar, metrics)

`shared` are the parameters all tasks use, `private` one task's own, `frozen` everything else that task needs (batch,
targets, noise). Random draws happen outside, so the same loss can be evaluated again elsewhere and means the same. The
engine maps it over the task axis. Shared parameters receive the aggregated direction, private ones their own task's
gradient.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, grad_and_value, vmap

from mtrl.aggregators.base import Aggregator, Need, apply
from mtrl.aggregators.system import (
    Aggregation,
    GradientSystem,
    LossesAhead,
    condition_number,
    cosines,
    gramian,
    magnitude_similarity,
)
from mtrl.interfaces import Metrics, Parameters
from mtrl.timing import Stopwatch


@runtime_checkable
class TaskLoss(Protocol):
    """The loss of one task."""

    def __call__(self, shared: Parameters, private: Parameters, frozen: Any, /) -> tuple[Tensor, Metrics]:
        """Return the loss, a scalar, and this task's metrics."""
        ...


class TaskGradients(NamedTuple):
    """The gradients of all tasks, not yet combined."""

    losses: Float[Tensor, " task"]
    shared: Parameters
    """Per shared parameter the gradients of all tasks, (task, *shape)."""
    private: Parameters
    """Per private parameter the own task's gradient, (task, *shape)."""
    metrics: Metrics


class Update(NamedTuple):
    """What to descend, and what was found on the way."""

    losses: Float[Tensor, " task"]
    shared: Parameters
    """The aggregated direction, (*shape) per shared parameter."""
    private: Parameters
    """Per private parameter the own task's gradient, (task, *shape)."""
    metrics: Metrics
    weights: Float[Tensor, " task"] | None
    nonfinite: Tensor
    """(task,) bool: tasks whose loss or gradient is not finite. Such an update must not be applied. Where a method sees
    only losses, the gradient of their sum has not been looked at."""


@runtime_checkable
class Displace(Protocol):
    """What an optimiser would do."""

    def __call__(self, directions: Parameters, /) -> Parameters:
        """Return what a step along each direction would subtract from the shared parameters.

        Args:
            directions: Per shared parameter, (candidate, *shape).
        """
        ...


_CANDIDATES_AT_ONCE = 10
"""Points at which all losses are evaluated at once: ten times the memory of a forward pass without gradients."""


def task_gradients(loss: TaskLoss, shared: Parameters, private: Parameters, frozen: Any) -> TaskGradients:
    """Compute the gradient of every task's loss, all tasks at once.

    Args:
        loss: The loss of one task.
        shared: Parameters all tasks use.
        private: Parameters with the task on axis 0.
        frozen: A tree of tensors with the task on axis 0.
    """
    gradient = grad_and_value(loss, argnums=(0, 1), has_aux=True)
    (shared_rows, private_rows), (losses, metrics) = vmap(gradient, in_dims=(None, 0, 0))(shared, private, frozen)
    return TaskGradients(losses, shared_rows, private_rows, metrics)


@torch.no_grad()
def losses_at(loss: TaskLoss, shared: Parameters, private: Parameters, frozen: Any) -> Float[Tensor, " task"]:
    """Evaluate the same frozen losses at other parameters."""
    losses, _ = vmap(loss, in_dims=(None, 0, 0))(shared, private, frozen)
    return losses


def losses_after(
    loss: TaskLoss, shared: Parameters, private: Parameters, frozen: Any, moves: Parameters
) -> Float[Tensor, "candidate task"]:
    """Evaluate the same frozen losses after each of several moves of the shared parameters, a few at once.

    Args:
        loss: The loss of one task.
        shared: Parameters all tasks use.
        private: Parameters with the task on axis 0; they stay where they are.
        frozen: A tree of tensors with the task on axis 0.
        moves: Per shared parameter what each candidate subtracts from it, (candidate, *shape).
    """

    def losses(move: Parameters) -> Tensor:
        return losses_at(loss, {name: leaf - move[name] for name, leaf in shared.items()}, private, frozen)

    # In parts of nearly equal size: one candidate alone would be rounded otherwise than several together.
    num_parts = -(-len(next(iter(moves.values()))) // _CANDIDATES_AT_ONCE)
    parts = zip(*(leaf.tensor_split(num_parts) for leaf in moves.values()), strict=True)
    return torch.cat([vmap(losses)(dict(zip(moves, part, strict=True))) for part in parts])


def look_ahead(
    loss: TaskLoss,
    shared: Parameters,
    private: Parameters,
    frozen: Any,
    gradients: TaskGradients,
    displace: Displace | None = None,
) -> LossesAhead:
    """Return the function that evaluates the same frozen losses after steps along combinations of the task gradients.

    Args:
        loss: The loss of one task.
        shared: Parameters all tasks use.
        private: Parameters with the task on axis 0.
        frozen: A tree of tensors with the task on axis 0.
        gradients: What `task_gradients` found.
        displace: What the optimiser makes of directions; by default the step is the direction itself.
    """

    def losses_ahead(steps: Float[Tensor, "candidate task"]) -> Float[Tensor, "candidate task"]:
        moves = {name: torch.tensordot(steps.to(leaf.dtype), leaf, dims=1) for name, leaf in gradients.shared.items()}
        if displace is not None:
            moves = displace(moves)
        return losses_after(loss, shared, private, frozen, moves)

    return losses_ahead


def aggregate(
    loss: TaskLoss,
    shared: Parameters,
    private: Parameters,
    frozen: Any,
    aggregator: Aggregator,
    generator: torch.Generator,
    stopwatch: Stopwatch,
    probe: Parameters | None = None,
    displace: Displace | None = None,
) -> Update:
    """Compute the direction that `aggregator` chooses, and no more than it needs for that.

    Args:
        loss: The loss of one task.
        shared: Parameters all tasks use.
        private: Parameters with the task on axis 0.
        frozen: A tree of tensors with the task on axis 0.
        aggregator: Set up for these tasks and shared parameters.
        generator: Source of the aggregator's randomness.
        stopwatch: Counts what the aggregation adds to the gradients as "aggregation".
        probe: Zeros that the network adds to its representation, (task, batch, hidden), for methods that need it.
        displace: What the optimiser makes of directions, for methods that look ahead.
    """
    if aggregator.need <= Need.REPRESENTATION:
        return _weigh_losses(loss, shared, private, frozen, aggregator, generator, probe or {})
    gradients = task_gradients(loss, shared, private, frozen)
    with stopwatch("aggregation"):
        look = partial(look_ahead, loss, shared, private, frozen, gradients)
        return _aggregate_gradients(gradients, aggregator, generator, look(), look(displace) if displace else None)


def _aggregate_gradients(
    gradients: TaskGradients,
    aggregator: Aggregator,
    generator: torch.Generator,
    losses_ahead: LossesAhead,
    losses_after_step: LossesAhead | None,
) -> Update:
    """Let the aggregator look at the gradients and apply what it decides."""
    rows = tuple(gradients.shared.values())
    may_look_ahead = aggregator.need == Need.LOOKAHEAD
    products = gramian(rows) if aggregator.need.has_gramian else None
    is_broken = _nonfinite(gradients.shared) if products is None else ~products.diagonal().isfinite()
    nonfinite = ~gradients.losses.isfinite() | is_broken | _nonfinite(gradients.private)
    system = GradientSystem(
        num_tasks=len(nonfinite),
        losses=gradients.losses,
        # Solvers raise on NaN; the update is thrown away in that case, so any finite system will do.
        gramian=None if products is None else torch.where(nonfinite.any(), 0.0, products),
        rows=rows if aggregator.need == Need.ROWS else None,
        generator=generator,
        losses_ahead=losses_ahead if may_look_ahead else None,
        losses_after_step=losses_after_step if may_look_ahead else None,
    )
    aggregation = aggregator.aggregate(system)
    direction = dict(zip(gradients.shared, apply(aggregation, rows), strict=True))
    return Update(gradients.losses, direction, gradients.private, gradients.metrics, aggregation.weights, nonfinite)


@torch.enable_grad()
def _weigh_losses(
    loss: TaskLoss,
    shared: Parameters,
    private: Parameters,
    frozen: Any,
    aggregator: Aggregator,
    generator: torch.Generator,
    probe: Parameters,
) -> Update:
    """Do what `aggregate` does by one backward pass of the weighted sum of the losses."""
    assert bool(probe) == (aggregator.need == Need.REPRESENTATION), "a probe is given where it is needed"
    shared = {name: leaf.detach().requires_grad_() for name, leaf in shared.items()}
    private = {name: leaf.detach().requires_grad_() for name, leaf in private.items()}
    own = private | {name: leaf.detach().requires_grad_() for name, leaf in probe.items()}
    losses, metrics = vmap(loss, in_dims=(None, 0, 0))(shared, own, frozen)
    # Private parameters follow their own task's loss, unweighted; their path stops short of the shared ones.
    own_gradients = (
        torch.autograd.grad(losses.sum(), list(own.values()), retain_graph=True, materialize_grads=True) if own else ()
    )
    gradients = dict(zip(own, own_gradients, strict=True))
    nonfinite = ~losses.detach().isfinite() | _nonfinite(gradients)
    products = _gramian_of_own_rows([gradients.pop(name) for name in probe]) if probe else None
    system = GradientSystem(
        num_tasks=len(losses),
        losses=losses.detach(),
        gramian=None if products is None else torch.where(nonfinite.any(), 0.0, products),
        generator=generator,
    )
    weights = aggregator.aggregate(system).weights
    assert weights is not None, "a method that sees no gradients of the shared parameters returns weights"
    weighted = (losses * weights.to(losses.dtype)).sum()
    direction = torch.autograd.grad(weighted, list(shared.values()), materialize_grads=True)
    return Update(
        losses.detach(),
        dict(zip(shared, direction, strict=True)),
        gradients,
        {name: value.detach() for name, value in metrics.items()},
        weights,
        nonfinite,
    )


def representation_gramian(
    loss: TaskLoss, shared: Parameters, private: Parameters, frozen: Any, probe: Parameters
) -> Float[Tensor, "task task"]:
    """Compute the inner products of the gradients of the representation, which `probe` is added to."""

    def loss_at(probe: Parameters, private: Parameters, frozen: Any) -> Tensor:
        return loss(shared, private | probe, frozen)[0]

    return _gramian_of_own_rows(list(vmap(grad(loss_at))(probe, private, frozen).values()))


def _gramian_of_own_rows(leaves: Sequence[Tensor]) -> Float[Tensor, "task task"]:
    """Return the Gramian of gradients by (task, batch, ...) that each task's loss has in its own slice alone."""
    return torch.stack([leaf.double().square().flatten(1).sum(1) for leaf in leaves]).sum(0).diag()


def _nonfinite(gradients: Parameters) -> Tensor | bool:
    """Return (task,) which tasks have a gradient, (task, *shape), that is not finite; False where there are none."""
    flags = [~leaf[:, None].flatten(1).abs().amax(1).isfinite() for leaf in gradients.values()]
    return torch.stack(flags).any(0) if flags else False


def measure(rows: Sequence[Tensor], aggregation: Aggregation | None = None) -> Metrics:
    """Describe a gradient system: norm per task, cosines, conflicts, and its condition before and after aggregation.

    Args:
        rows: Per shared parameter the gradients of all tasks, (task, *shape).
        aggregation: What a method made of them; with a mixing matrix M condition number and similarity of
            M J are added.

    Returns:
        `gradient_norm` (task,), `cosine` (task, task), `conflict_share` (share of task pairs with a negative cosine),
        `condition_number`, `magnitude_similarity` and, where there is a mixing matrix, both with `_after`.
    """
    products = gramian(rows)
    cosine = cosines(products)
    num_tasks = len(products)
    pairs = max(1, num_tasks * (num_tasks - 1))
    metrics = {
        "gradient_norm": products.diagonal().sqrt(),
        "cosine": cosine,
        "conflict_share": (cosine < 0).sum() / pairs,
        "condition_number": condition_number(products),
        "magnitude_similarity": magnitude_similarity(products),
    }
    if aggregation is not None and aggregation.mixing is not None:
        mixed = aggregation.mixing @ products @ aggregation.mixing.T
        metrics["condition_number_after"] = condition_number((mixed + mixed.T) / 2)
        metrics["magnitude_similarity_after"] = magnitude_similarity(mixed)
    return metrics
