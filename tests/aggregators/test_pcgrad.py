"""PCGrad: values by hand, an independent loop over vectors, and where its randomness comes from."""

import itertools

import pytest
import torch
from torch import Tensor

from mtrl.aggregators import make
from mtrl.aggregators.pcgrad import project
from mtrl.aggregators.system import GradientSystem, gramian
from tests.aggregators.jacobians import DEGENERATE, FULL_RANK, gaussian


def projected_rows(jacobian: Tensor, orders: list[list[int]]) -> Tensor:
    """Follow algorithm 1 of Yu et al. 2020 on the vectors themselves."""
    rows = []
    for task, order in enumerate(orders):
        row = jacobian[task].clone()
        for other in order:
            inner = row @ jacobian[other]
            if inner < 0:
                row -= inner / (jacobian[other] @ jacobian[other]) * jacobian[other]
        rows.append(row)
    return torch.stack(rows)


def random_orders(num_tasks: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(num_tasks, generator=generator).tolist() for _ in range(num_tasks)]
    return [[other for other in order if other != task] for task, order in enumerate(orders)]


def test_two_conflicting_gradients():
    # g1 = (1, 0), g2 = (-1, 1): <g1, g2> = -1. g1' = g1 + 1/2 g2 = (1/2, 1/2); g2' = g2 + g1 = (0, 1).
    # Mean: (1/4, 3/4).
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    coefficients = project(gramian((jacobian,)), torch.tensor([[1], [0]]))
    assert torch.equal(coefficients, torch.tensor([[1.0, 0.5], [1.0, 1.0]]).double())
    assert torch.equal(make("pcgrad")(jacobian), torch.tensor([0.25, 0.75]).double())


def test_gradients_that_agree_are_averaged():
    jacobian = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0]], dtype=torch.float64)
    assert torch.allclose(make("pcgrad")(jacobian), jacobian.mean(0), rtol=1e-15)


def test_opposite_gradients_cancel():
    # g' = g - g = 0 for both.
    assert torch.equal(make("pcgrad")(DEGENERATE["opposite rows"]), torch.zeros(3, dtype=torch.float64))


def test_zero_row_never_conflicts():
    jacobian = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    coefficients = project(gramian((jacobian,)), torch.tensor([[1, 2], [0, 2], [1, 0]]))
    assert torch.equal(coefficients, torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]).double())


def test_order_decides_for_three_tasks():
    # g1 = (1, 0), g2 = (-1, 1), g3 = (-1, -2).
    # g1 meets g2 first: g1 + 1/2 g2 = (1/2, 1/2); then g3: inner -3/2, |g3|^2 = 5: + 3/10 g3 = (1/5, -1/10).
    # g1 meets g3 first: g1 + 1/5 g3 = (4/5, -2/5); then g2: inner -6/5, |g2|^2 = 2: + 3/5 g2 = (1/5, 1/5).
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [-1.0, -2.0]], dtype=torch.float64)
    products = gramian((jacobian,))
    first = project(products, torch.tensor([[1, 2], [0, 2], [0, 1]]))[0] @ jacobian
    second = project(products, torch.tensor([[2, 1], [0, 2], [0, 1]]))[0] @ jacobian
    assert torch.allclose(first, torch.tensor([0.2, -0.1]).double(), atol=1e-15)
    assert torch.allclose(second, torch.tensor([0.2, 0.2]).double(), atol=1e-15)


@pytest.mark.parametrize("case", [*FULL_RANK, "more tasks than parameters", "duplicated rows", "zero row"])
@pytest.mark.parametrize("seed", range(2))
def test_coefficients_equal_the_projections_of_the_vectors(case, seed):
    jacobian = {**FULL_RANK, **DEGENERATE}[case]
    if case == "duplicated rows":
        jacobian = jacobian + 0.01 * gaussian(*jacobian.shape)  # exact copies make inner products of rounding noise
    orders = random_orders(len(jacobian), seed)
    expected = projected_rows(jacobian, orders)
    found = project(gramian((jacobian,)), torch.tensor(orders)) @ jacobian
    assert (found - expected).norm() <= 1e-10 * jacobian.norm()


@pytest.mark.parametrize("seed", range(5))
def test_no_conflict_remains_between_two_tasks(seed):
    jacobian = gaussian(2, 3, seed)
    jacobian[1] -= 2 * jacobian[0]
    assert jacobian[0] @ jacobian[1] < 0
    assert (jacobian @ make("pcgrad")(jacobian) >= -1e-12 * jacobian.norm() ** 2).all()


def test_last_projection_removes_the_conflict_with_the_task_met_last():
    jacobian = DEGENERATE["more tasks than parameters"]
    orders = random_orders(len(jacobian), seed=0)
    rows = project(gramian((jacobian,)), torch.tensor(orders)) @ jacobian
    last = torch.stack([rows[task] @ jacobian[order[-1]] for task, order in enumerate(orders)])
    assert (last >= -1e-12).all()


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
def test_direction_scales_with_the_gradients(scale):
    jacobian = gaussian(6, 3)
    assert torch.equal(make("pcgrad")(scale * jacobian), scale * make("pcgrad")(jacobian))


def test_orders_come_from_the_passed_generator_alone():
    jacobian = gaussian(6, 3)
    aggregator = make("pcgrad")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = aggregator(jacobian, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(1)
    again = aggregator(jacobian, generator=torch.Generator().manual_seed(1))
    other = aggregator(jacobian, generator=torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_each_task_draws_its_own_order_and_never_meets_itself():
    # With two rows of -1 and one of 0.5 in one dimension nothing shows the order; the mixing matrix of rows in general
    # position does. Over 64 seeds every one of the 2^3 combinations of orders of three tasks has to turn up.
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [-1.0, -2.0]], dtype=torch.float64)
    products = gramian((jacobian,))
    orders = [list(itertools.permutations([other for other in range(3) if other != task])) for task in range(3)]
    possible = [project(products, torch.tensor(choice)) for choice in itertools.product(*orders)]
    aggregator = make("pcgrad")
    seen = set()
    for seed in range(64):
        system = GradientSystem(num_tasks=3, gramian=products, generator=torch.Generator().manual_seed(seed))
        mixing = aggregator.aggregate(system).mixing
        assert mixing is not None
        seen |= {index for index, matrix in enumerate(possible) if torch.equal(matrix, mixing)}
    distinct = {tuple(matrix.flatten().tolist()): index for index, matrix in enumerate(possible)}
    assert seen >= set(distinct.values())


def test_row_whose_square_underflows_is_left_out():
    jacobian = torch.tensor([[1e-170, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    assert make("pcgrad")(jacobian).isfinite().all()
