"""What sets a method apart, found by using it: so that tests of every method know what to expect of a new one."""

import torch

from mtrl.aggregators import make, names
from mtrl.aggregators.base import Aggregator, Need
from mtrl.aggregators.system import Aggregation, GradientSystem
from tests.aggregators.jacobians import gaussian


def sees_gradients_of_parameters() -> list[str]:
    """Return all methods but those that look at a representation, which only some networks name."""
    return [name for name in names() if make(name).need != Need.REPRESENTATION]


def draws_random_numbers(method: str) -> bool:
    """Return whether the method advances the generator it is given."""
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    make(method)(gaussian(3, 5), torch.ones(3).double(), generator)
    return not torch.equal(before, generator.get_state())


def learns(method: str) -> bool:
    """Return whether an update changes the method's own state."""
    aggregator = make(method)
    _direct(aggregator, 3, seed=0)
    before = {name: value.clone() for name, value in aggregator.state_dict().items()}
    _direct(aggregator, 3, seed=1)
    return any(not torch.equal(before[name], value) for name, value in aggregator.state_dict().items())


def repeats_itself(method: str) -> bool:
    """Return whether the method answers the same question in the same way."""
    aggregator = make(method)
    return torch.equal(_direct(aggregator, 3, seed=0), _direct(aggregator, 3, seed=0))


def is_identity_for_one_task(method: str) -> bool:
    """Return whether the method hands the gradient of an only task on as it is, update after update."""
    aggregator = make(method)
    return all(torch.allclose(_direct(aggregator, 1, seed), gaussian(1, 5, seed)[0], rtol=1e-12) for seed in range(3))


def weighs_rows(method: str) -> bool:
    """Return whether the method's direction is a weighted sum of the rows it is given."""
    return _aggregation(method).weights is not None


def _aggregation(method: str) -> Aggregation:
    aggregator = make(method)
    aggregator.setup(2, [torch.Size([2])], torch.device("cpu"))
    rows = torch.eye(2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    return aggregator.aggregate(
        GradientSystem(num_tasks=2, losses=torch.ones(2), gramian=rows, rows=(rows,), generator=generator)
    )


def _direct(aggregator: Aggregator, num_tasks: int, seed: int) -> torch.Tensor:
    losses = torch.arange(num_tasks, dtype=torch.float64) + 2 + seed
    return aggregator(gaussian(num_tasks, 5, seed), losses, torch.Generator().manual_seed(seed))
