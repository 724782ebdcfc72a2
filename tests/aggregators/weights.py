"""Reads the weights that a method gives to the rows of a Jacobian."""

from torch import Tensor

from mtrl.aggregators.base import Aggregator
from mtrl.aggregators.system import GradientSystem, gramian


def weights_of(aggregator: Aggregator, jacobian: Tensor, losses: Tensor | None = None) -> Tensor:
    """Let a method that needs the Gramian see one update, and return the weights, which must be there."""
    aggregator.setup_once(len(jacobian), [jacobian.shape[1:]], jacobian.device)
    system = GradientSystem(num_tasks=len(jacobian), losses=losses, gramian=gramian((jacobian,)))
    weights = aggregator.aggregate(system).weights
    assert weights is not None
    return weights
