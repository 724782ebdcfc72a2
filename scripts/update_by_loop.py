"""The agent's update with the gradients of the tasks computed by loops, for comparison."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from unittest.mock import patch

import torch
from torch import Tensor
from torch.func import vmap

from mtrl import gradients
from mtrl.agents.mtsac import MTSAC
from mtrl.aggregators.base import Aggregator
from mtrl.gradients import TaskGradients, TaskLoss, Update
from mtrl.interfaces import Batch, Parameters


class FindGradients(Protocol):
    """A way to compute the gradients of all tasks."""

    def __call__(self, loss: TaskLoss, shared: Parameters, private: Parameters, frozen: Any, /) -> TaskGradients:
        """Do as `mtrl.gradients.task_gradients`."""
        ...


def update_by(find: FindGradients, agent: MTSAC, batch: Batch) -> None:
    """Update the agent as it does itself, except that the gradients of the tasks are computed by `find`."""

    def aggregate(
        loss: TaskLoss,
        shared: Parameters,
        private: Parameters,
        frozen: Any,
        aggregator: Aggregator,
        generator: torch.Generator,
        *_: Any,
    ) -> Update:
        found = find(loss, shared, private, frozen)
        ahead = gradients.look_ahead(loss, shared, private, frozen, found)
        return gradients._aggregate_gradients(found, aggregator, generator, ahead, None)  # noqa: SLF001 - its rest

    with patch("mtrl.agents.component.aggregate", aggregate):
        agent.update(batch)


def loop(loss: TaskLoss, shared: Parameters, private: Parameters, frozen: Any, /) -> TaskGradients:
    """Compute the gradients of all tasks by one backward per task over a shared graph."""
    with torch.enable_grad():
        shared, private = _variables(shared), _variables(private)
        losses, metrics = vmap(loss, in_dims=(None, 0, 0))(shared, private, frozen)
        leaves = [*shared.values(), *private.values()]
        rows = [torch.autograd.grad(one, leaves, retain_graph=True, materialize_grads=True) for one in losses.unbind()]
    columns = list(zip(*rows, strict=True))
    own = [torch.stack([leaf[task] for task, leaf in enumerate(column)]) for column in columns[len(shared) :]]
    return TaskGradients(
        losses.detach(),
        {name: torch.stack(column) for name, column in zip(shared, columns, strict=False)},
        dict(zip(private, own, strict=True)),
        {name: value.detach() for name, value in metrics.items()},
    )


def own_passes(loss: TaskLoss, shared: Parameters, private: Parameters, frozen: Any, /) -> TaskGradients:
    """Compute the gradients of all tasks by one forward and backward per task, on its own transitions."""
    found = [_own_pass(loss, shared, _of_task(private, task), _of_task(frozen, task)) for task in range(len(frozen[0]))]
    losses, rows, own, metrics = zip(*found, strict=True)
    return TaskGradients(torch.stack(losses), *(_stack(trees) for trees in (rows, own, metrics)))


def _own_pass(
    loss: TaskLoss, shared: Parameters, private: Parameters, frozen: Any
) -> tuple[Tensor, Parameters, Parameters, Parameters]:
    with torch.enable_grad():
        shared, private = _variables(shared), _variables(private)
        value, metrics = loss(shared, private, frozen)
        leaves = [*shared.values(), *private.values()]
        found = torch.autograd.grad(value, leaves, materialize_grads=True)
    return (
        value.detach(),
        dict(zip(shared, found, strict=False)),
        dict(zip(private, found[len(shared) :], strict=True)),
        {name: metric.detach() for name, metric in metrics.items()},
    )


def _variables(parameters: Parameters) -> Parameters:
    return {name: leaf.detach().requires_grad_() for name, leaf in parameters.items()}


def _of_task(tree: Any, task: int) -> Any:
    """Return one task's slice of a tree of dicts and named tuples."""
    if isinstance(tree, Tensor):
        return tree[task]
    if isinstance(tree, Mapping):
        return {name: _of_task(leaf, task) for name, leaf in tree.items()}
    return type(tree)(*(_of_task(leaf, task) for leaf in tree))


def _stack(trees: Sequence[Parameters]) -> Parameters:
    return {name: torch.stack([tree[name] for tree in trees]) for name in trees[0]}
