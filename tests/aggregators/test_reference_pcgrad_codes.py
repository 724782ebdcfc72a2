"""PCGrad in two published codes: what they compute, and that nothing but their constants sets them apart from ours."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from mtrl.aggregators.pcgrad import project
from mtrl.aggregators.system import gramian
from tests.aggregators.vectors import DATA, read

CASES = read(DATA / "cases.json")["cases"]

MTRL, SAMSUNG = (
    [pytest.param(vector, id=vector["name"]) for vector in read(DATA / f"{name}.json")["vectors"]]
    for name in ("pcgrad_mtrl", "pcgrad_samsung")
)

Along = Callable[[Tensor, Tensor], Tensor]
"""From a gradient and the one it conflicts with to the part to be taken away."""


def published(jacobian: Tensor, orders: Sequence[Sequence[int]], along: Along) -> Tensor:
    """Return the projected gradients, row by row and in the order given, as all codes do it."""
    rows = jacobian.clone()
    for task, order in enumerate(orders):
        for other in order:
            if rows[task] @ jacobian[other] < 0:
                rows[task] -= along(rows[task], jacobian[other])
    return rows


def by_length(eps: float) -> Along:
    def along(row: Tensor, other: Tensor) -> Tensor:
        unit = other / (other.norm() + eps)
        return (row @ unit) * unit

    return along


def by_square(eps: float) -> Along:
    return lambda row, other: (row @ other) / (other @ other + eps) * other


def assert_near(found: Tensor, expected: Tensor, size: float, tolerance: float) -> None:
    assert (found - expected).norm() <= tolerance * size


@pytest.mark.parametrize("vector", MTRL)
def test_the_code_for_reinforcement_learning_but_for_its_constant(vector):
    jacobian = torch.tensor(CASES[vector["case"]]["jacobian"], dtype=torch.float64)
    size = float(jacobian.norm(dim=1).max())
    expected = torch.tensor(vector["gradient"], dtype=torch.float64)
    assert_near(published(jacobian, vector["orders"], by_length(1e-8)).mean(0), expected, size, 1e-12)
    ours = project(gramian((jacobian,)), torch.tensor(vector["orders"])) @ jacobian
    assert_near(ours.mean(0), published(jacobian, vector["orders"], by_length(0.0)).mean(0), size, 1e-10)


@pytest.mark.parametrize("vector", SAMSUNG)
def test_the_supervised_code_but_for_its_constant_and_the_task_itself(vector):
    jacobian = torch.tensor(CASES[vector["case"]]["jacobian"], dtype=torch.float64)
    size = float(jacobian.norm(dim=1).max())
    num_tasks, order = len(jacobian), vector["order"]
    expected = torch.tensor(vector["gradient"], dtype=torch.float64)
    assert_near(published(jacobian, [order] * num_tasks, by_square(1e-5)).sum(0), expected, size, 1e-12 * num_tasks)
    others = [[other for other in order if other != task] for task in range(num_tasks)]
    orders = torch.tensor(others, dtype=torch.int64).reshape(num_tasks, -1)
    ours = project(gramian((jacobian,)), orders) @ jacobian
    assert_near(ours.sum(0), published(jacobian, others, by_square(0.0)).sum(0), size, 1e-10 * num_tasks)
