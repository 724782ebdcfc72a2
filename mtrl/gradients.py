"""Per-task gradients and their combination: the engine between losses and aggregators.

The author of a loss writes the loss of ONE task as a function of its arguments alone:

    loss(shared, private, frozen) -> (scalar, metrics)

`shared` are the parameters all tasks use, `private` one task's own, `frozen` everything else that task needs (batch,
targets, noise). Random draws happen outside, so the same loss can be evaluated again elsewhere and means the same. The
engine maps it over the task axis. Shared parameters receive the aggregated direction, private ones their own task's
gradient.
"""

from collections.abc import Callable, Iterable, Sequence
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
    Rows,
    combine,
    condition_number,
    cosines,
    gramian,
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
    only losses and they are finite, but not the gradient of their sum, all tasks are flagged."""


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


def look_ahead(
    loss: TaskLoss, shared: Parameters, private: Parameters, frozen: Any, rows: Sequence[Tensor]
) -> LossesAhead:
    """Return the function that evaluates the same frozen losses after steps along `rows`, one step after the other."""

    def losses_ahead(steps: Float[Tensor, "candidate task"]) -> Float[Tensor, "candidate task"]:
        return torch.stack([losses_at(loss, _moved(shared, combine(rows, step)), private, frozen) for step in steps])

    return losses_ahead


def _moved(shared: Parameters, direction: Sequence[Tensor]) -> Parameters:
    """Return the parameters after a step along minus `direction`."""
    return {name: leaf - move for (name, leaf), move in zip(shared.items(), direction, strict=True)}


def aggregate(
    loss: TaskLoss,
    shared: Parameters,
    private: Parameters,
    frozen: Any,
    aggregator: Aggregator,
    generator: torch.Generator,
    stopwatch: Stopwatch,
    probe: Parameters | None = None,
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
    """
    if aggregator.need <= Need.REPRESENTATION:
        return _weigh_losses(loss, shared, private, frozen, aggregator, generator, probe or {})
    gradients = task_gradients(loss, shared, private, frozen)
    with stopwatch("aggregation"):
        rows = tuple(gradients.shared.values())
        ahead = look_ahead(loss, shared, private, frozen, rows) if aggregator.need == Need.LOOKAHEAD else None
        return _aggregate_gradients(gradients, rows, aggregator, generator, ahead)


def _aggregate_gradients(
    gradients: TaskGradients,
    rows: Rows,
    aggregator: Aggregator,
    generator: torch.Generator,
    losses_ahead: LossesAhead | None,
) -> Update:
    """Let the aggregator look at the gradients and apply what it decides."""
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
        losses_ahead=losses_ahead,
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
    # One backward pass does not tell whose gradient broke the sum: flag all tasks unless one is known to be at fault.
    unexplained = ~torch.stack([leaf.isfinite().all() for leaf in direction]).all() & ~nonfinite.any()
    return Update(
        losses.detach(),
        dict(zip(shared, direction, strict=True)),
        gradients,
        {name: value.detach() for name, value in metrics.items()},
        weights,
        nonfinite | unexplained,
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
    """Describe a gradient system: norm per task, cosines, conflicts, condition number before and after aggregation.

    Args:
        rows: Per shared parameter the gradients of all tasks, (task, *shape).
        aggregation: What a method made of them; with a mixing matrix M the condition number of M J is added.

    Returns:
        `gradient_norm` (task,), `cosine` (task, task), `conflict_share` (share of task pairs with a negative cosine),
        `condition_number` and, where it exists, `condition_number_after`.
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
    }
    if aggregation is not None and aggregation.mixing is not None:
        mixed = aggregation.mixing @ products @ aggregation.mixing.T
        metrics["condition_number_after"] = condition_number((mixed + mixed.T) / 2)
    return metrics


def backward(
    losses: Sequence[Tensor] | Tensor,
    *,
    shared: Iterable[Tensor],
    private: Iterable[Tensor] = (),
    representation: Iterable[Tensor] = (),
    aggregator: Aggregator,
    generator: torch.Generator | None = None,
    evaluate: Callable[[], Sequence[Tensor]] | None = None,
) -> None:
    """Accumulate into `.grad` what `aggregator` makes of the task gradients: `loss.backward()` for several losses.

        losses = [criterion(head(trunk(x)), y) for head, y in zip(heads, targets)]
        backward(losses, shared=trunk.parameters(), private=heads.parameters(), aggregator=make("aligned"))
        optimizer.step()

    Args:
        losses: One scalar per task, from one graph of any torch model.
        shared: Parameters all tasks use: they receive the aggregated direction.
        private: Parameters of which each serves one task: they receive that task's gradient.
        representation: What the encoder, whose parameters are `shared`, hands to the heads, for methods that look at
            its gradients.
        aggregator: Any method of `mtrl.aggregators`.
        generator: Source of the aggregator's randomness; by default the aggregator's own.
        evaluate: Computes the losses again, on the same batch, at the values that the shared parameters have when it
            is called. For methods that look ahead; those parameters are moved for it and put back.

    Raises:
        ValueError: A loss is not a scalar, there are no losses or no shared parameters, a parameter is both shared and
            private, or the method needs a representation, or to look ahead, and cannot.
    """
    losses, shared, private, representation = list(losses), list(shared), list(private), list(representation)
    _check_backward_arguments(losses, shared, private)
    seen = representation if aggregator.need == Need.REPRESENTATION else shared
    if not seen:
        raise ValueError("representation is empty: this method looks at the gradients of the encoder's output")
    if aggregator.need == Need.LOSSES:
        rows: Rows = ()
    else:
        gradients = [torch.autograd.grad(loss, seen, retain_graph=True, materialize_grads=True) for loss in losses]
        rows = tuple(torch.stack(leaf) for leaf in zip(*gradients, strict=True))
    aggregator.setup_once(len(losses), [leaf.shape for leaf in shared], shared[0].device)
    values = torch.stack(losses)
    # Before a method may look ahead, which moves the parameters that the graph refers to.
    own = torch.autograd.grad(values.sum(), private, retain_graph=True, materialize_grads=True) if private else ()
    aggregation = aggregator.aggregate(
        GradientSystem(
            num_tasks=len(losses),
            losses=values.detach(),
            gramian=gramian(rows) if aggregator.need.has_gramian else None,
            rows=rows if aggregator.need == Need.ROWS else None,
            generator=generator or aggregator.own_generator(shared[0].device),
            losses_ahead=_look_ahead_in_place(evaluate, shared, rows) if evaluate is not None and rows else None,
        )
    )
    _accumulate(private, own)
    if aggregator.need == Need.REPRESENTATION:
        cotangents = apply(aggregation, rows)
        _accumulate(shared, torch.autograd.grad(representation, shared, cotangents, materialize_grads=True))
    elif rows:
        _accumulate(shared, apply(aggregation, rows))
    else:
        assert aggregation.weights is not None, "a method that sees only losses returns weights"
        weighted = (values * aggregation.weights.to(values.dtype)).sum()
        _accumulate(shared, torch.autograd.grad(weighted, shared, materialize_grads=True))


def _look_ahead_in_place(evaluate: Callable[[], Sequence[Tensor]], shared: Sequence[Tensor], rows: Rows) -> LossesAhead:
    """Do what `look_ahead` does, for losses that are no function of the parameters but read them."""

    @torch.no_grad()
    def losses_ahead(steps: Float[Tensor, "candidate task"]) -> Float[Tensor, "candidate task"]:
        before = [parameter.clone() for parameter in shared]
        losses = []
        try:
            for step in steps:
                for parameter, start, move in zip(shared, before, combine(rows, step), strict=True):
                    parameter.copy_(start - move)
                losses.append(torch.stack(list(evaluate())))
        finally:
            for parameter, start in zip(shared, before, strict=True):
                parameter.copy_(start)
        return torch.stack(losses)

    return losses_ahead


def _accumulate(parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
    """Add to `.grad`, as torch's own backward does."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.grad is None:
            # In the parameter's memory order, on which fused optimisers rely.
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad += gradient


def _check_backward_arguments(losses: list[Tensor], shared: list[Tensor], private: list[Tensor]) -> None:
    """Raise a ValueError for what a caller can get wrong."""
    if not losses:
        raise ValueError("losses is empty: expected one scalar loss per task")
    for index, loss in enumerate(losses):
        if loss.dim() != 0:
            raise ValueError(f"losses[{index}] must be a scalar, got shape {tuple(loss.shape)}")
    if not shared:
        raise ValueError("shared is empty: expected the parameters all tasks use")
    both = {id(parameter) for parameter in shared} & {id(parameter) for parameter in private}
    if both:
        raise ValueError(f"{len(both)} parameters are both shared and private; each must be one or the other")
